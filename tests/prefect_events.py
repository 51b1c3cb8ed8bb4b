"""Prefect's events during a piece of work, as an automation receives them."""

import asyncio
from collections.abc import Callable

from prefect.events import Event, emit_event
from prefect.events.clients import PrefectEventSubscriber
from prefect.events.filters import EventFilter, EventNameFilter

_END = "leadloop.tests.end"


def collect_events(api_url: str, work: Callable[[], object], *names: str) -> list[Event]:
    """Return the events that `work` emits: those of these names, or all if no name is given.

    Events arrive in order, so an event that is emitted after the work marks the end.
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
