"""All that the vendor holds of a campaign, read page by page to a stage in Postgres.

Pages go to Postgres as they come, so that memory does not grow with the number of leads. Rows of
all readings are kept: a row that one reading missed, because pages shifted, is had from the next.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from db import audit_staging as stage
from db import watermarks
from db.database import Connection
from leadloop.client.api import ResultPage
from leadloop.core.audit_differences import measure_vendor_lead, parse_listing_page
from leadloop.core.progress import progress_listener
from tasks.context import ApiContext, CampaignRun
from tasks.thread_pool import RequestThreads

#: How often a listing that shifts is read before it is said that it never stood still.
MAX_LISTING_READS = 4
#: How many leads that a reading showed twice are looked up, to tell two from one that shifted.
_MAX_LOOKUPS = 20
_MAX_COPIES = 100
#: Pages asked for, or waiting to be staged, for each thread.
_PAGES_AHEAD = 2

T = TypeVar("T")
A = TypeVar("A")


def map_bounded(
    pool: RequestThreads, function: Callable[[A], T], items: Iterable[A]
) -> Iterator[T]:
    """Results in the order of the items; no more are begun than keep the threads busy."""
    begun: deque[Future[T]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) >= pool.size * _PAGES_AHEAD:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


@dataclass(frozen=True, kw_only=True)
class _PageLines:
    """A page as lines for COPY; `count` is what the vendor says the whole listing holds."""

    number: int
    count: int
    lines: list[str]
    has_next: bool
    vendor_now: datetime | None


class LeadListing:
    """The reading of one campaign's listing, which goes on where an error broke it off.

    Args:
        run: the campaign's run.
        stage_connection: gives the connection of the stage, for one statement or a few.
        progress: is told of each page that was staged.
        keep_results: stage whole results, so that outcomes can be stored from them.
    """

    def __init__(
        self,
        run: CampaignRun[ApiContext],
        staging_connection: Callable[[], AbstractContextManager[Connection]],
        on_page_staged: Callable[[], None],
        *,
        keep_results: bool,
    ) -> None:
        self.complete = False
        self.reported_count = 0
        self.seen = 0
        self.clock_ahead = timedelta(0)
        self._run = run
        self._staging_connection = staging_connection
        self._on_page_staged = on_page_staged
        self._keep_results = keep_results
        self._read_no = 1
        self._next_page = 1
        self._last_page = 1
        self._page_size = 0
        self._counts_per_page = False
        self._watcher = progress_listener.get()
        self._pages_announced = 0

    def read_all(self) -> None:
        """Read until the rows add up to the vendor's count, or the pages have shifted too often.

        Raises:
            ApiError: a page could not be had; those before it are staged, and need no reading more.
        """
        with self._run.context.open_threads() as pool:
            while not self.complete and self._read_no <= MAX_LISTING_READS:
                self._read_remaining_pages(pool)
                self._check_complete()
                self._read_no += 1
                self._next_page = self._last_page = 1
        with self._staging_connection() as connection:
            stage.create_lead_table(connection)

    def _read_remaining_pages(self, pool: RequestThreads) -> None:
        """Read the pages that are left of this reading, and those that come to it meanwhile."""
        while self._next_page <= self._last_page:
            for page in map_bounded(
                pool, self._fetch_page, range(self._next_page, self._last_page + 1)
            ):
                if not page.lines and page.number > 1:
                    # Beyond the end: it has come nearer since the vendor gave its count.
                    self._last_page = page.number - 1
                    return
                self._stage_page(page)

    def _fetch_page(self, number: int) -> _PageLines:
        """A page, taken apart by the thread that reads it, while others wait."""
        campaign = self._run.campaign
        page = self._run.context.api.list_all(
            campaign.campaign_id, page=number, page_size=campaign.page_size
        )
        return self._format_page(page, number)

    def _format_page(self, page: ResultPage, number: int) -> _PageLines:
        lines = [
            stage.format_listed_row(
                listed, reading=self._read_no, page=number, with_result=self._keep_results
            )
            for listed in parse_listing_page(page.results)
        ]
        return _PageLines(
            number=number,
            count=page.count,
            lines=lines,
            has_next=page.has_next,
            vendor_now=page.vendor_now,
        )

    def _stage_page(self, page: _PageLines) -> None:
        """Stage a page; the newest count tells how many pages there are, a `next` of one more."""
        with self._staging_connection() as connection:
            stage.stage_page(connection, page.lines)
            if page.number == 1:
                self.clock_ahead = measure_vendor_lead(
                    page.vendor_now, watermarks.get_database_time(connection)
                )
                # The vendor may give fewer results a page than asked for: its first page tells.
                self._page_size = len(page.lines)
        self._update_reported_count(page)
        self._last_page = -(-page.count // self._page_size) if self._page_size else 1
        if page.has_next:
            self._last_page = max(self._last_page, page.number + 1)
        self._next_page = page.number + 1
        self._report_progress()

    def _update_reported_count(self, page: _PageLines) -> None:
        """What the vendor says there is: the newest count, or the sum where pages count themselves.

        A later page counts the ones before it too, unless it counts itself alone.
        """
        self._counts_per_page = page.number > 1 and page.count == len(page.lines)
        self.reported_count = page.count + (self.reported_count if self._counts_per_page else 0)

    def _report_progress(self) -> None:
        label = f"audit {self._run.campaign.campaign_id}"
        self._watcher.add_total(label, max(0, self._last_page - self._pages_announced))
        self._pages_announced = max(self._pages_announced, self._last_page)
        self._watcher.advance(label, 1)
        self._on_page_staged()

    def _check_complete(self) -> None:
        """See whether every row that the vendor counts has been read, each counted once.

        Where pages count themselves alone, a row that slipped from one to another is not missed in
        their sum: there a second reading must have found nothing more.
        """
        if self._count_distinct() != self.reported_count:
            self._look_up_repeated()
        before, self.seen = self.seen, self._count_distinct()
        self.complete = self.seen == self.reported_count and (
            not self._counts_per_page or self.seen == before
        )

    def _count_distinct(self) -> int:
        with self._staging_connection() as connection:
            return stage.count_distinct_rows(connection)

    def _look_up_repeated(self) -> None:
        """Have the vendor show on one page what it showed on two: there, two alike are two."""
        campaign = self._run.campaign
        with self._staging_connection() as connection:
            lead_ids = stage.list_repeated_leads(connection, self._read_no, _MAX_LOOKUPS)
        for lead_id in lead_ids:
            page = self._run.context.api.list_all(
                campaign.campaign_id, page=1, page_size=_MAX_COPIES, lead_id=lead_id
            )
            with self._staging_connection() as connection:
                stage.stage_page(connection, self._format_page(page, 0).lines)
            self._on_page_staged()
