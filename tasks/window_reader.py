"""Reading a window page by page, with a proof that the read is complete (pagination).

Each thread parses the page that it read. A window on one page is proven by that page, because one
answer shows one moment. Several pages show several moments, so the reader also verifies that no row
left the window during the read: a row that leaves pulls the rows behind it forward, over the border
of a page that was read before.

`count` is the number of results in the window. If the first page holds as many results as its count
and names a next page, the reader looks at that page. If it has other rows, `count` is the number of
results on that page, and the reader goes on until a page names no next one.

A page that fails although the vendor answers other requests is read in smaller pages, down to
single rows. Rows that cannot be read are `missing`, by their offset in the window. Where they are
found to be is only a hint where to cut the window: its parts are read and proven by themselves.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count, islice
from threading import Lock
from typing import NamedTuple

from db.bulk_copy import format_text_row
from leadloop.client.api import LeadsApi
from leadloop.client.errors import ApiError, RateLimited, Rejected, Retryable
from leadloop.core import clock_skew
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import UnreadableResult, parse_identity, parse_result
from leadloop.core.timestamps import OTHER_UNIT
from leadloop.core.verdicts import ApiCall, TransportFailure, may_blame_content
from leadloop.core.windows import (
    MAX_PAGES,
    Window,
    cover_window,
    find_brackets,
    halve_window,
    split_window,
)
from tasks.context import ApiContext, CampaignRun
from tasks.counters import Counters
from tasks.outages import OutageWatch
from tasks.page_limits import PageLimits, smallest_divisor
from tasks.probes import EMPTY_WINDOW

#: Failures of a page, beside other requests that succeed, after which the page is the cause.
MAX_FAILURES = 3
#: The most reads of a window whose rows move; after that, it is owed.
MAX_READS = 4
# After two reads a moving window is split, since its parts take less time to read.
_MAX_READS_UNSPLIT = 2
_SHORTEST_MOVING = timedelta(seconds=1)
# Rows alone that cannot be read, in a poll; after that, MAX_FAILURES of each window.
_MOST_MISSING = 10
# The vendor's clock has a resolution of one second.
_MARGIN = timedelta(seconds=2)
_FAR_AHEAD = timedelta(days=1)
# Counted pages that are requested before the first of them has come.
_PAGES_AHEAD = 32
# Pages of a short window beyond its count, after which a vendor names next ones indefinitely.
_MOST_UNCOUNTED = 4 * MAX_PAGES
# Beyond it, no vendor's `next` is followed.
_MOST_PAGES = 10_000
# Repeated rows in a row, of a vendor that ignores `page`.
_MOST_REPEATS = 3
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


class PageUnavailable(Exception):
    """A page that cannot be read, although the vendor answers other requests.

    Attributes:
        number: the page's number, from 1.
        reason: how it failed last, without personal data.
        partial: the read of the pages before it, if any.
    """

    def __init__(self, number: int, error: ApiError) -> None:
        super().__init__(str(error))
        self.number = number
        self.reason = str(error.response)
        self.is_refused = isinstance(error, Rejected)
        self.partial: WindowRead | None = None


class PageSizeChanged(Exception):
    """A smaller page size was learned during the read of a window: read the window again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedPage:
    """One parsed page; `database_now` is the database's clock at the request.

    `size` is the number of results that was asked for. `missing` holds the offsets, in the window,
    of rows that cannot be read, and `failure` how they failed. `answers` is the number of responses
    that the page is made of, and `answer_size` the largest number of results asked for in one.
    """

    count: int
    rows: Sequence[ParsedRow]
    has_next: bool
    vendor_now: datetime | None
    database_now: datetime
    size: int
    missing: Sequence[int] = ()
    failure: str = ""
    answers: int = 1
    answer_size: int = 0

    @property
    def earlier_now(self) -> datetime:
        """The earlier of the vendor's clock and the database's: a time that is past for both."""
        return clock_skew.earlier_clock(self.vendor_now, self.database_now)

    @property
    def keys(self) -> frozenset[Key]:
        """The keys of the page's results."""
        return frozenset(row.key for row in self.rows)

    @property
    def row_count(self) -> int:
        """The number of rows of the page, the missing ones included."""
        return len(self.rows) + len(self.missing)

    @property
    def matches_count(self) -> bool:
        """Whether the page holds as many rows as its count."""
        return self.row_count == self.count

    @property
    def is_empty(self) -> bool:
        """Whether this first page shows that the window has no rows."""
        return not self.row_count and not self.count

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
        return range(2, -(-self.count // self.row_count) + 1) if self.row_count else range(0)


@dataclass(kw_only=True)
class WindowRead:
    """One read of a window: the rows of its pages as lines for COPY, and whether they add up."""

    window: Window
    first: ParsedPage
    reported_count: int = 0
    stable: bool = True
    pages: int = 0
    answers: int = 0
    rows_read: int = 0
    seen: dict[Key, int] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    failure: str = ""
    times: dict[int, datetime] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, object]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the rows were stable and as many as the API counts.

        A repeated row is harmless only inside one answer that holds the whole window. Across
        answers it means that another row was not shown.
        """
        if not self.stable or self.missing:
            return False
        if self.is_one_answer:
            return self.rows_read == self.reported_count
        return len(self.seen) == self.reported_count and not self._has_moved_lead

    @property
    def _has_moved_lead(self) -> bool:
        """Whether a lead was read under two times: it was processed again during the read.

        Its row then pulled others forward. Unreadable results have no such lead.
        """
        leads = [lead_id for lead_id, time in self.seen if isinstance(time, datetime)]
        return len(set(leads)) < len(leads)

    @property
    def is_one_answer(self) -> bool:
        """Whether one answer showed all rows, so that none can have moved between two."""
        return self.answers == 1 and not self.first.has_next

    @property
    def may_be_split(self) -> bool:
        """Whether rows moved between pages or were repeated, so that shorter windows may add up."""
        if self.complete or self.is_one_answer:
            return False
        if not self.stable:
            return self.window.length > _SHORTEST_MOVING
        is_repeated = self.rows_read > len(self.seen) or self._has_moved_lead
        return is_repeated and len(split_window(self.window, 2)) > 1

    def is_too_long(self, max_pages: int) -> bool:
        """Return whether the pages go so far beyond the count that the window should be split."""
        most = max(max_pages, len(self.first.remaining_pages) + 1)
        if self.window.length <= _SHORTEST_MOVING:
            # It is not split, so rather too many pages than none.
            most += _MOST_UNCOUNTED
        return self.pages > most

    def brackets(self) -> list[Window]:
        """Return the ranges that hold the missing rows, by the times of the rows around them."""
        return find_brackets(self.window, self.times, self.missing)

    def split_counts(self, max_window: timedelta) -> list[tuple[Window, int]]:
        """Return the windows to record, each with its number of results."""
        if self.window.length <= max_window:
            return [(self.window, len(self.seen))]
        # A result without a time is somewhere in the window: count it at the start.
        times = (time if isinstance(time, datetime) else self.window.after for _, time in self.seen)
        return cover_window(self.window, times, max_window)

    def add_page(self, page: ParsedPage) -> None:
        """Add a page's count and rows. A repeated result counts once; its latest content wins."""
        offset = self.pages * self.first.row_count
        self.pages += 1
        self.answers += page.answers
        self.rows_read += len(page.rows)
        self.missing += page.missing
        self.failure = page.failure or self.failure
        if self.first.counts_per_page:
            self.reported_count += page.count
            self.stable = self.stable and page.matches_count
        else:
            self.reported_count = self.first.count
            # A page without rows has no count: the vendor answers 404 beyond the last one.
            is_counted_alike = not page.row_count or page.count == self.reported_count
            self.stable = self.stable and is_counted_alike
        missing = set(page.missing)
        # Offsets are a hint where missing rows lie; noise may report one behind the last row.
        offsets = (at for at in count(offset) if at not in missing)
        for at, row in zip(offsets, page.rows, strict=False):
            if isinstance(row.key[1], datetime):
                self.times[at] = row.key[1]
            content = hash((row.outcome, *row.attempts))
            known = self.seen.get(row.key)
            self.seen[row.key] = content
            if row.unreadable is not None:
                # Each one: equal ones may be different leads, and their number is kept.
                self.unreadable.append(row.unreadable)
            if known == content:
                continue
            self.attempts += row.attempts
            if row.outcome is not None:
                self.outcomes.append(row.outcome)
        self.stable &= len(self.seen) <= self.reported_count

    def has_moved_rows(self, since: Iterable[ParsedRow]) -> bool:
        """Return whether a lead of this window was processed again, so that its row moved."""
        leads = {lead_id for lead_id, _ in self.seen}
        return any(row.key not in self.seen and row.key[0] in leads for row in since)


class WindowReader:
    """A reader of one campaign's windows.

    Args:
        api: the vendor's API.
        run: the campaign's run; a setting that changes counts from the next request on.
        clock: the database's clock.
        counters: counts `pages`, the pages read.
        watch: distinguishes a page that fails alone from an outage.
        limits: what the vendor refuses of pages.
        concurrency: the most requests in flight.
    """

    def __init__(
        self,
        api: LeadsApi,
        run: CampaignRun[ApiContext],
        clock: DatabaseClock,
        counters: Counters,
        *,
        watch: OutageWatch,
        limits: PageLimits,
        concurrency: int,
    ) -> None:
        self._api = api
        self._run = run
        self._clock = clock
        self._counters = counters
        self._watch = watch
        self._limits = limits
        self._in_flight = FifoSemaphore(concurrency)
        self._missing_rows = 0

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
        read = self.read_page if in_parts else self.fetch_page
        page = read(window, 1, self._limits.page_size)
        if not page.counts_per_page or self._has_second_page(window, page):
            return page
        # The end by one look: a row that left page 1 meanwhile pulls the first of page 2 forward,
        # and a proxy may answer 404.
        again = self.fetch_page(window, 1, page.size, parse=parse_key)
        is_same = (again.count, again.keys) == (page.count, page.keys)
        return replace(page, has_next=not is_same or self._has_second_page(window, page))

    def _has_second_page(self, window: Window, first: ParsedPage) -> bool:
        """Return whether the page behind a first page shows other rows."""
        # Not in parts: where a count may be that of the page, its number proves too little.
        following = self.read_page(window, 2, first.size, in_parts=False, parse=parse_key)
        return not following.keys <= first.keys

    def read_page(
        self,
        window: Window,
        number: int,
        size: int,
        *,
        parse: ParseResult = parse_row,
        in_parts: bool = True,
    ) -> ParsedPage:
        """Read a page of a window, where necessary in parts, down to single rows.

        Raises:
            PageUnavailable: none of its rows can be read, or the vendor ignores `page_size`.
            PageSizeChanged: pages of this size have been given up meanwhile.
            RateLimited, Fatal, RunError: see `fetch_page`.
        """
        if size > self._limits.page_size:
            raise PageSizeChanged
        try:
            page = self.fetch_page(window, number, size, parse=parse)
        except PageUnavailable as failure:
            if not in_parts:
                raise
            try:
                page = self._read_parts(window, number, size, parse, failure)
            except PageUnavailable:
                # A part's number is of smaller pages.
                raise failure from None
            if page.missing and not page.rows:
                raise failure from None
            return page
        if len(page.rows) == size:
            self._limits.record_success(size=size, number=number)
        return page

    def fetch_page(
        self, window: Window, number: int, size: int, *, parse: ParseResult = parse_row
    ) -> ParsedPage:
        """Read a page in one request; repeat the request until the page itself must be the cause.

        Failures during an outage do not count.

        Raises:
            PageUnavailable: the request failed MAX_FAILURES times, although the vendor answers
                other requests.
            RateLimited: the vendor asks for pauses, whatever is requested.
            Fatal: see leadloop.client.errors.
            RunError: the vendor answers nothing, or the run is being stopped.
        """
        failures = inconclusive = 0
        while True:
            try:
                page = self._request_page(window, number, size, parse)
            except ApiError as error:
                if not _may_pass_or_be_the_page(error):
                    raise
                failures += error.attempts
                fails_alone = self._watch.probe_after_failure(error)
                if not fails_alone and isinstance(error, RateLimited):
                    raise
                if not fails_alone and inconclusive < MAX_FAILURES:
                    # Not without end: the request itself may put the vendor out for a moment.
                    inconclusive += 1
                    failures = 0
                elif error.response.failure is TransportFailure.NOT_SENT:
                    # No page can be the reason.
                    if failures > 3 * MAX_FAILURES:
                        raise
                elif failures >= MAX_FAILURES:
                    raise PageUnavailable(number, error) from None
            else:
                self._watch.record_success()
                self._counters.add(pages=1)
                return page

    def _request_page(
        self, window: Window, number: int, size: int, parse: ParseResult
    ) -> ParsedPage:
        campaign = self._run.campaign
        with self._in_flight.acquire():
            database_now = self._clock.now()
            page = self._api.list_processed(
                campaign.campaign_id,
                window,
                unit=campaign.epoch_unit,
                page=number,
                page_size=size,
            )
        return ParsedPage(
            count=page.count,
            rows=[parse(result) for result in page.results],
            has_next=page.has_next,
            vendor_now=page.vendor_now,
            database_now=database_now,
            size=size,
            answer_size=size,
        )

    def _read_parts(
        self, window: Window, number: int, size: int, parse: ParseResult, cause: PageUnavailable
    ) -> ParsedPage:
        """Read the rows of a page in smaller pages, after the page itself failed.

        All parts of one size are requested first. Then each part that failed is divided in the same
        way, down to single rows. Single rows that fail are `missing` in the result.

        Args:
            window: the window.
            number: the number of the page that failed.
            size: its size.
            parse: parses each result.
            cause: how the page failed.

        Raises:
            PageUnavailable: no row of the page, or of a part, can be read; the vendor ignores the
                smaller size; or the parts have different counts because rows moved.
        """
        parts = smallest_divisor(size)
        if parts is None:
            raise cause
        smaller = size // parts
        numbers = range((number - 1) * parts + 1, number * parts + 1)
        pieces, failures = self._fetch_parts(window, numbers, smaller, parse)
        if number == 1 and 1 in pieces and pieces[1].is_empty:
            # One answer shows that the window has no rows.
            return self._learn_from(replace(pieces[1], size=size), window, number, parse, cause)
        if number == 1 and not pieces and smaller > 1:
            # The vendor may refuse pages of the smaller size too. Beyond page 1, it is the depth.
            pieces[1] = self._read_parts(window, 1, smaller, parse, failures.pop(1))
        if not _divide_as_asked(pieces, smaller, parts=parts):
            raise cause
        counted = max((piece.count for piece in pieces.values() if piece.rows), default=0)
        if counted:
            # A part behind the last row is not needed, however it failed.
            failures = {at: each for at, each in failures.items() if (at - 1) * smaller < counted}
        missing = [part - 1 for part in failures] if smaller == 1 else []
        answers = len(missing)
        if smaller > 1:
            for part, reason in failures.items():
                pieces[part] = self._read_parts(window, part, smaller, parse, reason)
        for piece in pieces.values():
            missing += piece.missing
            answers += piece.answers
        # A page that shows no row may have no count: the vendor answers 404 beyond the last one.
        shown = [pieces[part] for part in numbers if part in pieces and pieces[part].rows]
        if len({piece.count for piece in shown}) > 1:
            raise cause
        first = shown[0] if shown else next(iter(pieces.values()))
        last = pieces.get(numbers[-1])
        page = ParsedPage(
            count=first.count,
            rows=[row for piece in shown for row in piece.rows],
            has_next=first.count > number * size if last is None else last.has_next,
            vendor_now=first.vendor_now,
            database_now=first.database_now,
            size=size,
            missing=sorted(missing),
            failure=cause.reason if missing else "",
            answers=answers,
            answer_size=max(piece.answer_size for piece in shown or pieces.values()),
        )
        return page if missing else self._learn_from(page, window, number, parse, cause)

    def _fetch_parts(
        self, window: Window, numbers: Iterable[int], size: int, parse: ParseResult
    ) -> tuple[dict[int, ParsedPage], dict[int, PageUnavailable]]:
        """Request pages; return, by their numbers, those that can be read and how others fail."""
        pieces: dict[int, ParsedPage] = {}
        failures: dict[int, PageUnavailable] = {}
        for number in numbers:
            try:
                pieces[number] = self.fetch_page(window, number, size, parse=parse)
            except PageUnavailable as failure:
                failures[number] = failure
        return pieces, failures

    def _learn_from(
        self,
        page: ParsedPage,
        window: Window,
        number: int,
        parse: ParseResult,
        cause: PageUnavailable,
    ) -> ParsedPage:
        """Record that a page failed whose rows were all read in smaller pages, and return it.

        After several such contrasts, the page is requested as a whole once more.
        """
        if not self._limits.record_contrast(page.size, page.answer_size, refused=cause.is_refused):
            return page
        try:
            whole = self.fetch_page(window, number, page.size, parse=parse)
        except PageUnavailable:
            self._limits.give_up_size()
            return page
        self._limits.record_success(size=page.size, number=number)
        return whole

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
                page = self.fetch_page(window, number, 1)
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
            page = self.fetch_page(window, 1, rows + 1)
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

    def respects_bounds(self) -> bool:
        """Return whether the API's `count` respects the bounds: nothing was processed in 2001."""
        try:
            page = self._request_page(EMPTY_WINDOW, 1, self._limits.page_size, parse_key)
        except Rejected:
            # The vendor parses the bounds.
            return True
        self._counters.add(pages=1)
        return page.count == 0

    def count_in_other_unit(self, window: Window) -> int:
        """Return the API's count for bounds sent in the other unit (`ms` or `s`)."""
        campaign = self._run.campaign
        unit = OTHER_UNIT[campaign.epoch_unit]
        try:
            page = self._api.list_processed(
                campaign.campaign_id, window, unit=unit, page=1, page_size=self._limits.page_size
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

        Raises:
            PageUnavailable: none of the rows of a page can be read.
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
        if self._is_too_long(reading) or halve_window(window, self._run.campaign.epoch_unit):
            return reading
        return self._read_at_once(reading) or reading

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
        read = partial(self.read_page, window, size=first.size, parse=parse, in_parts=in_parts)
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
        while page.has_next and number < _MOST_PAGES:
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
        again = self.read_page(window, 1, first.size, parse=parse_key)
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
        latest = self.read_page(since, 1, first.size, parse=parse_key)
        pages = [latest, *self._read_remaining_pages(pool, since, latest, parse=parse_key)]
        return not any(reading.has_moved_rows(page.rows) for page in pages)


def _divide_as_asked(pieces: Mapping[int, ParsedPage], size: int, *, parts: int) -> bool:
    """Return whether the parts of a page show that the vendor divides pages as it was asked to.

    Args:
        pieces: the parts that were read, by number.
        size: the size that was asked for.
        parts: the number of parts. If all were read and none has a row, the page was elsewhere.
    """
    shown = [number for number, piece in pieces.items() if piece.rows]
    if not shown:
        return 0 < len(pieces) < parts
    full = all(len(pieces[number].rows) == size for number in shown if number < max(shown))
    counts_per_page = any(pieces[number].counts_per_page for number in shown)
    # Otherwise the vendor ignores the page's number.
    differs = len(shown) == 1 or len({pieces[number].keys for number in shown}) > 1
    return full and len(pieces[max(shown)].rows) <= size and not counts_per_page and differs


def _may_pass_or_be_the_page(error: ApiError) -> bool:
    """Return whether a read may succeed if it is repeated, or may have failed because of its page.

    False for a login that is rate limited, and for an error that needs a person.
    """
    if isinstance(error, RateLimited):
        return error.call is ApiCall.READ
    return isinstance(error, Retryable | Rejected) or may_blame_content(error.response)
