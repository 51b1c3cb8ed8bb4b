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

from db.bulk_copy import text_line
from leadloop.client.api import LeadsApi
from leadloop.client.errors import ApiError, Refused
from leadloop.core import clock_skew
from leadloop.core.campaigns import Campaign
from leadloop.core.postgres_json import dumps
from leadloop.core.results import UnreadableResult, identify, read_result
from leadloop.core.timestamps import EPOCH, OTHER_UNIT
from leadloop.core.windows import MOST_PAGES, Window, pieces
from tasks.context import Counters

#: How often a window whose rows shift while it is read is read before it is left for later.
MOST_READINGS = 4
# Rather than read a third time what moves, it is read in parts, each of which takes less time.
_READINGS_OF_WHOLE = 2
_SHORTEST_MOVING = timedelta(seconds=1)
# The vendor's clock comes in whole seconds.
_MARGIN = timedelta(seconds=2)
_NO_TIME = "processed_at: missing in a result of a time that was asked for"

#: What tells a result from the others of a window: its lead, and when it was processed (of one that
#: cannot be read or has no such time, its text).
Key = tuple[str, datetime | str]


class Clock:
    """The database's clock without asking it each time."""

    def __init__(self, now: datetime) -> None:
        self._began, self._monotonic = now, time.monotonic()

    def now(self) -> datetime:
        """What the database's clock says, if both run alike."""
        return self._began + timedelta(seconds=time.monotonic() - self._monotonic)


