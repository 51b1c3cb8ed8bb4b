"""Permits for a live run's looks at outcomes, of which one transaction reserves many.

A look comes every second or so, as long as the run lives. A transaction for each would be most of
what an idle live run costs.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from db import rate_limit
from db.database import Database
from db.rate_limit import AheadSlot
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.rate_ring import Purpose
from leadloop.core.verdicts import ApiCall
from tasks.rate_limiter import RateLimiter

#: Looks whose slots are reserved together, and for how long at most, seconds. The reads of other
#: processes wait behind them.
MAX_AHEAD, MAX_AHEAD_S = 20, 30.0
#: How much later than its slot is free a look may leave, as a part of the distance between two, and
#: at most, seconds. For so long the slot is occupied in vain.
_LATE_SHARE, _MAX_LATE_S = 0.5, 0.5


@dataclass(frozen=True, kw_only=True)
class _AheadPermit:
    """The right to send a look, from `due_at` on (seconds of the boot clock) and a little later."""

    slot: AheadSlot
    due_at: float
    late_s: float

    @property
    def is_expired(self) -> bool:
        return read_boot_clock() > self.due_at + self.late_s

    @property
    def free_at(self) -> float:
        """When another request could use the slot, seconds of the boot clock."""
        return self.due_at - (self.slot.due_s - self.slot.free_s)


class LookPermits:
    """Permits for looks; thread-safe.

    Args:
        database: holds the ring of slots.
        limiter: names the account, and gives a permit while other transactions lock all slots.
        purpose: decides which slots the looks may use.
    """

    def __init__(self, database: Database, limiter: RateLimiter, purpose: Purpose) -> None:
        self._database = database
        self._limiter = limiter
        self._purpose = purpose
        self._lock = Lock()
        self._distance_s = MAX_AHEAD_S
        self._is_ahead = False
        self._ahead: deque[_AheadPermit] = deque()
        self._left_to_yield = 0
        self._release_count = 0

    def set_pace(self, distance_s: float, *, is_ahead: bool) -> None:
        """Set the distance between two looks, seconds, and whether their slots are reserved ahead.

        Else each look reserves its own slot. A look that waits for its slot keeps it.
        """
        self._distance_s, self._is_ahead = distance_s, is_ahead
        if not is_ahead:
            self._release_ahead()

    def release(self) -> None:
        """Release all slots, those too for which looks wait: the vendor has asked for a pause."""
        self._release_count += 1
        self._release_ahead()

    def yield_slot(self, within_s: float) -> bool:
        """Release a slot that is free within some seconds, for a request that cannot wait.

        Half of what is reserved together stays with the looks. Of slots that are free now, that of
        the last look is released, so that the next ones keep their distances. While a look reserves
        slots, none is released: the request does not wait for it.

        Returns:
            whether there was one.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            yielded = self._choose_yielded(within_s)
        finally:
            self._lock.release()
        if yielded is not None:
            self._release([yielded])
        return yielded is not None

    def _choose_yielded(self, within_s: float) -> _AheadPermit | None:
        now = read_boot_clock()
        sooner = [each for each in self._ahead if each.free_at < now + within_s]
        if not sooner or self._left_to_yield <= 0:
            return None
        self._left_to_yield -= 1
        yielded = min(sooner, key=lambda each: (max(each.free_at, now), -each.due_at))
        self._ahead.remove(yielded)
        return yielded

    def wait_for_permit(self, call: ApiCall) -> None:
        """Block until one look may leave.

        Raises:
            RunError: the run is being stopped.
        """
        while (permit := self._take()) is not None:
            release_count = self._release_count
            self._limiter.sleep(max(0.0, permit.due_at - read_boot_clock()))
            is_good = release_count == self._release_count and not permit.is_expired
            if is_good and not self._limiter.is_paused():
                return
            self._release([permit])
        self._limiter.wait_for_permit(call)

    def _take(self) -> _AheadPermit | None:
        with self._lock:
            expired = []
            while self._ahead and self._ahead[0].is_expired:
                expired.append(self._ahead.popleft())
            self._release(expired)
            return self._ahead.popleft() if self._ahead else self._reserve()

    def _release_ahead(self) -> None:
        with self._lock:
            ahead = list(self._ahead)
            self._ahead.clear()
        self._release(ahead)

    def _release(self, unused: Sequence[_AheadPermit]) -> None:
        """Release slots without a request: else each would be occupied for a whole period."""
        if unused:
            with self._database.autocommit() as connection:
                rate_limit.release_slots_ahead(
                    connection, [each.slot for each in unused], account=self._limiter.account
                )

    def _reserve(self) -> _AheadPermit | None:
        distance_s = self._distance_s
        late_s = min(distance_s * _LATE_SHARE, _MAX_LATE_S)
        amount = max(1, min(MAX_AHEAD, int(MAX_AHEAD_S / distance_s))) if self._is_ahead else 1
        with self._database.transaction() as connection:
            slots = rate_limit.reserve_slots_ahead(
                connection,
                self._purpose,
                amount,
                distance_s=distance_s,
                late_s=late_s,
                account=self._limiter.account,
            )
        now = read_boot_clock()
        self._ahead = deque(
            _AheadPermit(slot=slot, due_at=now + slot.wait_s, late_s=late_s) for slot in slots
        )
        self._left_to_yield = len(slots) // 2
        return self._ahead.popleft() if self._ahead else None
