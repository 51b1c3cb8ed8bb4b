"""`leadloop load`: import leads from a CSV file with a header."""

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from db import campaigns
from db.bulk_copy import CopyValue
from db.database import Database
from db.lead_import import ImportedColumns, ImportResult, import_leads
from leadloop.cli.csv_records import CsvRecord, CsvRecords
from leadloop.core.campaign_rules import DEFAULT_REQUIRED_FIELDS
from leadloop.core.errors import RunError, UsageError
from leadloop.core.leads import RESPONSE_FIELDS
from leadloop.core.plurals import format_count
from leadloop.core.source_requirements import MAX_LEAD_ID_LENGTH, MAX_PRIORITY
from leadloop.core.summaries import report_summary
from leadloop.core.timestamps import TIME_FORMATS, parse_strict_time
from leadloop.core.unseen_characters import clean_id

_CHUNK_SIZE = 5000
# Bounds the memory of a chunk.
_CHUNK_CHARACTERS = 8_000_000
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LINE_BREAK = re.compile("[\r\n]")
# In the order of the documentation.
_LEAD_COLUMNS = (
    *("lead_id", "phone_number", "contact_name", "state_code", "ebr_datetime"),
    "priority",
)
_NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t"}
#: The locations that are shown of lines that are bad for the same reason.
_MAX_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a file is read.

    Attributes:
        encoding: Python's name of the encoding; None: UTF-8.
        delimiter: one character, or `tab`; None: detected.
        mapping: `COLUMN=FIELD`, each of which renames a column.
        update: correct existing leads that were not sent.
    """

    encoding: str | None = None
    delimiter: str | None = None
    mapping: Sequence[str] = ()
    update: bool = False


_DEFAULT_OPTIONS = LoadOptions()


@dataclass(frozen=True, kw_only=True)
class BadRecord:
    """Lines that are not a lead. `reason` contains no value of them.

    `joined`: an open quote joins the lines, or seems to.
    """

    first: int
    last: int
    reason: str
    joined: bool = False

    @property
    def location(self) -> str:
        """The line numbers as text."""
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def line_count(self) -> int:
        """The number of lines in the file."""
        return self.last - self.first + 1


LoadRow = list[CopyValue] | BadRecord


class _OtherHeader(Exception):
    """A line names the columns again, in another order."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} names other columns: two files in one?")
        self.line = line


def load_file(
    database: Database,
    file: Path,
    campaign_id: str,
    err: TextIO,
    options: LoadOptions = _DEFAULT_OPTIONS,
) -> dict[str, int]:
    """Import a CSV file into `leadloop.leads`, in chunks; report and skip bad lines.

    The import is idempotent: leads that exist stay unchanged unless an update is asked for, so an
    interrupted load can be repeated. A missing campaign is added after the header is validated.

    Args:
        database: where the leads go.
        file: the CSV file; `-`: standard input.
        campaign_id: the vendor's id of the campaign.
        err: receives a line for each kind of bad lines, and notes about the header.
        options: how the file is read.

    Returns:
        The numbers of `loaded` and `existing` leads and of `bad` lines; with an update, also of
        `updated` leads.

    Raises:
        UsageError: the file cannot be read, or its header is invalid; nothing was loaded.
        RunError: an open quote joined several lines, a part of the file could not be read, or no
            line could be loaded.
    """
    with _open_text(file, options) as text:
        header, records = _read_header(text, file, options)
        _report_header(header.names, err)
        loader = _CsvLoader(database, campaign_id, header, err, update=options.update)
        loader.add_campaign()
        # Reported now: after Ctrl-C or the loss of the database, the chunks before stay loaded.
        report_summary(loader.counts)
        try:
            loader.load_records(records, options.encoding or "UTF-8")
        finally:
            loader.report()
    loader.require_success()
    return loader.counts


