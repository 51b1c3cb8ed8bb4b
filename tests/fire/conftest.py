"""How long the tests under fire go on, and what makes them quick enough to go on long.

In `make test` each has one fixed seed. `make soak` sets FIRE_SECONDS and FIRE_SEED: then each takes
fresh seeds for its share of that time.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest

# Asserts in these say what they compared, as those in test modules do.
for _name in ("judge", "machine", "processes", "world"):
    pytest.register_assert_rewrite(f"tests.fire.{_name}")

from tests.fire.processes import Nest, nest  # noqa: E402 - after what it says above
from tests.fire.tally import lines  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Soak:
    """How long to go on, in all, and the seed that the others are drawn from."""

    seconds: float
    seed: int

    def seeds(self, share: float) -> Iterator[int]:
        """Fresh seeds until that share of the time is over; at least one."""
        luck = Random(f"{self.seed} {share}")
        until = time.monotonic() + self.seconds * share
        yield luck.getrandbits(32)
        while time.monotonic() < until:
            yield luck.getrandbits(32)


@pytest.fixture(scope="session")
def soak() -> Soak | None:
    """What `make soak` has asked for; None in `make test`."""
    seconds = os.environ.get("FIRE_SECONDS")
    if seconds is None:
        return None
    return Soak(seconds=float(seconds), seed=int(os.environ["FIRE_SEED"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was counted."""
    if counted := lines():
        terminalreporter.section("counted under fire")
        for line in counted:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def processes(prefect: str) -> Iterator[Nest]:
    """Where `leadloop` processes are hatched, quickly; they use the session's Prefect server."""
    with nest(prefect) as opened:
        yield opened
