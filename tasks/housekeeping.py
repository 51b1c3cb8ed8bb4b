"""What a campaign's books need not keep for ever."""

from db.housekeeping import AT_ONCE, HISTORY, RAW
from tasks.retrying import step
from tasks.workplace import Run, Tally


@step("tidy-up")
def tidy_up(housekeeping: "Housekeeping", most: int) -> bool:
    """Remove up to `most` portions; True while there may be more."""
    return housekeeping.some(most)


class Housekeeping:
    """One campaign's old windows, runs and raw answers."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tally = Tally(*AT_ONCE, *HISTORY, *RAW)
        self._after = ""
        settings = run.place.settings
        self._left = [(name, tidy, 0) for name, tidy in AT_ONCE.items()]
        self._left += [(name, tidy, settings.keep_history) for name, tidy in HISTORY.items()]
        if settings.keep_raw is not None:
            self._left += [(name, tidy, settings.keep_raw) for name, tidy in RAW.items()]

    def some(self, most: int) -> bool:
        """Remove up to `most` portions; True while there may be more."""
        for _ in range(most):
            if not self._left:
                return False
            name, tidy, days = self._left[0]
            with self.run.place.database.begin() as connection:
                done = tidy(connection, self.run.campaign.campaign_id, days, self._after)
            self.tally.add(**{name: done.gone})
            self._after = done.go_on_after or ""
            if done.go_on_after is None:
                self._left.pop(0)
        return bool(self._left)

    def counts(self) -> dict[str, int]:
        """How many of each are gone."""
        return self.tally.counts()
