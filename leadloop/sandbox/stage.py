"""How faults look from a socket: answers that are not given, cut short, or dripped."""

import asyncio
import socket
import struct
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from leadloop.sandbox.exchange import Answer, told
from leadloop.sandbox.faults import Fault

_HTML = b"<!DOCTYPE html><html><body><h1>We will be back shortly</h1></body></html>"
_PIECES = 10


class ReachableProtocol(H11Protocol):
    """HTTP/1.1 whose transport the application can reach, to reset or close it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the transport into the state that every request of the connection carries."""
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


def spoken(answer: Answer) -> Response:
    """The answer, whole."""
    return Response(
        answer.body, answer.status, dict(answer.headers), media_type=answer.content_type
    )


def staged(fault: Fault, answer: Answer | None) -> Response:
    """What the client gets instead of `answer` (None: the effect did not happen)."""
    if fault.kind == "reset":
        return _Reset()
    if fault.kind == "hang":
        return _Hang(fault.seconds)
    if fault.kind == "cut" and answer:
        return _Cut(answer)
    if fault.kind == "slow" and answer:
        return _Slow(answer, fault.seconds)
    return spoken(_instead(fault))


def _instead(fault: Fault) -> Answer:
    if fault.kind == "foreign":
        return Answer(status=200, body=_HTML, content_type="text/html")
    if fault.kind == "redirect":
        return Answer(status=307, body=b"", headers={"Location": fault.url or ""})
    if fault.body == "html":
        return Answer(
            status=fault.status, body=_HTML, content_type="text/html", headers=fault.headers
        )
    if fault.body == "empty":
        return Answer(status=fault.status, body=b"", headers=fault.headers)
    return told(fault.status, {"detail": fault.detail}, fault.headers)


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["state"]["transport"]
    return transport


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _gone_within(seconds: float, receive: Receive) -> bool:
    try:
        await asyncio.wait_for(_gone(receive), seconds)
    except TimeoutError:
        return False
    return True


class Unanswered(Response):
    """Nothing is sent; the log shows status 0."""

    def __init__(self) -> None:
        super().__init__(status_code=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave the connection as it is."""


class _Reset(Unanswered):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _transport(scope)
        # Closing with a linger time of 0 makes the kernel send RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
        await _gone(receive)


class _Hang(Unanswered):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await _gone_within(self._seconds, receive):
            _transport(scope).close()
            await _gone(receive)


class _Cut(Response):
    def __init__(self, answer: Answer) -> None:
        super().__init__(
            answer.body, answer.status, dict(answer.headers), media_type=answer.content_type
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        _transport(scope).close()
        await _gone(receive)


class _Slow(_Cut):
    def __init__(self, answer: Answer, seconds: float) -> None:
        super().__init__(answer)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(_start(self))
        step = max(1, -(-len(self.body) // _PIECES))
        for at in range(0, len(self.body), step):
            piece = bytes(self.body)[at : at + step]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if await _gone_within(self._seconds / _PIECES, receive):
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _start(response: Response) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": response.raw_headers,
    }
