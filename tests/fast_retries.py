"""Retries without their pauses: tests check what is retried, not when.

The pauses have no setting, and a test of constant failures meets hundreds of them.
"""

from collections.abc import Callable
from typing import Any

from prefect import Task

from tasks import audit, budget, disable, poll, push, retrying


def shorten_retry_pauses(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Shorten every retry pause by `put`: setattr, or a variant that is undone later."""
    put(budget, "_DEFAULT_PAUSE_S", 0.01)
    put(retrying, "_PAUSE_S", 0.001)
    for module in (audit, disable, poll, push):
        # Prefect reads the pauses from the task at each run.
        for task in [item for item in vars(module).values() if isinstance(item, Task)]:
            put(task, "retry_delay_seconds", [0.01])