class InOrder:
    """Lets so many in at once, in the order in which they came.

    A `threading.Semaphore` lets anybody in: threads that ask again and again kept out the one that
    was to prove a window, until all pages of the next one were read.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: deque[Lock] = deque()
        self._lock = Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
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


class Row(NamedTuple):
    """One result as lines for COPY, or its key alone."""

    key: Key
    outcome: str | None = None
    attempts: Sequence[str] = ()
    unreadable: tuple[str, object] | None = None


def row(result: object) -> Row:
    """Take a result apart; one that cannot be an outcome is kept as it is, with the reason."""
    try:
        read = read_result(result)
    except UnreadableResult as error:
        return Row(key=key_of(result), unreadable=(str(error), result))
    attempts = [text_line(attempt) for attempt in read.attempts]
    if read.outcome is None or read.processed_at is None:
        # In a listing such a lead is not processed yet. A window was to hold none.
        return Row(key=key_of(result), attempts=attempts, unreadable=(_NO_TIME, result))
    key = (read.lead_id, read.processed_at)
    return Row(key=key, outcome=text_line(read.outcome), attempts=attempts)


def key_of(result: object) -> Key:
    """What `row` knows a result by."""
    try:
        lead_id, processed_at = identify(result)
    except UnreadableResult:
        return "", dumps(result)
    return lead_id, processed_at or dumps(result)


def key_alone(result: object) -> Row:
    """A result that is read to prove a window: its row is read with its own window."""
    return Row(key=key_of(result))


#: Makes a row of a result: `row`, or `key_alone`, which takes a fifteenth of the time.
Take = Callable[[object], Row]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """One page taken apart; `ours` is the database's clock when it was asked for."""

    count: int
    rows: Sequence[Row]
    has_next: bool
    vendor_now: datetime | None
    ours: datetime

    @property
    def now(self) -> datetime:
        """What is surely past for the vendor."""
        return clock_skew.believed(self.vendor_now, self.ours)

    @property
    def keys(self) -> frozenset[Key]:
        """The results on it."""
        return frozenset(row.key for row in self.rows)

    @property
    def adds_up(self) -> bool:
        """Whether it holds as many results as it counts."""
        return len(self.keys) == self.count

    @property
    def is_all(self) -> bool:
        """Whether this one answer, the first page, holds the whole window."""
        return self.adds_up and not self.has_next

    @property
    def counts_itself(self) -> bool:
        """Whether the count of this page, the first one, is not that of the whole window."""
        return self.adds_up and self.has_next

    @property
    def more(self) -> range:
        """The numbers of the pages after the first one, which this is.

        The vendor may give fewer results a page than asked for: the first page tells.
        """
        return range(2, -(-self.count // len(self.rows)) + 1) if self.rows else range(0)


@dataclass(kw_only=True)
class Reading:
    """What the pages of one window held, as lines for COPY."""

    window: Window
    first: Leaf
    claimed: int = 0
    steady: bool = True
    pages: int = 0
    seen: dict[Key, int] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, object]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every result that the API counts was read, while they all stood still."""
        return self.steady and len(self.seen) == self.claimed

    @property
    def may_be_split(self) -> bool:
        """Whether rows moved between its pages, and shorter windows would have fewer of them."""
        moved = not self.steady and self.pages > 1
        return moved and self.window.length > _SHORTEST_MOVING

    @property
    def is_too_long(self) -> bool:
        """Whether it goes on beyond what was counted, so far that it had better be split."""
        most = max(MOST_PAGES, len(self.first.more) + 1)
        return self.pages > most and self.window.length > _SHORTEST_MOVING

    def windows(self, longest: timedelta) -> list[tuple[Window, int]]:
        """What to write down as read, with the number of results in each window."""
        if self.window.length <= longest:
            return [(self.window, len(self.seen))]
        return pieces(self.window, map(self._moment, self.seen), longest)

    def _moment(self, key: Key) -> datetime:
        _, processed_at = key
        # One that has no such time is somewhere in the window.
        return processed_at if isinstance(processed_at, datetime) else self.window.after

    def add(self, leaf: Leaf) -> None:
        """Take in a page. A result that came before counts once; what it says now, it says last."""
        self.pages += 1
        self._count(leaf)
        for row in leaf.rows:
            content = hash((row.outcome, *row.attempts))
            if self.seen.get(row.key) != content:
                self.seen[row.key] = content
                self._take(row)
        self.steady &= len(self.seen) <= self.claimed and not self.is_too_long

    def _count(self, leaf: Leaf) -> None:
        """What the API said that the window holds: by each of its pages, or by all together."""
        if self.first.counts_itself:
            self.claimed += leaf.count
            self.steady = self.steady and leaf.adds_up
        else:
            self.claimed = self.first.count
            self.steady = self.steady and leaf.count == self.claimed

    def _take(self, row: Row) -> None:
        self.attempts += row.attempts
        if row.outcome is not None:
            self.outcomes.append(row.outcome)
        if row.unreadable is not None:
            self.unreadable.append(row.unreadable)

    def left(self, since: Iterable[Row]) -> bool:
        """Whether one of the leads read here was processed again meanwhile, and so has left."""
        leads = {lead_id for lead_id, _ in self.seen}
        return any(row.key not in self.seen and row.key[0] in leads for row in since)


class Reader:
    """Reads windows of one campaign.

    Args:
        api: the vendor.
        campaign: the campaign.
        clock: the database's clock.
        tally: counts `pages`, each one that was read.
        at_once: the most requests in flight.
    """

    def __init__(
        self, api: LeadsApi, campaign: Campaign, clock: Clock, tally: Counters, *, at_once: int
    ) -> None:
        self._api = api
        self._campaign = campaign
        self._clock = clock
        self._tally = tally
        self._in_flight = InOrder(at_once)

    def page(self, window: Window, number: int = 1, *, take: Take = row) -> Leaf:
        """One page of a window, each result as `take` makes a row of it.

        Raises:
            Resend, Paused, Refused, Stopped: see leadloop.client.errors.
        """
        with self._in_flight.one():
            ours = self._clock.now()
            page = self._api.processed(
                self._campaign.campaign_id,
                window,
                unit=self._campaign.epoch_unit,
                page=number,
                page_size=self._campaign.page_size,
            )
        rows = [take(result) for result in page.results]
        self._tally.add(pages=1)
        return Leaf(
            count=page.count,
            rows=rows,
            has_next=page.has_next,
            vendor_now=page.vendor_now,
            ours=ours,
        )

    def first(self, window: Window) -> Leaf:
        """The first page of a window; its `has_next` is true only where it is.

        A vendor may name a next page behind the last one, too. So where a page adds up, the one
        behind it is looked at.

        Raises:
            Resend, Paused, Refused, Stopped: see leadloop.client.errors.
        """
        leaf = self.page(window)
        if not leaf.counts_itself:
            return leaf
        return replace(leaf, has_next=bool(self.page(window, 2).rows))

    def heeds_bounds(self) -> bool:
        """Whether `count` is that of the range asked for: nothing was processed in 1970."""
        try:
            return self.page(Window(after=EPOCH, before=EPOCH)).count == 0
        except Refused:
            # It has read them.
            return True

    def counted_in_other_unit(self, window: Window) -> int:
        """How many results the API counts where the bounds are sent in the unit that is not set."""
        campaign = self._campaign
        unit = OTHER_UNIT[campaign.epoch_unit]
        try:
            page = self._api.processed(
                campaign.campaign_id, window, unit=unit, page=1, page_size=campaign.page_size
            )
        except ApiError:
            # Taken in the right unit, such a time is thousands of years ahead: it proves nothing.
            return 0
        self._tally.add(pages=1)
        return page.count

    def whole(self, pool: ThreadPoolExecutor, window: Window, first: Leaf) -> Reading:
        """Read all pages after the first, all again while rows shift; at last, what there is.

        Returns:
            The last reading; it `may_be_split` where parts of the window are worth a try.
        """
        reading = self._once(pool, window, first)
        for readings in range(1, MOST_READINGS):
            enough = reading.is_too_long or readings >= _READINGS_OF_WHOLE
            if reading.complete or (enough and reading.may_be_split):
                break
            reading = self._once(pool, window, self.first(window))
        return reading

    def _once(self, pool: ThreadPoolExecutor, window: Window, first: Leaf) -> Reading:
        reading = Reading(window=window, first=first)
        reading.add(first)
        for leaf in self._more(pool, window, first):
            reading.add(leaf)
            if reading.is_too_long:
                break
        if reading.complete and reading.pages > 1:
            reading.steady = self._stood_still(pool, window, reading)
        return reading

    def _more(
        self, pool: ThreadPoolExecutor, window: Window, first: Leaf, *, take: Take = row
    ) -> Iterator[Leaf]:
        """The pages after the first: as many as are counted, and on while one names a next."""
        number, leaf = 1, first
        counted = pool.map(partial(self.page, window, take=take), first.more)
        for number, leaf in zip(first.more, counted, strict=True):  # noqa: B007 - both go on below
            yield leaf
        while leaf.has_next:
            number += 1
            leaf = self.page(window, number, take=take)
            if leaf.rows:
                yield leaf

    def _stood_still(self, pool: ThreadPoolExecutor, window: Window, reading: Reading) -> bool:
        """Whether no row left a window of several pages while it was read.

        A first page that is the same at the end proves that the border behind it did not shift.
        Beyond that, a row leaves when its lead is processed again, and then shows up as just now.
        Where pages count themselves alone, no count would tell: there all of them are read again.
        """
        first = reading.first
        again = self.page(window, take=key_alone)
        if first.counts_itself:
            more = self._more(pool, window, again, take=key_alone)
            return again.keys.union(*(leaf.keys for leaf in more)) == reading.seen.keys()
        if (again.count, again.keys) != (first.count, first.keys):
            return False
        if reading.pages == 2:
            return True
        began, ended = first.vendor_now or first.ours, again.vendor_now or again.ours
        since = Window(after=began - _MARGIN, before=max(began, ended) + _MARGIN)
        latest = self.page(since, take=key_alone)
        leaves = [latest, *self._more(pool, since, latest, take=key_alone)]
        return not any(reading.left(leaf.rows) for leaf in leaves)
