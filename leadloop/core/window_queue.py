"""The windows that a poll still has to read, and how one that cannot be read is narrowed. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from leadloop.core.timestamps import EpochUnit
from leadloop.core.windows import Window, cut_off_start, halve_window, may_share_row

#: The most ranges that a poll narrows down to the shortest. What fails after that is owed as a
#: whole: the vendor fails on more than single results.
MAX_NARROWED = 30
#: The windows that one instant may be owed as, since bounds are a unit wider in requests.
MAX_NEIGHBOURS = 6
# An owed window of at most this length was narrowed down, in either unit.
_NARROW = timedelta(seconds=6)


class WindowQueue:
    """Windows in order; a window that cannot be read is replaced by its parts, in its place.

    Args:
        windows: the windows to read.
        unit: the unit of the bounds, which limits how short a window can usefully be.
    """

    def __init__(self, windows: Iterable[Window], unit: EpochUnit) -> None:
        self._unit: EpochUnit = unit
        self._windows = list(windows)
        # Narrowed down by an earlier poll, as far as it could; and their parts.
        self._narrow = {window for window in self._windows if window.length <= _NARROW}
        self._suspects: set[Window] = set()
        # The halves of a miscounted window: the first one by the second. A first half that is
        # miscounted too is held until the second one is read.
        self._first_halves: dict[Window, Window] = {}
        self._held: set[Window] = set()
        self._given_up_count = 0
        # Windows that were narrowed no further, by their ends: how many follow each other.
        self._given_up: dict[datetime, int] = {}

    def __len__(self) -> int:
        """Return how many windows are left, before any of them is split."""
        return len(self._windows)

    def upcoming(self, limit: int) -> Sequence[Window]:
        """Return the next windows, at most `limit`."""
        return self._windows[:limit]

    def is_suspect(self, window: Window) -> bool:
        """Return whether a window seems to hold a result that cannot be read."""
        return window in self._suspects

    def insert(self, window: Window) -> None:
        """Add a window that is read next."""
        self._windows.insert(0, window)

    def append(self, window: Window) -> None:
        """Add a window that is read last."""
        self._windows.append(window)

    def replace(
        self, window: Window, parts: Sequence[Window], *, suspects: Iterable[Window] = ()
    ) -> None:
        """Replace a window by parts of it; some of them may be suspects."""
        at = self._remove(window)
        self._suspects |= set(suspects)
        if window in self._narrow:
            self._narrow |= set(parts)
        first = self._first_halves.pop(window, None)
        if first in self._held:
            # Its sibling decides nothing any more: read it again by itself.
            self._held.discard(first)
            parts = [first, *parts]
        self._first_halves = {
            second: half for second, half in self._first_halves.items() if half != window
        }
        self._windows[at:at] = parts

    def narrow_unreadable(self, window: Window) -> bool:
        """Replace a window that cannot be read by its parts; return False if it is not divided.

        That is so if it is too short, or if too many others were. The caller removes and owes it.
        """
        parts: Sequence[Window] = ()
        if self._given_up_count < MAX_NARROWED:
            parts = halve_window(window, self._unit)
        if parts and window.after in self._given_up:
            # The same instant may be shown here too, since bounds are a unit wider in requests.
            parts = cut_off_start(window, self._unit) or parts
        if not parts:
            place = self._given_up.get(window.after, 0)
            self._given_up[window.before] = place + 1
            # One that an earlier poll has narrowed down costs no halving, and the neighbours of an
            # instant are one with it. More than these show that the vendor fails on everything.
            is_neighbour = 0 < place < MAX_NEIGHBOURS
            if window not in self._narrow and not is_neighbour:
                self._given_up_count += 1
            return False
        self.replace(window, parts, suspects=parts)
        return True

    def record_read(self, window: Window, *, complete: bool) -> Sequence[Window]:
        """Remove a window that was read; if it does not add up, put its halves in its place.

        A first half that does not add up is held until its second half is read.
        Halves are halved further only while one of them adds up. If neither does, the vendor counts
        otherwise than it shows, and halving on would find that everywhere; unless both are so short
        that one row may be the reason in both.

        Returns:
            The windows that are owed from now on.
        """
        at = self._remove(window)
        first = self._first_halves.pop(window, None)
        if first is None and window in self._first_halves.values():
            if not complete:
                self._held.add(window)
            return []
        if first is not None and first in self._held:
            self._held.discard(first)
            if complete:
                return self._halve_miscounted(first, at)
            if not may_share_row(first, window, self._unit):
                return [first, window]
            # The second one's halves first: those of the first one go before them.
            owed = self._halve_miscounted(window, at)
            return [*self._halve_miscounted(first, at), *owed]
        return [] if complete else self._halve_miscounted(window, at)

    def _halve_miscounted(self, window: Window, at: int) -> Sequence[Window]:
        halves = halve_window(window, self._unit) if self._given_up_count < MAX_NARROWED else []
        if not halves:
            self._given_up_count += 1
            return [window]
        first, second = halves
        self._first_halves[second] = first
        self._windows[at:at] = halves
        return []

    def _remove(self, window: Window) -> int:
        """Remove a window, and return its place."""
        self._suspects.discard(window)
        at = self._windows.index(window)
        del self._windows[at]
        return at
