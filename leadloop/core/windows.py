"""Ranges of `processed_at`, and what may be said once one has been read."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from leadloop.core.timestamps import EPOCH, EpochUnit, to_epoch_ms

_TICK = {"ms": 1, "s": 1000}
_MILLISECOND = timedelta(milliseconds=1)

#: A window with more pages than this is split: it bounds the memory of a run.
MAX_PAGES = 50
# How full the parts are meant to be: they never are equally full, and one too full is split again.
_FULL = 0.75
#: Into how many parts a window is split at a time: fifty years have half a million hours.
MAX_PARTS = 64


@dataclass(frozen=True, kw_only=True, order=True)
class Window:
    """What was processed from `after` to `before`, both UTC, both included."""

    after: datetime
    before: datetime

    def __post_init__(self) -> None:
        """A window runs forward.

        Raises:
            ValueError: `before` is earlier than `after`.
        """
        if self.before < self.after:
            raise ValueError("a window cannot end before it begins")

    @property
    def length(self) -> timedelta:
        """From the one bound to the other."""
        return self.before - self.after


def chunk_range(after: datetime, before: datetime, max_length: timedelta) -> Iterator[Window]:
    """Windows, none longer than `longest`, that leave no gap from `after` to `before`."""
    start = after
    while before - start > max_length:
        yield Window(after=start, before=start + max_length)
        start += max_length
    if start < before:
        yield Window(after=start, before=before)


def split_window(window: Window, parts: int) -> list[Window]:
    """At most `parts` windows of whole milliseconds in place of one; it alone if too short."""
    # Rounded up: rounded down, a window of a millisecond or so would be left, and cost a request.
    milliseconds = -(-window.length // (parts * _MILLISECOND))
    return list(chunk_range(window.after, window.before, milliseconds * _MILLISECOND)) or [window]


def count_parts(
    window: Window, *, count: int, page_size: int, max_length: timedelta, unit: EpochUnit
) -> int:
    """In how many parts to read a window that holds more than one answer can; 1: as it is.

    A window beyond `longest` has no more parts than it has pages, so that a long stretch with
    little in it costs few requests.
    """
    pages = -(-count // page_size)
    if window.length > max_length:
        wanted = min(pages, -(-window.length // max_length))
    elif pages > MAX_PAGES and window.length > 2 * _TICK[unit] * _MILLISECOND:
        wanted = -(-pages // int(MAX_PAGES * _FULL))
    else:
        return 1
    return max(2, min(wanted, MAX_PARTS))


def cover_window(
    window: Window, moments: Iterable[datetime], max_length: timedelta
) -> list[tuple[Window, int]]:
    """A stretch that one answer holds whole, as windows with the number of results in each.

    None that holds a result is longer than `longest`; the empty ones between are as long as they
    are, or else a year with little in it would be thousands of windows.

    Args:
        window: the stretch.
        moments: when each result was processed; one outside counts at the nearer end.
        longest: the longest window that is to hold any.
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
    """The same moments in as few windows as will do, in order."""
    found: list[Window] = []
    for window in sorted(windows):
        if found and window.after <= found[-1].before:
            last = found.pop()
            window = Window(after=last.after, before=max(last.before, window.before))
        found.append(window)
    return found


def find_gaps(window: Window, covered: Iterable[Window]) -> list[Window]:
    """What none of `covered` holds of a window, in order."""
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
    """Up to where there is no gap from `start` on; `start` itself where it begins with one."""
    for window in merge_windows(proven):
        if window.after <= start < window.before:
            return window.before
    return start


def query_bounds(window: Window, unit: EpochUnit) -> tuple[int, int]:
    """`processed_after` and `processed_before` for a window, in the unit that is sent.

    The document does not say whether the bounds are inclusive, so each is moved one unit outwards:
    nothing in the window is missed either way, and what is read beyond it does no harm.
    """
    tick = _TICK[unit]
    first = to_epoch_ms(window.after) // tick - 1
    last = -(-(_ceil_ms(window.before)) // tick) + 1
    return max(first, 0), max(last, 1)


@dataclass(frozen=True, kw_only=True)
class WindowProof:
    """What a reading of a window proves: the status it is recorded with, and the proven part."""

    status: Literal["closed", "open", "incomplete"]
    proven: Window | None


def prove_window(
    window: Window, *, complete: bool, now: datetime, settle: timedelta
) -> WindowProof:
    """What may be said of a window once it has been read.

    What the vendor processed within the last `settle` before `now` may not show yet.
    """
    through = min(window.before, subtract_to_epoch(now, settle))
    if not complete:
        return WindowProof(status="incomplete", proven=None)
    return WindowProof(
        status="closed" if through == window.before else "open",
        proven=Window(after=window.after, before=through) if through > window.after else None,
    )


def subtract_to_epoch(moment: datetime, by: timedelta) -> datetime:
    """So much earlier, and never before 1970, when no vendor had processed anything."""
    return max(EPOCH, moment - min(by, moment - EPOCH))


def _ceil_ms(moment: datetime) -> int:
    return -((EPOCH - moment) // _MILLISECOND)
