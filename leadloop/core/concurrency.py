"""How many creates are sent at once: as many as latency and rate limit leave room for.

More requests at once pay only while the process waits for the vendor. They are chosen by how long a
request takes, how long its batch keeps this process busy, and how many requests a second the rate
limit allows. The number grows slowly and falls at once: what is under way when a run is killed is
in doubt afterwards.
"""

import math
from dataclasses import dataclass, field
from statistics import median

#: The requests at once from which a run starts, and to which it retreats.
MIN_CONCURRENCY = 4
#: The most requests at once, unless LEADLOOP_CONCURRENCY states another number.
MAX_CONCURRENCY = 12
# Accepted requests after which one more is sent at once.
_ACCEPTED_PER_STEP = 4
# Requests whose median counts as the latency.
_SAMPLES = 8
# The ratio of a later latency to the least one above which the vendor is overloaded.
_MAX_SLOWDOWN = 2.0
# The least work of a batch, seconds: of a clock that is too coarse.
_MIN_WORK_S = 0.005


def choose_concurrency(
    latency_s: float, work_s: float, rate_per_s: float, *, floor: int, bound: int
) -> int:
    """Return how many requests at once keep the process, or the rate limit, just busy.

    Args:
        latency_s: seconds from the start of a request to its response.
        work_s: seconds for which the process works for a request, besides waiting.
        rate_per_s: requests a second that the rate limit allows.
        floor: the least number, unless `bound` is smaller.
        bound: the greatest number.
    """
    busy = 1 + latency_s / max(work_s, _MIN_WORK_S)
    allowed = 1 + rate_per_s * latency_s
    return max(min(floor, bound), min(bound, math.ceil(min(busy, allowed))))


@dataclass(kw_only=True)
class ConcurrencyLimit:
    """The limit of requests at once: grows one by one, and falls to its floor on a failure.

    The latency is the least median of several requests. So a queue at the vendor, which more
    requests at once make longer, is no reason for even more; and a median twice as long as the
    least one counts as a failure.

    Attributes:
        rate_per_s: requests a second that the rate limit allows.
        bound: the greatest limit.
        limit: the limit now.
    """

    rate_per_s: float
    bound: int
    limit: int = field(init=False)
    _times_s: list[float] = field(init=False, default_factory=list)
    _latency_s: float = field(init=False, default=math.inf)

    def __post_init__(self) -> None:
        """Start from the floor."""
        self.limit = self._floor

    @property
    def _floor(self) -> int:
        return min(MIN_CONCURRENCY, self.bound)

    def record_accepted(self, time_s: float, work_s: float) -> None:
        """Record a request that was accepted.

        Args:
            time_s: seconds from the start of the request to its response.
            work_s: see `choose_concurrency`.
        """
        self._times_s.append(time_s)
        if len(self._times_s) % _ACCEPTED_PER_STEP:
            return
        if len(self._times_s) == _SAMPLES:
            latency_s, self._times_s = median(self._times_s), []
            self._latency_s = min(self._latency_s, latency_s)
            if latency_s > _MAX_SLOWDOWN * self._latency_s:
                self.record_failure()
                return
        if self._latency_s < math.inf:
            self.limit = min(self.limit + 1, self._choose(work_s))

    def record_failure(self) -> None:
        """Record a request that failed, or that the vendor asked to send later."""
        self.limit = self._floor
        self._times_s = []

    def _choose(self, work_s: float) -> int:
        return choose_concurrency(
            self._latency_s, work_s, self.rate_per_s, floor=self._floor, bound=self.bound
        )
