"""Factories of campaigns, leads and opt-outs, inserted with plain SQL as upstream does."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from db.database import Database

CAMPAIGN = "C1"


def build_phone(number: int) -> str:
    """Return a valid US phone number in E.164, unique for each number below ten million."""
    area = (212, 415, 512, 617)[number % 4]
    return f"+1{area}{200 + number // 10_000 % 700}{number % 10_000:04d}"


def build_lead(lead_id: str, **columns: Any) -> dict[str, Any]:
    """Return the row of a valid lead; `columns` replace or extend the defaults."""
    number = int.from_bytes(lead_id.encode()[-2:], "big")
    defaults = {
        "phone_number": build_phone(number),
        "contact_name": f"Ann {lead_id}",
        "state_code": "NY",
    }
    return {"lead_id": lead_id, **defaults, **columns}


def add_campaign(database: Database, campaign: str = CAMPAIGN, **columns: Any) -> None:
    """Insert a campaign; `columns` are its overrides."""
    _insert_rows(database, "campaigns", [{"campaign_id": campaign, **columns}])


def add_leads(
    database: Database, *leads: str | Mapping[str, Any], campaign: str = CAMPAIGN
) -> None:
    """Insert leads in this order, given as rows, or as ids for a default lead."""
    rows = [build_lead(each) if isinstance(each, str) else each for each in leads]
    _insert_rows(database, "leads", [{"campaign_id": campaign, **row} for row in rows])


def add_account_campaigns(database: Database, *lead_ids: str) -> None:
    """Insert C1 of the account `default` and C2 of `emea`, each with these leads."""
    add_campaign(database, "C1")
    add_campaign(database, "C2", account="emea")
    for campaign in ("C1", "C2"):
        add_leads(database, *lead_ids, campaign=campaign)


def add_opt_outs(
    database: Database, *lead_ids: str, campaign: str = CAMPAIGN, **columns: Any
) -> None:
    """Insert an opt-out request for each lead id."""
    rows = [{"campaign_id": campaign, "lead_id": lead_id, **columns} for lead_id in lead_ids]
    _insert_rows(database, "disable_requests", rows)


def owe_window(
    database: Database, after: str, before: str, campaign: str = CAMPAIGN, **columns: Any
) -> int:
    """Insert an owed window, tried an hour ago and due in an hour; return its number."""
    defaults = {"reason": "HTTP 500", "tries": 3, "tries_as_is": 3}
    row = {**defaults, **columns, "campaign_id": campaign}
    names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    statement = f"""
        INSERT INTO leadloop.owed_windows
               (window_after, window_before, found_at, tried_at, next_try_at, {names})
        VALUES (:after, :before, now() - interval '3 hours', now() - interval '1 hour',
                now() + interval '1 hour', {places})
        RETURNING owed_id
    """
    with database.transaction() as connection:
        inserted = connection.execute(text(statement), {"after": after, "before": before, **row})
        owed_id: int = inserted.scalar_one()
    return owed_id


def orphan_lead(database: Database, lead_id: str, campaign: str = CAMPAIGN) -> None:
    """Change a created lead to `sending`, as if its run had died before the response."""
    statements = (
        "INSERT INTO leadloop.sync_runs (flow, campaign_id) VALUES ('push-leads', :campaign)",
        "UPDATE leadloop.leads SET status = 'sending', run_id = (SELECT max(run_id) FROM"
        " leadloop.sync_runs), confirmed_at = NULL WHERE lead_id = :lead AND campaign_id"
        " = :campaign",
    )
    with database.transaction() as connection:
        for statement in statements:
            connection.execute(text(statement), {"lead": lead_id, "campaign": campaign})


def add_campaigns_with_refused_run(database: Database, event: str) -> tuple[str, str]:
    """Insert two campaigns with a lead each; Postgres refuses to write one's run.

    Args:
        database: where they are.
        event: what Postgres refuses: the INSERT of the run's row, or its UPDATE at the end.

    Returns:
        The campaign whose run is refused, and the other.
    """
    for campaign in ("C1", "C2"):
        add_campaign(database, campaign)
        add_leads(database, "a", campaign=campaign)
    refused, other = "C1", "C2"
    trigger = f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                  $$ BEGIN RAISE 'no'; END $$;
                  CREATE TRIGGER refuse BEFORE {event} ON leadloop.sync_runs FOR EACH ROW
                  WHEN (NEW.campaign_id = '{refused}' AND NEW.state <> 'crashed')
                  EXECUTE FUNCTION refuse();"""
    with database.transaction() as connection:
        connection.execute(text(trigger))
    return refused, other


def _insert_rows(database: Database, table: str, rows: list[dict[str, Any]]) -> None:
    with database.transaction() as connection:
        for row in rows:
            names = ", ".join(row)
            places = ", ".join(f":{name}" for name in row)
            statement = f"INSERT INTO leadloop.{table} ({names}) VALUES ({places})"
            values = {
                name: json.dumps(value) if isinstance(value, dict) else value
                for name, value in row.items()
            }
            connection.execute(text(statement), values)
