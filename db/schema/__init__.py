"""The database schema: stated once in SQL files, migrated, and checked before every run.

    tables.sql      tables and indexes
    counts.sql      counts of what is past: views, and the triggers that count
    triggers.sql    other triggers and their functions
    views.sql       the schema `leadloop_monitor`, for the data team
    comments.sql    descriptions of tables, columns and functions

All thresholds of alerts are columns of one view, `leadloop_monitor.thresholds` in views.sql: each
has the name of its problem in the view `leadloop_monitor.problems`, which holds the rules.

A new database gets the stated schema; migrations upgrade an older one. A test compares the results.
"""

import logging
import re
from pathlib import Path

from sqlalchemy import Connection, text

from db.database import Database
from db.schema import counting
from db.schema.fingerprint import describe_tables
from db.schema.requirements import require_ownership, require_supported
from leadloop.core.errors import UsageError

# An empty version table does not count: an interrupted init leaves one.
_ANYTHING = text("""
SELECT EXISTS (SELECT FROM pg_class
                WHERE relnamespace = to_regnamespace('leadloop') AND relkind IN ('r', 'p', 'v', 'm')
                  AND relname <> 'alembic_version')
""")
# A waiting ALTER TABLE blocks all later queries on the table: give up early instead.
_SHORT_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '3s'")
_HERE = Path(__file__).parent
_MIGRATIONS = _HERE.parent / "migrations"
#: The last version before the schema was stated in files; its tables are those of the first stated
#: version, which it becomes. Its tables are compared afterwards, and never refused.
_UNSTATED = "0008"
_COUNTS_FILLED = text("SELECT EXISTS (SELECT FROM leadloop.counts_filled)")
#: What commands and the page show until `are_counts_filled`.
UPGRADE_INCOMPLETE = (
    "the upgrade of the schema is not complete yet: run `leadloop init`; until it has ended, the"
    " views show too little"
)
_ADOPT = text("UPDATE leadloop.alembic_version SET version_num = :first")
#: The files that may be applied again to an existing schema.
REPLACEABLE = ("counts", "triggers", "views", "comments")

# A normalised lead id: lower case, without blanks and invisible characters (Unicode's separators,
# format and control characters, fillers, tags); in the default collation, like the index of ids.
# A macro instead of a function: a login that inserts leads would need EXECUTE on a function.
_FOLDED = (
    r"(lower(regexp_replace(\1, '[\\u0001-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160"
    r"\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800"
    r"\\u3000\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\ufffb\\U000e0000-\\U000e0fff]+', '',"
    ' \'g\') COLLATE "C") COLLATE "default")'
)

# An interval as a number with its unit, in singular or plural.
_SPELT = (
    "(SELECT CASE n WHEN 1 THEN '1 {unit}' ELSE n || ' {unit}s' END FROM (SELECT {n}) AS each (n))"
)
_MINUTES = _SPELT.format(unit="minute", n=r"CAST(extract(epoch FROM \1) / 60 AS integer)")
_DAYS = _SPELT.format(unit="day", n=r"ceil(extract(epoch FROM \1) / 86400)")

# A campaign's threshold of an alert: its own, in seconds, or the general one.
_OWN_THRESHOLD = (
    r"coalesce(make_interval(secs => CAST(campaign.thresholds ->> '\1' AS float8)), general.\1)"
    r" AS \1"
)

_log = logging.getLogger(__name__)


def create_schema(connection: Connection, *files: str) -> None:
    """Apply the stated schema, or some of its files, with their macros expanded."""
    for name in files or ("tables", *REPLACEABLE):
        statements = (_HERE / f"{name}.sql").read_text(encoding="utf-8")
        connection.exec_driver_sql(expand_macros(statements))


def expand_macros(statements: str) -> str:
    """Expand the macros of views.sql and counts.sql, which say what each stands for."""
    statements = re.sub(r"FOLDED\(([\w.]+)\)", _FOLDED, statements)
    statements = re.sub(r"MINUTES\((\w+)\)", _MINUTES, statements)
    statements = re.sub(r"DAYS\((\w+)\)", _DAYS, statements)
    statements = re.sub(r"THRESHOLD\((\w+)\)", _OWN_THRESHOLD, statements)
    statements = re.sub(
        r"COUNT_TRIGGERS\((\w+)\)", lambda match: counting.build_triggers(match[1]), statements
    )
    statements = re.sub(
        r"COUNTED\((\w+)\)",
        lambda match: counting.select_counted(match[1], f"leadloop.{match[1]}"),
        statements,
    )
    statements = re.sub(r"\bIS_KEPT\b", counting.IS_KEPT, statements)
    statements = re.sub(
        r"\bTRIES\(([\w.]+)\)", lambda match: counting.select_tries(match[1]), statements
    )
    statements = re.sub(
        r"\bSPREAD_BY_CAMPAIGN\(([\w.]+)\)",
        lambda match: counting.spread_spans(match[1], with_totals=False),
        statements,
    )
    return re.sub(
        r"\bSPREAD\(([\w.]+)\)", lambda match: counting.spread_spans(match[1]), statements
    )


