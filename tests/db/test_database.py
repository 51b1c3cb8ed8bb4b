import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from db.bulk_copy import copy_lines
from db.database import Database, DatabaseError, InvalidDatabaseUrl, normalise_url
from tests import factories, sql
from tests.dedicated_postgres import run_dedicated_postgres

SECRET = "+14155552671"


def _twice(connection: Connection) -> None:
    for _ in range(2):
        connection.execute(
            text("INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('C1', :secret)"),
            {"secret": SECRET},
        )


def _no_such_status(connection: Connection) -> None:
    connection.execute(
        text(
            "INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, status)"
            " VALUES ('C1', 'a', :secret, 'sent')"
        ),
        {"secret": SECRET},
    )


def _no_json(connection: Connection) -> None:
    connection.execute(text("SELECT CAST(:secret AS jsonb)"), {"secret": SECRET + "{"})


def _no_sql(connection: Connection) -> None:
    connection.execute(text(f"SELECT {SECRET} 'x' FROM nowhere"))


def _no_row(connection: Connection) -> None:
    connection.execute(text("CREATE TEMPORARY TABLE t (a int) ON COMMIT DROP"))
    copy_lines(connection, "t", ("a",), [SECRET + "\t\n"])


def _raised(connection: Connection) -> None:
    connection.execute(text(f"DO $$ BEGIN RAISE 'about {SECRET}'; END $$"))


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (_twice, "UniqueViolation (SQLSTATE 23505, constraint leads_pkey)"),
        (_no_such_status, "CheckViolation (SQLSTATE 23514, constraint leads_status_check)"),
        (_no_json, "InvalidTextRepresentation (SQLSTATE 22P02)"),
        (_no_sql, "SyntaxError (SQLSTATE 42601)"),
        (_no_row, "BadCopyFileFormat (SQLSTATE 22P04)"),
        (_raised, "RaiseException (SQLSTATE P0001)"),
    ],
)
def test_an_error_repeats_no_row(
    database: Database, work: Callable[[Connection], None], said: str
) -> None:
    """Postgres's own words hold whole rows; ours hold the code and the constraint."""
    with pytest.raises(DatabaseError) as caught, database.transaction() as connection:
        work(connection)
    assert str(caught.value) == f"Postgres refused: {said}"
    assert not caught.value.disconnected
    assert "4155552671" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("query", "sqlstate"),
    [("SELECT FROM leadloop.no_such", "42P01"), ("SELECT no_such FROM leadloop.leads", "42703")],
)
def test_a_schema_that_is_not_as_expected(database: Database, query: str, sqlstate: str) -> None:
    """After an upgrade a process of the old version has it: a backup forgets sent leads."""
    with pytest.raises(DatabaseError, match=f"SQLSTATE {sqlstate}") as caught:
        sql.fetch_rows(database, query)
    told = str(caught.value)
    assert "missing, or another version of leadloop has changed it: `leadloop doctor`" in told
    assert "restore" not in told
    document, _, anchor = told.rpartition(" ")[2].partition("#")
    headings = (Path(__file__).parents[2] / document).read_text(encoding="utf-8").lower()
    assert f"\n## {anchor.replace('-', ' ')}\n" in headings


def test_an_error_rolls_back(database: Database) -> None:
    """All or nothing."""
    with pytest.raises(DatabaseError), database.transaction() as connection:
        _twice(connection)
    assert sql.fetch_statuses(database) == {}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "postgresql://ann:s3cret@127.0.0.1:1/db",
            "at postgresql://ann@127.0.0.1:1/db: connection refused",
        ),
        (
            "postgresql://ann:s3cret@/db?host=/nowhere",
            "at postgresql://ann@/db?host=/nowhere: no such socket",
        ),
        (
            "postgresql://ann:s3cret@no.such.host.invalid/db",
            "at postgresql://ann@no.such.host.invalid/db: ",
        ),
        ("postgresql://ann:s3cret@127.0.0.1:1/db?sslmode=s3cret", "has an invalid value"),
    ],
)
def test_a_database_that_is_not_there(url: str, said: str) -> None:
    """One line names the address and what to check, without the password."""
    with (
        Database(url, pool_size=1) as database,
        pytest.raises(DatabaseError, match="LEADLOOP_DATABASE_URL") as caught,
        database.transaction(),
    ):
        pass
    assert said in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_database_of_another_setting() -> None:
    """The line names the setting that the URL comes from, wrong or right."""
    with (
        Database("postgresql://127.0.0.1:1/d", pool_size=1, setting="LEADLOOP_X") as database,
        pytest.raises(DatabaseError, match="LEADLOOP_X is correct"),
        database.transaction(),
    ):
        pass
    with pytest.raises(InvalidDatabaseUrl, match=r"^LEADLOOP_X is wrong: not a URL"):
        Database("s3cret", pool_size=1, setting="LEADLOOP_X")


