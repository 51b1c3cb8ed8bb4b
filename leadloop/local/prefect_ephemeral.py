"""A Prefect server for runs by hand where PREFECT_API_URL names none.

Prefect would start one for itself for each run, when the run needs it, and stop waiting after 20
seconds. This one is started before Prefect is even imported, is shared by the runs of one
directory, and keeps its database there, so that only the very first start has to make the tables.
It requires a password, a random one for each start: any user of the machine can reach its port, and
write access to a Prefect server is enough to run code in its clients. Prefect itself is not
imported here, neither by the borrower nor by the server's main function.
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
from leadloop.local import shared_server

_LOG = "log"
_EVENTS_PATIENCE_S = 5.0
_APPLICATION = "prefect.server.api.server:create_app"
# Prefect gives SQLite a single connection where the address contains this word. With several,
# transactions run into each other's locks: every second flow waited 2 s for its retry, and of four
# processes with 300 tasks each one failed. (A Prefect that stops doing so is slower, not wrong.)
_DATABASE = "runs-:memory:.db"
# Nobody looks at this server, schedules on it or deploys to it. What flows, tasks, retries and
# artifacts need, they ask of its API.
_UNNEEDED_SERVICES = (
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
_PRIVATE = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


@dataclass(frozen=True, kw_only=True)
class Borrowed:
    """A Prefect server in use: its address is good at once, its answers may take a while."""

    api_url: str
    auth_string: str = field(repr=False)
    log: Path
    server: shared_server.Borrowed

    def client_environment(self) -> Mapping[str, str]:
        """Return the environment variables that make Prefect use this server alone.

        They must be set before Prefect is imported. No login of the user's profile goes to the
        server, and only warnings are logged.
        """
        return {
            **_PRIVATE,
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_KEY": "",
            "PREFECT_API_AUTH_STRING": self.auth_string,
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        }

    def wait(self, patience_s: float = 180.0) -> None:
        """Return when the server answers; its port is open from the start, so this only listens.

        Raises:
            UsageError: it ended, or did not answer within `patience_s` seconds.
        """
        # No proxy of the environment may come between us and our own machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.api_url}/health", timeout=patience_s):
                return
        except (OSError, http.client.HTTPException):
            state = "does not answer" if self.server.is_alive() else "has ended"
        raise UsageError(
            f"The Prefect server for this run {state} (its log: {self.log}). "
            "Set PREFECT_API_URL to use another one."
        )


@contextmanager
def borrow(directory: Path) -> Iterator[Borrowed]:
    """Use the Prefect server of `directory`, and begin to start it if nobody runs it.

    Does not wait for it. The last of those who use it stops it on the way out.

    Raises:
        UsageError: the directory cannot be used.
    """
    directory = directory.expanduser().absolute()
    with ExitStack() as stack:
        try:
            server = stack.enter_context(
                shared_server.borrow(directory, partial(_launch, directory))
            )
        except OSError as error:
            raise UsageError(
                f"No Prefect server for this run: {error.filename or directory}: {error.strerror}. "
                f"Make {directory} writable, or set PREFECT_API_URL to a server of your own."
            ) from None
        stack.callback(_let_prefect_finish)
        yield Borrowed(
            api_url=server.facts["api_url"],
            auth_string=server.facts["auth_string"],
            log=directory / _LOG,
            server=server,
        )


def _let_prefect_finish() -> None:
    """Have the events that Prefect still holds sent, where this process has imported it.

    At the exit of the process, with the server gone, it would try for 7 s and log an error.
    """
    events = sys.modules.get("prefect.events.worker")
    if events is not None:
        events.EventsWorker.drain_all(timeout=_EVENTS_PATIENCE_S)


def _launch(directory: Path) -> shared_server.Launch:
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    auth_string = f"leadloop:{secrets.token_urlsafe()}"
    return shared_server.Launch(
        command=(
            sys.executable,
            "-P",
            "-m",
            "leadloop.local.prefect_ephemeral",
            str(listener.fileno()),
        ),
        environment={
            **_server_environment(directory),
            "PREFECT_SERVER_API_AUTH_STRING": auth_string,
            # No other web page may read answers; without a password none gets any.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin,
        },
        log=directory / _LOG,
        facts={"api_url": f"{origin}/api", "auth_string": auth_string},
        # It holds nothing that is not on disk already, and a polite end takes as long as a start.
        stop_signal=signal.SIGKILL,
        inherited=(listener.detach(),),
    )


def _server_environment(directory: Path) -> Mapping[str, str]:
    """Ours less what steers Prefect: a user's profile or settings are about some other server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    services = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _UNNEEDED_SERVICES}
    return {
        **kept,
        **services,
        **_PRIVATE,
        "PREFECT_HOME": str(directory),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{directory / _DATABASE}",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        # As Prefect starts its own temporary servers.
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
    }


def main(listener: int) -> None:
    """Be the server, on a listening socket inherited as a file descriptor."""
    # A start makes millions of objects that stay: looking for garbage among them took a quarter
    # of the time.
    gc.set_threshold(100_000)
    import uvicorn

    config = uvicorn.Config(
        _APPLICATION, factory=True, lifespan="on", log_level="error", timeout_graceful_shutdown=3
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