def migrate_schema(connection: Connection, to: str = "head") -> str:
    """Create or upgrade the schema; idempotent, and safe to run concurrently (advisory lock).

    Args:
        connection: a transaction.
        to: target version; an older one is for tests of upgrades.

    Returns:
        The version of the schema afterwards.

    Raises:
        UsageError: the schema has an unknown version or is not leadloop's; or Postgres, the
            database's encoding or the login is unsuitable.
    """
    connection.execute(_SHORT_LOCK_TIMEOUT)
    require_supported(connection)
    require_ownership(connection)
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('leadloop.init'))"))
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS leadloop"))
    current = get_version(connection)
    if current is None:
        _require_empty(connection)
    elif current == _UNSTATED:
        connection.execute(_ADOPT, {"first": _known_versions()[0]})
    elif current not in _known_versions():
        raise UsageError(_unknown_version(current))
    # Imported late: it takes a fifth of a second, and only `leadloop init` needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
    if current == _UNSTATED:
        for difference in _describe_differences(connection):
            _log.warning("the leadloop schema differs from the stated one: %s", difference)
    return get_version(connection) or to


def drop_schema(connection: Connection) -> None:
    """Drop the schemas `leadloop` and `leadloop_monitor` with all their data."""
    connection.execute(text("DROP SCHEMA IF EXISTS leadloop, leadloop_monitor CASCADE"))


def recreate_database(database: Database, name: str) -> None:
    """Create an empty database on the same server; drop an existing one of this name first.

    Args:
        database: opened with a login that may create databases.
        name: goes into the statement unquoted: must be ours, never a user's.
    """
    with database.autocommit() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))


def require_current(connection: Connection) -> None:
    """Check that the schema has the current version.

    The counts may be incomplete: nothing that a run does depends on them.

    Raises:
        UsageError: the schema is missing, older or newer; the message names the next command.
    """
    current, known = get_version(connection), _known_versions()
    if current == known[-1]:
        return
    if current is None:
        _require_empty(connection)
        raise UsageError("the database has no leadloop schema yet: run `leadloop init`")
    if current in (*known, _UNSTATED):
        raise UsageError(f"the leadloop schema is at version {current}: run `leadloop init`")
    raise UsageError(_unknown_version(current))


def are_counts_filled(connection: Connection) -> bool:
    """Return whether all rows are counted, those from before an upgrade included."""
    return bool(connection.scalar(_COUNTS_FILLED))


def get_version(connection: Connection) -> str | None:
    """Return the version of the schema in the database, or None."""
    exists = connection.scalar(text("SELECT to_regclass('leadloop.alembic_version')"))
    if exists is None:
        return None
    current: str | None = connection.scalar(
        text("SELECT version_num FROM leadloop.alembic_version")
    )
    return current


def _describe_differences(connection: Connection) -> list[str]:
    """Describe how the existing tables differ from those of the stated schema."""
    existing = describe_tables(connection)
    with connection.begin_nested() as aside:
        connection.execute(text("ALTER SCHEMA leadloop RENAME TO leadloop_existing"))
        connection.execute(
            text("ALTER SCHEMA leadloop_monitor RENAME TO leadloop_monitor_existing")
        )
        connection.execute(text("CREATE SCHEMA leadloop"))
        create_schema(connection)
        stated = describe_tables(connection)
        aside.rollback()
    missing = [f"missing: {each}" for each in sorted(stated - existing)]
    return [*missing, *(f"additional: {each}" for each in sorted(existing - stated))]


def _require_empty(connection: Connection) -> None:
    """Check that a schema without a version is empty.

    Raises:
        UsageError: it holds tables: foreign ones, or ours without their version.
    """
    if connection.scalar(_ANYTHING):
        raise UsageError(
            "the database has a schema leadloop that `leadloop init` did not create, or that has"
            " lost its version: rename it (ALTER SCHEMA leadloop RENAME TO leadloop_old), then run"
            " `leadloop init`"
        )


def _unknown_version(current: str) -> str:
    if current < _UNSTATED and current.isdecimal():
        return (
            f"the leadloop schema is at version {current}, from before the first release: upgrade"
            f" it to version {_UNSTATED} with the last commit that has db/migrations/versions/"
            f"{_UNSTATED}_harm_first.py, then run `leadloop init` again"
        )
    return (
        f"the leadloop schema is at version {current}, unknown to this version of leadloop:"
        " install the version that created it, or a newer one"
    )


def _known_versions() -> list[str]:
    """Return the known versions in order: the names of the migrations' files."""
    return sorted(path.stem for path in _MIGRATIONS.glob("versions/[0-9]*.py"))
