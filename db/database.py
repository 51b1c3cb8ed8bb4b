"""Connections to Postgres, and errors that do not repeat row data."""

import logging
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import unquote

import psycopg2
from psycopg2.extensions import make_dsn
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, PendingRollbackError

from db.connection_refusals import find_refusal
from db.session_settings import configure_session, open_connection
from leadloop.core.errors import LeadloopError, RunError

__all__ = [
    "Connection",
    "Database",
    "DatabaseError",
    "InvalidDatabaseUrl",
    "normalise_url",
    "require_url",
]

P = ParamSpec("P")
T = TypeVar("T")

# At DEBUG SQLAlchemy logs every row that it reads, in spite of `hide_parameters`.
logging.getLogger("sqlalchemy.engine.Engine").addFilter(
    lambda record: record.levelno > logging.DEBUG
)

_CONNECT = {
    "connect_timeout": 10,
    "application_name": "leadloop",
    # TCP keepalive: a vanished server is detected within a minute instead of hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
#: A multiple of `lock_timeout`, seconds.
_POOL_TIMEOUT_S = 120.0
_RETRY_WAITS_S = (0.2, 1.0, 3.0)
#: Serialization failure, deadlock, lock timeout: a conflict with another transaction.
_CONFLICTS = ("40001", "40P01", "55P03")
_SCHEMA_MISMATCH = (
    "a table or column of the leadloop schema is missing, or another version of leadloop has"
    " changed it: `leadloop doctor` compares the versions; see"
    " docs/how-to/operate.md#a-table-or-column-is-missing"
)
_ADVICE = {
    "55P03": "another connection has held a lock for too long: end it (pg_locks shows which, and"
    " `leadloop doctor` those of other roles) and run the command again",
    "40P01": "another connection locks the same rows in another order: run the command again",
    "42501": "this role lacks a privilege; docs/how-to/grant-permissions.md lists them all",
    "42P01": _SCHEMA_MISMATCH,
    "42703": _SCHEMA_MISMATCH,
    "25006": "the session is read-only: the server is a standby (set {setting} to the primary), or"
    " default_transaction_read_only is on for the role, the database or the server",
    "53100": "the server's disk is full: free some space",
}


# A password may hold a comma, but not an `@`, which ends the login.
_SEVERAL_HOSTS = re.compile(r"(\w[\w+]*://(?:[^/?#@]*@)?)([^/?#@]+,[^/?#@]*)((?:[/?#].*)?)", re.S)
# NUL and bytes that were no UTF-8 in any part; control characters in the parts that messages name.
_UNSENDABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::(\d{0,5}))?")
_ENCODE = "write @ : / ? in the user or the password as %40 %3A %2F %3F"
#: Patterns in the client's own messages, which are English, and our wording. The server's messages
#: may be in any language: `find_refusal` has their SQLSTATE.
_CONNECTION_ERRORS = (
    ("session is ", "no server is as target_session_attrs in the URL requires"),
    ("hot standby", "no server is as target_session_attrs in the URL requires"),
    ("does not support SSL", "the server has no TLS, which sslmode in the URL requires"),
    ("certificate", "invalid TLS certificate, of the server or in a file that the URL names"),
    ("no password supplied", "the server requires a password"),
    ("Connection refused", "connection refused"),
    ("could not translate host name", "unknown host"),
    ("No such file or directory", "no such socket"),
    ("timeout expired", "timeout"),
    ("closed the connection", "the connection was cut"),
    ("connection has been closed", "the connection was cut"),
    ("invalid transaction", "the connection was cut"),
    ("invalid", "an option in the URL has an invalid value"),
)


class DatabaseError(RunError):
    """Postgres rejected a statement or cannot be reached.

    The message is redacted: the SQLSTATE and the constraint's name, never Postgres's own message,
    which repeats whole rows.
    """

    def __init__(self, message: str, *, sqlstate: str | None, disconnected: bool) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.disconnected = disconnected

    @property
    def is_transient(self) -> bool:
        """Whether a retry of the same transaction may succeed."""
        return self.disconnected or self.sqlstate in _CONFLICTS


class InvalidDatabaseUrl(LeadloopError):
    """A text that is not the URL of a Postgres database."""


