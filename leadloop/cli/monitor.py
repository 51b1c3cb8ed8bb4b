"""`leadloop monitor`: serve the page, in this process or in a child process beside others."""

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
from leadloop.local.shared_server import ServerSpec, require_free_port, share_server

_HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_NOT_INSTALLED = (
    "the page needs Streamlit: install what requirements.lock lists"
    " (docs/how-to/install-a-release.md)"
)


def serve_page(host: str, port: int, refresh_s: float) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0: any free port.
        refresh_s: seconds between two queries of the database.

    Raises:
        UsageError: Streamlit is not installed, a setting is wrong, or the port is taken.
    """
    _require_streamlit()
    public_url = environment.load_settings().page_url
    with environment.find_monitor_url() as (url, setting):
        # The import takes seconds; errors in the settings come first.
        from leadloop.monitor import data, page_server

        def announce(url: str) -> None:
            print(f"The page: {url}", flush=True)
            print("Ctrl-C ends it.", file=sys.stderr, flush=True)

        looked_at = data.PageConfig(
            database_url=url,
            database_setting=setting,
            prefect_url=data.find_prefect_page(dict(os.environ)),
            refresh_s=refresh_s,
        )
        try:
            page_server.run_page_server(looked_at, host, port, announce, public_url=public_url)
        except OSError as error:
            raise environment.explain_listen_error(error, host, port) from None


@dataclass(frozen=True, kw_only=True)
class PageServer:
    """A page server in a child process."""

    url: str
    is_alive: Callable[[], bool]


@contextmanager
def run_page_server(directory: Path, prefect_page: str, port: int) -> Iterator[PageServer]:
    """Serve the page in a child process for the block, with this process's settings.

    The child also ends if this process is killed.

    Args:
        directory: for the child's log; created if missing.
        prefect_page: the URL of Prefect's page, for links to runs.
        port: the port to listen on at loopback.

    Raises:
        UsageError: the server does not start.
    """
    _require_streamlit()
    directory = directory.absolute()
    require_free_port(port, "the page", "--page-port")
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


def _require_streamlit() -> None:
    if importlib.util.find_spec("streamlit") is None:
        raise UsageError(_NOT_INSTALLED)
