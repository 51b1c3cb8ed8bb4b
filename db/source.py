"""A campaign's source: a foreign table or view, and the query of its differences from the leads.

The source of opt-outs is read in the same way (`db.opt_out_source`).

A view may call any function, with the rights and in the session of its reader. So a separate,
read-only connection copies the source's rows and is then discarded; our connection compares them.
`db.source_sync` applies the differences.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO, cast

import psycopg2.extensions
from sqlalchemy import Connection, text

from db.database import Database, DatabaseError
from db.unreadable_rows import SourceQuery, has_staged_rows, is_data_error, isolate_unreadable
from leadloop.core.errors import UsageError
from leadloop.core.source_requirements import (
    MAX_LEAD_ID_LENGTH,
    MAX_PRIORITY,
    NamedSource,
    SourceError,
    UnreadableRows,
    source_not_found,
    source_not_readable,
)

# The name is a parameter, never part of the statement; Postgres quotes the name that it returns.
_FIND = text("""
SELECT format('%I.%I', n.nspname, c.relname) AS relation,
       c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'leadloop' AS may_be,
       coalesce(bool_and(has_column_privilege(c.oid, a.attnum, 'SELECT')), true) AS readable,
       array_remove(array_agg(a.attname::text ORDER BY a.attnum), NULL) AS names,
       array_agg(format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) ORDER BY a.attnum)
           AS types
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_type AS t ON t.oid = a.atttypid
 WHERE c.oid = to_regclass(:source)
 GROUP BY c.oid, n.oid, n.nspname, c.relname, c.relkind
""")
_SET = text("""
SELECT set_config('statement_timeout', :timeout, false), set_config('TimeZone', 'UTC', false),
       set_config('DateStyle', 'ISO', false), set_config('IntervalStyle', 'postgres', false),
       set_config('bytea_output', 'hex', false), set_config('extra_float_digits', '1', false)
""")
_CLEAR_TIMEOUT = text("SET statement_timeout = 0")
# Unqualified names in functions that a view calls resolve by the role's search path, as their owner
# expects. The transaction is read-only and rolled back.
_READ_ONLY = text("SET TRANSACTION READ ONLY")
_ONE_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
_PATH_OF_ROLE = text("SET LOCAL search_path TO DEFAULT")
# Then a read fails instead of leaving rows out.
_REFUSE_HIDDEN_ROWS = text("SET LOCAL row_security = off")
# A standby has another start time: its data is older than what was committed on the primary.
_IDENTITY = text("""
SELECT pg_postmaster_start_time(), oid FROM pg_database WHERE datname = current_database()
""")
# Any role that the login may assume: a function in a view may SET ROLE to each of them.
_REACHES_OURS = text("""
SELECT array_agg(rolname ORDER BY rolname) FROM pg_roles
 WHERE pg_has_role(current_user, oid, 'MEMBER')
   AND (rolsuper OR has_schema_privilege(oid, 'leadloop', 'USAGE')
        OR rolname IN ('pg_execute_server_program', 'pg_read_server_files',
                       'pg_write_server_files', 'pg_read_all_data', 'pg_write_all_data'))