def test_a_database_by_a_wrong_name(database_url: str) -> None:
    """The message differs from that of a server that is down."""
    wrong = normalise_url(database_url).set(database="no_such")
    with (
        Database(wrong.render_as_string(hide_password=False), pool_size=1) as database,
        pytest.raises(DatabaseError, match="no such database"),
        database.transaction(),
    ):
        pass


@pytest.mark.parametrize("start", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_spelling_of_a_url(start: str) -> None:
    """All that people use mean the same driver."""
    assert normalise_url(f"{start}://a@h:5/d").drivername == "postgresql+psycopg2"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "not a URL"),
        ("s3cret", "not a URL"),
        ("//s3cret@h", "not a URL"),
        ("mysql://a:s3cret@h/d", "not Postgres"),
        ("postgresql+asyncpg://a:s3cret@h/d", "not Postgres"),
        ("postgresql://a:p@s3cret/x@h/d", "%40"),
        ("postgresql://a:p@s3cret@h/d", "%40"),
        ("postgresql://a/b:s3cret@h/d", "%40"),
        ("postgresql://a:s3cret/d", "%40"),
        ("postgresql://a:s3cret@h:port/d", "port"),
        ("postgresql://a:s3cret@h:5,i:port/d", "port"),
        ("postgresql://a:s3cret@h:5,i:99999/d", "65535"),
        ("postgresql://a:s3cret,x/d", "%40"),
        ("postgresql://a:s3cret@h:99999/d", "65535"),
        ("postgresql://a:s3cret@h/d?foo=bar", "no option 'foo'"),
    ],
)
def test_a_url_that_is_none_is_not_repeated(url: str, said: str) -> None:
    """It may hold a password; the message only describes the error."""
    with pytest.raises(InvalidDatabaseUrl) as caught:
        normalise_url(url)
    assert said in str(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_several_hosts(tmp_path: Path) -> None:
    """As libpq documents them: the first that answers, and is what is asked for."""
    url = normalise_url("postgresql://u:p,w@[::1]:5,b,c:7/d?target_session_attrs=read-write")
    assert (url.username, url.password, url.database) == ("u", "p,w", "d")
    assert (url.query["host"], url.query["port"]) == ("::1,b,c", "5,,7")
    with run_dedicated_postgres(tmp_path / "pg") as server:
        port = normalise_url(server.url).port
        several = server.url.replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:")
        with Database(f"{several}?target_session_attrs=read-write", pool_size=1) as database:
            assert sql.fetch_value(database, "SHOW port") == str(port)
        with (
            Database(f"{several}?target_session_attrs=standby", pool_size=1) as database,
            pytest.raises(DatabaseError, match="target_session_attrs in the URL requires"),
            database.transaction(),
        ):
            pass


def test_work_is_repeated_on_a_new_connection_when_this_one_is_cut(database: Database) -> None:
    """An answer of the vendor's is written down even where Postgres was restarted meanwhile."""
    pids: list[int] = []

    def work(connection: Connection) -> str:
        pids.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        if len(pids) == 1:
            with database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pids[0]})
        connection.execute(text("INSERT INTO leadloop.campaigns (campaign_id) VALUES ('C1')"))
        return "done"

    assert database.retry(work) == "done"
    assert len(set(pids)) == 2
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.campaigns") == 1


