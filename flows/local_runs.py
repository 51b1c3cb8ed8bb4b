"""Run a flow in this process, as commands do: the same flow that deployments run."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flow_engine import run_flow
from prefect.settings import (
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from prefect.states import Pending
from prefect.utilities.callables import get_call_parameters

from flows.audit import audit_leads
from flows.disable import disable_leads
from flows.housekeeping import run_housekeeping
from flows.orphans import find_console_handlers
from flows.poll import backfill_outcomes, poll_outcomes
from flows.prefect_api import translate_api_errors
from flows.push import push_leads
from flows.reporting import call_flow
from flows.sync import sync_leads
from leadloop.core.escaping import escape_unprintable
from leadloop.core.progress import ProgressListener, progress_listener

FLOWS: Mapping[str, Flow[..., Any]] = {
    flow.name: flow
    for flow in (
        push_leads,
        poll_outcomes,
        disable_leads,
        sync_leads,
        backfill_outcomes,
        audit_leads,
        run_housekeeping,
    )
}


def run_flow_locally(name: str, parameters: Mapping[str, Any], listener: ProgressListener) -> None:
    """Run a flow in this process; `collect_summary` has its summary.

    Args:
        name: the flow's name, as deployments know it.
        parameters: the flow's own.
        listener: receives the progress.

    Raises:
        LeadloopError: what the flow raised.
    """
    token = progress_listener.set(listener)
    for noisy in ("prefect.flow_runs", "prefect.task_runs", "EventsWorker"):
        logging.getLogger(noisy).addFilter(_is_worth_showing)
    for handler in find_console_handlers():
        handler.addFilter(_escape_line)
    try:
        # The heartbeat shows a server that a worker's process is alive. Here it would delay the end
        # of every run by a second.
        with (
            temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
            translate_api_errors(),
        ):
            flow = FLOWS[name]
            complete = get_call_parameters(flow.fn, (), dict(parameters))
            run = _create_run(flow, complete)
            call_flow(partial(run_flow, flow, flow_run=run), parameters=complete)
    finally:
        progress_listener.reset(token)


def _create_run(flow: Flow[..., Any], parameters: dict[str, Any]) -> FlowRun:
    """Create the flow run, without retries: nothing is lost yet, and a person waits.

    Prefect's client would repeat the request for more than two minutes if the server refuses it.
    """
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True) as client,
    ):
        return client.create_flow_run(
            flow, parameters=flow.serialize_parameters(parameters), state=Pending()
        )


def _escape_line(record: logging.LogRecord) -> bool:
    """Escape a line that may hold ids, so that it cannot drive the terminal; keep every line."""
    record.msg, record.args = escape_unprintable(record.getMessage()), None
    return True


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Drop errors and repeated progress lines: the caller prints one line at the end."""
    return record.levelno < logging.ERROR and not str(record.msg).startswith("Still processing")
