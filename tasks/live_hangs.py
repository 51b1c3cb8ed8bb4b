"""A live run whose Postgres does not answer, on connections that stay open."""

from threading import Event, Thread
from types import TracebackType
from typing import Self

from db.database import Database
from tasks.context import Logger

#: Seconds without a look after which the loop's connections are cut.
HANG_S = 120.0
_CHECK_S = 5.0


class HangWatch:
    """Cuts the connections of a loop that waits for Postgres for too long.

    TCP finds out in a minute that packets are lost. It does not find out that a proxy, a pooler or
    a server hangs whose kernel acknowledges them: without this, the loop would wait indefinitely.

    Checks are counted instead of time: a process that was stopped does not count as hung.

    Args:
        log: where a hang is logged.
        database: the loop's connections.
    """

    def __init__(self, log: Logger, database: Database) -> None:
        self._log = log
        self._database = database
        self._has_looked = False
        self._ended = Event()
        self._thread = Thread(target=self._run, name="live-hang-watch", daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch, until the end of the block."""
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """End the watch."""
        self._ended.set()

    def record_look(self) -> None:
        """Record that the loop looks for work."""
        self._has_looked = True

    def _run(self) -> None:
        silent_s = 0.0
        while not self._ended.wait(_CHECK_S):
            silent_s = 0.0 if self._has_looked else silent_s + _CHECK_S
            self._has_looked = False
            if silent_s >= HANG_S:
                self._log.warning(
                    "Postgres at %s has not answered for %.0f s: the connections to it are cut",
                    *(self._database.display_name, silent_s),
                )
                self._database.cut_connections()
                silent_s = 0.0
