"""Fixtures of the resilience tests: the soak's duration and seeds, and the fork server.

`make test` runs each test with one fixed seed. `make soak` sets SOAK_SECONDS and SOAK_SEED: each
test then takes fresh seeds for its share of the time.
"""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest

from tests.resilience.counters import format_counters
from tests.resilience.processes import ForkServer, run_fork_server


@dataclass(frozen=True, kw_only=True)
class Soak:
    """The duration of all tests together, and the seed that generates the tests' seeds."""

    seconds: float
    seed: int

    def draw_seeds(self, share: float) -> Iterator[int]:
        """Yield fresh seeds until this share of the time is over; at least one."""
        random = Random(f"{self.seed} {share}")
        until = time.monotonic() + self.seconds * share
        yield random.getrandbits(32)
        while time.monotonic() < until:
            yield random.getrandbits(32)


@pytest.fixture(scope="session")
def soak() -> Soak | None:
    """Return the parameters of `make soak`; None in `make test`."""
    seconds = os.environ.get("SOAK_SECONDS")
    if seconds is None:
        return None
    return Soak(seconds=float(seconds), seed=int(os.environ["SOAK_SEED"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counters."""
    if counted := format_counters():
        terminalreporter.section("resilience counters")
        for line in counted:
            terminalreporter.write_line(line)


@pytest.fixture
def disabled_logging() -> Iterator[None]:
    """Disable logging: the tracebacks of expected failures cost time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def fork_server(prefect: str) -> Iterator[ForkServer]:
    """Yield the server that forks `leadloop` processes; they use the session's Prefect server."""
    with run_fork_server(prefect) as opened:
        yield opened
