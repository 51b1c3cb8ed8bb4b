"""Retries without their pauses of seconds: what is tested is what is tried again, not when.

There is no setting for the pauses, and a machine that fails all the time meets hundreds of them.
"""

from collections.abc import Callable
from typing import Any

from tasks import rate_limiter, retries


def hurry(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Shorten the pauses by `put` (setattr, or one that is undone later)."""
    put(rate_limiter, "_DEFAULT_PAUSE_S", 0.01)
    put(retries, "_REQUEST_PAUSE_S", 0.001)
    put(retries, "_PAUSES_S", (0.01,))
