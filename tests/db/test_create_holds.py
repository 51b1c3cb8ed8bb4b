"""Holds of creates: what distinguishes a database from its copies, and what a change does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median
from threading import Barrier

import pytest
from sqlalchemy import make_url, text

from db import create_holds, leads
from db.database import Database
from leadloop.core.accounts import DEFAULT_ACCOUNT
from tests import factories, sql
from tests.conftest import new_database

_IDENTITY = "SELECT system_identifier, timeline, database_oid FROM leadloop.database_identity"
_NOW = "SELECT * FROM leadloop.read_database_identity()"
_OTHER = {
    "system_identifier": "'1234567890123456789'",
    "timeline": "'000000FF'",
    "database_oid": "1",
}


def change(database: Database, column: str = "timeline") -> None:
    """Have the last run seen another database."""
    sql.execute(database, f"UPDATE leadloop.database_identity SET {column} = {_OTHER[column]}")


def held(database: Database) -> list[str]:
    """Which campaigns are held."""
    return [hold.campaign_id for hold in database.run(create_holds.list_holds, None)]


def claim(database: Database) -> int:
    """How many leads a claim of a live run takes."""
    run = """INSERT INTO leadloop.sync_runs (flow, campaign_id) VALUES ('push-leads', 'C1')
             RETURNING run_id"""
    run_id = sql.fetch_value(database, run)
    claimed = database.run(
        leads.claim_leads,
        campaign_id="C1",
        run_id=run_id,
        claim_no=1,
        limit=9,
        account=DEFAULT_ACCOUNT,
    )
    return claimed.total


def test_the_first_run_remembers_the_database(database: Database) -> None:
    """All three values; an older database that is upgraded begins likewise, and holds nobody."""
    factories.add_campaign(database)
    for _ in range(2):
        assert database.run(create_holds.check_database) is None
    (seen,) = sql.fetch_rows(database, _IDENTITY)
    assert [seen] == sql.fetch_rows(database, _NOW)
    assert len(seen["timeline"]) == 8
    assert all(seen.values())
    assert held(database) == []


@pytest.mark.parametrize("column", _OTHER)
def test_each_change_holds_every_campaign(database: Database, column: str) -> None:
    """One that has sent nobody as far as this database knows, too, and one that is disabled."""
    factories.add_campaign(database, "C1")
    factories.add_campaign(database, "C2", enabled=False)
    database.run(create_holds.check_database)
    change(database, column)
    found = database.run(create_holds.check_database)
    assert found is not None
    assert found.startswith(f"{column.replace('_', ' ')} {_OTHER[column].strip(chr(39))} → ")
    assert held(database) == ["C1", "C2"]
    assert database.run(create_holds.check_database) is None, "it is remembered as it is now"
    assert sql.fetch_rows(database, _IDENTITY) == sql.fetch_rows(database, _NOW)


@pytest.mark.parametrize("column", _OTHER)
def test_a_value_that_cannot_be_read_is_no_change(database: Database, column: str) -> None:
    """Not when it was first seen, and not now."""
    factories.add_campaign(database)
    database.run(create_holds.check_database)
    sql.execute(database, f"UPDATE leadloop.database_identity SET {column} = NULL")
    factories.add_leads(database, "a")
    assert database.run(create_holds.check_database) is None
    assert claim(database) == 1


@pytest.fixture
def limited(database: Database, database_url: str) -> Iterator[Database]:
    """The database for a role that may not look at the cluster, as at some managed services."""
    functions = "pg_control_system(), pg_current_wal_lsn(), pg_walfile_name(pg_lsn)"
    sql.execute(
        database,
        f"""REVOKE EXECUTE ON FUNCTION {functions} FROM PUBLIC;
            CREATE ROLE limited LOGIN; GRANT USAGE ON SCHEMA leadloop TO limited;
            GRANT ALL ON ALL TABLES IN SCHEMA leadloop TO limited;
            GRANT EXECUTE ON FUNCTION leadloop.read_database_identity TO limited""",
    )
    url = make_url(database_url).set(username="limited")
    try:
        with Database(url.render_as_string(hide_password=False), pool_size=2) as opened:
            yield opened
    finally:
        sql.execute(
            database,
            f"""DROP OWNED BY limited; DROP ROLE limited;
                GRANT EXECUTE ON FUNCTION {functions} TO PUBLIC""",
        )


def test_a_service_that_shows_nothing_of_the_cluster(database: Database, limited: Database) -> None:
    """Creates go on; what is left to see still holds them."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    assert limited.run(create_holds.check_database) is None
    (seen,) = sql.fetch_rows(limited, _IDENTITY)
    assert (seen["system_identifier"], seen["timeline"]) == (None, None)
    assert claim(limited) == 2
    change(database, "database_oid")
    factories.add_leads(database, "c")
    assert claim(limited) == 0
    assert limited.run(create_holds.check_database)


