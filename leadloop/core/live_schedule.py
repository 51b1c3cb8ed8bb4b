"""When a live run does what: the pace of polls, and the pauses after jobs that came to nothing."""

from collections.abc import Hashable
from datetime import datetime, timedelta

#: Seconds before a job that failed, or that found nothing to do, is due again: doubled each time.
FIRST_PAUSE_S = 1.0
#: The longest of these pauses, seconds.
LONGEST_PAUSE_S = 60.0
#: The least time between two looks at one campaign's newest outcomes, seconds.
LEAST_POLL_INTERVAL_S = 2.0
#: The time between two polls of a campaign from which nothing is expected soon, seconds.
QUIET_POLL_INTERVAL_S = 300.0
#: The time between two polls of a campaign at hours when the vendor does not call, seconds.
CLOSED_POLL_INTERVAL_S = 600.0
#: The time between two polls that read the lookback again, seconds.
REREAD_INTERVAL_S = 900.0
#: While the vendor answers no read: the time between two trials of jobs that may work nevertheless,
#: seconds; of opt-outs, and of other jobs.
OPT_OUT_TRIAL_S, TRIAL_S = 60.0, 300.0
# A job that was tried leaves others this time to come first, seconds: a few looks.
_TURN_S = 5.0
#: The share of the requests that polls may use, and while leads are waiting to be created.
_POLL_SHARE, _POLL_SHARE_BESIDE_PUSH = 0.5, 0.4
#: For so long after its last sign of life, outcomes of a campaign are expected.
_EXPECTED_FOR = timedelta(days=1)


class Pauses:
    """The pauses of jobs that failed or found nothing to do, by any key; seconds of one clock."""

    def __init__(self) -> None:
        self._due_at: dict[Hashable, float] = {}
        self._pause_s: dict[Hashable, float] = {}

    def is_due(self, key: Hashable, now: float) -> bool:
        """Return whether a job may run."""
        return self._due_at.get(key, now) <= now

    def record(self, key: Hashable, now: float, *, has_progress: bool) -> None:
        """Record that a job has ended: with progress it is due at once, else after a pause."""
        if has_progress:
            self._due_at.pop(key, None)
            self._pause_s.pop(key, None)
            return
        pause_s = min(self._pause_s.get(key, FIRST_PAUSE_S / 2) * 2, LONGEST_PAUSE_S)
        self._pause_s[key] = pause_s
        self._due_at[key] = now + pause_s

    def end_all(self) -> None:
        """End all pauses: what made the jobs fail is over."""
        self._due_at.clear()
        self._pause_s.clear()


class Trials:
    """The trials of jobs while the vendor answers no read: in each lane one at a time, in turns.

    Seconds of one clock.
    """

    def __init__(self) -> None:
        self._due_at: dict[str, float] = {}
        self._tried_at: dict[str, dict[str, float]] = {}

    def begin(self) -> None:
        """Record that an outage begins: in each lane, one job may be tried at once."""
        self._due_at.clear()
        self._tried_at.clear()

    def is_due(self, lane: str, campaign_id: str, now: float) -> bool:
        """Return whether a campaign's job may be tried; those tried longest ago come first."""
        due_at = self._due_at.get(lane, now)
        tried_at = self._tried_at.get(lane, {})
        if (tried := tried_at.get(campaign_id)) is not None:
            earlier = sum(other < tried for other in tried_at.values())
            due_at += min(_TURN_S * (1 + earlier), LONGEST_PAUSE_S)
        return due_at <= now

    def record(self, lane: str, campaign_id: str, now: float, *, interval_s: float) -> None:
        """Record that a job is tried; the lane's next one is due after an interval, seconds."""
        self._due_at[lane] = now + interval_s
        self._tried_at.setdefault(lane, {})[campaign_id] = now


def poll_interval_s(
    campaigns: int, *, requests: int, period_s: float, is_pushing: bool = False
) -> float:
    """Return the seconds between two looks at each campaign's newest outcomes.

    Args:
        campaigns: the campaigns that are looked at.
        requests: the vendor's rate limit, requests a period.
        period_s: the period, seconds.
        is_pushing: leads are waiting to be created, and need requests too.
    """
    share = _POLL_SHARE_BESIDE_PUSH if is_pushing else _POLL_SHARE
    return max(LEAST_POLL_INTERVAL_S, campaigns * period_s / (share * requests))


def expects_outcomes(last_active_at: datetime | None, now: datetime) -> bool:
    """Return whether outcomes of a campaign are expected soon.

    Args:
        last_active_at: when the vendor last accepted one of its leads or reported an outcome.
        now: by the same clock.
    """
    return last_active_at is not None and now - last_active_at < _EXPECTED_FOR
