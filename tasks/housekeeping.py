"""Housekeeping: purge what a campaign's tables need not keep indefinitely."""

from db import campaigns
from db.housekeeping import HISTORY, IMMEDIATE, RAW
from tasks.context import CampaignRun, DatabaseContext, open_database_context
from tasks.counters import Counters
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec


class HousekeepingJob:
    """Purges one campaign's old windows, runs and raw responses."""

    def __init__(self, run: CampaignRun[DatabaseContext]) -> None:
        self.run = run
        self._counters = Counters(*IMMEDIATE, *HISTORY, *RAW)
        self._after = ""
        settings = run.context.settings
        self._steps = [(name, purge, 0) for name, purge in IMMEDIATE.items()]
        self._steps += [(name, purge, settings.keep_history) for name, purge in HISTORY.items()]
        if settings.keep_raw is not None:
            self._steps += [(name, purge, settings.keep_raw) for name, purge in RAW.items()]

    def run_chunk(self, limit: int) -> ChunkResult:
        """Purge up to `limit` portions."""
        for _ in range(limit):
            if not self._steps:
                break
            name, purge, days = self._steps[0]
            with self.run.context.database.transaction() as connection:
                purged = purge(connection, self.run.campaign.campaign_id, days, self._after)
            self._counters.add(**{name: purged.rows})
            self._after = purged.resume_after or ""
            if purged.resume_after is None:
                self._steps.pop(0)
        return MORE if self._steps else DONE

    def finish(self) -> None:
        """Do nothing: a purge is complete when its steps are."""

    def counts(self) -> dict[str, int]:
        """Return how many rows of each kind were purged."""
        return self._counters.counts()


HOUSEKEEPING = JobSpec(
    flow="housekeeping",
    task="purge-rows",
    counts=(*IMMEDIATE, *HISTORY, *RAW),
    open_context=open_database_context,
    start=HousekeepingJob,
    select=campaigns.list_campaigns,
)
