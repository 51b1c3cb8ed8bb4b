"""Notifications of new work."""

import os

import pytest
from sqlalchemy import text

from db.database import Database, DatabaseError
from db.notifications import WorkListener, announce_work
from tests import factories, sql


def test_triggers_announce_what_comes_in(database: Database) -> None:
    """Leads, opt-outs, and what is switched on; nothing of what they are."""
    factories.add_campaign(database)
    factories.add_leads(database, "seen")
    with database.autocommit() as connection:
        listener = WorkListener(connection)
        for work in (
            "INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('C1', 'a'), ('C1', 'b')",
            "INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('C1', 'a')",
            "UPDATE leadloop.campaigns SET push_enabled = true",
        ):
            assert listener.wait(0) == []
            sql.execute(database, work)
            assert listener.wait(10) == [""]
        sql.execute(database, "UPDATE leadloop.leads SET last_error = 'x'")
        assert listener.wait(0) == [], "our own changes announce nothing"


def test_nothing_is_announced_while_the_queue_is_half_full(database: Database) -> None:
    """A full queue would fail the commit of whoever inserts leads; live runs look anyway."""
    factories.add_campaign(database)
    # Postgres finds the function of this schema first, since a trigger's own path is replaced.
    sql.execute_script(
        database,
        "CREATE SCHEMA full_queue; CREATE FUNCTION full_queue.pg_notification_queue_usage()"
        " RETURNS double precision LANGUAGE sql AS 'SELECT 0.6';"
        " ALTER FUNCTION leadloop.announce_work() SET search_path = full_queue, pg_catalog",
    )
    with database.autocommit() as connection:
        listener = WorkListener(connection)
        factories.add_leads(database, "a")
        factories.add_opt_outs(database, "a")
        assert listener.wait(0) == []


def test_a_listener_recognises_its_own(database: Database) -> None:
    """Which proves that notifications arrive."""
    with database.autocommit() as connection, database.autocommit() as other:
        listener = WorkListener(connection)
        announce_work(other, "proof")
        assert listener.wait(10) == ["proof"]


def test_another_thread_can_end_the_wait(database: Database) -> None:
    """Through a file descriptor."""
    readable, writable = os.pipe()
    try:
        with database.autocommit() as connection:
            listener = WorkListener(connection)
            os.write(writable, b"x")
            assert listener.wait(60, [readable]) == []
    finally:
        os.close(readable)
        os.close(writable)


def test_a_lost_connection_is_an_error(database: Database) -> None:
    """Not a wait without end."""
    with database.autocommit() as connection:
        listener = WorkListener(connection)
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        assert sql.fetch_value(database, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)
        assert listener.wait(10) == [], "this one brings the reason"
        with pytest.raises(DatabaseError), database.translate_errors():
            listener.wait(10)
        connection.invalidate()
