import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.timestamps import EPOCH, EpochUnit
from leadloop.core.windows import (
    MAX_PAGES,
    Window,
    chunk_range,
    count_parts,
    cover_window,
    find_brackets,
    find_contiguous_end,
    find_gaps,
    halve_window,
    merge_windows,
    prove_window,
    query_bounds,
    split_window,
    subtract_to_epoch,
)

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
    windows = list(chunk_range(after, before, longest))
    _assert_covers(windows, after, before)
    assert all(window.length <= longest for window in windows)


def test_nothing_is_cut_into_nothing() -> None:
    """A range that is empty, or runs backwards, has no window."""
    assert list(chunk_range(EPOCH, EPOCH, timedelta(hours=1))) == []
    assert list(chunk_range(EPOCH, EPOCH - timedelta(1), timedelta(hours=1))) == []


def test_a_range_may_end_where_python_s_years_do() -> None:
    """A person who types the year 9999 means "all there is", and gets no traceback."""
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    windows = list(chunk_range(end - timedelta(minutes=90), end, timedelta(hours=1)))
    _assert_covers(windows, end - timedelta(minutes=90), end)


@given(_windows(), st.integers(2, 20))
def test_a_split_covers_the_same(window: Window, parts: int) -> None:
    """Nothing of the window is lost, and unless it is too short there is more than one part."""
    windows = split_window(window, parts)
    _assert_covers(windows, window.after, window.before)
    assert len(windows) <= parts
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


@given(_windows(), st.booleans(), _MOMENTS, st.integers(0, 10_000))
def test_nothing_unsettled_is_proven(
    window: Window, complete: bool, now: datetime, settle_s: int
) -> None:
    """Never beyond the window, nor beyond now less the time that the vendor needs."""
    settle = timedelta(seconds=settle_s)
    proof = prove_window(window, complete=complete, now=now, settle=settle)
    assert (proof.status == "incomplete") == (not complete)
    assert (proof.status == "closed") == (proof.proven == window)
    if proof.proven:
        assert complete
        assert proof.proven.after == window.after
        assert proof.proven.before <= min(window.before, max(EPOCH, now - settle))


_TICKS: dict[EpochUnit, timedelta] = {"ms": _ONE_MS, "s": timedelta(seconds=1)}


@given(_windows(), st.sampled_from(["ms", "s"]))
def test_halves_hold_the_window_and_ask_for_less(window: Window, unit: EpochUnit) -> None:
    """Both are shorter, and one at least excludes something; a window too short for it has none."""
    halves = halve_window(window, unit)
    assert (halves == []) == (window.length <= 2 * _TICKS[unit])
    if halves:
        _assert_covers(halves, window.after, window.before)
        assert len(halves) == 2
        assert all(half.length < window.length for half in halves)
        assert {query_bounds(half, unit) for half in halves} != {query_bounds(window, unit)}


@given(_windows(), st.sampled_from(["ms", "s"]), st.lists(st.sampled_from([0, 1])))
def test_halving_ends_after_as_many_steps_as_the_length_has_digits(
    window: Window, unit: EpochUnit, turns: list[int]
) -> None:
    """Whichever half the result is in that cannot be read."""
    most = math.log(window.length / _TICKS[unit], 32 / 17) + 2 if window.length else 0
    steps = 0
    for turn in (*turns, *[1] * 100):
        if not (halves := halve_window(window, unit)):
            break
        window, steps = halves[turn], steps + 1
    assert steps <= max(most, 2)


@given(_windows(), st.sampled_from(["ms", "s"]))
def test_only_one_half_asks_for_the_middle(window: Window, unit: EpochUnit) -> None:
    """Bounds are a unit wider than a window, and evenly spread results often lie in the middle."""
    longer = window.length + 128 * _TICKS[unit]
    window = Window(after=window.after, before=window.after + longer)
    first, _ = halve_window(window, unit)
    _, before = query_bounds(first, unit)
    assert EPOCH + before * _TICKS[unit] < window.after + window.length / 2


_SMALL = st.tuples(st.integers(0, 30), st.integers(1, 10)).map(
    lambda pair: Window(after=_second(pair[0]), before=_second(pair[0] + pair[1]))
)


def _second(number: int) -> datetime:
    return EPOCH + timedelta(seconds=number)


def _seconds(windows: Iterable[Window]) -> set[int]:
    """The whole seconds that windows hold, each from its beginning to the next."""
    return {
        second
        for window in windows
        for second in range(int((window.after - EPOCH).total_seconds()), 60)
        if _second(second) < window.before
    }


@given(st.lists(_SMALL, max_size=8))
def test_merged_windows_hold_the_same_and_do_not_touch(windows: list[Window]) -> None:
    """In order, with a gap between any two."""
    found = merge_windows(windows)
    assert _seconds(found) == _seconds(windows)
    assert all(one.before < other.after for one, other in pairwise(found))


