"""Ranges of `processed_at`, and what may be said once one has been read."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from leadloop.core.timestamps import EPOCH, EpochUnit, epoch_ms

_TICK = {"ms": 1, "s": 1000}


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


def cut(after: datetime, before: datetime, longest: timedelta) -> Iterator[Window]:
    """Windows, none longer than `longest`, that leave no gap from `after` to `before`."""
    start = after
    while before - start > longest:
        yield Window(after=start, before=start + longest)
        start += longest
    if start < before:
        yield Window(after=start, before=before)


def split(window: Window, parts: int) -> list[Window]:
    """About `parts` windows of whole milliseconds in place of one; that one alone if too short."""
    step = max(window.length / parts, timedelta(milliseconds=1))
    whole = timedelta(milliseconds=max(1, step // timedelta(milliseconds=1)))
    return list(cut(window.after, window.before, whole)) or [window]


def query_bounds(window: Window, unit: EpochUnit) -> tuple[int, int]:
    """`processed_after` and `processed_before` for a window, in the unit that is sent.

    The document does not say whether the bounds are inclusive, so each is moved one unit outwards:
    nothing in the window is missed either way, and what is read beyond it does no harm.
    """
    tick = _TICK[unit]
    first = epoch_ms(window.after) // tick - 1
    last = -(-(_ceil_ms(window.before)) // tick) + 1
    return max(first, 0), last


def proven_through(window: Window, *, vendor_now: datetime, settle: timedelta) -> datetime:
    """Up to where a window that was read completely is closed.

    What the vendor processed within the last `settle` may not show yet.
    """
    return min(window.before, vendor_now - settle)


def _ceil_ms(moment: datetime) -> int:
    return -((EPOCH - moment) // timedelta(milliseconds=1))
