"""Sent leads whose rows are deleted and inserted again are not created twice."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import Connection, text

from db import erasure, in_doubt, leads, opt_outs
from db.database import Database, DatabaseError
from db.in_doubt import DueLookups
from db.leads import ClaimRef
from tests import factories, sql
from tests.factories import CAMPAIGN

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
_TIMES = "SELECT status, sent_at, confirmed_at FROM leadloop.leads WHERE lead_id = 'a'"
_COLUMNS = """SELECT column_name FROM information_schema.columns
               WHERE table_schema = 'leadloop' AND table_name = 'sent_leads'"""


def sent(database: Database, status: str = "created") -> None:
    """Two leads, of which the vendor may have `a`."""
    factories.add_campaign(database)
    factories.add_leads(
        database,
        factories.build_lead(
            "a", status=status, sent_at=NOON, confirmed_at=NOON, run_id=7, claim_no=3
        ),
        "b",
    )


@pytest.mark.parametrize("removal", ["DELETE FROM leadloop.leads", "TRUNCATE leadloop.leads"])
@pytest.mark.parametrize(
    ("status", "again"),
    [
        ("created", "created"),
        ("in_doubt", "in_doubt"),
        ("sending", "in_doubt"),
        ("new", "new"),
        ("rejected", "new"),
        ("cancelled", "new"),
    ],
)
def test_a_lead_that_comes_again_is_what_it_was(
    database: Database, removal: str, status: str, again: str
) -> None:
    """What the vendor may have is not `new` again; what it cannot have is."""
    sent(database, status)
    sql.execute(database, removal)
    assert sql.fetch_statuses(database) == {}
    factories.add_leads(database, "a", "b")
    assert sql.fetch_statuses(database) == {"a": again, "b": "new"}


def test_its_times_come_back_with_it(database: Database) -> None:
    """When it was sent, and when that was confirmed."""
    sent(database)
    sql.execute(database, "DELETE FROM leadloop.leads")
    factories.add_leads(database, "a")
    assert sql.fetch_rows(database, _TIMES) == [
        {"status": "created", "sent_at": NOON, "confirmed_at": NOON}
    ]


def test_nothing_personal_outlives_the_row(database: Database) -> None:
    """Ids, a status and times."""
    assert {row["column_name"] for row in sql.fetch_rows(database, _COLUMNS)} == {
        *("campaign_id", "lead_id", "status", "sent_at", "confirmed_at", "doubted_at"),
        *("run_id", "claim_no", "deleted_at"),
    }


def test_a_nightly_job_may_do_it_every_night(database: Database) -> None:
    """Within one transaction too, and whatever it inserts beside."""
    sent(database)
    for night in range(3):
        with database.transaction() as connection:
            connection.execute(text("DELETE FROM leadloop.leads"))
            connection.execute(
                text(
                    "INSERT INTO leadloop.leads (campaign_id, lead_id)"
                    " VALUES ('C1', 'a'), ('C1', :other), ('C2', 'a')"
                ),
                {"other": f"night {night}"},
            )
        assert sql.fetch_statuses(database) == {"a": "created", f"night {night}": "new"}
        assert sql.fetch_statuses(database, "C2") == {"a": "new"}
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.sent_leads") == 0


def test_an_answer_that_is_on_its_way_settles_the_lead_that_came_back(database: Database) -> None:
    """The row was replaced while its request was out; the vendor's word about it still counts."""
    sent(database, "sending")
    sql.execute(database, "DELETE FROM leadloop.leads")
    factories.add_leads(database, "a")
    batch = ClaimRef(campaign_id=CAMPAIGN, run_id=7, claim_no=3, lead_ids=["a"])
    with database.transaction() as connection:
        assert leads.record_created(connection, batch) == 1
    assert sql.fetch_statuses(database) == {"a": "created"}


@pytest.mark.parametrize("table", ["lead_outcomes", "outreach_attempts"])
def test_a_lead_that_the_vendor_has_called_is_not_new(database: Database, table: str) -> None:
    """Deleted before there was a memory of sent leads, or created at the vendor by others."""
    factories.add_campaign(database)
    columns = {
        "lead_outcomes": "processed_at, raw) VALUES ('C1', 'a', now(), '{}')",
        "outreach_attempts": "channel, block, attempt_key) VALUES ('C1', 'a', 'call', 'b', '1')",
    }
    sql.execute(database, f"INSERT INTO leadloop.{table} (campaign_id, lead_id, {columns[table]}")
    factories.add_leads(database, "a", "b")
    assert sql.fetch_statuses(database) == {"a": "created", "b": "new"}
    assert sql.fetch_value(database, "SELECT sent_at FROM leadloop.leads WHERE lead_id = 'a'")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_older_snapshot_inserts_nobody_whom_another_has_just_deleted(
    database: Database, level: str
) -> None:
    """It does not see what the delete has left behind: it fails, and passes when run again."""
    sent(database)

    def nightly() -> None:
        with database.transaction() as job:
            job.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
            job.execute(text("SELECT FROM leadloop.campaigns"))
            sql.execute(database, "DELETE FROM leadloop.leads")
            job.execute(text("INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('C1','a')"))

    with pytest.raises(DatabaseError, match="40001"):
        nightly()
    factories.add_leads(database, "a")
    assert sql.fetch_statuses(database) == {"a": "created"}


