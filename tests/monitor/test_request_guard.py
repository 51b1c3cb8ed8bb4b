"""Whom the page and the metrics answer, and what they add to a response."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message

from leadloop.monitor import request_guard
from leadloop.monitor.request_guard import RequestGuard, ServedAddresses

_PUBLIC = "https://leads.example.com/page"


async def _show_path(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path and the origin that the application gets to see."""
    request = Request(scope)
    shown = f"{request.url.path} {request.headers.get('origin')}"
    headers = {"Access-Control-Allow-Origin": "*", "x-frame-options": "ALLOWALL"}
    await PlainTextResponse(shown, headers=headers)(scope, receive, send)


def request(
    method: str = "GET", path: str = "/", public_url: str | None = _PUBLIC, **headers: str
) -> httpx.Response:
    """Send one request to a guarded application; return the response."""
    guard = RequestGuard(_show_path, ServedAddresses(public_url=public_url, advice="Set NAME"))

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"host": "leads.example.com", "origin": "null"},
    ],
)
def test_strangers_are_refused(headers: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Another name of this machine, and another web page: the operator learns what to set."""
    response = request(**headers)
    assert (response.status_code, response.text) == (403, "Not served here. Set NAME\n")
    assert "Set NAME" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_it_can_only_be_read(method: str) -> None:
    """Nothing can be uploaded or changed."""
    assert request(method).status_code == 405


@pytest.mark.parametrize(
    ("path", "public_url", "seen"),
    [
        ("/page/_stcore/health", _PUBLIC, "/_stcore/health"),
        ("/_stcore/health", _PUBLIC, "/_stcore/health"),
        ("/pages", _PUBLIC, "/pages"),
        ("/page/", None, "/page/"),
        ("/", "https://leads.example.com", "/"),
    ],
)
def test_the_path_of_the_proxy_is_removed(path: str, public_url: str | None, seen: str) -> None:
    """Once, whether or not the proxy has removed it; the application never checks the origin."""
    headers = {"host": "leads.example.com", "origin": "https://leads.example.com"}
    if public_url is None:
        headers = {}
    assert request(path=path, public_url=public_url, **headers).text == f"{seen} None"


def test_the_path_gets_its_slash() -> None:
    """The page's own addresses are relative; the viewer's selection is kept."""
    response = request(path="/page?campaign=C-1")
    assert response.status_code == 308
    assert response.headers["location"] == "/page/?campaign=C-1"


def test_no_other_page_can_frame_or_read_it() -> None:
    """Our headers replace those of the application."""
    headers = request().headers
    assert headers.get_list("x-frame-options") == ["DENY"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


def test_sessions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the limit is refused; one that ended leaves room."""
    monkeypatch.setattr(request_guard, "MAX_SESSIONS", 3)
    leave = asyncio.Event()

    async def stay(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await leave.wait()

    guard = RequestGuard(stay, ServedAddresses(advice=""))
    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"localhost")]}
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def open_sessions() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(guard(scope, receive, send))
                await asyncio.sleep(0)
            leave.set()
        await guard(scope, receive, send)

    asyncio.run(open_sessions())
    assert sent == [*["websocket.accept"] * 3, "websocket.close", "websocket.accept"]
