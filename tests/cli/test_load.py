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
from leadloop.cli import csv_records
from leadloop.cli.load import LoadOptions, load_file
from leadloop.core.errors import LeadloopError, RunError, UsageError
from leadloop.core.summaries import collect_summary
from tests import sql
from tests.cli.conftest import LEADLOOP, Command

HEADER = "lead_id,phone_number,contact_name,state_code\n"
PLAN_HEADER = "lead_id,phone_number,contact_name,state_code,plan\n"
GOOD = "{0},+14155550123,Ann,CA\n"


class Loaded:
    """What a load came to."""

    def __init__(
        self, database: Database, file: Path, content: str | bytes, **options: Any
    ) -> None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.error: Exception | None = None
        said = io.StringIO()
        with collect_summary() as collected:
            try:
                load_file(database, file, "C1", said, LoadOptions(**options))
            except LeadloopError as error:
                self.error = error
        self.counts = collected.summary
        self.said = said.getvalue()


@pytest.fixture
def load(database: Database, tmp_path: Path) -> Any:
    """Loads a file of that content."""
    return lambda content, **options: Loaded(database, tmp_path / "leads.csv", content, **options)


def fetch_leads(database: Database) -> list[tuple[Any, ...]]:
    """Return id, number, name, state and custom fields of all leads, in the order of the file."""
    rows = sql.fetch_rows(
        database,
        "SELECT lead_id, phone_number, contact_name, state_code, custom_fields"
        " FROM leadloop.leads ORDER BY seq",
    )
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{'7' * 256},1,Ann,CA,", "lead_id is longer than 255 characters"),
        ("7,1,Ann,CA,9999-12-31T23:59:59-05:00", "ebr_datetime is out of range"),
        ("7,1,Ann,CA,0001-01-01T00:00:00+05:00", "ebr_datetime is out of range"),
        ("7,1,Ann,CA,99999999999999999999", "ebr_datetime looks like epoch nanoseconds"),
        ("7,1,Ann,CA,soon", "ebr_datetime is not a time: write ISO 8601 with an offset"),
        ("7,1,Ann,CA,2026-01-31", "ebr_datetime has no offset from UTC"),
        ("7,1,Ann,CA,46053", "ebr_datetime looks like a date of a spreadsheet"),
        ("7,1,Ann,CA,1769850000", "ebr_datetime looks like epoch seconds"),
        ("7,1,Ann,CA,20260131", "ebr_datetime looks like a date without separators"),
        ("7", "one column where the header has 5"),
        ("7,1,Ann,CA,,more", "more columns than the header has"),
        ("\u200b \ufeff,1,Ann,CA,", "lead_id is empty"),
        ("7,1,Ann,C\0A,", "a NUL character"),
        (",1,Ann,CA,", "lead_id is empty"),
        ("7,1,caf\udce9,CA,", "not UTF-8: give the file's --encoding"),
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


def test_alike_bad_lines_are_counted(load: Any) -> None:
    """One line for each reason, with the first places."""
    lines = "".join(f"{number},1,Ann,CA,31.01.2026\n" for number in range(3000))
    loaded = load(f"{HEADER.strip()},ebr_datetime\n{lines}x,1,Ann,CA,\n,1,Ann,CA,\n")
    assert loaded.counts == {"loaded": 1, "existing": 0, "bad": 3001}
    assert loaded.said.splitlines()[1:] == [
        "3,000 lines (the first: 2, 3, 4): ebr_datetime is not a time: write ISO 8601 with an"
        " offset (2026-01-31T09:00:00+00:00) or epoch milliseconds",
        "line 3003: lead_id is empty",
    ]


def test_a_file_in_another_encoding(load: Any, database: Database) -> None:
    """One line names the option, which reads it."""
    content = (HEADER + "".join(f"{n},+14155550123,Andr\xe9,CA\n" for n in range(300))).encode(
        "cp1252"
    )
    loaded = load(content)
    assert loaded.counts == {"loaded": 0, "existing": 0, "bad": 300}
    (said,) = loaded.said.splitlines()[1:]
    assert said == (
        "300 lines (the first: 2, 3, 4): not UTF-8: give the file's --encoding, such as cp1252"
    )
    assert load(content, encoding="cp1252").counts["loaded"] == 300
    assert {lead[2] for lead in fetch_leads(database)} == {"Andr\xe9"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "shift_jis", "cp437"])
