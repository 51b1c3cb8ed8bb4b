"""The clock of waits, which neither jumps with the date nor stops while the machine sleeps."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core import boot_clock
from leadloop.core.boot_clock import read_boot_clock, sleep_until


@pytest.fixture
def slept() -> Iterator[list[float]]:
    """The sleeps of a boot clock that stands at 100 s, none of which takes time."""
    sleeps: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boot_clock, "read_boot_clock", lambda: 100.0)
        patch.setattr(boot_clock, "time", SimpleNamespace(sleep=sleeps.append))
        yield sleeps


def test_the_clock_counts_from_the_boot_of_the_machine() -> None:
    """The kernel's own, which counts what the machine slept."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    moment = read_boot_clock()
    assert before <= moment <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize(("due_at", "pause_s"), [(130.5, 30.5), (100.0, 0.0), (12.0, 0.0)])
def test_a_sleep_ends_at_its_moment(slept: list[float], due_at: float, pause_s: float) -> None:
    """It takes no time where the moment has passed."""
    sleep_until(due_at)
    assert slept == [pause_s]


@given(pause_s=st.floats(-1.0, 0.01))
def test_a_sleep_never_ends_early(pause_s: float) -> None:
    """A job that is due then is due after the sleep."""
    due_at = read_boot_clock() + pause_s
    sleep_until(due_at)
    assert read_boot_clock() >= due_at
