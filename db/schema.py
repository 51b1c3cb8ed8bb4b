"""The schema's version: migrate, and refuse to work on one that is not ours."""

from pathlib import Path

from sqlalchemy import Connection, text

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
_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, to: str = "head") -> str:
    """Bring the schema up to this version of leadloop; safe to run from several places at once.

    Args:
        connection: a transaction.
        to: another version, for a look at how its schema is upgraded.

    Returns:
        The version that it has now.

    Raises:
        UsageError: the schema is of a newer leadloop, or not one of leadloop's; or this Postgres is
            too old for it.
    """
    connection.execute(_PATIENCE)
    require_server((connection.dialect.server_version_info or (0,))[0])
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('leadloop.init'))"))
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS leadloop"))
    current = version(connection)
    if current is None:
        _require_empty(connection)
    elif current not in _known():
        raise UsageError(_too_new(current))
    _upgrade(connection, to)
    return version(connection) or to


def require_server(major: int) -> None:
    """Make sure that Postgres, of this major version, can do what leadloop asks of it.

    Raises:
        UsageError: it cannot.
    """
    if major < _OLDEST_POSTGRES:
        raise UsageError(
            f"this is Postgres {major}, and leadloop needs {_OLDEST_POSTGRES} or newer: upgrade it,"
            " or name another in LEADLOOP_DATABASE_URL"
        )


def remove(connection: Connection) -> None:
    """Drop the schema with all that is in it, and the views over it."""
    connection.execute(text("DROP SCHEMA IF EXISTS leadloop, leadloop_monitor CASCADE"))


def renew_database(connection: Connection, name: str) -> None:
    """Make an empty database beside this one, in place of the one of that name.

    Args:
        connection: outside of any transaction.
        name: one of ours, never a user's.
    """
    connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    connection.execute(text(f"CREATE DATABASE {name}"))


def require_current(connection: Connection) -> None:
    """Make sure that the schema is the one that this version of leadloop works on.

    Raises:
        UsageError: it is missing, older or newer; the message says what to do.
    """
    current, known = version(connection), _known()
    if current == known[-1]:
        return
    if current is None:
        _require_empty(connection)
        raise UsageError("the database has no leadloop schema yet: run `leadloop init`")
    if current in known:
        raise UsageError(f"the leadloop schema is at version {current}: run `leadloop init`")
    raise UsageError(_too_new(current))


def version(connection: Connection) -> str | None:
    """The version of the schema in the database; None where there is none."""
    exists = connection.scalar(text("SELECT to_regclass('leadloop.alembic_version')"))
    if exists is None:
        return None
    current: str | None = connection.scalar(
        text("SELECT version_num FROM leadloop.alembic_version")
    )
    return current


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


def _too_new(current: str) -> str:
    return (
        f"the leadloop schema is at version {current}, which this leadloop does not know:"
        " install the leadloop that made it, or a newer one"
    )


def _upgrade(connection: Connection, to: str) -> None:
    # Here, since every run would pay for it: a fifth of a second, and only `init` migrates.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _known() -> list[str]:
    """The versions that this leadloop knows, in their order: a file's name begins with its own."""
    return sorted(path.name.partition("_")[0] for path in _MIGRATIONS.glob("versions/[0-9]*.py"))
