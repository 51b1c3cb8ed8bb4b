"""Bulk insert with COPY: the fastest way to load many rows into a staging table."""

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

CopyValue = str | int | bool | Decimal | datetime | None

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def format_row(values: Sequence[CopyValue]) -> str:
    """Format one row as a line of COPY text: a quarter of the memory of the Python objects."""
    return format_text_row([_to_text(value) for value in values])


def format_text_row(texts: Sequence[str | None]) -> str:
    """Format one row of texts as a line of COPY text; each text is in Postgres's input format."""
    # Most rows have nothing to escape: one search of the joined texts shows it.
    joined = "".join([text for text in texts if text])
    if "\\" in joined or "\t" in joined or "\n" in joined or "\r" in joined:
        texts = [text and text.translate(_ESCAPES) for text in texts]
    return "\t".join([r"\N" if text is None else text for text in texts]) + "\n"


def copy_lines(
    connection: Connection, table: str, columns: Sequence[str], lines: Iterable[str]
) -> None:
    """Copy lines (see `format_row`) to a table.

    `table` and `columns` go into the statement unquoted: they must be ours, never a user's.
    """
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (ENCODING 'UTF8')"
    # Bytes: a StringIO takes four bytes for each character.
    content = "".join(lines).encode()
    cursor = connection.connection.cursor()
    try:
        # One read: each read waits for the GIL; psycopg2's 8 KiB would cost a third of a poll.
        cursor.copy_expert(statement, io.BytesIO(content), size=len(content) + 1)
    finally:
        cursor.close()


def _to_text(value: CopyValue) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)