def test_a_copy_is_another_database(postgres: str, database_url: str) -> None:
    """A real copy, in which nothing else differs."""
    with ExitStack() as stack:
        with Database(database_url, pool_size=1) as original:
            factories.add_campaign(original)
            original.run(create_holds.check_database)
        name = make_url(database_url).database
        assert name
        with Database(new_database(stack, postgres, name), pool_size=1) as copy:
            found = copy.run(create_holds.check_database)
            assert found is not None
            assert found.startswith("database oid ")
            assert held(copy) == ["C1"]
        with Database(database_url, pool_size=1) as original:
            assert original.run(create_holds.check_database) is None


@pytest.mark.parametrize("suspect", [False, True])
def test_no_claim_takes_a_lead_of_a_changed_database(database: Database, suspect: bool) -> None:
    """Before any run has detected it: the claim itself compares."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    if suspect:
        sql.execute(database, "UPDATE leadloop.leads SET suspect_list = 1")
    database.run(create_holds.check_database)
    change(database)
    assert not database.run(leads.has_fresh_leads, "C1", require_enabled=True)
    assert not database.run(leads.has_due_suspects, "C1", require_enabled=True)
    assert claim(database) == 0
    assert database.run(leads.count_held_back, "C1", require_enabled=True) == 1
    assert sql.fetch_statuses(database) == {"a": "new"}


def test_a_claimed_lead_that_is_to_be_resent_is_new_again(database: Database) -> None:
    """A batch that was split goes no further than the hold."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    database.run(create_holds.check_database)
    assert claim(database) == 1
    run_id = sql.fetch_value(database, "SELECT run_id FROM leadloop.leads")
    ref = leads.ClaimRef(campaign_id="C1", run_id=run_id, claim_no=1, lead_ids=["a"])
    database.run(create_holds.hold_creates, ["C1"], "restored")
    assert database.run(leads.reclaim_leads, ref, account=DEFAULT_ACCOUNT).total == 0
    assert sql.fetch_statuses(database) == {"a": "new"}


def test_runs_that_start_together_detect_it_once(database: Database) -> None:
    """One reports it; each campaign is held once."""
    for number in range(20):
        factories.add_campaign(database, f"C{number}")
    database.run(create_holds.check_database)
    change(database)
    barrier = Barrier(8)

    def check(_: int) -> str | None:
        barrier.wait(timeout=30)
        return database.retry(create_holds.check_database)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(check, range(8)))
    assert sum(each is not None for each in found) == 1
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.create_holds") == 20


def test_a_hold_is_kept_for_the_record(database: Database) -> None:
    """Who held and who released, when and why; a later hold is another row."""
    factories.add_campaign(database)
    for reason in ("first", "not stored: it is held already"):
        database.run(create_holds.hold_creates, ["C1"], reason)
    assert database.run(create_holds.release_creates, ["C1", "C2"], "nothing was lost") == ["C1"]
    assert database.run(create_holds.release_creates, ["C1"], "again") == []
    database.run(create_holds.hold_creates, None, "second")
    rows = sql.fetch_rows(
        database,
        """SELECT reason, held_by, released_at > held_at AS ended, released_by, released_reason,
                  session_user AS me
             FROM leadloop.create_holds ORDER BY hold_id""",
    )
    me = rows[0]["me"]
    assert [tuple(row.values())[:-1] for row in rows] == [
        ("first", me, True, me, "nothing was lost"),
        ("second", me, None, None, None),
    ]


def test_the_comparison_costs_a_claim_next_to_nothing(database: Database) -> None:
    """Less than a millisecond, where a claim of a hundred leads takes several."""
    database.run(create_holds.check_database)
    query = text("EXPLAIN (ANALYZE, FORMAT JSON) SELECT " + create_holds.IS_HELD)
    times = []
    for _ in range(20):
        with database.transaction() as connection:
            (plan,) = connection.execute(query, {"campaign": "C1"}).scalar_one()
        times.append(plan["Execution Time"])
    assert median(times) < 1
