"""Fault injection: the faults, the requests they hit, and the responses that the client sees.

The responses come last: an error status, a TCP reset, a hang, a body cut short or dripped.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from threading import Lock
from typing import Any, Literal, Self, get_args

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from leadloop.sandbox.serialization import json_response

FaultRoute = Literal["create", "responses", "disable", "token", "any"]
FaultMoment = Literal["before", "after"]
FaultKind = Literal[
    "status", "reset", "hang", "cut", "foreign", "redirect", "slow", "shift", "late", "repeat"
]

# These damage the real response, so the request's effect has always happened.
_DAMAGING = ("cut", "slow")
# These change the stored leads or the page, and let the request continue.
_DRIFTING = ("shift", "late", "repeat")
_CHOICES = {
    "route": get_args(FaultRoute),
    "kind": get_args(FaultKind),
    "when": get_args(FaultMoment),
    "body": ("json", "html", "empty"),
}
_INTEGERS = ("nth", "every", "times", "status", "rows")
_HTML = b"<!DOCTYPE html><html><body><h1>We will be back shortly</h1></body></html>"
_PIECES = 10


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: what goes wrong, and on which requests.

    It counts the requests of its `route` that the rate limit admits, and fires on the `nth` (from
    1), on each multiple of `every`, with a `probability` (seeded), or on all; at most `times`
    times. With a `lead_id` it counts only requests that name that lead in body or query, or whose
    page would show it. `when`: before or after the request's effect. If several faults fire on a
    request, the one that was added first hits it, and only that one counts it as `fired`.

    Kinds:
        status: respond `status` with a `body`, in JSON with this `detail`, and extra `headers`.
        reset: a TCP reset. hang: no response for `seconds`, then the connection is closed.
        cut: half of the real response, then the connection is closed. slow: the real response,
        dripped over `seconds`. foreign: 200 with a page of HTML. redirect: 307 to `url`.
        shift: the page starts `rows` later (rows left before it; below 0: rows came, so some
        are shown twice). late: a waiting lead is processed as if `seconds` ago. repeat: a
        processed lead is processed again now. These three happen on `responses` alone.

    Raises:
        ValueError: a value that is not one of the choices, or does not go with the kind.
    """

    kind: FaultKind
    route: FaultRoute = "any"
    when: FaultMoment | None = None
    nth: int | None = None
    every: int | None = None
    probability: float | None = None
    times: int | None = None
    lead_id: str | None = None
    status: int = 500
    body: Literal["json", "html", "empty"] = "json"
    detail: str = "A fault of the sandbox."
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 1.0
    url: str | None = None
    rows: int = 1

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in (*choices, None):
                raise ValueError(f"a fault's {name} must be one of {', '.join(choices)}")
        for name in _INTEGERS:
            value = getattr(self, name)
            if value is not None and type(value) is not int:
                raise ValueError(f"a fault's {name} must be a whole number")
        chance = self.probability
        if chance is not None and not (isinstance(chance, int | float) and 0 <= chance <= 1):
            raise ValueError("a fault's probability must be a number from 0 to 1")
        if self.every == 0:
            raise ValueError("a fault's every must be 1 or more")
        if self.kind in _DAMAGING and self.when == "before":
            raise ValueError(f"a fault of kind {self.kind} can only come after the effect")
        if self.is_drift and self.when == "after":
            raise ValueError(f"a fault of kind {self.kind} can only come before the effect")
        if self.kind == "redirect" and not self.url:
            raise ValueError("a fault of kind redirect needs a url")

    @property
    def moment(self) -> FaultMoment:
        """When it happens: by default before the effect (cut and slow: after it)."""
        return self.when or ("after" if self.kind in _DAMAGING else "before")

    @property
    def is_drift(self) -> bool:
        """Whether the request continues to its own response."""
        return self.kind in _DRIFTING

    @property
    def label(self) -> str:
        """Its name in the request log, e.g. `status 503 before`, or `reset after L1` of a lead."""
        what = f"status {self.status}" if self.kind == "status" else self.kind
        return " ".join(filter(None, (what, self.moment, self.lead_id)))

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Build a fault from a JSON object.

        Raises:
            ValueError: an unknown or missing key, or a wrong value.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(str(error).replace("Fault.__init__() ", "a fault ")) from None


