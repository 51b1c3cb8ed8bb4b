"""Rows of a source that cannot be read: which they are, and what it costs to find them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, text

from db.database import Database
from db.unreadable_rows import (
    MAX_ROWS,
    IsolatedRows,
    SourceQuery,
    has_staged_rows,
    is_data_error,
    isolate_unreadable,
    set_aside_unconvertible,
)
from tests import sql

TEXTS = {name: f'CAST(own."{name}" AS text)' for name in ("lead_id", "phone", "value")}


@pytest.fixture
def rows(database: Database) -> Database:
    """A table of ids and values, and a view in which values that are no numbers fail."""
    sql.execute(
        database,
        """CREATE SCHEMA crm; CREATE TABLE crm.base (lead_id text, phone text, value text);
           CREATE VIEW crm.view AS
               SELECT lead_id, phone, CAST(value AS integer) AS value FROM crm.base""",
    )
    return database


def isolate(
    database: Database, relation: str = "crm.view", timeout_s: float = 60, **texts: str
) -> tuple[IsolatedRows | None, list[str]]:
    """Search for unreadable rows, and return whom the condition leaves."""
    columns = {**TEXTS, **texts}
    query = SourceQuery(relation=relation, row=list(columns.values()), columns=columns)
    with database.transaction() as connection:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        found = isolate_unreadable(connection, query, timeout_s=timeout_s)
        if found is None:
            return None, []
        readable = f"SELECT lead_id, own.* FROM {relation} AS own WHERE {found.without}"
        return found, sorted(connection.scalars(text(readable)))


def fill(database: Database, good: int, *bad: str) -> None:
    """Rows with numbers, and rows without."""
    sql.execute(
        database,
        """TRUNCATE crm.base;
           INSERT INTO crm.base SELECT n, 'p' || n, '1' FROM generate_series(1, :good) AS n;
           INSERT INTO crm.base SELECT id, 'p' || id, 'no number'
             FROM unnest(CAST(:bad AS text[])) AS id""",
        good=good,
        bad=list(bad),
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(good=st.integers(0, 60), bad=st.lists(st.sampled_from("abcdefg'\"\\ :%"), max_size=6))
def test_all_bad_rows_are_found_and_no_good_one(rows: Database, good: int, bad: list[str]) -> None:
    """Each is counted; an id that several rows have is named once."""
    fill(rows, good, *bad)
    found, left = isolate(rows)
    assert found is not None
    assert found.rows.count == len(bad)
    assert len(found.rows.named) == min(5, len(set(bad)))
    assert all("(column value)" in name for name in found.rows.named)
    assert left == sorted(str(number) for number in range(1, good + 1))


def test_a_row_whose_id_cannot_be_read_is_counted(rows: Database) -> None:
    """Another column tells it from the others."""
    fill(rows, 20, "bad")
    found, left = isolate(rows, lead_id="CAST(own.value AS text)")
    assert found is not None
    assert found.rows.named == ("a row without a lead_id (column lead_id)",)
    assert (found.rows.count, len(left)) == (1, 20)


@contextmanager
def counted(database: Database) -> Iterator[list[int]]:
    """Counts the scans of the block: each has its savepoint, or summarises a range."""
    scans = [0]

    def count(*_: object) -> None:
        scans[0] += 1

    event.listen(database._engine, "savepoint", count)
    try:
        yield scans
    finally:
        event.remove(database._engine, "savepoint", count)


def test_the_search_costs_a_few_scans_a_row(rows: Database) -> None:
    """Two a halving: the number of rows counts by its logarithm."""
    fill(rows, 5000, "bad")
    with counted(rows) as scans:
        assert isolate(rows)[0] is not None
    assert scans[0] <= 2 * 20 + 6


def test_a_search_ends(rows: Database) -> None:
    """Too many rows, no time, an error of no row, or a view that computes all before it selects."""
    fill(rows, 5, *(f"b{number}" for number in range(MAX_ROWS + 1)))
    assert isolate(rows)[0] is None
    fill(rows, 5, "bad")
    assert isolate(rows, timeout_s=0)[0] is None
    assert isolate(rows, value="CAST('x' AS integer)")[0] is None
    sql.execute(rows, "CREATE VIEW crm.barrier AS SELECT * FROM crm.view OFFSET 0")
    with counted(rows) as scans:
        assert isolate(rows, "crm.barrier")[0] is None
    assert scans[0] < 6


def stage(connection: Connection, *fields: str) -> None:
    """Stage rows with these JSON texts."""
    with connection.begin():
        connection.execute(
            text("""CREATE TEMPORARY TABLE source_rows (
                place bigint GENERATED ALWAYS AS IDENTITY, lead_id text, fields text)""")
        )
        for place, each in enumerate(fields):
            connection.execute(
                text("INSERT INTO pg_temp.source_rows (lead_id, fields) VALUES (:id, :fields)"),
                {"id": f"L{place}" if place else None, "fields": each},
            )


def test_json_that_cannot_be_stored_is_set_aside(database: Database) -> None:
    """With its column, as far as it is known; only the first few are named."""
    bad = [r'{"a": 1, "b": {"c": "\u0000"}}', r'{"a": "\udc00"}', '{"n": 1e200000}', "[" * 9000]
    with database.dedicated() as connection:
        stage(connection, *bad, *['{"a": "\\u0000"}'] * 5, r'{"a": "\\u0000"}')
        found = set_aside_unconvertible(connection)
        assert has_staged_rows(connection)
        assert set_aside_unconvertible(connection).count == 0
    assert found.count == 9
    assert str(found) == (
        "a row without a lead_id (column b), lead 'L1' (column a), lead 'L2' (column n), lead 'L3',"
        " lead 'L4' (column a) and 4 more"
    )


def test_what_is_an_error_of_data() -> None:
    """Not a lost connection, a missing privilege or a timeout."""
    assert is_data_error("22P05")
    assert is_data_error("54001")
    assert not any(map(is_data_error, (None, "42501", "57014", "25006")))
