"""Why Postgres refuses a connection: the SQLSTATE, which no driver passes on, and our wording.

libpq gives the reason as text alone, in the server's language. But it includes the SQLSTATE if it
is asked to before it reads the response. psycopg2 cannot ask; it shows the address of libpq's
connection, by which libpq's own function can.
"""

import ctypes
import re
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import _psycopg, extensions

# A handle of the driver's library finds the functions of the libpq that it is linked to.
_LIBPQ = ctypes.CDLL(_psycopg.__file__)
_LIBPQ.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
_VERBOSE = 2
# In the verbose form "SEVERITY:  SQLSTATE: text", and "LOCATION:  function, file.c:line".
_CODE = re.compile(r"\s([0-9A-Z]{5}): ")
_FUNCTION = re.compile(r"^\S+:\s+(\w+), \w+\.c:\d+$", re.M)
_TIMEOUT_S = 10.0

#: The settings that decide how many connections a run opens, for messages.
CONNECTIONS_OF_RUN = "a run opens up to 2 × (LEADLOOP_CONCURRENCY + 4) connections"
_LIMITS = {
    "InitializeSessionUserId": "the role has reached its CONNECTION LIMIT",
    "CheckMyDatabase": "the database has reached its CONNECTION LIMIT",
    "InitProcess": "the server has reached max_connections",
    "InitPostgres": "the server has reached max_connections",
}
_ANY_LIMIT = "the role, the database, the server or a pooler has reached its limit of connections"
_TOO_MANY = "53300"
_REASONS = {
    "28P01": "wrong user or password; correct {setting}",
    "28000": "no such user, or pg_hba.conf does not admit the user from this machine or without"
    " TLS; correct {setting}, or have the administrator admit it",
    "3D000": "no such database; correct {setting}",
    "42501": "the user may not connect to this database: GRANT CONNECT ON DATABASE",
    "57P03": "the server is starting up or shutting down; run the command again",
    "55000": "the database accepts no connections (ALLOW_CONNECTIONS false)",
}


@dataclass(frozen=True, kw_only=True)
class ConnectionRefusal:
    """The SQLSTATE of a refusal, and the function of the server that raised it, if it is known."""

    sqlstate: str
    function: str | None

    def describe(self, setting: str) -> str:
        """Return the reason and the remedy in one line.

        Args:
            setting: the variable that holds the database's URL.
        """
        if self.sqlstate == _TOO_MANY:
            limit = _LIMITS.get(self.function or "", _ANY_LIMIT)
            return f"{limit}, and {CONNECTIONS_OF_RUN}: raise the limit, or lower the setting"
        reason = _REASONS.get(self.sqlstate, "correct {setting}, or ask the administrator")
        return f"{reason.format(setting=setting)} (SQLSTATE {self.sqlstate})"


def find_refusal(options: Mapping[str, Any]) -> ConnectionRefusal | None:
    """Connect once more to learn the SQLSTATE of a refusal.

    Args:
        options: libpq's connection parameters.

    Returns:
        The refusal; None if the server accepts this time, or gives no SQLSTATE.
    """
    try:
        connection = psycopg2.connect(**options, async_=True)
    except psycopg2.Error:
        return None
    try:
        _LIBPQ.PQsetErrorVerbosity(connection.pgconn_ptr, _VERBOSE)
        _wait_until_connected(connection)
    except (psycopg2.Error, TimeoutError) as error:
        # With sslmode=prefer there are two attempts, of which the last one counts.
        codes, functions = _CODE.findall(str(error)), _FUNCTION.findall(str(error))
        if not codes:
            return None
        return ConnectionRefusal(sqlstate=codes[-1], function=functions[-1] if functions else None)
    finally:
        connection.close()
    return None


def _wait_until_connected(connection: Any) -> None:
    """Wait for the end of an asynchronous attempt to connect.

    Raises:
        psycopg2.Error: the server refuses the connection, or cannot be reached.
        TimeoutError: it has not answered within ten seconds.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while (state := connection.poll()) != extensions.POLL_OK:
        sockets = [connection]
        readable = sockets if state == extensions.POLL_READ else []
        writable = sockets if state == extensions.POLL_WRITE else []
        if not any(select.select(readable, writable, [], max(0, deadline - time.monotonic()))):
            raise TimeoutError
