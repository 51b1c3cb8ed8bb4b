"""`leadloop` processes that a test can kill at any moment."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.resilience.counters import COUNTERS
from tests.waiting import wait_until


@dataclass(frozen=True, kw_only=True)
class LeadloopProcess:
    """A running `leadloop`; its output goes to files."""

    pid: int
    out: Path
    err: Path

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    def kill(self) -> None:
        """Send SIGKILL and wait for the end of the process."""
        COUNTERS["kills"] += 1
        if self.is_alive:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Wait for the end of the process."""
        wait_until(lambda: not self.is_alive, "the process does not end")

    @property
    def last_json(self) -> Any:
        """The last line on stdout as JSON; None if stdout is empty."""
        lines = self.out.read_text().splitlines()
        return json.loads(lines[-1]) if lines else None

    @property
    def output(self) -> str:
        """Everything on stdout and stderr."""
        return self.out.read_text() + self.err.read_text()


class ForkServer:
    """The client of tests/resilience/fork_server.py, which starts processes."""

    def __init__(self, server: "subprocess.Popen[str]", prefect: str) -> None:
        self._server = server
        self._prefect = prefect
        self._numbers = count(1)

    def start_job(self, directory: Path, name: str, **more: str) -> LeadloopProcess:
        """Start a process that runs a job without Prefect, with this process's settings."""
        return self._start(directory, more, job=name, arguments=[])

    def start_command(self, directory: Path, *arguments: str) -> LeadloopProcess:
        """Start `leadloop`, on the session's Prefect server, with this process's settings."""
        return self._start(directory, {}, job=None, arguments=arguments)

    def _start(
        self, directory: Path, more: dict[str, str], *, job: str | None, arguments: Sequence[str]
    ) -> LeadloopProcess:
        number = next(self._numbers)
        out, err = directory / f"{number}.out", directory / f"{number}.err"
        for path in (out, err):
            path.touch()  # a test may read them before the process writes
        settings = {name: text for name, text in os.environ.items() if name.startswith("LEADLOOP_")}
        request = {
            "job": job,
            "arguments": arguments,
            "environment": {**settings, "PREFECT_API_URL": self._prefect, **more},
            "directory": str(directory),
            "out": str(out),
            "err": str(err),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        COUNTERS["processes"] += 1
        return LeadloopProcess(pid=int(self._server.stdout.readline()), out=out, err=err)


@contextmanager
def run_fork_server(prefect: str) -> Iterator[ForkServer]:
    """Run a fork server whose processes use this Prefect server."""
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith("LEADLOOP_")
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.resilience.fork_server"],
        cwd=Path(__file__).parents[2],
        env={**environment, "PREFECT_API_URL": prefect, "COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield ForkServer(server, prefect)
