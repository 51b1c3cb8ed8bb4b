"""Questions before what cannot be taken back, in a real terminal and in a script."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from db.database import Database
from tests import factories, sql
from tests.cli.conftest import LEADLOOP, Command
from tests.jobs import push_leads

_FORGET = ("forget", "--campaign", "C1", "--lead-id", "A", "--lead-id", "B")


@pytest.fixture
def two_leads(database: Database) -> None:
    """A campaign with two people."""
    factories.add_campaign(database)
    factories.add_leads(database, "A", "B")


def run_in_terminal(
    directory: Path, answer: bytes, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a terminal in which somebody types an answer."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        return subprocess.run(
            [LEADLOOP, *arguments],
            cwd=directory,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.usefixtures("two_leads")
@pytest.mark.parametrize(
    ("answer", "code", "names"), [(b"y\n", 0, {None}), (b"\n", 1, {"Ann A", "Ann B"})]
)
def test_a_person_is_asked_before_data_is_erased(
    environment: Path, database: Database, answer: bytes, code: int, names: set[str | None]
) -> None:
    """The question names whose data it is; Enter alone means no, and nothing is erased."""
    ran = run_in_terminal(environment, answer, *_FORGET)
    assert ran.returncode == code, ran.stderr
    assert "Erase the personal data of 2 leads of campaign C1 (A, B)" in ran.stderr
    assert "Go on? [y/N]" in ran.stderr
    rows = sql.fetch_rows(database, "SELECT contact_name FROM leadloop.leads")
    assert {row["contact_name"] for row in rows} == names
    assert bool(code) == ("leadloop: nothing was erased, because it was not" in ran.stderr)


@pytest.mark.usefixtures("two_leads")
def test_a_script_needs_yes(invoke: Command, database: Database) -> None:
    """Without a terminal there is nobody to ask: one line, exit 2, and nothing is erased."""
    refused = invoke(*_FORGET)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "run it in a terminal, or with --yes" in refused.err
    assert sql.fetch_opt_outs(database) == {}
    assert invoke(*_FORGET, "--yes", "--json").last == {"forgotten": 2}


@pytest.mark.usefixtures("vendor", "quick_retries")
@pytest.mark.parametrize(("answer", "code", "opted_out"), [(b"y\n", 0, 1), (b"\n", 1, 0)])
def test_a_person_is_asked_before_those_who_left_the_source_opt_out(
    environment: Path, database: Database, answer: bytes, code: int, opted_out: int
) -> None:
    """The question states how many they are; Enter alone means no, and nobody opts out."""
    factories.add_campaign(database)
    sql.execute(
        database,
        """CREATE SCHEMA crm; CREATE TABLE crm.people AS
           SELECT 'A' AS lead_id, '+14155550001' AS phone_number, 'Ann' AS contact_name,
                  'NY' AS state_code;
           UPDATE leadloop.campaigns SET source = 'crm.people'""",
    )
    push_leads()
    sql.execute(database, "DELETE FROM crm.people")
    ran = run_in_terminal(environment, answer, "opt-out", "--campaign", "C1", "--left-source")
    assert ran.returncode == code, ran.stderr
    assert "1 lead was sent and left crm.people, of 1 lead." in ran.stderr
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.disable_requests") == opted_out
    assert bool(code) == ("leadloop: nobody has opted out, because it was not" in ran.stderr)
