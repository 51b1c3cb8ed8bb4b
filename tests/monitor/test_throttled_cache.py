"""How often the page queries the database, independent of the number of viewers."""

import contextlib

import pytest

from db.database import DatabaseError
from leadloop.core.errors import RunError
from leadloop.monitor.throttled_cache import PageBusy, ThrottledCache


class FakeClock:
    """A monotonic clock that a test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Return the clock that the cache uses."""
    clock = FakeClock()
    monkeypatch.setattr("leadloop.monitor.throttled_cache.time", clock)
    return clock


def test_loads_take_a_twentieth_of_the_time(clock: FakeClock) -> None:
    """With 100 viewers a second and loads of three seconds, a load starts every 60 seconds."""
    started = []

    def load() -> int:
        started.append(clock.now)
        clock.now += 3
        return len(started)

    cache = ThrottledCache(load)
    for _ in range(130):
        assert [cache() for _ in range(100)] == [len(started)] * 100
        clock.now += 1
    assert started == [100, 160, 220]


def test_entries_by_arguments(clock: FakeClock) -> None:
    """A viewer never gets the figures of another campaign."""
    cache = ThrottledCache(lambda campaign: f"figures of {campaign}")
    for campaign in ("A", "B", "A"):
        assert cache(campaign) == f"figures of {campaign}"


def test_errors_expire_sooner(clock: FakeClock) -> None:
    """All viewers get a cached error; the next load waits as long as the failed one took."""
    tries = []

    def load() -> str:
        tries.append(clock.now)
        clock.now += 10
        if len(tries) < 3:
            raise RunError("no answer")
        return "all is well"

    cache = ThrottledCache(load)
    for _ in range(2):
        for _ in range(3):
            with pytest.raises(RunError, match="no answer"):
                cache()
        clock.now += 10
    assert cache() == "all is well"
    assert tries == [100, 120, 140]


def test_all_selections_share_one_budget(clock: FakeClock) -> None:
    """A viewer who opens ever new selections gets a minute of loads, then a twentieth of the time.

    Selections that were loaded before are still shown.
    """
    loaded = []

    def load(selection: int) -> int:
        clock.now += 3
        loaded.append(selection)
        return selection

    cache = ThrottledCache(load)
    for selection in range(100):
        try:
            cache(selection)
        except PageBusy:
            continue
    assert loaded == list(range(22))
    clock.now += 30
    with pytest.raises(PageBusy):
        cache(50)
    assert cache(7) == 7
    clock.now += 40
    assert cache(50) == 50
    began = clock.now
    loaded.clear()
    for selection in range(100, 36_100):
        clock.now += 1
        with contextlib.suppress(PageBusy):
            cache(selection)
    assert -6 < 3 * len(loaded) - (clock.now - began) / 20 < 6


def test_a_failure_counts_for_every_selection(clock: FakeClock) -> None:
    """An overloaded database is not asked for another selection meanwhile."""

    def load(selection: int) -> str:
        tries.append(selection)
        clock.now += 10
        raise RunError("no answer")

    tries: list[int] = []
    cache = ThrottledCache(load)
    for selection in range(5):
        with pytest.raises(RunError, match="no answer"):
            cache(selection)
        clock.now += 4
    assert tries == [0, 3]


@pytest.mark.parametrize(("disconnected", "expected"), [(False, 4), (True, 17)])
def test_queries_that_time_out_take_a_twentieth_too(
    clock: FakeClock, disconnected: bool, expected: int
) -> None:
    """After the first minute; a database that cannot be reached is asked as before."""

    def load() -> None:
        tries.append(clock.now)
        clock.now += 30
        raise DatabaseError("slow", sqlstate="57014", disconnected=disconnected)

    tries: list[float] = []
    cache = ThrottledCache(load)
    while clock.now < 1100:
        with pytest.raises(DatabaseError, match="slow"):
            cache()
        clock.now += 1
    assert len(tries) == expected


def test_a_selection_that_times_out_hides_no_other_one(clock: FakeClock) -> None:
    """Who selects it again and again uses up the credit; others still see what they saw before."""

    def load(selection: str) -> str:
        clock.now += 30
        if selection == "huge":
            raise DatabaseError("slow", sqlstate="57014", disconnected=False)
        return selection

    cache = ThrottledCache(load)
    assert cache("usual") == "usual"
    clock.now += 600
    hidden = 0
    for _ in range(3000):
        for selection in ("huge", "usual"):
            try:
                cache(selection)
            except DatabaseError:
                hidden += selection == "usual"
        clock.now += 1
    # Only while no query starts, for as long as each of the failed ones took.
    assert hidden < 200