@given(_SMALL, st.lists(_SMALL, max_size=8))
def test_gaps_are_what_is_left(window: Window, covered: list[Window]) -> None:
    """What is missing and what is there make up the whole, and nothing is read twice."""
    found = find_gaps(window, covered)
    assert _seconds(found) == _seconds([window]) - _seconds(covered)
    assert merge_windows(found) == found


@given(st.integers(0, 40), st.lists(_SMALL, max_size=8), st.permutations(range(8)))
def test_the_watermark_reaches_as_far_as_there_is_no_gap(
    start: int, proven: list[Window], order: list[int]
) -> None:
    """Every second before it is proven, the next one is not; the order of reading is no matter."""
    end = find_contiguous_end(_second(start), proven)
    held = _seconds(proven)
    last = int((end - EPOCH).total_seconds())
    assert set(range(start, last)) <= held
    assert last not in held
    assert find_contiguous_end(_second(start), [proven[i] for i in order if i < len(proven)]) == end


_HOUR = timedelta(hours=1)


@given(_windows(), st.integers(0, 10**7), st.integers(1, 500), st.sampled_from(["ms", "s"]))
def test_a_window_that_is_split_gets_shorter_until_it_may_stay(
    window: Window, count: int, page_size: int, unit: EpochUnit
) -> None:
    """Whatever it claims to hold, splitting ends, and what stays is bounded where it can be."""
    rules: Any = {"count": count, "page_size": page_size, "max_length": _HOUR, "unit": unit}
    while (parts := count_parts(window, **rules)) > 1:
        (shorter, *_) = split_window(window, parts)
        assert shorter.length < window.length
        window = shorter
    assert window.length <= _HOUR
    ticks = {"ms": 2, "s": 2000}[unit]
    assert count <= MAX_PAGES * page_size or window.length <= ticks * _ONE_MS


@given(_windows(), st.integers(0, 10**7))
def test_a_long_window_has_no_more_parts_than_pages(window: Window, count: int) -> None:
    """Or else years with little in them would cost a request an hour."""
    parts = count_parts(window, count=count, page_size=100, max_length=_HOUR, unit="ms")
    assert parts <= max(2, -(-count // 100))


@given(_windows(), st.lists(_MOMENTS, max_size=30))
def test_a_long_stretch_is_written_down_in_pieces(window: Window, moments: list[datetime]) -> None:
    """They leave no gap, hold each result once, and are only as long as is allowed or empty."""
    found = cover_window(window, moments, _HOUR)
    windows = [piece for piece, _ in found]
    assert (windows[0].after, windows[-1].before) == (window.after, window.before)
    assert all(one.before == next_.after for one, next_ in pairwise(windows))
    assert sum(inside for _, inside in found) == len(moments)
    assert all(piece.length <= _HOUR for piece, inside in found if inside)
    assert len(found) <= 2 * len(moments) + 1


@given(_MOMENTS, st.integers(0, 10**13))
def test_earlier_ends_where_time_begins(moment: datetime, seconds: int) -> None:
    """A lookback of thousands of years means all there is."""
    by = timedelta(seconds=seconds)
    assert subtract_to_epoch(moment, by) == max(timedelta(0), moment - EPOCH - by) + EPOCH


def test_a_window_runs_forward() -> None:
    """One that ends before it begins is a mistake of ours."""
    with pytest.raises(ValueError, match="before it begins"):
        Window(after=EPOCH, before=EPOCH - _ONE_MS)


@pytest.mark.parametrize(
    ("times", "missing", "found"),
    [
        # In the order of the times, rising or falling: between the neighbours.
        ({0: 10, 1: 20, 3: 40}, [2], [(20, 40)]),
        ({0: 40, 2: 20, 3: 10}, [1], [(20, 40)]),
        ({1: 20, 2: 30}, [0, 3], [(0, 20), (30, 60)]),
        ({0: 10, 1: 20, 4: 40}, [2, 3], [(20, 40)]),
        # Without an order that shows: anywhere.
        ({0: 10, 1: 40, 3: 20}, [2], [(0, 60)]),
        ({0: 10, 1: 10}, [2], [(0, 60)]),
        ({}, [0], [(0, 60)]),
    ],
)
def test_brackets_of_missing_rows(
    times: dict[int, int], missing: list[int], found: list[tuple[int, int]]
) -> None:
    """The neighbours of a row that cannot be read show where it lies."""

    def at(second: int) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=second)

    assert find_brackets(
        Window(after=at(0), before=at(60)),
        {key: at(value) for key, value in times.items()},
        missing,
    ) == [Window(after=at(after), before=at(before)) for after, before in found]
