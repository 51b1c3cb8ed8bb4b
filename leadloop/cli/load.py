"""`leadloop load`: import leads from a CSV file with a header."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from db import campaigns
from db.bulk_copy import CopyValue
from db.database import Database
from db.lead_import import insert_new_leads
from leadloop.core.campaign_rules import DEFAULT_REQUIRED_FIELDS
from leadloop.core.errors import RunError, UsageError
from leadloop.core.leads import RESPONSE_FIELDS
from leadloop.core.source_requirements import MAX_LEAD_ID_LENGTH, MAX_PRIORITY
from leadloop.core.summaries import report_summary
from leadloop.core.timestamps import parse_time_argument

_CHUNK_SIZE = 5000
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# In the order of the documentation.
_LEAD_COLUMNS = (
    *("lead_id", "phone_number", "contact_name", "state_code", "ebr_datetime"),
    "priority",
)
_ENCODING_ADVICE = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that is not a lead, or several lines that an open quote joins.

    `reason` contains no value of the line.
    """

    first: int
    last: int
    reason: str

    @property
    def location(self) -> str:
        """The line numbers as text."""
        return (
            f"line {self.first}" if self.line_count == 1 else f"lines {self.first} to {self.last}"
        )

    @property
    def line_count(self) -> int:
        """The number of lines in the file."""
        return self.last - self.first + 1


LoadRow = list[CopyValue] | BadLine


def load_file(database: Database, file: Path, campaign_id: str, err: TextIO) -> dict[str, int]:
    """Import a CSV file into `leadloop.leads`, in chunks; report and skip bad lines.

    The import is idempotent: leads that exist stay unchanged, so an interrupted load can be
    repeated. A missing campaign is added after the header is validated.

    Args:
        database: where the leads go.
        file: the CSV file; `-`: standard input.
        campaign_id: the vendor's id of the campaign.
        err: receives a line for each bad line, and notes about the header.

    Returns:
        The numbers of `loaded` and `existing` leads and of `bad` lines.

    Raises:
        UsageError: the file cannot be read, or its header is invalid; nothing was loaded.
        RunError: an open quote joined several lines, or no line could be loaded.
    """
    loader = _CsvLoader(database, campaign_id, err)
    with _open_text(file) as text:
        header = _read_header(text, file)
        _report_header(header.names, err)
        loader.add_campaign()
        # Reported now: after Ctrl-C or the loss of the database, the chunks before stay loaded.
        report_summary(loader.counts)
        rows = _parse_rows(text, header)
        while chunk := list(islice(rows, _CHUNK_SIZE)):
            loader.insert_chunk(chunk)
    loader.require_success()
    return loader.counts


class _CsvLoader:
    """The state of a load: its counts, and the first lines that an open quote joined."""

    def __init__(self, database: Database, campaign_id: str, err: TextIO) -> None:
        self.counts = {"loaded": 0, "existing": 0, "bad": 0}
        self._database = database
        self._campaign_id = campaign_id
        self._err = err
        self._first_quoted: BadLine | None = None

    def add_campaign(self) -> None:
        """Add the campaign if it is missing."""
        if self._database.run(campaigns.add_campaign, self._campaign_id):
            print(f"Campaign {self._campaign_id} is new here and was added.", file=self._err)

    def insert_chunk(self, chunk: Sequence[LoadRow]) -> None:
        """Insert the leads of a chunk, and report its bad lines."""
        bad = [row for row in chunk if isinstance(row, BadLine)]
        good = [row for row in chunk if not isinstance(row, BadLine)]
        if bad:
            print("\n".join(f"{row.location}: {row.reason}" for row in bad), file=self._err)
        self.counts["bad"] += sum(row.line_count for row in bad)
        self._first_quoted = self._first_quoted or next(
            (row for row in bad if row.line_count > 1), None
        )
        loaded = self._database.retry(
            lambda connection: insert_new_leads(connection, self._campaign_id, good)
        )
        self.counts["loaded"] += loaded
        self.counts["existing"] += len(good) - loaded

    def require_success(self) -> None:
        """Raise an error if an open quote joined lines, or if no line could be loaded.

        Raises:
            RunError: one of the two happened.
        """
        if lost := self._first_quoted:
            raise RunError(
                f"{lost.location} were not loaded: a quote opened in line {lost.first} joins them;"
                " close the quote and load the file again"
            )
        if self.counts["bad"] and not self.counts["loaded"] + self.counts["existing"]:
            raise RunError("no line of the file could be loaded; see the lines above")


