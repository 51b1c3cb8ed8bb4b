"""Any order of what upstream, the vendor and we can do keeps both sides' books true."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from db.database import Database
from leadloop.sandbox import Handle
from tests.fire.conftest import Soak
from tests.fire.machine import Loop

_STEPS = 25
_EXAMPLES = 7
# A round of the soak: short, so that it ends when it is told to.
_EXAMPLES_A_ROUND = 5
# Shrinking takes minutes: worth it only to whoever looks for the cause (FIRE_SHRINK=1).
_PHASES = [Phase.generate, *([Phase.shrink] if os.environ.get("FIRE_SHRINK") else [])]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Failures are what this is about: nobody reads their tracebacks, and they cost time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("environment", "quick_retries", "quiet")
@pytest.mark.timeout(0)
def test_the_books_stay_true(database: Database, vendor: Handle, soak: Soak | None) -> None:
    """Each lead is created at most once, in the end exactly once; no outcome is missed."""
    machine = type("Machine", (Loop,), {"database": database, "vendor": vendor})
    if soak is None:
        run_state_machine_as_test(machine, settings=_settings(_EXAMPLES, derandomize=True))
        return
    for number in soak.seeds(0.4):
        print(f"state machine, seed {number}")
        a_round = _settings(_EXAMPLES_A_ROUND, derandomize=False)
        run_state_machine_as_test(seed(number)(machine), settings=a_round)


def _settings(examples: int, *, derandomize: bool) -> settings:
    return settings(
        derandomize=derandomize,
        max_examples=examples,
        stateful_step_count=_STEPS,
        database=None,
        phases=_PHASES,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
