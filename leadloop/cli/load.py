"""`leadloop load`: a CSV file with a header becomes leads."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

from rich.console import Console

from db import campaigns
from db.copying import Value
from db.database import Database
from db.loading import insert_new
from leadloop.core.errors import UsageError
from leadloop.core.leads import ANSWER_FIELDS, LEAD_FIELDS
from leadloop.core.timestamps import read_time_argument

_ROWS_AT_ONCE = 5000
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that is no lead. `reason` repeats none of its values."""

    number: int
    reason: str


def load_file(database: Database, file: Path, campaign_id: str, err: Console) -> dict[str, int]:
    """Stream a file into `leadloop.leads`; each bad line is told by number and passed over.

    Leads that are there already stay as they are, so a load that was broken off can be repeated.
    A campaign that is not there yet is added.

    Returns:
        `loaded`, `existing` and `bad` lines.

    Raises:
        UsageError: the file cannot be read, or its header does not fit.
    """
    counts = {"loaded": 0, "existing": 0, "bad": 0}
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            rows = _rows(text)
            with database.begin() as connection:
                if campaigns.add(connection, campaign_id):
                    err.print(f"Campaign {campaign_id} is new here and was added.", markup=False)
            while chunk := list(islice(rows, _ROWS_AT_ONCE)):
                good = _tell_bad(chunk, counts, err)
                with database.begin() as connection:
                    loaded = insert_new(connection, campaign_id, good)
                counts["loaded"] += loaded
                counts["existing"] += len(good) - loaded
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    return counts


def _tell_bad(
    chunk: Sequence[list[Value] | BadLine], counts: dict[str, int], err: Console
) -> list[list[Value]]:
    for row in chunk:
        if isinstance(row, BadLine):
            counts["bad"] += 1
            err.print(f"line {row.number}: {row.reason}", markup=False, highlight=False)
    return [row for row in chunk if not isinstance(row, BadLine)]


def _rows(text: TextIO) -> Iterator[list[Value] | BadLine]:
    """Leads in the order of db.loading.COLUMNS, and bad lines.

    Raises:
        UsageError: the header does not fit.
    """
    first = text.readline()
    reader = csv.reader(text, delimiter=_delimiter(first), strict=True)
    header = _header(first, reader.dialect.delimiter)
    while True:
        number = reader.line_num + 2
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadLine(number=number, reason=f"not CSV: {error}")
            continue
        if cells:
            yield _row(header, cells, number)


def _delimiter(first: str) -> str:
    return max(",;\t|", key=first.count)


def _header(first: str, delimiter: str) -> list[str]:
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    if "lead_id" not in names:
        raise UsageError(
            "the header has no column lead_id: the first line must name the columns, of which"
            " lead_id, phone_number, contact_name, state_code, ebr_datetime are a lead's own"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"the header names a column twice: {', '.join(twice)}")
    reserved = sorted(ANSWER_FIELDS.intersection(names))
    if reserved:
        raise UsageError(
            f"the vendor's answers use these names themselves: {', '.join(reserved)};"
            " rename the columns"
        )
    return names


def _row(header: Sequence[str], cells: Sequence[str], number: int) -> list[Value] | BadLine:
    if len(cells) != len(header):
        reason = f"{len(cells)} columns where the header has {len(header)}"
        return BadLine(number=number, reason=reason)
    if any(map(_UNSTORABLE.search, cells)):
        return BadLine(number=number, reason="not UTF-8 text, or a NUL character in it")
    lead = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
    if "lead_id" not in lead:
        return BadLine(number=number, reason="lead_id is empty")
    try:
        ebr = read_time_argument(lead["ebr_datetime"]) if "ebr_datetime" in lead else None
    except ValueError:
        reason = "ebr_datetime is neither ISO 8601 with an offset nor epoch milliseconds"
        return BadLine(number=number, reason=reason)
    custom = {name: cell for name, cell in lead.items() if name and name not in LEAD_FIELDS}
    return [
        lead["lead_id"],
        lead.get("phone_number"),
        lead.get("contact_name"),
        lead.get("state_code"),
        ebr,
        json.dumps(custom, ensure_ascii=False),
    ]
