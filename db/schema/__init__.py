"""The schema: stated once in the SQL files beside this one, migrated, and checked before work.

    tables.sql      tables and indexes
    triggers.sql    triggers and their functions
    views.sql       the schema `leadloop_monitor`, for the data team
    comments.sql    what each table, column and function is

A new database gets the stated schema. The migrations bring an older one to it; a test holds both
ways equal.
"""

import logging
import re
from pathlib import Path

from sqlalchemy import Connection, text

from db.database import Database
from db.schema.fingerprint import describe_tables
from leadloop.core.errors import UsageError

# A version table without a version counts as nothing: an init that was broken off leaves none.
_ANYTHING = text("""
SELECT EXISTS (SELECT FROM pg_class
                WHERE relnamespace = to_regnamespace('leadloop') AND relkind IN ('r', 'p', 'v', 'm')
                  AND relname <> 'alembic_version')
""")
# Whoever waits for a table keeps all who come after from it: rather give up, and try again later.
_PATIENCE = text("SET LOCAL lock_timeout = '3s'")
# The first with multiranges, by which windows are added up.
_OLDEST_POSTGRES = 14
_HERE = Path(__file__).parent
_MIGRATIONS = _HERE.parent / "migrations"
#: The last version before the schema was stated: it has the same tables.
_UNSTATED = "0008"
#: The files that may be applied to a schema that stands.
_REPLACEABLE = ("triggers", "views", "comments")

# A lead's id without the case of ASCII letters, blanks and invisible characters (Unicode's
# separators, format and control characters, fillers, tags); in the default collation, as the index
# of ids is. Written out where it is used, not a function: whoever inserts a lead would need the
# right to execute it.
_FOLDED = (
    r"(lower(regexp_replace(\1, '[\\u0001-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160"
    r"\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800"
    r"\\u3000\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\ufffb\\U000e0000-\\U000e0fff]+', '',"
    ' \'g\') COLLATE "C") COLLATE "default")'
)

_log = logging.getLogger(__name__)


def create_schema(connection: Connection, *files: str) -> None:
    """Apply the stated schema, or some of its files, with `FOLDED(column)` written out."""
    for name in files or ("tables", *_REPLACEABLE):
        statements = (_HERE / f"{name}.sql").read_text(encoding="utf-8")
        connection.exec_driver_sql(re.sub(r"FOLDED\(([\w.]+)\)", _FOLDED, statements))


def migrate_schema(connection: Connection, to: str = "head") -> str:
    """Bring the schema up to this version of leadloop; safe to run from several places at once.

    Args:
        connection: a transaction.
        to: another version, for a look at how its schema is upgraded.

    Returns:
        The version that it has now.

    Raises:
        UsageError: the schema is of another leadloop, or not one of leadloop's; or this Postgres is
            too old for it.
    """
    connection.execute(_PATIENCE)
    require_postgres_version((connection.dialect.server_version_info or (0,))[0])
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('leadloop.init'))"))
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS leadloop"))
    current = get_version(connection)
    if current is None:
        _require_empty(connection)
    elif current == _UNSTATED:
        _adopt_unstated(connection)
    elif current not in _known_versions():
        raise UsageError(_unknown_version(current))
    _run_migrations(connection, to)
    return get_version(connection) or to


def require_postgres_version(major: int) -> None:
    """Make sure that Postgres, of this major version, can do what leadloop asks of it.

    Raises:
        UsageError: it cannot.
    """
    if major < _OLDEST_POSTGRES:
        raise UsageError(
            f"this is Postgres {major}, and leadloop needs {_OLDEST_POSTGRES} or newer: upgrade it,"
            " or name another in LEADLOOP_DATABASE_URL"
        )


def drop_schema(connection: Connection) -> None:
    """Drop the schema with all that is in it, and the views over it."""
    connection.execute(text("DROP SCHEMA IF EXISTS leadloop, leadloop_monitor CASCADE"))


def recreate_database(database: Database, name: str) -> None:
    """Replace the database of that name, on the same server, by an empty one.

    Args:
        database: a login that may create databases.
        name: one of ours, never a user's.
    """
    with database.autocommit() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))


def require_current(connection: Connection) -> None:
    """Make sure that the schema is the one that this version of leadloop works on.

    Raises:
        UsageError: it is missing, older or newer; the message says what to do.
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


def get_version(connection: Connection) -> str | None:
    """Return the version of the schema in the database; None where there is none."""
    exists = connection.scalar(text("SELECT to_regclass('leadloop.alembic_version')"))
    if exists is None:
        return None
    current: str | None = connection.scalar(
        text("SELECT version_num FROM leadloop.alembic_version")
    )
    return current


def _adopt_unstated(connection: Connection) -> None:
    """Take a schema of before it was stated for the first stated one, and warn where it differs.

    What stands is never refused: functions, views and comments are replaced, tables are compared.
    """
    for difference in _describe_differences(connection):
        _log.warning("the leadloop schema differs from the stated one: %s", difference)
    create_schema(connection, *_REPLACEABLE)
    connection.execute(
        text("UPDATE leadloop.alembic_version SET version_num = :first"),
        {"first": _known_versions()[0]},
    )


def _describe_differences(connection: Connection) -> list[str]:
    """Describe how the tables that stand differ from those of the stated schema."""
    standing = describe_tables(connection)
    with connection.begin_nested() as aside:
        connection.execute(text("ALTER SCHEMA leadloop RENAME TO leadloop_standing"))
        connection.execute(
            text("ALTER SCHEMA leadloop_monitor RENAME TO leadloop_monitor_standing")
        )
        connection.execute(text("CREATE SCHEMA leadloop"))
        create_schema(connection)
        stated = describe_tables(connection)
        aside.rollback()
    missing = [f"it lacks {each}" for each in sorted(stated - standing)]
    return [*missing, *(f"it has {each}" for each in sorted(standing - stated))]


def _require_empty(connection: Connection) -> None:
    """Make sure that a schema without a version has nothing in it.

    Raises:
        UsageError: it has: somebody else's tables, or what was left of ours.
    """
    if connection.scalar(_ANYTHING):
        raise UsageError(
            "the database has a schema leadloop that `leadloop init` did not make, or that has lost"
            " its version: move it away (ALTER SCHEMA leadloop RENAME TO leadloop_old), then run"
            " `leadloop init`"
        )


def _unknown_version(current: str) -> str:
    if current < _UNSTATED and current.isdecimal():
        return (
            f"the leadloop schema is at version {current}, from before the first release: bring it"
            f" to version {_UNSTATED} with the last commit that has db/migrations/versions/"
            f"{_UNSTATED}_harm_first.py, then run `leadloop init` again"
        )
    return (
        f"the leadloop schema is at version {current}, which this leadloop does not know:"
        " install the leadloop that made it, or a newer one"
    )


def _run_migrations(connection: Connection, to: str) -> None:
    # Here, since every run would pay for it: a fifth of a second, and only `init` migrates.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _known_versions() -> list[str]:
    """Return the versions that this leadloop knows, in their order: the names of their files."""
    return sorted(path.stem for path in _MIGRATIONS.glob("versions/[0-9]*.py"))
