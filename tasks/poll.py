"""The steps of a poll: read a window, prove it complete, store it with its watermark.

No transaction spans a request. Outcomes, attempts, the window and the watermark are written in one
transaction, so the watermark is never ahead of what is stored.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from db import leads, outcomes, watermarks
from db.database import Connection
from leadloop.client.api import Page
from leadloop.client.errors import ApiError, Resend
from leadloop.core.errors import RunError
from leadloop.core.progress import watcher
from leadloop.core.results import UnreadableResult, read_result
from leadloop.core.storable import dumps
from leadloop.core.windows import Window, cut, proven_through, split
from tasks.retrying import Patience, step, try_later
from tasks.workplace import Run, Tally

#: A window with more pages than this is split: it bounds the memory of a run.
MOST_PAGES = 50
#: How often a window whose rows shift while it is read is read before it is left for later.
MOST_READINGS = 4
_SHORTEST_MS = 2
#: A vendor's clock that is ahead by more is followed, at the price of one request more.
_CLOCKS_AGREE = timedelta(seconds=5)


@step("read-windows")
def read_windows(poll: "Poll", most: int) -> bool:
    """Read and store up to `most` windows of a campaign; True while there are more."""
    return poll.some(most)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One result as lines for COPY; `key` tells it from the other results of a window."""

    key: tuple[str, str]
    outcome: str | None = None
    attempts: Sequence[str] = ()
    unreadable: tuple[str, object] | None = None


def row(result: object) -> Row:
    """Take a result apart; one that cannot be read is kept as it is, with the reason."""
    try:
        read = read_result(result)
    except UnreadableResult as error:
        return Row(key=("", dumps(result)), unreadable=(str(error), result))
    return Row(
        key=(read.lead_id, read.outcome.processed_at.isoformat() if read.outcome else ""),
        outcome=outcomes.outcome_line(read.outcome) if read.outcome else None,
        attempts=[outcomes.attempt_line(attempt) for attempt in read.attempts],
    )


