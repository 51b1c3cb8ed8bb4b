"""`leadloop monitor`: the page, until Ctrl-C; or beside other servers, until they end."""

import importlib.util
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leadloop.cli import environment
from leadloop.core.errors import UsageError
from leadloop.local.shared_server import ServerSpec, share_server
from leadloop.settings import DATABASE_URL, MONITOR_DATABASE_URL

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_NOT_INSTALLED = "the page needs Streamlit: pip install 'leadloop[monitor]'"


def serve_page(host: str, port: int, refresh_s: float) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        host: where it listens.
        port: where it listens; 0: any free one.
        refresh_s: seconds between two looks at the database.

    Raises:
        UsageError: Streamlit is not installed, a setting is wrong, or the port is taken.
    """
    _require_streamlit()
    with _database_url() as (url, setting):
        # Seconds to import: not before what is wrong has been said.
        from leadloop.monitor import data, page_server

        looked_at = data.PageConfig(
            database_url=url,
            database_setting=setting,
            prefect_url=data.find_prefect_page(dict(os.environ)),
            refresh_s=refresh_s,
        )
        try:
            page_server.serve_page(looked_at, host, port, _announce_url)
        except OSError as error:
            raise environment.explain_listen_error(error, host, port) from None


@dataclass(frozen=True, kw_only=True)
class PageServer:
    """A page in a process of its own: its address, and whether it is still there."""

    url: str
    is_alive: Callable[[], bool]


@contextmanager
def run_page_server(directory: Path, prefect_page: str, port: int) -> Iterator[PageServer]:
    """The page with this process's settings, for the block; whatever becomes of us, it ends.

    Args:
        directory: for its log; made if missing.
        prefect_page: where runs are shown.
        port: where it listens on loopback.

    Raises:
        UsageError: it does not start.
    """
    _require_streamlit()
    directory = directory.absolute()
    _require_free_port(port)
    spec = ServerSpec(
        command=(sys.executable, "-P", "-m", "leadloop", "monitor", "--port", str(port)),
        environment={**os.environ, "PREFECT_UI_URL": prefect_page},
        log=directory / "log",
    )
    with share_server(directory, lambda: spec) as running:
        _wait_until_listening(port, running.is_alive, spec.log)
        yield PageServer(url=f"http://{_HOST}:{port}", is_alive=running.is_alive)


def _wait_until_listening(port: int, is_alive: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while is_alive() and time.monotonic() < deadline:
        try:
            socket.create_connection((_HOST, port), timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise UsageError(f"the page does not start (its log: {log})")


def _require_free_port(port: int) -> None:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError as error:
        raise UsageError(
            f"the page cannot listen on port {port}: {os.strerror(error.errno or 0)}; choose"
            " another --page-port"
        ) from None


def _require_streamlit() -> None:
    if importlib.util.find_spec("streamlit") is None:
        raise UsageError(_NOT_INSTALLED)


@contextmanager
def _database_url() -> Iterator[tuple[str, str]]:
    """Yield the URL of the page's login, else that of the runs, and the variable that names it."""
    own = environment.load_settings().monitor_database_url
    if own is not None:
        yield _validate_url(own.get_secret_value(), MONITOR_DATABASE_URL)
        return
    with environment.load_settings_with_database() as settings:
        yield _validate_url(settings.require_database_url(), DATABASE_URL)


def _validate_url(url: str, variable: str) -> tuple[str, str]:
    environment.require_postgres_url(url, variable)
    return url, variable


def _announce_url(url: str) -> None:
    print(f"The page: {url}", flush=True)
    print("Ctrl-C ends it.", file=sys.stderr, flush=True)
