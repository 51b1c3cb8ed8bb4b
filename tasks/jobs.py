"""Jobs: what a flow does for one campaign, in chunks, and the turns that campaigns take.

Nothing here knows Prefect: a flow passes a host that runs each chunk as a Prefect task
(`flows/campaign_runner.py`); another program, or a test, runs the same chunks as plain calls.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Protocol

from db import campaigns
from db.database import Connection, DatabaseError
from leadloop.core.boot_clock import read_boot_clock, sleep_until
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError, RunError
from leadloop.core.summaries import Summary
from leadloop.core.summary_text import (
    format_summary,
    has_counts,
    name_campaigns,
    shorten_lines,
)
from leadloop.settings import Settings
from tasks.accounts import group_by_account, has_several_accounts
from tasks.context import (
    AnyContext,
    C,
    CampaignRun,
    DatabaseContext,
    RunHost,
    SelectCampaigns,
    cover_campaigns,
    error_line,
    finish_run,
    open_runs,
    start_run,
    start_runs,
    translate_unexpected,
)
from tasks.rate_limiter import PATIENCE_S, AccountPaused
from tasks.step_log import StepLog

# A chunk is at least this part of what the job has done. So a run stays at a few hundred chunks and
# Prefect tasks, however long the backlog is.
_MIN_CHUNK_DIVISOR = 50


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """The result of a chunk: the job is done, or when its next chunk is due.

    Attributes:
        due_at: seconds of `read_boot_clock`; None where the job is done.
    """

    due_at: float | None


#: The job has more work, which is due at once.
MORE = ChunkResult(due_at=0.0)
#: The job has done its work.
DONE = ChunkResult(due_at=None)


def due_in(seconds: float) -> ChunkResult:
    """Return the result of a job whose next chunk is due after a pause."""
    return ChunkResult(due_at=read_boot_clock() + seconds)


class CampaignJob(Protocol):
    """A flow's work for one campaign.

    It keeps nothing that Postgres does not know, so that any later run can go on with the work.
    """

    def run_chunk(self, limit: int) -> ChunkResult:
        """Do up to `limit` units of work (batches, windows, purge steps).

        Raises:
            RunError: the job cannot go on.
        """

    def finish(self) -> None:
        """Check the finished work.

        Raises:
            RunError: the work is incomplete.
        """

    def counts(self) -> dict[str, int]:
        """Return the counts of docs/reference/exit-codes-and-json.md."""


#: Makes a campaign's job; returns None where there is nothing to do.
StartJob = Callable[[CampaignRun[C]], CampaignJob | None]


@dataclass(frozen=True, kw_only=True)
class DueCampaigns(Generic[C]):
    """The answer to what is due in the campaigns of a run.

    Attributes:
        ids: the campaigns that need a job.
        starts: makes the jobs of some of them, in place of the spec.
        counted: the counts of the others that are not 0, and the requests that the question has
            sent for campaigns that need a job.
        totals: further counts of the covering row.
    """

    ids: Set[str]
    starts: Mapping[str, StartJob[C]] = field(default_factory=dict)
    counted: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)


#: Finds what is due in the selected campaigns, as the run with the number of the covering row.
FindDue = Callable[[C, Sequence[Campaign], int], DueCampaigns[C]]


def ask_database(find: Callable[[Connection], Set[str]]) -> FindDue[AnyContext]:
    """Return a `find_due` that is a query: it finds the campaigns that need a job."""

    def find_due(context: AnyContext, _: Sequence[Campaign], __: int) -> DueCampaigns[AnyContext]:
        return DueCampaigns(ids=context.database.retry(find, single_statement=True))

    return find_due


@dataclass(frozen=True, kw_only=True)
class JobSpec(Generic[C]):
    """How a flow makes and runs the jobs of its campaigns.

    Attributes:
        flow: the flow's name.
        task: the name of the step that runs a chunk, which Prefect shows as a task.
        counts: the names of the summary's counts, besides `requests`.
        open_context: connects to what the jobs work with.
        start: makes a campaign's job.
        select: finds the campaigns by their ids.
        find_due: finds, for all campaigns at once, those in which the job may have anything to do
            or to count; None: all. A run that names campaigns does not ask.
        min_chunk: the smallest chunk, in units of work.
        finish_all: is called after the last chunk of a run that names no campaign, with the
            accounts that were left out because of a pause.
    """

    flow: str
    task: str
    counts: Sequence[str]
    open_context: Callable[[Settings, RunHost], AbstractContextManager[C]]
    start: StartJob[C]
    select: SelectCampaigns = campaigns.select_campaigns
    find_due: FindDue[C] | None = None
    min_chunk: int = 20
    finish_all: Callable[[C, Set[str]], None] | None = None


class CampaignsFailed(RunError):
    """Some campaigns failed, for the `reasons` that it lists; the others were done."""

    def __init__(self, reasons: Sequence[str], summary: Summary) -> None:
        self.reasons = reasons
        self._done = [f"done: {format_summary(summary)}"] if has_counts(summary) else []
        super().__init__("; ".join([*reasons, *self._done]))

    def shorten(self) -> str:
        """Return the message with the first reasons alone, and how many more there are."""
        return "; ".join([*shorten_lines(self.reasons), *self._done])


class JobRunner(Generic[C]):
    """Runs the jobs of one flow run: one job a campaign, in turns, so that none starves another.

    A run that names no campaign asks once for all of them what is due, if its spec can. Campaigns
    in which nothing is due share one row, the covering row of their account, and have no job.

    Args:
        context: what the jobs work with.
        spec: how the flow makes and runs its jobs.
        ids: campaigns; none: all that the spec selects.

    Raises:
        UsageError: a campaign is unknown, or there is none to run.
    """

    def __init__(self, context: C, spec: JobSpec[C], ids: Sequence[str] | None) -> None:
        self._context = context
        self._spec = spec
        self._selected = context.select_campaigns(ids, spec.select)
        self._find_due = None if ids else spec.find_due
        self._finish_all = None if ids else spec.finish_all
        self._executions: list[CampaignExecution[C]] = []
        self._left_out: set[str] = set()
        # What was counted of campaigns without a job.
        self._counted: dict[str, dict[str, int]] = {}

    @property
    def campaign_ids(self) -> list[str]:
        """The campaigns of this run."""
        return [campaign.campaign_id for campaign in self._selected]

    def run(self, *, on_started: Callable[[Sequence[Any]], None] = lambda _: None) -> None:
        """Start every job, then run chunks in turns until all jobs are done or have failed.

        Args:
            on_started: is called with all jobs before the first chunk.

        Raises:
            CampaignsFailed: at least one campaign failed; the others were done.
            BaseException: the run was stopped (Ctrl-C, SIGTERM); every run's row states it.
        """
        names = name_campaigns(self.campaign_ids)
        self._context.log.info("%s begins with %s", self._spec.flow, names)
        try:
            self._open_rows()
            steps = self._begin_steps()
            for each in self._executions:
                each.start(steps)
            on_started([each.job for each in self._executions if each.job is not None])
            self._run_round_robin()
            if self._finish_all is not None:
                self._finish_all(self._context, self._find_paused())
        finally:
            for each in self._executions:
                each.finish_if_open()
        failed = {each.campaign.campaign_id: each.error for each in self._executions if each.error}
        if failed:
            lines = [f"campaign {name}: {error_line(error)}" for name, error in failed.items()]
            raise CampaignsFailed(lines, self.summary())

    def summary(self) -> Summary:
        """Return the sums of the counts, and under `campaigns` each campaign's own."""
        nothing = dict.fromkeys([*self._spec.counts, "requests"], 0)
        counted = self._counted | {
            part.campaign.campaign_id: part.counted for part in self._executions
        }
        each = {name: dict(counted.get(name, nothing)) for name in self.campaign_ids}
        return {**sum_counts(each.values(), [*self._spec.counts, "requests"]), "campaigns": each}

    def _open_rows(self) -> None:
        """Write the rows of the run: of all campaigns; or covering rows and those of due ones.

        Dead runs are recovered before the question what is due: what they sent is in doubt then.
        """
        context, spec = self._context, self._spec
        if self._find_due is None:
            self._open_runs(
                partial(start_runs, context, spec.flow),
                [
                    CampaignExecution(context.for_campaign(each), spec, each)
                    for each in self._selected
                ],
            )
            return
        for account, group in (
            group_by_account(self._selected) or {context.account_name: []}
        ).items():
            if not self._is_left_out(account, group):
                self._open_due_rows(account, group, self._find_due)
        names = name_campaigns([each.campaign.campaign_id for each in self._executions])
        due = names if self._executions else "no campaign"
        self._context.log.info("work is due in %s", due)

    def _is_left_out(self, account: str, group: Sequence[Campaign]) -> bool:
        """Return whether an account is paused for so long that it is left to a later run."""
        error = find_paused_accounts(self._context, group).get(account)
        if error is None:
            return False
        self._left_out.add(account)
        self._context.log.warning("%s", error)
        nothing = dict.fromkeys([*self._spec.counts, "requests"], 0)
        self._counted |= {each.campaign_id: dict(nothing) for each in group}
        return True

    def _find_paused(self) -> Set[str]:
        """Return the accounts whose part was left out, or ended, because of a pause."""
        ended = [each for each in self._executions if isinstance(each.error, AccountPaused)]
        return self._left_out | {each.campaign.account for each in ended}

    def _open_due_rows(self, account: str, group: Sequence[Campaign], find_due: FindDue[C]) -> None:
        """Write the covering row of an account, and the rows of its campaigns that are due."""
        spec = self._spec
        context = self._context.for_campaign(group[0]) if group else self._context
        with cover_campaigns(context, spec.flow, account) as covering:
            due = find_due(context, group, covering.run_id)
            executions = [
                CampaignExecution(
                    context,
                    replace(spec, start=due.starts.get(each.campaign_id, spec.start)),
                    each,
                    requests=due.counted.get(each.campaign_id, {}).get("requests", 0),
                )
                for each in group
                if each.campaign_id in due.ids
            ]
            self._open_runs(partial(open_runs, context, spec.flow), executions)
            nothing = dict.fromkeys([*spec.counts, "requests"], 0)
            counted = {
                each.campaign_id: {**nothing, **due.counted.get(each.campaign_id, {})}
                for each in group
                if each.campaign_id not in due.ids
            }
            self._counted |= counted
            sums = sum_counts(counted.values(), list(nothing))
            covering.counts.update({**sums, **due.totals, "covered": len(counted)})
            covering.error = _find_missing_rows(executions)

    def _begin_steps(self) -> StepLog:
        log, campaigns = self._context.log, len(self._executions)
        steps = StepLog(log.info, campaigns)
        if not steps.has_each:
            log.info(
                "%d campaigns have work: the log has the sums of their counts, and"
                " leadloop.sync_runs each one's",
                campaigns,
            )
        return steps

    def _open_runs(
        self,
        open_rows: Callable[[Sequence[Campaign]], list[CampaignRun[C]]],
        executions: list["CampaignExecution[C]"],
    ) -> None:
        """Write the rows of campaigns at once; if Postgres refuses one, one by one."""
        self._executions += executions
        try:
            opened = open_rows([each.campaign for each in executions])
        except DatabaseError as error:
            self._context.log.warning("the runs' rows are written one by one: %s", error)
            for each in executions:
                each.open()
            return
        for each, run in zip(executions, opened, strict=True):
            each.run = run

    def _run_round_robin(self) -> None:
        """Run a chunk of each job that is due; sleep while none is. Accounts take turns.

        So an account whose vendor does not answer takes as many turns as any other, however many
        campaigns it has; and one whose vendor has asked for a pause takes none before its end. A
        longer pause ends its part: the other accounts' next run must not wait for it.
        """
        groups: dict[str, list[CampaignExecution[C]]] = {}
        for each in self._executions:
            groups.setdefault(each.campaign.account, []).append(each)
        turns = {account: _run_turns(group) for account, group in groups.items()}
        due_at = dict.fromkeys(turns, 0.0)
        while due_at:
            sleep_until(min(due_at.values()))
            now = read_boot_clock()
            for account in [name for name, at in due_at.items() if at <= now]:
                context = self._context.for_campaign(groups[account][0].campaign)
                pause_s = _find_pause_s(context) if len(groups) > 1 else 0.0
                if pause_s > PATIENCE_S:
                    for each in groups[account]:
                        each.fail(AccountPaused(account, pause_s))
                    del due_at[account]
                elif pause_s > 0:
                    due_at[account] = now + pause_s
                elif (next_at := next(turns[account], None)) is None:
                    del due_at[account]
                else:
                    due_at[account] = next_at
                self._context.folder.fold_in_long_run(
                    self._context.database, self._context.log.warning
                )


