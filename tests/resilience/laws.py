"""Checks a law over drawn values: a fixed seed in `make test`, fresh ones in `make soak`."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.resilience.conftest import Soak

_EXAMPLES_PER_ROUND = 50


def check_law(
    soak: Soak | None,
    share: float,
    examples: int,
    law: Callable[..., None],
    **values: SearchStrategy[Any],
) -> None:
    """Check a law for drawn values.

    Args:
        soak: the soak's parameters; None: some examples of one seed.
        share: of the soak's time.
        examples: the number of examples without a soak.
        law: raises an AssertionError if it is broken, and any other error that was not expected.
        values: the law's parameters.
    """
    if soak is None:
        _limit(examples, derandomize=True)(given(**values)(law))()
        return
    for number in soak.draw_seeds(share):
        print(f"{law.__name__}, seed {number}")
        limit = _limit(_EXAMPLES_PER_ROUND, derandomize=False)
        seed(number)(limit(given(**values)(law)))()


def count_calls(work: Callable[[], object]) -> int:
    """Return the number of calls of functions that some work takes, those of C included."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def _limit(examples: int, *, derandomize: bool) -> settings:
    return settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
