"""The ASGI application: each vendor request passes the log, the rate limit, faults and a handler.

The admin endpoints and `/openapi.json` pass none of these.
"""

import asyncio
import time
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

from leadloop.sandbox.admin_routes import build_admin_routes
from leadloop.sandbox.faults import UnansweredResponse, respond_with_fault
from leadloop.sandbox.request_log import LoggedRequest, RequestKind
from leadloop.sandbox.routes import (
    Handler,
    ReceivedRequest,
    VendorRoute,
    get_base_url,
    list_vendor_routes,
    shows_lead,
)
from leadloop.sandbox.serialization import json_response
from leadloop.sandbox.state import SandboxState

_OPENAPI = Path(__file__).with_name("openapi.json")


def build_app(sandbox: SandboxState) -> Starlette:
    """Build the ASGI application over one sandbox."""

    # For requests that match no route: 404 or 405 in JSON, and logged.
    async def answer_unrouted(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        headers: Mapping[str, str] = getattr(error, "headers", None) or {}
        detail = {404: "Not found.", 405: "Method not allowed."}.get(status, "Refused.")
        entry = _log_request(sandbox, request, "other")
        return _finish_response(sandbox, entry, json_response(status, {"detail": detail}, headers))

    vendor_routes = [
        Route(route.path, _make_endpoint(sandbox, route), methods=[route.method])
        for route in list_vendor_routes()
    ]
    openapi_route = Route("/openapi.json", _serve_openapi, methods=["GET"])
    app = Starlette(
        routes=[*vendor_routes, openapi_route, *build_admin_routes(sandbox)],
        exception_handlers={HTTPException: answer_unrouted},
    )
    app.router.redirect_slashes = False
    return app


def _make_endpoint(
    sandbox: SandboxState, route: VendorRoute
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        entry = _log_request(sandbox, request, route.kind)
        wait_s = sandbox.rate_limiter.admit(sandbox.rules.rate_limit, entry.arrived)
        try:
            received = await ReceivedRequest.read_from(request)
        except ClientDisconnect:
            # A client that dies within its request has asked for nothing.
            return UnansweredResponse()
        if wait_s > 0:
            headers = {"Retry-After": str(int(wait_s) + 1)} if sandbox.rules.retry_after else {}
            response = json_response(429, {"detail": "Request was throttled."}, headers)
        else:
            response = _run_handler(sandbox, received, entry, route.handler)
        await asyncio.sleep(sandbox.rules.latency)
        return _finish_response(sandbox, entry, response)

    return endpoint


def _log_request(sandbox: SandboxState, request: Request, kind: RequestKind) -> LoggedRequest:
    entry = LoggedRequest(
        arrived=time.monotonic(),
        method=request.method,
        path=request.scope["path"],
        query=request.scope["query_string"].decode("latin-1"),
        kind=kind,
        bearer="authorization" in request.headers,
    )
    sandbox.request_log.add(entry)
    return entry


def _run_handler(
    sandbox: SandboxState, request: ReceivedRequest, entry: LoggedRequest, handler: Handler
) -> Response:
    """Run the handler, with the faults that fire on this request."""

    def concerns_lead(lead_id: str) -> bool:
        is_read = entry.kind == "responses"
        return request.names_lead(lead_id) or (is_read and shows_lead(sandbox, request, lead_id))

    fired = sandbox.faults.draw_faults(entry.kind, concerns_lead)
    entry.fault = ", ".join(fault.label for fault in fired) or None
    fault = next((fault for fault in fired if not fault.is_drift), None)
    if fault is not None and fault.moment == "before":
        return respond_with_fault(fault, None)
    # A drift changes the stored leads, or shifts the rows of the page.
    for drift in (fault for fault in fired if fault.is_drift):
        rng = Random(f"{sandbox.rules.seed} {len(sandbox.request_log.entries)}")
        if drift.kind == "late":
            sandbox.store.process_late(request.campaign_id, int(drift.seconds * 1000), rng)
        elif drift.kind == "repeat":
            sandbox.store.process_again(request.campaign_id, rng)
        elif drift.kind == "shift":
            request = request.shift_rows(drift.rows)
    try:
        response = handler(sandbox, request)
    except HTTPException as error:
        response = json_response(error.status_code, {"detail": error.detail}, error.headers)
    return response if fault is None else respond_with_fault(fault, response)


def _finish_response(sandbox: SandboxState, entry: LoggedRequest, response: Response) -> Response:
    """Log the status, and set the Date header to the vendor's clock."""
    entry.status = response.status_code
    response.headers["Date"] = formatdate(sandbox.clock.now() / 1000, usegmt=True)
    return response


async def _serve_openapi(request: Request) -> Response:
    document = orjson.loads(_OPENAPI.read_bytes())
    document["servers"] = [{"url": get_base_url(request)}]
    return json_response(200, document)
