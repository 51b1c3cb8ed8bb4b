"""Rows of a campaign's source that Postgres cannot read or convert: found, named and left out.

Nothing here runs unless the set-based read or conversion of the whole source has failed with a data
error. There are two ways to find the rows that caused it:

- A row that the source cannot produce, such as a failed cast in a view, is found by bisection: over
  the hashes of the lead ids, as a view has no other handle, in savepoints of one snapshot. It costs
  about 3 log2(n) scans a row, so it ends after MAX_ROWS rows.
- A row whose JSON cannot be stored, such as U+0000 in a `json` column, is found by one pass over
  the staging table, with a subtransaction a row: the cost does not depend on the number of rows
  found. (`pg_input_is_valid` would do the same from Postgres 16 on.)
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg2
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from leadloop.core.postgres_json import find_unstorable_key
from leadloop.core.source_requirements import UnreadableRows, describe_row

T = TypeVar("T")

#: The most distinct lead ids that bisection finds; with more, the source cannot be read.
MAX_ROWS = 100
#: The rows that are named; all are counted.
MAX_NAMED = 5
# A row with more is not parsed to find the column's name.
_MAX_PARSED_BYTES = 1_000_000

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1

# The condition names are the classes 22 (data) and 54 (a limit of Postgres, such as depth).
_DEFINE_CHECK = text("""
CREATE OR REPLACE FUNCTION pg_temp.is_jsonb(fields text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM CAST(fields AS jsonb);
    RETURN true;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN false;
END $$
""")
_SET_ASIDE = text("""
WITH gone AS (
    DELETE FROM pg_temp.source_rows WHERE NOT pg_temp.is_jsonb(fields)
    RETURNING place, lead_id, fields
)
SELECT lead_id, CASE WHEN octet_length(fields) <= :max_bytes THEN fields END AS fields,
       count(*) OVER () AS total
  FROM gone ORDER BY place LIMIT :max_named
""")


def is_data_error(sqlstate: str | None) -> bool:
    """Return whether an error is about a value, and not about the statement or the server."""
    return sqlstate is not None and sqlstate.startswith(("22", "54"))


def has_staged_rows(connection: Connection, table: str = "source_rows") -> bool:
    """Return whether a staging table holds any row; outside of a transaction."""
    with connection.begin():
        return bool(connection.scalar(text(f"SELECT EXISTS (SELECT FROM pg_temp.{table})")))


def set_aside_unconvertible(connection: Connection) -> UnreadableRows:
    """Delete the rows of the staging table whose JSON is not valid as jsonb.

    `connection` is outside of a transaction, and holds the staging table `source_rows`.
    """
    with connection.begin():
        connection.execute(_DEFINE_CHECK)
        rows = connection.execute(
            _SET_ASIDE, {"max_bytes": _MAX_PARSED_BYTES, "max_named": MAX_NAMED}
        ).all()
    return UnreadableRows(
        count=rows[0].total if rows else 0,
        named=tuple(
            describe_row(row.lead_id, find_unstorable_key(row.fields) if row.fields else None)
            for row in rows
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SourceQuery:
    """A query of a source's rows.

    Attributes:
        relation: the source's SQL name, quoted; its alias in expressions is `own`.
        row: the expressions that a row is read with.
        columns: the expression of each column, by its name.
    """

    relation: str
    row: Sequence[str]
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class IsolatedRows:
    """Unreadable rows, and the SQL condition that leaves them out."""

    rows: UnreadableRows
    without: str


def isolate_unreadable(
    source: Connection, query: SourceQuery, *, timeout_s: float
) -> IsolatedRows | None:
    """Find the rows that the source cannot produce, by bisection.

    Args:
        source: in a transaction of one snapshot (REPEATABLE READ).
        query: how the source's rows are read.
        timeout_s: seconds after which the search ends.

    Returns:
        The rows; None if they cannot be separated from the others: the error is not a row's, there
        are more than MAX_ROWS, or the time is over.
    """
    return _Bisection(source, query, until=time.monotonic() + timeout_s).run()


class _Bisection:
    def __init__(self, source: Connection, query: SourceQuery, *, until: float) -> None:
        self._source, self._query, self._until = source, query, until
        self._row = f"CAST(ROW({', '.join(query.row)}) AS pg_catalog.text)"
        self._hash = ""

    def run(self) -> IsolatedRows | None:
        """Bisect the range of hashes down to single values that fail."""
        handle = next(filter(self._use_as_handle, self._query.columns), None)
        # A view that computes all rows before it selects some fails on no rows, too.
        if handle is None or not self._reads(self._row, _LOWEST, _LOWEST):
            return None
        failing, count = list[int](), 0
        pending = [(_LOWEST, _HIGHEST)]
        while pending:
            low, high = pending.pop()
            if self._reads(self._row, low, high):
                continue
            if time.monotonic() > self._until or len(failing) == MAX_ROWS:
                return None
            rows, first, last = self._summarize(low, high)
            if first == last:
                failing.append(first)
                count += rows
            else:
                middle = (first + last) // 2
                pending += (middle + 1, last), (first, middle)
        hashes = ", ".join(f"'{each}'" for each in failing)
        return IsolatedRows(
            rows=UnreadableRows(count=count, named=tuple(map(self._describe, failing[:MAX_NAMED]))),
            without=f"{self._hash} OPERATOR(pg_catalog.<>) ALL"
            f" (CAST(ARRAY[{hashes}] AS pg_catalog.int8[]))",
        )

    def _use_as_handle(self, column: str) -> bool:
        """Use a column to tell rows apart, if all rows can be read with it alone."""
        value = f"COALESCE(CAST({self._query.columns[column]} AS pg_catalog.text), '')"
        self._hash = f'pg_catalog.hashtextextended({value} COLLATE pg_catalog."C", 0)'
        return self._reads(self._hash, _LOWEST, _HIGHEST)

    def _describe(self, handle: int) -> str:
        """Describe a row by its lead id and the first column that fails, if they are known."""
        columns = self._query.columns
        bad = next(
            (name for name, each in columns.items() if not self._reads(each, handle, handle)), None
        )
        if "lead_id" not in columns:
            return describe_row(None, bad)
        known = bad != "lead_id"
        lead_id = f"pg_catalog.min(CAST({columns['lead_id']} AS pg_catalog.text))"
        return describe_row(self._select(lead_id, handle, handle)[0] if known else None, bad)

    def _reads(self, expression: str, low: int, high: int) -> bool:
        """Return whether an expression can be computed for all rows of a range of hashes."""
        try:
            with self._source.begin_nested():
                self._select(
                    f"pg_catalog.count(CAST(ROW({expression}) AS pg_catalog.text))", low, high
                )
        except psycopg2.Error as error:
            if not is_data_error(error.pgcode):
                raise
            return False
        return True

    def _summarize(self, low: int, high: int) -> tuple[int, int, int]:
        """Return the number of rows of a range, and their lowest and highest hash."""
        extremes = f"pg_catalog.min({self._hash}), pg_catalog.max({self._hash})"
        rows, first, last = self._select(f"pg_catalog.count(*), {extremes}", low, high)
        return rows, first, last

    def _select(self, expressions: str, low: int, high: int) -> tuple[Any, ...]:
        statement = (
            f"SELECT {expressions} FROM {self._query.relation} AS own"
            f" WHERE {self._hash} OPERATOR(pg_catalog.>=) '{low}'"
            f" AND {self._hash} OPERATOR(pg_catalog.<=) '{high}'"
        )
        # By the driver: SQLAlchemy would take `:x` in a name for a parameter.
        with closing(self._source.connection.cursor()) as cursor:
            cursor.execute(statement)
            (row,) = cursor.fetchall()
            return tuple(row)


def without_unconvertible(
    connection: Connection, work: Callable[[], T]
) -> tuple[T, UnreadableRows]:
    """Run work on the staged rows; if a row's JSON is not valid as jsonb, again without such rows.

    Args:
        connection: holds the staging table; outside of a transaction.
        work: must be repeatable after its failure.

    Returns:
        The result of the work, and the rows that were left out.
    """
    try:
        return work(), UnreadableRows()
    except DBAPIError as error:
        if not is_data_error(getattr(error.orig, "pgcode", None)):
            raise
        rows = set_aside_unconvertible(connection)
        if not rows.count or not has_staged_rows(connection):
            raise
    return work(), rows
