"""The poll and backfill jobs: read windows, verify each, and store it with the watermark.

No transaction spans a request. One transaction stores the outcomes, the attempts, the window and
the watermark, so the watermark is never ahead of the stored outcomes.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from db import leads, outcomes, watermarks
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
# The parts of a window that the vendor rejects, or fails on.
_PARTS_OF_REJECTED = 16
#: After this time without any outcome, the poll checks the unit of the bounds.
UNIT_DOUBTED_AFTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class PollPlan:
    """The windows of a poll or a backfill.

    Attributes:
        windows: the windows to read, in order.
        start: the start of the range that may move the watermark.
        proven: windows after the start that are already proven complete.
        silent_since: the time of the first sent lead, if that is long ago and the campaign has no
            outcome at all; else None.
        watermark: the watermark, None without one.
        now: the database's clock.
        from_sending: the start is the time of the first sent lead, and sets the first watermark.
            That time is of our clock and has to be converted to the vendor's.
        backfill: the range of a backfill; None for a poll, which goes on up to the vendor's clock
            if that is ahead of the database's.
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
    """One campaign's poll or backfill: ranges of `processed_at`, window by window."""

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
        self._parent_counts: dict[Window, int] = {}
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
        """The windows of the plan, before any was split."""
        return self._plan.windows

    def run_chunk(self, limit: int) -> ChunkResult:
        """Read and store up to `limit` windows.

        Raises:
            RunError: the vendor rejects the login, or fails repeatedly; what was read is stored.
        """
        try:
            with self._threads(), self.run.context.open_threads() as pool:
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
        """Return the counts of docs/reference/exit-codes-and-json.md, and both lookbacks (s)."""
        return {
            **self._counters.counts(),
            "lookback_s": self.run.campaign.lookback_s,
            "lookback_needed_s": math.ceil(self.lateness.needed_lookback_s),
        }

    def finish(self) -> None:
        """Warn about late outcomes; raise if a window is unverified.

        Raises:
            RunError: a window could not be verified, or the watermark lies in the future.
        """
        late = format_lookback_warning(self.lateness, lookback_s=self.run.campaign.lookback_s)
        if late:
            self.run.warn("%s", late)
        if self.incomplete:
            raise RunError(
                f"{self.incomplete} windows could not be verified: the rows read are not as many as"
                " the API counts; the rows are stored, the watermark did not move, and the next"
                " poll reads these windows again"
            )
        if self.watermark_ahead:
            raise RunError(self.watermark_ahead)

    def _next(self, pool: RequestThreads, left: int) -> None:
        """Read the first planned window, and store it while the next one is read."""
        reading = self._read(pool, self._windows[0], left)
        if reading is None:
            return
        self._require_unit(reading)
        self._await_stored()
        self._stored = self._keeper.submit(self._store, reading)
        self._parent_counts.pop(self._windows.pop(0), None)
        self._attempts.reset()
        if self._follow and not self._windows:
            # Read on from our clock to the vendor's, once; the next poll reads the rest.
            self._follow = False
            end = clock_skew.read_ahead_end(reading.window.before, reading.first.vendor_now)
            if end is not None:
                self._windows.append(Window(after=reading.window.before, before=end))
                self._listener.add_total(self._label, 1)

    def _read(self, pool: RequestThreads, window: Window, left: int) -> WindowRead | None:
        """Read the first window; return None if shorter windows replaced it in the plan."""
        self._split_upcoming(pool, left)
        for upcoming in self._coming(pool, left):
            if upcoming not in self._firsts:
                self._firsts[upcoming] = pool.submit(self._reader.read_first_page, upcoming)
        try:
            first = self._firsts[window].result()
        except (Rejected, Retryable) as error:
            if not self._is_too_long(window, error):
                raise
            self._replace_window(window, split_window(window, _PARTS_OF_REJECTED))
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

    def _coming(self, pool: RequestThreads, left: int) -> Sequence[Window]:
        """Return the next windows, of the `left` windows that this chunk still reads."""
        return self._windows[: min(left, pool.size)]

    def _whole(self, pool: RequestThreads, left: int) -> WindowRead | None:
        """Read the whole first window; return None if it has to be split.

        The next window is begun meanwhile, since the pool is idle while this window is verified
        request by request. The pages of the next window queue behind those of this one, so that
        neither takes longer: the longer a read takes, the more rows move.
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
        page = first.result()
        if self._count_parts(window, page) > 1:
            return None
        return self._reader.read_window(pool, window, page)

    def _split_upcoming(self, pool: RequestThreads, left: int) -> None:
        """Split upcoming windows whose first page shows that they hold too many rows.

        A later split would be too late, since nothing could be begun while the window
        before is verified. Windows with a doubtful count are split only when they are next.
        """
        for window in self._coming(pool, left)[1:]:
            first = self._firsts.get(window)
            if first is None or not first.done() or first.exception():
                continue
            page = first.result()
            if self._count_parts(window, page) > 1 and not self._is_doubtful(window, page):
                self._split_window(window, page)

    def _split_window(self, window: Window, first: ParsedPage) -> None:
        """Replace a window whose first page shows too many rows by parts.

        Once a poll, check that the API's count depends on the bounds of a window.

        Raises:
            RunError: it does not.
        """
        if self._is_doubtful(window, first):
            self._bounds_respected = self._reader.respects_bounds()
            if not self._bounds_respected:
                raise RunError(
                    f"the API's count ({first.count}) ignores processed_after and processed_before,"
                    " so no window can be verified and the watermark did not move: ask the vendor"
                )
        parts = split_window(window, self._count_parts(window, first))
        self._replace_window(window, parts)
        self._parent_counts |= dict.fromkeys(parts, first.count)

    def _replace_window(self, window: Window, parts: Sequence[Window]) -> None:
        """Replace a window of the plan by shorter ones."""
        at = self._windows.index(window)
        self._windows[at : at + 1] = parts
        for known in (self._firsts, self._readings, self._parent_counts):
            known.pop(window, None)
        self._listener.add_total(self._label, len(parts) - 1)

    def _count_parts(self, window: Window, first: ParsedPage) -> int:
        """Return into how many parts a window has to be split; 1: it can be read as a whole."""
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

    def _is_doubtful(self, window: Window, first: ParsedPage) -> bool:
        """Return whether a part counts as much as the whole: the API may ignore the bounds."""
        whole = self._parent_counts.get(window, first.count + 1)
        return first.count >= whole and not self._bounds_respected

    def _require_unit(self, reading: WindowRead) -> None:
        """Check once a poll without any outcome so far that the unit of the bounds is right.

        The check comes before the first window is stored: with the wrong unit, the watermark must
        not move.

        Raises:
            RunError: with the other unit, the API counts outcomes.
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
                f" where times are sent in {unit}, not {campaign.epoch_unit}; the watermark did not"
                f" move: set epoch_unit of the campaign, or LEADLOOP_EPOCH_UNIT, to {unit}, and the"
                " next poll reads all outcomes"
            )

    def _is_too_long(self, window: Window, error: ApiError) -> bool:
        """Return whether a failure may be due to a window longer than the campaign's maximum.

        A rejection counts at once, and another failure the second time.
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
    def _threads(self) -> Iterator[None]:
        """Open the threads that read windows ahead, and the one that stores them in order.

        At the end, wait for what is being stored, and drop unfinished reads.
        """
        with ThreadPoolExecutor(_WINDOWS_AT_ONCE) as self._readers:
            try:
                with ThreadPoolExecutor(1) as self._keeper:
                    try:
                        yield
                    finally:
                        self._await_stored()
            finally:
                self._firsts.clear()
                self._readings.clear()

    def _await_stored(self) -> None:
        """Wait until the previous window is stored, so that at most three are in memory.

        The others are the window just read and the one that is read ahead.
        """
        if self._stored is not None:
            stored, self._stored = self._stored, None
            stored.result()

    def _store(self, reading: WindowRead) -> None:
        """Store a window, its proof and the watermark in one transaction."""
        proof = prove_window(
            reading.window,
            complete=reading.complete,
            now=reading.first.now,
            settle=self.run.campaign.settle,
        )
        proven = merge_windows([*self._proven, proof.proven]) if proof.proven else self._proven
        records = self._window_records(reading)

        def write(connection: Connection) -> tuple[outcomes.MergeCounts, LateOutcomes]:
            stored = self._write_results(connection, reading)
            through = find_contiguous_end(self._plan.start, proven)
            campaign_id = self.run.campaign.campaign_id
            watermarks.advance_watermark(
                connection, campaign_id, after=self._plan.start, through=through
            )
            watermarks.record_windows(connection, campaign_id, records)
            return stored

        stored, late = self.run.write(write)
        self._proven = proven
        self.incomplete += not reading.complete
        self.lateness += late
        self._counters.add(
            windows=len(records),
            seen=len(reading.seen),
            inserted=stored.inserted,
            updated=stored.updated,
            unchanged=stored.unchanged,
            late=late.count,
        )
        self._listener.advance(self._label, 1)

    def _window_records(self, reading: WindowRead) -> list[WindowRecord]:
        """Return the windows to record: several for a window longer than the maximum."""
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
        """Merge the window's outcomes, attempts and unreadable results; mark late outcomes."""
        campaign_id, watermark = self.run.campaign.campaign_id, self._plan.watermark
        outcomes.store_unreadable(connection, campaign_id, reading.unreadable)
        stored = outcomes.merge_outcomes(
            connection, campaign_id, outcomes=reading.outcomes, attempts=reading.attempts
        )
        if watermark is None or self._plan.silent_since is not None:
            # A longer lookback would not have found a campaign's first outcomes earlier.
            return stored, LateOutcomes()
        return stored, outcomes.mark_late_outcomes(
            connection, campaign_id, reading.window, run_id=self.run.run_id, watermark=watermark
        )

    def _compare_clocks(self, first: ParsedPage) -> None:
        """Warn once a poll about clock skew, and note a watermark in the future."""
        if self._clocks_seen:
            return
        self._clocks_seen = True
        skew = clock_skew.describe_skew(first.vendor_now, first.ours)
        if skew:
            self.run.warn("%s", skew)
        if self._plan.watermark is not None:
            self.watermark_ahead = clock_skew.describe_future_watermark(
                self._plan.watermark, first.vendor_now, first.ours
            )

    def _begins_earlier(self, first: ParsedPage) -> bool:
        """Set a first watermark; return whether the poll has to start earlier than planned.

        If the vendor's clock is behind ours, a lead processed just after its create has an earlier
        time than the create. The first response shows by how much.
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


def plan_poll(run: CampaignRun[ApiContext], *, since: datetime | None = None) -> PollJob | None:
    """Plan the due poll: from the watermark minus the lookback up to now.

    Without a watermark, the poll starts at `since`, or else at the first sent lead minus the
    lookback (and minus the lag of the vendor's clock). While a campaign has no outcome at all, each
    poll starts there: this costs no more, and no outcome is lost if a setting was wrong at first.
    Incomplete windows of earlier polls come first.

    Returns:
        The job; None if no lead was ever sent, so that none can be processed.
    """
    campaign = run.campaign
    with run.context.database.transaction() as connection:
        now = watermarks.get_database_time(connection)
        watermark = watermarks.get_watermark(connection, campaign.campaign_id)
        from_sending = watermark is None and since is None
        awaited = outcomes.get_waiting_since(connection, campaign.campaign_id)
        if watermark is not None:
            start = subtract_to_epoch(min(watermark, now, awaited or now), campaign.lookback)
        else:
            first = since or leads.get_first_sent_at(connection, campaign.campaign_id)
            if first is None:
                return None
            if since is None:
                # A clock skew that counts as none must not hide the first outcomes.
                first = subtract_to_epoch(first, campaign.lookback + clock_skew.NEGLIGIBLE_SKEW)
            watermark = start = max(EPOCH, min(first, now))
            if since is not None:
                watermarks.start_watermark(connection, campaign.campaign_id, start)
        incomplete = watermarks.list_incomplete_windows(connection, campaign.campaign_id)
    # A poll sends at least one request, also if the clocks differ.
    due = Window(after=start, before=max(now, start + _SHORTEST))
    windows = [gap for window in incomplete for gap in find_gaps(window, [due])]
    plan = PollPlan(
        windows=[*windows, due],
        start=start,
        watermark=watermark,
        now=now,
        from_sending=from_sending,
        silent_since=awaited if awaited and now - awaited > UNIT_DOUBTED_AFTER else None,
    )
    return PollJob(run, plan)


def plan_backfill(run: CampaignRun[ApiContext], wanted: Window) -> PollJob:
    """Plan a backfill of a range; an interrupted backfill of the same range is resumed."""
    campaign_id = run.campaign.campaign_id
    with run.context.database.transaction() as connection:
        now = watermarks.get_database_time(connection)
        watermark = watermarks.get_watermark(connection, campaign_id)
        closed = watermarks.list_resumable_windows(connection, campaign_id, wanted)
    if closed:
        run.context.log.info("campaign %s: resuming the last backfill of this range", campaign_id)
    return PollJob(
        run,
        PollPlan(
            windows=find_gaps(wanted, closed),
            start=wanted.after,
            watermark=watermark,
            now=now,
            proven=closed,
            backfill=wanted,
        ),
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
