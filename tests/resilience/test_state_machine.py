"""Any order of actions of upstream, the vendor and leadloop keeps the invariants."""

import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests.resilience.conftest import Soak
from tests.resilience.loop_machine import LoopMachine

_STEPS = 25
_EXAMPLES = 7
# A round of the soak: short, so that the soak ends on time.
_EXAMPLES_PER_ROUND = 5
# Shrinking takes minutes: enable it to look for a cause (SOAK_SHRINK=1).
PHASES = [Phase.generate, *([Phase.shrink] if os.environ.get("SOAK_SHRINK") else [])]


@pytest.mark.usefixtures("environment", "quick_retries", "disabled_logging")
@pytest.mark.timeout(0)
def test_invariants_hold(database: Database, vendor: SandboxHandle, soak: Soak | None) -> None:
    """Each lead is created at most once, in the end exactly once; no outcome is missed."""
    machine = type("Machine", (LoopMachine,), {"database": database, "vendor": vendor})
    if soak is None:
        run_state_machine_as_test(machine, settings=_settings(_EXAMPLES, derandomize=True))
        return
    for number in soak.draw_seeds(0.2):
        print(f"state machine, seed {number}")
        round_settings = _settings(_EXAMPLES_PER_ROUND, derandomize=False)
        run_state_machine_as_test(seed(number)(machine), settings=round_settings)


def _settings(examples: int, *, derandomize: bool) -> settings:
    return settings(
        derandomize=derandomize,
        max_examples=examples,
        stateful_step_count=_STEPS,
        database=None,
        phases=PHASES,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