def test_encodings_that_python_knows(load: Any, database: Database, encoding: str) -> None:
    """With or without a byte order mark."""
    loaded = load((HEADER + "7,+14155550123,Ann,CA\n").encode(encoding), encoding=encoding)
    assert loaded.counts == {"loaded": 1, "existing": 0, "bad": 0}
    assert fetch_leads(database) == [("7", "+14155550123", "Ann", "CA", {})]


def test_an_encoding_that_fails_in_the_middle(load: Any) -> None:
    """What was read is loaded, and the rest is reported."""
    lines = "".join(map(GOOD.format, range(1000)))
    loaded = load((HEADER + lines).encode("utf-16") + b"\x00\xd8\x00\xd8", encoding="utf-16")
    assert isinstance(loaded.error, RunError)
    assert "the rest was not loaded: give its --encoding" in str(loaded.error)
    assert loaded.counts["loaded"] > 500
    loaded = load((HEADER + lines).encode("utf-16") + b"\x00\xd8\x00\xd8", encoding="utf-8")
    assert isinstance(loaded.error, UsageError)
    assert "give --encoding utf-16" in str(loaded.error)


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "", "utf-8\0"])
def test_an_encoding_that_is_none(load: Any, encoding: str) -> None:
    """One line, and nothing is loaded."""
    loaded = load(HEADER, encoding=encoding or " ")
    assert isinstance(loaded.error, UsageError)
    assert "is no encoding of text" in str(loaded.error)


def test_a_header_with_a_line_break(load: Any, database: Database) -> None:
    """A quoted cell is one cell, in the header too."""
    loaded = load('lead_id,"name\nof agent",phone_number,contact_name,state_code\n1,x,2,Ann,CA\n')
    assert loaded.counts == {"loaded": 1, "existing": 0, "bad": 0}
    assert fetch_leads(database) == [("1", "2", "Ann", "CA", {"name of agent": "x"})]


NOTE = "x" * 99 + "\n9,+14155550199,Eve,CA,\n"


def test_no_line_of_a_long_note_becomes_a_lead(load: Any, database: Database) -> None:
    """A cell of more than csv's usual limit of 128 KB is read."""
    loaded = load(f'{PLAN_HEADER}1,2,Ann,CA,"{NOTE * 2000}"\n2,2,Bob,CA,gold\n')
    assert loaded.counts == {"loaded": 2, "existing": 0, "bad": 0}
    leads = fetch_leads(database)
    assert leads[0][4] == {"plan": (NOTE * 2000).strip()}
    assert leads[1] == ("2", "2", "Bob", "CA", {"plan": "gold"})


@pytest.mark.parametrize(
    "note", [NOTE * 2000, 'a ""quoted"" word,\n' * 9000, "," * 200_000, '""' * 100_000]
)
def test_a_record_that_is_too_long_is_passed_over_to_its_end(
    load: Any, database: Database, monkeypatch: pytest.MonkeyPatch, note: str
) -> None:
    """However its cells are written; the lines after it are leads."""
    monkeypatch.setattr(csv_records, "MAX_RECORD_LENGTH", 100_000)
    loaded = load(f'{PLAN_HEADER}1,2,Ann,CA,"{note}"\n2,2,Bob,CA,gold\n')
    assert loaded.counts == {"loaded": 1, "existing": 0, "bad": note.count("\n") + 1}
    assert "more than 100,000 characters" in loaded.said
    assert fetch_leads(database) == [("2", "2", "Bob", "CA", {"plan": "gold"})]


def test_cells_that_a_spreadsheet_left_off(load: Any, database: Database) -> None:
    """Missing cells at the end are empty; rows without any value are passed over."""
    rows = "1,2,Ann,CA\n,,,,\n \t\n\n2,2,Bob,CA,gold\n,,,,\n3,2,Eve\n"
    loaded = load(PLAN_HEADER + rows)
    assert loaded.counts == {"loaded": 3, "existing": 0, "bad": 0}
    assert [lead[0::2] for lead in fetch_leads(database)] == [
        ("1", "Ann", {}),
        ("2", "Bob", {"plan": "gold"}),
        ("3", "Eve", {}),
    ]


