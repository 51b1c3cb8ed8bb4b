"""Outcomes that were not there yet when their time was polled, and the lookback that finds them."""

import math
from dataclasses import dataclass

_MINUTE = 60
# A lookback that just sufficed once may not do so the next time.
_MARGIN = 1.25


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """What came late: how many outcomes, and the lookback that the worst needed, seconds."""

    late: int = 0
    needed_s: float = 0.0

    def __add__(self, other: "Lateness") -> "Lateness":
        """Both together."""
        return Lateness(late=self.late + other.late, needed_s=max(self.needed_s, other.needed_s))

    @property
    def suggested_s(self) -> int:
        """A lookback with a margin, in whole minutes; 0 where nothing was late."""
        return math.ceil(math.ceil(self.needed_s) * _MARGIN / _MINUTE) * _MINUTE


def warning(lateness: Lateness, *, lookback_s: int) -> str | None:
    """What to say where the lookback is too short, or only just long enough; else None."""
    if not lateness.late or lateness.needed_s * _MARGIN <= lookback_s:
        return None
    short = "is too short" if lateness.needed_s > lookback_s else "was only just long enough"
    return (
        f"{lateness.late} outcomes appeared after their time had been polled, and a lookback of"
        f" {math.ceil(lateness.needed_s)} s was needed to find them: LEADLOOP_LOOKBACK={lookback_s}"
        f" {short}, set it to {lateness.suggested_s}"
    )
