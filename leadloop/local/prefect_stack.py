"""A whole Prefect for somebody who wants to look: server with its page, schedules, a worker.

Unlike the server of `local.prefect_ephemeral` it does all that a team's server does, on a
Postgres. Server and worker are borrowed: whatever becomes of us, they end with us. The server
requires a password, a random one for each start: any user of the machine can reach its port, and
write access to a Prefect server is enough to run code in its workers.
"""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from leadloop.core.errors import UsageError
from leadloop.core.work_pools import settable_variables
from leadloop.local import shared_server

_READY_WITHIN_S = 180.0
_HOST = "127.0.0.1"
# -P: a prefect.py in the working directory is not imported in place of Prefect.
_PREFECT = (sys.executable, "-P", "-m", "prefect")
_FILE = Path(__file__).parents[2] / "prefect.yaml"
#: The work pool that prefect.yaml names.
POOL = "leadloop"
#: What runs may set in that pool: neither a command nor an environment nor a folder.
JOB_TEMPLATE = Path(__file__).parents[1] / "work_pool.json"
_PASSWORD = "password"
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
    """A server in use: where its page is, and what a program's environment must say to use it.

    `password` is the file that holds the password of its page and its API.
    """

    page: str
    environment: Mapping[str, str] = field(repr=False)
    password: Path
    log: Path
    _server: shared_server.Borrowed

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
    page = f"http://{_HOST}:{port}"
    environment = {
        **_cleared(),
        "PREFECT_HOME": str(directory),
        "PREFECT_API_URL": f"{page}/api",
    }
    password = directory / _PASSWORD

    def launch() -> shared_server.Launch:
        auth_string = f"leadloop:{secrets.token_urlsafe()}"
        shared_server.write_private(password, f"{auth_string}\n")
        return shared_server.Launch(
            command=(*_PREFECT, "server", "start", "--host", _HOST, "--port", str(port)),
            environment={
                **environment,
                "PREFECT_API_DATABASE_CONNECTION_URL": database,
                "PREFECT_SERVER_API_AUTH_STRING": auth_string,
                # The page itself needs no permission; other web pages get none.
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": page,
            },
            log=directory / "log",
            stop_signal=signal.SIGINT,
        )

    with shared_server.borrow(directory, launch) as running:
        yield WholePrefect(
            page=page,
            environment={**environment, "PREFECT_API_AUTH_STRING": password.read_text().strip()},
            password=password,
            log=directory / "log",
            _server=running,
        )


def deploy(environment: Mapping[str, str]) -> list[str]:
    """Create the work pool where there is none, and the deployments of prefect.yaml.

    A pool that is there stays as its operators have it: paused, limited, of another type, with its
    own job template.

    Args:
        environment: of Prefect's commands; says which server is meant.

    Returns:
        The job variables by which a run decides what is executed, in a pool that was there; see
        `settable_variables`.

    Raises:
        UsageError: prefect.yaml is not there, or Prefect does not take it.
    """
    if not _FILE.exists():
        raise UsageError(f"{_FILE} is missing: run this from a checkout of leadloop")
    shown = _carried_out(environment, "work-pool", "inspect", POOL, "--output", "json")
    if shown.returncode:
        template = ("--base-job-template", str(JOB_TEMPLATE))
        _order(environment, "work-pool", "create", POOL, "--type", "process", *template)
    _order(environment, "--no-prompt", "deploy", "--all")
    if shown.returncode:
        return []
    return settable_variables(json.loads(shown.stdout)["base_job_template"])


def run_now(environment: Mapping[str, str], deployment: str) -> None:
    """Have a deployment run once, as soon as a worker is there.

    Raises:
        UsageError: Prefect does not know it.
    """
    _order(environment, "deployment", "run", deployment)


@contextmanager
def worker(directory: Path, prefect: WholePrefect) -> Iterator[shared_server.Borrowed]:
    """A process worker on the pool; its runs have this process's LEADLOOP_… settings."""
    directory = directory.expanduser().absolute()
    ours = {name: text for name, text in os.environ.items() if name.startswith("LEADLOOP_")}
    launch = shared_server.Launch(
        command=(*_PREFECT, "worker", "start", "--pool", POOL),
        environment={**prefect.environment, **ours},
        log=directory / "log",
        stop_signal=signal.SIGTERM,
    )
    with shared_server.borrow(directory, lambda: launch) as running:
        yield running


def _order(environment: Mapping[str, str], *order: str) -> None:
    done = _carried_out(environment, *order)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["it did not say why"]
        raise UsageError(f"`prefect {' '.join(order)}` failed: {said[0]}")


def _carried_out(environment: Mapping[str, str], *order: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*_PREFECT, *order],
        cwd=_FILE.parent,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
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
