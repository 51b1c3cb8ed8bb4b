"""What a campaign's books need not keep for ever."""

from db.housekeeping import HISTORY, IMMEDIATE, RAW
from tasks.context import CampaignRun, Counters
from tasks.retries import step


@step("tidy-up")
def tidy_up(housekeeping: "HousekeepingJob", most: int) -> bool:
    """Remove up to `most` portions; True while there may be more."""
    return housekeeping.run_chunk(most)


class HousekeepingJob:
    """One campaign's old windows, runs and raw answers."""

    def __init__(self, run: CampaignRun) -> None:
        self.run = run
        self.counters = Counters(*IMMEDIATE, *HISTORY, *RAW)
        self._after = ""
        settings = run.context.settings
        self._left = [(name, tidy, 0) for name, tidy in IMMEDIATE.items()]
        self._left += [(name, tidy, settings.keep_history) for name, tidy in HISTORY.items()]
        if settings.keep_raw is not None:
            self._left += [(name, tidy, settings.keep_raw) for name, tidy in RAW.items()]

    def run_chunk(self, most: int) -> bool:
        """Remove up to `most` portions; True while there may be more."""
        for _ in range(most):
            if not self._left:
                return False
            name, tidy, days = self._left[0]
            with self.run.context.database.transaction() as connection:
                done = tidy(connection, self.run.campaign.campaign_id, days, self._after)
            self.counters.add(**{name: done.rows})
            self._after = done.resume_after or ""
            if done.resume_after is None:
                self._left.pop(0)
        return bool(self._left)

    def counts(self) -> dict[str, int]:
        """How many of each are gone."""
        return self.counters.counts()
