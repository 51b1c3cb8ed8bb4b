"""Prefect's events while something is done, as an automation would get them."""

import asyncio
from collections.abc import Callable

from prefect.events import Event, emit_event
from prefect.events.clients import PrefectEventSubscriber
from prefect.events.filters import EventFilter, EventNameFilter

_END = "leadloop.tests.end"


def watched(api_url: str, work: Callable[[], object], *names: str) -> list[Event]:
    """The events of these names that a piece of work causes; all of them where none is given.

    They come in order, so that one of our own that follows marks the end.
    """

    async def watch() -> list[Event]:
        only = EventFilter(event=EventNameFilter(name=[*names, _END])) if names else None
        seen: list[Event] = []
        async with PrefectEventSubscriber(api_url, filter=only) as events:
            await asyncio.to_thread(work)
            emit_event(_END, resource={"prefect.resource.id": "tests"})
            async for event in events:
                if event.event == _END:
                    break
                seen.append(event)
        return seen

    return asyncio.run(asyncio.wait_for(watch(), 180))
