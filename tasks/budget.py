"""The business's budget of requests, as this process sees it."""

from threading import Event

from db import budget
from db.budget import RateLimit, Slot
from db.database import Database
from leadloop.core.errors import RunError
from leadloop.core.verdicts import Call

_ALL_TAKEN_PAUSE_S = 0.02


class Budget:
    """Waits its turn in the ring of slots that all processes share.

    Args:
        database: where the ring is.
        limit: what the vendor allows.
    """

    def __init__(self, database: Database, limit: RateLimit) -> None:
        self._database = database
        self._limit = limit
        self._stopped = Event()

    def lay_out(self) -> None:
        """Make the ring as large as the limit says."""
        with self._database.begin() as connection:
            budget.lay_out(connection, self._limit)

    def stop(self) -> None:
        """Let nobody wait any longer, and nothing more be sent: the run is being stopped."""
        self._stopped.set()

    def permit(self, call: Call) -> None:
        """Return when one request may leave.

        Raises:
            RunError: the run is being stopped.
        """
        self.wait_turn(call)

    def wait_turn(self, call: Call) -> Slot:
        """Take a slot and wait until it may be used.

        Raises:
            RunError: the run is being stopped.
        """
        slot = self.take(call)
        self.wait_for(slot)
        return slot

    def take(self, call: Call) -> Slot:
        """Take a slot, whose turn may be yet to come.

        Raises:
            RunError: the run is being stopped.
        """
        while True:
            with self._database.session() as connection:
                slot = budget.take(connection, self._limit, urgent=call is Call.DISABLE)
            if slot is not None:
                return slot
            self._sleep(_ALL_TAKEN_PAUSE_S)

    def wait_for(self, slot: Slot) -> None:
        """Return when a slot may be used.

        Raises:
            RunError: the run is being stopped.
        """
        self._sleep(slot.wait_s)

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise RunError("the run was stopped")

    def give_back(self, slot: Slot) -> None:
        """Return a slot for which nothing was sent."""
        with self._database.begin() as connection:
            budget.give_back(connection, slot, self._limit)

    def push_back(self, pause_s: float) -> None:
        """The vendor asked for a pause: nobody sends anything for so long."""
        with self._database.begin() as connection:
            budget.push_back(connection, pause_s)
