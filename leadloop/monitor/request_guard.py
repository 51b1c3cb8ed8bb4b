"""ASGI middleware in front of the page and of the metrics: who is answered, and how.

It needs no Streamlit, whose own check of origins is not used: it asks a server on the internet for
this machine's address, and stalls all viewers meanwhile.
"""

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leadloop.core.served_addresses import is_served_host, is_served_origin

#: WebSockets at a time: one for each tab that shows the page.
MAX_SESSIONS = 100
#: Connections at a time. A browser opens half a dozen.
MAX_CONNECTIONS = 500
#: Bytes of a WebSocket message from a viewer: the viewer's selection.
MAX_MESSAGE_BYTES = 2**20
_METHODS = ("GET", "HEAD")
_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, kw_only=True)
class ServedAddresses:
    """The addresses at which clients reach a server, beside its IP addresses and `localhost`.

    Args:
        public_url: the URL at which a proxy serves it, perhaps with a path; None: no proxy.
        names: further names of hosts.
        advice: names the setting or option that adds an address.
    """

    advice: str
    public_url: str | None = None
    names: Collection[str] = ()

    @property
    def hosts(self) -> frozenset[str]:
        """The names of the hosts, in lower case."""
        public = urlsplit(self.public_url or "").hostname
        return frozenset(name.lower() for name in (*self.names, public or "") if name)

    @property
    def base_path(self) -> str:
        """The path of the public URL, without a slash at the end; empty without one."""
        return unquote(urlsplit(self.public_url or "").path).rstrip("/")


class RequestGuard:
    """ASGI middleware that answers requests to known hosts, from its own pages, that only read.

    Args:
        app: the application behind it.
        addresses: where clients reach the server. The base path is removed, unless the proxy has
            removed it already.
        headers: further headers of each response.
    """

    def __init__(
        self, app: ASGIApp, addresses: ServedAddresses, headers: Mapping[str, str] | None = None
    ) -> None:
        self._app = app
        self._addresses = addresses
        self._hosts = addresses.hosts
        added = {**_HEADERS, **(headers or {})}
        self._headers = [(name.encode(), value.encode()) for name, value in added.items()]
        self._sessions = 0
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it to the application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._open_session(scope, receive, send)
        else:
            await self._respond(scope, receive, self._add_headers(send))

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        app: ASGIApp
        if not self._is_served(Headers(scope=scope)):
            app = PlainTextResponse(f"Not served here. {self._addresses.advice}\n", 403)
        elif scope["method"] not in _METHODS:
            app = PlainTextResponse("Read only.\n", 405, {"allow": ", ".join(_METHODS)})
        elif path and path == self._addresses.base_path:
            # Relative addresses in the page need the slash.
            query = scope["query_string"].decode("latin-1")
            app = RedirectResponse(f"{path}/" + (f"?{query}" if query else ""), 308)
        else:
            app, scope = self._app, self._without_base_path(_without_origin(scope))
        await app(scope, receive, send)

    async def _open_session(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_served(Headers(scope=scope)) or self._sessions >= MAX_SESSIONS:
            await send({"type": "websocket.close", "code": 1008})
            return
        self._sessions += 1
        try:
            await self._app(self._without_base_path(_without_origin(scope)), receive, send)
        finally:
            self._sessions -= 1

    def _is_served(self, headers: Headers) -> bool:
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        is_served = (
            len(hosts) == 1
            and is_served_host(hosts[0], self._hosts)
            and all(
                is_served_origin(origin, hosts[0], self._addresses.public_url) for origin in origins
            )
        )
        if not is_served and not self._has_warned:
            self._has_warned = True
            print(
                "leadloop: refused a request to another host name, or from another web page."
                f" {self._addresses.advice}",
                file=sys.stderr,
                flush=True,
            )
        return is_served

    def _without_base_path(self, scope: Scope) -> Scope:
        base = self._addresses.base_path
        if not base or not scope["path"].startswith(base + "/"):
            return scope
        path = scope["path"][len(base) :]
        return {**scope, "path": path, "raw_path": quote(path).encode()}

    def _add_headers(self, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = self._drop_replaced(message.get("headers", ()))
                message = {**message, "headers": [*kept, *self._headers]}
            await send(message)

        return send_with_headers

    def _drop_replaced(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Drop the headers that ours replace, and those that let other origins read a response."""
        ours = {name for name, _ in self._headers}
        return [
            (name, value)
            for name, value in headers
            if name.lower() not in ours and not name.lower().startswith(b"access-control-")
        ]


def _without_origin(scope: Scope) -> Scope:
    """Return the scope of a request without the `Origin` that this module has checked."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"origin"]
    return {**scope, "headers": headers}
