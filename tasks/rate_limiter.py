"""The business's budget of requests, as this process sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from db import rate_limit
from db.database import Database
from db.rate_limit import RateLimit, Slot
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall

_FULL_RING_WAIT_S = 0.02
# What a process may always lose between its turn and its request before it needs another turn.
_MIN_VALID_S = 0.1
# A shorter wait is over before the vendor can have asked for a pause.
_RECHECK_AFTER_S = 0.5
# For a 429 that does not say how long.
_DEFAULT_PAUSE_S = 5.0
# A vendor that asks for more than an hour has made a mistake, or nobody would ever notice.
_MAX_PAUSE_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Permit:
    """The right to send one request, now."""

    slot: Slot
    valid_until: float

    @property
    def is_expired(self) -> bool:
        """Whether so much time has passed that the request would fall into others' time."""
        return read_boot_clock() > self.valid_until


class RateLimiter:
    """Waits its turn in the ring of slots that all processes share.

    Args:
        database: where the ring is.
        limit: what the vendor allows.
        warn: is told of pauses that the vendor asks for.
    """

    def __init__(self, database: Database, limit: RateLimit, warn: Callable[[str], None]) -> None:
        self._database = database
        self._limit = limit
        self._warn = warn
        # The other half of the ring's margin is for the way to the vendor.
        self._valid_for_s = max(_MIN_VALID_S, limit.margin_s / 2)
        self._stopped = Event()

    def resize_ring(self) -> None:
        """Make the ring as large as the limit says."""
        with self._database.transaction() as connection:
            rate_limit.resize_ring(connection, self._limit)

    def stop(self) -> None:
        """Let nobody wait any longer, and nothing more be sent: the run is being stopped."""
        self._stopped.set()

    def wait_for_permit(self, call: ApiCall) -> None:
        """Return when one request may leave.

        Raises:
            RunError: the run is being stopped.
        """
        self.acquire_permit(call)

    def acquire_permit(self, call: ApiCall) -> Permit:
        """Take a slot and wait until it may be used.

        Raises:
            RunError: the run is being stopped.
        """
        while True:
            turn = self.wait_until_due(self.reserve_slot(call))
            if turn is not None:
                return turn

    def reserve_slot(self, call: ApiCall) -> Slot:
        """Take a slot, whose turn may be yet to come.

        Raises:
            RunError: the run is being stopped.
        """
        urgent = call in (ApiCall.DISABLE, ApiCall.LOGIN)
        while True:
            with self._database.autocommit() as connection:
                slot = rate_limit.reserve_slot(connection, self._limit, urgent=urgent)
            if slot is not None:
                return slot
            self._sleep_unless_stopped(_FULL_RING_WAIT_S)

    def wait_until_due(self, slot: Slot) -> Permit | None:
        """Wait until a slot may be used; None where the vendor has asked for a pause meanwhile.

        Raises:
            RunError: the run is being stopped.
        """
        self._sleep_unless_stopped(slot.wait_s)
        if slot.wait_s > _RECHECK_AFTER_S:
            with self._database.autocommit() as connection:
                if rate_limit.is_paused(connection):
                    return None
        return Permit(slot=slot, valid_until=read_boot_clock() + self._valid_for_s)

    def release_slot(self, slot: Slot) -> None:
        """Return a slot for which nothing was sent."""
        with self._database.autocommit() as connection:
            rate_limit.release_slot(connection, slot, self._limit)

    def pause(self, retry_after_s: float | None) -> None:
        """The vendor asked for a pause: nobody of the business sends anything for so long.

        Args:
            asked_s: seconds; None where it did not say.
        """
        pause_s = min(
            retry_after_s if retry_after_s is not None else _DEFAULT_PAUSE_S, _MAX_PAUSE_S
        )
        self._warn(f"the vendor asked for a pause: nothing is sent for {pause_s:.0f} s")
        with self._database.autocommit() as connection:
            rate_limit.pause_requests(connection, pause_s)

    def _sleep_unless_stopped(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise RunError("the run was stopped")
