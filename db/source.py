"""A campaign's source: a table or view of somebody else's, and how it differs from the leads.

A view may call any function, with the rights and in the session of whoever reads it. So a source is
read by a connection of its own, which copies its rows out and is thrown away; ours compares them.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO, cast

import psycopg2.extensions
from sqlalchemy import Connection, text

from db.database import Database, DatabaseError
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import UsageError
from leadloop.core.source_requirements import (
    MAX_LEAD_ID_LENGTH,
    SourceError,
    check_columns,
    source_not_found,
    source_not_readable,
)

# The name is a value here, never a part of the statement; what comes back is quoted by Postgres.
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
# What a view calls by names without a schema is looked up where its owner expects: by the path of
# the role. Nothing can be written, and nothing of the transaction is kept.
_READ_ONLY = text("SET TRANSACTION READ ONLY")
_PATH_OF_ROLE = text("SET LOCAL search_path TO DEFAULT")
# A standby has another start time: what it shows is older than what was committed here.
_IDENTITY = text("""
SELECT pg_postmaster_start_time(), oid FROM pg_database WHERE datname = current_database()
""")
# By any role that it may become: what a view calls may change to each of them.
_REACHES_OURS = text("""
SELECT array_agg(rolname ORDER BY rolname) FROM pg_roles
 WHERE pg_has_role(current_user, oid, 'MEMBER')
   AND (rolsuper OR has_schema_privilege(oid, 'leadloop', 'USAGE')
        OR rolname IN ('pg_execute_server_program', 'pg_read_server_files',
                       'pg_write_server_files', 'pg_read_all_data', 'pg_write_all_data'))
