"""When a live run does what."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.live_schedule import (
    CLOSED_LOOK_INTERVAL_S,
    FIRST_PAUSE_S,
    LEAST_LOOK_INTERVAL_S,
    LONGEST_PAUSE_S,
    QUIET_LOOK_INTERVAL_S,
    REREAD_INTERVAL_S,
    TRIAL_S,
    Pauses,
    Trials,
    expects_outcomes,
    is_behind,
    plan_looks,
)

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def test_a_job_that_fails_is_tried_ever_more_seldom() -> None:
    """After 1, 2, 4 … seconds, at least once a minute."""
    pauses, now, waited = Pauses(), 100.0, []
    for _ in range(9):
        pauses.record("job", now, has_progress=False)
        due = next(s for s in range(100) if pauses.is_due("job", now + s))
        waited.append(due)
        now += due
    assert waited == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (FIRST_PAUSE_S, LONGEST_PAUSE_S) == (1, 60)


def test_progress_ends_the_pauses_of_its_job_alone() -> None:
    """The next failure begins with a second again."""
    pauses = Pauses()
    for key in ("job", "other"):
        for _ in range(4):
            pauses.record(key, 0.0, has_progress=False)
    pauses.record("job", 0.0, has_progress=True)
    assert pauses.is_due("job", 0.0)
    assert not pauses.is_due("other", 7.9)
    pauses.record("job", 0.0, has_progress=False)
    assert not pauses.is_due("job", 0.9)
    assert pauses.is_due("job", 1.0)
    pauses.end_all()
    assert pauses.is_due("other", 0.0)


@given(
    active=st.integers(0, 3000),
    slow=st.lists(st.sampled_from([QUIET_LOOK_INTERVAL_S, CLOSED_LOOK_INTERVAL_S]), max_size=3000),
    requests=st.integers(1, 1000),
    period_s=st.floats(1, 3600),
    has_runs=st.booleans(),
)
def test_looks_stay_within_their_share(
    active: int, slow: list[float], requests: int, period_s: float, has_runs: bool
) -> None:
    """Fewer beside a push; and no campaign is asked all the time, or never."""
    pace = plan_looks(active, slow, requests=requests, period_s=period_s, has_runs=has_runs)
    share = 0.42 if has_runs else 0.45
    assert pace.active_s >= LEAST_LOOK_INTERVAL_S
    assert pace.slow_factor >= 1
    looks_per_s = active / pace.active_s + sum(1 / (each * pace.slow_factor) for each in slow)
    assert looks_per_s <= share * requests / period_s * 1.001
    if active or slow:
        assert pace.distance_s * looks_per_s == pytest.approx(1)


@given(active=st.integers(1, 1000), quiet=st.integers(0, 1000))
def test_the_time_between_looks_grows_with_the_campaigns(active: int, quiet: int) -> None:
    """Twice the campaigns, at most twice the time."""
    pace, doubled = (
        plan_looks(
            active * factor,
            [QUIET_LOOK_INTERVAL_S] * quiet * factor,
            requests=100,
            period_s=60,
        )
        for factor in (1, 2)
    )
    assert pace.active_s <= doubled.active_s
    if not quiet:
        assert doubled.active_s <= 2 * pace.active_s


def test_ten_campaigns_are_looked_at_within_fifteen_seconds() -> None:
    """Of 100 requests a minute; and quiet ones hardly slow them down."""
    alone_s = plan_looks(10, [], requests=100, period_s=60).active_s
    assert alone_s == pytest.approx(40 / 3)
    assert plan_looks(10, [], requests=100, period_s=60, has_runs=True).active_s < 14.5
    with_quiet_s = plan_looks(10, [300.0] * 24, requests=100, period_s=60).active_s
    assert with_quiet_s < min(15, 1.12 * alone_s)


def test_a_campaign_is_polled_before_it_counts_as_behind() -> None:
    """Which the view of problems does after an hour; one that was never polled is not."""
    assert not is_behind(None, NOW)
    assert not is_behind(NOW - timedelta(minutes=40), NOW)
    assert is_behind(
        NOW - timedelta(hours=1, seconds=-REREAD_INTERVAL_S), NOW + timedelta(seconds=1)
    )


def test_outcomes_are_expected_for_a_day_after_a_sign_of_life() -> None:
    """A campaign that was never active has none."""
    assert not expects_outcomes(None, NOW)
    assert expects_outcomes(NOW - timedelta(hours=23), NOW)
    assert not expects_outcomes(NOW - timedelta(hours=24), NOW)


@given(
    names=st.lists(st.sampled_from("ABCDEFGH"), min_size=1, max_size=8, unique=True),
    rounds=st.integers(1, 4),
)
def test_trials_are_taken_in_turns(names: list[str], rounds: int) -> None:
    """Whoever is offered first at each look: all are tried as often, one an interval."""
    trials, now = Trials(), 1000.0
    trials.begin()
    tried: list[tuple[float, str]] = []
    while len(tried) < rounds * len(names):
        for name in names:
            if trials.is_due("bulk", name, now):
                trials.record("bulk", name, now, interval_s=TRIAL_S)
                tried.append((now, name))
        now += 1
    counts = Counter(name for _, name in tried)
    assert set(counts.values()) == {rounds}
    assert all(second - first >= TRIAL_S for (first, _), (second, _) in pairwise(tried))
    assert tried[0][0] == 1000.0
    assert trials.is_due("opt-outs", names[0], now), "another lane has its own"
