"""Windows, read page by page until what was read is proven to be all of it.

Pages are taken apart by the threads that read them. A window that one page holds is proven by that
page alone: it is one answer, of one moment. Of several pages each shows another moment, so there it
must also be shown that no row left the window meanwhile; a row that leaves draws those behind it
forward, over the border of a page that was read before.

How many results there are, `count` says. Where a page holds all that it counts and yet names a next
one, it is seen whether there is one: if so, each page counts itself alone, and all are read until
one names no next.
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

#: How often a window whose rows shift while it is read is read before it is left for later.
MAX_READS = 4
# Rather than read a third time what moves, it is read in parts, each of which takes less time.
_MAX_READS_UNSPLIT = 2
_SHORTEST_MOVING = timedelta(seconds=1)
# The vendor's clock comes in whole seconds.
_MARGIN = timedelta(seconds=2)
_NO_TIME = "processed_at: missing in a result of a time that was asked for"

#: What tells a result from the others of a window: its lead, and when it was processed (of one that
#: cannot be read or has no such time, its text).
Key = tuple[str, datetime | str]


class DatabaseClock:
    """The database's clock without asking it each time."""

    def __init__(self, now: datetime) -> None:
        self._began, self._monotonic = now, time.monotonic()

    def now(self) -> datetime:
        """What the database's clock says, if both run alike."""
        return self._began + timedelta(seconds=time.monotonic() - self._monotonic)


