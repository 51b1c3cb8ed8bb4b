"""The parent of a shared server: how a server is stopped, and what is removed after it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from leadloop.local import supervisor

pytestmark = pytest.mark.servers

# Notes the stop signals that it gets, and ends at SIGINT alone.
_STUBBORN = """
import os, signal, sys, time

def note(signum, frame):
    # A signal may come while the main program prints, and print is not reentrant.
    os.write(1, signal.Signals(signum).name.encode() + bytes([10]))
    if signum == signal.SIGINT:
        sys.exit()

signal.signal(signal.SIGINT, note)
signal.signal(signal.SIGTERM, note)
print("ready", flush=True)
while True:
    time.sleep(600)
"""


@pytest.fixture
def users_lock(tmp_path: Path) -> Iterator[IO[str]]:
    """Hold the lock of a user; closing the file is leaving the server."""
    with (tmp_path / "users.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock


@contextmanager
def run_supervisor(
    directory: Path, program: str = _STUBBORN, **changes: Any
) -> Iterator["subprocess.Popen[str]"]:
    """Run the supervisor of a Python program until it is ready; `changes` replace parts of its job.

    The program's output is the supervisor's.
    """
    (directory / "scratch").mkdir()
    job = {
        "command": [sys.executable, "-c", program],
        "inherited_fds": [],
        "users_lock": str(directory / "users.lock"),
        "stop_signal": int(signal.SIGINT),
        "stop_timeout_s": 60,
        "scratch": str(directory / "scratch"),
        "user": None,
    }
    with subprocess.Popen(
        [sys.executable, "-I", "-S", supervisor.__file__, json.dumps({**job, **changes})],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def end_and_read(process: "subprocess.Popen[str]", directory: Path) -> str:
    """Wait until server and supervisor have ended; return what the server printed since it began.

    Nothing of the scratch folder is left.
    """
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not (directory / "scratch").exists()
    return output


def test_last_user_stops_the_server(tmp_path: Path, users_lock: IO[str]) -> None:
    """The server runs as long as one user has it, and then gets its own stop signal."""
    other = (tmp_path / "users.lock").open()
    fcntl.flock(other, fcntl.LOCK_SH)
    with run_supervisor(tmp_path) as process:
        users_lock.close()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        other.close()
        assert end_and_read(process, tmp_path) == "SIGINT\n"


def test_server_that_does_not_stop(tmp_path: Path, users_lock: IO[str]) -> None:
    """A server that ignores its stop signal is killed after the timeout."""
    with run_supervisor(tmp_path, stop_signal=int(signal.SIGTERM), stop_timeout_s=0.3) as process:
        users_lock.close()
        assert end_and_read(process, tmp_path) == "SIGTERM\n"


def test_shutdown_of_the_machine(tmp_path: Path, users_lock: IO[str]) -> None:
    """SIGTERM, which every process gets at a shutdown, stops the server in its own way."""
    with run_supervisor(tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert end_and_read(process, tmp_path) == "SIGINT\n"


_LEAVING = """
import subprocess, sys

def run(program):
    return subprocess.Popen([sys.executable, "-c", program], start_new_session=True)

ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
print("ready")
print(run("import time; time.sleep(600)").pid, run(ignoring).pid, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_processes_that_the_server_leaves(tmp_path: Path, users_lock: IO[str]) -> None:
    """They end with it, in sessions of their own too, as the runs of a worker are."""
    with run_supervisor(tmp_path, _LEAVING) as process:
        left = end_and_read(process, tmp_path).split()
    assert len(left) == 2
    for pid in left:
        assert not Path(f"/proc/{pid}").exists()


def test_server_that_ends_by_itself(tmp_path: Path, users_lock: IO[str]) -> None:
    """The supervisor ends with it although there are users, who see that no server is left."""
    with run_supervisor(tmp_path, "print('ready')") as process:
        assert end_and_read(process, tmp_path) == ""
