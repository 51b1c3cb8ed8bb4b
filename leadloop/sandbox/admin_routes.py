"""The sandbox's own admin endpoints under /_sandbox/: no token needed, never logged or limited.

They refuse requests that a web page sends: browsers add an `Origin` to each that changes something.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leadloop.sandbox.faults import Fault
from leadloop.sandbox.routes import ReceivedRequest
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.serialization import json_response
from leadloop.sandbox.state import SandboxState

AdminHandler = Callable[[SandboxState, ReceivedRequest], Any]
"""Returns the JSON content of the response; a wrong request raises ValueError, KeyError or
TypeError."""


def build_admin_routes(sandbox: SandboxState) -> list[Route]:
    """Build the admin routes over one sandbox."""
    handlers: list[tuple[str, str, AdminHandler]] = [
        ("POST", "/_sandbox/outcomes", put_outcomes),
        ("GET", "/_sandbox/books", show_records),
        ("GET", "/_sandbox/leads/{campaign_id}", list_stored_leads),
        ("GET", "/_sandbox/requests", list_requests),
        ("GET", "/_sandbox/busiest", count_busiest),
        ("GET", "/_sandbox/rules", show_rules),
        ("POST", "/_sandbox/rules", change_rules),
        ("GET", "/_sandbox/faults", list_faults),
        ("POST", "/_sandbox/faults", add_faults),
        ("DELETE", "/_sandbox/faults", clear_faults),
        ("POST", "/_sandbox/reset", reset_sandbox),
    ]
    return [
        Route(path, _make_endpoint(sandbox, handler), methods=[method])
        for method, path, handler in handlers
    ]


def _make_endpoint(
    sandbox: SandboxState, handler: AdminHandler
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        received = await ReceivedRequest.read_from(request)
        if "origin" in received.headers:
            return json_response(403, {"detail": "a web page may not control the sandbox"})
        try:
            return json_response(200, handler(sandbox, received))
        except (ValueError, KeyError, TypeError) as error:
            return json_response(400, {"detail": f"{type(error).__name__}: {error}"})

    return endpoint


def put_outcomes(sandbox: SandboxState, request: ReceivedRequest) -> Any:
    """Process leads with the outcomes stated; see `LeadStore.put_outcomes`."""
    return sandbox.store.put_outcomes(orjson.loads(request.body))


def show_records(sandbox: SandboxState, _: ReceivedRequest) -> Any:
    """Return counts per campaign, the duplicates that were created, and the vendor's time."""
    return {
        "campaigns": sandbox.store.summarize_campaigns(),
        "violations": [asdict(duplicate) for duplicate in sandbox.store.violations],
        "now": sandbox.clock.now(),
    }


def list_stored_leads(sandbox: SandboxState, request: ReceivedRequest) -> Any:
    """List a campaign's leads, or those of one `lead_id`, without personal data."""
    wanted = request.params.get("lead_id")
    keys = ("lead_id", "created", "offered", "created_at", "processed_at", "disabled_at")
    return [
        {key: getattr(lead, key) for key in keys}
        for lead in sandbox.store.leads(request.campaign_id)
        if wanted in (None, lead.lead_id)
    ]


def list_requests(sandbox: SandboxState, request: ReceivedRequest) -> Any:
    """List the logged requests from the index `since` on."""
    since = int(request.params.get("since", 0))
    return [entry.to_dict() for entry in sandbox.request_log.entries[since:]]


def count_busiest(sandbox: SandboxState, request: ReceivedRequest) -> Any:
    """Count the requests in the busiest window of that many `seconds`."""
    seconds = float(request.params.get("seconds", 60))
    return {"seconds": seconds, "requests": sandbox.request_log.count_busiest(seconds)}


def show_rules(sandbox: SandboxState, _: ReceivedRequest) -> Any:
    """Return the rules in force, without secrets."""
    return sandbox.rules.public_values()


def change_rules(sandbox: SandboxState, request: ReceivedRequest) -> Any:
    """Change some rules, and return all."""
    sandbox.rules = Rules.from_json(orjson.loads(request.body), sandbox.rules)
    return sandbox.rules.public_values()


def list_faults(sandbox: SandboxState, _: ReceivedRequest) -> Any:
    """List the faults in force with the number of requests seen and hit."""
    return sandbox.faults.count_fired()


def add_faults(sandbox: SandboxState, request: ReceivedRequest) -> Any:
    """Put one fault or a list of faults in force, and list all."""
    content = orjson.loads(request.body)
    items = content if isinstance(content, list) else [content]
    for fault in [Fault.from_json(item) for item in items]:
        sandbox.faults.add(fault, sandbox.rules.seed)
    return sandbox.faults.count_fired()


def clear_faults(sandbox: SandboxState, _: ReceivedRequest) -> Any:
    """Remove all faults."""
    sandbox.faults.clear()
    return []


def reset_sandbox(sandbox: SandboxState, _: ReceivedRequest) -> Any:
    """Delete leads, requests, tokens and faults; keep the rules."""
    sandbox.reset()
    return {}
