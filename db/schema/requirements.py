"""Requirements that a database must meet before the schema is created or used in it."""

from sqlalchemy import Connection, text

from leadloop.core.errors import UsageError

# The first version with multiranges, which merge polled windows.
_OLDEST_POSTGRES = 14
_SCHEMAS = ("leadloop", "leadloop_monitor")
_RIGHTS = text("""
SELECT quote_ident(current_user) AS login, quote_ident(current_database()) AS database,
       has_database_privilege(current_database(), 'CREATE') AS may_create
""")
_OWNERS = text("""
SELECT nspname AS name, quote_ident(pg_get_userbyid(nspowner)) AS owner,
       pg_get_userbyid(nspowner) = current_user AS is_ours
  FROM pg_namespace WHERE nspname = ANY(:schemas) ORDER BY nspname
""")


def require_supported(connection: Connection) -> None:
    """Check the version of Postgres and the encoding of the database.

    Raises:
        UsageError: the version is too old, or the encoding is not UTF8.
    """
    require_postgres_version((connection.dialect.server_version_info or (0,))[0])
    require_encoding(connection.scalar(text("SHOW server_encoding")))


def require_postgres_version(major: int) -> None:
    """Check that this major version of Postgres is supported.

    Raises:
        UsageError: the version is too old.
    """
    if major < _OLDEST_POSTGRES:
        raise UsageError(
            f"this is Postgres {major}, and leadloop needs {_OLDEST_POSTGRES} or newer: upgrade"
            " Postgres, or set LEADLOOP_DATABASE_URL to another server"
        )


def require_encoding(encoding: str) -> None:
    """Check that a database of this encoding can store every name.

    Raises:
        UsageError: it is not UTF8.
    """
    if encoding != "UTF8":
        raise UsageError(
            f"the encoding of the database is {encoding}, which cannot store every name: create one"
            " with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and set"
            " LEADLOOP_DATABASE_URL to it"
        )


def require_ownership(connection: Connection) -> None:
    """Check that this login may create the schemas, and that nobody else owns them.

    The owner of a schema may replace what is in it. So a role that may create schemas could
    prepare one, and wait for another role's `leadloop init` to fill it.

    Raises:
        UsageError: a privilege is missing, or another role owns a schema.
    """
    schemas = connection.execute(_OWNERS, {"schemas": list(_SCHEMAS)}).all()
    rights = connection.execute(_RIGHTS).one()
    foreign = next((schema for schema in schemas if not schema.is_ours), None)
    if foreign is not None:
        raise UsageError(
            f"the schema {foreign.name} belongs to the role {foreign.owner}, and this login is"
            f" {rights.login}: run `leadloop init` as {foreign.owner}; or, if that role is not"
            " leadloop's, rename the schema: ALTER SCHEMA"
            f" {foreign.name} RENAME TO {foreign.name}_old"
        )
    if len(schemas) < len(_SCHEMAS) and not rights.may_create:
        raise UsageError(
            f"the role {rights.login} may not create schemas: have an administrator run"
            f" GRANT CREATE ON DATABASE {rights.database} TO {rights.login}"
        )
