"""What every flow does: one run a campaign, turns between them, one sum at the end."""

import ctypes
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

from db import campaign_status, campaigns
from db.database import DatabaseError
from flows.reporting import Summary, emit_problem_events, publish_artifacts, report_progress
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError, RunError
from leadloop.core.summary_text import format_summary, has_counts
from leadloop.settings import Settings
from tasks import context
from tasks.blocks import RunSettings, resolve_settings
from tasks.context import CampaignRun, RunContext, error_line

# A task is many batches or windows, and the more there is to do, the more each of them takes on: a
# run stays at a few hundred tasks, however long the backlog.
_LEAST = 20
_SHARES = 50
# mallopt's name for it in glibc's malloc.h.
_M_ARENA_MAX = -8


class Work(Protocol):
    """What a flow does for one campaign."""

    run: CampaignRun

    def counts(self) -> dict[str, int]:
        """What has been done, under the contract's names."""


Open = Callable[[Settings], AbstractContextManager[RunContext]]
Choose = Callable[[RunContext, Sequence[str] | None], list[Campaign]]
Start = Callable[[CampaignRun], Work | None]
Step = Callable[[Any, int], bool]


class CampaignsFailed(RunError):
    """Some campaigns could not be done: `reasons`; `summary` says what was done all the same."""

    def __init__(self, reasons: Sequence[str], summary: Summary) -> None:
        done = [f"done: {format_summary(summary)}"] if has_counts(summary) else []
        super().__init__("; ".join([*reasons, *done]))
        self.reasons = reasons
        self.summary = summary


def chosen(place: RunContext, ids: Sequence[str] | None) -> list[Campaign]:
    """The campaigns of a flow run; none named: every enabled one.

    Raises:
        UsageError: a campaign is unknown, or none is enabled.
    """
    with place.database.transaction() as connection:
        return campaigns.select_campaigns(connection, ids, place.settings.campaign_rules())


def to_disable(place: RunContext, ids: Sequence[str] | None) -> list[Campaign]:
    """Return the campaigns of a disable run; none named: enabled ones, and others with opt-outs.

    Raises:
        UsageError: a campaign is unknown, or there is none.
    """
    with place.database.transaction() as connection:
        return campaigns.select_for_disable(connection, ids, place.settings.campaign_rules())


def every(place: RunContext, ids: Sequence[str] | None) -> list[Campaign]:
    """The campaigns of a flow run; none named: all of them, also those that are not enabled.

    Raises:
        UsageError: a campaign is unknown.
    """
    with place.database.transaction() as connection:
        return campaigns.list_campaigns(connection, ids, place.settings.campaign_rules())


def run_campaigns(
    flow: str,
    ids: Sequence[str] | None,
    told: RunSettings | None,
    *,
    counts: Sequence[str],
    start: Start,
    step: Step,
    least: int = _LEAST,
    begun: Callable[[list[Any]], None] = lambda _: None,
    finish: Callable[[Any], None] = lambda _: None,
    opened: Open = context.open_api_context,
    choose: Choose = chosen,
) -> Summary:
    """Do a flow's work for its campaigns, taking turns, so that a huge one starves no other.

    Args:
        flow: the flow's name.
        ids: campaigns; none: all that `choose` takes.
        told: what the run was told of the settings.
        counts: the names that the summary has.
        start: makes a campaign's work, or None where there is nothing to do.
        step: does a share of it; True while there is more.
        least: the least that is a share, in batches or windows.
        begun: sees the work of all campaigns that have any before the first share is done.
        finish: looks at finished work; raises RunError where it is not as it must be.
        opened: opens what it works with.
        choose: finds the campaigns by their ids.

    Returns:
        The counts, and under `campaigns` each one's own.

    Raises:
        UsageError: settings are wrong, a campaign is unknown, the schema is not ours.
        CampaignsFailed: not all of it could be done; the rest was.
        BaseException: the run was stopped (Ctrl-C, SIGTERM); see `with_summary`.
    """
    _spare_what_stays()
    _limit_memory_arenas()
    settings = resolve_settings(told)
    with report_progress(), opened(settings) as place:
        parts = [
            _Part(place, flow, campaign, finish, counts, least) for campaign in choose(place, ids)
        ]
        try:
            for part in parts:
                part.begin(start)
            begun([part.work for part in parts if part.work is not None])
            _take_turns(parts, step)
        except BaseException as error:
            for part in parts:
                part.end_if_open()
            raise with_summary(error, _sums(parts, counts)) from None
        finally:
            publish_artifacts(flow, _sums(parts, counts), page=settings.page_url)
            emit_problem_events(_problems(place, [part.campaign_id for part in parts]))
    return _summary(parts, counts)


