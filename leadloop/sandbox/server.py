"""The sandbox's server: for the command line, and in a thread of a test's process."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import uvicorn

from leadloop.sandbox.asgi_app import build_app
from leadloop.sandbox.faults import Fault, TransportExposingProtocol
from leadloop.sandbox.request_log import LoggedRequest, RequestKind
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.state import SandboxState
from leadloop.sandbox.store import LeadStore

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SandboxHandle:
    """A running sandbox, controlled from Python."""

    def __init__(self, url: str, sandbox: SandboxState) -> None:
        self.url = url
        self._sandbox = sandbox

    @property
    def rules(self) -> Rules:
        """The rules in force."""
        return self._sandbox.rules

    def change_rules(self, **changes: Any) -> None:
        """Put changed rules in force, e.g. `change(max_batch=10, clock_offset=3600)`.

        Raises:
            ValueError: an unknown rule or a wrong value.
        """
        self._sandbox.rules = self._sandbox.rules.with_changes(**changes)

    @property
    def store(self) -> LeadStore:
        """The vendor's records."""
        return self._sandbox.store

    def put_outcomes(self, outcomes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Process leads with the outcomes stated; see `LeadStore.put_outcomes`."""
        return self.store.put_outcomes(outcomes)

    @property
    def requests(self) -> list[LoggedRequest]:
        """Every request so far, in the order of arrival."""
        return list(self._sandbox.request_log.entries)

    def count_busiest(self, seconds: float, kinds: Iterable[RequestKind] | None = None) -> int:
        """Count the requests (of these kinds) in the busiest window of that many seconds."""
        return self._sandbox.request_log.count_busiest(seconds, kinds)

    def add_fault(self, **fields: Any) -> None:
        """Put a fault in force, e.g. `fault(route="create", kind="reset", when="after", nth=2)`.

        Raises:
            ValueError: an unknown or missing field, or a wrong value; see `Fault`.
        """
        self._sandbox.faults.add(Fault.from_json(fields), self.rules.seed)

    @property
    def faults(self) -> list[dict[str, Any]]:
        """Each fault in force: `fault`, `route`, and the requests `seen` and hit (`fired`)."""
        return self._sandbox.faults.count_fired()

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._sandbox.faults.clear()

    def now(self) -> int:
        """Return the vendor's time in epoch ms."""
        return self._sandbox.clock.now()

    def reset(self) -> None:
        """Delete leads, requests, tokens and faults; keep the rules."""
        self._sandbox.reset()


class _SandboxServer(uvicorn.Server):
    """A server that stops at once, open connections or not, and reports when it is ready."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

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
        # uvicorn's own method raises the signal again afterwards; a stop is not a failure here.
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


def serve_sandbox(
    rules: Rules,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return.

    Args:
        rules: how the sandbox behaves.
        host: the address to listen on.
        port: the port to listen on; 0: any free one.
        on_ready: called with the base URL once requests are answered.

    Raises:
        OSError: the address cannot be listened on.
    """
    listener = _open_listener(host, port)
    url = _get_url(listener)
    server = _build_server(SandboxState(rules), lambda: on_ready(url) if on_ready else None)
    server.run(sockets=[listener])


@contextlib.contextmanager
def run_sandbox(rules: Rules | None = None) -> Iterator[SandboxHandle]:
    """Run a sandbox on a free port of loopback, in a thread of this process, over real HTTP.

    Yields:
        Its `SandboxHandle`, once requests are answered. On leaving it stops at once.
    """
    sandbox = SandboxState(rules or Rules())
    listener = _open_listener("127.0.0.1", 0)
    ready = threading.Event()
    server = _build_server(sandbox, ready.set)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True
    )
    thread.start()
    try:
        if not ready.wait(timeout=30):
            raise RuntimeError("the sandbox did not start")
        yield SandboxHandle(_get_url(listener), sandbox)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def _open_listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only if the protocol is named. With the algorithm on,
    # every short response waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(1024)
    return listener


def _get_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _build_server(sandbox: SandboxState, on_ready: Callable[[], None]) -> _SandboxServer:
    config = uvicorn.Config(
        build_app(sandbox),
        http=TransportExposingProtocol,
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
    return _SandboxServer(config, on_ready)