class _CsvLoader:
    """The state of a load: its counts, and what it has to report."""

    def __init__(
        self, database: Database, campaign_id: str, header: "_Header", err: TextIO, *, update: bool
    ) -> None:
        self.counts = {"loaded": 0, "existing": 0, "bad": 0, **({"updated": 0} if update else {})}
        self._database = database
        self._campaign_id = campaign_id
        self._header = header
        self._columns = header.imported_columns()
        self._err = err
        self._update = update
        self._bad: dict[str, _AlikeRecords] = {}
        self._short = _AlikeRecords()
        self._first_joined: BadRecord | None = None
        self._total = ImportResult()

    def add_campaign(self) -> None:
        """Add the campaign if it is missing."""
        if self._database.run(campaigns.add_campaign, self._campaign_id):
            print(f"Campaign {self._campaign_id} is new here and was added.", file=self._err)

    def load_records(self, records: CsvRecords, encoding: str) -> None:
        """Insert the leads of the file, and collect its bad lines.

        Raises:
            RunError: a part of the file cannot be read; the leads before it are loaded.
        """
        chunk: list[list[CopyValue]] = []
        size = 0
        try:
            for record in records:
                row = self._parse(record, encoding)
                if isinstance(row, BadRecord):
                    self._add_bad(row)
                    continue
                if len(record.cells) < len(self._header.names):
                    self._short.add(f"{record.first}", record.line_count)
                chunk.append(row)
                size += sum(len(value) for value in row if isinstance(value, str))
                if len(chunk) >= _CHUNK_SIZE or size >= _CHUNK_CHARACTERS:
                    self._insert(chunk)
                    chunk, size = [], 0
        except UnicodeError:
            raise RunError(
                f"the file is not {encoding} from some line on, and the rest was not loaded: give"
                " its --encoding"
            ) from None
        except _OtherHeader as error:
            raise RunError(
                f"{error}; the lines from there on were not loaded: load them as another file"
            ) from None
        finally:
            self._insert(chunk)

    def report(self) -> None:
        """Print one line for each kind of bad lines, and one about leads that differ."""
        for reason, alike in self._bad.items():
            print(f"{alike.describe()}: {reason}", file=self._err)
        if self._short.count:
            print(f"{self._short.describe()}: {_TOO_NARROW}", file=self._err)
        if self._total.correctable:
            print(
                f"existing leads that differ from the file, and stay as they are: "
                f"{self._total.correctable:,}; they were not sent: leadloop load --update corrects"
                " them",
                file=self._err,
            )
        if self._total.kept:
            print(
                f"existing leads that differ from the file, and stay as they are: "
                f"{self._total.kept:,}; they were sent, have opted out, or follow the campaign's"
                " source",
                file=self._err,
            )
        if self._total.still_rejected:
            print(
                f"updated leads that the vendor has rejected: {self._total.still_rejected:,};"
                " leadloop requeue --rejected sends them again",
                file=self._err,
            )

    def require_success(self) -> None:
        """Raise an error if an open quote joined lines, or if no line could be loaded.

        Raises:
            RunError: one of the two happened.
        """
        if lost := self._first_joined:
            raise RunError(
                f"lines {lost.location} were not loaded: a quote opened in line {lost.first} joins"
                " them; close the quote and load the file again"
            )
        if self.counts["bad"] and not self.counts["loaded"] + self.counts["existing"]:
            raise RunError("no line of the file could be loaded; see the lines above")

    def _parse(self, record: CsvRecord, encoding: str) -> LoadRow:
        reason = record.fault
        try:
            if not reason:
                return self._header.parse_lead(record, encoding)
        except ValueError as error:
            reason = str(error)
        is_joined = record.line_count > 1 and bool(record.fault or reason in _JOINED_REASONS)
        return BadRecord(first=record.first, last=record.last, reason=reason, joined=is_joined)

    def _add_bad(self, bad: BadRecord) -> None:
        self.counts["bad"] += bad.line_count
        self._bad.setdefault(bad.reason, _AlikeRecords()).add(bad.location, bad.line_count)
        if bad.joined:
            self._first_joined = self._first_joined or bad

    def _insert(self, rows: Sequence[Sequence[CopyValue]]) -> None:
        if not rows:
            return
        result = self._database.retry(
            lambda connection: import_leads(
                connection, self._campaign_id, rows, self._columns, update=self._update
            )
        )
        self._total += result
        self.counts["loaded"] += result.loaded
        self.counts["existing"] += len(rows) - result.loaded
        if self._update:
            self.counts["updated"] += result.updated


@dataclass(kw_only=True)
class _AlikeRecords:
    """Lines about which one thing is reported: how many, and where the first ones are."""

    count: int = 0
    shown: list[str] = field(default_factory=list)
    shown_count: int = 0

    def add(self, location: str, line_count: int) -> None:
        """Add lines."""
        self.count += line_count
        if len(self.shown) < _MAX_SHOWN:
            self.shown.append(location)
            self.shown_count += line_count

    def describe(self) -> str:
        """Return the lines as text."""
        locations = ", ".join(self.shown)
        if self.count == 1:
            return f"line {locations}"
        if self.count == self.shown_count:
            return f"lines {locations}"
        return f"{format_count(self.count, 'line')} (the first: {locations})"


