"""A whole Prefect for somebody who wants to look: server with its page, schedules, a worker.

Unlike the small server of `leadloop.prefect_server` it does all that a team's server does, on a
Postgres. Server and worker are borrowed: whatever becomes of us, they end with us.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from leadloop import borrowed
from leadloop.core.errors import UsageError

_READY_WITHIN_S = 180.0
_HOST = "127.0.0.1"
# -P: a prefect.py in the working directory is not imported in place of Prefect.
_PREFECT = (sys.executable, "-P", "-m", "prefect")
_FILE = Path(__file__).parents[1] / "prefect.yaml"
#: The work pool that prefect.yaml names.
POOL = "leadloop"
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_COLORS": "false",
    # Else a restart of the server ends the runs that hold a place under a concurrency limit.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}


@dataclass(frozen=True, kw_only=True)
class WholePrefect:
    """A server in use: where its page is, and what a program's environment must say to use it."""

    page: str
    environment: Mapping[str, str]
    log: Path
    _server: borrowed.Borrowed

    def is_alive(self) -> bool:
        """Whether the server is running."""
        return self._server.is_alive()

    def wait(self) -> None:
        """Return when it answers.

        Raises:
            UsageError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + _READY_WITHIN_S
        # No proxy of the environment may come between us and our own machine.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while self.is_alive() and time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                direct.open(f"{self.page}/api/health", timeout=5).close()
                return
            time.sleep(0.2)
        raise UsageError(f"the Prefect server does not start (its log: {self.log})")


@contextmanager
def server(directory: Path, database: str, port: int) -> Iterator[WholePrefect]:
    """Begin to start a server whose files are in `directory` and whose tables are in `database`.

    Args:
        directory: made if missing.
        database: its URL, for asyncpg.
        port: where it listens on loopback.

    Raises:
        UsageError: the port is taken.
    """
    directory = directory.expanduser().absolute()
    _require_free(port)
    api = f"http://{_HOST}:{port}/api"
    environment = {**_cleared(), "PREFECT_HOME": str(directory), "PREFECT_API_URL": api}
    launch = borrowed.Launch(
        command=(*_PREFECT, "server", "start", "--host", _HOST, "--port", str(port)),
        environment={**environment, "PREFECT_API_DATABASE_CONNECTION_URL": database},
        log=directory / "log",
        stop_signal=signal.SIGINT,
    )
    with borrowed.borrow(directory, lambda: launch) as running:
        yield WholePrefect(
            page=f"http://{_HOST}:{port}", environment=environment, log=launch.log, _server=running
        )


def deploy(environment: Mapping[str, str]) -> None:
    """Make the work pool where there is none, and the deployments of prefect.yaml.

    A pool that is there stays as its operators have it: paused, limited, of another type.

    Args:
        environment: of Prefect's commands; says which server is meant.

    Raises:
        UsageError: prefect.yaml is not there, or Prefect does not take it.
    """
    if not _FILE.exists():
        raise UsageError(f"{_FILE} is missing: run this from a checkout of leadloop")
    if _carried_out(environment, "work-pool", "inspect", POOL).returncode:
        _order(environment, "work-pool", "create", POOL, "--type", "process")
    _order(environment, "--no-prompt", "deploy", "--all")


def run_now(environment: Mapping[str, str], deployment: str) -> None:
    """Have a deployment run once, as soon as a worker is there.

    Raises:
        UsageError: Prefect does not know it.
    """
    _order(environment, "deployment", "run", deployment)


@contextmanager
def worker(directory: Path, prefect: WholePrefect) -> Iterator[borrowed.Borrowed]:
    """A process worker on the pool; its runs have this process's LEADLOOP_… settings."""
    directory = directory.expanduser().absolute()
    ours = {name: text for name, text in os.environ.items() if name.startswith("LEADLOOP_")}
    launch = borrowed.Launch(
        command=(*_PREFECT, "worker", "start", "--pool", POOL),
        environment={**prefect.environment, **ours},
        log=directory / "log",
        stop_signal=signal.SIGTERM,
    )
    with borrowed.borrow(directory, lambda: launch) as running:
        yield running


def _order(environment: Mapping[str, str], *order: str) -> None:
    done = _carried_out(environment, *order)
    if done.returncode:
        said = done.stdout.strip().splitlines()[-1:] or ["it did not say why"]
        raise UsageError(f"`prefect {' '.join(order)}` failed: {said[0]}")


def _carried_out(environment: Mapping[str, str], *order: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*_PREFECT, *order],
        cwd=_FILE.parent,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _cleared() -> dict[str, str]:
    """Our environment less what steers Prefect: a user's profile is about some other server."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
    # Prefect starts Pythons of its own, which have no -P.
    return {**kept, **_QUIET, "PYTHONSAFEPATH": "1"}


def _require_free(port: int) -> None:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError as error:
        raise UsageError(
            f"the Prefect server cannot listen on port {port}: {error.strerror}; choose another"
            " --port"
        ) from None
