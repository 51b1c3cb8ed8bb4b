"""`leadloop source-trigger`: SQL on stdout and nothing else, one line where there is none."""

import pytest

from db.database import Database
from db.notifications import WorkListener
from tests import factories, sql
from tests.cli.conftest import Command

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def crm(database: Database) -> Database:
    """A table and a view of it, and campaigns with and without a source."""
    sql.execute(
        database,
        "CREATE SCHEMA crm; CREATE TABLE crm.leads (lead_id text);"
        " CREATE VIEW crm.view AS SELECT * FROM crm.leads",
    )
    for campaign, source in (("C1", None), ("C2", "crm.leads"), ("C3", "crm.view")):
        factories.add_campaign(database, campaign, source=source)
    return database


def count_triggers(database: Database) -> int:
    """The triggers in the team's schema."""
    query = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'crm.leads'::regclass"
    count: int = sql.fetch_value(database, query)
    return count


def test_stdout_is_sql_that_is_printed_only(invoke: Command, crm: Database) -> None:
    """What runs of it; the command itself has changed nothing."""
    ran = invoke("source-trigger", "--campaign", "C2")
    assert (ran.code, ran.err) == (0, "")
    assert "campaign C2" in ran.out
    assert count_triggers(crm) == 0
    with crm.autocommit() as connection:
        listener = WorkListener(connection)
        sql.execute_script(crm, ran.out)
        sql.execute(crm, "INSERT INTO crm.leads VALUES ('a')")
        assert listener.wait(10) == ["source"]
    assert count_triggers(crm) == 1


def test_a_table_is_named_once(invoke: Command, crm: Database) -> None:
    """With all of its campaigns, whose names are foreign input."""
    factories.add_campaign(crm, "C4\nDROP TABLE crm.leads; --", source="crm.leads")
    ran = invoke("source-trigger", "-c", "C2", "-c", "C4\nDROP TABLE crm.leads; --")
    assert ran.out.count("CREATE OR REPLACE TRIGGER") == 1
    assert "for campaigns C2, C4\\nDROP" in ran.out


def test_a_table_of_opt_outs_has_the_trigger_too(invoke: Command, crm: Database) -> None:
    """That of the leads comes first; one that cannot have it is named as what it is."""
    sql.execute(
        crm,
        """CREATE TABLE crm.blocked (lead_id text);
           UPDATE leadloop.campaigns SET opt_out_source = 'crm.blocked' WHERE campaign_id = 'C2';
           UPDATE leadloop.campaigns SET opt_out_source = 'crm.view' WHERE campaign_id = 'C1'""",
    )
    ran = invoke("source-trigger", "--campaign", "C2")
    assert [ran.out.count(f"ON crm.{table}\n") for table in ("leads", "blocked")] == [1, 1]
    ran = invoke("source-trigger", "--campaign", "C1")
    assert "campaign C1: the opt-out source 'crm.view' is a view" in ran.err


def test_a_view_is_one_line(invoke: Command, crm: Database) -> None:
    """It names the command for the table that the view reads; other campaigns' SQL is there."""
    ran = invoke("source-trigger")
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert "campaign C3: the source 'crm.view' is a view" in ran.err
    assert "(crm.leads)" in ran.err
    assert ran.out == invoke("source-trigger", "--campaign", "C2").out
    table = invoke("source-trigger", "--table", "crm.leads")
    assert (table.code, table.out.count("CREATE OR REPLACE TRIGGER")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--campaign", "C1"), "no campaign has a source"),
        (("--campaign", "C9"), "unknown campaign C9"),
        (("--campaign", " "), "--campaign is empty"),
        (("--campaign", "C2", "--table", "crm.leads"), "one of them at a time"),
    ],
)
def test_wrong_usage(
    invoke: Command, crm: Database, arguments: tuple[str, ...], reason: str
) -> None:
    """One line, exit 2."""
    ran = invoke("source-trigger", *arguments)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert reason in ran.err


def test_a_table_that_is_not_there(invoke: Command, crm: Database) -> None:
    """One line."""
    ran = invoke("source-trigger", "--table", "crm.missing")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "leadloop: 'crm.missing' is no table of this database: write schema.name\n"
