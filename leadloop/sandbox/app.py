"""The routes: what the vendor documents, and the controls of the stand-in itself."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from random import Random

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from leadloop.sandbox import desk
from leadloop.sandbox.controls import control_routes
from leadloop.sandbox.exchange import Answer, Call, Refused, told
from leadloop.sandbox.faults import Fault
from leadloop.sandbox.stage import Unanswered, spoken, staged
from leadloop.sandbox.state import Sandbox
from leadloop.sandbox.traffic import Entry, Kind, monotonic

Work = Callable[[Sandbox, Call], Answer]
Endpoint = Callable[[Request], Awaitable[Response]]

CREATE = "/api/v1/leads/create/{campaign_id}/"
RESPONSES = "/api/v1/leads/responses/{campaign_id}/"
DISABLE = "/api/v1/leads/disable/{campaign_id}/"
TOKEN = "/oauth/token/"
REVOKE = "/oauth/revoke_token/"
_OPENAPI = Path(__file__).with_name("openapi.json")


def application(sandbox: Sandbox) -> Starlette:
    """The ASGI application over one sandbox."""
    app = Starlette(
        routes=[
            Route(CREATE, _endpoint(sandbox, "create", desk.create), methods=["POST"]),
            Route(RESPONSES, _endpoint(sandbox, "responses", desk.responses), methods=["GET"]),
            Route(DISABLE, _endpoint(sandbox, "disable", desk.disable), methods=["POST"]),
            Route(TOKEN, _endpoint(sandbox, "token", desk.token), methods=["POST"]),
            Route(REVOKE, _endpoint(sandbox, "revoke", desk.revoke), methods=["POST"]),
            Route("/openapi.json", _description, methods=["GET"]),
            *control_routes(sandbox),
        ],
        exception_handlers={HTTPException: _stray(sandbox)},
    )
    app.router.redirect_slashes = False
    return app


def _endpoint(sandbox: Sandbox, kind: Kind, work: Work) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        entry = _noted(sandbox, request, kind)
        wait = sandbox.traffic.wait_s(sandbox.rules, entry.arrived)
        try:
            call = _call(request, await request.body())
        except ClientDisconnect:
            # A caller that dies in the middle of its request has asked for nothing.
            return Unanswered()
        if wait > 0:
            response = spoken(_too_many(sandbox, wait))
        else:
            response = _served(sandbox, call, entry, work)
        await asyncio.sleep(sandbox.rules.latency)
        return _dated(sandbox, entry, response)

    return endpoint


def _noted(sandbox: Sandbox, request: Request, kind: Kind) -> Entry:
    entry = Entry(
        arrived=monotonic(),
        method=request.method,
        path=request.scope["path"],
        query=request.scope["query_string"].decode("latin-1"),
        kind=kind,
        bearer="authorization" in request.headers,
    )
    sandbox.traffic.note(entry)
    return entry


def _served(sandbox: Sandbox, call: Call, entry: Entry, work: Work) -> Response:
    fired = sandbox.faults.draw(entry.kind, call.names)
    entry.fault = ", ".join(fault.label for fault in fired) or None
    drifts = [fault for fault in fired if fault.drifts]
    spoils = next((fault for fault in fired if not fault.drifts), None)
    if spoils is not None and spoils.moment == "before":
        return staged(spoils, None)
    for fault in drifts:
        call = _drifted(sandbox, call, fault)
    answer = _worked(sandbox, call, work)
    return spoken(answer) if spoils is None else staged(spoils, answer)


def _worked(sandbox: Sandbox, call: Call, work: Work) -> Answer:
    try:
        return work(sandbox, call)
    except Refused as refused:
        return refused.answer


def _drifted(sandbox: Sandbox, call: Call, fault: Fault) -> Call:
    luck = Random(f"{sandbox.rules.seed} {len(sandbox.traffic.entries)}")
    if fault.kind == "late":
        sandbox.books.process_late(call.campaign_id, int(fault.seconds * 1000), luck)
    if fault.kind == "repeat":
        sandbox.books.process_again(call.campaign_id, luck)
    if fault.kind == "shift":
        return call.shifted(fault.rows)
    return call


def _call(request: Request, body: bytes) -> Call:
    return Call(
        headers=request.headers,
        body=body,
        params=request.query_params,
        path=request.scope["path"],
        base=_base(request),
        campaign_id=request.path_params.get("campaign_id", ""),
    )


def _base(request: Request) -> str:
    return f"http://{request.headers.get('host', '')}"


def _too_many(sandbox: Sandbox, wait_s: float) -> Answer:
    headers = {"Retry-After": str(int(wait_s) + 1)} if sandbox.rules.retry_after else {}
    return told(429, {"detail": "Request was throttled."}, headers)


def _dated(sandbox: Sandbox, entry: Entry, response: Response) -> Response:
    entry.status = response.status_code
    response.headers["Date"] = formatdate(sandbox.clock.now() / 1000, usegmt=True)
    return response


def _stray(sandbox: Sandbox) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers: Mapping[str, str] = getattr(error, "headers", None) or {}
        detail = {404: "Not found.", 405: "Method not allowed."}.get(status, "Refused.")
        entry = _noted(sandbox, request, "other")
        return _dated(sandbox, entry, spoken(told(status, {"detail": detail}, headers)))

    return handler


async def _description(request: Request) -> Response:
    document = orjson.loads(_OPENAPI.read_bytes())
    document["servers"] = [{"url": _base(request)}]
    return spoken(told(200, document))