def test_who_deletes_and_inserts_needs_no_right_on_the_memory(database: Database) -> None:
    """The documented rights of an upstream that manages its leads are enough."""
    sent(database)
    sql.execute(
        database,
        """CREATE ROLE nightly; GRANT USAGE ON SCHEMA leadloop TO nightly;
           GRANT INSERT, DELETE, TRUNCATE, SELECT ON leadloop.leads TO nightly""",
    )
    try:
        for removal in ("DELETE FROM leadloop.leads", "TRUNCATE leadloop.leads"):
            sql.execute(database, f"SET LOCAL ROLE nightly; {removal}")
            sql.execute(
                database,
                """SET LOCAL ROLE nightly;
                   INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('C1', 'a')""",
            )
            assert sql.fetch_statuses(database) == {"a": "created"}
    finally:
        sql.execute(database, "DROP OWNED BY nightly; DROP ROLE nightly")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_older_snapshot_truncates_nothing(database: Database, level: str) -> None:
    """It would remove leads that it sees as new and that were sent since; DELETE fails too."""
    sent(database, "new")

    def nightly() -> None:
        with database.transaction() as job:
            job.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
            job.execute(text("SELECT FROM leadloop.leads"))
            sql.execute(database, "UPDATE leadloop.leads SET status = 'created', sent_at = now()")
            job.execute(text("TRUNCATE leadloop.leads"))

    with pytest.raises(DatabaseError, match="55000"):
        nightly()
    assert set(sql.fetch_statuses(database).values()) == {"created"}


@pytest.mark.parametrize(
    ("record", "ledger"),
    [
        (leads.record_created, "created"),
        (partial(leads.mark_in_doubt, reason="no answer"), "in_doubt"),
        (leads.release_leads, None),
        (partial(leads.record_rejected, reasons={"a": "no"}, was_sent=True), None),
    ],
)
def test_an_answer_for_a_row_that_is_gone_is_not_lost(
    database: Database, record: Callable[[Connection, ClaimRef], int], ledger: str | None
) -> None:
    """What the vendor said decides what the lead is when it comes again."""
    sent(database, "sending")
    sql.execute(database, "DELETE FROM leadloop.leads")
    with database.transaction() as connection:
        record(connection, ClaimRef(campaign_id=CAMPAIGN, run_id=7, claim_no=3, lead_ids=["a"]))
    found = sql.fetch_rows(
        database, "SELECT status, doubted_at < now() AS dated FROM leadloop.sent_leads"
    )
    assert [row["status"] for row in found] == ([ledger] if ledger else [])
    if ledger == "in_doubt":
        assert found[0]["dated"]


def test_the_vendor_has_its_time_only_once_the_run_has_given_up(database: Database) -> None:
    """A row that was replaced while its request is out: its absence proves nothing meanwhile."""
    factories.add_campaign(database)
    run = """INSERT INTO leadloop.sync_runs (flow, campaign_id) VALUES ('push-leads', 'C1')
             RETURNING run_id"""
    run_id = sql.fetch_value(database, run)
    factories.add_leads(
        database, factories.build_lead("a", status="sending", sent_at=NOON, run_id=run_id)
    )
    sql.execute(database, "DELETE FROM leadloop.leads")
    factories.add_leads(database, "a")
    looking = DueLookups(campaign=CAMPAIGN, run=run_id + 1, settle_s=0)

    def due() -> list[bool]:
        with database.transaction() as connection:
            in_doubt.start_settle_time(connection, CAMPAIGN)
        with database.transaction() as connection:
            return [doubt.settled for doubt in looking.list(connection, 9)]

    assert due() == [], "its run is at work"
    sql.execute(database, "UPDATE leadloop.sync_runs SET state = 'crashed'")
    assert due() == [True]


def test_an_opt_out_of_a_lead_that_is_being_sent_waits_for_its_answer(database: Database) -> None:
    """Its row is gone; a confirmation before the create is carried out would mean nothing."""
    factories.add_campaign(database)
    run = """INSERT INTO leadloop.sync_runs (flow, campaign_id) VALUES ('push-leads', 'C1')
             RETURNING run_id"""
    run_id = sql.fetch_value(database, run)
    factories.add_leads(
        database, factories.build_lead("a", status="sending", sent_at=NOON, run_id=run_id)
    )
    factories.add_opt_outs(database, "a")
    sql.execute(database, "DELETE FROM leadloop.leads")

    def due() -> list[str]:
        with database.transaction() as connection:
            in_doubt.start_settle_time(connection, CAMPAIGN)
        with database.transaction() as connection:
            return opt_outs.pick_due(
                connection, campaign_id=CAMPAIGN, status="requested", limit=9, exclude=[]
            )

    def confirmed(settle_s: int) -> int:
        with database.transaction() as connection:
            return opt_outs.confirm_disabled(connection, CAMPAIGN, ["a"], settle_s=settle_s)

    assert due() == []
    sql.execute(database, "UPDATE leadloop.sync_runs SET state = 'crashed'")
    assert due() == ["a"]
    assert confirmed(60) == 0, "the vendor has its time"
    assert confirmed(0) == 1


def test_somebody_whose_row_is_gone_can_be_forgotten(database: Database) -> None:
    """They opt out, and the nightly insert brings nothing personal back."""
    sent(database)
    sql.execute(database, "DELETE FROM leadloop.leads")
    with database.transaction() as connection:
        assert erasure.lock_for_erasure(connection, CAMPAIGN, ["a"]).known == ["a"]
        erasure.erase_leads(connection, CAMPAIGN, ["a"])
    assert sql.fetch_opt_outs(database) == {"a": "requested"}
    factories.add_leads(database, "a")
    assert sql.fetch_statuses(database) == {"a": "created"}
    assert sql.fetch_value(database, "SELECT phone_number FROM leadloop.leads") is None
