"""The ring of rate slots: how many requests each purpose has, resizing, and pacing.

A slot serves one request a period, or several at even distances. In any period, all slots together
serve no more requests than the vendor allows.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import itemgetter

_MARGIN_S = 0.5
_MARGIN_SHARE = 1 / 40
_MAX_SLOTS = 256
# A paced process leaves a part of the slots to others: one of these.
_LEFT_PART = 20
#: A run that disables leaves a part of the reserve to the first requests of others: 2 of 5 slots.
LEFT_TO_FIRST = (2, 5)
# Under a smaller limit, a reserve would be a large part of what there is.
_MIN_REQUESTS_TO_RESERVE = 10
_MICROSECONDS = 1_000_000


class Purpose(StrEnum):
    """The purpose of a request, which decides about the slots that it may use."""

    OPT_OUTS = "opt_outs"
    """Disables, the lookups that belong to them, and logins: a reserve of 20 %, for bursts too."""
    URGENT = "urgent"
    """Creates of urgent leads: a reserve of 10 %."""
    BULK = "bulk"
    """Creates and lookups: all that is not reserved."""
    POLLS = "polls"
    """Reads of results: at most 50 %, none of it reserved."""


@dataclass(frozen=True, kw_only=True)
class RingSlot:
    """A slot of the ring.

    Attributes:
        purposes: which requests may use it; none: it was dropped, but still counts when resizing.
        uses: the requests that it serves in a period.
        occupied_s: the seconds that a request occupies it.
        free_at: when it is free again, in seconds since the epoch.
    """

    purposes: tuple[Purpose, ...]
    uses: int
    occupied_s: float
    free_at: float = -math.inf

    def list_free_times(self) -> list[float]:
        """Return when each of as many slots of a single use would be free again, or earlier.

        The uses before the last one are not known. They were at least `occupied_s` apart.
        """
        return [self.free_at + number * self.occupied_s for number in range(self.uses)]


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """At most `requests` requests in any period of `period_s` seconds."""

    requests: int
    period_s: float

    @property
    def uses_per_slot(self) -> int:
        """Uses of one shared slot in a period: more than one under a large limit."""
        return -(-self.requests // _MAX_SLOTS)

    @property
    def margin_s(self) -> float:
        """Seconds by which the latency of two requests may differ."""
        return min(_MARGIN_S, self.period_s * _MARGIN_SHARE)

    def plan_slots(self) -> list[RingSlot]:
        """Return the slots of the ring: the two reserves, then the shared ones.

        Opt-outs of several campaigns may come together, so that their reserve is many slots. That
        of urgent leads is one slot that is used often: its requests have even distances, and none
        waits for a whole period.
        """
        if self.requests < _MIN_REQUESTS_TO_RESERVE:
            return [self._plan_slot(1, *Purpose)] * self.requests
        opt_outs, urgent, polls = self.requests // 5, self.requests // 10, self.requests // 2
        uses = self.uses_per_slot
        for_polls = polls // uses
        for_others = (self.requests - opt_outs - urgent) // uses - for_polls
        return [
            *[self._plan_slot(uses, Purpose.OPT_OUTS)] * (opt_outs // uses),
            self._plan_slot(urgent, Purpose.URGENT),
            *[self._plan_slot(uses, Purpose.OPT_OUTS, Purpose.URGENT, Purpose.BULK)] * for_others,
            *[self._plan_slot(uses, *Purpose)] * for_polls,
        ]

    def rate_of(self, purpose: Purpose) -> float:
        """Return how many requests a second a purpose has, those that it shares included."""
        uses = sum(slot.uses for slot in self.plan_slots() if purpose in slot.purposes)
        return uses / self.period_s

    def _plan_slot(self, uses: int, *purposes: Purpose) -> RingSlot:
        """Plan a slot, occupied for the share of a use in the period and its margin.

        Postgres rounds to microseconds, so it is given whole ones, rounded up.
        """
        occupied = math.ceil((self.period_s + self.margin_s) / uses * _MICROSECONDS)
        return RingSlot(purposes=purposes, uses=uses, occupied_s=occupied / _MICROSECONDS)


def resize_slots(
    stored: Iterable[RingSlot], planned: Sequence[RingSlot], now: float
) -> list[RingSlot]:
    """Return the planned slots, occupied as long as the stored ones were.

    The planned slots take over the latest of the stored free times, the reserves the earliest of
    these. Where times after `now` are left over, a slot without a purpose keeps their number for
    the next time: or a limit that shrinks and grows again would forget them.
    """
    times = sorted(itertools.chain.from_iterable(slot.list_free_times() for slot in stored))
    size = sum(slot.uses for slot in planned)
    kept = iter([-math.inf] * (size - len(times)) + times[-size:])
    resized = [
        replace(slot, free_at=_find_start(itertools.islice(kept, slot.uses), slot.occupied_s))
        for slot in planned
    ]
    dropped = [time for time in times[:-size] if time > now]
    if dropped:
        resized.append(
            RingSlot(purposes=(), uses=len(dropped), occupied_s=0.0, free_at=max(dropped))
        )
    return resized


def _find_start(times: Iterable[float], occupied_s: float) -> float:
    """Return from when on uses at even distances come no earlier than each of these times."""
    return max(time - number * occupied_s for number, time in enumerate(times))


def match_slots(
    free_s: Sequence[float], start_s: float, amount: int, *, distance_s: float
) -> list[tuple[int, float]]:
    """Match requests at even distances with slots, each request with the slot freed last before it.

    So what others may need at once stays free: the slots that nothing has used for long. Where no
    slot is free in time, a request takes the next one that is, and those behind it follow later.

    Args:
        free_s: when each slot is free, seconds of one clock.
        start_s: when the first request may leave.
        amount: the most requests; there are fewer if there are fewer slots.
        distance_s: the least time between two requests, seconds.

    Returns:
        The index of each request's slot, and when the request may leave.
    """
    left = sorted((free, index) for index, free in enumerate(free_s))
    matched: list[tuple[int, float]] = []
    due_s = start_s
    while left and len(matched) < amount:
        in_time = bisect.bisect_right(left, due_s, key=itemgetter(0))
        free, index = left.pop(max(in_time - 1, 0))
        due_s = max(due_s, free)
        matched.append((index, due_s))
        due_s += distance_s
    return matched


def find_spare_waits(waits_s: Sequence[float], reserved: int) -> list[float]:
    """Return the waits for slots, but for those that a run leaves to the first requests of others.

    The soonest comes first. Where nothing is left to others, a request takes its turn in the ring.

    Args:
        waits_s: seconds until each slot is free; 0 or less: it is.
        reserved: how many of them are the reserve.
    """
    amount, of = LEFT_TO_FIRST
    left = reserved * amount // of
    return sorted(waits_s)[left:] if left else [0.0] * len(waits_s)


def find_paced_delay(waits_s: Sequence[float], last_s: float, *, kept_share: float = 0.5) -> float:
    """Return in how many seconds a paced request may leave, so that the slots last.

    While a share of the slots is free, it may leave at once. Otherwise requests keep the shortest
    even distance at which each one finds a free slot and leaves a twentieth of all to others, at
    least one: opt-outs and urgent leads that come together.

    Args:
        waits_s: seconds until each slot is free; 0 or less: it is.
        last_s: seconds until the last paced request leaves; negative: it has left.
        kept_share: the share that is to be free.
    """
    if sum(wait_s <= 0 for wait_s in waits_s) >= kept_share * len(waits_s):
        return 0.0
    later = sorted(wait_s for wait_s in waits_s if wait_s > max(last_s, 0.0))
    left = max(1, len(waits_s) // _LEFT_PART)
    mine = len(waits_s) - len(later) - left + 1
    distance_s = max(
        ((wait_s - last_s) / max(number, 1) for number, wait_s in enumerate(later, mine)),
        default=0.0,
    )
    return max(0.0, last_s + distance_s)