""")
#: SQLSTATE of a missing privilege.
NO_PRIVILEGE = "42501"
_TIMEOUT, _LOCKED, _WRITES = "57014", "55P03", "25006"
#: SQLSTATEs of a missing table, column, function, type or schema.
_MISSING = ("42P01", "42703", "42883", "42704", "3F000")
#: SQLSTATEs of foreign data wrappers, and of the end of a session on another server.
_OF_OTHER_SERVERS = ("HV", "08", "28", "3D", "53300", "57P")
#: SQLSTATEs of errors that functions raise.
_OF_FUNCTIONS = ("P0", "38", "39", "2F")
#: SQLSTATEs of an invalid name: bad syntax, too many dots, another database.
INVALID_NAME = ("42602", "42601", "0A000")


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """A readable source: `relation` is its SQL name, quoted; `columns` maps names to types."""

    relation: str
    columns: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Staging:
    """A temporary staging table for the rows of a source.

    Attributes:
        table: its name.
        columns: the types of its columns, by name; `place`, the order of the rows, comes first.
        select_row: returns the expressions of a row of a source, one for each column; its alias in
            them is `own`.
    """

    table: str
    columns: Mapping[str, str]
    select_row: Callable[[SourceTable], Sequence[str]]


def inspect_source(reader: Database, source: NamedSource) -> SourceTable:
    """Find a campaign's source; check its columns and the login's right to read it.

    Args:
        reader: the database, opened with the login that reads sources.
        source: the source, whose name has its schema: no search path completes it.

    Raises:
        SourceError: the source does not exist, lacks columns, or is not readable.
        DatabaseError: Postgres cannot be reached.
    """
    try:
        with reader.transaction() as connection:
            row = connection.execute(_FIND, {"source": source.name}).one_or_none()
    except DatabaseError as error:
        if error.sqlstate == NO_PRIVILEGE:
            raise source_not_readable(source) from None
        if error.sqlstate in INVALID_NAME:
            raise source_not_found(source) from None
        raise
    if row is None or not row.may_be:
        raise source_not_found(source)
    if not row.readable:
        raise source_not_readable(source)
    found = SourceTable(
        relation=row.relation, columns=dict(zip(row.names, row.types, strict=False))
    )
    source.check_columns(found.columns)
    return found


def require_same_database(reader: Database, database: Database) -> None:
    """Check that both logins are to the same database of the same server.

    Raises:
        UsageError: they are not.
    """
    identities = []
    for each in (reader, database):
        with each.transaction() as connection:
            identities.append(connection.execute(_IDENTITY).one())
    if identities[0] != identities[1]:
        raise UsageError(
            f"LEADLOOP_SOURCE_URL ({reader.display_name}) is another database than"
            f" LEADLOOP_DATABASE_URL ({database.display_name}): set it to another login of the same"
            " database"
        )


def list_roles_with_access(reader: Database) -> list[str]:
    """List roles through which the login that reads sources can access leadloop's own data.

    Checked are the login and each role that it may assume: superusers, roles with USAGE on the
    schema `leadloop`, and roles that may read all data or run programs on the server.
    """
    with reader.transaction() as connection:
        return connection.scalar(_REACHES_OURS) or []


def has_readable_row(
    reader: Database, source: NamedSource, table: SourceTable, staging: Staging
) -> bool:
    """Read one row of the source as a sync does; return whether there is one.

    Raises:
        SourceError: it cannot be read, for example because a view's owner lacks a privilege, or
            another server that it needs does not answer.
    """
    with translate_errors(source), open_reader_transaction(reader, source) as connection:
        return _read_one_row(connection, _select_rows(table, staging))


def hides_rows(reader: Database, source: NamedSource, table: SourceTable) -> bool:
    """Return whether row level security may hide rows of the source from its login."""
    try:
        with open_reader_transaction(reader, source) as connection:
            connection.execute(_REFUSE_HIDDEN_ROWS)
            _read_one_row(connection, f"SELECT 1 FROM {table.relation}")
    except DatabaseError as error:
        return error.sqlstate == NO_PRIVILEGE
    return False


def _read_one_row(connection: Connection, rows: str) -> bool:
    # SQLAlchemy would take `:x` in a name for a parameter.
    row = connection.execute(text(f"{rows} LIMIT 1".replace(":", r"\:")))
    return row.first() is not None


def stage_source_rows(
    reader: Database,
    connection: Connection,
    source: NamedSource,
    table: SourceTable,
    staging: Staging,
) -> UnreadableRows:
    """Copy a source's rows to a temporary staging table.

    If a value cannot be read, the rows are read again without those that fail.

    Args:
        reader: the database, opened with the login that reads sources.
        connection: our connection, which gets the table; outside of a transaction.
        source: the source.
        table: what it is (`inspect_source`).
        staging: the staging table.

    Returns:
        The rows that could not be read and were left out.

    Raises:
        SourceError: the source could not be read.
    """
    columns = ", ".join(f"{name} {type_}" for name, type_ in staging.columns.items())
    with connection.begin():
        connection.execute(
            text(
                f"CREATE TEMPORARY TABLE {staging.table}"
                f" (place bigint GENERATED ALWAYS AS IDENTITY, {columns})"
            )
        )
    with translate_errors(source):
        try:
            with open_reader_transaction(reader, source) as reading:
                _copy_rows(reading, connection, table, staging)
            unreadable = UnreadableRows()
        except DatabaseError as error:
            if not is_data_error(error.sqlstate):
                raise
            unreadable = _stage_readable_rows(reader, connection, source, table, staging, error)
    with connection.begin():
        connection.execute(text(f"ANALYZE pg_temp.{staging.table}"))
    return unreadable


def _stage_readable_rows(
    reader: Database,
    connection: Connection,
    source: NamedSource,
    table: SourceTable,
    staging: Staging,
    error: DatabaseError,
) -> UnreadableRows:
    """Stage the rows of a source in which some rows cannot be read.

    Raises:
        DatabaseError: `error`: no row can be read, or those that fail cannot be found.
    """
    with open_reader_transaction(reader, source) as reading:
        reading.execute(_ONE_SNAPSHOT)
        query = SourceQuery(
            relation=table.relation, row=staging.select_row(table), columns=_column_texts(table)
        )
        isolated = isolate_unreadable(reading, query, timeout_s=source.timeout_s)
        if isolated is None:
            raise error
        _copy_rows(reading, connection, table, staging, f" WHERE {isolated.without}")
    if not has_staged_rows(connection, staging.table):
        raise error
    return isolated.rows


def _copy_rows(
    reading: Connection,
    connection: Connection,
    table: SourceTable,
    staging: Staging,
    condition: str = "",
) -> None:
    rows = f"{_select_rows(table, staging)}{condition}"
    copy_in = (
        f"COPY pg_temp.{staging.table} ({', '.join(staging.columns)}) FROM STDIN (ENCODING 'UTF8')"
    )
    with connection.begin():
        _pipe_rows(reading, f"COPY ({rows}) TO STDOUT (ENCODING 'UTF8')", connection, copy_in)


@contextmanager
def open_reader_transaction(reader: Database, source: NamedSource) -> Iterator[Connection]:
    """Open a read-only transaction on a connection that is closed afterwards."""
    with reader.dedicated() as connection:
        set_read_limits(connection, source.timeout_s)
        with connection.begin() as transaction:
            connection.execute(_READ_ONLY)
            connection.execute(_PATH_OF_ROLE)
            yield connection
            # A rollback drops what functions deferred to the commit, such as a NOTIFY.
            transaction.rollback()


def _pipe_rows(source: Connection, copy_out: str, target: Connection, copy_in: str) -> None:
    """Pipe the COPY output of one connection into the COPY input of another, without buffering."""
    incoming, outgoing = os.pipe()

    def run_copy(connection: Connection, statement: str, end: IO[bytes]) -> None:
        with end, closing(connection.connection.cursor()) as cursor:
            cursor.copy_expert(statement, end)

    # Both COPYs run in threads: the main thread must stay free to receive a signal.
    with ThreadPoolExecutor(2) as pool:
        sent = pool.submit(run_copy, source, copy_out, os.fdopen(outgoing, "wb"))
        received = pool.submit(run_copy, target, copy_in, os.fdopen(incoming, "rb"))
        try:
            received.result()
            # If the source failed, the rows are incomplete: its error rolls back the transaction.
            sent.result()
        except BaseException:
            # Of a connection that has ended its COPY, this would cancel a later statement.
            for copying, connection in ((sent, source), (received, target)):
                if not copying.done():
                    cast("psycopg2.extensions.connection", connection.connection).cancel()
            raise


def set_read_limits(connection: Connection, timeout_s: int) -> None:
    """Set the statement timeout in seconds, and the output formats, of a connection.

    Times without a zone are UTC. Otherwise a custom field that holds a time would look changed to
    a session in another time zone.
    """
    with connection.begin():
        connection.execute(_SET, {"timeout": f"{timeout_s}s"})


def clear_read_timeout(connection: Connection) -> None:
    """End the statement timeout of `set_read_limits`, before a connection writes our own rows."""
    with connection.begin():
        connection.execute(_CLEAR_TIMEOUT)


@contextmanager
def translate_errors(source: NamedSource) -> Iterator[None]:
    """Translate errors of a source that is read in the block to one line of advice.

    Raises:
        SourceError: the source could not be read.
    """
    try:
        yield
    except DatabaseError as error:
        if error.disconnected:
            raise
        advice = _find_advice(error.sqlstate or "", source)
        raise SourceError(f"{source} {advice or f'cannot be read: {error}'}") from None


@contextmanager
def translate_comparison_errors(source: NamedSource) -> Iterator[None]:
    """Translate errors that a source's rows cause when our own connection compares them.

    Raises:
        SourceError: the rows could not be compared in time, or hold a value that cannot be stored.
    """
    try:
        yield
    except DatabaseError as error:
        if error.sqlstate in (_TIMEOUT, _LOCKED):
            raise SourceError(f"{source} {_find_advice(error.sqlstate, source)}") from None
        if is_data_error(error.sqlstate):
            raise SourceError(f"{source} cannot be stored: {error}") from None
        raise


def _find_advice(sqlstate: str, source: NamedSource) -> str:
    """Return what failed and what to do, by the SQLSTATE of the connection that reads a source.

    Another server's errors have its own SQLSTATEs: its lost connections cannot be ours.
    """
    advice = {
        _TIMEOUT: f"was not read within {source.timeout_s} s: it is slow or locked;"
        " make it faster, or raise LEADLOOP_SOURCE_TIMEOUT",
        _LOCKED: "is locked by another connection: end it (pg_locks shows which)",
        NO_PRIVILEGE: "reads data that this role, or the view's owner, may not read:"
        " docs/how-to/bring-your-own-table.md lists the privileges",
        _WRITES: "writes: a view may only read",
    }.get(sqlstate)
    if advice is not None:
        return advice
    if sqlstate in _MISSING:
        return (
            "uses a table, column or function that does not exist, here or on another server that"
            f" it reads (SQLSTATE {sqlstate}): correct the view or its function"
        )
    if sqlstate.startswith(_OF_OTHER_SERVERS):
        return (
            "reads another server (a foreign table, or dblink) that refuses or does not answer"
            f" (SQLSTATE {sqlstate}): check that server, and its user mapping here"
        )
    if sqlstate.startswith(_OF_FUNCTIONS):
        return f"calls a function that fails (SQLSTATE {sqlstate}): correct the function"
    return ""


_JSON_TYPES = ("json", "jsonb")

# The comparison

#: Condition: the lead follows its row in the source (certainly never sent, not opted out).
FOLLOWS_SOURCE = """lead.from_source AND NOT lead.opted_out AND lead.sent_at IS NULL
        AND lead.status IN ('new', 'rejected')"""

# The vendor holds, or may hold, a lead whose row is gone. Whom a person has taken back since stays.
_LEFT_SOURCE = """:opts_out_removed AND lead.from_source AND NOT lead.opted_out
        AND (lead.status IN ('sending', 'created', 'in_doubt')
             OR lead.status = 'rejected' AND lead.sent_at IS NOT NULL)
        AND NOT EXISTS (SELECT FROM leadloop.opt_ins AS opt_in
                         WHERE opt_in.campaign_id = lead.campaign_id
                           AND opt_in.lead_id = lead.lead_id
                           AND opt_in.opted_in_at >= lead.sent_at)"""

_FIELDS = ("phone_number", "contact_name", "state_code")
_COLUMNS = (*_FIELDS, "ebr_datetime", "custom_fields")
_FIXED = ", ".join(f"'{name}'" for name in ("lead_id", *_FIELDS, "ebr_datetime", "priority"))
# Objects without a null are used unchanged: to rebuild all of them would take half as long again.
_STAGED = f"""
SELECT lead_id, phone_number, contact_name, state_code, ebr_datetime, priority, place,
       CASE WHEN jsonb_path_exists(own.fields, '$.* ? (@ == null)')
            THEN coalesce((SELECT jsonb_object_agg(field.key, field.value)
                             FROM jsonb_each(own.fields) AS field WHERE field.value <> 'null'),
                          '{{}}')
            ELSE own.fields END AS custom_fields
  FROM pg_temp.source_rows AS staged
 CROSS JOIN LATERAL (SELECT CAST(staged.fields AS jsonb) - ARRAY[{_FIXED}] AS fields
                     OFFSET 0) AS own"""


def _row_of(alias: str) -> str:
    return f"({', '.join(f'{alias}.{column}' for column in _COLUMNS)})"


_EFFECTIVE_COLUMNS = ", ".join(
    f"CASE WHEN kind.kind = 'kept' THEN lead.{column} ELSE source.{column} END AS {column}"
    for column in _COLUMNS
)

# A full join supports only equality, hence the single condition.
#: SQL of the differences between the rows of `source_rows` and the leads of `:campaign`; leads
#: that were sent count only with `:opts_out_removed`.
#:
#: Its columns are those of a lead, `opted_out`, `inserted_at`, `place` and `priority` in the
#: source (null if the source has no such column), and `kind`:
#:
#: - `new`: the source has a lead that we lack;
#: - `changed`, `gone`: a lead that follows the source differs from its row, or has lost it;
#: - `kept`: a lead to be sent unchanged;
#: - `left`: a lead that was sent, and has lost its row;
#: - `unnamed`, `twin`: a row that is skipped, with an invalid or a repeated lead_id;
#: - null: everything else.
DIFF_QUERY = f"""
SELECT coalesce(lead.lead_id, source.key) AS lead_id, source.place, kind.kind,
       coalesce(lead.opted_out, false) AS opted_out, lead.inserted_at, source.priority,
       {_EFFECTIVE_COLUMNS}
  FROM (SELECT *, CASE WHEN nth = 1 AND named THEN lead_id END AS key
          FROM (SELECT *, lead_id <> '' AND length(lead_id) <= {MAX_LEAD_ID_LENGTH} AS named,
                       row_number() OVER (PARTITION BY lead_id COLLATE "C"
                                          ORDER BY {", ".join(_COLUMNS)}, priority) AS nth
                  FROM ({_STAGED}) AS staged) AS numbered) AS source
  FULL JOIN (SELECT * FROM leadloop.leads WHERE campaign_id = :campaign) AS lead
    ON lead.lead_id = source.key
 CROSS JOIN LATERAL (SELECT CASE
       WHEN lead.lead_id IS NULL AND source.key IS NULL
            THEN CASE WHEN source.named THEN 'twin' ELSE 'unnamed' END
       WHEN lead.lead_id IS NULL THEN 'new'
       WHEN NOT ({FOLLOWS_SOURCE})
            THEN CASE WHEN lead.status = 'new' THEN 'kept'
                      WHEN source.key IS NULL AND {_LEFT_SOURCE} THEN 'left' END
       WHEN source.key IS NULL THEN 'gone'
       WHEN {_row_of("lead")} IS DISTINCT FROM {_row_of("source")}
            OR lead.priority <> source.priority THEN 'changed'
       WHEN lead.status = 'new' THEN 'kept' END AS kind) AS kind
