"""What cannot be read is narrowed down to its instant; all else is read, within few requests."""

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.window_queue import MAX_NARROWED, MAX_NEIGHBOURS, WindowQueue
from leadloop.core.windows import Window, merge_windows, split_window

_START = datetime(2026, 3, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
#: What a request for a window shows beyond its bounds, on each side.
_WIDER = 1

milliseconds = st.integers(0, 3_600_000)


def window(after: int, before: int) -> Window:
    """A window by its milliseconds."""
    return Window(after=_START + after * _MS, before=_START + before * _MS)


def shows(part: Window, instant: int) -> bool:
    """Whether a request for a window shows what was processed at this millisecond."""
    moment = _START + instant * _MS
    return part.after - _WIDER * _MS <= moment <= part.before + _WIDER * _MS


def test_windows_are_read_in_order() -> None:
    """And parts of a window in its place."""
    queue = WindowQueue([window(0, 10), window(10, 20)], "ms")
    queue.replace(window(0, 10), [window(0, 5), window(5, 10)])
    queue.append(window(20, 30))
    queue.insert(window(-10, 0))
    assert queue.upcoming(9) == [
        window(-10, 0),
        window(0, 5),
        window(5, 10),
        window(10, 20),
        window(20, 30),
    ]


@given(length=st.integers(10, 3_600_000), bad=st.sets(milliseconds, max_size=4))
def test_an_instant_that_cannot_be_read_is_found(length: int, bad: set[int]) -> None:
    """What is owed are the few milliseconds around it; all else was read."""
    bad = {instant % length for instant in bad}
    whole = window(0, length)
    queue = WindowQueue([whole], "ms")
    read, owed, requests = [], [], 0
    while queue:
        part = queue.upcoming(1)[0]
        requests += 1
        if not any(shows(part, instant) for instant in bad):
            assert queue.record_read(part, complete=True) == []
            read.append(part)
        elif not queue.narrow_unreadable(part):
            queue.replace(part, [])
            owed.append(part)
    assert merge_windows([*read, *owed]) == [whole]
    for part in owed:
        assert any(shows(part, instant) for instant in bad)
        assert part.length <= 2 * _MS
    # The shortest windows whose requests show an instant are some five, each found by halving.
    assert requests <= 1 + len(bad) * 2 * (math.ceil(math.log2(length)) + 6)


@given(
    length=st.integers(10, 3_600_000),
    hidden=st.sets(milliseconds, max_size=3),
    everywhere=st.booleans(),
)
def test_a_count_that_does_not_add_up_is_narrowed_while_half_of_it_does(
    length: int, hidden: set[int], everywhere: bool
) -> None:
    """Where neither half adds up, both are owed: halving on would never end."""
    hidden = {instant % length for instant in hidden}
    whole = window(0, length)
    queue = WindowQueue([whole], "ms")
    read: list[Window] = []
    owed: list[Window] = []
    requests = 0
    while queue:
        part = queue.upcoming(1)[0]
        requests += 1
        complete = not everywhere and not any(shows(part, instant) for instant in hidden)
        owed += queue.record_read(part, complete=complete)
        if complete:
            read.append(part)
    assert merge_windows([*read, *owed]) == [whole]
    assert all(any(shows(part, instant) for instant in hidden) or everywhere for part in owed)
    assert requests <= 1 + 2 * math.ceil(1.1 * math.log2(length)) + 2
    if everywhere:
        assert requests <= 3


@given(instant=st.integers(0, 8))
def test_a_count_that_does_not_add_up_in_both_halves_of_a_short_window(instant: int) -> None:
    """One row is shown by both, since bounds are a unit wider: they are narrowed nevertheless."""
    queue = WindowQueue([window(0, 8)], "ms")
    owed: list[Window] = []
    while queue:
        part = queue.upcoming(1)[0]
        owed += queue.record_read(part, complete=not shows(part, instant))
    assert owed
    assert all(part.length <= 2 * _MS and shows(part, instant) for part in owed)


def test_half_of_a_miscounted_window_that_is_split_for_another_reason_is_read_again() -> None:
    """Its sibling decides nothing any more; it is not lost."""
    queue = WindowQueue([window(0, 100)], "ms")
    assert queue.record_read(window(0, 100), complete=False) == []
    first, second = queue.upcoming(9)
    assert queue.record_read(first, complete=False) == []
    parts = split_window(second, 2)
    queue.replace(second, parts)
    assert queue.upcoming(9) == [first, *parts]


def test_not_everything_is_narrowed() -> None:
    """A vendor that fails on every row costs a limited number of requests."""
    queue = WindowQueue([window(0, 3_600_000)], "ms")
    requests, owed = 0, []
    while queue:
        part = queue.upcoming(1)[0]
        requests += 1
        if not queue.narrow_unreadable(part):
            queue.replace(part, [])
            owed.append(part)
    assert merge_windows(owed) == [window(0, 3_600_000)]
    narrow = MAX_NARROWED + MAX_NEIGHBOURS
    assert requests <= 2 * (narrow + math.ceil(math.log2(3_600_000))) + 2


def test_what_was_narrowed_before_costs_no_budget() -> None:
    """Ranges that earlier polls owe are tried again, and others are narrowed down all the same."""
    owed = [window(number * 1000, number * 1000 + 6) for number in range(2 * MAX_NARROWED)]
    wide = window(10_000_000, 13_600_000)
    queue = WindowQueue([*owed, wide], "ms")
    while (first := queue.upcoming(1)[0]) != wide:
        if not queue.narrow_unreadable(first):
            queue.replace(first, [])
    assert queue.narrow_unreadable(wide)