@contextmanager
def _open_text(file: Path, options: LoadOptions) -> Iterator[TextIO]:
    """Open the file, or standard input for `-`, with or without a byte order mark."""
    try:
        binary: BinaryIO = (
            os.fdopen(0, "rb", closefd=False) if str(file) == "-" else file.open("rb")
        )
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    with binary:
        try:
            text = io.TextIOWrapper(
                binary,
                encoding=options.encoding or "utf-8-sig",
                errors="surrogateescape",
                newline="",
            )
        except (LookupError, ValueError):
            raise UsageError(
                f"--encoding: {options.encoding!r} is no encoding of text: write cp1252, latin-1,"
                " utf-16 or another name that Python knows"
            ) from None
        try:
            yield text
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror}") from None


# The header


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The columns of the file.

    Attributes:
        cells: as the file names them.
        names: a lead's fields, and the names of custom fields, one for each column.
        known: the names in lower case by which another header is recognised.
    """

    cells: Sequence[str]
    names: Sequence[str]
    known: Set[str]

    def imported_columns(self) -> ImportedColumns:
        """Return the columns of which an update replaces the values."""
        own = [name for name in self.names if name in _LEAD_COLUMNS and name != "lead_id"]
        return ImportedColumns(own=own, custom=_list_custom(self.names))

    def parse_lead(self, record: CsvRecord, encoding: str) -> list[CopyValue]:
        """Convert a record to a row for the database.

        Raises:
            ValueError: the record is not a lead; the message contains no value.
            _OtherHeader: the record names columns otherwise than the header does.
        """
        self._check_header_row(record)
        self._check_cells(record, encoding)
        lead = {name: cell for name, cell in zip(self.names, record.cells, strict=False) if cell}
        lead_id = clean_id(lead.get("lead_id", ""))
        if not lead_id:
            raise ValueError("lead_id is empty")
        if len(lead_id) > MAX_LEAD_ID_LENGTH:
            raise ValueError(f"lead_id is longer than {MAX_LEAD_ID_LENGTH} characters")
        if any(_LINE_BREAK.search(lead.get(name, "")) for name in _LEAD_COLUMNS):
            raise ValueError(_BREAK_IN_FIELD)
        custom = {name: cell for name, cell in lead.items() if name and name not in _LEAD_COLUMNS}
        return [
            lead_id,
            lead.get("phone_number"),
            lead.get("contact_name"),
            lead.get("state_code"),
            _parse_ebr_datetime(lead.get("ebr_datetime")),
            json.dumps(custom, ensure_ascii=False),
            _parse_priority(lead.get("priority", "0")),
        ]

    def _check_header_row(self, record: CsvRecord) -> None:
        """Check that a record does not name the columns again, as in files that were joined."""
        if clean_id(record.cells[0]).lower() not in self.known:
            return
        cells = [_clean_name(cell) for cell in record.cells]
        if cells == list(self.cells):
            raise ValueError("repeats the header: two files in one?")
        if sum(cell.lower() in self.known for cell in cells) > max(1, len(cells) // 2):
            raise _OtherHeader(record.first)

    def _check_cells(self, record: CsvRecord, encoding: str) -> None:
        """Check that a record has the header's columns; empty cells at its end may be missing."""
        width, cells = len(self.names), record.cells
        if any(map(_UNSTORABLE.search, cells)):
            if any("\x00" in cell for cell in cells):
                raise ValueError("a NUL character")
            raise ValueError(f"not {encoding}: give the file's --encoding, such as cp1252")
        if any(cells[width:]):
            raise ValueError(_TOO_WIDE if record.line_count == 1 else _WIDTH_JOINED)
        if len(cells) >= width:
            return
        if record.line_count > 1:
            raise ValueError(_WIDTH_JOINED)
        if record.is_cut_off:
            raise ValueError("the file ends within this line")
        if len(cells) == 1:
            raise ValueError(f"one column where the header has {width}")


_TOO_WIDE = "more columns than the header has"
# Excel leaves off empty cells at the end of a line. A cell that is missing elsewhere looks alike.
_TOO_NARROW = (
    "loaded, but with fewer columns than the header has: the last ones are empty; if another cell"
    " is missing, values are in wrong columns: correct the line, and load it again with --update"
)
_WIDTH_JOINED = "other columns than the header has, over several lines"
_BREAK_IN_FIELD = "a line break in a field of the lead"
_JOINED_REASONS = (_WIDTH_JOINED, _BREAK_IN_FIELD)


