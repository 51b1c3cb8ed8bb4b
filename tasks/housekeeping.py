"""Housekeeping: purge what the tables need not keep indefinitely."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from db import campaigns
from db.housekeeping import HISTORY, HOURS, RAW, PurgeStep, clear_answers, clear_forgotten
from db.schema.counting import HOURS_KEPT_DAYS
from leadloop.settings import Settings
from tasks.context import CampaignRun, DatabaseContext, RunHost, open_database_context
from tasks.counters import Counters
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec


@dataclass(kw_only=True)
class HistoryPurge:
    """The purge of old rows of all campaigns of a run at once, whichever job has its turn.

    Attributes:
        steps: the steps that are left: the name of the count, the step, the minimum age in days.
        campaign_ids: the campaigns of the run.
    """

    steps: list[tuple[str, PurgeStep, int]]
    campaign_ids: list[str] = field(default_factory=list)
    _counts: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    @classmethod
    def plan(cls, settings: Settings) -> "HistoryPurge":
        """Return the purge that the settings ask for."""
        steps = [(name, purge, settings.keep_history) for name, purge in HISTORY.items()]
        steps += [(name, purge, HOURS_KEPT_DAYS) for name, purge in HOURS.items()]
        if settings.keep_raw is not None:
            steps += [(name, purge, settings.keep_raw) for name, purge in RAW.items()]
        return cls(steps=steps)

    def purge_chunk(self, run: CampaignRun[DatabaseContext]) -> None:
        """Purge one chunk of the first step that is left."""
        name, purge, days = self.steps[0]
        purged = run.write(purge, self.campaign_ids, days)
        if not purged:
            self.steps.pop(0)
        for campaign_id, amount in purged.items():
            counts = self._counts[campaign_id]
            counts[name] = counts.get(name, 0) + amount

    def counts_of(self, campaign_id: str) -> Mapping[str, int]:
        """Return how many rows of a campaign were purged."""
        return self._counts[campaign_id]


@dataclass(frozen=True, kw_only=True)
class HousekeepingContext(DatabaseContext):
    """A context whose jobs share the purge of history."""

    history: HistoryPurge


@contextmanager
def open_housekeeping_context(settings: Settings, host: RunHost) -> Iterator[HousekeepingContext]:
    """Connect to Postgres alone, and plan what is purged.

    Raises:
        UsageError: the database is not named, or its schema has another version.
        DatabaseError: Postgres cannot be reached.
    """
    with open_database_context(settings, host) as context:
        yield HousekeepingContext(**vars(context), history=HistoryPurge.plan(settings))


class HousekeepingJob:
    """Clears one campaign's personal data, and then purges history with the other jobs."""

    def __init__(self, run: CampaignRun[HousekeepingContext]) -> None:
        self.run = run
        self._campaign_id = run.campaign.campaign_id
        self._history = run.context.history
        self._history.campaign_ids.append(self._campaign_id)
        self._counters = Counters("forgotten", *HISTORY, *HOURS, "raw", "answers", *RAW)
        self._steps = [self._clear_forgotten]
        if run.context.settings.keep_raw is not None:
            self._steps.append(self._clear_answers)

    def run_chunk(self, limit: int) -> ChunkResult:
        """Clear or purge up to `limit` chunks of rows."""
        for _ in range(limit):
            self.run.log_progress(self.counts())
            if self._steps:
                if not self._steps[0]():
                    self._steps.pop(0)
            elif self._history.steps:
                self._history.purge_chunk(self.run)
            else:
                return DONE
        return MORE

    def finish(self) -> None:
        """Do nothing: a purge is complete when its steps are."""

    def counts(self) -> dict[str, int]:
        """Return how many rows of each kind were purged."""
        return {**self._counters.counts(), **self._history.counts_of(self._campaign_id)}

    def _clear_forgotten(self) -> bool:
        """Clear a chunk of forgotten leads; return whether another may be due."""
        cleared = self.run.write(clear_forgotten, self._campaign_id)
        self._counters.add(forgotten=cleared)
        return cleared > 0

    def _clear_answers(self) -> bool:
        """Clear a chunk of the vendor's answers; return whether another may be due."""
        days = self.run.context.settings.keep_raw
        assert days is not None, "otherwise this is no step"
        cleared = self.run.write(clear_answers, self._campaign_id, days)
        self._counters.add(raw=cleared.raw, answers=cleared.answers)
        return cleared.has_more


HOUSEKEEPING = JobSpec(
    flow="housekeeping",
    task="purge-rows",
    counts=("forgotten", *HISTORY, *HOURS, "raw", "answers", *RAW),
    open_context=open_housekeeping_context,
    start=HousekeepingJob,
    select=campaigns.list_campaigns,
)