def normalise_url(text: str) -> URL:
    """Normalise the URL for SQLAlchemy with psycopg2: `postgres://`, `postgresql://` and others.

    Raises:
        InvalidDatabaseUrl: not a Postgres URL. The message omits the URL, which may hold a
            password.
    """
    single_host, hosts = _take_hosts(text)
    try:
        url = make_url(single_host).update_query_dict(hosts)
    except ArgumentError:
        raise InvalidDatabaseUrl("not a URL; write postgresql://user@host:5432/database") from None
    except ValueError:
        raise InvalidDatabaseUrl(f"its port is not a number; {_ENCODE}") from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise InvalidDatabaseUrl("it is not Postgres; write postgresql://user@host:5432/database")
    if text.count("@") > 1 or "@" in f"{url.host}{url.database}":
        raise InvalidDatabaseUrl(f"the end of its login is ambiguous; {_ENCODE}")
    if not 1 <= (url.port or 5432) <= 65535:
        raise InvalidDatabaseUrl("its port is not between 1 and 65535")
    named = f"{url.host}{url.database}"
    if _CONTROL.search(named) or _UNSENDABLE.search(
        f"{named}{url.username}{url.password}{dict(url.query)}"
    ):
        raise InvalidDatabaseUrl("it holds a character that no name, password or host has")
    for option in url.query:
        try:
            make_dsn(**{option: "1"})
        except psycopg2.Error:
            raise InvalidDatabaseUrl(
                f"Postgres has no option {option!r}; remove it, or use a valid one such as"
                " sslmode=require"
            ) from None
    return url.set(drivername="postgresql+psycopg2")


def _take_hosts(text: str) -> tuple[str, dict[str, str]]:
    """Move several hosts, as in `host1:5432,host2/database`, to the options `host` and `port`.

    libpq tries them in this order, and SQLAlchemy does not parse them.
    """
    found = _SEVERAL_HOSTS.fullmatch(text)
    if found is None:
        return text, {}
    start, hosts, rest = found.groups()
    pairs = [_HOST.fullmatch(host) for host in hosts.split(",")]
    if not all(pairs):
        raise InvalidDatabaseUrl(f"its port is not a number; {_ENCODE}")
    names, ports = zip(*((unquote(pair[1]), pair[2] or "") for pair in pairs if pair), strict=True)
    if not all(port == "" or 1 <= int(port) <= 65535 for port in ports):
        raise InvalidDatabaseUrl("its port is not between 1 and 65535")
    options = {"host": ",".join(name.strip("[]") for name in names)}
    return start + rest, options | ({"port": ",".join(ports)} if any(ports) else {})


def require_url(text: str, setting: str) -> URL:
    """Normalise the URL in a setting.

    Raises:
        InvalidDatabaseUrl: not a Postgres URL; the message names the setting.
    """
    try:
        return normalise_url(text)
    except InvalidDatabaseUrl as error:
        raise InvalidDatabaseUrl(f"{setting} is wrong: {error}") from None


