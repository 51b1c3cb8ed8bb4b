"""When a live run looks at its campaigns' sources: seldom, or as soon as a change is announced."""

import math
from collections.abc import Iterable

#: The least time between two looks at a source of which no change was announced, seconds.
LEAST_SOURCE_INTERVAL_S = 10.0
#: The most of the time that looks at a source may take.
SOURCE_SHARE = 0.05


class SourceLooks:
    """The looks at sources, by campaign; seconds of one clock.

    One thread announces and asks, another one looks.
    """

    def __init__(self) -> None:
        self._announced: set[str] = set()
        self._free_at: dict[str, float] = {}
        self._due_at: dict[str, float] = {}

    def announce(self, campaign_ids: Iterable[str]) -> None:
        """Note that the sources of campaigns may have changed."""
        self._announced.update(campaign_ids)

    def is_due(self, campaign_id: str, now: float) -> bool:
        """Return whether a source may be looked at."""
        due_at = self._free_at if campaign_id in self._announced else self._due_at
        return now >= due_at.get(campaign_id, -math.inf)

    def find_next_due(self, now: float) -> float:
        """Return when the next announced source may be looked at that may not be now, else inf."""
        free_at = (self._free_at.get(each, -math.inf) for each in tuple(self._announced))
        return min((each for each in free_at if each > now), default=math.inf)

    def begin(self, campaign_id: str) -> None:
        """Record that a look begins: it may miss what is announced from now on."""
        self._announced.discard(campaign_id)

    def end(self, campaign_id: str, began: float, now: float) -> None:
        """Record that a look has ended, which began at `began`."""
        free_at = now + (now - began) / SOURCE_SHARE
        self._free_at[campaign_id] = free_at
        self._due_at[campaign_id] = max(now + LEAST_SOURCE_INTERVAL_S, free_at)
