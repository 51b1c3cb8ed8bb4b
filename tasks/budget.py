"""The business's budget of requests, as this process sees it."""

import time
from collections.abc import Callable

from db import budget
from db.budget import RateLimit, Slot
from db.database import Database
from leadloop.core.verdicts import Call

_ALL_TAKEN_PAUSE_S = 0.02


class Budget:
    """Waits its turn in the ring of slots that all processes share.

    Args:
        database: where the ring is.
        limit: what the vendor allows.
        sleep: seconds to it; a run that is told to stop replaces it.
    """

    def __init__(
        self, database: Database, limit: RateLimit, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._database = database
        self._limit = limit
        self._sleep = sleep

    def lay_out(self) -> None:
        """Make the ring as large as the limit says."""
        with self._database.begin() as connection:
            budget.lay_out(connection, self._limit)

    def permit(self, call: Call) -> None:
        """Return when one request may leave."""
        self.wait_turn(call)

    def wait_turn(self, call: Call) -> Slot:
        """Take a slot and wait until it may be used."""
        slot = self._take(call)
        self._sleep(slot.wait_s)
        return slot

    def give_back(self, slot: Slot) -> None:
        """Return a slot for which nothing was sent."""
        with self._database.begin() as connection:
            budget.give_back(connection, slot, self._limit)

    def push_back(self, pause_s: float) -> None:
        """The vendor asked for a pause: nobody sends anything for so long."""
        with self._database.begin() as connection:
            budget.push_back(connection, pause_s)

    def _take(self, call: Call) -> Slot:
        while True:
            with self._database.session() as connection:
                slot = budget.take(connection, self._limit, urgent=call is Call.DISABLE)
            if slot is not None:
                return slot
            self._sleep(_ALL_TAKEN_PAUSE_S)
