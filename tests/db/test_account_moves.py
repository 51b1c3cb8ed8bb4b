"""A campaign moves to another account only while the vendor has nothing of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.errors import ObjectNotInPrerequisiteState
from sqlalchemy import Connection, text

from db import leads, rate_limit, runs
from db.database import Database
from leadloop.core.rate_ring import Purpose, RateLimit
from tests import factories, sql
from tests.factories import CAMPAIGN

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
_MOVE = "UPDATE leadloop.campaigns SET account = 'emea'"
_RENAME = "SET LOCAL leadloop.renames_account = 'on'"
_ACCOUNT = "SELECT account FROM leadloop.campaigns"
_REFUSED = f"campaign {CAMPAIGN} cannot move from account default to emea"


def execute_as_person(database_url: str, *statements: str) -> None:
    """Execute statements in one transaction, with the server's own errors, as psql does."""
    connection = psycopg2.connect(database_url)
    try:
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()


def add_lead(database: Database, **columns: Any) -> None:
    """Insert the campaign's only lead."""
    factories.add_leads(database, factories.build_lead("a", **columns))


def add_deleted_lead(database: Database) -> None:
    """Insert a lead that was sent, and delete its row."""
    add_lead(database, status="created", sent_at=NOON)
    sql.execute(database, "DELETE FROM leadloop.leads")


def add_outcome(database: Database) -> None:
    """Insert an outcome of a lead that others have sent."""
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
           VALUES (:campaign, 'a', :at, '{}')""",
        campaign=CAMPAIGN,
        at=NOON,
    )


def add_opt_out(database: Database, status: str) -> None:
    """Insert an opt-out of a person who is no lead."""
    factories.add_opt_outs(database, "a", status=status)


def hold_creates(database: Database) -> None:
    """Hold creates, as after a restore: the vendor may have leads that are new here."""
    add_lead(database)
    sql.execute(
        database,
        "INSERT INTO leadloop.create_holds (campaign_id, reason) VALUES (:campaign, 'restored')",
        campaign=CAMPAIGN,
    )


@pytest.mark.parametrize(
    "send",
    [
        lambda database: add_lead(database, status="sending", sent_at=NOON),
        lambda database: add_lead(database, status="created", sent_at=NOON),
        lambda database: add_lead(database, status="in_doubt", sent_at=NOON),
        lambda database: add_lead(database, status="rejected", sent_at=NOON),
        add_deleted_lead,
        add_outcome,
        lambda database: add_opt_out(database, "requested"),
        lambda database: add_opt_out(database, "failed"),
        hold_creates,
    ],
)
def test_a_campaign_with_leads_at_the_vendor_does_not_move(
    database: Database, database_url: str, send: Callable[[Database], None]
) -> None:
    """In one line with the way out; under that setting it only gets another name."""
    factories.add_campaign(database)
    send(database)
    with pytest.raises(ObjectNotInPrerequisiteState, match=_REFUSED) as caught:
        execute_as_person(database_url, _MOVE)
    assert _RENAME in str(caught.value.diag.message_hint)
    assert sql.fetch_value(database, _ACCOUNT) == "default"
    execute_as_person(database_url, _RENAME, _MOVE)
    assert sql.fetch_value(database, _ACCOUNT) == "emea"
    with pytest.raises(ObjectNotInPrerequisiteState, match="from account emea to default"):
        execute_as_person(database_url, "UPDATE leadloop.campaigns SET account = 'default'")


@pytest.mark.parametrize(
    "prepare",
    [
        lambda database: add_lead(database),
        lambda database: add_lead(database, status="rejected"),
        lambda database: add_opt_out(database, "cancelled"),
    ],
)
def test_a_campaign_of_which_nothing_was_sent_moves(
    database: Database, prepare: Callable[[Database], None]
) -> None:
    """From then on, covering rows of earlier runs do not count for it."""
    factories.add_campaign(database, enabled_at=NOON)
    prepare(database)
    sql.execute(database, "UPDATE leadloop.campaigns SET account = account, priority = 1")
    assert sql.fetch_value(database, "SELECT enabled_at FROM leadloop.campaigns") == NOON
    sql.execute(database, _MOVE)
    assert sql.fetch_value(database, _ACCOUNT) == "emea"
    moved = "SELECT enabled_at > now() - interval '1 minute' FROM leadloop.campaigns"
    assert sql.fetch_value(database, moved)


def claim_one(connection: Connection, run_id: int, account: str = "default") -> int:
    """Claim a lead for a run of an account; return how many were claimed."""
    claimed = leads.claim_leads(
        connection, campaign_id=CAMPAIGN, run_id=run_id, claim_no=1, limit=1, account=account
    )
    return claimed.total


def start_run(database: Database) -> int:
    """Write the row of a run."""
    with database.autocommit() as connection:
        return runs.RunLocks(connection).open_run(
            flow="push-leads", campaign_id=CAMPAIGN, flow_run_id=None
        )


def test_a_claim_takes_leads_of_its_account_alone(database: Database) -> None:
    """A run that has read the campaign's row before sends nothing with the former login."""
    factories.add_campaign(database, account="emea")
    add_lead(database)
    run_id = start_run(database)
    with database.transaction() as connection:
        assert claim_one(connection, run_id) == 0
        assert claim_one(connection, run_id, "emea") == 1


