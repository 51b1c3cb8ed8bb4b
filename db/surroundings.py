"""Surroundings of a session that the doctor reports: limits, encryption, hidden rows, the log."""

from typing import Any

from sqlalchemy import Connection, text

from db.session_settings import OVERRIDDEN
from leadloop.core.addresses import is_loopback

# Sessions of others are counted too: their login and database are visible to everyone. Superusers
# have the limit of the server alone.
_LIMITS = text("""
WITH used AS MATERIALIZED (
    SELECT usename = current_user AS by_role, datname = current_database() AS in_database
      FROM pg_stat_activity WHERE backend_type = 'client backend'
)
SELECT kind, size, CAST(size - used AS integer) AS free FROM (
    SELECT 'the CONNECTION LIMIT of the role ' || quote_ident(rolname), rolconnlimit,
           (SELECT count(*) FROM used WHERE by_role)
      FROM pg_roles WHERE rolname = current_user AND NOT rolsuper
     UNION ALL
    SELECT 'the CONNECTION LIMIT of the database', datconnlimit,
           (SELECT count(*) FROM used WHERE in_database)
      FROM pg_database JOIN pg_roles ON rolname = current_user AND NOT rolsuper
     WHERE datname = current_database()
     UNION ALL
    SELECT 'max_connections of the server, without those reserved,',
           CAST(current_setting('max_connections') AS integer)
           - CAST(current_setting('superuser_reserved_connections') AS integer)
           - coalesce(CAST(current_setting('reserved_connections', true) AS integer), 0),
           (SELECT count(*) FROM used)) AS limits (kind, size, used)
 WHERE size >= 0 ORDER BY free LIMIT 1
""")
_DEFAULTS = text("""
SELECT DISTINCT lower(split_part(entry, '=', 1)) AS name
  FROM pg_db_role_setting CROSS JOIN LATERAL unnest(setconfig) AS entry
 WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
   AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
 ORDER BY name
""")
# Every role that may connect may take any advisory lock. One that runs leadloop writes `sync_runs`.
# In pg_locks, the keys of a two-key lock are classid and objid, and its objsubid is 2; those of a
# lock with one key are its halves, and its objsubid is 1.
_FOREIGN_HOLDERS = text("""
SELECT DISTINCT session.pid, quote_ident(session.usename) AS role, own.name
  FROM pg_locks AS held JOIN pg_stat_activity AS session USING (pid)
  JOIN unnest(CAST(:names AS text[])) AS own (name)
    ON CAST(CASE held.objsubid WHEN 1 THEN held.objid ELSE held.classid END AS bigint)
       = CAST(hashtext(own.name) AS bigint) & 4294967295
 WHERE held.locktype = 'advisory' AND held.granted
   AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND NOT has_table_privilege(session.usesysid, 'leadloop.sync_runs', 'INSERT')
 ORDER BY session.pid, own.name
""")
#: The names of leadloop's advisory locks.
LOCK_NAMES = (
    *(
        "leadloop.run",
        "leadloop.source",
        "leadloop.opt_outs",
        "leadloop.forget",
        "leadloop.login",
        "leadloop.init",
    ),
    *("leadloop.fold", "leadloop.live.place", "leadloop.live.share", "leadloop.live.session"),
)
_HIDDEN = text("""
SELECT array_agg(CAST(oid AS regclass)::text ORDER BY oid) FROM pg_class
 WHERE relnamespace = to_regnamespace('leadloop') AND relkind IN ('r', 'p')
   AND row_security_active(oid)
""")
_LOG = text("""
SELECT current_setting('log_error_verbosity') AS verbosity,
       current_setting('log_min_error_statement') AS statements, quote_ident(current_user) AS login
""")
# The levels of log_min_error_statement at which a failed statement is not logged.
_QUIET_LEVELS = ("fatal", "panic")


def find_short_limit(connection: Connection, needed: int) -> str | None:
    """Describe the tightest limit of connections that leaves fewer free than are needed, if any."""
    limit = connection.execute(_LIMITS).one()
    free = limit.free + 1  # this connection ends before a run begins
    if free >= needed:
        return None
    return f"{limit.kind} is {limit.size}, of which {max(0, free)} are free"


def list_overridden_defaults(connection: Connection) -> list[str]:
    """List the defaults of the database or this role that leadloop's sessions override."""
    return [name for name in connection.scalars(_DEFAULTS) if name in OVERRIDDEN]


def is_read_only(connection: Connection) -> bool:
    """Return whether this session can write nothing: on a standby, or by a default."""
    return bool(connection.scalar(text("SHOW transaction_read_only")) == "on")


def list_hidden_tables(connection: Connection) -> list[str]:
    """List leadloop's tables of which row level security may hide rows from this login."""
    return connection.scalar(_HIDDEN) or []


def describe_insecure_transport(connection: Connection) -> str | None:
    """Describe why the connection is not safe from others on the network; None if it is."""
    driver: Any = connection.connection.driver_connection
    return assess_transport(
        driver.info.host or "",
        is_encrypted=driver.info.ssl_in_use,
        mode=driver.get_dsn_parameters().get("sslmode", "prefer"),
    )


def assess_transport(host: str, *, is_encrypted: bool, mode: str) -> str | None:
    """Describe why a connection to a host is not safe from others on the network; None if it is.

    Args:
        host: a name, an address, or the directory of a socket; empty: the default socket.
        is_encrypted: whether TLS is in use.
        mode: libpq's sslmode.
    """
    if not host or host.startswith("/") or is_loopback(host):
        return None
    if not is_encrypted:
        return "is not encrypted: others on the network can read names and numbers"
    if mode != "verify-full":
        return f"does not verify the server (sslmode={mode}): another one could answer in its place"
    return None


def describe_logged_rows(connection: Connection) -> str | None:
    """Describe which settings let Postgres's own log repeat rows, with the remedy; None: none."""
    log = connection.execute(_LOG).one()
    wanted = {}
    if log.verbosity != "terse":
        wanted["log_error_verbosity"] = "terse"
    if log.statements not in _QUIET_LEVELS:
        wanted["log_min_error_statement"] = "panic"
    if not wanted:
        return None
    statements = [f"ALTER ROLE {log.login} SET {name} = {value}" for name, value in wanted.items()]
    return (
        "if a statement fails, Postgres's log may repeat rows, with names and numbers: have a"
        f" superuser run {'; '.join(statements)}"
    )


def list_foreign_lock_holders(connection: Connection) -> list[str]:
    """Describe sessions that hold a lock of leadloop, with a role that does not run leadloop."""
    rows = connection.execute(_FOREIGN_HOLDERS, {"names": list(LOCK_NAMES)})
    return [f"pid {row.pid} of the role {row.role} ({row.name})" for row in rows]
