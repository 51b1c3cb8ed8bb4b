"""When a live run does what: the pace of polls, and the pauses after jobs that came to nothing."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

#: Seconds before a job that failed, or that found nothing to do, is due again: doubled each time.
FIRST_PAUSE_S = 1.0
#: The longest of these pauses, seconds.
LONGEST_PAUSE_S = 60.0
#: The least time between two looks at one campaign's newest outcomes, seconds.
LEAST_LOOK_INTERVAL_S = 2.0
#: The time between two looks at a campaign from which nothing is expected soon, seconds.
QUIET_LOOK_INTERVAL_S = 300.0
#: The time between two looks at a campaign at hours when the vendor does not call, seconds.
CLOSED_LOOK_INTERVAL_S = 600.0
#: The time between two looks at the lookback, seconds.
REREAD_INTERVAL_S = 900.0
# A campaign that polls have read up to so long ago is polled at the next reread, whatever looks
# show: before the hour after which its polls count as behind.
_BEHIND = timedelta(minutes=40)
#: While the vendor answers no read: the time between two trials of jobs that may work nevertheless,
#: seconds; of opt-outs, and of other jobs.
OPT_OUT_TRIAL_S, TRIAL_S = 60.0, 300.0
# A job that was tried leaves others this time to come first, seconds: a few looks.
_TURN_S = 5.0
#: The share of the requests that looks may use, and while a push or a reread needs requests too.
#: Polls may use half, and a slot of the rate limiter is occupied longer than its request counts.
#: What looks leave of the half ends the delay soon that a poll has caused.
_LOOK_SHARE, _LOOK_SHARE_BESIDE_RUNS = 0.45, 0.42
#: The part of it that campaigns with few looks may use.
_SLOW_PART = 0.5
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

    def find_next_end(self, now: float) -> float:
        """Return when the next pause ends; infinity if none is left."""
        return min((due_at for due_at in self._due_at.values() if due_at > now), default=math.inf)

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


@dataclass(frozen=True, kw_only=True)
class LookPace:
    """How often looks at the newest outcomes are due.

    Attributes:
        active_s: seconds between two looks at a campaign from which outcomes are expected.
        slow_factor: by which the intervals of all other campaigns are longer than planned.
        distance_s: seconds between two looks at whichever campaigns.
    """

    active_s: float
    slow_factor: float
    distance_s: float


def plan_looks(
    active: int,
    slow_intervals_s: Sequence[float],
    *,
    requests: int,
    period_s: float,
    has_runs: bool = False,
) -> LookPace:
    """Plan looks at even distances, within their share of the requests.

    Args:
        active: the campaigns from which outcomes are expected.
        slow_intervals_s: the seconds between two looks at each other campaign.
        requests: the vendor's rate limit, requests a period.
        period_s: the period, seconds.
        has_runs: a push or a reread needs requests too.
    """
    share = _LOOK_SHARE_BESIDE_RUNS if has_runs else _LOOK_SHARE
    looks_per_s = share * requests / period_s
    slow_per_s = sum(1 / interval_s for interval_s in slow_intervals_s)
    slow_factor = max(1.0, slow_per_s / (_SLOW_PART * looks_per_s))
    slow_per_s /= slow_factor
    active_s = max(LEAST_LOOK_INTERVAL_S, active / (looks_per_s - slow_per_s))
    planned_per_s = active / active_s + slow_per_s
    return LookPace(
        active_s=active_s,
        slow_factor=slow_factor,
        distance_s=1 / planned_per_s if planned_per_s else LEAST_LOOK_INTERVAL_S,
    )


def is_behind(read_through: datetime | None, now: datetime) -> bool:
    """Return whether a campaign is polled even if looks show nothing new.

    Args:
        read_through: up to when polls have read its outcomes; None: it was never polled.
        now: by the same clock.
    """
    return read_through is not None and now - read_through > _BEHIND


def expects_outcomes(last_active_at: datetime | None, now: datetime) -> bool:
    """Return whether outcomes of a campaign are expected soon.

    Args:
        last_active_at: when the vendor last accepted one of its leads or reported an outcome.
        now: by the same clock.
    """
    return last_active_at is not None and now - last_active_at < _EXPECTED_FOR
