"""The checks of `leadloop doctor` that are about Postgres: what a run will need of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from db import surroundings
from db.database import Database
from tests import factories, sql
from tests.cli.conftest import Command
from tests.conftest import Ran


def get_checks(ran: Ran) -> dict[str, dict[str, Any]]:
    """Return the checks of a `doctor --json` by their names."""
    return {each["check"]: each for each in ran.last["checks"]}


@pytest.fixture
def operator(database: Database, database_url: str) -> Iterator[str]:
    """The URL of this test's database for the role `operator`, which may nothing yet."""
    sql.execute(database, "CREATE ROLE operator LOGIN")
    try:
        yield make_url(database_url).set(username="operator").render_as_string(hide_password=False)
    finally:
        sql.execute(database, "DROP OWNED BY operator; DROP ROLE operator")


_RUNS = """
GRANT USAGE ON SCHEMA leadloop, leadloop_monitor TO operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA leadloop TO operator;
GRANT SELECT ON ALL TABLES IN SCHEMA leadloop_monitor TO operator;
GRANT EXECUTE ON FUNCTION leadloop.read_database_identity() TO operator
"""


def test_what_a_login_lacks_after_an_upgrade(
    invoke: Command, database: Database, operator: str, prefect: str
) -> None:
    """The tables are new to it, also the one that shows whether the upgrade is complete."""
    new = "leadloop.counts_filled, leadloop.opt_ins"
    sql.execute(database, f"{_RUNS}; REVOKE ALL ON {new} FROM operator")
    ran = invoke("doctor", "--json", LEADLOOP_DATABASE_URL=operator, PREFECT_API_URL=prefect)
    missing = get_checks(ran)["database"]["detail"]
    assert missing.startswith("missing: INSERT ON leadloop.opt_ins, SELECT ON leadloop.counts_fill")


def test_what_a_login_lacks(
    invoke: Command, database: Database, operator: str, prefect: str
) -> None:
    """Permissions fail the check; a reader role that cannot be used and a limit are warnings."""
    factories.add_campaign(database)
    sql.execute(database, f"{_RUNS}; REVOKE DELETE ON leadloop.leads FROM operator")
    sql.execute(database, "ALTER ROLE operator CONNECTION LIMIT 9")
    # The Postgres of the tests is quiet by itself.
    sql.execute(database, "ALTER ROLE operator SET log_error_verbosity = verbose")
    ran = invoke("doctor", "--json", LEADLOOP_DATABASE_URL=operator, PREFECT_API_URL=prefect)
    assert ran.code == 1
    checks = get_checks(ran)
    assert checks["permissions"]["detail"].startswith("missing: DELETE ON leadloop.leads; see")
    connections = checks["connections"]
    assert connections["warns"]
    assert "16, but the CONNECTION LIMIT of the role operator is 9" in connections["detail"]
    assert checks["reader role"]["warns"]
    assert "GRANT leadloop_reader TO" in checks["reader role"]["detail"]
    assert "ALTER ROLE operator SET log_error_verbosity" in checks["Postgres's log"]["detail"]
    sql.execute(database, f"{_RUNS}; GRANT leadloop_reader TO operator")
    sql.execute(database, "ALTER ROLE operator CONNECTION LIMIT 99")
    sql.execute(database, "ALTER ROLE operator SET log_error_verbosity = terse")
    ran = invoke("doctor", "--json", LEADLOOP_DATABASE_URL=operator, PREFECT_API_URL=prefect)
    # Data that other tests of this machine leave are none of this login's.
    warnings = {name for name, check in get_checks(ran).items() if check["warns"]}
    assert warnings <= {"orphaned data"}


def test_a_reader_role_that_nobody_could_create(
    invoke: Command, database: Database, prefect: str
) -> None:
    """The statements for an administrator, and a run is not in question."""
    factories.add_campaign(database)
    sql.execute(database, "ALTER ROLE leadloop_reader RENAME TO leadloop_hidden")
    try:
        ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    finally:
        sql.execute(database, "ALTER ROLE leadloop_hidden RENAME TO leadloop_reader")
    assert ran.code == 0
    check = get_checks(ran)["reader role"]
    assert check["warns"]
    assert "CREATE ROLE leadloop_reader NOLOGIN; GRANT" in check["detail"]


def test_tables_of_ours_under_row_level_security(
    invoke: Command, database: Database, operator: str, prefect: str
) -> None:
    """A run would take hidden rows for missing ones."""
    factories.add_campaign(database)
    sql.execute(database, f"{_RUNS}; ALTER TABLE leadloop.leads ENABLE ROW LEVEL SECURITY")
    ran = invoke("doctor", "--json", LEADLOOP_DATABASE_URL=operator, PREFECT_API_URL=prefect)
    assert get_checks(ran)["permissions"]["warns"]
    assert "leadloop.leads" in get_checks(ran)["permissions"]["detail"]


