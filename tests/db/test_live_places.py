"""Places for live runs, and who is alive on them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import text

from db import live_places, schema
from db.database import Database, DatabaseError
from db.due_work import SHARES
from db.live_places import PlaceConnection
from db.notifications import WorkListener, announce_work
from tests import sql


@contextmanager
def open_place(database: Database, name: str) -> Iterator[PlaceConnection]:
    """A live run's connection, with its place."""
    with database.dedicated() as connection:
        place = PlaceConnection(connection, name)
        assert place.read(live_places.take_place) is not None
        yield place


def wait_until_gone(database: Database, *names: str) -> None:
    """Return once Postgres has noticed that these live runs have ended."""
    sql.wait_until(
        database,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = ANY(:names)",
        names=list(names),
    )


def test_two_places_and_no_third(database: Database) -> None:
    """The place of a run that has ended is free."""
    with ExitStack() as stack, database.dedicated() as third:
        for name in ("a", "b"):
            stack.enter_context(open_place(database, name))
        late = PlaceConnection(third, "c")
        assert late.read(live_places.take_place) is None
        assert {each.name for each in late.read(live_places.list_other_sessions)} == {"a", "b"}
        stack.close()
        wait_until_gone(database, "a", "b")
        assert late.read(live_places.take_place) is not None
        assert late.read(live_places.list_other_sessions) == []


def test_a_share_has_one_holder(database: Database) -> None:
    """The other run takes over what is released, or whose holder has ended."""
    with open_place(database, "b") as other:
        with open_place(database, "a") as first:
            assert len(first.read(live_places.take_free_shares, [])) == SHARES
            assert other.read(live_places.take_free_shares, []) == []
            (seen,) = other.read(live_places.list_other_sessions)
            assert (seen.name, seen.is_working, seen.is_silent) == ("a", True, False)
            first.read(live_places.release_shares, [0, 3, 5])
            assert sorted(other.read(live_places.take_free_shares, [])) == [0, 3, 5]
            assert other.read(live_places.take_free_shares, [0, 3, 5]) == []
        wait_until_gone(database, "a")
        assert len(other.read(live_places.take_free_shares, [0, 3, 5])) == SHARES - 3


def test_shares_are_not_split(database: Database) -> None:
    """Of two runs that begin together, one works: two at work would both work without end."""
    with (
        open_place(database, "a") as first,
        open_place(database, "b") as second,
        database.dedicated() as elsewhere,
    ):
        lock = text("SELECT pg_advisory_lock(hashtext('leadloop.live.share'), 7)")
        elsewhere.execute(lock)
        held = first.read(live_places.take_free_shares, [])
        assert len(held) == SHARES - 1
        elsewhere.execute(text("SELECT pg_advisory_unlock_all()"))
        assert second.read(live_places.take_free_shares, []) == []
        assert first.read(live_places.take_free_shares, held) == [7]


def test_what_is_released_is_free_after_many_looks(database: Database) -> None:
    """A look takes no share again that is held: one release would not be enough."""
    with open_place(database, "b") as other, open_place(database, "a") as first:
        held = first.read(live_places.take_free_shares, [])
        for _ in range(3):
            assert first.read(live_places.take_free_shares, held) == []
        first.read(live_places.release_shares, held)
        assert sorted(other.read(live_places.take_free_shares, [])) == sorted(held)


def test_a_silent_run_is_ended_with_all_its_connections(database: Database) -> None:
    """Its locks are free, so that its runs are dead for others to recover."""
    with open_place(database, "b") as other, ExitStack() as stack:
        silent = stack.enter_context(open_place(database, "a"))
        silent.read(live_places.take_free_shares, [])
        run = stack.enter_context(database.dedicated())
        live_places.join_session(run, silent.pid)
        run.execute(text("SELECT pg_advisory_lock(7, 7)"))
        run.commit()
        (seen,) = other.read(live_places.list_other_sessions)
        other.read(live_places.end_session, seen.pid)
        sql.wait_until(database, "SELECT count(*) = 0 FROM pg_locks WHERE objid = 7")
        assert len(other.read(live_places.take_free_shares, [])) == SHARES
        for connection in (silent.read, lambda work: work(run)):
            with pytest.raises(DatabaseError), database.translate_errors():
                connection(schema.get_version)
        stack.pop_all()


def test_a_look_leaves_no_lock_behind(database: Database) -> None:
    """A migration does not wait for it, although its transaction goes on."""
    with open_place(database, "a") as place:
        for _ in range(3):
            assert place.read(schema.get_version) is not None
        tables = sql.fetch_value(
            database,
            "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND pid = :pid"
            " AND relation::regclass::text LIKE 'leadloop.%'",
            pid=place.pid,
        )
        assert tables == 0
        horizon = sql.fetch_value(
            database, "SELECT backend_xmin FROM pg_stat_activity WHERE pid = :pid", pid=place.pid
        )
        assert horizon is None, "it would keep dead rows"


def test_looks_share_a_transaction(database: Database) -> None:
    """A day of them is no day of 30,000 transactions; a write ends it, and others see it."""
    current = "SELECT virtualxid FROM pg_locks WHERE locktype = 'virtualxid' AND pid = :pid"
    with open_place(database, "a") as place:
        place.read(schema.get_version)
        first = sql.fetch_value(database, current, pid=place.pid)
        for _ in range(20):
            place.read(schema.get_version)
        assert sql.fetch_value(database, current, pid=place.pid) == first
        with database.autocommit() as connection:
            listener = WorkListener(connection)
            place.write(announce_work, "proof")
            assert listener.wait(10) == ["proof"]
        assert sql.fetch_rows(database, current, pid=place.pid) == []
        assert place.read(schema.get_version) is not None
