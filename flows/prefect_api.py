"""The Prefect server that a run uses: its address, whether it answers, who may read it."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from leadloop.client.proxies import check_prefect_proxies
from leadloop.core.addresses import hide_credentials
from leadloop.core.errors import LeadloopError, RunError, UsageError

_API_ERRORS = (httpx.HTTPStatusError, httpx.TransportError)


def configured_api_url() -> str | None:
    """Return the API of the Prefect server that the environment or Prefect's profile names."""
    address: str | None = PREFECT_API_URL.value()
    return address.rstrip("/") if address else None


def check_api_reachable() -> None:
    """Check that the Prefect server of PREFECT_API_URL answers and accepts our login.

    Raises:
        UsageError: it does not, with the reason and the remedy.
        RunError: Prefect's client cannot use a proxy of the environment.
    """
    check_prefect_proxies()
    # One short attempt: a person waits, and a run would fail likewise.
    impatient = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 10.0}
    try:
        with temporary_settings(impatient), get_client(sync_client=True) as client:
            client.read_flows(limit=1)
    except Exception as error:
        # Any error: the address may be invalid, or that of another server.
        status = getattr(getattr(error, "response", None), "status_code", None)
        remedy = "correct it, or unset it"
        if status in (401, 403):
            reason = "the server wants another PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
        elif isinstance(error, httpx.TransportError):
            reason = f"no server answers there ({type(error).__name__})"
            remedy = "start the server, correct the URL, or unset it"
        elif status is not None and status >= 500:
            reason = f"the server, or a proxy before it, fails (HTTP {status}): see its log"
        else:
            answer = "" if status is None else f" (HTTP {status})"
            reason = (
                f"that is not the API of a Prefect server, as http://127.0.0.1:4200/api is{answer}"
            )
        raise UsageError(
            f"PREFECT_API_URL: {reason}: {_name_server()}; {remedy}: local runs need no server"
        ) from None


def _name_server() -> str:
    """Return the URL of the configured server, without a password, for a message."""
    return hide_credentials(configured_api_url() or "")


@contextmanager
def translate_api_errors() -> Iterator[None]:
    """Translate a failure of the Prefect server that ends a flow run in the block.

    Raises:
        RunError: the server does not answer, or fails.
    """
    try:
        yield
    except LeadloopError:
        raise
    except Exception as error:
        # Prefect wraps some of its client's errors in a RuntimeError.
        cause = error if isinstance(error, _API_ERRORS) else error.__cause__
        if not isinstance(cause, _API_ERRORS):
            raise
        status = getattr(getattr(cause, "response", None), "status_code", None)
        answer = type(cause).__name__ if status is None else f"HTTP {status}"
        raise RunError(
            f"the Prefect server failed ({answer}), and no run goes on without it: what was done is"
            f" stored; see the log of the server at {_name_server()}, or unset PREFECT_API_URL:"
            " local runs need no server"
        ) from None


def allows_anonymous_access(address: str) -> bool | None:
    """Return whether a server shows its blocks without a login; None if that is unknown.

    Args:
        address: the URL of its API, without a slash at the end.
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
