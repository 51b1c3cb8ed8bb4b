"""Page limits: which pages the vendor refuses of a campaign, learned from contrasts.

A contrast is a page that fails while its rows can be read in smaller pages: the vendor refuses its
size. Failures by chance make contrasts too, so a size is given up only where no page of it succeeds
in between, and the last one fails once more. A refused depth is a page of which no part can be
read, behind pages that succeeded.
"""

import threading
from collections.abc import Iterable, Mapping

from db.learned_limits import LearnedLimit
from leadloop.core.windows import MAX_PAGES, Window

#: Contrasts in a row, without a success of that size, after which a size counts as refused. They
#: are kept between polls, since a poll may read a single page.
_CONTRASTS = 3
# A page is divided by these: a larger number of parts would cost too many requests.
_DIVISORS = (2, 3, 5, 7, 11, 13)


class PageLimits:
    """The page size and depth in use for a campaign; thread-safe.

    Args:
        page_size: the page size that the settings ask for.
        learned: what earlier polls have learned. A stale limit is not heeded, which tries it again.
    """

    def __init__(self, page_size: int, learned: Mapping[str, LearnedLimit]) -> None:
        self._lock = threading.Lock()
        self._learned = dict(learned)
        self._changes: dict[str, int | None] = {}
        self._contrasts = self._heeded("page_contrasts") or 0
        self._largest_part = 0
        self._deepest = 0
        # The page that failed in whole, and the windows that are read in place of its window.
        self._suspected_page = 0
        self._unread_parts: set[Window] = set()
        self._refused_above = self._heeded("page_size")
        self.page_size = page_size
        self.apply_page_size(page_size)
        self.max_pages = min(MAX_PAGES, self._heeded("page_depth") or MAX_PAGES)

    def apply_page_size(self, page_size: int) -> None:
        """Use the page size that the settings ask for, as far as the vendor takes it."""
        self.page_size = round_page_size(min(page_size, self._refused_above or page_size))

    def record_success(self, *, size: int, number: int) -> None:
        """Record that a full page was read; one beyond a learned limit ends that limit."""
        with self._lock:
            if size >= self.page_size:
                self._count_contrasts(0)
            self._deepest = max(self._deepest, number)
            for name, value in (("page_size", size), ("page_depth", number)):
                if name in self._learned and value > self._learned[name].value:
                    del self._learned[name]
                    self._changes[name] = None

    def record_contrast(self, size: int, smaller: int, *, refused: bool) -> bool:
        """Record that a page of `size` failed while its parts of `smaller` rows succeeded.

        Args:
            size: the size that failed.
            smaller: the size that succeeded.
            refused: the vendor refused the page, which is no chance: its size is given up.

        Returns:
            Whether the page is to be tried once more: if it fails again, `give_up_size`.
        """
        with self._lock:
            if size > self.page_size:
                return False
            self._count_contrasts(self._contrasts + 1)
            # Contrasts may be of different sizes: the largest parts are pages that succeeded.
            self._largest_part = max(self._largest_part, smaller)
            if refused:
                self._refuse_above(smaller)
            return self._contrasts >= _CONTRASTS

    def give_up_size(self) -> None:
        """Use smaller pages from now on, unless a page succeeded since the last contrast."""
        with self._lock:
            if self._contrasts >= _CONTRASTS:
                self._refuse_above(self._largest_part)

    def suspect_depth(self, number: int, parts: Iterable[Window]) -> None:
        """Suspect the depth of page `number`, no part of which can be read.

        Args:
            number: the page's number.
            parts: the windows with fewer pages that are read instead. If each of them is read
                completely, it was the depth: the same rows failed and succeed.
        """
        with self._lock:
            self._suspected_page, self._unread_parts = number, set(parts)

    def record_complete(self, window: Window) -> None:
        """Record that a window was read completely, which may confirm a suspected depth.

        It was the page and not its depth if this run has read a page as deep.
        """
        with self._lock:
            if window not in self._unread_parts:
                return
            self._unread_parts.discard(window)
            if not self._unread_parts and self._suspected_page > self._deepest:
                self.max_pages = min(self.max_pages, max(1, self._suspected_page - 1))
                self._learn("page_depth", self.max_pages)

    def take_changes(self) -> Mapping[str, int | None]:
        """Return what was learned since the last call, to be stored; None: a limit has ended."""
        with self._lock:
            changes, self._changes = self._changes, {}
            return changes

    def _refuse_above(self, page_size: int) -> None:
        self.page_size = self._refused_above = page_size
        self._count_contrasts(0)
        self._learn("page_size", page_size)

    def _count_contrasts(self, amount: int) -> None:
        if amount == 0:
            self._largest_part = 0
        if amount != self._contrasts:
            self._contrasts = amount
            self._changes["page_contrasts"] = amount or None

    def _learn(self, name: str, value: int) -> None:
        self._learned[name] = LearnedLimit(value=value, is_stale=False)
        self._changes[name] = value

    def _heeded(self, name: str) -> int | None:
        limit = self._learned.get(name)
        return None if limit is None or limit.is_stale else limit.value


def round_page_size(size: int) -> int:
    """Return the largest page size, up to one, that can be divided down to single rows."""
    return next(rounded for rounded in range(size, 0, -1) if _can_be_divided(rounded))


def smallest_divisor(size: int) -> int | None:
    """Return the smallest divisor above 1 of a page's size, so that its parts are pages again.

    Returns:
        None for 1, and for a size whose parts would be too many.
    """
    return next((parts for parts in _DIVISORS if size % parts == 0), None)


def _can_be_divided(size: int) -> bool:
    while (parts := smallest_divisor(size)) is not None:
        size //= parts
    return size == 1