""")
_STAGE = text("""
CREATE TEMPORARY TABLE source_rows (
    place bigint GENERATED ALWAYS AS IDENTITY,
    lead_id text, phone_number text, contact_name text, state_code text, ebr_datetime timestamptz,
    fields text
)
""")

_NO_RIGHT, _TOO_LONG, _LOCKED, _WRITES = "42501", "57014", "55P03", "25006"
#: What Postgres says of a name that is none: bad syntax, too many dots, another database.
_NO_NAME = ("42602", "42601", "0A000")


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """A source that can be read; `relation` is its name as SQL, quoted by Postgres."""

    relation: str
    columns: Mapping[str, str]


def inspect_source(reader: Database, campaign: Campaign, name: str) -> SourceTable:
    """The table or view of that name, seen to be fit for the campaign, and readable by this login.

    Args:
        reader: the database, opened with the login that reads sources.
        campaign: whose source it is.
        name: with its schema: no search path completes it.

    Raises:
        SourceError: it is not.
        DatabaseError: Postgres was not there.
    """
    try:
        with reader.transaction() as connection:
            row = connection.execute(_FIND, {"source": name}).one_or_none()
    except DatabaseError as error:
        if error.sqlstate == _NO_RIGHT:
            raise source_not_readable(name) from None
        if error.sqlstate in _NO_NAME:
            raise source_not_found(name) from None
        raise
    if row is None or not row.may_be:
        raise source_not_found(name)
    if not row.readable:
        raise source_not_readable(name)
    found = SourceTable(
        relation=row.relation, columns=dict(zip(row.names, row.types, strict=False))
    )
    check_columns(name, found.columns, campaign.required_fields)
    return found


def require_same_database(reader: Database, database: Database) -> None:
    """See that both are one database of one server.

    Raises:
        UsageError: they are not.
    """
    identities = []
    for each in (reader, database):
        with each.transaction() as connection:
            identities.append(connection.execute(_IDENTITY).one())
    if identities[0] != identities[1]:
        raise UsageError(
            f"LEADLOOP_SOURCE_URL names another database ({reader.display_name}) than"
            f" LEADLOOP_DATABASE_URL ({database.display_name}): it is for another login of the same one"
        )


def list_roles_with_access(reader: Database) -> list[str]:
    """Return the roles by which the login that reads sources can read what is leadloop's.

    The login itself and each role that it may change to: superusers, those that may use the schema
    `leadloop`, and those that may read all data or run programs on the server.
    """
    with reader.transaction() as connection:
        return connection.scalar(_REACHES_OURS) or []


def check_readable(reader: Database, campaign: Campaign, table: SourceTable) -> None:
    """See that Postgres would carry out a reading; it is asked for no row.

    Raises:
        SourceError: it would not, as where a view reads what its owner may not.
    """
    with translate_errors(campaign), _reader_transaction(reader, campaign) as connection:
        connection.execute(text(f"SELECT FROM {_escape_colons(table.relation)} LIMIT 0"))


def stage_source_rows(
    reader: Database, connection: Connection, campaign: Campaign, table: SourceTable
) -> None:
    """Copy a source's rows to the temporary table `source_rows` of a connection of ours.

    Args:
        reader: the database, opened with the login that reads sources.
        connection: where the table is made; outside of a transaction.
        campaign: whose source it is.
        found: what `find` has found.

    Raises:
        SourceError: it could not be read.
    """
    with connection.begin():
        connection.execute(_STAGE)
    with (
        translate_errors(campaign),
        _reader_transaction(reader, campaign) as source,
        connection.begin(),
    ):
        _pipe_rows(
            source,
            f"COPY ({_select_rows(table)}) TO STDOUT (ENCODING 'UTF8')",
            connection,
            _INTO_STAGE,
        )
    with connection.begin():
        connection.execute(text("ANALYZE pg_temp.source_rows"))


@contextmanager
def _reader_transaction(reader: Database, campaign: Campaign) -> Iterator[Connection]:
    """Yield a read-only transaction of a connection that is closed with all that was done in it."""
    with reader.dedicated() as connection:
        set_read_limits(connection, campaign.source_timeout_s)
        with connection.begin() as transaction:
            connection.execute(_READ_ONLY)
            connection.execute(_PATH_OF_ROLE)
            yield connection
            # What a function has left to be done at the commit, as a NOTIFY, is not done.
            transaction.rollback()


_INTO_STAGE = """
COPY pg_temp.source_rows (lead_id, phone_number, contact_name, state_code, ebr_datetime, fields)
FROM STDIN (ENCODING 'UTF8')
"""


def _pipe_rows(source: Connection, copy_out: str, target: Connection, copy_in: str) -> None:
    """Send what one connection copies out to another one that copies it in; no row stays here."""
    incoming, outgoing = os.pipe()

    def copy(connection: Connection, statement: str, end: IO[bytes]) -> None:
        with end, closing(connection.connection.cursor()) as cursor:
            cursor.copy_expert(statement, end)

    # Both in threads: a signal is raised in this one, and neither COPY would let it through.
    with ThreadPoolExecutor(2) as pool:
        sent = pool.submit(copy, source, copy_out, os.fdopen(outgoing, "wb"))
        received = pool.submit(copy, target, copy_in, os.fdopen(incoming, "rb"))
        try:
            received.result()
            # Where the source failed, what has come is not all of it: its error undoes the rest.
            sent.result()
        except BaseException:
            for connection in (source, target):
                cast("psycopg2.extensions.connection", connection.connection).cancel()
            raise


def set_read_limits(connection: Connection, timeout_s: int) -> None:
    """Let no statement of this connection take longer; times without a zone are UTC on it.

    Else a custom field with a time in it would look changed to a session in another zone.
    """
    with connection.begin():
        connection.execute(_SET, {"timeout": f"{timeout_s}s"})


@contextmanager
def translate_errors(campaign: Campaign) -> Iterator[None]:
    """Say in one line what is wrong with a source that is read in the block.

    Raises:
        SourceError: it could not be read.
    """
    try:
        yield
    except DatabaseError as error:
        if error.disconnected or campaign.source is None:
            raise
        raise SourceError(
            f"its source {campaign.source!r} {_describe_error(error, campaign.source_timeout_s)}"
        ) from None


def _describe_error(error: DatabaseError, timeout_s: int) -> str:
    said = {
        _TOO_LONG: f"was not read within {timeout_s} s: it is slow, or locked; make it quicker, or"
        " LEADLOOP_SOURCE_TIMEOUT longer",
        _LOCKED: "is locked by another connection: end it (pg_locks shows which)",
        _NO_RIGHT: "reads what this role, or the view's owner, may not:"
        " docs/how-to/bring-your-own-table.md lists the rights",
        _WRITES: "writes: a view may only read",
    }
    return said.get(error.sqlstate or "", f"cannot be read: {error}")


# The comparison

#: A lead that follows its row in the source: certainly never sent, by nobody's word kept back.
FOLLOWS_SOURCE = """lead.from_source AND NOT lead.opted_out AND lead.sent_at IS NULL
        AND lead.status IN ('new', 'rejected')"""

_FIELDS = ("phone_number", "contact_name", "state_code")
_COLUMNS = (*_FIELDS, "ebr_datetime", "custom_fields")
_FIXED = ", ".join(f"'{name}'" for name in ("lead_id", *_FIELDS, "ebr_datetime"))
# Objects without a null are taken as they are: to take all of them apart would take half as long
# again.
_STAGED = f"""
SELECT lead_id, phone_number, contact_name, state_code, ebr_datetime, place,
       CASE WHEN jsonb_path_exists(own.fields, '$.* ? (@ == null)')
            THEN coalesce((SELECT jsonb_object_agg(field.key, field.value)
                             FROM jsonb_each(own.fields) AS field WHERE field.value <> 'null'),
                          '{{}}')
            ELSE own.fields END AS custom_fields
  FROM pg_temp.source_rows AS staged
 CROSS JOIN LATERAL (SELECT CAST(staged.fields AS jsonb) - ARRAY[{_FIXED}] AS fields
                     OFFSET 0) AS own"""


def _row_of(of: str) -> str:
    return f"({', '.join(f'{of}.{column}' for column in _COLUMNS)})"


def _either(column: str) -> str:
    return f"CASE WHEN kind.kind = 'kept' THEN lead.{column} ELSE given.{column} END AS {column}"


# Written so that the join's condition is one equality: a full join can be no other.
#: SQL of a query: the rows of `source_rows` beside the leads of `:campaign`.
#:
#: Its columns are those of a lead, `opted_out`, `place` in the source, and `kind`: `new`; `changed`
#: and `gone`, of leads that follow it; `kept`, of leads that are to be sent as they are; `unnamed`
#: and `twin`, of rows that cannot be taken; null of what does not matter.
DIFF_QUERY = f"""
SELECT coalesce(lead.lead_id, given.key) AS lead_id, given.place, kind.kind,
       coalesce(lead.opted_out, false) AS opted_out,
       {", ".join(_either(column) for column in _COLUMNS)}
  FROM (SELECT *, CASE WHEN nth = 1 AND named THEN lead_id END AS key
          FROM (SELECT *, lead_id <> '' AND length(lead_id) <= {MAX_LEAD_ID_LENGTH} AS named,
                       row_number() OVER (PARTITION BY lead_id COLLATE "C"
                                          ORDER BY {", ".join(_COLUMNS)}) AS nth
                  FROM ({_STAGED}) AS staged) AS numbered) AS given
  FULL JOIN (SELECT * FROM leadloop.leads WHERE campaign_id = :campaign) AS lead
    ON lead.lead_id = given.key
 CROSS JOIN LATERAL (SELECT CASE
       WHEN lead.lead_id IS NULL AND given.key IS NULL
            THEN CASE WHEN given.named THEN 'twin' ELSE 'unnamed' END
       WHEN lead.lead_id IS NULL THEN 'new'
       WHEN NOT ({FOLLOWS_SOURCE}) THEN CASE WHEN lead.status = 'new' THEN 'kept' END
       WHEN given.key IS NULL THEN 'gone'
       WHEN {_row_of("lead")} IS DISTINCT FROM {_row_of("given")} THEN 'changed'
       WHEN lead.status = 'new' THEN 'kept' END AS kind) AS kind
"""


def _select_rows(source: SourceTable) -> str:
    """Return SQL of a source's rows, in its own order.

    Every name is qualified, for this runs by the search path of the role. `own.*` is the whole row
    even where a column has the name of the table.
    """
    texts = [_text_column(name, source.columns) for name in ("lead_id", *_FIELDS)]
    return (
        f"SELECT {', '.join(texts)}, {_time_column(source.columns)},"
        " CAST(pg_catalog.row_to_json(own.*) AS pg_catalog.text)"
        f" FROM {source.relation} AS own"
    )


def _text_column(name: str, columns: Mapping[str, str]) -> str:
    return f"CAST({f'own.{name}' if name in columns else 'NULL'} AS pg_catalog.text)"


def _time_column(columns: Mapping[str, str]) -> str:
    """Times without a zone are read in the session's, which is UTC."""
    value = "own.ebr_datetime" if "ebr_datetime" in columns else "NULL"
    return f"CAST({value} AS pg_catalog.timestamptz)"


def _escape_colons(relation: str) -> str:
    """A name for SQLAlchemy, which would take `:x` in it for a parameter."""
    return relation.replace(":", r"\:")
