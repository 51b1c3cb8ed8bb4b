"""`leadloop monitor`: what it says where there can be no page, and to whom it shows nothing."""

import importlib.util
import re
import socket

import pytest
from sqlalchemy import make_url, text

from db.database import Database
from db.monitor import ViewsUnavailable, read_status_snapshot
from leadloop.cli import monitor
from leadloop.core.errors import UsageError
from tests import factories, sql
from tests.cli.conftest import Command

_STRANGER = "page_stranger"


def test_a_port_that_is_taken(leadloop: Command) -> None:
    """One line, exit 2."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = leadloop("monitor", "--port", str(port))
    assert ran.code == 2
    said = f"leadloop: cannot listen on port {port} of 127.0.0.1: Address already in use"
    assert ran.err.strip() == f"{said}; choose another --port"


@pytest.mark.parametrize("command", ["monitor", "metrics"])
@pytest.mark.parametrize(
    ("host", "why"),
    [("nonsense.invalid", "no such host"), ("192.0.2.1", "Cannot assign requested address")],
)
def test_a_host_that_is_not_here(
    leadloop: Command, database: Database, command: str, host: str, why: str
) -> None:
    """One line, exit 2, that speaks of the host and not of the port."""
    ran = leadloop(command, "--port", "0", "--host", host)
    assert ran.code == 2
    said = f"leadloop: cannot listen on port 0 of {host}: {why}"
    assert ran.err.strip() == f"{said}; name an address of this machine with --host"


def test_a_login_that_is_no_url(invoke: Command) -> None:
    """One line that names the variable, and not what is in it."""
    ran = invoke("monitor", LEADLOOP_MONITOR_DATABASE_URL="mysql://user:secret@host/db")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "LEADLOOP_MONITOR_DATABASE_URL is wrong" in ran.err
    assert "secret" not in ran.err


def test_without_streamlit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"install what requirements.lock lists"):
        monitor.serve_page("127.0.0.1", 0, 30)


def test_a_login_that_is_no_reader(database: Database, database_url: str) -> None:
    """It is told what to grant; once that is done, it reads."""
    factories.add_campaign(database)
    sql.execute(database, f"DROP ROLE IF EXISTS {_STRANGER}")
    sql.execute(database, f"CREATE ROLE {_STRANGER} LOGIN")
    url = make_url(database_url).set(username=_STRANGER).render_as_string(hide_password=False)
    try:
        with Database(url, pool_size=1) as theirs:
            with pytest.raises(ViewsUnavailable, match=f'GRANT leadloop_reader TO "{_STRANGER}"'):
                read_status_snapshot(theirs)
            sql.execute(database, f"GRANT leadloop_reader TO {_STRANGER}")
            assert read_status_snapshot(theirs).campaign_ids == [factories.CAMPAIGN]
    finally:
        sql.execute(database, f"DROP ROLE {_STRANGER}")


def told(database: Database) -> str:
    """The line that the page shows in place of its figures."""
    with pytest.raises(ViewsUnavailable) as caught:
        read_status_snapshot(database)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_the_role(database: Database) -> None:
    """It is told, with the page of the documents on which one reads how to make it."""
    sql.execute(database, "ALTER ROLE leadloop_reader RENAME TO leadloop_elsewhere")
    try:
        assert "leadloop_reader is missing" in told(database)
        assert "monitor-page.md" in told(database)
    finally:
        sql.execute(database, "ALTER ROLE leadloop_elsewhere RENAME TO leadloop_reader")


def test_a_role_that_may_not_read(database: Database) -> None:
    """The line says what to run; once that is done, it reads. So after an upgrade, too."""
    sql.execute(
        database, "REVOKE ALL ON ALL TABLES IN SCHEMA leadloop_monitor FROM leadloop_reader"
    )
    sql.execute(database, "REVOKE ALL ON SCHEMA leadloop_monitor FROM leadloop_reader")
    grants = re.findall("`(GRANT [^`]*)`", told(database))
    for grant in grants:
        sql.execute(database, grant)
    assert read_status_snapshot(database).campaign_ids == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER VIEW leadloop_monitor.problems RENAME COLUMN command TO remedy",
        "DROP VIEW leadloop_monitor.run_history",
    ],
)
def test_views_of_another_version(database: Database, change: str) -> None:
    """Older or newer: `leadloop init` mends the one and says what to do about the other."""
    sql.execute(database, change)
    assert "belong to another version of leadloop: run `leadloop init`" in told(database)


def test_without_a_schema(empty_database_url: str) -> None:
    """It says what to run first."""
    with Database(empty_database_url, pool_size=1) as empty:
        assert told(empty) == "the database has no leadloop schema yet: run `leadloop init`"


def test_views_that_take_too_long(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is given up in time, and told as that; it keeps no server busy for ever."""
    monkeypatch.setattr("db.monitor._SET_TIMEOUT", text("SET LOCAL statement_timeout = '50ms'"))
    sql.execute(
        database,
        "CREATE OR REPLACE VIEW leadloop_monitor.budget_now AS"
        " SELECT bigint '1' AS slots, bigint '1' AS taken,"
        "        CASE WHEN pg_sleep(20) IS NULL THEN 0.0 ELSE float8 '1' END AS paused_s,"
        "        'default' AS account",
    )
    assert "take longer than 30 s to read" in told(database)
