"""A minimal Prefect server for local runs where PREFECT_API_URL names none.

Prefect would start a server for each run, only when the run needs it, and stop waiting after 20
seconds. The server here starts before Prefect is imported, and the runs of one directory share it.
Its database stays in that directory, so only the first start creates the tables. The server
requires a password, a random one for each start: any user of the machine can reach its port, and
write access to a Prefect server is enough to run code in its clients. This module does not import
Prefect, neither for the users of the server nor in its main function.
"""

import gc
import http.client
import os
import secrets
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from leadloop.core.errors import UsageError
from leadloop.local.shared_server import ServerSpec, SharedServer, share_server

_LOG = "log"
_DRAIN_TIMEOUT_S = 5.0
_APPLICATION = "prefect.server.api.server:create_app"
# Prefect gives SQLite a single connection where the address contains this word. With several,
# transactions run into each other's locks: every second flow waited 2 s for its retry, and of four
# processes with 300 tasks each one failed. (Without that rule Prefect would be slower, not wrong.)
_DATABASE = "runs-:memory:.db"
# This server has no UI users, schedules or deployments. Flows, tasks, retries and artifacts need
# its API alone.
_DISABLED_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "EVENT_PERSISTER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TASK_RUN_RECORDER",
    "TRIGGERS",
)
_NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


@dataclass(frozen=True, kw_only=True)
class EphemeralPrefect:
    """A Prefect server in use: its port accepts at once, its first response may take a while."""

    api_url: str
    auth_string: str = field(repr=False)
    log: Path
    server: SharedServer

    def client_environment(self) -> Mapping[str, str]:
        """Return the environment variables that make Prefect use this server alone.

        Set them before Prefect is imported. No login of the user's profile goes to the server, and
        only warnings are logged.
        """
        return {
            **_NO_TELEMETRY,
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_KEY": "",
            "PREFECT_API_AUTH_STRING": self.auth_string,
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        }

    def wait(self, timeout_s: float = 180.0) -> None:
        """Wait until the server responds: one request, because its port is open from the start.

        Raises:
            UsageError: the server ended, or did not respond within `timeout_s` seconds.
        """
        # No proxy of the environment between this process and its own machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.api_url}/health", timeout=timeout_s):
                return
        except (OSError, http.client.HTTPException):
            state = "does not respond" if self.server.is_alive() else "has ended"
        raise UsageError(
            f"The Prefect server for this run {state} (its log: {self.log}). "
            "Set PREFECT_API_URL to use another one."
        )


@contextmanager
def run_ephemeral_prefect(directory: Path) -> Iterator[EphemeralPrefect]:
    """Share the Prefect server of `directory` for the block; start the server unless it runs.

    Does not wait until the server responds. The last user stops the server on exit.

    Raises:
        UsageError: the directory cannot be used.
    """
    directory = directory.expanduser().absolute()
    with ExitStack() as stack:
        try:
            prepare = partial(_prepare_server, directory)
            server = stack.enter_context(share_server(directory, prepare))
        except OSError as error:
            raise UsageError(
                f"No Prefect server for this run: {error.filename or directory}: {error.strerror}. "
                f"Make {directory} writable, or set PREFECT_API_URL to another server."
            ) from None
        try:
            yield EphemeralPrefect(
                api_url=server.facts["api_url"],
                auth_string=server.facts["auth_string"],
                log=directory / _LOG,
                server=server,
            )
        finally:
            # If this process has imported Prefect: at exit, without the server, Prefect would try
            # for 7 s to send the events that it still buffers, and log an error.
            events = sys.modules.get("prefect.events.worker")
            if events is not None:
                events.EventsWorker.drain_all(timeout=_DRAIN_TIMEOUT_S)


def _prepare_server(directory: Path) -> ServerSpec:
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    auth_string = f"leadloop:{secrets.token_urlsafe()}"
    # The PREFECT_… settings of this process are another server's.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    services = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _DISABLED_SERVICES}
    return ServerSpec(
        command=(sys.executable, "-P", "-m", __name__, str(listener.fileno())),
        environment={
            **kept,
            **services,
            **_NO_TELEMETRY,
            "PREFECT_HOME": str(directory),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{directory / _DATABASE}",
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
            "PREFECT_SERVER_API_AUTH_STRING": auth_string,
            # No other web page may read responses; without a password no page gets any.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
            # As Prefect starts its own temporary servers.
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        },
        log=directory / _LOG,
        facts={"api_url": f"{origin}/api", "auth_string": auth_string},
        # All of its state is on disk already, and a graceful stop takes as long as a start.
        stop_signal=signal.SIGKILL,
        inherited_fds=(listener.detach(),),
    )


def main(listener: int) -> None:
    """Serve Prefect's API on a listening socket, inherited as a file descriptor."""
    # A start creates millions of permanent objects: garbage collection took a quarter of the time.
    gc.set_threshold(100_000)
    import uvicorn

    config = uvicorn.Config(
        _APPLICATION, factory=True, lifespan="on", log_level="error", timeout_graceful_shutdown=3
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