def _find_pause_s(context: DatabaseContext) -> float:
    """Return the seconds of the vendor's pause; 0 where Postgres fails: a chunk finds out why."""
    try:
        return context.find_pause_s()
    except DatabaseError:
        return 0.0


def find_paused_accounts(
    context: DatabaseContext, selected: Sequence[Campaign]
) -> dict[str, AccountPaused]:
    """Return the accounts that a run of several leaves out now because of a pause, and why."""
    if not has_several_accounts(context.settings):
        return {}
    pauses = {
        account: _find_pause_s(context.for_campaign(group[0]))
        for account, group in group_by_account(selected).items()
    }
    return {
        account: AccountPaused(account, pause_s)
        for account, pause_s in pauses.items()
        if pause_s > PATIENCE_S
    }


def _find_missing_rows(executions: Sequence["CampaignExecution[C]"]) -> RunError | None:
    """Return an error if campaigns have no row: the covering row does not stand for them."""
    missing = sum(each.run is None for each in executions)
    return RunError(f"campaigns whose row Postgres refused: {missing}") if missing else None


def _run_turns(executions: Sequence["CampaignExecution[C]"]) -> Iterator[float]:
    """Run a chunk of each job that is due, one at a time, until all are done.

    Yields:
        When the next chunk is due, seconds of `read_boot_clock`.
    """
    waiting = [each for each in executions if each.is_open]
    while waiting:
        yield min(each.due_at for each in waiting)
        now = read_boot_clock()
        for each in [each for each in waiting if each.due_at <= now]:
            each.run_chunk()
            yield 0.0
        waiting = [each for each in waiting if each.is_open]