def test_short_lines_are_named(load: Any) -> None:
    """Which cell is missing cannot be known: a value may be in the wrong column."""
    full, short = "1,2,Ann,CA,gold\n", "{},2,Ann,CA\n"
    loaded = load(PLAN_HEADER + full + "".join(map(short.format, range(2, 7))))
    assert loaded.counts == {"loaded": 6, "existing": 0, "bad": 0}
    assert (
        "5 lines (the first: 3, 4, 5): loaded, but with fewer columns than the header has"
        in loaded.said
    )
    assert "--update" in loaded.said
    assert "fewer" not in load(PLAN_HEADER + full).said


def test_a_file_that_was_cut_off(load: Any, database: Database) -> None:
    """The number at its end may be half a number: it is no lead."""
    loaded = load(PLAN_HEADER + "1,2,Ann,CA,gold\n2,+141555501")
    assert loaded.counts == {"loaded": 1, "existing": 0, "bad": 1}
    assert "line 3: the file ends within this line" in loaded.said


@pytest.mark.parametrize(
    "content",
    [
        '"a, b, c, d, e";lead_id;phone_number;contact_name;state_code\nx;1;2;Ann;CA\n',
        'sep=;\n"a, b, c, d, e";lead_id;phone_number;contact_name;state_code\nx;1;2;Ann;CA\n',
        '\ufeff"sep=|"\r\n"a, b, c, d, e"|lead_id|phone_number|contact_name|state_code\r\n'
        "x|1|2|Ann|CA\r\n",
        '"a, b, c, d, e"\tlead_id\tphone_number\tcontact_name\tstate_code\rx\t1\t2\tAnn\tCA\r',
        '\n,,,,\n"a, b, c, d, e",lead_id,phone_number,contact_name,state_code\nx,1,2,Ann,CA\n',
    ],
)
def test_the_delimiter_is_the_one_that_names_the_fields(
    load: Any, database: Database, content: str
) -> None:
    """Also if a quoted name has more of another, and after Excel's `sep=`."""
    assert load(content).counts == {"loaded": 1, "existing": 0, "bad": 0}
    assert fetch_leads(database) == [("1", "2", "Ann", "CA", {"a, b, c, d, e": "x"})]


def test_any_delimiter_can_be_given(load: Any, database: Database) -> None:
    """One character, or the word tab."""
    content = "lead_id~phone_number~contact_name~state_code\n1~2~Ann~CA\n"
    assert load(content, delimiter="~").counts["loaded"] == 1
    assert load(content.replace("~", "\t"), delimiter="tab").counts["existing"] == 1
    for no_delimiter in ("", "ab", '"', "\n", "x"):
        assert "is no delimiter" in str(load(content, delimiter=no_delimiter).error)


def test_lines_of_another_file(load: Any, database: Database) -> None:
    """A repeated header is no lead; after one with other columns nothing is taken."""
    header = "\ufeff" + HEADER
    joined = header + "1,2,Ann,CA\n" + header + "\ufeff2,2,Bob,CA\n"
    loaded = load(joined)
    assert loaded.counts == {"loaded": 2, "existing": 0, "bad": 1}
    assert "line 3: repeats the header: two files in one?" in loaded.said
    loaded = load(joined + "Lead_ID,contact_name,phone_number,state_code\n3,Eve,2,CA\n")
    assert "line 5 names other columns" in str(loaded.error)
    assert [lead[0] for lead in fetch_leads(database)] == ["1", "2"]


def test_invisible_characters(load: Any, database: Database) -> None:
    """None at the ends of a value, and none in an id; a name of them alone is missing."""
    loaded = load(HEADER + "\u200b8\u00ad8,\u202a+14155550123\u202c,\u200b,\u00a0CA\ufeff\n")
    assert loaded.counts["loaded"] == 1
    assert fetch_leads(database) == [("88", "+14155550123", None, "CA", {})]


