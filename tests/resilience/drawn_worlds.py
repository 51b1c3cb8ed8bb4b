"""Laws that are checked in drawn worlds: with fixed seeds in `make test`, fresh ones in a soak."""

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.resilience.conftest import Soak
from tests.resilience.counters import COUNTERS
from tests.resilience.test_state_machine import PHASES

_EXAMPLES = 8
_EXAMPLES_PER_ROUND = 5

W = TypeVar("W")


def check_in_worlds(
    worlds: st.SearchStrategy[W],
    check: Callable[[W], None],
    soak: Soak | None,
    *,
    share: float,
    counter: str,
) -> None:
    """Check a law in drawn worlds.

    Args:
        worlds: draws a world.
        check: checks one.
        soak: the soak, which takes fresh seeds; None: a few worlds of fixed seeds.
        share: its share of the soak's time.
        counter: counts the worlds.
    """

    def check_world(world: W) -> None:
        COUNTERS[counter] += 1
        # A run that never ends fails the test by its timeout, without an example.
        print(world)
        check(world)

    def run(examples: int, *, derandomize: bool, number: int | None = None) -> None:
        # Hypothesis takes settings once a test function, so each round has its own.
        law = given(world=worlds)(lambda world: check_world(world))
        law = settings(
            derandomize=derandomize,
            max_examples=examples,
            database=None,
            phases=PHASES,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )(law)
        (law if number is None else seed(number)(law))()

    if soak is None:
        run(_EXAMPLES, derandomize=True)
        return
    for number in soak.draw_seeds(share):
        print(f"{counter}, seed {number}")
        run(_EXAMPLES_PER_ROUND, derandomize=False, number=number)
