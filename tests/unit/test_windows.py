from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.timestamps import EPOCH, EpochUnit
from leadloop.core.windows import Window, cut, proven_through, query_bounds, split

_MOMENTS = st.integers(0, 4 * 10**15).map(lambda us: EPOCH + timedelta(microseconds=us))
_LENGTHS = st.integers(1, 10**11).map(lambda us: timedelta(microseconds=us))
_ONE_MS = timedelta(milliseconds=1)


@st.composite
def _windows(draw: st.DrawFn) -> Window:
    after = draw(_MOMENTS)
    return Window(after=after, before=after + draw(_LENGTHS))


def _assert_covers(windows: list[Window], after: datetime, before: datetime) -> None:
    assert windows[0].after == after
    assert windows[-1].before == before
    for one, other in pairwise(windows):
        assert one.before == other.after


@given(_MOMENTS, st.integers(1, 40), st.integers(1, 10**9), st.integers(0, 10**9))
def test_a_cut_leaves_no_gap(after: datetime, pieces: int, longest_us: int, more_us: int) -> None:
    """The windows adjoin from the first moment to the last, and none is longer than asked."""
    longest = timedelta(microseconds=longest_us)
    before = after + longest * pieces + timedelta(microseconds=more_us % longest_us)
    windows = list(cut(after, before, longest))
    _assert_covers(windows, after, before)
    assert all(window.length <= longest for window in windows)


def test_nothing_is_cut_into_nothing() -> None:
    """A range that is empty, or runs backwards, has no window."""
    assert list(cut(EPOCH, EPOCH, timedelta(hours=1))) == []
    assert list(cut(EPOCH, EPOCH - timedelta(1), timedelta(hours=1))) == []


def test_a_range_may_end_where_python_s_years_do() -> None:
    """A person who types the year 9999 means "all there is", and gets no traceback."""
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    windows = list(cut(end - timedelta(minutes=90), end, timedelta(hours=1)))
    _assert_covers(windows, end - timedelta(minutes=90), end)


@given(_windows(), st.integers(2, 20))
def test_a_split_covers_the_same(window: Window, parts: int) -> None:
    """Nothing of the window is lost, and unless it is too short there is more than one part."""
    windows = split(window, parts)
    _assert_covers(windows, window.after, window.before)
    assert len(windows) <= 2 * parts or window.length < parts * 2 * _ONE_MS
    if window.length > _ONE_MS:
        assert all(part.length < window.length for part in windows)


@pytest.mark.parametrize("unit", ["ms", "s"])
@pytest.mark.parametrize("after_counts", [True, False])
@pytest.mark.parametrize("before_counts", [True, False])
@given(window=_windows(), share=st.floats(0, 1))
def test_bounds_hold_the_window_however_they_are_read(
    window: Window, share: float, unit: EpochUnit, after_counts: bool, before_counts: bool
) -> None:
    """Inclusive or exclusive, ms or s: what was processed in the window is asked for."""
    after, before = query_bounds(window, unit)
    tick = {"ms": timedelta(milliseconds=1), "s": timedelta(seconds=1)}[unit]
    for moment in (window.after, window.after + window.length * share, window.before):
        # The vendor may keep its times in the unit alone, or to the microsecond.
        for kept in (moment, EPOCH + (moment - EPOCH) // tick * tick):
            low, high = EPOCH + after * tick, EPOCH + before * tick
            assert low < kept or (after_counts and low == kept) or after == 0
            assert kept < high or (before_counts and kept == high)


@given(_windows(), st.sampled_from(["ms", "s"]))
def test_bounds_ask_for_hardly_more(window: Window, unit: EpochUnit) -> None:
    """At most two units beyond each end, or else every poll would read half of the past again."""
    after, before = query_bounds(window, unit)
    tick = {"ms": timedelta(milliseconds=1), "s": timedelta(seconds=1)}[unit]
    assert EPOCH + after * tick >= window.after - 2 * tick
    assert EPOCH + before * tick <= window.before + 2 * tick


@given(_windows(), _MOMENTS, st.integers(0, 10_000))
def test_nothing_unsettled_is_proven(window: Window, now: datetime, settle_s: int) -> None:
    """Never beyond the window, nor beyond the vendor's now less the time it needs."""
    settle = timedelta(seconds=settle_s)
    through = proven_through(window, vendor_now=now, settle=settle)
    assert through <= window.before
    assert through <= now - settle


def test_a_window_runs_forward() -> None:
    """One that ends before it begins is a mistake of ours."""
    with pytest.raises(ValueError, match="before it begins"):
        Window(after=EPOCH, before=EPOCH - _ONE_MS)
