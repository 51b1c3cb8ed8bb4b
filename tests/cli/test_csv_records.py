"""Records of a CSV file: as Python's csv module reads them, and passed over where too long."""

import csv
import io
import json
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.database import Database
from leadloop.cli import csv_records
from leadloop.cli.csv_records import CsvRecord, CsvRecords
from leadloop.cli.load import LoadOptions, load_file
from leadloop.core.errors import LeadloopError, UsageError
from leadloop.core.summaries import collect_summary
from leadloop.core.unseen_characters import clean_id, strip_unseen
from tests import sql

_HEADER = "lead_id,plan\n"
_TEXTS = st.text('ab ,"\n\r', max_size=60) | st.text('a",\n', max_size=60)
# What a file from elsewhere may hold, in any order.
_CELLS = st.sampled_from(
    [
        *("", " ", "7", "007", "\u200b8", "lead_id", "phone_number", "Ann", "CA", "+14155550123"),
        *('"', '""', '"a\nb"', '"Ann, B"', ";", "\t", "\x00", "\udce9", "\ufeff", "46053"),
        *("2026-01-31T09:00Z", "1769850000", "a\u2028b", "x" * 300, "=1+1", "\r", "sep=;"),
    ]
)


def read_reference(text: str) -> list[tuple[int, int, list[str] | None]]:
    """Read with Python's csv module alone: first and last line and cells of each record."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[tuple[int, int, list[str] | None]] = []
    while True:
        first = reader.line_num + 1
        try:
            cells = [strip_unseen(cell) for cell in next(reader)]
        except StopIteration:
            return found
        except csv.Error:
            found.append((first, reader.line_num, None))
        else:
            if any(cells):
                found.append((first, reader.line_num, cells))


def read_records(text: str) -> list[CsvRecord]:
    """Read the records after the header."""
    return list(CsvRecords(io.StringIO(text, newline=""), delimiter=",", wanted=["lead_id"]))


@given(_TEXTS)
def test_records_are_those_of_the_csv_module(text: str) -> None:
    """From the first byte to the last, with their lines."""
    text = _HEADER + text
    found = [
        (record.first, record.last, None if record.fault else list(record.cells))
        for record in read_records(text)
    ]
    assert found == read_reference(text)[1:]


@given(st.text('a",\n', max_size=200), st.integers(14, 40))
def test_a_record_that_is_too_long_ends_where_it_ends(text: str, limit: int) -> None:
    """No line within it is taken for a record, and none behind it is lost."""
    text = _HEADER + text
    lines = text.splitlines(keepends=True)
    with mock.patch.object(csv_records, "MAX_RECORD_LENGTH", limit):
        records = read_records(text)
    reference = read_reference(text)[1:]
    by_lines = {(first, last): cells for first, last, cells in reference}
    for record in records:
        length = sum(map(len, lines[record.first - 1 : record.last]))
        if length < limit:
            cells = by_lines[record.first, record.last]
            assert (None if record.fault else list(record.cells)) == cells
        else:
            assert record.fault
    assert set(by_lines) <= {(record.first, record.last) for record in records}


def test_a_file_takes_little_memory(tmp_path: Any) -> None:
    """A quote that is never closed swallows a file of any size."""
    text = _HEADER + '7,"' + "8,9\n" * 1_000_000
    (record,) = read_records(text)
    assert (record.first, record.last) == (2, 1_000_002 - 1)
    assert record.fault == f"more than {csv_records.MAX_RECORD_LENGTH:,} characters"
    assert not record.cells


@pytest.mark.parametrize("text", ["", "\n", " , ,\n", '"', '"a', "sep=;"])
def test_a_text_without_a_header(text: str) -> None:
    """It says so."""
    with pytest.raises(UsageError, match="header"):
        read_records(text)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    rows=st.lists(st.lists(_CELLS, max_size=6), max_size=8),
    header=st.sampled_from(
        [
            "lead_id,phone_number,contact_name,state_code,ebr_datetime,plan",
            "lead_id;phone_number;plan",
            '"lead_id",ebr_datetime,"a\nb"',
            "sep=;\nLead_ID;plan",
            "lead_id",
        ]
    ),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    whole=st.booleans(),
)
def test_whatever_a_file_holds(
    database: Database,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    header: str,
    ending: str,
    whole: bool,
) -> None:
    """No traceback and no silence; and nothing is stored that does not stand in the file."""
    delimiter = ";" if ";" in header else ","
    lines = [header.replace("\n", ending), *(delimiter.join(row) for row in rows)]
    text = ending.join(lines) + (ending if whole else "")
    file = tmp_path_factory.mktemp("fuzz") / "leads.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    sql.execute(database, "DELETE FROM leadloop.leads")
    said = io.StringIO()
    with collect_summary() as collected:
        try:
            load_file(database, file, "C1", said, LoadOptions())
        except LeadloopError:
            said.write("failed")
    counts = collected.summary
    stored = sql.fetch_rows(database, "SELECT * FROM leadloop.leads")
    assert counts.get("loaded", 0) == len(stored)
    assert bool(counts.get("bad")) <= ("line" in said.getvalue())
    for lead in stored:
        assert lead["lead_id"] == clean_id(lead["lead_id"])
        assert lead["ebr_datetime"] is None or lead["ebr_datetime"].year == 2026
        values = [lead[name] for name in ("phone_number", "contact_name", "state_code")]
        plain = text.replace('""', '"').replace("\r\n", "\n")
        for value in [*filter(None, values), *lead["custom_fields"].values()]:
            assert value == strip_unseen(value)
            assert value.replace("\r\n", "\n") in plain.replace('""', '"')
        assert not any("\n" in value or "\r" in value for value in filter(None, values))
        assert json.dumps(lead["custom_fields"]).isprintable()
