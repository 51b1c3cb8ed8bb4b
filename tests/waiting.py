"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

_TIMEOUT_S = 180


def wait_until(condition: Callable[[], object], failure: str) -> None:
    """Wait until the condition holds; fail with this message after a timeout."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.005)
