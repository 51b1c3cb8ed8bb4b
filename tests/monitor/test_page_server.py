"""The HTTP server of the page, in a separate process."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from leadloop.monitor.request_guard import MAX_MESSAGE_BYTES

# Serves the page, and prints its URL with what Streamlit then holds.
_SERVE = """
import json, os, sys
from leadloop.monitor import data, page_server

def show(url):
    from streamlit import config
    from streamlit.runtime.secrets import secrets_singleton
    print(json.dumps({
        "url": url,
        "secrets": secrets_singleton.load_if_toml_exists(),
        "environment": os.environ.get("PGHOSTADDR"),
        "cors": config.get_option("server.enableCORS"),
        "xsrf": config.get_option("server.enableXsrfProtection"),
        "path": config.get_option("server.baseUrlPath"),
    }), flush=True)

url = "postgresql://nobody@127.0.0.1:1/x"
page = data.PageConfig(database_url=url, database_setting="X", prefect_url=None, refresh_s=9)
page_server.run_page_server(page, sys.argv[1], 0, show, public_url=None)
print("returned")
"""


@contextmanager
def run_page_server(
    directory: Path, host: str = "127.0.0.1", **environment: str
) -> Iterator["subprocess.Popen[str]"]:
    """Run the page's server in a directory; kill it after the block."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _SERVE, host],
        cwd=directory,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: "subprocess.Popen[str]") -> str:
    """Return the next line that the process prints."""
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("place", ["directory", "home"])
def test_streamlits_files_are_not_read(
    environment: Path, tmp_path_factory: pytest.TempPathFactory, place: str
) -> None:
    """No option and no variable comes from the working directory or the home directory.

    Secrets would go to the environment, from which Postgres's client takes a host.
    """
    home = tmp_path_factory.mktemp("home")
    folder = (environment if place == "directory" else home) / ".streamlit"
    folder.mkdir()
    (folder / "secrets.toml").write_text('PGHOSTADDR = "192.0.2.1"\n')
    (folder / "config.toml").write_text(
        '[server]\nenableXsrfProtection = false\nenableCORS = false\nbaseUrlPath = "planted"\n'
    )
    with run_page_server(environment, HOME=str(home)) as process:
        shown = json.loads(read_line(process))
    del shown["url"]
    assert shown == {"environment": None, "secrets": False, "cors": True, "xsrf": True, "path": ""}


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("host", "start", "stop"),
    [
        ("127.0.0.1", "http://127.0.0.1:", signal.SIGTERM),
        pytest.param(
            "::1",
            "http://[::1]:",
            signal.SIGINT,
            marks=pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 on this machine"),
        ),
    ],
)
def test_url_and_stop(tmp_path: Path, host: str, start: str, stop: signal.Signals) -> None:
    """The printed URL serves the page at once, and a stop signal ends the server normally."""
    with run_page_server(tmp_path, host) as process:
        url = json.loads(read_line(process))["url"]
        assert url.startswith(start)
        assert "<title>" in httpx.get(url, trust_env=False, timeout=60).text
        process.send_signal(stop)
        assert read_line(process) == "returned\n"
        assert process.wait(60) == 0


def test_a_viewer_sends_little(tmp_path: Path) -> None:
    """A message above the limit ends its connection; a file goes nowhere."""
    with run_page_server(tmp_path) as process:
        url = json.loads(read_line(process))["url"]
        stream = f"{url.replace('http', 'ws')}/_stcore/stream"
        with connect(stream, subprotocols=[Subprotocol("streamlit")], proxy=None) as viewer:
            viewer.send(bytes(MAX_MESSAGE_BYTES + 1))
            with suppress(ConnectionClosed):
                while True:
                    viewer.recv(60)
            assert viewer.close_code == 1009
        upload = httpx.put(f"{url}/_stcore/upload_file/a/b", content=bytes(99), trust_env=False)
        assert upload.status_code == 405
