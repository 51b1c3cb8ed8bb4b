"""Reading a window page by page, with a proof that the read is complete (pagination).

Each thread parses the page that it read. A window on one page is proven by that page, because one
answer shows one moment. Several pages show several moments, so the reader also verifies that no row
left the window during the read: a row that leaves pulls the rows behind it forward, over the border
of a page that was read before.

`count` is the number of results in the window. If the first page holds as many results as its count
and names a next page, the reader looks at that page. If it has rows, `count` is the number of
results on that page, and the reader goes on until a page names no next one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from threading import Lock
from typing import NamedTuple

from db.bulk_copy import format_text_row
from leadloop.client.api import LeadsApi
from leadloop.client.errors import ApiError, Rejected
from leadloop.core import clock_skew
from leadloop.core.campaign_rules import Campaign
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import UnreadableResult, parse_identity, parse_result
from leadloop.core.timestamps import EPOCH, OTHER_UNIT
from leadloop.core.windows import MAX_PAGES, Window, cover_window
from tasks.counters import Counters

#: The most reads of a window whose rows move; after that, it is left for the next poll.
MAX_READS = 4
# After two reads a moving window is split, since its parts take less time to read.
_MAX_READS_UNSPLIT = 2
_SHORTEST_MOVING = timedelta(seconds=1)
# The vendor's clock has a resolution of one second.
_MARGIN = timedelta(seconds=2)
_NO_TIME = "processed_at: missing in a result of a window"

#: The identity of a result in a window: lead id and `processed_at`; the result's text for one that
#: is unreadable or has no `processed_at`.
Key = tuple[str, datetime | str]


class DatabaseClock:
    """An estimate of the database's clock from one reading and the local monotonic clock."""

    def __init__(self, now: datetime) -> None:
        self._began, self._monotonic = now, time.monotonic()

    def now(self) -> datetime:
        """Return the estimated time of the database's clock."""
        return self._began + timedelta(seconds=time.monotonic() - self._monotonic)


class FifoSemaphore:
    """A semaphore that admits threads in the order in which they asked (FIFO).

    A `threading.Semaphore` has no order. With one, threads that ask repeatedly starved the thread
    that verified a window until all pages of the next window were read.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[Lock] = deque()
        self._lock = Lock()

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Wait for a free place and hold it for the block."""
        gate = Lock()
        gate.acquire()
        with self._lock:
            if self._free:
                self._free -= 1
                gate.release()
            else:
                self._waiting.append(gate)
        gate.acquire()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().release()
                else:
                    self._free += 1


class ParsedRow(NamedTuple):
    """One result as lines for COPY, or only its key."""

    key: Key
    outcome: str | None = None
    attempts: Sequence[str] = ()
    unreadable: tuple[str, object] | None = None


def parse_row(result: object) -> ParsedRow:
    """Parse a result into lines for COPY; keep an unreadable result as it is, with the reason."""
    try:
        read = parse_result(result)
    except UnreadableResult as error:
        return ParsedRow(key=make_key(result), unreadable=(str(error), result))
    attempts = [format_text_row(attempt) for attempt in read.attempts]
    if read.outcome is None or read.processed_at is None:
        # In a listing, such a lead is not processed yet. A window should hold no such lead.
        return ParsedRow(key=make_key(result), attempts=attempts, unreadable=(_NO_TIME, result))
    key = (read.lead_id, read.processed_at)
    return ParsedRow(key=key, outcome=format_text_row(read.outcome), attempts=attempts)


def make_key(result: object) -> Key:
    """Return the key by which `parse_row` identifies a result."""
    try:
        lead_id, processed_at = parse_identity(result)
    except UnreadableResult:
        return "", dump_json(result)
    return lead_id, processed_at or dump_json(result)


def parse_key(result: object) -> ParsedRow:
    """Return only the key of a result that is read to verify a window."""
    return ParsedRow(key=make_key(result))


