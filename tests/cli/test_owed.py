"""`leadloop owed`: what no poll could read, for people and scripts, and what a person does."""

from datetime import datetime

import pytest

from db.database import Database
from tests import factories, sql
from tests.cli.conftest import Command

_AFTER, _BEFORE = "2026-01-31T09:00:00.123Z", "2026-01-31T09:00:00.124Z"
_KEYS = (
    *("owed_id", "campaign_id", "after", "before", "reason", "tries", "tries_as_is"),
    *("found_at", "tried_at", "next_try_at", "accepted_at", "accepted_by", "accepted_reason"),
)


@pytest.fixture
def number(database: Database) -> int:
    """The number of a window that campaign C1 owes, which holds its watermark."""
    factories.add_campaign(database)
    sql.execute(
        database,
        f"""INSERT INTO leadloop.watermarks
                   (campaign_id, stream, processed_through, read_through, written_through)
            VALUES ('C1', 'outcomes', '{_AFTER}', '2026-01-31T12:00:00Z', '{_AFTER}')""",
    )
    return factories.owe_window(database, _AFTER, _BEFORE)


@pytest.mark.usefixtures("database")
def test_nothing_is_owed(invoke: Command) -> None:
    """It is said in words, and as an empty list."""
    ran = invoke("owed")
    assert (ran.code, ran.out) == (0, "Nothing is owed.\n")
    assert invoke("owed", "--json").last == {"owed": []}


def test_what_is_owed_is_listed(invoke: Command, database: Database, number: int) -> None:
    """Number, range, reason, tries and next try; in UTC wherever the database is."""
    name = sql.fetch_value(database, "SELECT current_database()")
    sql.execute(database, f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'")
    ran = invoke("owed", COLUMNS="80")
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    for shown in (str(number), "C1", _AFTER, _BEFORE, "HTTP 500", "3 tries"):
        assert shown in ran.out
    (row,) = invoke("owed", "--json").last["owed"]
    assert tuple(row) == _KEYS
    assert (row["owed_id"], row["campaign_id"], row["reason"], row["tries"]) == (
        *(number, "C1", "HTTP 500"),
        3,
    )
    assert row["after"] == "2026-01-31T09:00:00.123000+00:00"
    assert row["next_try_at"].endswith("+00:00")
    assert (row["accepted_at"], row["accepted_by"], row["accepted_reason"]) == (None, None, None)


def test_one_campaign_is_listed(invoke: Command, database: Database, number: int) -> None:
    """Repeatable; an unknown one is a line, exit 2."""
    for campaign in ("C2", "C3"):
        factories.add_campaign(database, campaign)
        factories.owe_window(database, _AFTER, _BEFORE, campaign=campaign)
    rows = invoke("owed", "--campaign", "C1", "--campaign", "C3", "--json").last["owed"]
    assert [row["campaign_id"] for row in rows] == ["C1", "C3"]
    assert rows[0]["owed_id"] == number
    ran = invoke("owed", "--campaign", "NONE")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


def test_an_acceptance_moves_the_watermark(
    invoke: Command, database: Database, number: int
) -> None:
    """The output states from where to where; the window stays on the list with the word."""
    ran = invoke("owed", "--accept", str(number), "--because", "deleted at the vendor")
    assert ran.code == 0
    assert f"moved from {_AFTER} to 2026-01-31T12:00:00.000Z" in ran.out
    mark = sql.fetch_value(database, "SELECT processed_through FROM leadloop.watermarks")
    assert mark == datetime.fromisoformat("2026-01-31T12:00:00Z")
    (row,) = invoke("owed", "--json").last["owed"]
    assert row["accepted_reason"] == "deleted at the vendor"
    assert row["accepted_by"] == sql.fetch_value(database, "SELECT session_user")
    shown = " ".join(invoke("owed").out.split())
    assert f"by {row['accepted_by']}: deleted at the vendor" in shown


def test_accepting_twice_keeps_the_first_word(invoke: Command, number: int) -> None:
    """It says so, and what the first word was."""
    invoke("owed", "--accept", str(number), "--because", "deleted at the vendor")
    before = invoke("owed", "--json").last
    ran = invoke("owed", "--accept", str(number), "--because", "never mind")
    assert (ran.code, ran.out.startswith("Nothing changed")) == (0, True)
    assert "deleted at the vendor" in ran.out
    assert invoke("owed", "--json").last == before


def test_an_acceptance_that_does_not_free_the_watermark(
    invoke: Command, database: Database, number: int
) -> None:
    """Another window holds it too, and that is said."""
    factories.owe_window(database, _AFTER, _BEFORE, reason="HTTP 502")
    ran = invoke("owed", "--accept", str(number), "--because", "deleted at the vendor")
    assert (ran.code, "moved" in ran.out) == (0, False)
    assert f"stays at {_AFTER}" in ran.out


def test_a_retry_makes_it_due(invoke: Command, number: int) -> None:
    """The next poll tries it; the output names the command."""
    ran = invoke("owed", "--retry", str(number))
    assert (ran.code, "leadloop poll --campaign C1" in ran.out) == (0, True)
    assert "due now" in invoke("owed").out
    assert invoke("owed", "--retry", str(number), "--json").last["owed"][0]["owed_id"] == number


@pytest.mark.parametrize(
    "arguments",
    [
        ("--accept", "{number}"),
        ("--accept", "{number}", "--because", ""),
        ("--accept", "{number}", "--because", " \t"),
        ("--accept", "{number}", "--because", "x", "--retry", "{number}"),
        ("--accept", "{number}", "--because", "x", "--campaign", "C1"),
        ("--because", "x"),
        ("--accept", "987654321", "--because", "x"),
        ("--accept", "99999999999999999999", "--because", "x"),
        ("--accept", "0", "--because", "x"),
        ("--accept", "one", "--because", "x"),
        ("--retry", "987654321"),
        ("--campaign", " "),
    ],
)
def test_wrong_usage(invoke: Command, number: int, arguments: tuple[str, ...]) -> None:
    """One line, exit 2, and nothing is changed."""
    before = invoke("owed", "--json").last
    ran = invoke("owed", *(each.format(number=number) for each in arguments))
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert invoke("owed", "--json").last == before


def test_a_reason_does_not_drive_the_terminal(
    invoke: Command, database: Database, number: int
) -> None:
    """No escape sequence, no markup, no invisible sign; in the list, in JSON and in the answer."""
    evil = "\x1b]0;owned\x07\x9b31m[red]gone[/red]\u202e\r\nnext [/]"
    sql.execute(database, "UPDATE leadloop.owed_windows SET reason = :evil", evil=evil)
    outputs = [invoke("owed").out, invoke("owed", "--json").out]
    assert invoke("owed", "--json").last["owed"][0]["reason"] == evil
    answer = invoke("owed", "--accept", str(number), "--because", evil)
    assert answer.code == 0
    outputs += [answer.out, invoke("owed").out]
    sql.execute(database, "UPDATE leadloop.owed_windows SET accepted_reason = :evil", evil=evil)
    again = invoke("owed", "--accept", str(number), "--because", "x")
    outputs += [again.out, invoke("owed").out, invoke("owed", "--json").out]
    for output in outputs:
        assert all(sign.isprintable() or sign == "\n" for sign in output)
    assert "[red]gone[/red]" in outputs[0]
    assert "[red]gone[/red]" in again.out
