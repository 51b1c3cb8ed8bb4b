"""Notifications of new work: triggers send them (db/schema/triggers.sql), live runs wait for them.

A team may put such a trigger on its tables too (`db.source_triggers`). A notification may get lost,
behind a pooler for example. So a listener proves now and then that its own arrive, and nobody
relies on them for more than speed.
"""

import select
from collections.abc import Sequence
from socket import socket

from sqlalchemy import Connection, text

#: The channel of all notifications.
CHANNEL = "leadloop_work"
#: The text of a notification that a trigger on our own tables sends: there is new work.
NEWS = ""
#: The text of a notification that a table of the team has changed.
SOURCE_CHANGED = "source"
# As in the triggers: a full queue would fail the statement.
_NOTIFY = text(
    f"SELECT pg_notify('{CHANNEL}', :text) WHERE pg_catalog.pg_notification_queue_usage() < 0.5"
)


class WorkListener:
    """Waits for notifications of new work.

    Args:
        connection: in autocommit mode, of this listener alone. In a transaction, Postgres would
            hold notifications back.
    """

    def __init__(self, connection: Connection) -> None:
        connection.execute(text(f"LISTEN {CHANNEL}"))
        driver_connection = connection.connection.driver_connection
        assert driver_connection is not None, "it is open"
        self._driver = driver_connection

    def wait(self, timeout_s: float, wakeups: Sequence[int | socket] = ()) -> list[str]:
        """Wait for notifications, for something to read from one of `wakeups`, or for the timeout.

        Returns:
            The texts of the notifications that have arrived: `NEWS`, `SOURCE_CHANGED`, or proofs.

        Raises:
            psycopg2.Error: the connection is lost (inside of `Database.translate_errors`).
        """
        if not self._driver.notifies:
            select.select([self._driver, *wakeups], [], [], timeout_s)
        self._driver.poll()
        received = [each.payload for each in self._driver.notifies]
        self._driver.notifies.clear()
        return received


def announce_work(connection: Connection, proof: str = NEWS) -> None:
    """Notify all live runs; `proof` is a text by which the sender recognises its own."""
    connection.execute(_NOTIFY, {"text": proof})