def test_a_claim_that_meets_a_move_claims_nothing(database: Database) -> None:
    """It waits until the move has committed."""
    factories.add_campaign(database)
    add_lead(database)
    run_id = start_run(database)
    with ThreadPoolExecutor() as pool:
        with database.transaction() as moving:
            moving.execute(text(_MOVE))
            claimed = pool.submit(database.run, claim_one, run_id)
            sql.wait_until_blocked(database)
        assert claimed.result() == 0
    assert sql.fetch_statuses(database) == {"a": "new"}


def test_a_move_that_meets_a_claim_is_refused(database: Database, database_url: str) -> None:
    """It waits until the claim has committed."""
    factories.add_campaign(database)
    add_lead(database)
    run_id = start_run(database)
    with ThreadPoolExecutor() as pool:
        with database.transaction() as claiming:
            assert claim_one(claiming, run_id) == 1
            moved = pool.submit(execute_as_person, database_url, _MOVE)
            sql.wait_until_blocked(database)
        with pytest.raises(ObjectNotInPrerequisiteState, match=_REFUSED):
            moved.result()


def test_a_claim_waits_for_no_other_change_of_its_campaign(database: Database) -> None:
    """A person's open transaction stops no push."""
    factories.add_campaign(database)
    add_lead(database)
    run_id = start_run(database)
    with database.transaction() as connection:
        connection.execute(text("UPDATE leadloop.campaigns SET priority = 1"))
        assert database.run(claim_one, run_id) == 1


def test_the_documented_rename_keeps_the_rate_limit(database: Database, database_url: str) -> None:
    """What is in use and what the vendor paused, also if the new name has a ring already."""
    guide = Path(__file__).parents[2] / "docs/how-to/use-several-logins.md"
    (rename,) = [each for each in guide.read_text("utf-8").split("```") if _RENAME in each]
    factories.add_campaign(database, account="emea")
    add_lead(database, status="created", sent_at=NOON)
    limit = RateLimit(requests=20, period_s=60)
    for account in ("emea", "europe"):
        database.run(rate_limit.resize_ring, limit, account=account)
    with database.transaction() as connection:
        rate_limit.reserve_slot(connection, Purpose.BULK, account="emea")
        rate_limit.pause_requests(connection, 600, account="emea")
    in_use = "SELECT slot, free_at FROM leadloop.rate_slots WHERE account = :name ORDER BY slot"
    before = sql.fetch_rows(database, in_use, name="emea")
    execute_as_person(database_url, rename.removeprefix("sql"))
    assert sql.fetch_rows(database, in_use, name="europe") == before
    assert sql.fetch_rows(database, in_use, name="emea") == []
    assert sql.fetch_value(database, _ACCOUNT) == "europe"
