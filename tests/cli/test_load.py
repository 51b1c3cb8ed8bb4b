"""`leadloop load`: which files, headers and lines are accepted."""

import io
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from db.database import Database
from leadloop.cli.load import load_file
from leadloop.core.errors import LeadloopError, RunError, UsageError
from leadloop.core.summaries import collect_summary
from tests import sql
from tests.cli.conftest import LEADLOOP, Command

HEADER = "lead_id,phone_number,contact_name,state_code\n"
PLAN_HEADER = "lead_id,phone_number,contact_name,state_code,plan\n"
GOOD = "{0},+14155550123,Ann,CA\n"


class Loaded:
    """What a load came to."""

    def __init__(self, database: Database, file: Path, content: str | bytes) -> None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.error: Exception | None = None
        said = io.StringIO()
        with collect_summary() as collected:
            try:
                load_file(database, file, "C1", said)
            except LeadloopError as error:
                self.error = error
        self.counts = collected.summary
        self.said = said.getvalue()


@pytest.fixture
def load(database: Database, tmp_path: Path) -> Any:
    """Loads a file of that content."""
    return lambda content: Loaded(database, tmp_path / "leads.csv", content)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{'7' * 256},1,Ann,CA,", "lead_id is longer than 255 characters"),
        ("7,1,Ann,CA,9999-12-31T23:59:59-05:00", "ebr_datetime is not a time"),
        ("7,1,Ann,CA,0001-01-01T00:00:00+05:00", "ebr_datetime is not a time"),
        ("7,1,Ann,CA,99999999999999999999", "ebr_datetime is not a time"),
        ("7,1,Ann,CA", "4 columns where the header has 5"),
        (",1,Ann,CA,", "lead_id is empty"),
        ("7,1,caf\udce9,CA,", "not UTF-8 (Latin-1?)"),
        ('7,1,"A"nn,CA,', "not CSV"),
    ],
)
def test_a_bad_line_is_told_by_number_and_holds_up_no_other(
    load: Any, database: Database, line: str, said: str
) -> None:
    """The others are loaded, and nothing of the bad one is repeated."""
    content = f"{HEADER.strip()},ebr_datetime\n1,1,Ann,CA,\n{line}\n2,1,Ann,CA,\n"
    loaded = load(content.encode(errors="surrogateescape"))
    assert loaded.counts == {"loaded": 2, "existing": 0, "bad": 1}
    assert f"line 3: {said}" in loaded.said
    assert loaded.error is None
    assert "Ann" not in loaded.said


def test_a_quote_that_is_never_closed_is_a_failure(load: Any, database: Database) -> None:
    """It holds the rest of the file together: which lines those are is told."""
    rest = "".join(GOOD.format(number) for number in range(5, 105))
    loaded = load(HEADER + GOOD.format(1) + '2,"+1415,Ann,CA\n' + rest)
    assert loaded.counts == {"loaded": 1, "existing": 0, "bad": 101}
    assert "lines 3 to 103 were not loaded" in str(loaded.error)
    assert "opened in line 3" in str(loaded.error)


def test_a_file_without_a_single_lead_is_a_failure(load: Any) -> None:
    """Not a success with nothing loaded."""
    loaded = load(HEADER + "1\n2\n")
    assert isinstance(loaded.error, RunError)
    assert loaded.counts == {"loaded": 0, "existing": 0, "bad": 2}


def test_a_lead_s_own_columns_are_known_by_their_names(load: Any, database: Database) -> None:
    """Whatever their case and the blanks around them; what becomes of the others is told."""
    loaded = load("Lead_ID, Phone_Number ,name,state,,\n7,+14155550123,Ann,CA,x,y\n")
    assert loaded.said.splitlines()[0] == (
        "note: the header lacks contact_name, state_code; custom fields: name, state;"
        " 2 columns without a name are left out"
    )
    (row,) = sql.fetch_rows(
        database, "SELECT lead_id, phone_number, custom_fields FROM leadloop.leads"
    )
    assert row == {
        "lead_id": "7",
        "phone_number": "+14155550123",
        "custom_fields": {"name": "Ann", "state": "CA"},
    }


def test_a_priority_is_no_custom_field(load: Any, database: Database) -> None:
    """An empty cell is the usual one; a line with anything else but a whole number is bad."""
    lines = "".join(
        f"{number},1,Ann,CA,{cell}\n"
        for number, cell in enumerate(["", "0", "7", "-1", "high", "32768"])
    )
    loaded = load(f"{HEADER.strip()},Priority\n{lines}")
    assert loaded.counts == {"loaded": 3, "existing": 0, "bad": 3}
    assert loaded.said.splitlines()[1:] == [
        f"line {line}: priority is not a whole number from 0 to 32767" for line in (5, 6, 7)
    ]
    rows = sql.fetch_rows(
        database, "SELECT lead_id, priority, custom_fields FROM leadloop.leads ORDER BY lead_id"
    )
    assert [tuple(row.values()) for row in rows] == [("0", 0, {}), ("1", 0, {}), ("2", 7, {})]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no header"),
        (b"\n", "has no header"),
        ("lead_id\n1\n".encode("utf-16"), "UTF-16"),
        ("lead_id,caf\u00e9\n1,2\n".encode("latin-1"), "not UTF-8"),
        (b"id,name\n1,2\n", "no column lead_id"),
        (b"lead_id,Lead_ID\n1,2\n", "names a column twice"),
    ],
)
def test_a_file_that_is_none_adds_no_campaign(
    load: Any, database: Database, content: bytes, said: str
) -> None:
    """One line says what it is instead."""
    loaded = load(content)
    assert isinstance(loaded.error, UsageError)
    assert said in str(loaded.error)
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.campaigns") == 0


def test_each_bad_line_of_a_file_is_told_by_number(
    invoke: Command, environment: Path, database: Database
) -> None:
    """The good ones are loaded all the same, and nothing of a bad one is repeated."""
    good = "7,+14155550123,Ann,CA,gold\n"
    bad = ["8,+14155550124\n", ",+14155550125,Secret Name,CA,gold\n"]
    (environment / "leads.csv").write_text(PLAN_HEADER + good + "".join(bad) + good)
    ran = invoke("load", "leads.csv", "--campaign", "C1", "--json")
    assert ran.last == {"loaded": 1, "existing": 1, "bad": 2}
    assert "line 3: 2 columns where the header has 5" in ran.err
    assert "note: custom fields: plan" in ran.err
    assert "line 4: lead_id is empty" in ran.err
    assert "Secret" not in ran.err
    custom = sql.fetch_value(database, "SELECT custom_fields FROM leadloop.leads")
    assert custom == {"plan": "gold"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_load_that_is_stopped_says_so(
    environment: Path, database: Database, number: signal.Signals
) -> None:
    """As a run does: one line, the counts, exit 1."""
    with subprocess.Popen(
        [LEADLOOP, "load", "-", "--campaign", "C1", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        lines = (f"{number},+14155550123,Ann,CA,gold\n" for number in range(5500))
        process.stdin.write(PLAN_HEADER + "".join(lines))
        process.stdin.flush()
        while not sql.fetch_value(database, "SELECT count(*) FROM leadloop.leads"):
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("leadloop: stopped; ")
    assert json.loads(out)["loaded"] == sql.fetch_value(
        database, "SELECT count(*) FROM leadloop.leads"
    )
