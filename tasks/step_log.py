"""The steps of a run in its log: few lines, however many leads and campaigns it works on."""

from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock

from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.summary_text import format_summary

#: The most campaigns of a run that logs the steps of each one.
MAX_CAMPAIGNS = 20
#: The most campaigns of a run whose failure is logged.
MAX_FAILURES = 100
#: The least time between two lines of the counts so far, seconds.
PROGRESS_S = 60.0
# The least time between two such lines, as a part of the run's age: a day has some 100 lines.
_PROGRESS_GAP = 1 / 20


class StepLog:
    """Logs the steps of a run's campaigns at INFO; thread-safe.

    A step that repeats itself in a campaign is logged once, since the counts show what follows. A
    run of more than MAX_CAMPAIGNS logs the sums of the counts alone.

    Args:
        log_info: logs a message with its arguments.
        campaigns: how many campaigns have work.

    Attributes:
        has_each: whether the steps of each campaign are logged.
    """

    def __init__(self, log_info: Callable[..., None], campaigns: int) -> None:
        self._log_info = log_info
        self.has_each = campaigns <= MAX_CAMPAIGNS
        self._lock = Lock()
        self._logged: set[tuple[str, str]] = set()
        self._failures = 0
        self._counts: dict[str, Mapping[str, int]] = {}
        self._shown: Counter[str] = Counter()
        self._started_at = read_boot_clock()
        self._progress_at = self._started_at + PROGRESS_S

    def log_step(self, campaign_id: str, message: str, *args: object) -> None:
        """Log a step as a line that begins with the campaign's id, unless it was logged before."""
        if not self.has_each:
            return
        with self._lock:
            if (campaign_id, message) in self._logged:
                return
            self._logged.add((campaign_id, message))
        self._log_info(f"campaign %s: {message}", campaign_id, *args)

    def log_progress(self, campaign_id: str, counts: Mapping[str, int]) -> None:
        """Log the sums of all counts so far, if they grew: each minute, later more seldom.

        Args:
            campaign_id: the campaign.
            counts: its counts so far.
        """
        now = read_boot_clock()
        with self._lock:
            self._counts[campaign_id] = counts
            if now < self._progress_at:
                return
            sums: Counter[str] = Counter()
            for each in self._counts.values():
                sums.update(each)
            if sums == self._shown:
                return
            self._shown = sums
            age_s = now - self._started_at
            self._progress_at = now + max(PROGRESS_S, age_s * _PROGRESS_GAP)
        self._log_info("so far: %s", format_summary(sums))

    def admit_failure(self) -> bool:
        """Return whether a campaign's failure is logged, as the first ones are; count it."""
        with self._lock:
            self._failures += 1
            failures = self._failures
        if failures == MAX_FAILURES + 1:
            self._log_info("more campaigns fail: leadloop.sync_runs has the error of each one")
        return failures <= MAX_FAILURES
