"""Reading a window page by page, with a proof that the read is complete (pagination).

A window on one page is proven by that page, because one answer shows one moment. Several pages show
several moments, so the reader also verifies that no row left the window during the read: a row that
leaves pulls the rows behind it forward, over the border of a page that was read before.

`count` is the number of results in the window. If the first page holds as many results as its count
and names a next page, the reader looks at that page. If it has other rows, `count` is the number of
results on that page, and the reader goes on until a page names no next one.

The rows of the shortest windows are read one by one where a page fails, and in one larger answer
where several pages prove nothing.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import islice

from leadloop.core.errors import RunError
from leadloop.core.plurals import format_count
from leadloop.core.windows import Window, halve_window
from tasks.context import ApiContext, CampaignRun
from tasks.page_limits import PageLimits
from tasks.page_reader import MAX_FAILURES, DatabaseClock, PageReader, PageUnavailable
from tasks.window_pages import (
    SHORTEST_MOVING,
    ParsedPage,
    ParsedRow,
    ParseResult,
    WindowRead,
    parse_key,
    parse_row,
)

#: The most reads of a window whose rows move; after that, it is owed.
MAX_READS = 4
# After two reads a moving window is split, since its parts take less time to read.
_MAX_READS_UNSPLIT = 2
# Rows alone that cannot be read, in a poll; after that, MAX_FAILURES of each window.
_MOST_MISSING = 10
# The vendor's clock has a resolution of one second.
_MARGIN = timedelta(seconds=2)
_FAR_AHEAD = timedelta(days=1)
# Counted pages that are requested before the first of them has come.
_PAGES_AHEAD = 32
# Beyond it, no vendor's `next` is followed.
MOST_PAGES = 10_000
#: Short windows whose pages have no end, in a poll: a second and its halves are three.
MOST_ENDLESS = 8
# Repeated rows in a row, of a vendor that ignores `page`.
_MOST_REPEATS = 3


class WindowReader:
    """A reader of one campaign's windows.

    Args:
        pages: reads their pages.
        run: the campaign's run.
        clock: the database's clock.
        limits: what the vendor refuses of pages.
    """

    def __init__(
        self,
        pages: PageReader,
        run: CampaignRun[ApiContext],
        clock: DatabaseClock,
        limits: PageLimits,
    ) -> None:
        self._pages = pages
        self._run = run
        self._clock = clock
        self._limits = limits
        self._missing_rows = 0
        # Short windows whose pages go far beyond their count.
        self._endless: set[Window] = set()

    def read_first_page(self, window: Window, *, in_parts: bool = True) -> ParsedPage:
        """Read the first page of a window, and check whether a next page really follows.

        A vendor may name a next page after the last one, or ignore `page`. So if the first page
        holds as many rows as its count and names a next page, the second page is read too. The
        result's `has_next` is True only if the second page has other rows.

        Args:
            window: the window.
            in_parts: read the page in smaller pages if it cannot be read as a whole.

        Raises:
            PageUnavailable: the first page cannot be read; with `in_parts`, none of its rows can.
                Or the second page is needed, and none of its rows can be read.
            RateLimited, Fatal, RunError: see `fetch_page`.
        """
        read = self._pages.read_page if in_parts else self._pages.fetch_page
        page = read(window, 1, self._limits.page_size)
        if not page.counts_per_page or self._has_second_page(window, page):
            return page
        # The end by one look: a row that left page 1 meanwhile pulls the first of page 2 forward,
        # and a proxy may answer 404.
        again = self._pages.fetch_page(window, 1, page.size, parse=parse_key)
        is_same = (again.count, again.keys) == (page.count, page.keys)
        return replace(page, has_next=not is_same or self._has_second_page(window, page))

    def _has_second_page(self, window: Window, first: ParsedPage) -> bool:
        """Return whether the page behind a first page shows other rows."""
        # Not in parts: where a count may be that of the page, its number proves too little.
        following = self._pages.read_page(window, 2, first.size, in_parts=False, parse=parse_key)
        return not following.keys <= first.keys

    def read_rows_alone(self, pool: ThreadPoolExecutor, window: Window) -> WindowRead:
        """Read a window row by row, in pages of one, as far as its rows can be read.

        For the shortest windows: the bounds of a request are a unit wider than the window, so an
        instant that cannot be read also hides the rows beside it.

        Raises:
            PageUnavailable: none of the first rows can be read.
        """
        rows: list[ParsedRow] = []
        failures: dict[int, PageUnavailable] = {}
        shown: ParsedPage | None = None
        number = repeats = 0
        goes_on = is_repeated = False
        while shown is None or number < shown.count or goes_on:
            number += 1
            try:
                page = self._pages.fetch_page(window, number, 1)
            except PageUnavailable as failure:
                failures[number] = failure
                # Only where a count may be that of the page is a row expected beyond it.
                goes_on = goes_on and shown is not None and shown.counts_per_page
                if not self._may_miss_more(len(failures)):
                    break
                continue
            if len(page.rows) != 1:
                # Beyond the last row, or the vendor ignores the page's size.
                if number == 1:
                    return self._read_one_page(window, page)
                break
            shown = shown or page
            repeats = repeats + 1 if page.keys <= {row.key for row in rows} else 0
            is_repeated = repeats > (0 if number > shown.count else _MOST_REPEATS)
            if is_repeated:
                # Perhaps the vendor ignores `page`, and names a next one indefinitely.
                break
            rows += page.rows
            goes_on = page.has_next
        if shown is None:
            raise failures[1]
        page = replace(
            shown,
            # A count of 1 that names a next page may be that of the page.
            count=len(rows) + len(failures) if shown.counts_per_page else shown.count,
            rows=rows,
            missing=[at - 1 for at in failures],
            failure=next((failure.reason for failure in failures.values()), ""),
            has_next=False,
            answers=number,
        )
        reading = WindowRead(window=window, first=page)
        reading.add_page(page)
        reading.stable &= not is_repeated
        if failures or number == 1:
            return reading
        pages = replace(reading, first=shown, pages=number, answers=number)
        return self._read_at_once(reading) or self._verify_rows(pool, reading, pages)

    def _may_miss_more(self, missing: int) -> bool:
        """Return whether a further row of a window is tried, and count the one that failed."""
        self._missing_rows += 1
        return missing < MAX_FAILURES or self._missing_rows < _MOST_MISSING

    def _read_at_once(self, reading: WindowRead) -> WindowRead | None:
        """Read the rows of a read of several answers in one answer, which shows one moment.

        The answer has room for a row more. Its size is also tried where the vendor has refused it:
        this window is short, and repeated rows are proven by nothing else.

        Returns:
            A complete read; the read itself, whose stability is then known; None if the answer
            cannot be had.
        """
        window, rows = reading.window, reading.rows_read
        try:
            page = self._pages.fetch_page(window, 1, rows + 1)
        except PageUnavailable:
            return None
        if page.holds_whole_window:
            return self._read_one_page(window, page)
        # Whatever its count covers, and whether it names a next page.
        reading.stable &= page.row_count == rows and page.keys == reading.seen.keys()
        return reading

    def _verify_rows(
        self, pool: ThreadPoolExecutor, reading: WindowRead, pages: WindowRead
    ) -> WindowRead:
        """Verify a read row by row as that of any pages, after a larger answer failed."""
        reading.stable = reading.complete and self._verify_pages(pool, pages)
        size = reading.rows_read + 1
        if reading.stable and self._limits.record_contrast(size, 1, refused=False):
            # The page has failed before, and again after its rows were read.
            self._limits.give_up_size()
        return reading

    def _read_one_page(self, window: Window, page: ParsedPage) -> WindowRead:
        """Return the read of a window that is empty by now, or all that the vendor shows of it."""
        reading = WindowRead(window=window, first=page)
        reading.add_page(page)
        reading.stable &= page.holds_whole_window
        return reading

    def read_nothing(self, window: Window) -> WindowRead:
        """Return the read of a window of which nothing can be read, and no count is known."""
        now = self._clock.now()
        page = ParsedPage(
            count=0, rows=(), has_next=False, vendor_now=None, database_now=now, size=1
        )
        return WindowRead(window=window, first=page, stable=False)

    def read_window(
        self, pool: ThreadPoolExecutor, window: Window, first: ParsedPage
    ) -> WindowRead:
        """Read all pages after the first, and read again while rows move, up to MAX_READS times.

        Returns:
            The last read; `may_be_split` if parts of the window are worth a try.

        Raises:
            PageUnavailable: none of the rows of a page can be read.
            RunError: the pages of several short windows have no end.
        """
        reading = self._read_once(pool, window, first)
        for readings in range(1, MAX_READS):
            enough = readings >= _MAX_READS_UNSPLIT or self._is_too_long(reading)
            if reading.complete or reading.missing or (enough and reading.may_be_split):
                break
            if self._is_too_long(reading):
                break
            reading = self._read_once(pool, window, self.read_first_page(window))
        if reading.complete or reading.missing or reading.is_one_answer:
            return reading
        if self._is_too_long(reading):
            self._require_ends(window)
            return reading
        if halve_window(window, self._run.campaign.epoch_unit):
            return reading
        return self._read_at_once(reading) or reading

    def _require_ends(self, window: Window) -> None:
        """Check that the vendor's pages end: one short window may hold many rows, not each.

        Raises:
            RunError: they did not in more than MOST_ENDLESS short windows.
        """
        if window.length <= SHORTEST_MOVING:
            self._endless.add(window)
        if len(self._endless) > MOST_ENDLESS:
            raise RunError(
                f"the vendor's pages have no end: in {format_count(len(self._endless), 'window')}"
                " of a second or less each page had new results, far beyond their count; what"
                " follows them is not read now: ask the vendor, then `leadloop poll`"
            )

    def _is_too_long(self, reading: WindowRead) -> bool:
        return reading.is_too_long(self._limits.max_pages)

    def _read_once(self, pool: ThreadPoolExecutor, window: Window, first: ParsedPage) -> WindowRead:
        reading = WindowRead(window=window, first=first)
        reading.add_page(first)
        try:
            for page in self._read_remaining_pages(pool, window, first):
                reading.add_page(page)
                if self._is_too_long(reading):
                    reading.stable = False
                    break
        except PageUnavailable as failure:
            reading.stable = False
            failure.partial = reading
            raise
        if reading.complete and not reading.is_one_answer:
            reading.stable = self._verify_pages(pool, reading)
        return reading

    def _read_remaining_pages(
        self,
        pool: ThreadPoolExecutor,
        window: Window,
        first: ParsedPage,
        *,
        parse: ParseResult = parse_row,
    ) -> Iterator[ParsedPage]:
        """Yield the pages after the first: as many as counted, and more while one names a next.

        Raises:
            PageUnavailable: none of the rows of a page can be read; the pages behind it are not
                waited for.
        """
        page, seen = first, set(first.keys)
        # The rows of a later page are known by its number only if each page holds as many as asked.
        in_parts = first.row_count == first.size and not first.counts_per_page
        read = partial(
            self._pages.read_page, window, size=first.size, parse=parse, in_parts=in_parts
        )
        numbers = iter(first.remaining_pages)
        counted = deque(pool.submit(read, at) for at in islice(numbers, _PAGES_AHEAD))
        try:
            while counted:
                page = counted.popleft().result()
                if not page.row_count:
                    # Nothing lies behind it, whatever the vendor counts.
                    break
                counted.extend(pool.submit(read, at) for at in islice(numbers, 1))
                seen |= page.keys
                yield page
        finally:
            for future in counted:
                future.cancel()
        number = len(first.remaining_pages) + 1
        while page.has_next and number < MOST_PAGES:
            number += 1
            page = read(number=number)
            if page.keys <= seen:
                # The end, or the vendor ignores `page` and names a next one indefinitely.
                break
            seen |= page.keys
            yield page

    def _verify_pages(self, pool: ThreadPoolExecutor, reading: WindowRead) -> bool:
        """Return whether no row left a window of several pages during its read, as far as known."""
        try:
            return self._verify_stable(pool, reading)
        except PageUnavailable:
            return False

    def _verify_stable(self, pool: ThreadPoolExecutor, reading: WindowRead) -> bool:
        """Return whether no row left a window of several pages during its read.

        An unchanged first page proves that the border behind it did not shift. Beyond that page, a
        row leaves only when its lead is processed again, and then its new time is after the start
        of the read. If pages count only themselves, all pages are read again.

        Raises:
            PageUnavailable: a page of the proof cannot be read.
        """
        window, first = reading.window, reading.first
        again = self._pages.read_page(window, 1, first.size, parse=parse_key)
        if first.counts_per_page:
            more = self._read_remaining_pages(pool, window, again, parse=parse_key)
            return again.keys.union(*(page.keys for page in more)) == reading.seen.keys()
        if (again.count, again.keys) != (first.count, first.keys):
            return False
        if reading.pages <= 2 and reading.answers == reading.pages:
            return True
        # The clock that sets `processed_at` may be ahead of both known ones, or behind one of them
        # (docs/delivery.md). Nothing else lies ahead.
        since = Window(after=first.earlier_now - _MARGIN, before=again.database_now + _FAR_AHEAD)
        latest = self._pages.read_page(since, 1, first.size, parse=parse_key)
        pages = [latest, *self._read_remaining_pages(pool, since, latest, parse=parse_key)]
        return not any(reading.has_moved_rows(page.rows) for page in pages)