#: Parses a result: `parse_row`, or `parse_key`, which takes a fifteenth of the time.
ParseResult = Callable[[object], ParsedRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedPage:
    """One parsed page; `ours` is the database's clock at the request."""

    count: int
    rows: Sequence[ParsedRow]
    has_next: bool
    vendor_now: datetime | None
    ours: datetime

    @property
    def now(self) -> datetime:
        """The earlier of the vendor's clock and the database's: a time that is past for both."""
        return clock_skew.earlier_clock(self.vendor_now, self.ours)

    @property
    def keys(self) -> frozenset[Key]:
        """The keys of the page's results."""
        return frozenset(row.key for row in self.rows)

    @property
    def matches_count(self) -> bool:
        """Whether the page holds as many results as its count."""
        return len(self.keys) == self.count

    @property
    def holds_whole_window(self) -> bool:
        """Whether this first page alone holds the whole window."""
        return self.matches_count and not self.has_next

    @property
    def counts_per_page(self) -> bool:
        """Whether this first page's count covers the page only, while the window goes on."""
        return self.matches_count and self.has_next

    @property
    def remaining_pages(self) -> range:
        """The numbers of the pages after this first page.

        The vendor may return fewer results a page than requested, so the first page's rows count.
        """
        return range(2, -(-self.count // len(self.rows)) + 1) if self.rows else range(0)


@dataclass(kw_only=True)
class WindowRead:
    """One read of a window: the rows of its pages as lines for COPY, and whether they add up."""

    window: Window
    first: ParsedPage
    reported_count: int = 0
    stable: bool = True
    pages: int = 0
    seen: dict[Key, int] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, object]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the rows were stable and as many as the API counts."""
        return self.stable and len(self.seen) == self.reported_count

    @property
    def may_be_split(self) -> bool:
        """Whether rows moved between pages, so that shorter windows are worth a try."""
        moved = not self.stable and self.pages > 1
        return moved and self.window.length > _SHORTEST_MOVING

    @property
    def is_too_long(self) -> bool:
        """Whether the pages go so far beyond the count that the window should be split."""
        most = max(MAX_PAGES, len(self.first.remaining_pages) + 1)
        return self.pages > most and self.window.length > _SHORTEST_MOVING

    def split_counts(self, max_window: timedelta) -> list[tuple[Window, int]]:
        """Return the windows to record, each with its number of results."""
        if self.window.length <= max_window:
            return [(self.window, len(self.seen))]
        # A result without a time is somewhere in the window: count it at the start.
        times = (time if isinstance(time, datetime) else self.window.after for _, time in self.seen)
        return cover_window(self.window, times, max_window)

    def add_page(self, page: ParsedPage) -> None:
        """Add a page's count and rows. A repeated result counts once; its latest content wins."""
        self.pages += 1
        if self.first.counts_per_page:
            self.reported_count += page.count
            self.stable = self.stable and page.matches_count
        else:
            self.reported_count = self.first.count
            self.stable = self.stable and page.count == self.reported_count
        for row in page.rows:
            content = hash((row.outcome, *row.attempts))
            if self.seen.get(row.key) == content:
                continue
            self.seen[row.key] = content
            self.attempts += row.attempts
            if row.outcome is not None:
                self.outcomes.append(row.outcome)
            if row.unreadable is not None:
                self.unreadable.append(row.unreadable)
        self.stable &= len(self.seen) <= self.reported_count and not self.is_too_long

    def has_moved_rows(self, since: Iterable[ParsedRow]) -> bool:
        """Return whether a lead of this window was processed again, so that its row moved."""
        leads = {lead_id for lead_id, _ in self.seen}
        return any(row.key not in self.seen and row.key[0] in leads for row in since)


class WindowReader:
    """A reader of one campaign's windows.

    Args:
        api: the vendor's API.
        campaign: the campaign.
        clock: the database's clock.
        counters: counts `pages`, the pages read.
        concurrency: the most requests in flight.
    """

    def __init__(
        self,
        api: LeadsApi,
        campaign: Campaign,
        clock: DatabaseClock,
        counters: Counters,
        *,
        concurrency: int,
    ) -> None:
        self._api = api
        self._campaign = campaign
        self._clock = clock
        self._counters = counters
        self._in_flight = FifoSemaphore(concurrency)

    def read_page(
        self, window: Window, number: int = 1, *, parse: ParseResult = parse_row
    ) -> ParsedPage:
        """Read one page of a window and parse each result with `parse`.

        Raises:
            Retryable, RateLimited, Rejected, Fatal: see leadloop.client.errors.
        """
        with self._in_flight.acquire():
            ours = self._clock.now()
            page = self._api.list_processed(
                self._campaign.campaign_id,
                window,
                unit=self._campaign.epoch_unit,
                page=number,
                page_size=self._campaign.page_size,
            )
        rows = [parse(result) for result in page.results]
        self._counters.add(pages=1)
        return ParsedPage(
            count=page.count,
            rows=rows,
            has_next=page.has_next,
            vendor_now=page.vendor_now,
            ours=ours,
        )

    def read_first_page(self, window: Window) -> ParsedPage:
        """Read the first page of a window, and make sure that its `has_next` is true.

        A vendor may name a next page after the last one, too. So if the first page matches its
        count and names a next page, that page is read.

        Raises:
            Retryable, RateLimited, Rejected, Fatal: see leadloop.client.errors.
        """
        page = self.read_page(window)
        if not page.counts_per_page:
            return page
        return replace(page, has_next=bool(self.read_page(window, 2).rows))

    def respects_bounds(self) -> bool:
        """Return whether the API's `count` respects the bounds: nothing was processed in 1970."""
        try:
            return self.read_page(Window(after=EPOCH, before=EPOCH)).count == 0
        except Rejected:
            # The vendor parses the bounds.
            return True

    def count_in_other_unit(self, window: Window) -> int:
        """Return the API's count for bounds sent in the other unit (`ms` or `s`)."""
        campaign = self._campaign
        unit = OTHER_UNIT[campaign.epoch_unit]
        try:
            page = self._api.list_processed(
                campaign.campaign_id, window, unit=unit, page=1, page_size=campaign.page_size
            )
        except ApiError:
            # In the configured unit, such a time is thousands of years ahead: an error is normal.
            return 0
        self._counters.add(pages=1)
        return page.count

    def read_window(
        self, pool: ThreadPoolExecutor, window: Window, first: ParsedPage
    ) -> WindowRead:
        """Read all pages after the first, and read again while rows move, up to MAX_READS times.

        Returns:
            The last read; `may_be_split` if parts of the window are worth a try.
        """
        reading = self._read_once(pool, window, first)
        for readings in range(1, MAX_READS):
            enough = reading.is_too_long or readings >= _MAX_READS_UNSPLIT
            if reading.complete or (enough and reading.may_be_split):
                break
            reading = self._read_once(pool, window, self.read_first_page(window))
        return reading

    def _read_once(self, pool: ThreadPoolExecutor, window: Window, first: ParsedPage) -> WindowRead:
        reading = WindowRead(window=window, first=first)
        reading.add_page(first)
        for page in self._read_remaining_pages(pool, window, first):
            reading.add_page(page)
            if reading.is_too_long:
                break
        if reading.complete and reading.pages > 1:
            reading.stable = self._verify_stable(pool, window, reading)
        return reading

    def _read_remaining_pages(
        self,
        pool: ThreadPoolExecutor,
        window: Window,
        first: ParsedPage,
        *,
        parse: ParseResult = parse_row,
    ) -> Iterator[ParsedPage]:
        """Yield the pages after the first: as many as counted, and more while one names a next."""
        number, page = 1, first
        counted = pool.map(partial(self.read_page, window, parse=parse), first.remaining_pages)
        # Both names are used after the loop.
        for number, page in zip(first.remaining_pages, counted, strict=True):  # noqa: B007
            yield page
        while page.has_next:
            number += 1
            page = self.read_page(window, number, parse=parse)
            if page.rows:
                yield page

    def _verify_stable(self, pool: ThreadPoolExecutor, window: Window, reading: WindowRead) -> bool:
        """Return whether no row left a window of several pages during its read.

        An unchanged first page proves that the border behind it did not shift. Beyond that page, a
        row leaves only when its lead is processed again, and then its new time is after the start
        of the read. If pages count only themselves, all pages are read again.
        """
        first = reading.first
        again = self.read_page(window, parse=parse_key)
        if first.counts_per_page:
            more = self._read_remaining_pages(pool, window, again, parse=parse_key)
            return again.keys.union(*(page.keys for page in more)) == reading.seen.keys()
        if (again.count, again.keys) != (first.count, first.keys):
            return False
        if reading.pages == 2:
            return True
        began, ended = first.vendor_now or first.ours, again.vendor_now or again.ours
        since = Window(after=began - _MARGIN, before=max(began, ended) + _MARGIN)
        latest = self.read_page(since, parse=parse_key)
        pages = [latest, *self._read_remaining_pages(pool, since, latest, parse=parse_key)]
        return not any(reading.has_moved_rows(page.rows) for page in pages)