class _ArmedFault:
    """A fault in force, with the number of requests that it has `seen` and hit (`fired`)."""

    def __init__(self, fault: Fault, seed: object) -> None:
        self.fault = fault
        self.seen = 0
        self.fired = 0
        self._rng = Random(str(seed))

    def applies_to(self, route: str, concerns_lead: Callable[[str], bool]) -> bool:
        fault = self.fault
        return (
            fault.route in ("any", route)
            and (route == "responses" or not fault.is_drift)
            and (fault.lead_id is None or concerns_lead(fault.lead_id))
        )

    def count_request(self, *, is_hit: bool) -> bool:
        """Count a request, and return whether the fault fires on it; not if another one hit it."""
        self.seen += 1
        fault = self.fault
        if fault.times is not None and self.fired >= fault.times:
            return False
        if fault.nth is not None:
            fires = self.seen == fault.nth
        elif fault.every is not None:
            fires = self.seen % fault.every == 0
        else:
            fires = fault.probability is None or self._rng.random() < fault.probability
        fires = fires and not (is_hit and not fault.is_drift)
        self.fired += fires
        return fires


class FaultInjector:
    """The faults in force. Thread-safe."""

    def __init__(self) -> None:
        self._armed: list[_ArmedFault] = []
        self._lock = Lock()

    def add(self, fault: Fault, seed: int = 0) -> None:
        """Put a fault in force."""
        with self._lock:
            self._armed.append(_ArmedFault(fault, (seed, len(self._armed))))

    def draw_faults(
        self, route: str, concerns_lead: Callable[[str], bool] = lambda _: False
    ) -> list[Fault]:
        """Draw the faults that fire on a request: drifts first, then at most one other.

        Args:
            route: the route of the request.
            concerns_lead: returns whether the request names a lead id, or its page would show it.
        """
        drifts: list[Fault] = []
        hits: list[Fault] = []
        with self._lock:
            for armed in self._armed:
                applies = armed.applies_to(route, concerns_lead)
                if applies and armed.count_request(is_hit=bool(hits)):
                    (drifts if armed.fault.is_drift else hits).append(armed.fault)
        return drifts + hits

    def count_fired(self) -> list[dict[str, Any]]:
        """List each fault in force with the number of requests seen and hit."""
        with self._lock:
            return [
                {
                    "fault": armed.fault.label,
                    "route": armed.fault.route,
                    "lead_id": armed.fault.lead_id,
                    "seen": armed.seen,
                    "fired": armed.fired,
                }
                for armed in self._armed
            ]

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._armed.clear()


def respond_with_fault(fault: Fault, response: Response | None) -> Response:
    """Return what the client gets instead of `response` (None: the effect did not happen)."""
    if fault.kind == "reset":
        return _ResetResponse()
    if fault.kind == "hang":
        return _HangingResponse(fault.seconds)
    if fault.kind == "cut" and response:
        return _CutResponse(response)
    if fault.kind == "slow" and response:
        return _SlowResponse(response, fault.seconds)
    if fault.kind == "foreign":
        return Response(_HTML, media_type="text/html")
    if fault.kind == "redirect":
        headers = {"Location": fault.url or ""}
        return Response(b"", 307, headers, media_type="application/json")
    if fault.body == "html":
        return Response(_HTML, fault.status, fault.headers, media_type="text/html")
    if fault.body == "empty":
        return Response(b"", fault.status, fault.headers, media_type="application/json")
    return json_response(fault.status, {"detail": fault.detail}, fault.headers)


class TransportExposingProtocol(H11Protocol):
    """HTTP/1.1 whose transport the application can reach, to reset or close the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the transport into the state that every request of the connection carries."""
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class UnansweredResponse(Response):
    """A response of which nothing is sent; the log shows status 0."""

    def __init__(self) -> None:
        super().__init__(status_code=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave the connection as it is."""


class _ResetResponse(UnansweredResponse):
    """A TCP reset of the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _get_transport(scope)
        # Closing with a linger time of 0 makes the kernel send RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
        await _wait_for_disconnect(receive)


class _HangingResponse(UnansweredResponse):
    """No response for some seconds; then the connection is closed."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await _disconnects_within(self._seconds, receive):
            _get_transport(scope).close()
            await _wait_for_disconnect(receive)


class _CutResponse(Response):
    """The first half of another response's body; then the connection is closed."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.body, response.status_code)
        self.raw_headers = list(response.raw_headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._send_start(send)
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        _get_transport(scope).close()
        await _wait_for_disconnect(receive)

    async def _send_start(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})


class _SlowResponse(_CutResponse):
    """Another response whose body drips, over some seconds."""

    def __init__(self, response: Response, seconds: float) -> None:
        super().__init__(response)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._send_start(send)
        step = max(1, -(-len(self.body) // _PIECES))
        for at in range(0, len(self.body), step):
            piece = bytes(self.body)[at : at + step]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if await _disconnects_within(self._seconds / _PIECES, receive):
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _get_transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["state"]["transport"]
    return transport


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _disconnects_within(seconds: float, receive: Receive) -> bool:
    try:
        await asyncio.wait_for(_wait_for_disconnect(receive), seconds)
    except TimeoutError:
        return False
    return True
