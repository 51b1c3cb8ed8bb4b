"""Windows: ranges of `processed_at`, their arithmetic, and the proof that one was read whole."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from leadloop.core.timestamps import EPOCH, EpochUnit, to_epoch_ms

_TICK = {"ms": 1, "s": 1000}
_MILLISECOND = timedelta(milliseconds=1)

#: A window with more pages is split, which bounds the memory of a run.
MAX_PAGES = 50
# The intended fill of a part: parts are never equally full, and an overfull one is split again.
_FILL = 0.75
#: The most parts of one split: fifty years have half a million hours.
MAX_PARTS = 64


@dataclass(frozen=True, kw_only=True, order=True)
class Window:
    """The range of `processed_at` from `after` to `before`, both UTC and inclusive."""

    after: datetime
    before: datetime

    def __post_init__(self) -> None:
        """Check the order of the bounds.

        Raises:
            ValueError: `before` is earlier than `after`.
        """
        if self.before < self.after:
            raise ValueError("a window cannot end before it begins")

    @property
    def length(self) -> timedelta:
        """The time between the bounds."""
        return self.before - self.after


def chunk_range(after: datetime, before: datetime, max_length: timedelta) -> Iterator[Window]:
    """Chunk a range into adjacent windows of at most `max_length`."""
    start = after
    while before - start > max_length:
        yield Window(after=start, before=start + max_length)
        start += max_length
    if start < before:
        yield Window(after=start, before=before)


def split_window(window: Window, parts: int) -> list[Window]:
    """Split a window into at most `parts` of whole milliseconds; return it alone if too short."""
    # Rounded up: rounding down would leave a window of a millisecond, which costs a request.
    milliseconds = -(-window.length // (parts * _MILLISECOND))
    return list(chunk_range(window.after, window.before, milliseconds * _MILLISECOND)) or [window]


def halve_window(window: Window, unit: EpochUnit) -> list[Window]:
    """Return the halves of a window; none if it is too short for a half to exclude anything.

    The bounds of a request are a unit wider on each side than its window (`query_bounds`). So the
    cut is not in the middle, where evenly spread results would put what both halves then show.
    """
    if window.length <= 2 * _TICK[unit] * _MILLISECOND:
        return []
    milliseconds = max(1, window.length * 15 // (32 * _MILLISECOND))
    return cut_window(window, window.after + milliseconds * _MILLISECOND)


def is_narrow(window: Window, unit: EpochUnit) -> bool:
    """Return whether a window is as short as reads narrow one down, with some beside it."""
    return window.length <= 10 * _TICK[unit] * _MILLISECOND


def may_share_row(first: Window, second: Window, unit: EpochUnit) -> bool:
    """Return whether the requests for two halves may show the same row, wherever it lies."""
    return second.before - first.after <= 8 * _TICK[unit] * _MILLISECOND


def cut_off_start(window: Window, unit: EpochUnit) -> list[Window]:
    """Cut a window behind what the request for a window before it shows of it; none: too short."""
    cut = window.after + 4 * _TICK[unit] * _MILLISECOND
    return cut_window(window, cut) if cut < window.before else []


def cut_window(window: Window, at: datetime) -> list[Window]:
    """Return the parts of a window before and behind a time in it."""
    return [Window(after=window.after, before=at), Window(after=at, before=window.before)]


def find_brackets(
    window: Window, times: Mapping[int, datetime], missing: Sequence[int]
) -> list[Window]:
    """Return the ranges in which rows that could not be read seem to lie.

    Args:
        window: the window that was read.
        times: `processed_at` of the rows that were read, by their offsets in the window.
        missing: the offsets of the rows that could not be read.

    Returns:
        For rows in the order of their times, the ranges between the neighbours of missing rows,
        merged, in order; else the whole window.
    """
    known = sorted(times)
    ordered = [times[offset] for offset in known]
    ascending = all(first <= second for first, second in pairwise(ordered))
    descending = all(first >= second for first, second in pairwise(ordered))
    if ascending == descending:
        return [window]
    brackets = []
    for offset in missing:
        before = max((at for at in known if at < offset), default=None)
        behind = min((at for at in known if at > offset), default=None)
        earlier, later = (before, behind) if ascending else (behind, before)
        start = window.after if earlier is None else times[earlier]
        end = window.before if later is None else times[later]
        start, end = (min(max(at, window.after), window.before) for at in (start, end))
        brackets.append(Window(after=start, before=end))
    return merge_windows(brackets)


def count_parts(
    window: Window,
    *,
    count: int,
    page_size: int,
    max_length: timedelta,
    unit: EpochUnit,
    max_pages: int = MAX_PAGES,
) -> int:
    """Return the number of parts into which to split a window of `count` results; 1: no split.

    A window longer than `max_length` gets at most as many parts as it has pages, so that a long
    range with few results costs few requests.
    """
    pages = -(-count // page_size)
    if window.length > max_length:
        wanted = min(pages, -(-window.length // max_length))
    elif pages > max_pages and window.length > 2 * _TICK[unit] * _MILLISECOND:
        wanted = -(-pages // max(1, int(max_pages * _FILL)))
    else:
        return 1
    return max(2, min(wanted, MAX_PARTS))


def cover_window(
    window: Window, moments: Iterable[datetime], max_length: timedelta
) -> list[tuple[Window, int]]:
    """Cover a range, read in one response, by windows with the number of results in each.

    Windows with results are at most `max_length` long. The empty windows between have no limit: a
    year with few results would otherwise become thousands of windows.

    Args:
        window: the range.
        moments: the `processed_at` of each result; one outside counts at the nearer bound.
        max_length: the limit for windows with results.
    """
    found: list[tuple[Window, int]] = []
    left = deque(sorted(min(max(moment, window.after), window.before) for moment in moments))
    start = window.after
    while left:
        if start < left[0]:
            found.append((Window(after=start, before=left[0]), 0))
            start = left[0]
        end = min(start + max_length, window.before)
        inside = 0
        while left and left[0] <= end:
            left.popleft()
            inside += 1
        found.append((Window(after=start, before=end), inside))
        start = end
    if start < window.before or not found:
        found.append((Window(after=start, before=window.before), 0))
    return found


def merge_windows(windows: Iterable[Window]) -> list[Window]:
    """Merge overlapping and adjacent windows; return them in order."""
    found: list[Window] = []
    for window in sorted(windows):
        if found and window.after <= found[-1].before:
            last = found.pop()
            window = Window(after=last.after, before=max(last.before, window.before))
        found.append(window)
    return found


def find_gaps(window: Window, covered: Iterable[Window]) -> list[Window]:
    """Return the parts of a window that no window of `covered` holds, in order."""
    found = []
    start = window.after
    for other in merge_windows(covered):
        end = min(other.after, window.before)
        if start < end:
            found.append(Window(after=start, before=end))
        start = max(start, other.before)
    if start < window.before:
        found.append(Window(after=start, before=window.before))
    return found


def find_contiguous_end(start: datetime, proven: Iterable[Window]) -> datetime:
    """Return the end of the contiguous proven range from `start`; `start` if a gap begins there."""
    for window in merge_windows(proven):
        if window.after <= start < window.before:
            return window.before
    return start


def query_bounds(window: Window, unit: EpochUnit) -> tuple[int, int]:
    """Return `processed_after` and `processed_before` for a window, in the given unit.

    The vendor's API document does not state whether the bounds are inclusive. Each bound is
    therefore moved one unit outwards: no result is missed either way, and results beyond the window
    do no harm.
    """
    tick = _TICK[unit]
    first = to_epoch_ms(window.after) // tick - 1
    end_ms = -((EPOCH - window.before) // _MILLISECOND)
    last = -(-end_ms // tick) + 1
    return max(first, 0), max(last, 1)


@dataclass(frozen=True, kw_only=True)
class WindowProof:
    """The status of a window after a read, and the part proven complete (None: none of it)."""

    status: Literal["closed", "open", "incomplete"]
    proven: Window | None


def prove_window(
    window: Window, *, complete: bool, now: datetime, settle: timedelta
) -> WindowProof:
    """Return the proof that follows from a read of a window.

    Results processed within `settle` before `now` may not be visible yet.
    """
    through = min(window.before, subtract_to_epoch(now, settle))
    if not complete:
        return WindowProof(status="incomplete", proven=None)
    return WindowProof(
        status="closed" if through == window.before else "open",
        proven=Window(after=window.after, before=through) if through > window.after else None,
    )


def subtract_to_epoch(moment: datetime, by: timedelta) -> datetime:
    """Subtract a duration from a time; stop at 1970, before which nothing was processed."""
    return max(EPOCH, moment - min(by, moment - EPOCH))
