"""Retries without their pauses: tests check what is retried, not when.

The pauses have no setting, and a test of constant failures meets hundreds of them.
"""

from collections.abc import Callable
from typing import Any

from leadloop.client import retries as request_retries
from tasks import outages, rate_limiter, retries


def shorten_retry_pauses(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Shorten every retry pause by `put`: setattr, or a variant that is undone later."""
    put(rate_limiter, "_DEFAULT_PAUSE_S", 0.01)
    put(request_retries, "_PAUSE_S", 0.001)
    put(retries, "_REQUEST_PAUSE_S", 0.001)
    put(retries, "_PAUSES_S", (0.01,))
    put(outages, "OUTAGE_S", 0.5)
    put(outages, "_PAUSES_S", (0.05,))
