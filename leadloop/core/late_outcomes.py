"""Late outcomes: results that appeared after their time was polled, and the lookback they need."""

import math
from dataclasses import dataclass

from leadloop.core.plurals import format_count

_MINUTE = 60
# A lookback that was barely long enough once may be too short the next time.
_MARGIN = 1.25


@dataclass(frozen=True, kw_only=True)
class LateOutcomes:
    """The number of late outcomes, and the longest lookback that one of them needed, seconds."""

    count: int = 0
    needed_lookback_s: float = 0.0

    def __add__(self, other: "LateOutcomes") -> "LateOutcomes":
        """Return the sum of the counts and the longer lookback."""
        return LateOutcomes(
            count=self.count + other.count,
            needed_lookback_s=max(self.needed_lookback_s, other.needed_lookback_s),
        )

    @property
    def suggested_lookback_s(self) -> int:
        """A lookback with a margin, in whole minutes as seconds; 0 if no outcome was late."""
        return math.ceil(math.ceil(self.needed_lookback_s) * _MARGIN / _MINUTE) * _MINUTE


def format_lookback_warning(late: LateOutcomes, *, lookback_s: int) -> str | None:
    """Return a warning if the lookback is too short or barely long enough; else None."""
    if not late.count or late.needed_lookback_s * _MARGIN <= lookback_s:
        return None
    problem = "is too short" if late.needed_lookback_s > lookback_s else "was barely long enough"
    needed_s = math.ceil(late.needed_lookback_s)
    return (
        f"{format_count(late.count, 'outcome')} appeared after a poll had read that time, and"
        f" needed a lookback of {needed_s} s: LEADLOOP_LOOKBACK={lookback_s} {problem}, set it to"
        f" {late.suggested_lookback_s}"
    )
