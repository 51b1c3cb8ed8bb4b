"""The stand-in's own controls under /_sandbox/: no token needed, never logged or limited."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leadloop.sandbox.exchange import Answer, told
from leadloop.sandbox.faults import Fault
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.shelf import Lead
from leadloop.sandbox.stage import spoken
from leadloop.sandbox.state import Sandbox

Control = Callable[[Sandbox, Request, bytes], Answer]


def control_routes(sandbox: Sandbox) -> list[Route]:
    """The control routes over one sandbox."""
    table: list[tuple[str, str, Control]] = [
        ("POST", "/_sandbox/outcomes", _put),
        ("GET", "/_sandbox/books", _books),
        ("GET", "/_sandbox/leads/{campaign_id}", _leads),
        ("GET", "/_sandbox/requests", _requests),
        ("GET", "/_sandbox/busiest", _busiest),
        ("GET", "/_sandbox/rules", _rules),
        ("POST", "/_sandbox/rules", _change),
        ("GET", "/_sandbox/faults", _faults),
        ("POST", "/_sandbox/faults", _add_faults),
        ("DELETE", "/_sandbox/faults", _clear_faults),
        ("POST", "/_sandbox/reset", _reset),
    ]
    return [
        Route(path, _endpoint(sandbox, control), methods=[method])
        for method, path, control in table
    ]


def _endpoint(sandbox: Sandbox, control: Control) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        body = await request.body()
        try:
            return spoken(control(sandbox, request, body))
        except (ValueError, KeyError, TypeError) as error:
            return spoken(told(400, {"detail": f"{type(error).__name__}: {error}"}))

    return endpoint


def _put(sandbox: Sandbox, _: Request, body: bytes) -> Answer:
    return told(200, sandbox.books.put(orjson.loads(body)))


def _books(sandbox: Sandbox, _: Request, __: bytes) -> Answer:
    violations = [
        {"campaign_id": v.campaign_id, "lead_id": v.lead_id, "at": v.at}
        for v in sandbox.books.violations
    ]
    content = {"campaigns": sandbox.books.summary(), "violations": violations}
    return told(200, {**content, "now": sandbox.clock.now()})


def _leads(sandbox: Sandbox, request: Request, _: bytes) -> Answer:
    leads = sandbox.books.leads(request.path_params["campaign_id"])
    wanted = request.query_params.get("lead_id")
    return told(200, [_shown(lead) for lead in leads if wanted in (None, lead.lead_id)])


def _shown(lead: Lead) -> dict[str, Any]:
    return {
        "lead_id": lead.lead_id,
        "created": lead.created,
        "offered": lead.offered,
        "created_at": lead.created_at,
        "processed_at": lead.processed_at,
        "disabled_at": lead.disabled_at,
    }


def _requests(sandbox: Sandbox, request: Request, _: bytes) -> Answer:
    since = int(request.query_params.get("since", 0))
    return told(200, [entry.shown() for entry in sandbox.traffic.entries[since:]])


def _busiest(sandbox: Sandbox, request: Request, _: bytes) -> Answer:
    seconds = float(request.query_params.get("seconds", 60))
    return told(200, {"seconds": seconds, "requests": sandbox.traffic.busiest(seconds)})


def _rules(sandbox: Sandbox, _: Request, __: bytes) -> Answer:
    return told(200, sandbox.rules.public())


def _change(sandbox: Sandbox, _: Request, body: bytes) -> Answer:
    sandbox.rules = Rules.from_json(orjson.loads(body), sandbox.rules)
    return told(200, sandbox.rules.public())


def _faults(sandbox: Sandbox, _: Request, __: bytes) -> Answer:
    return told(200, sandbox.faults.counts())


def _add_faults(sandbox: Sandbox, _: Request, body: bytes) -> Answer:
    given = orjson.loads(body)
    faults = [Fault.from_json(one) for one in (given if isinstance(given, list) else [given])]
    for fault in faults:
        sandbox.faults.add(fault, sandbox.rules.seed)
    return told(200, sandbox.faults.counts())


def _clear_faults(sandbox: Sandbox, _: Request, __: bytes) -> Answer:
    sandbox.faults.clear()
    return told(200, [])


def _reset(sandbox: Sandbox, _: Request, __: bytes) -> Answer:
    sandbox.reset()
    return told(200, {})
