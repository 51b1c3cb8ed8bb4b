"""How often the page asks the database, however many look at it."""

import pytest

from leadloop.core.errors import RunError
from leadloop.monitor.throttled_cache import ThrottledCache


class Clock:
    """Moves on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which looks are kept."""
    clock = Clock()
    monkeypatch.setattr("leadloop.monitor.throttled_cache.time", clock)
    return clock


def test_a_twentieth_of_the_time_at_most(clock: Clock) -> None:
    """A hundred viewers, each a second, of a database that takes three: every sixty seconds."""
    began = []

    def look() -> int:
        began.append(clock.now)
        clock.now += 3
        return len(began)

    looks = ThrottledCache(look)
    for _ in range(130):
        assert [looks() for _ in range(100)] == [len(began)] * 100
        clock.now += 1
    assert began == [100, 160, 220]


def test_each_question_has_its_answer(clock: Clock) -> None:
    """Nobody gets the figures of another campaign."""
    looks = ThrottledCache(lambda campaign: f"figures of {campaign}")
    for campaign in ("A", "B", "A"):
        assert looks(campaign) == f"figures of {campaign}"


def test_a_failure_is_told_to_all_and_tried_again_sooner(clock: Clock) -> None:
    """A database in trouble is left alone for as long as it has just been kept busy."""
    tries = []

    def look() -> str:
        tries.append(clock.now)
        clock.now += 10
        if len(tries) < 3:
            raise RunError("no answer")
        return "all is well"

    looks = ThrottledCache(look)
    for _ in range(2):
        for _ in range(3):
            with pytest.raises(RunError, match="no answer"):
                looks()
        clock.now += 10
    assert looks() == "all is well"
    assert tries == [100, 120, 140]
