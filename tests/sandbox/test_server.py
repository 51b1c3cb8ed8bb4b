import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from leadloop.sandbox import Rules, SandboxHandle, run_sandbox, serve_sandbox
from tests.sandbox.http_client import StartSandbox, lead

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from leadloop.sandbox import Rules, serve_sandbox
serve_sandbox(
    Rules.from_texts(sys.argv[1:]), "127.0.0.1", 0, on_ready=lambda url: print(url, flush=True)
)
print("ended", flush=True)
"""


def test_one_connection_serves_many_requests(start_sandbox: StartSandbox) -> None:
    """Keep-alive: a session opens one connection."""
    api = start_sandbox()
    for n in range(5):
        api.create([lead(f"{n}")])
    pools: Any = api.session.get_adapter("http://").poolmanager.pools  # type: ignore[attr-defined]
    assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118


def test_the_handle_is_a_public_name(start_sandbox: StartSandbox) -> None:
    """It is importable for annotations."""
    assert isinstance(start_sandbox().handle, SandboxHandle)


@contextlib.contextmanager
def process(*texts: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the sandbox as the command does; yield the process and the base URL."""
    command = [sys.executable, "-c", PROGRAM, *texts]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            assert child.stdout is not None
            yield child, child.stdout.readline().strip()
        finally:
            child.kill()


@pytest.mark.parametrize("kind", ["hang", "slow"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly_and_at_once(number: signal.Signals, kind: str) -> None:
    """An open keep-alive connection and a request in the middle of a fault do not hold it up."""
    with process("pace=none") as (child, url), requests.Session() as session:
        fault = {"kind": kind, "seconds": 60, "route": "token"}
        assert session.post(f"{url}/_sandbox/faults", json=fault, timeout=5).status_code == 200
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 5) as waiting:
            waiting.sendall(b"POST /oauth/token/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            while not session.get(f"{url}/_sandbox/faults", timeout=5).json()[0]["fired"]:
                time.sleep(0.01)
            start = time.monotonic()
            child.send_signal(number)
            out, err = child.communicate(timeout=50)
            assert time.monotonic() - start < 30
        assert (out, err, child.returncode) == ("ended\n", "", 0)


def test_a_taken_port_is_an_os_error() -> None:
    """The caller can report in one line that the port is taken."""
    with run_sandbox() as handle, pytest.raises(OSError, match="in use"):
        serve_sandbox(Rules(), "127.0.0.1", int(handle.url.rpartition(":")[2]))


def test_two_sandboxes_are_independent() -> None:
    """Each has its own records and port, and its end closes the port."""
    headers = {"Authorization": "Bearer sandbox-token"}
    with run_sandbox() as one:
        with run_sandbox() as two:
            lead = {"lead_id": 1, "phone_number": "+12125550123", "contact_name": "A"}
            requests.post(
                f"{one.url}/api/v1/leads/create/C1/",
                json={**lead, "state_code": "NY"},
                headers=headers,
                timeout=5,
            )
            assert one.store.creations("C1") == {"1": 1}
            assert two.store.creations("C1") == {}
        with pytest.raises(requests.ConnectionError):
            requests.get(two.url, timeout=5)


def test_a_short_answer_does_not_wait_for_a_delayed_acknowledgement() -> None:
    """A create takes a few ms; with Nagle's algorithm on, all but the first take more than 40."""
    with run_sandbox() as handle, requests.Session() as session:
        took = []
        for _ in range(60):
            start = time.monotonic()
            session.post(f"{handle.url}/api/v1/leads/create/C1/", json=[], timeout=5)
            took.append(time.monotonic() - start)
        assert min(took[20:]) < 0.035
