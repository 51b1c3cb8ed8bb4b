"""The business's budget of requests, as this process sees it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from db import rate_limit
from db.database import Database
from db.rate_limit import RateLimit, Slot
from leadloop.core.errors import RunError
from leadloop.core.verdicts import Call

_ALL_TAKEN_PAUSE_S = 0.02
# What a process may always lose between its turn and its request before it needs another turn.
_LEAST_GOOD_FOR_S = 0.1
# A shorter wait is over before the vendor can have asked for a pause.
_WORTH_A_LOOK_S = 0.5
# For a 429 that does not say how long.
_DEFAULT_PAUSE_S = 5.0
# A vendor that asks for more than an hour has made a mistake, or nobody would ever notice.
_LONGEST_PAUSE_S = 3600.0

# Goes on while the machine sleeps, which `monotonic` does not.
_clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_time() -> float:
    """Seconds of a clock that neither jumps nor stops."""
    return time.clock_gettime(_clock)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The right to send one request, now."""

    slot: Slot
    good_until: float

    @property
    def is_over(self) -> bool:
        """Whether so much time has passed that the request would fall into others' time."""
        return boot_time() > self.good_until


class Budget:
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
        self._good_for_s = max(_LEAST_GOOD_FOR_S, limit.margin_s / 2)
        self._stopped = Event()

    def lay_out(self) -> None:
        """Make the ring as large as the limit says."""
        with self._database.begin() as connection:
            rate_limit.lay_out(connection, self._limit)

    def stop(self) -> None:
        """Let nobody wait any longer, and nothing more be sent: the run is being stopped."""
        self._stopped.set()

    def permit(self, call: Call) -> None:
        """Return when one request may leave.

        Raises:
            RunError: the run is being stopped.
        """
        self.wait_turn(call)

    def wait_turn(self, call: Call) -> Turn:
        """Take a slot and wait until it may be used.

        Raises:
            RunError: the run is being stopped.
        """
        while True:
            turn = self.wait_for(self.take(call))
            if turn is not None:
                return turn

    def take(self, call: Call) -> Slot:
        """Take a slot, whose turn may be yet to come.

        Raises:
            RunError: the run is being stopped.
        """
        urgent = call in (Call.DISABLE, Call.LOGIN)
        while True:
            with self._database.session() as connection:
                slot = rate_limit.take(connection, self._limit, urgent=urgent)
            if slot is not None:
                return slot
            self._sleep(_ALL_TAKEN_PAUSE_S)

    def wait_for(self, slot: Slot) -> Turn | None:
        """Wait until a slot may be used; None where the vendor has asked for a pause meanwhile.

        Raises:
            RunError: the run is being stopped.
        """
        self._sleep(slot.wait_s)
        if slot.wait_s > _WORTH_A_LOOK_S:
            with self._database.session() as connection:
                if rate_limit.is_paused(connection):
                    return None
        return Turn(slot=slot, good_until=boot_time() + self._good_for_s)

    def give_back(self, slot: Slot) -> None:
        """Return a slot for which nothing was sent."""
        with self._database.session() as connection:
            rate_limit.give_back(connection, slot, self._limit)

    def pause(self, asked_s: float | None) -> None:
        """The vendor asked for a pause: nobody of the business sends anything for so long.

        Args:
            asked_s: seconds; None where it did not say.
        """
        pause_s = min(asked_s if asked_s is not None else _DEFAULT_PAUSE_S, _LONGEST_PAUSE_S)
        self._warn(f"the vendor asked for a pause: nothing is sent for {pause_s:.0f} s")
        with self._database.session() as connection:
            rate_limit.pause(connection, pause_s)

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise RunError("the run was stopped")
