"""Prefect's events during a piece of work, as an automation receives them."""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

from prefect.events import Event, emit_event
from prefect.events.clients import PrefectEventSubscriber
from prefect.events.filters import EventFilter, EventNameFilter

_END = "leadloop.tests.end"


def collect_events(api_url: str, work: Callable[[], object], *names: str) -> list[Event]:
    """Return the events that are emitted during `work`: those of these names, or all without one.

    Events arrive in order, so an event that is emitted after the work marks the end. Other tests
    that run on the server at the same time emit events too: see `is_event_of`.
    """
    end = f"leadloop.tests.{uuid4()}"

    async def watch() -> list[Event]:
        only = EventFilter(event=EventNameFilter(name=[*names, _END])) if names else None
        seen: list[Event] = []
        async with PrefectEventSubscriber(api_url, filter=only) as events:
            await asyncio.to_thread(work)
            emit_event(_END, resource={"prefect.resource.id": end})
            async for event in events:
                if event.resource.id == end:
                    break
                if event.event != _END:
                    seen.append(event)
        return seen

    return asyncio.run(asyncio.wait_for(watch(), 180))


def is_event_of(event: Event, flow_run_id: UUID) -> bool:
    """Return whether a flow run emitted the event."""
    return f"prefect.flow-run.{flow_run_id}" in {related.id for related in event.related}