def _read_header(text: TextIO, file: Path, options: LoadOptions) -> tuple[_Header, CsvRecords]:
    """Read and validate the header; detect the delimiter.

    Raises:
        UsageError: the header is invalid.
    """
    mapping = [_split_mapping(each) for each in options.mapping]
    wanted = {name.lower() for pair in mapping for name in pair}.union(_LEAD_COLUMNS)
    try:
        records = CsvRecords(text, delimiter=_parse_delimiter(options.delimiter), wanted=wanted)
    except UsageError as error:
        raise UsageError(f"{file} {error}") from None
    except UnicodeError:
        raise UsageError(f"{file} is not {options.encoding}: give its --encoding") from None
    _check_encoding("".join(records.header), file, options.encoding)
    cells = [_clean_name(cell) for cell in records.header]
    names = [_name_column(cell) for cell in _rename_columns(cells, mapping)]
    _check_names(names)
    known = {cell.lower() for cell in cells if cell}.union(_LEAD_COLUMNS)
    return _Header(cells=cells, names=names, known=known), records


def _check_encoding(header: str, file: Path, encoding: str | None) -> None:
    """Check that the header was decoded to text."""
    if "\x00" in header or header.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise UsageError(f"{file} is UTF-16, or no text at all: give --encoding utf-16")
    if _UNSTORABLE.search(header):
        raise UsageError(
            f"{file} is not {encoding or 'UTF-8'}: give its --encoding, such as cp1252"
        )


def _check_names(names: Sequence[str]) -> None:
    """Check that the columns can be those of leads."""
    if "lead_id" not in names:
        raise UsageError(
            "the header has no column lead_id: the first line must name the columns, of which"
            f" {', '.join(_LEAD_COLUMNS)} are a lead's own; --map COLUMN=lead_id renames one"
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise UsageError(f"the header names a column twice: {', '.join(twice)}")
    reserved = sorted(RESPONSE_FIELDS.intersection(names))
    if reserved:
        raise UsageError(
            f"these column names are reserved by the vendor's API: {', '.join(reserved)};"
            " --map COLUMN=FIELD renames a column"
        )


def _clean_name(cell: str) -> str:
    """Return the name of a column in one line, without invisible characters."""
    name = clean_id(cell)
    return " ".join(name.split()) if _LINE_BREAK.search(cell) else name


def _name_column(name: str) -> str:
    return name.lower() if name.lower() in _LEAD_COLUMNS else name


def _list_custom(names: Sequence[str]) -> list[str]:
    return [name for name in names if name and name not in _LEAD_COLUMNS]


def _split_mapping(text: str) -> tuple[str, str]:
    column, _, name = text.rpartition("=")
    if not (column.strip() and name.strip()):
        raise UsageError(f"--map {text}: write COLUMN=FIELD, as in phone=phone_number")
    return column.strip(), name.strip()


def _rename_columns(cells: Sequence[str], mapping: Sequence[tuple[str, str]]) -> list[str]:
    """Rename columns; `FIELD=COLUMN` is understood where the header has only the second name.

    Raises:
        UsageError: the header has no such column.
    """
    renamed = list(cells)
    places: Mapping[str, int] = {cell.lower(): place for place, cell in enumerate(cells)}
    for column, name in mapping:
        if column.lower() in places:
            renamed[places[column.lower()]] = name
        elif name.lower() in places:
            renamed[places[name.lower()]] = column
        else:
            raise UsageError(
                f"--map {column}={name}: the header has no column {column}; it has"
                f" {', '.join(filter(None, cells))}"
            )
    return renamed


def _parse_delimiter(text: str | None) -> str | None:
    if text is None:
        return None
    delimiter = _NAMED_DELIMITERS.get(text.lower(), text)
    if len(delimiter) != 1 or delimiter in '"\r\n' or delimiter.isalnum():
        raise UsageError(
            f"--delimiter: {text!r} is no delimiter: write one character, such as ; or tab"
        )
    return delimiter


_UNNAMED = ("column without a name is", "columns without a name are")


def _report_header(names: Sequence[str], err: TextIO) -> None:
    """Print one line about missing, custom and unnamed columns: a misspelt field is custom."""
    missing = [name for name in DEFAULT_REQUIRED_FIELDS if name not in names]
    custom = _list_custom(names)
    unnamed = names.count("")
    notes = [
        f"the header lacks {', '.join(missing)}" if missing else "",
        f"custom fields: {', '.join(custom)}" if custom else "",
        f"{format_count(unnamed, *_UNNAMED)} left out" if unnamed else "",
    ]
    if any(notes):
        print(f"note: {'; '.join(filter(None, notes))}", file=err)


# The cells


def _parse_ebr_datetime(text: str | None) -> CopyValue:
    try:
        return None if text is None else parse_strict_time(text)
    except ValueError as error:
        raise ValueError(f"ebr_datetime {error}: {TIME_FORMATS}") from None


def _parse_priority(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > MAX_PRIORITY:
        raise ValueError(f"priority is not a whole number from 0 to {MAX_PRIORITY}")
    return int(text)
