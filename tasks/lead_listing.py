"""The vendor's listing of all leads of a campaign, read by pagination to a staging table.

Each page goes to Postgres at once, so that memory does not grow with the number of leads. The
staging table keeps the rows of all reads: a row that one read missed, because pages shifted, comes
with the next read.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta

from db import audit_staging, watermarks
from db.database import Connection
from leadloop.client.api import ResultPage
from leadloop.core.audit_differences import measure_clock_offset, parse_listing_page
from leadloop.core.errors import RunError
from leadloop.core.progress import progress_listener
from tasks.context import ApiContext, CampaignRun
from tasks.thread_pool import RequestThreads

#: The most reads of a listing whose pages shift; then the audit fails.
MAX_LISTING_READS = 4
#: As many pages in a row that only repeat rows, beyond those that the count needs, end the audit: a
#: vendor that ignores `page` may name a next page indefinitely.
MAX_REPEATED_PAGES = 3
#: The most lookups of leads that one read listed twice: two leads, or one lead that shifted.
_MAX_LOOKUPS = 20
_MAX_COPIES = 100


@dataclass(frozen=True, kw_only=True)
class _PageLines:
    """A page as lines for COPY; `count` is the vendor's count of the whole listing.

    `rows_hash` is the same for pages with the same rows, in any order.
    """

    number: int
    count: int
    lines: list[str]
    rows_hash: int
    has_next: bool
    vendor_now: datetime | None


class LeadListing:
    """The read of one campaign's listing; after an error, it goes on at the page that failed.

    Args:
        run: the campaign's run.
        staging_connection: returns the connection of the staging tables, for a few statements.
        on_page_staged: called after each page.
        keep_results: stage whole results, so that outcomes can be stored from them.
        label: names the progress.
    """

    def __init__(
        self,
        run: CampaignRun[ApiContext],
        staging_connection: Callable[[], AbstractContextManager[Connection]],
        on_page_staged: Callable[[], None],
        *,
        keep_results: bool,
        label: str,
    ) -> None:
        self.complete = False
        self.reported_count = 0
        self.seen = 0
        self.clock_ahead = timedelta(0)
        self._run = run
        self._staging_connection = staging_connection
        self._on_page_staged = on_page_staged
        self._keep_results = keep_results
        self._label = f"{label} {run.campaign.campaign_id}"
        self._read_no = 1
        self._next_page = 1
        self._last_page = 1
        self._is_one_page = False
        self._page_size = 0
        self._counts_per_page = False
        # The vendor's count and the number of rows, of each page of this reading.
        self._page_sizes: list[tuple[int, int]] = []
        # Of each reading so far: whether its rows are as many as each of its pages counted.
        self._consistent: list[bool] = []
        self._pages_read: set[int] = set()
        self._repeated_pages = 0
        self._listener = progress_listener.get()
        self._pages_announced = 0

    def read_all(self) -> None:
        """Read until the rows add up to the vendor's count, up to MAX_LISTING_READS times.

        Raises:
            ApiError: a page could not be read; the pages before it are staged and stay so.
            RunError: the listing does not end, and only repeats rows.
        """
        with self._run.context.open_threads() as pool:
            while not self.complete and self.reads < MAX_LISTING_READS:
                self._read_remaining_pages(pool)
                self._check_complete()
                self._end_reading()
        with self._staging_connection() as connection:
            audit_staging.create_lead_table(connection)

    def prove_whole(self, max_reads: int) -> None:
        """Read until the listing is `complete` beyond doubt, or MAX_READS reads cannot prove it.

        A row that leaves the listing between two of its pages hides another one, and the rows may
        add up to the vendor's count nevertheless. So a listing is proven whole by one page that
        holds it; or by two reads in a row that show the same rows, all as many as each page counts.

        Raises:
            ApiError, RunError: see `read_all`.
        """
        self.complete = self._is_proven()
        with self._run.context.open_threads() as pool:
            while not self.complete and self.reads + self._count_needed() <= max_reads:
                self._read_remaining_pages(pool)
                self._end_reading()
                self.complete = self._is_proven()
        self.seen = self._count_distinct()
        with self._staging_connection() as connection:
            audit_staging.create_lead_table(connection)

    @property
    def reads(self) -> int:
        """The number of reads that reached the end of the listing."""
        return self._read_no - 1

    def _end_reading(self) -> None:
        with self._staging_connection() as connection:
            shown = audit_staging.count_rows_of_reading(connection, self._read_no)
        self._consistent.append(_adds_up(self._page_sizes, shown))
        self._is_one_page = len(self._page_sizes) == 1
        self._read_no += 1
        self._next_page = self._last_page = 1
        self._page_sizes.clear()
        self._pages_read.clear()

    def _count_needed(self) -> int:
        """Return how many more readings prove the listing whole, if it has several pages."""
        return 1 if self._consistent[-1:] == [True] else 2

    def _is_proven(self) -> bool:
        if self._is_one_page or self._consistent[-2:] != [True, True]:
            return self._is_one_page and self._consistent[-1]
        with self._staging_connection() as connection:
            return audit_staging.repeats_reading(connection, self.reads)

    def _read_remaining_pages(self, pool: RequestThreads) -> None:
        """Read the remaining pages of this read, and pages that are added during the read."""
        while self._next_page <= self._last_page:
            numbers = range(self._next_page, self._last_page + 1)
            for page in pool.map_in_order(self._fetch_page, numbers):
                if not page.lines and page.number > 1:
                    # The listing has become shorter since the vendor's count.
                    self._last_page = page.number - 1
                    return
                self._stage_page(page)

    def _fetch_page(self, number: int) -> _PageLines:
        """Read a page, and format it in the same thread."""
        campaign = self._run.campaign
        page = self._run.context.api.list_all(
            campaign.campaign_id, page=number, page_size=campaign.page_size
        )
        return self._format_page(page, number)

    def _format_page(self, page: ResultPage, number: int) -> _PageLines:
        rows = list(parse_listing_page(page.results, self._run.campaign.campaign_id))
        lines = [
            audit_staging.format_listed_row(
                listed, reading=self._read_no, page=number, with_result=self._keep_results
            )
            for listed in rows
        ]
        return _PageLines(
            number=number,
            count=page.count,
            lines=lines,
            rows_hash=hash(frozenset((listed.lead_id, listed.copy_key) for listed in rows)),
            has_next=page.has_next,
            vendor_now=page.vendor_now,
        )

    def _stage_page(self, page: _PageLines) -> None:
        """Stage a page, and update the last page from the newest count and from `next`."""
        with self._staging_connection() as connection:
            audit_staging.stage_page(connection, page.lines)
            if page.number == 1:
                self.clock_ahead = measure_clock_offset(
                    page.vendor_now, watermarks.get_database_time(connection)
                )
                # The vendor may return fewer results a page than requested.
                self._page_size = len(page.lines)
        self._page_sizes.append((page.count, len(page.lines)))
        # A later page counts the pages before it too, unless its count is that of the page alone.
        self._counts_per_page = page.number > 1 and page.count == len(page.lines)
        self.reported_count = page.count + (self.reported_count if self._counts_per_page else 0)
        self._last_page = -(-page.count // self._page_size) if self._page_size else 1
        if page.has_next:
            self._require_new_rows(page, self._last_page)
            self._last_page = max(self._last_page, page.number + 1)
        self._next_page = page.number + 1
        self._listener.add_total(self._label, max(0, self._last_page - self._pages_announced))
        self._pages_announced = max(self._pages_announced, self._last_page)
        self._listener.advance(self._label, 1)
        self._on_page_staged()

    def _require_new_rows(self, page: _PageLines, pages_counted: int) -> None:
        """Check that a page beyond the vendor's count is not one of a listing without an end.

        Rows that shift may repeat a whole page, so several in a row must be repeated.

        Raises:
            RunError: the page and those before it repeat rows of earlier pages.
        """
        is_repeated = page.rows_hash in self._pages_read
        self._repeated_pages = self._repeated_pages + 1 if is_repeated else 0
        self._pages_read.add(page.rows_hash)
        if page.number > pages_counted and self._repeated_pages >= MAX_REPEATED_PAGES:
            raise RunError(
                f"the vendor's listing does not end: page {page.number} names a next one, and the"
                f" last {self._repeated_pages} pages repeat earlier ones (does the API ignore the"
                " parameter page?); nothing was compared or repaired: ask the vendor, then run"
                " `leadloop audit` again"
            )

    def _check_complete(self) -> None:
        """Check that the distinct rows are as many as the vendor counts.

        If they are not, leads that one read listed twice are looked up: on one page, two equal rows
        are two leads. If pages count only themselves, their sum cannot show a row that moved
        between two pages, so a second read must find no further row.
        """
        if self._count_distinct() != self.reported_count:
            with self._staging_connection() as connection:
                repeated = audit_staging.list_repeated_leads(
                    connection, self._read_no, _MAX_LOOKUPS
                )
            for lead_id in repeated:
                page = self._run.context.api.list_all(
                    self._run.campaign.campaign_id, page=1, page_size=_MAX_COPIES, lead_id=lead_id
                )
                with self._staging_connection() as connection:
                    audit_staging.stage_page(connection, self._format_page(page, 0).lines)
                self._on_page_staged()
        before, self.seen = self.seen, self._count_distinct()
        self.complete = self.seen == self.reported_count and (
            not self._counts_per_page or self.seen == before
        )

    def _count_distinct(self) -> int:
        with self._staging_connection() as connection:
            return audit_staging.count_distinct_rows(connection)


def _adds_up(pages: Sequence[tuple[int, int]], shown: int) -> bool:
    """Return whether a reading has shown as many rows as its pages count.

    Args:
        pages: the vendor's count and the number of rows, of each page. The count is that of the
            whole listing, and the same on each page; or each page counts itself alone.
        shown: the number of distinct rows.
    """
    counts = [count for count, _ in pages]
    if all(count == rows for count, rows in pages):
        return shown == sum(counts)
    return set(counts) == {shown}