def test_work_is_repeated_when_upstream_deadlocks_with_us(database: Database) -> None:
    """Upstream updates the same leads in another order; what the vendor said is still recorded."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    update = text("UPDATE leadloop.leads SET contact_name = :name WHERE lead_id = :lead")
    tries: list[int] = []

    def work(connection: Connection) -> None:
        # The one that waits for longer finds the deadlock: us, in the first try.
        connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
        connection.execute(update, {"name": "ours", "lead": "b"})
        tries.append(1)
        if len(tries) == 1:
            their_turn.set()
            sql.wait_until_blocked(database)
        connection.execute(update, {"name": "ours", "lead": "a"})

    def upstream() -> None:
        with database.transaction() as other:
            other.execute(update, {"name": "theirs", "lead": "a"})
            they_began.set()
            their_turn.wait(30)
            other.execute(update, {"name": "theirs", "lead": "b"})

    they_began, their_turn = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(upstream)
        assert they_began.wait(30)
        database.retry(work)
        theirs.result()
    assert len(tries) == 2
    names = sql.fetch_rows(database, "SELECT DISTINCT contact_name FROM leadloop.leads")
    assert names == [{"contact_name": "ours"}]


def test_a_lock_that_is_held_is_not_waited_for_for_ever(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is repeated once it is let go; a plain transaction ends with what to do."""
    factories.add_campaign(database)
    monkeypatch.setattr("db.session_settings.SESSION_SETTINGS", "SET lock_timeout = '100ms'")
    update = text("UPDATE leadloop.campaigns SET name = 'x'")
    with Database(database_url, pool_size=1) as ours, database.transaction() as upstream:
        upstream.execute(update)
        with pytest.raises(DatabaseError, match="held a lock"), ours.transaction() as connection:
            connection.execute(update)
        with ThreadPoolExecutor(1) as pool:
            insisting = pool.submit(ours.retry, lambda c: c.execute(update).rowcount)
            time.sleep(0.2)
            upstream.commit()
            assert insisting.result() == 1


def test_a_vanished_server_is_noticed(database: Database) -> None:
    """Keepalives, and no lock is waited for longer than half a minute."""
    assert sql.fetch_value(database, "SHOW lock_timeout") == "30s"
    with database.autocommit() as connection:
        driver: Any = connection.connection.driver_connection
        options = driver.get_dsn_parameters()
    assert {"keepalives_idle", "tcp_user_timeout"} <= set(options)


def test_a_vanished_client_is_noticed(tmp_path: Path) -> None:
    """The server's end asks for signs of life as well: it is what lets go of a dead run's lock."""
    names = ["idle", "interval", "count"]
    with (
        run_dedicated_postgres(tmp_path / "pg") as server,
        Database(server.url, pool_size=1) as database,
    ):
        found = [int(sql.fetch_value(database, f"SHOW tcp_keepalives_{name}")) for name in names]
        assert found == [30, 10, 3]
        assert sql.fetch_value(database, "SHOW tcp_user_timeout") == "60000"


def test_a_refusal_is_not_repeated(database: Database) -> None:
    """It would be refused again."""
    tries: list[int] = []

    def work(connection: Connection) -> None:
        tries.append(1)
        _no_such_status(connection)

    with pytest.raises(DatabaseError, match="leads_status_check"):
        database.retry(work)
    assert len(tries) == 1


def test_a_cut_connection_is_told_as_such(database: Database) -> None:
    """Not as a refusal: the caller may try again."""

    def work(connection: Connection) -> None:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        sql.execute(database, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)
        connection.execute(text("SELECT 1"))

    with pytest.raises(DatabaseError) as caught, database.transaction() as connection:
        work(connection)
    assert caught.value.disconnected


def test_a_session_commits_each_statement(database: Database) -> None:
    """Other transactions do not wait for the end of the block."""
    with database.autocommit() as connection:
        connection.execute(text("INSERT INTO leadloop.campaigns (campaign_id) VALUES ('C1')"))
        assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.campaigns") == 1