@pytest.mark.parametrize(
    "mapping",
    [
        ["id=lead_id", "phone=phone_number", "Name=contact_name", "state=state_code", "x=plan"],
        ["lead_id=id", "phone_number=phone", "contact_name=name", "state_code=state", "plan=x"],
    ],
)
def test_columns_are_renamed(load: Any, database: Database, mapping: list[str]) -> None:
    """In either order, as long as the header has one of the names."""
    loaded = load("id,phone,name,state,x\n1,2,Ann,CA,gold\n", mapping=mapping)
    assert loaded.counts["loaded"] == 1
    assert loaded.said.startswith("note: custom fields: plan\n")
    assert fetch_leads(database) == [("1", "2", "Ann", "CA", {"plan": "gold"})]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("phone", "write COLUMN=FIELD"),
        ("a=b", "the header has no column a; it has id, lead_id"),
        ("id=lead_id", "names a column twice: lead_id"),
        ("id=created_at", "reserved by the vendor's API: created_at"),
    ],
)
def test_a_wrong_mapping(load: Any, mapping: str, said: str) -> None:
    """One line, and nothing is loaded."""
    loaded = load("id,lead_id\n1,2\n", mapping=[mapping])
    assert isinstance(loaded.error, UsageError)
    assert said in str(loaded.error)


def test_a_name_that_swallowed_a_line_is_no_name(load: Any, database: Database) -> None:
    """An open quote that a later cell closes: the lead in between would be lost in silence."""
    loaded = load(HEADER + '1,2,"Ann,CA\n2,2,Bob",CA\n3,2,Eve,CA\n')
    assert loaded.counts == {"loaded": 1, "existing": 0, "bad": 2}
    assert "lines 2 to 3 were not loaded" in str(loaded.error)


def test_corrected_rows_of_a_second_file(load: Any, database: Database) -> None:
    """They are counted; an update corrects those that were not sent, and no others."""
    header = HEADER.strip() + ",plan,tier\n"
    load(header + "".join(f"{n},2,Ann,CA,gold,1\n" for n in range(1, 7)))
    for lead_id, change in {
        "2": "status = 'created', sent_at = now()",
        "3": "status = 'rejected', last_error = 'phone_number: not valid'",
        "4": "status = 'rejected', last_error = 'vendor: no', sent_at = now()",
        "5": "opted_out = true, status = 'cancelled'",
    }.items():
        sql.execute(database, f"UPDATE leadloop.leads SET {change} WHERE lead_id = '{lead_id}'")
    corrected = "lead_id,contact_name,plan\n" + "".join(f"{n},Bob,silver\n" for n in range(1, 6))
    loaded = load(corrected + "6,Ann,gold\n")
    assert loaded.counts == {"loaded": 0, "existing": 6, "bad": 0}
    assert "stay as they are: 3; they were not sent: leadloop load --update" in loaded.said
    assert "stay as they are: 2; they were sent, have opted out" in loaded.said
    loaded = load(corrected + "6,Ann,gold\n", update=True)
    assert loaded.counts == {"loaded": 0, "existing": 6, "bad": 0, "updated": 3}
    assert "the vendor has rejected: 1; leadloop requeue --rejected" in loaded.said
    rows = sql.fetch_rows(
        database,
        "SELECT lead_id, contact_name, custom_fields, status, last_error FROM leadloop.leads"
        " ORDER BY lead_id",
    )
    silver, gold = {"plan": "silver", "tier": "1"}, {"plan": "gold", "tier": "1"}
    assert [tuple(row.values()) for row in rows] == [
        ("1", "Bob", silver, "new", None),
        ("2", "Ann", gold, "created", None),
        ("3", "Bob", silver, "new", None),
        ("4", "Bob", silver, "rejected", "vendor: no"),
        ("5", "Ann", gold, "cancelled", None),
        ("6", "Ann", gold, "new", None),
    ]
    assert load(corrected, update=True).counts["updated"] == 0


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
        "lines 5, 6, 7: priority is not a whole number from 0 to 32767"
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
        (b'"lead_id\n1,2\n', "has a header that cannot be read"),
        (b"sep=;\n", "has no header"),
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
    bad = ["8\n", ",+14155550125,Secret Name,CA,gold\n"]
    (environment / "leads.csv").write_text(PLAN_HEADER + good + "".join(bad) + good)
    ran = invoke("load", "leads.csv", "--campaign", "C1", "--json")
    assert ran.last == {"loaded": 1, "existing": 1, "bad": 2}
    assert "line 3: one column where the header has 5" in ran.err
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