"""


def _select_rows(table: SourceTable, staging: Staging) -> str:
    """Return SQL that selects a source's rows, in its own order.

    Every name is qualified, since the query runs with the role's search path.
    """
    return f"SELECT {', '.join(staging.select_row(table))} FROM {table.relation} AS own"


def cast_column(table: SourceTable, name: str, type_: str, value: str = "own.{}") -> str:
    """Return the expression of a column as another type; null if the table lacks the column.

    `value` is the expression that is cast. Times without a zone are in the session's time zone,
    UTC.
    """
    if type_ == "text" and table.columns.get(name) in _JSON_TYPES:
        return _unwrap_json(f"own.{name}", table.columns[name])
    expression = value.format(name) if name in table.columns else "NULL"
    return f"CAST({expression} AS pg_catalog.{type_})"


def _select_lead(table: SourceTable) -> list[str]:
    """Return the expressions of a lead's row.

    `own.*` is the whole row even if a column has the name of the table.
    """
    priority = f"least(greatest(own.{{}}, 0), {MAX_PRIORITY})"
    return [
        *(cast_column(table, name, "text") for name in ("lead_id", *_FIELDS)),
        cast_column(table, "ebr_datetime", "timestamptz"),
        cast_column(table, "priority", "int2", priority),
        "CAST(pg_catalog.row_to_json(own.*) AS pg_catalog.text)",
    ]


#: The staging table of leads.
LEAD_STAGING = Staging(
    table="source_rows",
    columns={
        **dict.fromkeys(("lead_id", *_FIELDS), "text"),
        "ebr_datetime": "timestamptz",
        "priority": "smallint",
        "fields": "text",
    },
    select_row=_select_lead,
)


def _unwrap_json(column: str, type_: str) -> str:
    """Return SQL of the text that a JSON value is: `"A-1"` is A-1.

    A null, a list and an object are no text.
    """
    return (
        f"CASE WHEN pg_catalog.{type_}_typeof({column}) IN ('string', 'number', 'boolean')"
        f" THEN {column} OPERATOR(pg_catalog.#>>) CAST('{{}}' AS pg_catalog.text[]) END"
    )


def _column_texts(source: SourceTable) -> dict[str, str]:
    """Return the expression of each column as text, by its name; `lead_id`, if any, first."""
    texts = {}
    if "lead_id" in source.columns:
        texts["lead_id"] = cast_column(source, "lead_id", "text")
    for name in source.columns:
        quoted = '"' + name.replace('"', '""') + '"'
        texts.setdefault(name, f"CAST(pg_catalog.to_json(own.{quoted}) AS pg_catalog.text)")
    if "ebr_datetime" in texts:
        texts["ebr_datetime"] = (
            "CAST(CAST(own.ebr_datetime AS pg_catalog.timestamptz) AS pg_catalog.text)"
        )
    return texts