@dataclass(kw_only=True)
class Reading:
    """What the pages of one window held, as lines for COPY."""

    claimed: int
    vendor_now: datetime
    steady: bool = True
    pages: int = 0
    seen: set[tuple[str, str]] = field(default_factory=set)
    outcomes: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, object]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every result that the API counts was read, while the count stood still."""
        return self.steady and len(self.seen) == self.claimed

    def add(self, count: int, rows: Iterable[Row]) -> None:
        """Take in a page. A result that came before, word for word, counts once."""
        self.pages += 1
        self.steady = self.steady and count == self.claimed
        for row in rows:
            if row.key in self.seen:
                continue
            self.seen.add(row.key)
            self.attempts += row.attempts
            if row.outcome is not None:
                self.outcomes.append(row.outcome)
            if row.unreadable is not None:
                self.unreadable.append(row.unreadable)


class Poll:
    """One campaign's range of `processed_at`, window by window.

    Args:
        run: the campaign's run.
        after: where the range begins.
        before: where it ends.
        follow: go on up to the vendor's clock where that is ahead of ours.
    """

    def __init__(self, run: Run, *, after: datetime, before: datetime, follow: bool) -> None:
        self.run = run
        self.tally = Tally("windows", "pages", "seen", "inserted", "updated", "unchanged")
        self.incomplete = 0
        self._windows = deque(cut(after, before, run.campaign.longest_window))
        self._end = before
        self._follow = follow
        self._patience = Patience()
        self._stored: Future[None] | None = None
        self._watcher = watcher.get()
        self._label = f"poll {run.campaign.campaign_id}"
        self._watcher.planned(self._label, len(self._windows))

    @property
    def windows_left(self) -> int:
        """How many windows are planned and not read yet."""
        return len(self._windows)

    def some(self, most: int) -> bool:
        """Read and store up to `most` windows; True while there are more.

        Raises:
            TryLater: the vendor did not answer; what was read is stored, the rest is planned.
            RunError: the vendor refuses us.
        """
        try:
            with (
                self.run.place.threads() as pool,
                self._storing(),
            ):
                for _ in range(most):
                    if not self._windows:
                        break
                    self._next(pool)
        except Resend as error:
            raise try_later(self.run, self._patience, error) from None
        except ApiError as error:
            raise RunError(str(error)) from None
        return bool(self._windows)

    def counts(self) -> dict[str, int]:
        """The contract's counts."""
        return self.tally.counts()

    def _next(self, pool: ThreadPoolExecutor) -> None:
        """Read the first window that is planned, and have it stored while the next one is read."""
        window = self._windows[0]
        first = self._page(window, 1)
        parts = self._parts(window, first)
        if parts:
            self._windows.popleft()
            self._windows.extendleft(reversed(parts))
            self._watcher.planned(self._label, len(parts) - 1)
            return
        reading = self._read(pool, window, first)
        self._await_stored()
        self._stored = self._keeper.submit(self._store, window, reading)
        self._windows.popleft()
        self._patience.progress()
        if self._follow and not self._windows:
            self._plan_up_to(reading.vendor_now)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """One thread that stores one window after the other; all are stored when the block ends."""
        with ThreadPoolExecutor(1) as self._keeper:
            try:
                yield
            finally:
                self._await_stored()

    def _await_stored(self) -> None:
        """Wait for the window that is being stored: no more than two are in memory."""
        if self._stored is not None:
            stored, self._stored = self._stored, None
            stored.result()

    def _parts(self, window: Window, first: Page) -> list[Window]:
        """Shorter windows in place of one that holds too many pages; none if it may stay."""
        most = MOST_PAGES * self.run.campaign.page_size
        if first.count <= most or window.length.total_seconds() * 1000 < _SHORTEST_MS:
            return []
        self.tally.add(pages=1)
        return split(window, -(-first.count // most))

    def _read(self, pool: ThreadPoolExecutor, window: Window, first: Page) -> Reading:
        """Read all pages, again while rows shift; after some readings, what there is."""
        reading = self._read_once(pool, window, first)
        for _ in range(MOST_READINGS - 1):
            if reading.complete:
                break
            self.tally.add(pages=reading.pages)
            reading = self._read_once(pool, window, self._page(window, 1))
        self.tally.add(pages=reading.pages)
        return reading

    def _read_once(self, pool: ThreadPoolExecutor, window: Window, first: Page) -> Reading:
        reading = Reading(claimed=first.count, vendor_now=first.vendor_now or self._database_now())
        reading.add(first.count, map(row, first.results))
        # The vendor may give fewer results a page than asked for: its first page tells.
        size = len(first.results)
        numbers = range(2, -(-first.count // size) + 1) if size else range(0)
        for count, rows in pool.map(lambda number: self._rows(window, number), numbers):
            reading.add(count, rows)
        return reading

    def _rows(self, window: Window, number: int) -> tuple[int, list[Row]]:
        """A page's count and rows: taken apart by the thread that read it, while others wait."""
        page = self._page(window, number)
        return page.count, [row(result) for result in page.results]

    def _page(self, window: Window, number: int) -> Page:
        campaign = self.run.campaign
        return self.run.place.api.processed(
            campaign.campaign_id,
            window,
            unit=campaign.epoch_unit,
            page=number,
            page_size=campaign.page_size,
        )

    def _store(self, window: Window, reading: Reading) -> None:
        through = proven_through(
            window, vendor_now=reading.vendor_now, settle=self.run.campaign.settle
        )
        settled = through >= window.before
        status = ("closed" if settled else "open") if reading.complete else "incomplete"

        def write(connection: Connection) -> outcomes.Merged:
            campaign_id = self.run.campaign.campaign_id
            merged = outcomes.merge(
                connection, campaign_id, outcomes=reading.outcomes, attempts=reading.attempts
            )
            outcomes.keep_unreadable(connection, campaign_id, reading.unreadable)
            proven = reading.complete and through > window.after
            if proven:
                watermarks.advance(connection, campaign_id, after=window.after, through=through)
            watermarks.record_window(
                connection,
                campaign_id,
                window,
                run_id=self.run.run_id,
                status=status,
                claimed=reading.claimed,
                stored=len(reading.seen),
                pages=reading.pages,
                closed_through=through if proven else None,
            )
            return merged

        merged = self.run.place.database.insist(write)
        self._watcher.done(self._label, 1)
        self.incomplete += not reading.complete
        self.tally.add(
            windows=1,
            seen=len(reading.seen),
            inserted=merged.inserted,
            updated=merged.updated,
            unchanged=merged.unchanged,
        )

    def _plan_up_to(self, vendor_now: datetime) -> None:
        """Plan what lies between our clock and the vendor's, once: the rest is the next poll's."""
        self._follow = False
        if vendor_now - self._end > _CLOCKS_AGREE:
            # Its header is in whole seconds, rounded down.
            end = vendor_now + timedelta(seconds=1)
            self._windows.extend(cut(self._end, end, self.run.campaign.longest_window))
            self._watcher.planned(self._label, len(self._windows))

    def _database_now(self) -> datetime:
        with self.run.place.database.begin() as connection:
            return watermarks.now(connection)


def plan(run: Run, *, since: datetime | None) -> Poll | None:
    """The poll that is due: from the watermark less the lookback up to now.

    Without a watermark it begins at `since`, or else at the first lead sent less the lookback.

    Returns:
        None where nothing was ever sent, so that nothing can have been processed.
    """
    campaign_id = run.campaign.campaign_id
    with run.place.database.begin() as connection:
        mark = watermarks.read(connection, campaign_id)
        if mark is not None:
            after = mark - run.campaign.lookback
        else:
            first = since or _first_sent(connection, run)
            if first is None:
                return None
            watermarks.start(connection, campaign_id, first)
            after = first
        before = watermarks.now(connection)
    return Poll(run, after=after, before=max(before, after), follow=True)


def _first_sent(connection: Connection, run: Run) -> datetime | None:
    sent_at = leads.first_sent_at(connection, run.campaign.campaign_id)
    return None if sent_at is None else sent_at - run.campaign.lookback
