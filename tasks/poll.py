"""The poll and backfill jobs: read windows, verify each, and store it with the watermark.

No transaction spans a request. One transaction stores the outcomes, the attempts, the window, what
is owed and the watermark, so the watermark is never ahead of the stored outcomes.

What cannot be read is narrowed down by page size and time, to the shortest window that fails. That
window is owed (`leadloop.owed_windows`), and the poll goes on behind it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

from db import leads, learned_limits, outcomes, owed_windows, watermarks
from db.database import Connection
from db.learned_limits import LearnedLimit
from db.owed_windows import OwedWindow
from db.watermarks import WindowRecord
from db.window_store import OwedRange, PollProgress, ReadResult, store_read
from leadloop.client.errors import ApiError, RateLimited, Rejected, Retryable
from leadloop.core import clock_skew
from leadloop.core.errors import RunError
from leadloop.core.late_outcomes import LateOutcomes, format_lookback_warning
from leadloop.core.plurals import format_count
from leadloop.core.progress import progress_listener
from leadloop.core.rate_ring import Purpose
from leadloop.core.results import format_unreadable_error
from leadloop.core.timestamps import EPOCH
from leadloop.core.window_queue import WindowQueue
from leadloop.core.windows import (
    MAX_PARTS,
    Window,
    WindowProof,
    count_parts,
    find_contiguous_end,
    find_gaps,
    halve_window,
    merge_windows,
    prove_window,
    split_window,
    subtract_to_epoch,
)
from tasks.api_quirks import UNIT_DOUBTED_AFTER, ApiQuirks
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.counters import Counters
from tasks.head_look import HeadLook, find_head_start, find_lookback_start
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec
from tasks.look_round import look_round
from tasks.page_limits import PageLimits
from tasks.page_reader import DatabaseClock, PageReader, PageSizeChanged, PageUnavailable
from tasks.probes import read_empty_window, watch_outages
from tasks.retries import FruitlessAttempts, retry_later
from tasks.window_pages import ParsedPage, WindowRead
from tasks.window_pipeline import WindowPipeline, open_pipeline
from tasks.window_reader import WindowReader

_LEAST_RANGE = timedelta(milliseconds=1)
# The parts of a window that is longer than the campaign's maximum, and that the vendor fails on.
_PARTS_OF_LONG = 16


@dataclass(frozen=True, kw_only=True)
class PollPlan:
    """The windows of a poll or a backfill.

    Attributes:
        windows: the windows to read, in order.
        start: the start of the range that may move the watermark.
        end: the end of that range.
        covered: windows after the start that are stored or owed already.
        accepted: owed windows that a person has accepted; no run fails because of one.
        no_outcome_since: the time of the first sent lead, if that is long ago and the campaign
            has no outcome at all; else None.
        watermark: the watermark, None without one.
        reread_through: up to where earlier runs have read the lookback, None without one.
        now: the database's clock.
        reads_lookback: the run reads all that is not owed from `start` on, the lookback included.
        from_sending: the start is the time of the first sent lead, and sets the first watermark.
            That time is of our clock and has to be converted to the vendor's.
        backfill: the range of a backfill; None for a poll, which goes on up to the vendor's clock
            if that is ahead of the database's.
        limits: what earlier polls have learned of the vendor's pages.
        first_page: the first page of the first window, if a look has read it.
    """

    windows: Sequence[Window]
    start: datetime
    end: datetime
    watermark: datetime | None
    reread_through: datetime | None
    now: datetime
    reads_lookback: bool = True
    from_sending: bool = False
    no_outcome_since: datetime | None = None
    covered: Sequence[Window] = ()
    accepted: Sequence[Window] = ()
    backfill: Window | None = None
    limits: Mapping[str, LearnedLimit] = field(default_factory=dict)
    first_page: ParsedPage | None = field(default=None, repr=False)


class PollJob:
    """One campaign's poll or backfill: ranges of `processed_at`, window by window."""

    def __init__(self, run: CampaignRun[ApiContext], plan: PollPlan) -> None:
        self.run = run
        self._counters = Counters(
            "windows", "pages", "seen", "inserted", "updated", "unchanged", "late"
        )
        self.lateness = LateOutcomes()
        self._plan = plan
        self._queue = WindowQueue(plan.windows, run.campaign.epoch_unit)
        # The page of a look reaches beyond both clocks.
        self._follow = plan.backfill is None and plan.first_page is None
        self._covered = list(plan.covered)
        self._first_page = plan.first_page
        self._owed: list[OwedRange] = []
        # Parts of windows that were cut around rows that cannot be read.
        self._cut: set[Window] = set()
        self._rows_read = 0
        self._unreadable = 0
        # The last probe that listed the campaign was not answered, maybe because of its first lead.
        self._is_listing_silent = False
        self._limits = PageLimits(run.campaign.page_size, plan.limits)
        clock = DatabaseClock(plan.now)
        pages = PageReader(
            run.context.api,
            run,
            clock,
            self._counters,
            watch=watch_outages(run, self._probe),
            limits=self._limits,
            concurrency=run.context.settings.read_concurrency,
        )
        self._reader = WindowReader(pages, run, clock, self._limits)
        self._quirks = ApiQuirks(
            run,
            pages,
            now=plan.now,
            no_outcome_since=plan.no_outcome_since,
        )
        self._attempts = FruitlessAttempts()
        self._listener = progress_listener.get()
        self._label = f"poll {run.campaign.campaign_id}"
        self._listener.add_total(self._label, len(self._queue))
        if plan.windows:
            run.log_step(
                "outcomes to read from %s to %s",
                min(window.after for window in plan.windows).isoformat(timespec="seconds"),
                max(window.before for window in plan.windows).isoformat(timespec="seconds"),
            )

    @property
    def planned(self) -> Sequence[Window]:
        """The windows of the plan, before any was split."""
        return self._plan.windows

    def run_chunk(self, limit: int) -> ChunkResult:
        """Read and store up to `limit` windows.

        A window that cannot be read ends the chunk: its requests may have timed out, and other
        campaigns have windows too.

        Raises:
            RunError: the vendor rejects the login, or answers nothing; what was read is stored.
        """
        try:
            with open_pipeline(
                self._reader,
                self.run.context.open_threads(),
                self._is_readable,
                self._queue.is_suspect,
            ) as pipeline:
                self._put_first_page(pipeline)
                for left in range(limit, 0, -1):
                    if not self._queue or not self._read_next(pipeline, left):
                        break
        except Retryable as error:
            return retry_later(self.run, self._attempts, error)
        except ApiError as error:
            raise RunError(str(error)) from None
        return MORE if self._queue else DONE

    def _put_first_page(self, pipeline: WindowPipeline) -> None:
        """Begin with the page that a look has read, if there is one."""
        page, self._first_page = self._first_page, None
        if page is not None:
            pipeline.put_first(self._plan.windows[0], page)
            self._counters.add(pages=1)

    def counts(self) -> dict[str, int]:
        """Return the counts of docs/reference/exit-codes-and-json.md, and both lookbacks (s)."""
        return {
            **self._counters.counts(),
            "owed": len(self._owed_windows()),
            "lookback_s": self.run.campaign.lookback_s,
            "lookback_needed_s": math.ceil(self.lateness.needed_lookback_s),
        }

    def finish(self) -> None:
        """Warn about late outcomes; raise if this run owes a window, or tried one in vain.

        Raises:
            RunError: a window is owed, the watermark lies in the future, or most of the results
                could not be parsed.
        """
        late = format_lookback_warning(self.lateness, lookback_s=self.run.campaign.lookback_s)
        if late:
            self.run.warn("%s", late)
        if self._owed:
            raise RunError(self._describe_owed())
        error = self._quirks.watermark_ahead or format_unreadable_error(
            seen=self._rows_read, unreadable=self._unreadable
        )
        if error:
            raise RunError(error)

    def _describe_owed(self) -> str:
        """Describe what this run owes: the first range, why, and the command that lists all."""
        owed = self._owed_windows()
        reason = min(self._owed, key=lambda each: each.window).reason
        first = f"from {owed[0].after.isoformat()} to {owed[0].before.isoformat()} ({reason})"
        which, owing = (first, "it is") if len(owed) == 1 else (f"the first {first}", "they are")
        return (
            f"{format_count(len(owed), 'time range')} could not be read completely, {which};"
            f" {owing} owed, all other outcomes are stored, and later polls try again:"
            f" `leadloop owed --campaign {self.run.campaign.campaign_id}`"
        )

    def _owed_windows(self) -> list[Window]:
        """Return what this run owes, or tried in vain; neighbours are one window."""
        return merge_windows(each.window for each in self._owed)

    # Reading -------------------------------------------------------------------------------------

    def _read_next(self, pipeline: WindowPipeline, left: int) -> bool:
        """Read the first window, and store it while the next one is read; or split it.

        Returns:
            False if a page of the window, or a part of one, could not be read.
        """
        self._limits.apply_page_size(self.run.refresh().page_size)
        # What is read ahead of a window that cannot be read is lost.
        is_suspect = self._queue.is_suspect(self._queue.upcoming(1)[0])
        upcoming = 1 if is_suspect else min(left, pipeline.width)
        self._split_overfull(pipeline, self._queue.upcoming(upcoming)[1:])
        windows = self._queue.upcoming(upcoming)
        window, first = windows[0], None
        try:
            first = pipeline.read_first(windows)
            if self._start_first_watermark(first):
                return True
            self._quirks.compare_clocks(first, self._plan.watermark)
            reading = pipeline.read_whole(windows)
        except PageSizeChanged:
            pipeline.forget(window)
            return True
        except PageUnavailable as failure:
            self._split_unreadable(pipeline, window, first, failure)
            return False
        if reading is None:
            self._quirks.require_bounds(window, first)
            self._split(pipeline, window, first)
        elif reading.missing:
            self._cut_around_missing_rows(pipeline, reading)
            return False
        elif reading.may_be_split and self._can_be_halved(window):
            # One page may be made of several answers.
            parts = split_window(window, min(max(reading.pages, 2), MAX_PARTS))
            self._replace(pipeline, window, parts)
        else:
            self._quirks.require_unit(reading)
            owed = self._queue.record_read(window, complete=reading.complete)
            rows = format_count(len(reading.seen), "row was", "rows were")
            reason = f"{rows} read, and {reading.reported_count:,} counted"
            self._store(pipeline, reading, [OwedRange(window=each, reason=reason) for each in owed])
        return True

    def _can_be_halved(self, window: Window) -> bool:
        """Return whether the request for a part would show less than that for the window."""
        return bool(halve_window(window, self.run.campaign.epoch_unit))

    def _is_readable(self, window: Window, first: ParsedPage) -> bool:
        return self._count_parts(window, first) == 1

    def _count_parts(self, window: Window, first: ParsedPage) -> int:
        """Return into how many parts a window has to be split; 1: it can be read as a whole."""
        campaign = self.run.campaign
        if first.holds_whole_window:
            return 1
        return count_parts(
            window,
            count=first.count,
            page_size=first.size,
            max_length=campaign.max_window,
            unit=campaign.epoch_unit,
            max_pages=self._limits.max_pages,
        )

    def _split_overfull(self, pipeline: WindowPipeline, windows: Sequence[Window]) -> None:
        """Split upcoming windows whose first page shows that they hold too many rows.

        A later split would be too late, since nothing could be begun while the window
        before is verified. Windows with a doubtful count are split only when they are next.
        """
        for window in windows:
            first = pipeline.first_if_read(window)
            if first is None or self._is_readable(window, first):
                continue
            if not self._quirks.is_count_doubtful(window, first):
                self._split(pipeline, window, first)

    def _split(self, pipeline: WindowPipeline, window: Window, first: ParsedPage) -> None:
        """Replace a window whose first page shows too many rows by parts."""
        parts = split_window(window, self._count_parts(window, first))
        self._replace(pipeline, window, parts)
        self._quirks.remember_parent(parts, first.count)

    def _replace(
        self,
        pipeline: WindowPipeline,
        window: Window,
        parts: Sequence[Window],
        suspects: Sequence[Window] = (),
    ) -> None:
        self._queue.replace(window, parts, suspects=suspects)
        pipeline.forget(window)
        self._listener.add_total(self._label, len(parts) - 1)

    def _start_first_watermark(self, first: ParsedPage) -> bool:
        """Set a first watermark; return whether the poll has to start earlier than planned.

        If the vendor's clock is behind ours, a lead processed just after its create has an earlier
        time than the create. The first response shows by how much.
        """
        plan = self._plan
        if not plan.from_sending:
            return False
        back = clock_skew.measure_vendor_lag(first.vendor_now, first.database_now)
        start = subtract_to_epoch(plan.start, back)
        self._plan = replace(
            plan, start=start, watermark=start, reread_through=start, from_sending=False
        )
        self.run.write(watermarks.start_watermark, self.run.campaign.campaign_id, start)
        if start < plan.start:
            self._queue.insert(Window(after=start, before=plan.start))
            self._listener.add_total(self._label, 1)
        return start < plan.start

    # What cannot be read --------------------------------------------------------------------------

    def _split_unreadable(
        self,
        pipeline: WindowPipeline,
        window: Window,
        first: ParsedPage | None,
        failure: PageUnavailable,
    ) -> None:
        """Replace a window of which a page cannot be read by parts; owe it if it is too short."""
        if first is not None and failure.number > 1:
            pages = -(-first.count // max(1, first.row_count))
            wanted = max(2, -(-pages // max(1, failure.number // 2)))
            parts = split_window(window, min(wanted, MAX_PARTS))
            if len(parts) > 1 and self._can_be_halved(window):
                self._limits.suspect_depth(failure.number, parts)
                self._replace(pipeline, window, parts)
                return
        if window.length > self.run.campaign.max_window:
            self._replace(pipeline, window, split_window(window, _PARTS_OF_LONG))
            return
        self._halve_or_owe(pipeline, window, failure.reason, failure.partial)

    def _cut_around_missing_rows(self, pipeline: WindowPipeline, reading: WindowRead) -> None:
        """Cut a window around the rows that cannot be read; its parts are proven by themselves.

        A part that has such rows all the same shows that rows are not in the order of their times.
        """
        window, brackets = reading.window, reading.brackets()
        length = sum((each.length for each in brackets), timedelta(0))
        if window in self._cut or 2 * length > window.length:
            self._halve_or_owe(pipeline, window, reading.failure, reading)
            return
        others = find_gaps(window, brackets)
        self._cut |= set(others)
        self._replace(pipeline, window, sorted([*others, *brackets]), suspects=brackets)

    def _halve_or_owe(
        self,
        pipeline: WindowPipeline,
        window: Window,
        reason: str,
        reading: WindowRead | None = None,
    ) -> None:
        """Halve a window that cannot be read; if it is too short, read its rows one by one.

        It is owed unless all of them can be read.

        Args:
            pipeline: reads and stores windows.
            window: the window.
            reason: how the read failed.
            reading: a read of other rows than those that cannot be read; None if there is none.
        """
        pipeline.forget(window)
        if self._queue.narrow_unreadable(window):
            self._listener.add_total(self._label, 1)
            return
        if not (reading and reading.missing) and not self._can_be_halved(window):
            try:
                alone = pipeline.read_rows_alone(window)
            except PageUnavailable as failure:
                reason = failure.reason
            else:
                if reading is None or alone.complete or alone.rows_read > reading.rows_read:
                    reading = alone
        self._queue.replace(window, [])
        owed = [] if reading and reading.complete else [OwedRange(window=window, reason=reason)]
        self._store(pipeline, reading or self._reader.read_nothing(window), owed)

    def _probe(self) -> None:
        """Send a read that depends on no window: the campaign's first lead, or an empty window.

        Raises:
            ApiError: both fail; or the one that was sent was not answered, or asks for a pause.
                After silence, the next probe begins with the other one.
        """
        is_rejected = False
        try:
            if not self._is_listing_silent:
                self._list_first_lead()
                return
        except ApiError as failure:
            self._is_listing_silent = failure.response.status is None
            if self._is_listing_silent or isinstance(failure, RateLimited):
                raise
            is_rejected = isinstance(failure, Rejected)
        # The first lead itself may be what the vendor fails on.
        try:
            read_empty_window(self.run.context.api, self.run.campaign)
        except Rejected:
            # The vendor parses the bounds, unless it rejects whatever is asked.
            if is_rejected:
                raise
        except Retryable:
            self._is_listing_silent = False
            raise

    def _list_first_lead(self) -> None:
        api = self.run.context.api.for_probes()
        api.list_all(self.run.campaign.campaign_id, page=1, page_size=1)

    # Storing -------------------------------------------------------------------------------------

    def _store(
        self, pipeline: WindowPipeline, reading: WindowRead, owed: Sequence[OwedRange]
    ) -> None:
        """Store a window, its proof, what is owed and the watermark, while the next one is read."""
        self._attempts.reset()
        if reading.complete:
            self._limits.record_complete(reading.window)
        records = self._window_records(reading)
        proven = [record.proof.proven for record in records if record.proof.proven is not None]
        self._covered = merge_windows([*self._covered, *proven, *(each.window for each in owed)])
        self._owed += [each for each in owed if not self._is_accepted(each.window)]
        self._rows_read += reading.rows_read
        self._unreadable += len(reading.unreadable)
        result = ReadResult(
            window=reading.window,
            outcomes=reading.outcomes,
            attempts=reading.attempts,
            unreadable=reading.unreadable,
            records=records,
            owed=owed,
            limits=self._limits.take_changes(),
        )
        # A longer lookback would not have found a campaign's first outcomes earlier.
        is_first = self._plan.no_outcome_since is not None
        progress = PollProgress(
            run_id=self.run.run_id,
            started=self._plan.now,
            start=self._plan.start,
            through=find_contiguous_end(self._plan.start, self._covered),
            reads_lookback=self._plan.reads_lookback,
            read_before=None if is_first else self._plan.reread_through,
        )
        pipeline.store(lambda: self._write(result, progress, len(reading.seen)))
        if self._follow and not self._queue:
            # Read on from our clock to the vendor's, once; the next poll reads the rest.
            self._follow = False
            end = clock_skew.read_ahead_end(self._plan.end, reading.first.vendor_now)
            if end is not None:
                self._queue.append(Window(after=self._plan.end, before=end))
                self._listener.add_total(self._label, 1)

    def _write(self, result: ReadResult, progress: PollProgress, seen: int) -> None:
        merged, late = self.run.write(store_read, self.run.campaign.campaign_id, result, progress)
        self.lateness += late
        self._counters.add(
            windows=len(result.records),
            seen=seen,
            inserted=merged.inserted,
            updated=merged.updated,
            unchanged=merged.unchanged,
            late=late.count,
        )
        self._listener.advance(self._label, 1)
        self.run.log_progress(self._counters.counts())

    def _is_accepted(self, window: Window) -> bool:
        return any(
            each.after <= window.after and window.before <= each.before
            for each in self._plan.accepted
        )

    def _window_records(self, reading: WindowRead) -> list[WindowRecord]:
        """Return the windows to record: several for a window longer than the maximum."""
        campaign, whole = self.run.campaign, reading.window

        def prove(part: Window) -> WindowProof:
            return prove_window(
                part,
                complete=reading.complete,
                now=reading.first.earlier_now,
                settle=campaign.settle,
            )

        return [
            WindowRecord(
                run_id=self.run.run_id,
                window=part,
                proof=prove(part),
                reported_count=reading.reported_count if part == whole else inside,
                stored_count=inside,
                pages=reading.pages if part.after == whole.after else 0,
                backfill=self._plan.backfill,
            )
            for part, inside in reading.split_counts(campaign.max_window)
        ]


def plan_poll(
    run: CampaignRun[ApiContext], *, since: datetime | None = None, look: HeadLook | None = None
) -> PollJob | None:
    """Plan the due poll: from where the last such poll ended, minus the lookback, up to now.

    Without a watermark, the poll starts at `since`, or else at the first sent lead minus the
    lookback (and minus the lag of the vendor's clock). While a campaign has no outcome at all, each
    poll starts there: this costs no more, and no outcome is lost if a setting was wrong at first.
    What is owed is left out, and tried last where it is due.

    Args:
        run: the campaign's run.
        since: where to start without a watermark.
        look: the look that showed something new; a page that holds all of the range is not read
            again.

    Returns:
        The job; None if no lead was ever sent, so that none can be processed.
    """
    campaign = run.campaign
    with run.context.database.transaction() as connection:
        now = watermarks.get_database_time(connection)
        start = find_lookback_start(connection, campaign, now)
        is_first = start is None
        if start is None:
            first = since or leads.get_first_sent_at(connection, campaign.campaign_id)
            if first is None:
                return _plan_owed(run)
            if since is None:
                # A clock skew that counts as none must not hide the first outcomes.
                first = subtract_to_epoch(first, campaign.lookback + clock_skew.NEGLIGIBLE_SKEW)
            start = max(EPOCH, min(first, now))
            if since is not None:
                watermarks.start_watermark(connection, campaign.campaign_id, start)
        plan = _plan_until_now(connection, campaign.campaign_id, start, now)
    plan = replace(plan, from_sending=is_first and since is None)
    return PollJob(run, plan if look is None else _use_look(plan, look))


def _plan_after_look(run: CampaignRun[ApiContext], look: HeadLook) -> PollJob | None:
    return plan_poll(run, look=look)


def plan_head_poll(run: CampaignRun[ApiContext], *, look: HeadLook | None = None) -> PollJob | None:
    """Plan a head poll: from where the last poll ended, minus a short overlap, up to now.

    It costs little, however many outcomes the lookback holds. What shows too late for it is read by
    the next plain poll, whose start it does not move. A campaign's first poll is a plain one.

    Args:
        run: the campaign's run.
        look: the look that showed something new; a page that holds the whole head is not read
            again.

    Returns:
        The job; None if no lead was ever sent, so that none can be processed.
    """
    with run.context.database.transaction() as connection:
        now = watermarks.get_database_time(connection)
        start = find_head_start(connection, run.campaign, now)
        if start is None:
            return plan_poll(run)
        plan = _plan_until_now(connection, run.campaign.campaign_id, start, now)
    plan = replace(plan, reads_lookback=False)
    return PollJob(run, plan if look is None else _use_look(plan, look))


def _use_look(plan: PollPlan, look: HeadLook) -> PollPlan:
    """Return the plan of a poll that stores a look's page, if the page holds its range.

    The page shows what is owed in that range too.
    """
    held = look.window
    if held is None or not held.after <= plan.start <= held.before:
        return plan
    window = Window(after=plan.start, before=held.before)
    owed = [each for each in plan.windows if each in plan.covered]
    return replace(plan, windows=[window, *owed], end=window.before, first_page=look.page)


def _plan_until_now(
    connection: Connection, campaign_id: str, start: datetime, now: datetime
) -> PollPlan:
    """Return the plan of a poll from a time on: what is owed is left out, or tried last."""
    awaited = outcomes.get_waiting_since(connection, campaign_id)
    owed = owed_windows.list_owed_windows(connection, [campaign_id])
    all_owed = [each.window for each in owed]
    # A poll sends at least one request, also if the clocks differ.
    due = Window(after=start, before=max(now, start + _LEAST_RANGE))
    return PollPlan(
        windows=[*find_gaps(due, all_owed), *_list_due(owed)],
        start=start,
        end=due.before,
        watermark=watermarks.get_watermark(connection, campaign_id),
        reread_through=watermarks.get_reread_through(connection, campaign_id),
        now=now,
        no_outcome_since=awaited if awaited and now - awaited > UNIT_DOUBTED_AFTER else None,
        covered=all_owed,
        accepted=[each.window for each in owed if each.accepted_at is not None],
        limits=learned_limits.get_learned_limits(connection, campaign_id),
    )


def _plan_owed(run: CampaignRun[ApiContext]) -> PollJob | None:
    """Plan to read again what a backfill owes, of a campaign that has sent no lead; else None."""
    campaign_id = run.campaign.campaign_id
    with run.context.database.transaction() as connection:
        owed = owed_windows.list_owed_windows(connection, [campaign_id])
        now = watermarks.get_database_time(connection)
        limits = learned_limits.get_learned_limits(connection, campaign_id)
    due = _list_due(owed)
    if not due:
        return None
    span = Window(
        after=min(window.after for window in due), before=max(window.before for window in due)
    )
    plan = PollPlan(
        windows=due,
        start=span.after,
        end=span.before,
        watermark=None,
        reread_through=None,
        now=now,
        reads_lookback=False,
        covered=[each.window for each in owed],
        accepted=[each.window for each in owed if each.accepted_at is not None],
        backfill=span,
        limits=limits,
    )
    return PollJob(run, plan)


def _list_due(owed: Sequence[OwedWindow]) -> list[Window]:
    """Return the owed windows that are due, the longest first: most can be gained there."""
    due = [each.window for each in owed if each.is_due]
    return sorted(due, key=lambda window: (-window.length, window))


def plan_backfill(run: CampaignRun[ApiContext], wanted: Window) -> PollJob:
    """Plan a backfill of a range; an interrupted backfill of the same range is resumed."""
    campaign_id = run.campaign.campaign_id
    with run.context.database.transaction() as connection:
        now = watermarks.get_database_time(connection)
        watermark = watermarks.get_watermark(connection, campaign_id)
        reread_through = watermarks.get_reread_through(connection, campaign_id)
        lookback_start = find_lookback_start(connection, run.campaign, now)
        closed = watermarks.list_resumable_windows(connection, campaign_id, wanted)
        owed = owed_windows.list_owed_windows(connection, [campaign_id])
        limits = learned_limits.get_learned_limits(connection, campaign_id)
    if closed:
        run.log_step("resuming the last backfill of this range")
    return PollJob(
        run,
        PollPlan(
            windows=find_gaps(wanted, closed),
            start=wanted.after,
            end=wanted.before,
            watermark=watermark,
            reread_through=reread_through,
            now=now,
            # Windows that an earlier run has closed may show late results since, and so may the
            # lookback where the range begins within it.
            reads_lookback=(
                not closed and lookback_start is not None and wanted.after <= lookback_start
            ),
            covered=[*closed, *(each.window for each in owed)],
            accepted=[each.window for each in owed if each.accepted_at is not None],
            backfill=wanted,
            limits=limits,
        ),
    )


# Windows a chunk: at most forty minutes at the polls' share of the rate limit. Nothing is read
# ahead at the end of a chunk, so the next one begins with nothing to store: at 20 windows a chunk,
# a twentieth of a poll.
POLL = JobSpec(
    flow="poll-outcomes",
    task="read-windows",
    counts=("windows", "pages", "seen", "inserted", "updated", "unchanged", "late", "owed"),
    open_context=partial(open_api_context, purpose=Purpose.POLLS),
    start=plan_poll,
    find_due=partial(look_round, _plan_after_look),
    min_chunk=40,
)

#: The same job from the head on: see `plan_head_poll`.
HEAD_POLL = replace(POLL, start=plan_head_poll, find_due=None)