def _spare_what_stays() -> None:
    """Have the garbage collector leave out, from now on, what has been imported.

    That it went through all of it again and again, and once more when the process ended, took a
    sixth of a run that finds nothing to do.
    """
    if not gc.get_freeze_count():
        gc.freeze()


def _limit_memory_arenas() -> None:
    """Stop glibc's malloc from creating more arenas than the process has by now.

    Each thread otherwise keeps memory of its own: a poll of a million outcomes would take half as
    much again as one of ten thousand (docs/benchmarks.md). MALLOC_ARENA_MAX=1 does the same from
    the start of the process, but a work pool that sets it lets each run set its environment.
    """
    # Other C libraries have no such function, and no arenas either.
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _problems(place: RunContext, ids: Sequence[str]) -> list[dict[str, Any]]:
    """What is wrong with campaigns after a run of theirs."""
    if not ids:
        return []
    try:
        with place.database.transaction() as connection:
            return campaign_status.list_problems(connection, ids)
    except DatabaseError as error:
        place.log.warning("what is wrong with the campaigns could not be looked up: %s", error)
        return []


def with_summary(error: BaseException, summary: Summary) -> BaseException:
    """The error that stops a run, with a `summary` of what was done for whoever catches it.

    It stays the error that it is: Prefect tells a cancelled run from a failed one by its type.
    """
    vars(error)["summary"] = summary
    return error


class _Part:
    """One campaign in a flow run."""

    def __init__(
        self,
        place: RunContext,
        flow: str,
        campaign: Campaign,
        finish: Callable[[Any], None],
        counts: Sequence[str],
        least: int,
    ) -> None:
        self.campaign_id = campaign.campaign_id
        self.error: LeadloopError | None = None
        self.counted: dict[str, int] = dict.fromkeys([*counts, "requests"], 0)
        self._place = place
        self._flow = flow
        self._campaign = campaign
        self._finish = finish
        self._requests = 0
        self._run: CampaignRun | None = None
        self.work: Work | None = None
        self._least = least
        self._done = 0

    def begin(self, start: Start) -> None:
        """Write the run's row and make the campaign's work."""
        with self._counting():
            self._run = context.start_run(self._place, self._flow, self._campaign)
            self.work = start(self._run)

    def turn(self, step: Step) -> bool:
        """Do one share; True while there is more."""
        more = False
        with self._counting():
            if self.work is not None:
                share = max(self._least, self._done // _SHARES)
                more = step(self.work, share)
                self._done += share
                if not more:
                    self._finish(self.work)
        if not more or self.error:
            self.end()
        return more and self.error is None

    def end(self) -> None:
        """Write how it ended; where even that fails, it is no other campaign's trouble."""
        run, self._run = self._run, None
        with self._counting():
            if self.work is not None:
                self.counted |= self.work.counts()
        self.counted["requests"] = self._requests
        with self._counting():
            if run is not None:
                context.finish_run(run, self.counted, self.error)

    def end_if_open(self) -> None:
        """Write that it was broken off."""
        if self._run is not None:
            self.error = self.error or RunError("the run was stopped before it was done")
            self.end()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Count the requests of a share; an error ends this campaign and no other."""
        before = self._place.requests_sent
        try:
            with self._place.database.translate_errors():
                yield
        except LeadloopError as error:
            self.error = self.error or error
            self._place.log.error("campaign %s: %s", self.campaign_id, error_line(error))
        finally:
            self._requests += self._place.requests_sent - before


def _take_turns(parts: list[_Part], step: Step) -> None:
    waiting = list(parts)
    while waiting:
        waiting = [part for part in waiting if part.turn(step)]


def _summary(parts: Sequence[_Part], counts: Sequence[str]) -> Summary:
    summary = _sums(parts, counts)
    failed = {part.campaign_id: part.error for part in parts if part.error}
    if failed:
        lines = [f"campaign {name}: {error_line(error)}" for name, error in failed.items()]
        raise CampaignsFailed(lines, summary)
    return summary


def _sums(parts: Sequence[_Part], counts: Sequence[str]) -> Summary:
    each = {part.campaign_id: part.counted for part in parts}
    return {**added_up(list(each.values()), [*counts, "requests"]), "campaigns": each}


def added_up(counted: Sequence[Mapping[str, int]], names: Sequence[str]) -> dict[str, int]:
    """Sums by name."""
    return {name: sum(counts.get(name, 0) for counts in counted) for name in names}
