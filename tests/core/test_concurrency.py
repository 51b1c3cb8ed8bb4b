"""How many creates are sent at once, as laws over latencies, work and rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.concurrency import (
    MAX_CONCURRENCY,
    MIN_CONCURRENCY,
    ConcurrencyLimit,
    choose_concurrency,
)

seconds = st.floats(0, 100)
rates = st.floats(0, 10_000)
bounds = st.integers(1, 64)


def choose(latency_s: float, work_s: float, rate_per_s: float, bound: int) -> int:
    """Choose with the usual floor."""
    return choose_concurrency(latency_s, work_s, rate_per_s, floor=MIN_CONCURRENCY, bound=bound)


@given(seconds, seconds, rates, bounds)
def test_it_stays_within_floor_and_bound(
    latency_s: float, work_s: float, rate_per_s: float, bound: int
) -> None:
    """And never has the rate limit exceeded by more than the request that waits for its turn."""
    chosen = choose(latency_s, work_s, rate_per_s, bound)
    floor = min(MIN_CONCURRENCY, bound)
    assert floor <= chosen <= bound
    assert chosen == floor or chosen - 2 < rate_per_s * latency_s


@given(seconds, seconds, seconds, rates, rates, bounds)
def test_longer_waits_and_larger_budgets_never_mean_fewer(
    latency_s: float, more_s: float, work_s: float, rate: float, more: float, bound: int
) -> None:
    """It is monotonous in both; and more work for each request never means more of them."""
    chosen = choose(latency_s, work_s, rate, bound)
    assert choose(latency_s + more_s, work_s, rate, bound) >= chosen
    assert choose(latency_s, work_s, rate + more, bound) >= chosen
    assert choose(latency_s, work_s + more_s, rate, bound) <= chosen


@pytest.mark.parametrize(
    ("latency_s", "rate_per_s", "expected"),
    [(0.002, 1000.0, 4), (0.1, 70 / 60, 4), (0.1, 1000.0, 11), (1.0, 1000.0, 12), (10.0, 1.0, 11)],
)
def test_the_usual_cases(latency_s: float, rate_per_s: float, expected: int) -> None:
    """A near vendor, the vendor's usual rate limit, a far vendor, a slow one, a very slow one."""
    assert choose(latency_s, 0.01, rate_per_s, MAX_CONCURRENCY) == expected


@given(st.lists(st.none() | st.floats(0.001, 10), max_size=200), rates, bounds)
def test_it_grows_slowly_and_falls_at_once(
    times_s: list[float | None], rate_per_s: float, bound: int
) -> None:
    """By one for several accepted requests; a failure (None) has it start again."""
    limit = ConcurrencyLimit(rate_per_s=rate_per_s, bound=bound)
    floor = min(MIN_CONCURRENCY, bound)
    assert limit.limit == floor
    accepted = 0
    for time_s in times_s:
        before = limit.limit
        if time_s is None:
            limit.record_failure()
            accepted = 0
            assert limit.limit == floor
        else:
            limit.record_accepted(time_s, 0.01)
            accepted += 1
            assert floor <= limit.limit <= min(bound, before + 1)
            assert limit.limit <= floor + accepted // 4


def test_a_vendor_that_becomes_slow_gets_fewer() -> None:
    """Its queue is no reason for more requests at once, and it recovers."""
    limit = ConcurrencyLimit(rate_per_s=1000.0, bound=MAX_CONCURRENCY)
    for _ in range(100):
        limit.record_accepted(0.1, 0.01)
    assert limit.limit == 11
    for _ in range(12):
        limit.record_accepted(0.25, 0.01)
    assert limit.limit == MIN_CONCURRENCY
    for _ in range(60):
        limit.record_accepted(0.19, 0.01)
    assert limit.limit == 11