class FifoSemaphore:
    """Lets so many in at once, in the order in which they came.

    A `threading.Semaphore` lets anybody in: threads that ask again and again kept out the one that
    was to prove a window, until all pages of the next one were read.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[Lock] = deque()
        self._lock = Lock()

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Wait to be let in, and be in for the block."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        gate = Lock()
        with self._lock:
            if self._free:
                self._free -= 1
                return
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


class ParsedRow(NamedTuple):
    """One result as lines for COPY, or its key alone."""

    key: Key
    outcome: str | None = None
    attempts: Sequence[str] = ()
    unreadable: tuple[str, object] | None = None


def parse_row(result: object) -> ParsedRow:
    """Take a result apart; one that cannot be an outcome is kept as it is, with the reason."""
    try:
        read = parse_result(result)
    except UnreadableResult as error:
        return ParsedRow(key=make_key(result), unreadable=(str(error), result))
    attempts = [format_text_row(attempt) for attempt in read.attempts]
    if read.outcome is None or read.processed_at is None:
        # In a listing such a lead is not processed yet. A window was to hold none.
        return ParsedRow(key=make_key(result), attempts=attempts, unreadable=(_NO_TIME, result))
    key = (read.lead_id, read.processed_at)
    return ParsedRow(key=key, outcome=format_text_row(read.outcome), attempts=attempts)


def make_key(result: object) -> Key:
    """What `row` knows a result by."""
    try:
        lead_id, processed_at = parse_identity(result)
    except UnreadableResult:
        return "", dump_json(result)
    return lead_id, processed_at or dump_json(result)


def parse_key(result: object) -> ParsedRow:
    """A result that is read to prove a window: its row is read with its own window."""
    return ParsedRow(key=make_key(result))


#: Makes a row of a result: `row`, or `key_alone`, which takes a fifteenth of the time.
ParseResult = Callable[[object], ParsedRow]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedPage:
    """One page taken apart; `ours` is the database's clock when it was asked for."""

    count: int
    rows: Sequence[ParsedRow]
    has_next: bool
    vendor_now: datetime | None
    ours: datetime

    @property
    def now(self) -> datetime:
        """What is surely past for the vendor."""
        return clock_skew.earlier_clock(self.vendor_now, self.ours)

    @property
    def keys(self) -> frozenset[Key]:
        """The results on it."""
        return frozenset(row.key for row in self.rows)

    @property
    def matches_count(self) -> bool:
        """Whether it holds as many results as it counts."""
        return len(self.keys) == self.count

    @property
    def holds_whole_window(self) -> bool:
        """Whether this one answer, the first page, holds the whole window."""
        return self.matches_count and not self.has_next

    @property
    def counts_per_page(self) -> bool:
        """Whether the count of this page, the first one, is not that of the whole window."""
        return self.matches_count and self.has_next

    @property
    def remaining_pages(self) -> range:
        """The numbers of the pages after the first one, which this is.

        The vendor may give fewer results a page than asked for: the first page tells.
        """
        return range(2, -(-self.count // len(self.rows)) + 1) if self.rows else range(0)


@dataclass(kw_only=True)
class WindowRead:
    """What the pages of one window held, as lines for COPY."""

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
        """Whether every result that the API counts was read, while they all stood still."""
        return self.stable and len(self.seen) == self.reported_count

    @property
    def may_be_split(self) -> bool:
        """Whether rows moved between its pages, and shorter windows would have fewer of them."""
        moved = not self.stable and self.pages > 1
        return moved and self.window.length > _SHORTEST_MOVING

    @property
    def is_too_long(self) -> bool:
        """Whether it goes on beyond what was counted, so far that it had better be split."""
        most = max(MAX_PAGES, len(self.first.remaining_pages) + 1)
        return self.pages > most and self.window.length > _SHORTEST_MOVING

    def split_counts(self, longest: timedelta) -> list[tuple[Window, int]]:
        """What to write down as read, with the number of results in each window."""
        if self.window.length <= longest:
            return [(self.window, len(self.seen))]
        return cover_window(self.window, map(self._moment, self.seen), longest)

    def _moment(self, key: Key) -> datetime:
        _, processed_at = key
        # One that has no such time is somewhere in the window.
        return processed_at if isinstance(processed_at, datetime) else self.window.after

    def add_page(self, leaf: ParsedPage) -> None:
        """Take in a page. A result that came before counts once; what it says now, it says last."""
        self.pages += 1
        self._count(leaf)
        for row in leaf.rows:
            content = hash((row.outcome, *row.attempts))
            if self.seen.get(row.key) != content:
                self.seen[row.key] = content
                self._take(row)
        self.stable &= len(self.seen) <= self.reported_count and not self.is_too_long

    def _count(self, leaf: ParsedPage) -> None:
        """What the API said that the window holds: by each of its pages, or by all together."""
        if self.first.counts_per_page:
            self.reported_count += leaf.count
            self.stable = self.stable and leaf.matches_count
        else:
            self.reported_count = self.first.count
            self.stable = self.stable and leaf.count == self.reported_count

    def _take(self, row: ParsedRow) -> None:
        self.attempts += row.attempts
        if row.outcome is not None:
            self.outcomes.append(row.outcome)
        if row.unreadable is not None:
            self.unreadable.append(row.unreadable)

    def has_moved_rows(self, since: Iterable[ParsedRow]) -> bool:
        """Whether one of the leads read here was processed again meanwhile, and so has left."""
        leads = {lead_id for lead_id, _ in self.seen}
        return any(row.key not in self.seen and row.key[0] in leads for row in since)


class WindowReader:
    """Reads windows of one campaign.

    Args:
        api: the vendor.
        campaign: the campaign.
        clock: the database's clock.
        tally: counts `pages`, each one that was read.
        at_once: the most requests in flight.
    """

    def __init__(
        self,
        api: LeadsApi,
        campaign: Campaign,
        clock: DatabaseClock,
        tally: Counters,
        *,
        concurrency: int,
    ) -> None:
        self._api = api
        self._campaign = campaign
        self._clock = clock
        self._tally = tally
        self._in_flight = FifoSemaphore(concurrency)

    def read_page(
        self, window: Window, number: int = 1, *, parse: ParseResult = parse_row
    ) -> ParsedPage:
        """One page of a window, each result as `take` makes a row of it.

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
        self._tally.add(pages=1)
        return ParsedPage(
            count=page.count,
            rows=rows,
            has_next=page.has_next,
            vendor_now=page.vendor_now,
            ours=ours,
        )

    def read_first_page(self, window: Window) -> ParsedPage:
        """The first page of a window; its `has_next` is true only where it is.

        A vendor may name a next page behind the last one, too. So where a page adds up, the one
        behind it is looked at.

        Raises:
            Retryable, RateLimited, Rejected, Fatal: see leadloop.client.errors.
        """
        leaf = self.read_page(window)
        if not leaf.counts_per_page:
            return leaf
        return replace(leaf, has_next=bool(self.read_page(window, 2).rows))

    def respects_bounds(self) -> bool:
        """Whether `count` is that of the range asked for: nothing was processed in 1970."""
        try:
            return self.read_page(Window(after=EPOCH, before=EPOCH)).count == 0
        except Rejected:
            # It has read them.
            return True

    def count_in_other_unit(self, window: Window) -> int:
        """How many results the API counts where the bounds are sent in the unit that is not set."""
        campaign = self._campaign
        unit = OTHER_UNIT[campaign.epoch_unit]
        try:
            page = self._api.list_processed(
                campaign.campaign_id, window, unit=unit, page=1, page_size=campaign.page_size
            )
        except ApiError:
            # Taken in the right unit, such a time is thousands of years ahead: it proves nothing.
            return 0
        self._tally.add(pages=1)
        return page.count

    def read_window(
        self, pool: ThreadPoolExecutor, window: Window, first: ParsedPage
    ) -> WindowRead:
        """Read all pages after the first, all again while rows shift; at last, what there is.

        Returns:
            The last reading; it `may_be_split` where parts of the window are worth a try.
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
        for leaf in self._read_remaining_pages(pool, window, first):
            reading.add_page(leaf)
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
        """The pages after the first: as many as are counted, and on while one names a next."""
        number, leaf = 1, first
        counted = pool.map(partial(self.read_page, window, parse=parse), first.remaining_pages)
        for number, leaf in zip(first.remaining_pages, counted, strict=True):  # noqa: B007 - both go on below
            yield leaf
        while leaf.has_next:
            number += 1
            leaf = self.read_page(window, number, parse=parse)
            if leaf.rows:
                yield leaf

    def _verify_stable(self, pool: ThreadPoolExecutor, window: Window, reading: WindowRead) -> bool:
        """Whether no row left a window of several pages while it was read.

        A first page that is the same at the end proves that the border behind it did not shift.
        Beyond that, a row leaves when its lead is processed again, and then shows up as just now.
        Where pages count themselves alone, no count would tell: there all of them are read again.
        """
        first = reading.first
        again = self.read_page(window, parse=parse_key)
        if first.counts_per_page:
            more = self._read_remaining_pages(pool, window, again, parse=parse_key)
            return again.keys.union(*(leaf.keys for leaf in more)) == reading.seen.keys()
        if (again.count, again.keys) != (first.count, first.keys):
            return False
        if reading.pages == 2:
            return True
        began, ended = first.vendor_now or first.ours, again.vendor_now or again.ours
        since = Window(after=began - _MARGIN, before=max(began, ended) + _MARGIN)
        latest = self.read_page(since, parse=parse_key)
        leaves = [latest, *self._read_remaining_pages(pool, since, latest, parse=parse_key)]
        return not any(reading.has_moved_rows(leaf.rows) for leaf in leaves)
