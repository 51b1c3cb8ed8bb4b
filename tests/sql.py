"""Plain SQL on a test's database, and the state of its leads, independent of the product's code."""

import time
from typing import Any

from sqlalchemy import text

from db.database import Database
from tests.factories import CAMPAIGN


def execute(database: Database, statement: str, **parameters: Any) -> None:
    """Execute a statement in a transaction of its own."""
    with database.transaction() as connection:
        connection.execute(text(statement), parameters)


def execute_script(database: Database, script: str) -> None:
    """Execute a script without parameters as psql does: it may begin and commit transactions."""
    with database.autocommit() as connection:
        connection.exec_driver_sql(script.replace("%", "%%"))


def fetch_rows(database: Database, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return the rows of a query."""
    with database.transaction() as connection:
        return [dict(row._mapping) for row in connection.execute(text(query), parameters)]


def fetch_value(database: Database, query: str, **parameters: Any) -> Any:
    """Return the first column of a query's only row."""
    (row,) = fetch_rows(database, query, **parameters)
    return next(iter(row.values()))


def fetch_statuses(database: Database, campaign: str = CAMPAIGN) -> dict[str, str]:
    """Return the status of each lead by its id."""
    return _fetch_by_lead(database, "leads", "status", campaign)


def fetch_errors(database: Database, campaign: str = CAMPAIGN) -> dict[str, str]:
    """Return `last_error` by lead id, for the leads that have one."""
    errors = _fetch_by_lead(database, "leads", "last_error", campaign)
    return {lead_id: error for lead_id, error in errors.items() if error is not None}


def fetch_opt_outs(database: Database, campaign: str = CAMPAIGN) -> dict[str, str]:
    """Return the status of each opt-out by its lead's id."""
    return _fetch_by_lead(database, "disable_requests", "status", campaign)


def fetch_outcomes(database: Database, campaign: str = CAMPAIGN) -> dict[str, str | None]:
    """Return the name of each outcome by its lead's id."""
    return _fetch_by_lead(database, "lead_outcomes", "outcome_name", campaign)


def _fetch_by_lead(database: Database, table: str, column: str, campaign: str) -> dict[str, Any]:
    query = f"SELECT lead_id, {column} AS value FROM leadloop.{table} WHERE campaign_id = :campaign"
    rows = fetch_rows(database, query, campaign=campaign)
    return {row["lead_id"]: row["value"] for row in rows}


def wait_until(database: Database, query: str, timeout_s: float = 60, **parameters: Any) -> None:
    """Return as soon as a query returns true."""
    deadline = time.monotonic() + timeout_s
    while not fetch_value(database, query, **parameters):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {query}"
        time.sleep(0.02)


def wait_until_blocked(database: Database, backends: int = 1) -> None:
    """Return as soon as this many connections to the database wait for a lock."""
    query = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    deadline = time.monotonic() + 30
    while fetch_value(database, query) < backends:
        assert time.monotonic() < deadline, "no connection waits for a lock"
        time.sleep(0.01)


def fetch_run_locks(database: Database) -> set[int]:
    """Return the process ids of the connections that hold a run's lock."""
    query = """SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
                WHERE locktype = 'advisory' AND datname = current_database()"""
    return {row["pid"] for row in fetch_rows(database, query)}


def wait_for_run_locks(database: Database, connections: int) -> None:
    """Return as soon as this many connections hold a run's lock.

    Postgres drops the locks of a connection some milliseconds after it was closed or killed.
    """
    deadline = time.monotonic() + 30
    while len(fetch_run_locks(database)) != connections:
        assert time.monotonic() < deadline, "the locks of a run that is gone stay"
        time.sleep(0.005)
