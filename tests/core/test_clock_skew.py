from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.clock_skew import (
    describe_future_watermark,
    describe_skew,
    earlier_clock,
    measure_vendor_lag,
    read_ahead_end,
)
from leadloop.core.timestamps import EPOCH

NOW = EPOCH + timedelta(days=20_000)
_SKEWS = st.none() | st.integers(-(10**6), 10**6)


def at(skew_s: int | None) -> datetime | None:
    """The vendor's clock, so far ahead of ours."""
    return None if skew_s is None else NOW + timedelta(seconds=skew_s)


@given(_SKEWS)
def test_neither_clock_alone_makes_it_later(skew_s: int | None) -> None:
    """Whichever goes wrong ahead: nothing is closed that the other says is still to come."""
    now = earlier_clock(at(skew_s), NOW)
    assert now == NOW + timedelta(seconds=min(0, skew_s or 0))


@given(_SKEWS)
def test_the_vendors_clock_is_followed_where_it_is_ahead(skew_s: int | None) -> None:
    """A little beyond what its header says, which is in whole seconds."""
    end = read_ahead_end(NOW, at(skew_s))
    if skew_s is None or skew_s <= 5:
        assert end is None
    else:
        assert end == NOW + timedelta(seconds=skew_s + 1)


@given(_SKEWS)
def test_how_far_the_vendors_clock_is_behind(skew_s: int | None) -> None:
    """Nothing where it is ahead, or as good as the same."""
    far = skew_s is not None and skew_s < -5
    assert measure_vendor_lag(at(skew_s), NOW) == timedelta(seconds=-(skew_s or 0) if far else 0)


@pytest.mark.parametrize(
    ("skew_s", "told"), [(None, False), (0, False), (-59, False), (61, True), (-86_400, True)]
)
def test_clocks_that_are_apart_are_both_named(skew_s: int | None, told: bool) -> None:
    """A second or two between them is nothing to speak of."""
    words = describe_skew(at(skew_s), NOW)
    assert (words is not None) == told
    if words:
        assert "2024-10-04 00:00:00Z" in words
        assert f"{at(skew_s):%Y-%m-%d %H:%M:%S}Z" in words


@pytest.mark.parametrize(
    ("mark_s", "skew_s", "told"),
    [(0, 0, False), (-9999, None, False), (100, None, True), (0, -100, True), (0, 9999, False)],
)
def test_a_watermark_in_the_future_is_told(mark_s: int, skew_s: int | None, told: bool) -> None:
    """Ahead of either clock: what is processed until then might be missed."""
    words = describe_future_watermark(NOW + timedelta(seconds=mark_s), at(skew_s), NOW)
    assert (words is not None) == told
