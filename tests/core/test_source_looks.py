"""When a live run looks at a source."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.source_looks import SourceLooks


def look(looks: SourceLooks, began: float, now: float) -> None:
    """Look at the source of C1."""
    looks.begin("C1")
    looks.end("C1", began, now)


def find_due(looks: SourceLooks, now: float) -> float:
    """Return for how many seconds C1 is not due; whole halves."""
    return next(half / 2 for half in range(2000) if looks.is_due("C1", now + half / 2))


def test_a_look_every_ten_seconds_and_at_most_a_twentieth_of_the_time() -> None:
    """The first one at once."""
    looks = SourceLooks()
    assert find_due(looks, 100) == 0
    look(looks, 100, 100.1)
    assert find_due(looks, 100.1) == 10
    look(looks, 200, 203)
    assert find_due(looks, 203) == 60


def test_a_change_that_is_announced_is_looked_at_within_the_share_alone() -> None:
    """That of this campaign, and once."""
    looks = SourceLooks()
    look(looks, 100, 100.1)
    looks.announce(["C2"])
    assert find_due(looks, 100.1) == 10
    looks.announce(["C1", "C2"])
    assert find_due(looks, 100.1) == 2
    look(looks, 103, 103.1)
    assert find_due(looks, 103.1) == 10


def test_a_live_run_can_wait_for_an_announced_source() -> None:
    """Until it may be looked at; one that is due already needs no waiting."""
    looks = SourceLooks()
    look(looks, 100, 100.1)
    assert looks.find_next_due(100.1) == math.inf
    looks.announce(["C1", "C2"])
    assert looks.find_next_due(100.1) == pytest.approx(102.1)
    assert looks.find_next_due(102.2) == math.inf


def test_a_change_during_a_look_is_looked_at_again() -> None:
    """The look may have read before the change was committed."""
    looks = SourceLooks()
    looks.begin("C1")
    looks.announce(["C1"])
    looks.end("C1", 100, 100.1)
    assert find_due(looks, 100.1) == 2


@given(st.lists(st.floats(0.001, 30), min_size=1, max_size=20))
def test_announcements_without_end_take_a_twentieth_of_the_time(lengths: list[float]) -> None:
    """However many rows a second the team writes."""
    looks, now = SourceLooks(), 0.0
    for length in lengths:
        looks.announce(["C1"])
        began = now = now + find_due(looks, now)
        now += length
        look(looks, began, now)
    assert sum(lengths) <= 0.05 * (now + find_due(looks, now))
