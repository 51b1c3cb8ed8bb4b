"""COPY into a table: values arrive unchanged, whatever they contain."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db.bulk_copy import copy_lines, format_row, format_text_row
from db.database import Database
from leadloop.core.postgres_json import escape_unstorable

_TEXT = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    ["\\N", "\\.", "\\", "\\\\N", "a\tb", "\t", "\n", "\r\n", "\x00", "\ud800", "", "\u2028"]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(_TEXT.map(escape_unstorable), st.none() | _TEXT.map(escape_unstorable)),
        max_size=5,
    )
)
def test_copy_keeps_rows_and_cells_apart(
    database: Database, rows: list[tuple[str, str | None]]
) -> None:
    """As many rows come out as went in, in the same order; a null differs from its notation."""
    with database.transaction() as connection:
        connection.execute(
            text("CREATE TEMPORARY TABLE t (n serial, a text, b text) ON COMMIT DROP")
        )
        copy_lines(connection, "t", ("a", "b"), map(format_text_row, rows))
        assert [
            tuple(row) for row in connection.execute(text("SELECT a, b FROM t ORDER BY n"))
        ] == rows


def test_values_keep_their_types(connection: Connection) -> None:
    """Numbers, booleans and times come back as they were, a time with its zone."""
    row = (7, Decimal("0.10"), True, datetime(2026, 3, 1, 12, tzinfo=UTC), None)
    connection.execute(
        text("CREATE TEMPORARY TABLE t (a int, b numeric, c bool, d timestamptz, e text)")
    )
    copy_lines(connection, "t", "abcde", [format_row(row)])
    assert tuple(connection.execute(text("SELECT * FROM t")).one()) == row
