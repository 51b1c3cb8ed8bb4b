"""`leadloop restored` and `leadloop release`: a person's word on a restore, for people and JSON."""

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command

_OPEN = (
    "SELECT array_agg(campaign_id ORDER BY 1) FROM leadloop.create_holds WHERE released_at IS NULL"
)
_ALL = "SELECT * FROM leadloop.create_holds ORDER BY hold_id"


@pytest.fixture(autouse=True)
def _two_campaigns(database: Database) -> None:
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)


def test_a_restore_is_reported(invoke: Command, database: Database) -> None:
    """For one campaign or all, in one line; the second time changes nothing."""
    assert invoke("restored", "--campaign", "C1", "--json").last == {"held": ["C1"]}
    ran = invoke("restored")
    assert (ran.code, len(ran.out.splitlines()), ran.err) == (0, 1, "")
    assert ran.out.startswith("Held: C1, C2. ")
    before = sql.fetch_rows(database, _ALL)
    assert invoke("restored", "--json").last == {"held": ["C1", "C2"]}
    assert sql.fetch_rows(database, _ALL) == before
    assert "leadloop audit --repair --campaign C1" in invoke("status").out
    assert "no, held" in invoke("status", "--campaign", "C1").out
    assert "C1 held" in invoke("status").out


def test_a_push_ends_with_the_line_and_a_person_lets_go(
    invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """Exit 1, with what was found and both commands; the other campaign's leads are created."""
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "a", campaign=campaign)
    invoke("restored", "--campaign", "C1")
    ran = invoke("push", "--json", PREFECT_API_URL=prefect)
    assert (ran.code, ran.last["created"], ran.last["held_back"]) == (1, 1, 1)
    assert ran.last["error"].startswith("campaign C1: creates are held since ")
    assert "leadloop audit --repair --campaign C1" in ran.last["error"]
    assert 'leadloop release --campaign C1 --because "why"' in ran.last["error"]
    assert "Traceback" not in ran.err
    ran = invoke("release", "--campaign", "C1", "--campaign", "C2", "--because", "a planned one")
    assert (ran.code, ran.out.splitlines()) == (
        0,
        ["Released: C1. The next push creates their new leads.", "Not held, nothing changed: C2."],
    )
    words = "SELECT released_by = session_user AND released_reason = 'a planned one' FROM leadloop."
    assert sql.fetch_value(database, words + "create_holds") is True
    assert invoke("push", "--json", PREFECT_API_URL=prefect).last["created"] == 1
    found = invoke("release", "--campaign", "C1", "--because", "again", "--json")
    assert (found.code, found.last) == (0, {"released": [], "not_held": ["C1"]})


def test_an_audit_states_what_it_lets_go(invoke: Command, database: Database, prefect: str) -> None:
    """Too early, with the time from which it can; then the release."""
    factories.add_leads(database, "a")
    invoke("push", PREFECT_API_URL=prefect)
    invoke("restored", "--campaign", "C1")
    ran = invoke("audit", "--repair", "--campaign", "C1", PREFECT_API_URL=prefect)
    assert ran.code == 0
    sql.execute(database, "UPDATE leadloop.create_holds SET held_at = now() - interval '1 hour'")
    ran = invoke("audit", "--repair", "--campaign", "C1", PREFECT_API_URL=prefect)
    assert ran.code == 0
    assert sql.fetch_value(database, _OPEN) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("restored", "--campaign", "NONE"),
        ("restored", "--campaign", " "),
        ("restored", "C1"),
        ("release",),
        ("release", "--campaign", "C1"),
        ("release", "--because", "x"),
        ("release", "--campaign", "C1", "--because", ""),
        ("release", "--campaign", "C1", "--because", " \u202e\t"),
        ("release", "--campaign", "C1", "--campaign", "NONE", "--because", "x"),
        ("release", "--campaign", "", "--because", "x"),
    ],
)
def test_wrong_usage(invoke: Command, database: Database, arguments: tuple[str, ...]) -> None:
    """One line, exit 2, and nothing is changed."""
    invoke("restored", "--campaign", "C1")
    before = sql.fetch_rows(database, _ALL)
    ran = invoke(*arguments)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert sql.fetch_rows(database, _ALL) == before


def test_there_is_no_campaign(invoke: Command, database: Database) -> None:
    """One line, exit 2."""
    sql.execute(database, "DELETE FROM leadloop.campaigns")
    ran = invoke("restored")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


def test_an_id_does_not_drive_the_terminal(invoke: Command, database: Database) -> None:
    """No escape sequence, no markup; the command in a message is quoted for the shell."""
    evil = "\x1b[31m[red]x[/red]'; rm"
    factories.add_campaign(database, evil)
    for ran in (
        invoke("restored", "--campaign", evil),
        invoke("release", "--campaign", evil, "--because", "x"),
    ):
        assert (ran.code, "[red]x[/red]" in ran.out) == (0, True)
        assert all(sign.isprintable() or sign == "\n" for sign in ran.out)
