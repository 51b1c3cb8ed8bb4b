"""`leadloop opt-out`: by a person's word, and for rows that have left the source."""

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command
from tests.jobs import disable_leads, push_leads

_ROWS = "SELECT lead_id, reason, origin FROM leadloop.disable_requests ORDER BY lead_id"


@pytest.fixture(autouse=True)
def _campaign(database: Database) -> None:
    factories.add_campaign(database)


def test_a_lead_opts_out(
    invoke: Command, database: Database, vendor: SandboxHandle, quick_retries: None
) -> None:
    """Whether or not it was sent; the second time changes nothing, and a reason is kept."""
    factories.add_leads(database, "sent")
    push_leads()
    factories.add_leads(database, "new")
    ran = invoke("opt-out", "--campaign", "C1", "--lead-id", "sent", "--lead-id", "new")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "Opted out: sent, new. No push sends them any more; the next disable sends the opt-outs of"
        " those that were sent.\n"
    )
    more = ("--lead-id", "sent", "--lead-id", "x", "--because", "a letter", "--json")
    ran = invoke("opt-out", "--campaign", "C1", *more)
    assert ran.last == {"opted_out": 1, "opted_out_before": 1, "unknown": ["x"]}
    assert sql.fetch_rows(database, _ROWS) == [
        {"lead_id": "new", "reason": None, "origin": "person"},
        {"lead_id": "sent", "reason": None, "origin": "person"},
        {"lead_id": "x", "reason": "a letter", "origin": "person"},
    ]
    assert (push_leads()["created"], disable_leads()["disabled"]) == (0, 1)
    assert set(vendor.store.disabled("C1")) == {"sent"}


def test_an_id_without_a_lead_is_named(invoke: Command, database: Database) -> None:
    """It may be a mistake, or the lead may still come."""
    factories.add_leads(database, "A-1")
    ran = invoke("opt-out", "-c", "C1", "--lead-id", "a-1")
    assert ran.out.splitlines()[1].startswith("Campaign C1 has no lead a-1: if the id is right,")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "name the leads, by --lead-id, or take those of --left-source"),
        (("--lead-id", "a", "--left-source"), "name the leads, by --lead-id, or take those of"),
        (("--lead-id", "a", "--yes"), "--yes belongs to --left-source"),
        (("--left-source", "--because", "x"), "--because belongs to --lead-id"),
        (("--lead-id", "a "), "--lead-id 'a ' is empty, or has a blank at an end"),
        (("--lead-id", ""), "--lead-id '' is empty"),
        (("--left-source",), "leadloop opt-out --left-source asks before it goes on"),
        (("--left-source", "--yes"), "campaign C1 has no source"),
    ],
)
def test_wrong_usage_changes_nothing(
    invoke: Command, database: Database, arguments: tuple[str, ...], line: str
) -> None:
    """One line, exit 2."""
    ran = invoke("opt-out", "--campaign", "C1", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert line in ran.err
    assert sql.fetch_rows(database, _ROWS) == []


def test_an_unknown_campaign_is_refused(invoke: Command, database: Database) -> None:
    """Its opt-outs would wait for nobody."""
    ran = invoke("opt-out", "--campaign", "C9", "--lead-id", "a")
    assert ran.code == 2
    assert "unknown campaign C9" in ran.err


def test_those_who_left_the_source_are_counted_first(
    invoke: Command, database: Database, vendor: SandboxHandle, quick_retries: None
) -> None:
    """The problem names the command, and the command deals with the problem."""
    sql.execute(
        database,
        """CREATE SCHEMA crm; CREATE TABLE crm.people AS
           SELECT 'L' || n AS lead_id, '+1415' || (5550000 + n) AS phone_number,
                  'Ann' AS contact_name, 'NY' AS state_code FROM generate_series(1, 25) AS n;
           UPDATE leadloop.campaigns SET source = 'crm.people', on_source_removal = 'opt_out'""",
    )
    push_leads()
    sql.execute(database, "DELETE FROM crm.people WHERE lead_id <> 'L1'")
    push_leads()
    query = "SELECT said, command FROM leadloop_monitor.problems WHERE problem = 'removals_held'"
    (problem,) = sql.fetch_rows(database, query)
    assert problem["said"].startswith("24 leads were sent, and their rows have left")
    assert problem["command"] == "leadloop opt-out --left-source --campaign C1"
    ran = invoke(*problem["command"].split()[1:], "--yes")
    assert ran.code == 0
    assert ran.err == (
        "\nCampaign C1: 24 leads were sent and left crm.people, of 25 leads. They opt out for good:"
        " the vendor cannot enable a lead again.\n"
    )
    assert ran.out == "Opted out, because their rows have left the source: 24.\n"
    assert sql.fetch_rows(database, query) == []
    assert disable_leads()["disabled"] == 24
    assert invoke("opt-out", "-c", "C1", "--left-source", "--yes", "--json").last == {
        "opted_out": 0
    }
