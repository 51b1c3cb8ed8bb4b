"""Leads that were sent, whose rows somebody deletes and inserts again: never a second create."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from db import leads
from db.database import Database, DatabaseError
from db.leads import Batch
from tests import books
from tests.books import CAMPAIGN

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
_TIMES = "SELECT status, sent_at, confirmed_at FROM leadloop.leads WHERE lead_id = 'a'"
_COLUMNS = """SELECT column_name FROM information_schema.columns
               WHERE table_schema = 'leadloop' AND table_name = 'sent_leads'"""


def sent(database: Database, status: str = "created") -> None:
    """Two leads, of which the vendor may have `a`."""
    books.add_campaign(database)
    books.add_leads(
        database,
        books.lead("a", status=status, sent_at=NOON, confirmed_at=NOON, run_id=7, claim_no=3),
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
    books.run(database, removal)
    assert books.statuses(database) == {}
    books.add_leads(database, "a", "b")
    assert books.statuses(database) == {"a": again, "b": "new"}


def test_its_times_come_back_with_it(database: Database) -> None:
    """When it was sent, and when that was confirmed."""
    sent(database)
    books.run(database, "DELETE FROM leadloop.leads")
    books.add_leads(database, "a")
    assert books.rows(database, _TIMES) == [
        {"status": "created", "sent_at": NOON, "confirmed_at": NOON}
    ]


def test_nothing_personal_outlives_the_row(database: Database) -> None:
    """Ids, a status and times."""
    assert {row["column_name"] for row in books.rows(database, _COLUMNS)} == {
        *("campaign_id", "lead_id", "status", "sent_at", "confirmed_at", "doubted_at"),
        *("run_id", "claim_no", "deleted_at"),
    }


def test_a_nightly_job_may_do_it_every_night(database: Database) -> None:
    """Within one transaction too, and whatever it inserts beside."""
    sent(database)
    for night in range(3):
        with database.begin() as connection:
            connection.execute(text("DELETE FROM leadloop.leads"))
            connection.execute(
                text(
                    "INSERT INTO leadloop.leads (campaign_id, lead_id)"
                    " VALUES ('C1', 'a'), ('C1', :other), ('C2', 'a')"
                ),
                {"other": f"night {night}"},
            )
        assert books.statuses(database) == {"a": "created", f"night {night}": "new"}
        assert books.statuses(database, "C2") == {"a": "new"}
    assert books.value(database, "SELECT count(*) FROM leadloop.sent_leads") == 0


def test_an_answer_that_is_on_its_way_settles_the_lead_that_came_back(database: Database) -> None:
    """The row was replaced while its request was out; the vendor's word about it still counts."""
    sent(database, "sending")
    books.run(database, "DELETE FROM leadloop.leads")
    books.add_leads(database, "a")
    batch = Batch(campaign_id=CAMPAIGN, run_id=7, claim_no=3, lead_ids=["a"])
    with database.begin() as connection:
        assert leads.record_created(connection, batch) == 1
    assert books.statuses(database) == {"a": "created"}


@pytest.mark.parametrize("table", ["lead_outcomes", "outreach_attempts"])
def test_a_lead_that_the_vendor_has_called_is_not_new(database: Database, table: str) -> None:
    """Deleted before there was a memory of sent leads, or created at the vendor by others."""
    books.add_campaign(database)
    columns = {
        "lead_outcomes": "processed_at, raw) VALUES ('C1', 'a', now(), '{}')",
        "outreach_attempts": "channel, block, attempt_key) VALUES ('C1', 'a', 'call', 'b', '1')",
    }
    books.run(database, f"INSERT INTO leadloop.{table} (campaign_id, lead_id, {columns[table]}")
    books.add_leads(database, "a", "b")
    assert books.statuses(database) == {"a": "created", "b": "new"}
    assert books.value(database, "SELECT sent_at FROM leadloop.leads WHERE lead_id = 'a'")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_older_snapshot_inserts_nobody_whom_another_has_just_deleted(
    database: Database, level: str
) -> None:
    """It does not see what the delete has left behind: it fails, and passes when run again."""
    sent(database)

    def nightly() -> None:
        with database.begin() as job:
            job.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
            job.execute(text("SELECT FROM leadloop.campaigns"))
            books.run(database, "DELETE FROM leadloop.leads")
            job.execute(text("INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('C1','a')"))

    with pytest.raises(DatabaseError, match="40001"):
        nightly()
    books.add_leads(database, "a")
    assert books.statuses(database) == {"a": "created"}


def test_who_deletes_and_inserts_needs_no_right_on_the_memory(database: Database) -> None:
    """The documented rights of an upstream that manages its leads are enough."""
    sent(database)
    books.run(
        database,
        """CREATE ROLE nightly; GRANT USAGE ON SCHEMA leadloop TO nightly;
           GRANT INSERT, DELETE, TRUNCATE, SELECT ON leadloop.leads TO nightly""",
    )
    try:
        for removal in ("DELETE FROM leadloop.leads", "TRUNCATE leadloop.leads"):
            books.run(database, f"SET LOCAL ROLE nightly; {removal}")
            books.run(
                database,
                """SET LOCAL ROLE nightly;
                   INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('C1', 'a')""",
            )
            assert books.statuses(database) == {"a": "created"}
    finally:
        books.run(database, "DROP OWNED BY nightly; DROP ROLE nightly")
