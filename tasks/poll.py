"""The steps of a poll: windows are read, proven complete, and stored with the watermark.

No transaction spans a request. Outcomes, attempts, the window and the watermark are written in one
transaction, so the watermark is never ahead of what is stored.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from db import lateness, leads, outcomes, watermarks
from db.database import Connection
from db.watermarks import WindowRecord
from leadloop.client.errors import ApiError, RateLimited, Rejected, Retryable
from leadloop.core import clock_skew
from leadloop.core.errors import RunError
from leadloop.core.late_outcomes import LateOutcomes, format_lookback_warning
from leadloop.core.progress import progress_listener
from leadloop.core.timestamps import EPOCH, OTHER_UNIT
from leadloop.core.verdicts import TransportFailure
from leadloop.core.windows import (
    MAX_PARTS,
    Window,
    count_parts,
    find_contiguous_end,
    find_gaps,
    merge_windows,
    prove_window,
    split_window,
    subtract_to_epoch,
)
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.counters import Counters
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec
from tasks.retries import FruitlessAttempts, retry_later
from tasks.thread_pool import RequestThreads
from tasks.window_reader import DatabaseClock, ParsedPage, WindowRead, WindowReader

_SHORTEST = timedelta(milliseconds=1)
_WINDOWS_AT_ONCE = 2
# Of a window that the vendor refuses, or breaks down over.
_PARTS_OF_REFUSED = 16
#: For how long no outcome may have come at all before the unit of the bounds is doubted.
UNIT_DOUBTED_AFTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class PollPlan:
    """What a poll reads.

    Attributes:
        windows: what to read, in order.
        start: where the range begins that may move the watermark.
        proven: what is proven from there on already.
        silent_since: when the first lead was sent, where that was long ago and no outcome has ever
            come; else None.
        mark: the watermark, None if there is none.
        now: the database's clock.
        from_sending: the start is when we sent the first lead, and sets the first watermark: it is
            of our clock, and has to be put in terms of the vendor's.
        backfill: the range that was asked for; None for a poll, which goes on up to the vendor's
            clock where that is ahead of the database's.
    """

    windows: Sequence[Window]
    start: datetime
    watermark: datetime | None
    now: datetime
    from_sending: bool = False
    silent_since: datetime | None = None
    proven: Sequence[Window] = ()
    backfill: Window | None = None


class PollJob:
    """One campaign's ranges of `processed_at`, window by window."""

    def __init__(self, run: CampaignRun[ApiContext], plan: PollPlan) -> None:
        self.run = run
        self._counters = Counters(
            "windows", "pages", "seen", "inserted", "updated", "unchanged", "late"
        )
        self.incomplete = 0
        self.lateness = LateOutcomes()
        self.watermark_ahead: str | None = None
        self._plan = plan
        self._windows = list(plan.windows)
        self._follow = plan.backfill is None
        self._proven = list(plan.proven)
        at_once = run.context.settings.concurrency
        clock = DatabaseClock(plan.now)
        self._reader = WindowReader(
            run.context.api, run.campaign, clock, self._counters, concurrency=at_once
        )
        self._firsts: dict[Window, Future[ParsedPage]] = {}
        self._readings: dict[Window, Future[WindowRead | None]] = {}
        self._claims: dict[Window, int] = {}
        self._bounds_respected = False
        self._silent_since = plan.silent_since
        self._stumbled: Window | None = None
        self._clocks_seen = False
        self._attempts = FruitlessAttempts()
        self._stored: Future[None] | None = None
        self._listener = progress_listener.get()
        self._label = f"poll {run.campaign.campaign_id}"
        self._listener.add_total(self._label, len(self._windows))

    @property
    def planned(self) -> Sequence[Window]:
        """What was to be read when it began."""
        return self._plan.windows

    def run_chunk(self, limit: int) -> ChunkResult:
        """Read and store up to `limit` windows.

        Raises:
            RunError: the vendor rejects the login, or fails repeatedly; what was read is stored.
        """
        try:
            with self._reading(), self._storing(), self.run.context.open_threads() as pool:
                for left in range(limit, 0, -1):
                    if not self._windows:
                        break
                    self._next(pool, left)
        except Retryable as error:
            return retry_later(self.run, self._attempts, error)
        except ApiError as error:
            raise RunError(str(error)) from None
        return MORE if self._windows else DONE

    def counts(self) -> dict[str, int]:
        """The contract's counts, the lookback in force, and that which late outcomes needed, s."""
        lookback = {"lookback_s": self.run.campaign.lookback_s}
        needed = {"lookback_needed_s": math.ceil(self.lateness.needed_lookback_s)}
        return {**self._counters.counts(), **lookback, **needed}

    def finish(self) -> None:
        """Say what came late.

        Raises:
            RunError: not every window was proven, or the watermark lies in the future.
        """
        late = format_lookback_warning(self.lateness, lookback_s=self.run.campaign.lookback_s)
        if late:
            self._warn(late)
        if self.incomplete:
            raise RunError(
                f"{self.incomplete} windows did not hold what the API counted in them, no more and"
                " no less; what was read is stored, the watermark waits, and the next poll reads"
                " them again"
            )
        if self.watermark_ahead:
            raise RunError(self.watermark_ahead)

    def _next(self, pool: RequestThreads, left: int) -> None:
        """Read the first window that is planned, and have it stored while the next one is read."""
        reading = self._read(pool, self._windows[0], left)
        if reading is None:
            return
        self._require_unit(reading)
        self._await_stored()
        self._stored = self._keeper.submit(self._store, reading)
        self._claims.pop(self._windows.pop(0), None)
        self._attempts.reset()
        if self._follow and not self._windows:
            self._read_on(reading)

    def _read(self, pool: RequestThreads, window: Window, left: int) -> WindowRead | None:
        """Read the first window; None where shorter ones had to be planned in its place."""
        self._split_upcoming(pool, left)
        try:
            first = self._first(pool, left)
        except (Rejected, Retryable) as error:
            if not self._is_too_long(window, error):
                raise
            self._replace_window(window, split_window(window, _PARTS_OF_REFUSED))
            return None
        if self._begins_earlier(first):
            return None
        self._compare_clocks(first)
        reading = self._whole(pool, left)
        if reading is None:
            self._split_window(window, first)
            return None
        if reading.may_be_split:
            self._replace_window(window, split_window(window, min(reading.pages, MAX_PARTS)))
            return None
        return reading

    def _first(self, pool: RequestThreads, left: int) -> ParsedPage:
        """The first page of the first window; those of the next windows are asked for meanwhile."""
        for window in self._coming(pool, left):
            if window not in self._firsts:
                self._firsts[window] = pool.submit(self._reader.read_first_page, window)
        return self._firsts[self._windows[0]].result()

    def _coming(self, pool: RequestThreads, left: int) -> Sequence[Window]:
        """The first windows, of the `left` that are still to be read in this step."""
        return self._windows[: min(left, pool.size)]

    def _whole(self, pool: RequestThreads, left: int) -> WindowRead | None:
        """The first window as a whole; None where it has to be read in parts.

        The next one is begun meanwhile: while this one is proven, request after request, the pool
        would have nothing to do. Its pages wait behind this one's, so that neither takes longer:
        the longer a window takes, the more of its rows move.
        """
        for window in self._coming(pool, left)[:_WINDOWS_AT_ONCE]:
            if window not in self._readings:
                first = self._firsts[window]
                self._readings[window] = self._readers.submit(self._begin, pool, window, first)
        window = self._windows[0]
        del self._firsts[window]
        return self._readings.pop(window).result()

    def _begin(
        self, pool: RequestThreads, window: Window, first: Future[ParsedPage]
    ) -> WindowRead | None:
        leaf = first.result()
        if self._parts_needed(window, leaf) > 1:
            return None
        return self._reader.read_window(pool, window, leaf)

    def _split_upcoming(self, pool: RequestThreads, left: int) -> None:
        """Divide those of the next windows whose first page has come and tells of too much.

        In their turn it would be too late: nothing could be begun while the one before is proven.
        What is doubtful about them waits for their turn, and holds up nothing that comes before.
        """
        for window in self._coming(pool, left)[1:]:
            first = self._firsts.get(window)
            if first is None or not first.done() or first.exception():
                continue
            leaf = first.result()
            if self._parts_needed(window, leaf) > 1 and not self._is_doubtful(window, leaf):
                self._split_window(window, leaf)

    def _split_window(self, window: Window, first: ParsedPage) -> None:
        """Plan parts in place of a window that holds too much, as its first page says."""
        parts = self._parts(window, first)
        self._replace_window(window, parts)
        self._claims |= dict.fromkeys(parts, first.count)

    def _replace_window(self, window: Window, parts: Sequence[Window]) -> None:
        """Plan shorter windows in place of one."""
        at = self._windows.index(window)
        self._windows[at : at + 1] = parts
        for known in (self._firsts, self._readings, self._claims):
            known.pop(window, None)
        self._listener.add_total(self._label, len(parts) - 1)

    def _parts_needed(self, window: Window, first: ParsedPage) -> int:
        campaign = self.run.campaign
        if first.holds_whole_window:
            return 1
        return count_parts(
            window,
            count=first.count,
            page_size=campaign.page_size,
            max_length=campaign.max_window,
            unit=campaign.epoch_unit,
        )

    def _parts(self, window: Window, first: ParsedPage) -> list[Window]:
        """Shorter windows in place of one that holds too much."""
        if self._is_doubtful(window, first):
            self._require_bounds(first.count)
        return split_window(window, self._parts_needed(window, first))

    def _is_doubtful(self, window: Window, first: ParsedPage) -> bool:
        """Whether a part claims as much as the whole did: bounds may count for nothing."""
        whole = self._claims.get(window, first.count + 1)
        return first.count >= whole and not self._bounds_respected

    def _require_bounds(self, count: int) -> None:
        """Find out, once, whether they do.

        Raises:
            RunError: the count is not that of the range asked for.
        """
        self._bounds_respected = self._reader.respects_bounds()
        if not self._bounds_respected:
            raise RunError(
                f"the API's count ({count}) takes no notice of processed_after and"
                " processed_before, so no window can be proven: ask the vendor"
            )

    def _require_unit(self, reading: WindowRead) -> None:
        """Find out, once, where nothing has ever come, whether it is due to the unit of the bounds.

        Before the first window is stored: the watermark must not move over what was not asked for.

        Raises:
            RunError: it is.
        """
        campaign = self.run.campaign
        since, self._silent_since = self._silent_since, None
        if since is None or reading.seen:
            return
        whole = Window(after=subtract_to_epoch(since, campaign.lookback), before=self._plan.now)
        count = self._reader.count_in_other_unit(whole)
        if count:
            unit = OTHER_UNIT[campaign.epoch_unit]
            raise RunError(
                f"no outcome has come since {whole.after:%Y-%m-%d}, and the API counts {count}"
                f" where times are sent in {unit}, not {campaign.epoch_unit}: set epoch_unit of the"
                f" campaign, or LEADLOOP_EPOCH_UNIT, to {unit}; the next poll then reads all of"
                " them, and the watermark waits"
            )

    def _is_too_long(self, window: Window, error: ApiError) -> bool:
        """Whether a failure may be due to the length of a window that needs not be so long.

        One that is refused for good is too long; of a server that breaks down over it we believe
        it the second time.
        """
        answered = (
            not isinstance(error, RateLimited)
            and error.response.failure is not TransportFailure.NOT_SENT
        )
        if window.length <= self.run.campaign.max_window or not answered:
            return False
        again, self._stumbled = self._stumbled == window, window
        return isinstance(error, Rejected) or again

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Threads that read windows ahead; what they have begun counts no longer when it ends."""
        with ThreadPoolExecutor(_WINDOWS_AT_ONCE) as self._readers:
            try:
                yield
            finally:
                self._firsts.clear()
                self._readings.clear()

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """One thread that stores one window after the other; all are stored when the block ends."""
        with ThreadPoolExecutor(1) as self._keeper:
            try:
                yield
            finally:
                self._await_stored()

    def _await_stored(self) -> None:
        """Wait for the window that is being stored.

        With the one just read and the one that is read ahead no more than three are in memory.
        """
        if self._stored is not None:
            stored, self._stored = self._stored, None
            stored.result()

    def _store(self, reading: WindowRead) -> None:
        proof = prove_window(
            reading.window,
            complete=reading.complete,
            now=reading.first.now,
            settle=self.run.campaign.settle,
        )
        proven = merge_windows([*self._proven, proof.proven]) if proof.proven else self._proven
        polled = self._polled(reading)

        def write(connection: Connection) -> tuple[outcomes.MergeCounts, LateOutcomes]:
            stored = self._write_results(connection, reading)
            through = find_contiguous_end(self._plan.start, proven)
            campaign_id = self.run.campaign.campaign_id
            watermarks.advance_watermark(
                connection, campaign_id, after=self._plan.start, through=through
            )
            watermarks.record_windows(connection, campaign_id, polled)
            return stored

        stored, late = self.run.write(write)
        self._proven = proven
        self._counters.add(windows=len(polled))
        self._count(reading, stored, late)

    def _polled(self, reading: WindowRead) -> list[WindowRecord]:
        """The windows to write down: one, or of a long stretch with little in it several."""
        campaign, whole = self.run.campaign, reading.window
        return [
            WindowRecord(
                run_id=self.run.run_id,
                window=part,
                proof=prove_window(
                    part,
                    complete=reading.complete,
                    now=reading.first.now,
                    settle=campaign.settle,
                ),
                reported_count=reading.reported_count if part == whole else inside,
                stored_count=inside,
                pages=reading.pages if part.after == whole.after else 0,
                backfill=self._plan.backfill,
            )
            for part, inside in reading.split_counts(campaign.max_window)
        ]

    def _write_results(
        self, connection: Connection, reading: WindowRead
    ) -> tuple[outcomes.MergeCounts, LateOutcomes]:
        campaign_id, mark = self.run.campaign.campaign_id, self._plan.watermark
        outcomes.store_unreadable(connection, campaign_id, reading.unreadable)
        stored = outcomes.merge_outcomes(
            connection, campaign_id, outcomes=reading.outcomes, attempts=reading.attempts
        )
        if mark is None or self._plan.silent_since is not None:
            # Of the first to come at all, the lookback is not to blame.
            return stored, LateOutcomes()
        return stored, lateness.mark_late_outcomes(
            connection, campaign_id, reading.window, run_id=self.run.run_id, watermark=mark
        )

    def _count(self, reading: WindowRead, stored: outcomes.MergeCounts, late: LateOutcomes) -> None:
        self._listener.advance(self._label, 1)
        self.incomplete += not reading.complete
        self.lateness += late
        self._counters.add(
            seen=len(reading.seen),
            inserted=stored.inserted,
            updated=stored.updated,
            unchanged=stored.unchanged,
            late=late.count,
        )

    def _read_on(self, reading: WindowRead) -> None:
        """Plan what lies between our clock and the vendor's, once: the rest is the next poll's."""
        self._follow = False
        end = clock_skew.read_ahead_end(reading.window.before, reading.first.vendor_now)
        if end is not None:
            self._windows.append(Window(after=reading.window.before, before=end))
            self._listener.add_total(self._label, 1)

    def _compare_clocks(self, first: ParsedPage) -> None:
        """Once a poll, say what is wrong with the clocks and the watermark."""
        if self._clocks_seen:
            return
        self._clocks_seen = True
        apart = clock_skew.describe_skew(first.vendor_now, first.ours)
        if apart:
            self._warn(apart)
        if self._plan.watermark is not None:
            self.watermark_ahead = clock_skew.describe_future_watermark(
                self._plan.watermark, first.vendor_now, first.ours
            )

    def _begins_earlier(self, first: ParsedPage) -> bool:
        """Set a first watermark; whether the poll has to begin earlier than planned.

        What was processed just after we sent it has an earlier time where the vendor's clock is
        behind ours, and its first answer tells that.
        """
        plan = self._plan
        if not plan.from_sending:
            return False
        back = clock_skew.measure_vendor_lag(first.vendor_now, first.ours)
        start = subtract_to_epoch(plan.start, back)
        self._plan = replace(plan, start=start, watermark=start, from_sending=False)
        self.run.write(watermarks.start_watermark, self.run.campaign.campaign_id, start)
        if start < plan.start:
            self._windows.insert(0, Window(after=start, before=plan.start))
            self._listener.add_total(self._label, 1)
        return start < plan.start

    def _warn(self, words: str) -> None:
        self.run.context.log.warning("campaign %s: %s", self.run.campaign.campaign_id, words)


def plan_poll(run: CampaignRun[ApiContext], *, since: datetime | None = None) -> PollJob | None:
    """The poll that is due: from the watermark less the lookback up to now.

    Without a watermark it begins at `since`, or else at the first lead sent less the lookback (and
    less what the vendor's clock turns out to be behind). As long as no outcome has ever come, it
    begins there each time: that costs no more, and if something was wrong, nothing is lost once it
    is mended. What was left incomplete before is read again first.

    Returns:
        None where nothing was ever sent, so that nothing can have been processed.
    """
    campaign = run.campaign
    with run.context.database.transaction() as connection:
        now = watermarks.get_database_time(connection)
        mark = watermarks.get_watermark(connection, campaign.campaign_id)
        from_sending = mark is None and since is None
        awaited = outcomes.get_waiting_since(connection, campaign.campaign_id)
        if mark is not None:
            start = subtract_to_epoch(min(mark, now, awaited or now), campaign.lookback)
        else:
            first = since or _first_sent(connection, run)
            if first is None:
                return None
            mark = start = max(EPOCH, min(first, now))
            if since is not None:
                watermarks.start_watermark(connection, campaign.campaign_id, start)
        owed = watermarks.list_incomplete_windows(connection, campaign.campaign_id)
    # A poll asks at least once, whatever the clocks say.
    due = Window(after=start, before=max(now, start + _SHORTEST))
    windows = [*_outside(due, owed), due]
    plan = PollPlan(
        windows=windows,
        start=start,
        watermark=mark,
        now=now,
        from_sending=from_sending,
        silent_since=awaited if awaited and now - awaited > UNIT_DOUBTED_AFTER else None,
    )
    return PollJob(run, plan)


def plan_backfill(run: CampaignRun[ApiContext], wanted: Window) -> PollJob:
    """A range read again. One that was broken off is taken up where it was."""
    campaign_id = run.campaign.campaign_id
    with run.context.database.transaction() as connection:
        now = watermarks.get_database_time(connection)
        mark = watermarks.get_watermark(connection, campaign_id)
        closed = watermarks.list_resumable_windows(connection, campaign_id, wanted)
    if closed:
        run.context.log.info("campaign %s: goes on where the last backfill ended", campaign_id)
    return PollJob(
        run,
        PollPlan(
            windows=find_gaps(wanted, closed),
            start=wanted.after,
            watermark=mark,
            now=now,
            proven=closed,
            backfill=wanted,
        ),
    )


def _outside(due: Window, owed: Iterable[Window]) -> list[Window]:
    return [part for window in owed for part in find_gaps(window, [due])]


def _first_sent(connection: Connection, run: CampaignRun[ApiContext]) -> datetime | None:
    sent_at = leads.get_first_sent_at(connection, run.campaign.campaign_id)
    # Less also what a clock may be off by without a word.
    return (
        None
        if sent_at is None
        else subtract_to_epoch(sent_at, run.campaign.lookback + clock_skew.NEGLIGIBLE_SKEW)
    )


# Windows a chunk: at most twenty minutes at the vendor's rate limit. Nothing is read ahead at the
# end of a chunk, so the next one begins with nothing to store: at 20 windows a chunk, a twentieth
# of a poll.
POLL = JobSpec(
    flow="poll-outcomes",
    task="read-windows",
    counts=("windows", "pages", "seen", "inserted", "updated", "unchanged", "late"),
    open_context=open_api_context,
    start=plan_poll,
    min_chunk=40,
)
