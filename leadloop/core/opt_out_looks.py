"""When opt-out sources were looked at last, and whether leads may be sent meanwhile."""

import math
from collections.abc import Iterable
from threading import Lock

from leadloop.core.campaign_rules import Campaign
from leadloop.core.source_looks import LEAST_SOURCE_INTERVAL_S, SOURCE_SHARE, SourceLooks

#: A look that takes longer is slow: in a live run it holds up no others.
SLOW_LOOK_S = 1.0
#: A look that has failed is due again after this time at the latest, seconds: no lead is sent
#: before one succeeds.
FAILED_LOOK_INTERVAL_S = 60.0


class OptOutLooks:
    """The looks at the opt-out sources of campaigns, by all jobs of a process; thread-safe.

    Times are seconds of one clock. A look is due as seldom as one at a source of leads.

    Args:
        by_others: others look than the jobs that send leads; these wait for them.
    """

    def __init__(self, *, by_others: bool = False) -> None:
        self.by_others = by_others
        self._looks = SourceLooks()
        self._locks: dict[str, Lock] = {}
        self._fresh_until: dict[str, float] = {}
        self._failures: dict[str, str] = {}
        # The sources whose last look was quick, and those whose last take was slow.
        self._quick: set[str] = set()
        self._slow_takes: set[str] = set()

    def get_lock(self, campaign: Campaign) -> Lock:
        """Return the lock of the campaign's looks."""
        return self._locks.setdefault(_find_key(campaign), Lock())

    def announce(self, campaigns: Iterable[Campaign]) -> None:
        """Note that the sources of campaigns may have changed."""
        self._looks.announce(map(_find_key, campaigns))

    def is_due(self, campaign: Campaign, now: float) -> bool:
        """Return whether a look may begin."""
        return self._looks.is_due(_find_key(campaign), now)

    def find_next_due(self, now: float) -> float:
        """Return when the next announced source may be looked at that may not be now, else inf."""
        return self._looks.find_next_due(now)

    def is_fresh(self, campaign: Campaign, now: float) -> bool:
        """Return whether the last look is recent, and its opt-outs are on record.

        That is twice the time after which the next look is due.
        """
        return now < self._fresh_until.get(_find_key(campaign), -math.inf)

    def is_slow(self, campaign: Campaign) -> bool:
        """Return whether a look or a take may take long, so that it must hold up no others.

        Both may, until a look was quick; and again once the last take was slow. One that failed
        was slow.
        """
        key = _find_key(campaign)
        return key not in self._quick or key in self._slow_takes

    def find_failure(self, campaign: Campaign) -> str | None:
        """Return how the last look failed; None if it did not."""
        return self._failures.get(_find_key(campaign))

    def begin(self, campaign: Campaign) -> None:
        """Record that a look begins: it may miss what is announced from now on."""
        self._looks.begin(_find_key(campaign))

    def end(
        self,
        campaign: Campaign,
        began: float,
        now: float,
        *,
        is_applied: bool,
        is_take: bool = False,
        waited_s: float = 0.0,
    ) -> None:
        """Record that a look has read the source.

        Args:
            campaign: the campaign.
            began: when the read began.
            now: when the read ended.
            is_applied: all opt-outs of the source are on record.
            is_take: new opt-outs were put on record.
            waited_s: how long locks and writes took, seconds: they are no load of the source.
        """
        key = _find_key(campaign)
        self._looks.end(key, began, now)
        self._failures.pop(key, None)
        self._note_pace(key, is_quick=now - began + waited_s <= SLOW_LOOK_S, is_take=is_take)
        if is_applied:
            interval_s = max(LEAST_SOURCE_INTERVAL_S, (now - began) / SOURCE_SHARE)
            self._fresh_until[key] = now + 2 * interval_s

    def fail(
        self, campaign: Campaign, began: float, now: float, failure: str, *, is_take: bool = False
    ) -> None:
        """Record that a look has failed: no lead may be sent before one succeeds."""
        key = _find_key(campaign)
        self._looks.end(key, max(began, now - FAILED_LOOK_INTERVAL_S * SOURCE_SHARE), now)
        self._note_pace(key, is_quick=False, is_take=is_take)
        self._failures[key] = failure
        self._fresh_until.pop(key, None)

    def _note_pace(self, key: str, *, is_quick: bool, is_take: bool) -> None:
        if is_take:
            (self._slow_takes.discard if is_quick else self._slow_takes.add)(key)
        else:
            (self._quick.add if is_quick else self._quick.discard)(key)


def _find_key(campaign: Campaign) -> str:
    """Return the key of a campaign's looks: another source is looked at at once."""
    return f"{campaign.opt_out_source}\n{campaign.campaign_id}"
