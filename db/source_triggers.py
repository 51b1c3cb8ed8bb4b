"""Triggers by which tables of the team announce changes to live runs: SQL that is printed only.

leadloop never executes it. A role that may create triggers on the table does, after a review.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from db.database import Database, DatabaseError
from db.notifications import CHANNEL, SOURCE_CHANGED
from db.source import INVALID_NAME, NO_PRIVILEGE
from leadloop.core.source_requirements import SourceError

# A view's rules name the tables that it reads, also by way of other views.
_FIND = text("""
WITH RECURSIVE reads (oid) AS (
    SELECT oid FROM pg_class WHERE oid = to_regclass(:name)
     UNION
    SELECT used.refobjid
      FROM reads
      JOIN pg_rewrite AS rule ON rule.ev_class = reads.oid
      JOIN pg_depend AS used ON used.classid = 'pg_rewrite'::regclass AND used.objid = rule.oid
           AND used.refclassid = 'pg_class'::regclass
), named AS (
    SELECT c.oid, c.relkind, n.nspname, format('%I', n.nspname) AS schema,
           format('%I.%I', n.nspname, c.relname) AS relation
      FROM reads JOIN pg_class AS c USING (oid) JOIN pg_namespace AS n ON n.oid = c.relnamespace
)
SELECT schema, relation, relkind::text AS kind,
       ARRAY(SELECT relation FROM named WHERE relkind IN ('r', 'p') ORDER BY relation) AS tables
  FROM named
 WHERE oid = to_regclass(:name) AND relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname <> 'leadloop'
""")
_TABLES = ("r", "p")
_VIEWS = {"v": "view", "m": "materialized view"}

_TRIGGER = """\
-- Announces new and changed rows of {relation}
-- to live runs of leadloop{campaigns}. Execute it as a role that may
-- create functions in the schema and triggers on the table.
--
-- To remove it (the function only if no other table of the schema uses it):
--   DROP TRIGGER leadloop_announce ON {relation};
--   DROP FUNCTION {schema}.leadloop_announce();
BEGIN;
-- CREATE TRIGGER waits for transactions that write to the table, and later ones wait behind it.
SET LOCAL lock_timeout = '3s';
CREATE OR REPLACE FUNCTION {schema}.leadloop_announce() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- No write may fail because of a notification: with a full queue, its commit would.
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('{channel}', '{payload}');
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;  -- live runs look at the table without it too, some seconds later
END $$;
CREATE OR REPLACE TRIGGER leadloop_announce AFTER INSERT OR UPDATE ON {relation}
    FOR EACH STATEMENT EXECUTE FUNCTION {schema}.leadloop_announce();
COMMIT;
"""


@dataclass(frozen=True, kw_only=True)
class TriggerTable:
    """A table that can have the trigger; `schema` and `relation` are SQL names, quoted."""

    schema: str
    relation: str


def find_trigger_table(reader: Database, name: str) -> TriggerTable:
    """Find a table of the team; check that a trigger on it sees the changes of its rows.

    Args:
        reader: the database, opened with the login that reads sources.
        name: the table's name with its schema: no search path completes it.

    Raises:
        SourceError: there is no such table, or it is a view or a foreign table.
        DatabaseError: Postgres cannot be reached.
    """
    try:
        with reader.transaction() as connection:
            row = connection.execute(_FIND, {"name": name}).one_or_none()
    except DatabaseError as error:
        if error.sqlstate == NO_PRIVILEGE:
            raise SourceError(
                f"{name!r} cannot be found: this role lacks USAGE on its schema"
            ) from None
        if error.sqlstate not in INVALID_NAME:
            raise
        row = None
    if row is None:
        raise SourceError(f"{name!r} is no table of this database: write schema.name")
    if row.kind not in _TABLES:
        raise SourceError(_explain_no_trigger(name, row.kind, row.tables))
    if not row.relation.isprintable():
        # It would end the comments in the SQL, and drive a terminal.
        raise SourceError(f"{name!r} has control or invisible characters in its name")
    return TriggerTable(schema=row.schema, relation=row.relation)


def render_trigger(table: TriggerTable, campaigns: Sequence[str] = ()) -> str:
    """Render the SQL that creates the trigger of a table; it may be executed again (idempotent).

    Args:
        table: the table.
        campaigns: the campaigns that take their leads from it, in printable characters.
    """
    noun = "campaign" if len(campaigns) == 1 else "campaigns"
    return _TRIGGER.format(
        schema=table.schema,
        relation=table.relation,
        campaigns=f", for {noun} {', '.join(campaigns)}" if campaigns else "",
        channel=CHANNEL,
        payload=SOURCE_CHANGED,
    )


def _explain_no_trigger(name: str, kind: str, tables: Sequence[str]) -> str:
    if kind not in _VIEWS:
        return (
            f"{name!r} is a foreign table: what is written on its server fires no trigger here, so"
            " live runs see it at their next look"
        )
    read = f" ({', '.join(tables)})" if tables else ""
    return (
        f"{name!r} is a {_VIEWS[kind]}, on which no trigger sees what is written to the tables that"
        f" it reads{read}: print the trigger of one of these with --table"
    )
