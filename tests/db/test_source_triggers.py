"""The trigger on a team's table: it wakes live runs, and stands in nobody's way."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from db.database import Database
from db.notifications import WorkListener
from db.source_triggers import find_trigger_table, render_trigger
from leadloop.core.source_requirements import SourceError
from tests import sql

CRM = """
CREATE SCHEMA crm;
CREATE TABLE crm.leads (lead_id text PRIMARY KEY, note text);
CREATE TABLE crm.parts (lead_id text) PARTITION BY LIST (lead_id);
CREATE TABLE crm.part PARTITION OF crm.parts DEFAULT;
CREATE TABLE crm."Odd "": %s' name" (lead_id text);
CREATE VIEW crm.first AS SELECT lead_id FROM crm.leads;
CREATE VIEW crm.second AS SELECT lead_id FROM crm.first JOIN crm.parts USING (lead_id);
CREATE MATERIALIZED VIEW crm.kept AS SELECT lead_id FROM crm.leads;
CREATE SEQUENCE crm.counter;
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE crm.remote (lead_id text) SERVER elsewhere
"""


@pytest.fixture
def crm(database: Database) -> Database:
    """The database with the tables of a team."""
    sql.execute_script(database, CRM)
    return database


@pytest.fixture
def listener(crm: Database) -> Iterator[WorkListener]:
    """What a live run hears."""
    with crm.autocommit() as connection:
        yield WorkListener(connection)


def install(database: Database, name: str) -> None:
    """Execute what is printed for a table, as psql does."""
    sql.execute_script(database, render_trigger(find_trigger_table(database, name), ["C1"]))


@pytest.mark.parametrize(
    ("name", "relation"),
    [
        ("crm.leads", "crm.leads"),
        ("CRM . Leads", "crm.leads"),
        ("crm.parts", "crm.parts"),
        ('crm."Odd "": %s\' name"', 'crm."Odd "": %s\' name"'),
    ],
)
def test_what_is_written_is_announced(
    crm: Database, listener: WorkListener, name: str, relation: str
) -> None:
    """Once a transaction, whatever it has written and however often the SQL is executed."""
    install(crm, name)
    install(crm, name)
    insert = f"INSERT INTO {relation} (lead_id) VALUES ('a'), ('b')"
    update = f"UPDATE {relation} SET lead_id = 'c' WHERE lead_id = 'b'"
    sql.execute_script(crm, f"BEGIN; {insert}; {update}; COMMIT")
    assert listener.wait(10) == ["source"]
    sql.execute_script(crm, update)
    assert listener.wait(10) == ["source"]
    sql.execute_script(crm, f"BEGIN; INSERT INTO {relation} (lead_id) VALUES ('d'); ROLLBACK")
    assert listener.wait(0) == []


def test_a_role_without_any_right_on_leadloop_can_write(
    crm: Database, listener: WorkListener
) -> None:
    """Nor any right on the function; its own search path leads nowhere."""
    install(crm, "crm.leads")
    with crm.transaction() as connection:
        connection.execute(
            text("""
            CREATE ROLE writer;
            GRANT USAGE ON SCHEMA crm TO writer;
            GRANT INSERT, UPDATE, SELECT ON crm.leads TO writer;
            REVOKE ALL ON FUNCTION crm.leadloop_announce() FROM PUBLIC;
            SET LOCAL ROLE writer;
            SET LOCAL search_path = nowhere;
            INSERT INTO crm.leads VALUES ('a') ON CONFLICT DO NOTHING
            """)
        )
    assert listener.wait(10) == ["source"]
    sql.execute(crm, "DROP OWNED BY writer; DROP ROLE writer")


def test_a_write_does_not_fail_where_notifications_do(
    crm: Database, listener: WorkListener
) -> None:
    """Such as where the right to notify is revoked from everyone."""
    install(crm, "crm.leads")
    with crm.transaction() as connection:
        connection.execute(
            text("""
            REVOKE ALL ON FUNCTION pg_notify(text, text) FROM PUBLIC;
            CREATE ROLE writer;
            GRANT USAGE ON SCHEMA crm TO writer;
            GRANT INSERT ON crm.leads TO writer;
            SET LOCAL ROLE writer;
            INSERT INTO crm.leads VALUES ('a')
            """)
        )
    assert listener.wait(0) == []
    assert sql.fetch_value(crm, "SELECT count(*) FROM crm.leads") == 1
    sql.execute(crm, "DROP OWNED BY writer; DROP ROLE writer")


def test_the_comments_remove_it(crm: Database, listener: WorkListener) -> None:
    """Without a trace in the team's schema."""
    script = render_trigger(find_trigger_table(crm, "crm.leads"))
    objects = (
        "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname = 'leadloop_announce')"
        " + (SELECT count(*) FROM pg_proc WHERE proname = 'leadloop_announce')"
    )
    sql.execute_script(crm, script)
    assert sql.fetch_value(crm, objects) == 2
    removal = [line.strip("- ") for line in script.splitlines() if line.startswith("--   DROP")]
    sql.execute_script(crm, "\n".join(removal))
    assert sql.fetch_value(crm, objects) == 0
    sql.execute_script(crm, "INSERT INTO crm.leads VALUES ('a')")
    assert listener.wait(0) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crm.second", r"is a view, .*\(crm\.leads, crm\.parts\): .*--table"),
        ("crm.kept", r"is a materialized view, .*\(crm\.leads\)"),
        ("crm.remote", "is a foreign table"),
        ("crm.counter", "is no table"),
        ("crm.missing", "is no table"),
        ("crm.leads; DROP TABLE crm.leads", "is no table"),
        ("a.b.c.d", "is no table"),
        ("leadloop.leads", "is no table"),
    ],
)
def test_what_cannot_have_one(crm: Database, name: str, reason: str) -> None:
    """One line states why, and what can have one instead."""
    with pytest.raises(SourceError, match=reason) as caught:
        find_trigger_table(crm, name)
    assert "\n" not in str(caught.value)


def test_a_name_does_not_end_a_comment(crm: Database) -> None:
    """Who may create tables does not write the SQL that an administrator executes."""
    sql.execute(crm, 'CREATE TABLE crm."a\nDROP TABLE crm.leads; --" (lead_id text)')
    with pytest.raises(SourceError, match="control or invisible characters"):
        find_trigger_table(crm, 'crm."a\nDROP TABLE crm.leads; --"')
