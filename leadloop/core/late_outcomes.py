"""Outcomes that were not there yet when their time was polled, and the lookback that finds them."""

import math
from dataclasses import dataclass

_MINUTE = 60
# A lookback that just sufficed once may not do so the next time.
_MARGIN = 1.25


@dataclass(frozen=True, kw_only=True)
class LateOutcomes:
    """What came late: how many outcomes, and the lookback that the worst needed, seconds."""

    count: int = 0
    needed_lookback_s: float = 0.0

    def __add__(self, other: "LateOutcomes") -> "LateOutcomes":
        """Both together."""
        return LateOutcomes(
            count=self.count + other.count,
            needed_lookback_s=max(self.needed_lookback_s, other.needed_lookback_s),
        )

    @property
    def suggested_lookback_s(self) -> int:
        """A lookback with a margin, in whole minutes; 0 where nothing was late."""
        return math.ceil(math.ceil(self.needed_lookback_s) * _MARGIN / _MINUTE) * _MINUTE


def format_lookback_warning(late: LateOutcomes, *, lookback_s: int) -> str | None:
    """What to say where the lookback is too short, or only just long enough; else None."""
    if not late.count or late.needed_lookback_s * _MARGIN <= lookback_s:
        return None
    short = "is too short" if late.needed_lookback_s > lookback_s else "was only just long enough"
    return (
        f"{late.count} outcomes appeared after their time had been polled, and a lookback of"
        f" {math.ceil(late.needed_lookback_s)} s was needed to find them: LEADLOOP_LOOKBACK={lookback_s}"
        f" {short}, set it to {late.suggested_lookback_s}"
    )
