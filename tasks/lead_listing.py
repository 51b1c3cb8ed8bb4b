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
from leadloop.client.api import Page
from leadloop.core.audit import clock_ahead, read_page
from leadloop.core.progress import watcher
from tasks.context import CampaignRun, Threads

#: How often a listing that shifts is read before it is said that it never stood still.
MOST_READINGS = 4
#: How many leads that a reading showed twice are looked up, to tell two from one that shifted.
_MOST_LOOKUPS = 20
_MOST_COPIES = 100
#: Pages asked for, or waiting to be staged, for each thread.
_AHEAD = 2

T = TypeVar("T")
A = TypeVar("A")


def in_order(pool: Threads, work: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
    """Results in the order of the items; no more are begun than keep the threads busy."""
    begun: deque[Future[T]] = deque()
    for item in items:
        begun.append(pool.submit(work, item))
        if len(begun) >= pool.size * _AHEAD:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """A page as lines for COPY; `count` is what the vendor says the whole listing holds."""

    number: int
    count: int
    lines: list[str]
    has_next: bool
    vendor_now: datetime | None


class Listing:
    """The reading of one campaign's listing, which goes on where an error broke it off.

    Args:
        run: the campaign's run.
        stage_connection: gives the connection of the stage, for one statement or a few.
        progress: is told of each page that was staged.
        keep_results: stage whole results, so that outcomes can be stored from them.
    """

    def __init__(
        self,
        run: CampaignRun,
        stage_connection: Callable[[], AbstractContextManager[Connection]],
        progress: Callable[[], None],
        *,
        keep_results: bool,
    ) -> None:
        self.complete = False
        self.claimed = 0
        self.seen = 0
        self.ahead = timedelta(0)
        self._run = run
        self._stage = stage_connection
        self._progress = progress
        self._keep_results = keep_results
        self._reading = 1
        self._next = 1
        self._last = 1
        self._size = 0
        self._by_page = False
        self._watcher = watcher.get()
        self._planned = 0

    def read(self) -> None:
        """Read until the rows add up to the vendor's count, or the pages have shifted too often.

        Raises:
            ApiError: a page could not be had; those before it are staged, and need no reading more.
        """
        with self._run.context.threads() as pool:
            while not self.complete and self._reading <= MOST_READINGS:
                self._read_pages(pool)
                self._add_up()
                self._reading += 1
                self._next = self._last = 1
        with self._stage() as connection:
            stage.close_listing(connection)

    def _read_pages(self, pool: Threads) -> None:
        """Read the pages that are left of this reading, and those that come to it meanwhile."""
        while self._next <= self._last:
            for page in in_order(pool, self._page, range(self._next, self._last + 1)):
                if not page.lines and page.number > 1:
                    # Beyond the end: it has come nearer since the vendor gave its count.
                    self._last = page.number - 1
                    return
                self._take(page)

    def _page(self, number: int) -> _Lines:
        """A page, taken apart by the thread that reads it, while others wait."""
        campaign = self._run.campaign
        page = self._run.context.api.everything(
            campaign.campaign_id, page=number, page_size=campaign.page_size
        )
        return self._lines(page, number)

    def _lines(self, page: Page, number: int) -> _Lines:
        lines = [
            stage.listed_line(listed, reading=self._reading, page=number, whole=self._keep_results)
            for listed in read_page(page.results)
        ]
        return _Lines(
            number=number,
            count=page.count,
            lines=lines,
            has_next=page.has_next,
            vendor_now=page.vendor_now,
        )

    def _take(self, page: _Lines) -> None:
        """Stage a page; the newest count tells how many pages there are, a `next` of one more."""
        with self._stage() as connection:
            stage.add_page(connection, page.lines)
            if page.number == 1:
                self.ahead = clock_ahead(page.vendor_now, watermarks.now(connection))
                # The vendor may give fewer results a page than asked for: its first page tells.
                self._size = len(page.lines)
        self._count_in(page)
        self._last = -(-page.count // self._size) if self._size else 1
        if page.has_next:
            self._last = max(self._last, page.number + 1)
        self._next = page.number + 1
        self._tell()

    def _count_in(self, page: _Lines) -> None:
        """What the vendor says there is: the newest count, or the sum where pages count themselves.

        A later page counts the ones before it too, unless it counts itself alone.
        """
        self._by_page = page.number > 1 and page.count == len(page.lines)
        self.claimed = page.count + (self.claimed if self._by_page else 0)

    def _tell(self) -> None:
        label = f"audit {self._run.campaign.campaign_id}"
        self._watcher.planned(label, max(0, self._last - self._planned))
        self._planned = max(self._planned, self._last)
        self._watcher.done(label, 1)
        self._progress()

    def _add_up(self) -> None:
        """See whether every row that the vendor counts has been read, each counted once.

        Where pages count themselves alone, a row that slipped from one to another is not missed in
        their sum: there a second reading must have found nothing more.
        """
        if self._count() != self.claimed:
            self._look_up_repeated()
        before, self.seen = self.seen, self._count()
        self.complete = self.seen == self.claimed and (not self._by_page or self.seen == before)

    def _count(self) -> int:
        with self._stage() as connection:
            return stage.count_distinct(connection)

    def _look_up_repeated(self) -> None:
        """Have the vendor show on one page what it showed on two: there, two alike are two."""
        campaign = self._run.campaign
        with self._stage() as connection:
            lead_ids = stage.repeated(connection, self._reading, _MOST_LOOKUPS)
        for lead_id in lead_ids:
            page = self._run.context.api.everything(
                campaign.campaign_id, page=1, page_size=_MOST_COPIES, lead_id=lead_id
            )
            with self._stage() as connection:
                stage.add_page(connection, self._lines(page, 0).lines)
            self._progress()