@contextmanager
def _open_text(file: Path) -> Iterator[TextIO]:
    """Open the file, or standard input for `-`, as UTF-8 with or without a byte order mark."""
    try:
        binary: BinaryIO = (
            os.fdopen(0, "rb", closefd=False) if str(file) == "-" else file.open("rb")
        )
        with io.TextIOWrapper(
            binary, encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as text:
            yield text
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None


# The header


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The header of the file: column names, a lead's fields normalised, and the delimiter."""

    names: Sequence[str]
    delimiter: str


def _read_header(text: TextIO, file: Path) -> _Header:
    """Read and validate the first line; detect the delimiter.

    Raises:
        UsageError: the header is invalid.
    """
    first = text.readline()
    if not first.strip():
        raise UsageError(f"{file} has no header: its first line must name the columns")
    if "\x00" in first or first.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise UsageError(f"{file} is UTF-16, or no text at all: {_ENCODING_ADVICE}")
    if _UNSTORABLE.search(first):
        raise UsageError(f"{file} is not UTF-8 (Latin-1?): {_ENCODING_ADVICE}")
    delimiter = max(",;\t|", key=first.count)
    cells = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    names = [name.lower() if name.lower() in _LEAD_COLUMNS else name for name in cells]
    if "lead_id" not in names:
        raise UsageError(
            "the header has no column lead_id: the first line must name the columns, of which"
            f" {', '.join(_LEAD_COLUMNS)} are a lead's own"
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise UsageError(f"the header names a column twice: {', '.join(twice)}")
    reserved = sorted(RESPONSE_FIELDS.intersection(names))
    if reserved:
        raise UsageError(
            f"these column names are reserved by the vendor's API: {', '.join(reserved)};"
            " rename the columns"
        )
    return _Header(names=names, delimiter=delimiter)


def _report_header(names: Sequence[str], err: TextIO) -> None:
    """Print one line about missing, custom and unnamed columns: a misspelt field is custom."""
    missing = [name for name in DEFAULT_REQUIRED_FIELDS if name not in names]
    custom = [name for name in names if name and name not in _LEAD_COLUMNS]
    unnamed = names.count("")
    notes = [
        f"the header lacks {', '.join(missing)}" if missing else "",
        f"custom fields: {', '.join(custom)}" if custom else "",
        f"{unnamed} columns without a name are left out" if unnamed else "",
    ]
    if any(notes):
        print(f"note: {'; '.join(filter(None, notes))}", file=err)


# The lines


def _parse_rows(text: TextIO, header: _Header) -> Iterator[LoadRow]:
    """Yield leads, in the order of db.lead_import.COLUMNS, and bad lines."""
    reader = csv.reader(text, delimiter=header.delimiter, strict=True)
    while True:
        first = reader.line_num + 2
        try:
            cells = next(reader)
            if cells:
                yield _parse_lead(header.names, cells)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadLine(first=first, last=reader.line_num + 1, reason=f"not CSV: {error}")
        except ValueError as error:
            yield BadLine(first=first, last=reader.line_num + 1, reason=str(error))


def _parse_lead(header: Sequence[str], cells: Sequence[str]) -> list[CopyValue]:
    """Convert cells to a row for the database.

    Raises:
        ValueError: the cells are not a lead; the message contains no value.
    """
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} columns where the header has {len(header)}")
    if any(map(_UNSTORABLE.search, cells)):
        raise ValueError("not UTF-8 (Latin-1?), or a NUL character in it")
    lead = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
    if "lead_id" not in lead:
        raise ValueError("lead_id is empty")
    if len(lead["lead_id"]) > MAX_LEAD_ID_LENGTH:
        raise ValueError(f"lead_id is longer than {MAX_LEAD_ID_LENGTH} characters")
    try:
        ebr = lead.get("ebr_datetime")
        ebr_datetime = None if ebr is None else parse_time_argument(ebr)
    except ValueError:
        raise ValueError(
            "ebr_datetime is not a time: write ISO 8601 with an offset, or epoch milliseconds"
        ) from None
    priority = lead.get("priority", "0")
    if not re.fullmatch("[0-9]{1,5}", priority) or int(priority) > MAX_PRIORITY:
        raise ValueError(f"priority is not a whole number from 0 to {MAX_PRIORITY}")
    custom = {name: cell for name, cell in lead.items() if name and name not in _LEAD_COLUMNS}
    return [
        lead["lead_id"],
        lead.get("phone_number"),
        lead.get("contact_name"),
        lead.get("state_code"),
        ebr_datetime,
        json.dumps(custom, ensure_ascii=False),
        int(priority),
    ]
