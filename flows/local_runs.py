"""A flow run by a person: the very flow that deployments run, in this process."""

import logging
from collections.abc import Mapping
from typing import Any

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)

from flows.audit import audit_leads
from flows.disable import disable_leads
from flows.housekeeping import keep_house
from flows.poll import backfill_outcomes, poll_outcomes
from flows.push import push_leads
from flows.reporting import call_flow
from flows.sync import sync_leads
from leadloop.core.errors import UsageError
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
        keep_house,
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
    try:
        # The heartbeat tells a server that a worker's process lives; here it would make every run
        # end a second late.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            call_flow(FLOWS[name], **parameters)
    finally:
        progress_listener.reset(token)


def configured_api_url() -> str | None:
    """The API of the Prefect server that the environment or Prefect's profile names, if any."""
    address: str | None = PREFECT_API_URL.value()
    return address.rstrip("/") if address else None


def check_api_reachable() -> None:
    """See that the Prefect server of PREFECT_API_URL answers, and lets us in.

    Raises:
        UsageError: it does not; one line says why and what to do.
    """
    # One short try: a person waits, and a run would meet the same.
    impatient = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 10.0}
    try:
        with temporary_settings(impatient), get_client(sync_client=True) as client:
            client.read_flows(limit=1)
    except Exception as error:
        # Whatever it raises about an address that is none, or that is somebody else's.
        raise UsageError(
            f"PREFECT_API_URL: {_explain_failure(error)}; correct it (runs by hand need none)"
        ) from None


def allows_anonymous_access(address: str) -> bool | None:
    """Whether a server shows its blocks to one who does not log in; None: it cannot be told.

    Args:
        address: of its API, without a slash at the end.
    """
    try:
        answer = httpx.post(
            f"{address}/block_documents/filter", json={"limit": 1}, timeout=10.0
        ).status_code
    except httpx.TransportError:
        return None
    if answer in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return False
    return True if answer == httpx.codes.OK else None


def _explain_failure(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the server wants another PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
    if isinstance(error, httpx.TransportError):
        return f"no server answers there ({type(error).__name__})"
    answer = "" if status is None else f" (HTTP {status})"
    return f"that is not the API of a Prefect server, as http://127.0.0.1:4200/api is{answer}"


def _is_worth_showing(record: logging.LogRecord) -> bool:
    """Drop what the caller says in one line at the end: errors, in Prefect's words or ours."""
    return record.levelno < logging.ERROR and not str(record.msg).startswith("Still processing")