class CampaignExecution(Generic[C]):
    """One campaign in a flow run: its row in `leadloop.sync_runs`, its job, its counts.

    Args:
        context: what the job works with.
        spec: how the job is made and run.
        campaign: the campaign.
        requests: requests that were sent for the campaign before.

    Attributes:
        campaign: the campaign.
        run: its run; None before the row is written, and after the run's end.
        job: its job; None before the start, and where there is nothing to do.
        error: how it failed.
        counted: its counts.
        due_at: when its next chunk is due, seconds of `read_boot_clock`.
    """

    def __init__(
        self, context: C, spec: JobSpec[C], campaign: Campaign, *, requests: int = 0
    ) -> None:
        self.campaign = campaign
        self.run: CampaignRun[C] | None = None
        self.job: CampaignJob | None = None
        self.error: LeadloopError | None = None
        self.counted: dict[str, int] = dict.fromkeys([*spec.counts, "requests"], 0)
        self.due_at = 0.0
        self._context = context
        self._spec = spec
        self._requests = requests
        self._steps: StepLog | None = None
        self._done = 0

    @property
    def is_open(self) -> bool:
        """Whether the run's row is still `running`."""
        return self.run is not None

    def open(self) -> None:
        """Write the run's row, if it has none."""
        with self._collect_failure():
            self.run = self.run or start_run(self._context, self._spec.flow, self.campaign)

    def start(self, steps: StepLog | None = None) -> None:
        """Write the run's row, if it has none, and make the job; end if there is nothing to do."""
        self._steps = steps
        if self.error is None:
            self.open()
        with self._collect_failure():
            if self.run is not None:
                self.run.steps = steps
                self.job = self._spec.start(self.run)
        if self.job is None or self.error:
            self._finish()

    def run_chunk(self) -> None:
        """Run one chunk; end the run where the job is done or failed, or the campaign is gone."""
        assert self.job is not None, "a run without a job ends when it starts"
        assert self.run is not None, "a run that has ended has no turn"
        due_at = None
        with self._collect_failure():
            self.run.refresh()
            limit = max(self._spec.min_chunk, self._done // _MIN_CHUNK_DIVISOR)
            chunk = partial(self.job.run_chunk, limit)
            ids = [self.campaign.campaign_id]
            due_at = self._context.host.run_step(self._spec.task, ids, chunk).due_at
            self._done += limit
            if due_at is None:
                # Without its row, a campaign has nothing to do: that is not the end of its work.
                self.run.reload()
                self.job.finish()
        if due_at is None:
            self._finish()
        else:
            self.due_at = due_at

    def fail(self, error: LeadloopError) -> None:
        """End the run with an error, where it has not ended, without another chunk."""
        if self.is_open:
            with self._collect_failure():
                raise error
            self._finish()

    def finish_if_open(self) -> None:
        """End the run as one that was stopped, where it has not ended."""
        if self.is_open:
            self.error = self.error or RunError("the run was stopped before it was done")
            self._finish()

    def hand_over(self) -> None:
        """End the run as it stands, where it has not ended: another run goes on with the work."""
        if self.is_open:
            self._finish()

    def _finish(self) -> None:
        """Count what was done and close the run's row."""
        run, self.run = self.run, None
        with self._collect_failure():
            if self.job is not None:
                self.counted |= self.job.counts()
        self.counted["requests"] = self._requests
        with self._collect_failure():
            if run is not None:
                finish_run(run, self.counted, self.error)
                shown = {name: self.counted[name] for name in [*self._spec.counts, "requests"]}
                if has_counts(shown):
                    word = "ended" if self.error else "done"
                    run.log_step("%s: %s", word, format_summary(shown))

    @contextmanager
    def _collect_failure(self) -> Iterator[None]:
        """Count the requests of a block, and keep its error: other campaigns continue.

        Only a stop (Ctrl-C, SIGTERM) passes.
        """
        before = self._context.requests_sent
        try:
            with (
                translate_unexpected(self._context.log),
                self._context.database.translate_errors(),
            ):
                yield
        except LeadloopError as error:
            self.error = self.error or error
            if self._steps is None or self._steps.admit_failure():
                self._context.log.error(
                    "campaign %s: %s", self.campaign.campaign_id, error_line(error)
                )
        finally:
            self._requests += self._context.requests_sent - before


def sum_counts(counted: Iterable[Mapping[str, int]], names: Sequence[str]) -> dict[str, int]:
    """Add up counts by name."""
    each = list(counted)
    return {name: sum(counts.get(name, 0) for counts in each) for name in names}
