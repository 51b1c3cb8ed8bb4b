"""Records of a CSV file, read by Python's csv module from the first byte to the last."""

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from leadloop.core.errors import UsageError
from leadloop.core.unseen_characters import clean_id, strip_unseen

#: The longest record that is read, in characters: a request with it would have more bytes than
#: LEADLOOP_BATCH_BYTES usually allows.
MAX_RECORD_LENGTH = 1_000_000
#: The delimiters that are detected.
DELIMITERS = ",;\t|"
_NO_FIELD_LIMIT = 2**31 - 1
_SEP_LINE = re.compile(r'[\ufeff"]*sep=([^"\r\n])"?[\r\n]*', re.IGNORECASE)
_QUOTES = re.compile('"{3,}')
_WITHOUT_DELIMITERS = dict.fromkeys(map(ord, f'{DELIMITERS}"'))
_BETWEEN_QUOTES = re.compile('[^"\r\n]{3,}')


@dataclass(frozen=True, kw_only=True)
class CsvRecord:
    """A record, and the lines of the file that hold it.

    Attributes:
        first: number of its first line.
        last: number of its last line.
        cells: the cells, stripped of blanks and invisible characters at their ends.
        fault: why the record could not be read; without any value of it.
        is_cut_off: the file ends without the end of a line.
    """

    first: int
    last: int
    cells: Sequence[str] = field(default=(), repr=False)
    fault: str = ""
    is_cut_off: bool = False

    @property
    def line_count(self) -> int:
        """The number of lines in the file."""
        return self.last - self.first + 1


class CsvRecords:
    """The records of a text: its header, then the others in order.

    The delimiter is the one that is given, or that of Excel's first line `sep=;`, or else the one
    by which the header has most of the wanted names, and most cells.

    Args:
        text: opened with `newline=""`.
        delimiter: one character; None: detect it.
        wanted: names of columns, in lower case.

    Raises:
        UsageError: the text has no header that can be read.
    """

    def __init__(self, text: TextIO, *, delimiter: str | None, wanted: Collection[str]) -> None:
        # This limit is for all readers; the length of a record is limited here instead.
        csv.field_size_limit(_NO_FIELD_LIMIT)
        kept = _read_header_lines(text)
        skipped = 0
        if kept and (sep := _SEP_LINE.fullmatch(kept[0])):
            delimiter, kept, skipped = delimiter or sep[1], _read_header_lines(text), 1
        self.delimiter = delimiter or max(
            DELIMITERS, key=lambda each: _rate(_read_first_record(kept, each), wanted)
        )
        self._lines = _Lines(text, kept, skipped)
        self._records = self._iter_records()
        header = next(self._records, None)
        if header is None:
            raise UsageError("has no header: its first line must name the columns")
        if header.fault:
            raise UsageError(f"has a header that cannot be read ({header.fault})")
        self.header = header.cells

    def __iter__(self) -> Iterator[CsvRecord]:
        """Yield the records after the header; empty ones are left out."""
        return self._records

    def _iter_records(self) -> Iterator[CsvRecord]:
        lines = self._lines
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        while True:
            lines.begin_record()
            first, fault, cells = lines.count + 1, "", list[str]()
            try:
                cells = [strip_unseen(cell) for cell in next(reader)]
            except StopIteration:
                return
            except csv.Error as error:
                fault = f"not CSV: {error}"
            if lines.is_too_long:
                fault, cells = f"more than {MAX_RECORD_LENGTH:,} characters", []
            if fault or any(cells):
                yield CsvRecord(
                    first=first,
                    last=lines.count,
                    cells=cells,
                    fault=fault,
                    is_cut_off=lines.is_cut_off,
                )


class _Lines:
    """The lines of a text for a csv reader; `kept` come first, `skipped` lines before these.

    A record that is too long is passed on without its contents, as far as its quotes allow: the
    reader finds its end, and needs little memory.
    """

    def __init__(self, text: TextIO, kept: Sequence[str], skipped: int) -> None:
        self.count = skipped
        self.is_too_long = False
        self.is_cut_off = False
        self._text = text
        self._kept = iter(kept)
        self._length = 0

    def begin_record(self) -> None:
        """Count the characters of a record from here on."""
        self._length, self.is_too_long = 0, False

    def __iter__(self) -> "_Lines":
        """Return the lines."""
        return self

    def __next__(self) -> str:
        """Return the next line with its end."""
        line = next(self._kept, None) or self._text.readline(MAX_RECORD_LENGTH)
        if not line:
            raise StopIteration
        is_first = not self._length
        self.count += 1
        self._length += len(line)
        if self._length < MAX_RECORD_LENGTH:
            self.is_cut_off = not _has_end(line)
            return line
        self.is_too_long = True
        # After its first line, a record goes on only inside a quoted cell.
        parts = [_shorten(line) if is_first or '"' in line else ""]
        while not _has_end(line) and (more := self._text.readline(MAX_RECORD_LENGTH)):
            line = more
            parts.append(_shorten(line))
        self.is_cut_off = not _has_end(line)
        return "".join(parts)


def _has_end(line: str) -> bool:
    return line.endswith(("\n", "\r"))


def _shorten(line: str) -> str:
    """Shorten a line to what decides where its record ends: quotes, and what stands beside them."""
    few_quotes = _QUOTES.sub(lambda run: '"' if len(run[0]) % 2 else '""', line)
    return _BETWEEN_QUOTES.sub(lambda run: run[0][0] + run[0][-1], few_quotes)


def _read_header_lines(text: TextIO) -> list[str]:
    """Read lines until a record that is not empty has ended: outside of quotes."""
    lines, quotes, length = list[str](), 0, 0
    while length < MAX_RECORD_LENGTH and (line := text.readline(MAX_RECORD_LENGTH)):
        lines.append(line)
        quotes += line.count('"')
        length += len(line)
        if quotes % 2 == 0 and strip_unseen(line.translate(_WITHOUT_DELIMITERS)):
            break
    return lines


def _read_first_record(lines: Sequence[str], delimiter: str) -> Sequence[str]:
    """Return the cells of the first record that is not empty; none if it cannot be read."""
    try:
        for cells in csv.reader(lines, delimiter=delimiter, strict=True):
            if any(map(strip_unseen, cells)):
                return cells
    except csv.Error:
        pass
    return []


def _rate(header: Sequence[str], wanted: Collection[str]) -> tuple[int, int]:
    """Rate a header: the number of its cells that are wanted, and of all."""
    names = {clean_id(name).lower() for name in header}
    return len(names.intersection(wanted)), len(header)
