"""A flow run by a person: the very flow that deployments run, in this process."""

import logging
from collections.abc import Mapping
from typing import Any

from prefect import Flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.disable import disable_leads
from flows.poll import backfill_outcomes, poll_outcomes
from flows.push import push_leads
from flows.sync import sync_leads
from leadloop.core.progress import Watcher, watcher

FLOWS: Mapping[str, Flow[..., Any]] = {
    flow.name: flow
    for flow in (push_leads, poll_outcomes, disable_leads, sync_leads, backfill_outcomes)
}


def run_by_hand(name: str, parameters: Mapping[str, Any], watching: Watcher) -> dict[str, Any]:
    """Run a flow here and now.

    Args:
        name: the flow's name, as deployments know it.
        parameters: the flow's own.
        watching: is told of the progress.

    Returns:
        The flow's summary.

    Raises:
        LeadloopError: what the flow raised.
    """
    token = watcher.set(watching)
    for noisy in ("prefect.flow_runs", "prefect.task_runs", "EventsWorker"):
        logging.getLogger(noisy).addFilter(_in_our_words)
    try:
        # The heartbeat tells a server that a worker's process lives; here it would make every run
        # end a second late.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            summary: dict[str, Any] = FLOWS[name](**parameters)
            return summary
    finally:
        watcher.reset(token)


def _in_our_words(record: logging.LogRecord) -> bool:
    """Drop what the caller says in one line at the end: errors, in Prefect's words or ours."""
    return record.levelno < logging.ERROR and not str(record.msg).startswith("Still processing")
