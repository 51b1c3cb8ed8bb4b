"""Pages of a window, as parsed lines for COPY, and what the pages of a read add up to. Pure.

Each thread parses the page that it read. A window on one page is proven by that page, because one
answer shows one moment.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import NamedTuple

from db.bulk_copy import format_text_row
from leadloop.client.api import ResultPage
from leadloop.core import clock_skew
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import UnreadableResult, parse_identity, parse_result
from leadloop.core.windows import MAX_PAGES, Window, cover_window, find_brackets, split_window

#: A window so short is not split because its rows move.
SHORTEST_MOVING = timedelta(seconds=1)
# Pages of a short window beyond its count, after which a vendor names next ones indefinitely.
MAX_UNCOUNTED_PAGES = 4 * MAX_PAGES
_NO_TIME = "processed_at: missing in a result of a window"

#: The identity of a result in a window: lead id and `processed_at`; the result's text for one that
#: is unreadable or has no `processed_at`.
Key = tuple[str, datetime | str]


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


def parse_page(
    page: ResultPage, *, size: int, database_now: datetime, parse: ParseResult = parse_row
) -> ParsedPage:
    """Parse a page of one answer, which was asked for `size` results at `database_now`."""
    return ParsedPage(
        count=page.count,
        rows=[parse(result) for result in page.results],
        has_next=page.has_next,
        vendor_now=page.vendor_now,
        database_now=database_now,
        size=size,
        answer_size=size,
    )


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
            return self.window.length > SHORTEST_MOVING
        is_repeated = self.rows_read > len(self.seen) or self._has_moved_lead
        return is_repeated and len(split_window(self.window, 2)) > 1

    def is_too_long(self, max_pages: int) -> bool:
        """Return whether the pages go so far beyond the count that the window should be split."""
        most = max(max_pages, len(self.first.remaining_pages) + 1)
        if self.window.length <= SHORTEST_MOVING:
            # It is not split, so rather too many pages than none.
            most += MAX_UNCOUNTED_PAGES
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
