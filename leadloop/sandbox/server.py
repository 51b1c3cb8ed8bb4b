"""Serving the stand-in: for the command line, and inside a test's own process."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import uvicorn

from leadloop.sandbox.app import application
from leadloop.sandbox.books import Books
from leadloop.sandbox.faults import Fault
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.stage import ReachableProtocol
from leadloop.sandbox.state import Sandbox
from leadloop.sandbox.traffic import Entry, Kind

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Handle:
    """A running sandbox, from Python."""

    def __init__(self, url: str, sandbox: Sandbox) -> None:
        self.url = url
        self._sandbox = sandbox

    @property
    def rules(self) -> Rules:
        """The rules in force."""
        return self._sandbox.rules

    def change(self, **changes: Any) -> None:
        """Put changed rules in force, e.g. `change(max_batch=10, clock_offset=3600)`.

        Raises:
            ValueError: an unknown rule or a wrong value.
        """
        self._sandbox.rules = self._sandbox.rules.changed(**changes)

    @property
    def books(self) -> Books:
        """What the vendor holds."""
        return self._sandbox.books

    def put(self, outcomes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Put outcomes in by hand; see `Books.put`."""
        return self.books.put(outcomes)

    @property
    def requests(self) -> list[Entry]:
        """Every request so far, in the order of arrival."""
        return list(self._sandbox.traffic.entries)

    def busiest(self, seconds: float, kinds: Iterable[Kind] | None = None) -> int:
        """The greatest number of requests (of those kinds) in any window of that length."""
        return self._sandbox.traffic.busiest(seconds, kinds)

    def fault(self, **given: Any) -> None:
        """Put a fault in force, e.g. `fault(route="create", kind="reset", when="after", nth=2)`.

        Raises:
            ValueError: what `Fault` refuses.
        """
        self._sandbox.faults.add(Fault.from_json(given), self.rules.seed)

    @property
    def faults(self) -> list[dict[str, Any]]:
        """Each fault in force: `fault`, `route`, and how often it has `seen` and `fired`."""
        return self._sandbox.faults.counts()

    def clear_faults(self) -> None:
        """Put no fault in force."""
        self._sandbox.faults.clear()

    def now(self) -> int:
        """The vendor's time, epoch ms."""
        return self._sandbox.clock.now()

    def reset(self) -> None:
        """Forget leads, requests, tokens and faults; the rules stay."""
        self._sandbox.reset()


class _Server(uvicorn.Server):
    """A server that stops at once, open connections or not, and says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.02)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=0.5)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Unlike uvicorn's own, this does not raise the signal again: a stop is not a failure.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


def serve(
    rules: Rules,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return.

    Args:
        rules: how the stand-in behaves.
        host: the address to listen on.
        port: the port to listen on; 0: any free one.
        on_ready: told the base URL once requests are answered.

    Raises:
        OSError: the address cannot be listened on.
    """
    listener = _listener(host, port)
    url = _url(listener)
    server = _server(Sandbox(rules), lambda: on_ready(url) if on_ready else None)
    server.run(sockets=[listener])


@contextlib.contextmanager
def running(rules: Rules | None = None) -> Iterator[Handle]:
    """A sandbox on a free port of loopback, in a thread of this process, over real HTTP.

    Yields:
        Its `Handle`, once requests are answered. On leaving it stops at once.
    """
    sandbox, listener, ready = (
        Sandbox(rules or Rules()),
        _listener("127.0.0.1", 0),
        threading.Event(),
    )
    server = _server(sandbox, ready.set)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True
    )
    thread.start()
    try:
        if not ready.wait(timeout=30):
            raise RuntimeError("the sandbox did not start")
        yield Handle(_url(listener), sandbox)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: without
    # that, every short answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(1024)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(sandbox: Sandbox, ready: Callable[[], None]) -> _Server:
    config = uvicorn.Config(
        application(sandbox),
        http=ReachableProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        date_header=False,
        server_header=False,
        timeout_keep_alive=120,
    )
    return _Server(config, ready)
