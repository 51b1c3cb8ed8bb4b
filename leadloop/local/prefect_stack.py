"""A complete local Prefect: server with UI and schedules, and a worker.

Unlike the server of `leadloop.local.prefect_ephemeral` it does all that a team's server does, on a
Postgres. Server and worker are shared servers: they end with this process, however it ends. The
server requires a password, a random one for each start: any user of the machine can reach its port,
and write access to a Prefect server is enough to run code in its workers.
"""

import http.client
import os
import secrets
import signal
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from leadloop.core.errors import UsageError
from leadloop.deployments import PREFECT, WORK_POOL
from leadloop.local.private_files import write_private
from leadloop.local.shared_server import (
    ServerSpec,
    SharedServer,
    require_free_port,
    share_server,
)

_READY_TIMEOUT_S = 180.0
# A worker ends its connections to the server, and then kills its runs. One that is killed before
# leaves them at work, as they are made to outlive it.
_WORKER_STOP_TIMEOUT_S = 60.0
_HOST = "127.0.0.1"
_LOG = "log"
_BASE_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_COLORS": "false",
    # Otherwise a server restart ends the runs that hold a slot of a concurrency limit.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    # Prefect starts Python processes without -P.
    "PYTHONSAFEPATH": "1",
}


@dataclass(frozen=True, kw_only=True)
class LocalPrefect:
    """A Prefect server in use: the address of its UI, and the environment of its clients.

    `password_file` holds the user and password of its UI and its API.
    """

    ui_url: str
    environment: Mapping[str, str] = field(repr=False)
    password_file: Path
    log: Path
    _server: SharedServer

    def is_alive(self) -> bool:
        """Return whether the server is running."""
        return self._server.is_alive()

    def wait(self) -> None:
        """Wait until the server responds.

        Raises:
            UsageError: the server ended, or did not respond within 180 s.
        """
        deadline = time.monotonic() + _READY_TIMEOUT_S
        # No proxy of the environment between this process and its own machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while self.is_alive() and time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                direct.open(f"{self.ui_url}/api/health", timeout=5).close()
                return
            time.sleep(0.2)
        raise UsageError(f"the Prefect server does not start (its log: {self.log})")


@contextmanager
def run_prefect_server(directory: Path, database: str, port: int) -> Iterator[LocalPrefect]:
    """Run a Prefect server for the block. Does not wait until the server responds.

    Args:
        directory: for the server's files; made if missing.
        database: the URL of the database for its tables, for asyncpg.
        port: its port on loopback.

    Raises:
        UsageError: the port is taken.
    """
    directory = directory.expanduser().absolute()
    require_free_port(port, "the Prefect server", "--port")
    ui_url = f"http://{_HOST}:{port}"
    # A user's own PREFECT_… settings are another server's.
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {
        **kept,
        **_BASE_SETTINGS,
        "PREFECT_HOME": str(directory),
        "PREFECT_API_URL": f"{ui_url}/api",
    }
    password_file = directory / "password"

    def prepare() -> ServerSpec:
        auth_string = f"leadloop:{secrets.token_urlsafe()}"
        write_private(password_file, f"{auth_string}\n")
        return ServerSpec(
            command=(*PREFECT, "server", "start", "--host", _HOST, "--port", str(port)),
            environment={
                **environment,
                "PREFECT_API_DATABASE_CONNECTION_URL": database,
                "PREFECT_SERVER_API_AUTH_STRING": auth_string,
                # The UI itself needs no permission; other web pages get none.
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ui_url,
            },
            log=directory / _LOG,
            stop_signal=signal.SIGINT,
        )

    with share_server(directory, prepare) as server:
        auth_string = password_file.read_text().strip()
        yield LocalPrefect(
            ui_url=ui_url,
            environment={**environment, "PREFECT_API_AUTH_STRING": auth_string},
            password_file=password_file,
            log=directory / _LOG,
            _server=server,
        )


@contextmanager
def run_prefect_worker(directory: Path, prefect: LocalPrefect) -> Iterator[SharedServer]:
    """Run a process worker on the pool; its runs have this process's LEADLOOP_… settings."""
    directory = directory.expanduser().absolute()
    ours = {name: text for name, text in os.environ.items() if name.startswith("LEADLOOP_")}
    spec = ServerSpec(
        command=(*PREFECT, "worker", "start", "--pool", WORK_POOL),
        environment={**prefect.environment, **ours},
        log=directory / _LOG,
        stop_signal=signal.SIGTERM,
        stop_timeout_s=_WORKER_STOP_TIMEOUT_S,
    )
    with share_server(directory, lambda: spec) as worker:
        yield worker
