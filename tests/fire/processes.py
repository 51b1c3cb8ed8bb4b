"""`leadloop` as processes that can be killed at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.fire.tally import TALLY

_PATIENCE_S = 180


@dataclass(frozen=True, kw_only=True)
class Process:
    """A running `leadloop`; what it says goes to files."""

    pid: int
    out: Path
    err: Path

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    def kill(self) -> None:
        """SIGKILL; return when it is gone."""
        TALLY["kills"] += 1
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Return when it has ended."""
        until(lambda: not self.alive, "the process does not end")

    @property
    def last(self) -> Any:
        """The last line on stdout as JSON; None where it said nothing."""
        lines = self.out.read_text().splitlines()
        return json.loads(lines[-1]) if lines else None

    @property
    def said(self) -> str:
        """Everything that it wrote."""
        return self.out.read_text() + self.err.read_text()


class Nest:
    """Starts processes; see tests/fire/nest.py."""

    def __init__(self, hatchery: "subprocess.Popen[str]", prefect: str) -> None:
        self._hatchery = hatchery
        self._prefect = prefect
        self._numbers = count(1)

    def start(self, directory: Path, *arguments: str, **more: str) -> Process:
        """Start `leadloop` with the settings that this process has now, and `more` of them."""
        number = next(self._numbers)
        out, err = directory / f"{number}.out", directory / f"{number}.err"
        ours = {name: text for name, text in os.environ.items() if name.startswith("LEADLOOP_")}
        order = {
            "arguments": arguments,
            "environment": {**ours, "PREFECT_API_URL": self._prefect, **more},
            "directory": str(directory),
            "out": str(out),
            "err": str(err),
        }
        assert self._hatchery.stdin is not None
        assert self._hatchery.stdout is not None
        self._hatchery.stdin.write(json.dumps(order) + "\n")
        self._hatchery.stdin.flush()
        TALLY["processes"] += 1
        return Process(pid=int(self._hatchery.stdout.readline()), out=out, err=err)


@contextmanager
def nest(prefect: str) -> Iterator[Nest]:
    """A nest whose processes use this Prefect server."""
    theirs = {name: text for name, text in os.environ.items() if not name.startswith("LEADLOOP_")}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fire.nest"],
        cwd=Path(__file__).parents[2],
        env={**theirs, "PREFECT_API_URL": prefect, "COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as hatchery:
        yield Nest(hatchery, prefect)


def until(true: Callable[[], object], otherwise: str) -> None:
    """Return as soon as something is true; fail where it does not become so."""
    deadline = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)