def test_a_source_whose_rows_are_hidden(
    invoke: Command, database: Database, operator: str, prefect: str
) -> None:
    """Doctor warns, and so do plan and push, which would show nothing but zeros."""
    factories.add_campaign(database, source="crm.leads", required_fields=["lead_id"])
    sql.execute(
        database,
        """CREATE SCHEMA crm; CREATE TABLE crm.leads (lead_id text);
           INSERT INTO crm.leads VALUES ('a'); ALTER TABLE crm.leads ENABLE ROW LEVEL SECURITY;
           GRANT USAGE ON SCHEMA crm TO operator; GRANT SELECT ON crm.leads TO operator""",
    )
    ran = invoke("doctor", "--json", LEADLOOP_SOURCE_URL=operator, PREFECT_API_URL=prefect)
    check = get_checks(ran)["source of C1"]
    assert check["warns"]
    assert "row level security applies" in check["detail"]
    ran = invoke("plan", LEADLOOP_SOURCE_URL=operator)
    assert "campaign C1: the campaign's source 'crm.leads' has no row" in ran.err


def test_an_opt_out_source_is_checked_as_a_source(
    invoke: Command, database: Database, prefect: str
) -> None:
    """One row of it is read; a campaign may have both, and one that fails is named."""
    sql.execute(
        database,
        """CREATE SCHEMA crm; CREATE TABLE crm.leads (lead_id text);
           CREATE TABLE crm.blocked (phone_number text); CREATE TABLE crm.notes (note text);
           CREATE VIEW crm.broken AS SELECT CAST(1 / (n - 1) AS text) AS lead_id
             FROM generate_series(1, 2) AS n""",
    )
    required = {"required_fields": ["lead_id"]}
    factories.add_campaign(
        database, "C1", source="crm.leads", opt_out_source="crm.blocked", **required
    )
    for campaign, name in (("C2", "crm.notes"), ("C3", "crm.missing"), ("C4", "crm.broken")):
        factories.add_campaign(database, campaign, opt_out_source=name)
    checks = get_checks(invoke("doctor", "--json", PREFECT_API_URL=prefect))
    assert checks["source of C1"]["ok"]
    assert (
        checks["opt-out source of C1"]["detail"] == "crm.blocked can be read, 1 column, and no row"
    )
    for campaign, reason in (
        ("C2", "has neither a column lead_id nor phone_number"),
        ("C3", "is no table or view of this database"),
        ("C4", "cannot be read"),
    ):
        assert not checks[f"opt-out source of {campaign}"]["ok"]
        assert reason in checks[f"opt-out source of {campaign}"]["detail"]


def test_defaults_of_the_database(invoke: Command, database: Database, prefect: str) -> None:
    """Those that sessions override are named; one that they do not fails."""
    factories.add_campaign(database)
    name = sql.fetch_value(database, "SELECT current_database()")
    sql.execute(database, f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
    sql.execute(database, f"ALTER DATABASE {name} SET work_mem = '5MB'")
    ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    detail = get_checks(ran)["session settings"]["detail"]
    assert (ran.code, detail.split(": ")[1]) == (0, "default_transaction_isolation")
    sql.execute(database, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    ran = invoke("doctor", "--json", PREFECT_API_URL=prefect)
    assert "sessions are read-only" in get_checks(ran)["session settings"]["detail"]
    assert not get_checks(ran)["session settings"]["ok"]


@pytest.mark.parametrize(
    ("taken", "name"),
    [
        ("pg_advisory_lock(hashtext('leadloop.forget'), hashtext('C1'))", "leadloop.forget"),
        ("pg_advisory_lock(hashtext('leadloop.init'))", "leadloop.init"),
        ("pg_advisory_lock_shared(hashtext('leadloop.run'), -7)", "leadloop.run"),
        ("pg_advisory_lock(hashtext('theirs'), 1)", None),
    ],
)
def test_foreign_roles_that_hold_locks(
    invoke: Command, database: Database, operator: str, prefect: str, taken: str, name: str | None
) -> None:
    """Each role that may connect can take them: the session is named with its role."""
    factories.add_campaign(database)
    with Database(operator, pool_size=1) as intruder, intruder.autocommit() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        connection.execute(text(f"SELECT {taken}"))
        check = get_checks(invoke("doctor", "--json", PREFECT_API_URL=prefect))["locks"]
    assert check["ok"]
    assert check["warns"] is (name is not None)
    if name is not None:
        assert f"pid {pid} of the role operator ({name})" in check["detail"]


def test_the_names_of_all_locks_are_known() -> None:
    """Each that a statement takes is looked at."""
    folder = Path(surroundings.__file__).parent
    used = {
        name
        for file in folder.rglob("*.py")
        for name in re.findall(r"lock(?:_shared)?\(hashtext\('(leadloop[\w.]+)'", file.read_text())
    }
    assert used == set(surroundings.LOCK_NAMES)
