"""Postgres as upstream writes it and as people read it: plain SQL, none of it ours."""

import json
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from db.database import Database

CAMPAIGN = "C1"


def phone(number: int) -> str:
    """A US number that libphonenumber takes, another one for each number below ten million."""
    area = (212, 415, 512, 617)[number % 4]
    return f"+1{area}{200 + number // 10_000 % 700}{number % 10_000:04d}"


def lead(lead_id: str, **more: Any) -> dict[str, Any]:
    """A lead that nobody refuses; `more` replaces or adds columns."""
    number = int.from_bytes(lead_id.encode()[-2:], "big")
    fixed = {"phone_number": phone(number), "contact_name": f"Ann {lead_id}", "state_code": "NY"}
    return {"lead_id": lead_id, **fixed, **more}


def add_campaign(database: Database, campaign: str = CAMPAIGN, **columns: Any) -> None:
    """A campaign; `columns` are its overrides."""
    _insert(database, "campaigns", [{"campaign_id": campaign, **columns}])


def add_leads(
    database: Database, *leads: str | Mapping[str, Any], campaign: str = CAMPAIGN
) -> None:
    """Leads, in this order: whole rows, or ids alone where the rest does not matter."""
    rows = [lead(each) if isinstance(each, str) else each for each in leads]
    _insert(database, "leads", [{"campaign_id": campaign, **row} for row in rows])


def opt_out(database: Database, *lead_ids: str, campaign: str = CAMPAIGN, **more: Any) -> None:
    """People who want no more calls."""
    rows = [{"campaign_id": campaign, "lead_id": lead_id, **more} for lead_id in lead_ids]
    _insert(database, "disable_requests", rows)


def rows(database: Database, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """What a query gives."""
    with database.transaction() as connection:
        return [dict(row._mapping) for row in connection.execute(text(query), parameters)]


def value(database: Database, query: str, **parameters: Any) -> Any:
    """The first column of a query's only row."""
    (row,) = rows(database, query, **parameters)
    return next(iter(row.values()))


def run(database: Database, statement: str, **parameters: Any) -> None:
    """Carry out a statement."""
    with database.transaction() as connection:
        connection.execute(text(statement), parameters)


def statuses(database: Database, campaign: str = CAMPAIGN) -> dict[str, str]:
    """The status of each lead by its id."""
    return _by_lead(database, "leads", "status", campaign)


def errors(database: Database, campaign: str = CAMPAIGN) -> dict[str, str]:
    """Why leads are rejected or in doubt, by id; those with a reason alone."""
    whole = _by_lead(database, "leads", "last_error", campaign)
    return {lead_id: reason for lead_id, reason in whole.items() if reason is not None}


def opt_outs(database: Database, campaign: str = CAMPAIGN) -> dict[str, str]:
    """The status of each opt-out by its lead's id."""
    return _by_lead(database, "disable_requests", "status", campaign)


def outcomes(database: Database, campaign: str = CAMPAIGN) -> dict[str, str | None]:
    """The name of each lead's outcome by its id."""
    return _by_lead(database, "lead_outcomes", "outcome_name", campaign)


def _by_lead(database: Database, table: str, column: str, campaign: str) -> dict[str, Any]:
    query = f"SELECT lead_id, {column} AS value FROM leadloop.{table} WHERE campaign_id = :campaign"
    return {row["lead_id"]: row["value"] for row in rows(database, query, campaign=campaign)}


def _insert(database: Database, table: str, rows: list[dict[str, Any]]) -> None:
    with database.transaction() as connection:
        for row in rows:
            names = ", ".join(row)
            places = ", ".join(f":{name}" for name in row)
            statement = f"INSERT INTO leadloop.{table} ({names}) VALUES ({places})"
            connection.execute(text(statement), {key: _plain(row[key]) for key in row})


def _plain(item: Any) -> Any:
    return json.dumps(item) if isinstance(item, dict) else item


def leave_dead(database: Database, lead_id: str, campaign: str = CAMPAIGN) -> None:
    """Make a lead that was created look as if its run had died before the answer."""
    run(
        database,
        "INSERT INTO leadloop.sync_runs (flow, campaign_id) VALUES ('push-leads', :campaign)",
        campaign=campaign,
    )
    run(
        database,
        "UPDATE leadloop.leads SET status = 'sending', run_id = (SELECT max(run_id) FROM"
        " leadloop.sync_runs), confirmed_at = NULL WHERE lead_id = :lead AND campaign_id"
        " = :campaign",
        lead=lead_id,
        campaign=campaign,
    )


def wait_until_blocked(database: Database, backends: int = 1) -> None:
    """Return when so many connections to this database wait for a lock."""
    query = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    deadline = time.monotonic() + 30
    while value(database, query) < backends:
        assert time.monotonic() < deadline, "nothing waits for a lock"
        time.sleep(0.01)
