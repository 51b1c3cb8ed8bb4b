"""When a live run does what."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.live_schedule import (
    FIRST_PAUSE_S,
    LEAST_POLL_INTERVAL_S,
    LONGEST_PAUSE_S,
    TRIAL_S,
    Pauses,
    Trials,
    expects_outcomes,
    poll_interval_s,
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
    campaigns=st.integers(0, 3000),
    requests=st.integers(1, 1000),
    period_s=st.floats(1, 3600),
    is_pushing=st.booleans(),
)
def test_polls_stay_within_their_share(
    campaigns: int, requests: int, period_s: float, is_pushing: bool
) -> None:
    """Half of the requests, and fewer beside a push; one campaign is not asked all the time."""
    interval_s = poll_interval_s(
        campaigns, requests=requests, period_s=period_s, is_pushing=is_pushing
    )
    share = 0.4 if is_pushing else 0.5
    assert interval_s >= LEAST_POLL_INTERVAL_S
    assert campaigns / interval_s <= share * requests / period_s * 1.001


def test_ten_campaigns_are_polled_within_fifteen_seconds() -> None:
    """Of 100 requests a minute."""
    assert poll_interval_s(10, requests=100, period_s=60) == 12
    assert poll_interval_s(10, requests=100, period_s=60, is_pushing=True) == 15


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
