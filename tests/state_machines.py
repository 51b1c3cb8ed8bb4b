"""Runs of Hypothesis's state machines against a database and the sandbox."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from db.database import Database
from leadloop.sandbox import SandboxHandle


def run_fixed_examples(
    machine: type[RuleBasedStateMachine],
    database: Database,
    vendor: SandboxHandle,
    *,
    max_examples: int,
) -> None:
    """Run the same examples of a machine each time, of up to 20 steps.

    Args:
        machine: finds the database and the sandbox as its attributes `database` and `vendor`.
        database: the database.
        vendor: the sandbox.
        max_examples: how many.
    """
    run_state_machine_as_test(
        type("Machine", (machine,), {"database": database, "vendor": vendor}),
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=20,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