class Database:
    """A connection pool for one Postgres database.

    Args:
        url: the database's URL.
        pool_size: maximum number of open connections.
        setting: the environment variable that holds the URL, for messages.

    Raises:
        InvalidDatabaseUrl: not a Postgres URL.
    """

    def __init__(self, url: str, *, pool_size: int, setting: str = "LEADLOOP_DATABASE_URL") -> None:
        self._setting = setting
        self._url = require_url(url, setting)
        # Options in the URL override ours.
        self._connect_args = {k: v for k, v in _CONNECT.items() if k not in self._url.query}
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._connections_lock = threading.Lock()
        self._engine = self._create_engine(pool_size)
        # For single statements: without BEGIN and COMMIT, a third of the round trips.
        self._single = self._create_engine(pool_size, isolation_level="AUTOCOMMIT")

    def _create_engine(self, pool_size: int, **options: str) -> Engine:
        engine = create_engine(
            self._url,
            pool_size=pool_size,
            max_overflow=0,
            # More threads than connections may claim at once, and each may wait for a lock.
            pool_timeout=_POOL_TIMEOUT_S,
            hide_parameters=True,
            connect_args=self._connect_args,
            **options,
        )
        event.listen(engine, "do_connect", _open_connection)
        # First: SQLAlchemy's own listener reads settings.
        event.listen(engine, "connect", self._configure_session, insert=True)
        return engine

    def _configure_session(self, connection: Any, _: object) -> None:
        with self._connections_lock:
            self._connections.add(connection)
        configure_session(connection)

    def cut_connections(self) -> None:
        """Cut all open connections, so that statements that wait for Postgres fail; thread-safe."""
        with self._connections_lock:
            connections = list(self._connections)
        for connection in connections:
            # A copy of the descriptor: libpq closes its own once it has seen the end.
            with (
                suppress(psycopg2.Error, OSError),
                socket.socket(fileno=os.dup(connection.fileno())) as copy,
            ):
                copy.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        """Return the database; the end of the block closes the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._single.dispose()

    @property
    def display_name(self) -> str:
        """Host, port and name for messages, without a password."""
        host = self._url.host or self._url.query.get("host") or "local socket"
        port = f":{self._url.port}" if self._url.port else ""
        return f"{host}{port}/{self._url.database or ''}"

    @property
    def address(self) -> str:
        """The URL for messages: without password, and without options but host and port."""
        places = {
            name: self._url.query[name] for name in ("host", "port") if name in self._url.query
        }
        shown = URL.create(
            "postgresql",
            username=self._url.username,
            host=self._url.host,
            port=self._url.port,
            database=self._url.database,
            query=places,
        )
        return shown.render_as_string().replace("%2F", "/")

    def sibling_url(self, name: str, driver: str) -> str:
        """Return the URL, password included, of another database on the same server."""
        url = self._url.set(drivername=driver, database=name)
        return url.render_as_string(hide_password=False)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction: committed at the end of the block, rolled back on an exception.

        Raises:
            DatabaseError: Postgres rejected a statement or cannot be reached.
        """
        with self.translate_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Open a connection in autocommit mode: for session-level advisory locks or one statement.

        Raises:
            DatabaseError: Postgres rejected a statement or cannot be reached.
        """
        with self.translate_errors(), self._single.connect() as connection:
            yield connection

    @contextmanager
    def dedicated(self) -> Iterator[Connection]:
        """Open a connection for several transactions (`connection.begin()`), outside of the pool.

        The end of the block closes the connection with its temporary tables and session state.

        Raises:
            DatabaseError: Postgres rejected a statement or cannot be reached.
        """
        with self.translate_errors(), self._engine.connect() as connection:
            connection.detach()
            yield connection

    def run(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(connection, *args, **kwargs)` once, in its own transaction.

        Raises:
            DatabaseError: Postgres rejected a statement, or cannot be reached.
        """
        with self.transaction() as connection:
            return work(connection, *args, **kwargs)

    def retry(self, work: Callable[[Connection], T], *, single_statement: bool = False) -> T:
        """Run `work` in a transaction; retry up to three times on transient errors.

        Args:
            work: must be idempotent: the commit on a lost connection may have succeeded.
            single_statement: `work` executes exactly one statement, so it runs in autocommit mode.

        Raises:
            DatabaseError: Postgres rejected a statement, or the last retry failed.
        """
        open_connection = self.autocommit if single_statement else self.transaction
        for wait_s in _RETRY_WAITS_S:
            try:
                with open_connection() as connection:
                    return work(connection)
            except DatabaseError as error:
                if not error.is_transient:
                    raise
            time.sleep(wait_s)
        with open_connection() as connection:
            return work(connection)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate the driver's errors into `DatabaseError`, for an `autocommit` held open.

        Raises:
            DatabaseError: Postgres rejected a statement or cannot be reached.
        """
        try:
            yield
        except PendingRollbackError as error:
            # An earlier statement found the connection lost.
            raise self._translate_error(error, disconnected=True) from None
        except DBAPIError as error:
            raise self._translate_error(
                error.orig, disconnected=error.connection_invalidated
            ) from None
        except psycopg2.Error as error:
            raise self._translate_error(
                error, disconnected=isinstance(error, psycopg2.InterfaceError)
            ) from None

    def _translate_error(self, error: BaseException | None, *, disconnected: bool) -> DatabaseError:
        sqlstate = getattr(error, "pgcode", None)
        if sqlstate is None:
            return DatabaseError(
                self._describe_connection_error(str(error)), sqlstate=None, disconnected=True
            )
        diagnosis = getattr(error, "diag", None)
        constraint = getattr(diagnosis, "constraint_name", None)
        about = f", constraint {constraint}" if constraint else ""
        advice = _ADVICE.get(sqlstate, "").format(setting=self._setting)
        return DatabaseError(
            f"Postgres refused: {type(error).__name__} (SQLSTATE {sqlstate}{about})"
            + (f": {advice}" if advice else ""),
            sqlstate=sqlstate,
            disconnected=disconnected or _ends_session(sqlstate, diagnosis),
        )

    def _describe_connection_error(self, libpq_message: str) -> str:
        """Describe why there is no connection, in our wording: libpq's may repeat anything."""
        known = next((ours for text, ours in _CONNECTION_ERRORS if text in libpq_message), None)
        if known is None:
            _, options = self._engine.dialect.create_connect_args(self._url)
            if refusal := find_refusal({**options, **self._connect_args}):
                return (
                    f"Postgres at {self.address} refuses the connection:"
                    f" {refusal.describe(self._setting)}"
                )
        return (
            f"cannot reach Postgres at {self.address}: {known or 'the connection failed'};"
            f" check that the server runs and that {self._setting} is correct"
        )


def _open_connection(_dialect: Any, _record: Any, _args: Any, options: Mapping[str, Any]) -> Any:
    return open_connection(options)


def _ends_session(sqlstate: str, diagnosis: Any) -> bool:
    """Return whether an error ended our session.

    A foreign server's errors have the same SQLSTATEs, but do not end it: their severity is ERROR.
    """
    severity = getattr(diagnosis, "severity_nonlocalized", None)
    if severity is not None:
        return severity in ("FATAL", "PANIC")
    # A pooler's error. Class 08 is a broken connection, 57P a server that was shut down.
    return sqlstate.startswith(("08", "57P"))
