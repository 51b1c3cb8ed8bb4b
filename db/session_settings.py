"""Server settings of every session, whatever the server, the database, the role or the URL sets."""

import re
from collections.abc import Mapping
from typing import Any

import psycopg2

# Separate statements, since poolers reject startup options that they do not know.
# - search_path: names resolve in Postgres's own schema only. Any role that may create a function in
#   another schema (in Postgres 14 every role, in `public`) could otherwise make ours call it.
# - isolation: a claim skips locked rows and reads the newest version of a row (READ COMMITTED).
# - nulls: our statements are written for the SQL standard's rules.
# - formats and time zone: the driver parses intervals and times; a time without a zone is UTC.
# - timeouts: a run waits for its vendor, holds a lock while it lives, and deletes in long
#   statements; no other transaction waits for it longer than a statement takes.
# - synchronous_commit: no lead is sent before its intent is on disk. Stronger values stay.
# - jit: compiling takes up to 0.4 s, more than any of our statements gains.
# - tcp_*: the server drops the locks of a client whose host vanished within a minute instead of the
#   two hours of Linux. On a Unix socket they have no effect.
SESSION_SETTINGS = """
SET search_path = pg_catalog, pg_temp;
SET default_transaction_isolation = 'read committed';
SET transform_null_equals = off;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, MDY';
SET IntervalStyle = 'postgres';
SET bytea_output = 'hex';
SET extra_float_digits = 1;
SET lock_timeout = '30s';
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET idle_session_timeout = 0;
SET jit = off;
SET tcp_keepalives_idle = 30;
SET tcp_keepalives_interval = 10;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '60s';
SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
 WHERE pg_catalog.current_setting('synchronous_commit') = 'off';
"""
_SINCE_17 = "SET transaction_timeout = 0;"
#: The names of all settings that sessions override, in lower case.
OVERRIDDEN = frozenset(
    {
        "client_encoding",
        "standard_conforming_strings",
        "synchronous_commit",
        *re.findall(r"SET (\w+)", (_SINCE_17 + SESSION_SETTINGS).lower(), re.IGNORECASE),
    }
)


def open_connection(options: Mapping[str, Any]) -> Any:
    """Connect with psycopg2, and with strings by the SQL standard.

    psycopg2 quotes values by the setting that it finds at the start of a session. So the setting
    is no matter of a later statement. It is a startup option only where it is needed: some poolers
    reject those.

    Args:
        options: libpq's connection parameters.

    Raises:
        psycopg2.Error: Postgres refuses the connection or cannot be reached.
    """
    connection = psycopg2.connect(**options)
    if connection.get_parameter_status("standard_conforming_strings") != "off":
        return connection
    connection.close()
    more = f"{options.get('options', '')} -c standard_conforming_strings=on"
    return psycopg2.connect(**{**options, "options": more})


def configure_session(connection: Any) -> None:
    """Set the settings and the encoding of a psycopg2 connection that was just opened."""
    before = connection.autocommit
    connection.autocommit = True
    # By the driver, which decodes by the encoding that it has set itself.
    connection.set_client_encoding("UTF8")
    newer = _SINCE_17 if connection.server_version >= 170_000 else ""
    with connection.cursor() as cursor:
        cursor.execute(newer + SESSION_SETTINGS)
    connection.autocommit = before
