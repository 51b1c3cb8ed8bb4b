"""Connections to Postgres, and errors from it that repeat no row."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import psycopg2
from psycopg2.extensions import make_dsn
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, PendingRollbackError

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

# At DEBUG SQLAlchemy logs every row that it reads; `hide_parameters` does not keep it from that.
logging.getLogger("sqlalchemy.engine.Engine").addFilter(
    lambda record: record.levelno > logging.DEBUG
)

_CONNECT = {
    "connect_timeout": 10,
    "application_name": "leadloop",
    # A server that vanished without a word is noticed within a minute, not within hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# Statements of their own: poolers refuse what they do not know among a connection's first options.
# The same for the server's end: it drops the locks of a client whose host vanished within a minute,
# and not after the two hours that Linux waits. On a Unix socket they mean nothing and do no harm.
# No statement of ours takes so long that it is worth compiling, which itself takes up to 0.4 s.
# Names are looked up in Postgres's own schema alone: whoever may create a function in another one,
# in Postgres 14 everybody in `public`, could have ours call it.
_ON_CONNECT = """
SET search_path = pg_catalog, pg_temp;
SET lock_timeout = '30s';
SET jit = off;
SET tcp_keepalives_idle = 30;
SET tcp_keepalives_interval = 10;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '60s';
"""
_AGAIN_AFTER_S = (0.2, 1.0, 3.0)
#: Serialization failure, deadlock, lock timeout: another transaction was in the way.
_IN_THE_WAY = ("40001", "40P01", "55P03")
_NOT_WHOLE = "the leadloop schema lacks a part: restore it from a backup"
_WHAT_TO_DO = {
    "55P03": "another connection has held a lock for too long: end it (pg_locks shows which) and"
    " run this again",
    "40P01": "another connection locks the same rows in another order: run this again",
    "42501": "this role lacks a right: docs/how-to/connect-behind-a-pooler.md lists what it needs",
    "42P01": _NOT_WHOLE,
    "42703": _NOT_WHOLE,
    "25006": "the server is read-only, perhaps a standby: name the primary in {setting}",
    "53100": "the server's disk is full: free some space",
}


class DatabaseError(RunError):
    """Postgres refused or was not there.

    The message holds the SQLSTATE and the constraint's name, never Postgres's own words, which
    repeat whole rows.
    """

    def __init__(self, message: str, *, sqlstate: str | None, disconnected: bool) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.disconnected = disconnected

    @property
    def is_transient(self) -> bool:
        """Whether the same transaction may succeed the next time."""
        return self.disconnected or self.sqlstate in _IN_THE_WAY


class InvalidDatabaseUrl(LeadloopError):
    """The text is not the URL of a Postgres database."""


def normalise_url(text: str) -> URL:
    """The URL for SQLAlchemy with psycopg2, from any spelling that people use.

    Raises:
        InvalidUrl: not a Postgres URL. The message does not repeat it: it may hold a password.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise InvalidDatabaseUrl("not a URL; write postgresql://user@host:5432/database") from None
    except ValueError:
        raise InvalidDatabaseUrl(f"its port is not a number; {_ENCODE}") from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise InvalidDatabaseUrl("it is not Postgres; write postgresql://user@host:5432/database")
    if text.count("@") > 1 or "@" in f"{url.host}{url.database}":
        raise InvalidDatabaseUrl(f"it is not clear where its login ends; {_ENCODE}")
    if not 1 <= (url.port or 5432) <= 65535:
        raise InvalidDatabaseUrl("its port is not between 1 and 65535")
    for option in url.query:
        _require_known(option)
    return url.set(drivername="postgresql+psycopg2")


def require_url(text: str, setting: str) -> URL:
    """Return `normalised(text)`.

    Raises:
        InvalidUrl: not a Postgres URL; the message names the setting that the text comes from.
    """
    try:
        return normalise_url(text)
    except InvalidDatabaseUrl as error:
        raise InvalidDatabaseUrl(f"{setting} is wrong: {error}") from None


_ENCODE = "write @ : / ? in the user or the password as %40 %3A %2F %3F"


def _require_known(option: str) -> None:
    try:
        make_dsn(**{option: "1"})
    except psycopg2.Error:
        known = "such as sslmode=require"
        raise InvalidDatabaseUrl(
            f"Postgres knows no option {option!r}; remove it or write one {known}"
        ) from None


class Database:
    """A pool of connections; `begin` is the one way to a transaction.

    Args:
        url: of Postgres.
        connections: how many there may be at once.
        setting: the variable that the URL comes from, for messages.

    Raises:
        InvalidUrl: not a Postgres URL.
    """

    def __init__(self, url: str, *, pool_size: int, setting: str = "LEADLOOP_DATABASE_URL") -> None:
        self._setting = setting
        self._url = require_url(url, setting)
        self._engine = self._create_engine(pool_size)
        # For single statements: no BEGIN and no COMMIT, a third of the ways there and back.
        self._single = self._create_engine(pool_size, isolation_level="AUTOCOMMIT")

    def _create_engine(self, connections: int, **more: str) -> Engine:
        engine = create_engine(
            self._url,
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,
            # What the URL says wins.
            connect_args={k: v for k, v in _CONNECT.items() if k not in self._url.query},
            **more,
        )
        event.listen(engine, "connect", _on_connect)
        return engine

    def __enter__(self) -> Self:
        """The database; the pool is closed at the end of the block."""
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

    def sibling_url(self, name: str, driver: str) -> str:
        """The URL, with any password in it, of another database on the same server."""
        url = self._url.set(drivername=driver, database=name)
        return url.render_as_string(hide_password=False)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back on an exception.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection that commits each statement: for a session's lock, or one statement.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self._translated(), self._single.connect() as connection:
            yield connection

    @contextmanager
    def dedicated(self) -> Iterator[Connection]:
        """A connection for several transactions (`connection.begin()`), closed with all it made.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self._translated(), self._engine.connect() as connection:
            connection.detach()
            yield connection

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """For work on a `session` that outlives the block: its errors as those of `session`.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self._translated():
            yield

    def run(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(connection, *args, **kwargs)` once, in its own transaction.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self.transaction() as connection:
            return work(connection, *args, **kwargs)

    def retry(self, work: Callable[[Connection], T], *, single_statement: bool = False) -> T:
        """Run `work` in a transaction, again where it was cut or another one was in the way.

        Args:
            work: what may be repeated: the commit of a cut connection may have happened.
            single: it is one statement and no more, whose transaction needs no BEGIN and no COMMIT.

        Raises:
            DatabaseError: Postgres refused, or did so or stayed away several times.
        """
        connected = self.autocommit if single_statement else self.transaction
        for pause_s in _AGAIN_AFTER_S:
            try:
                with connected() as connection:
                    return work(connection)
            except DatabaseError as error:
                if not error.is_transient:
                    raise
            time.sleep(pause_s)
        with connected() as connection:
            return work(connection)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PendingRollbackError as error:
            # An earlier statement on it has met the end of this connection.
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
        diagnosis = getattr(error, "diag", None)
        constraint = getattr(diagnosis, "constraint_name", None)
        if sqlstate is None:
            reason = _describe_connection_error(error)
            return DatabaseError(
                f"cannot reach Postgres at {self.display_name}: {reason}; is it running, and is"
                f" {self._setting} right?",
                sqlstate=None,
                disconnected=True,
            )
        about = f", constraint {constraint}" if constraint else ""
        advice = _WHAT_TO_DO.get(sqlstate, "").format(setting=self._setting)
        return DatabaseError(
            f"Postgres refused: {type(error).__name__} (SQLSTATE {sqlstate}{about})"
            + (f": {advice}" if advice else ""),
            sqlstate=sqlstate,
            # Class 08 is a broken connection, 57P a server or a session that was shut down.
            disconnected=disconnected or sqlstate.startswith(("08", "57P")),
        )


def _on_connect(connection: Any, _: object) -> None:
    before = connection.autocommit
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(_ON_CONNECT)
    connection.autocommit = before


_TROUBLES = (
    ("does not support SSL", "it speaks no TLS, which sslmode in the URL asks for"),
    ("certificate", "its certificate, or the file of one that the URL names, is no good"),
    ("password authentication failed", "wrong user or password"),
    ("no password supplied", "it asks for a password"),
    ("Connection refused", "connection refused"),
    ("could not translate host name", "unknown host"),
    ("does not exist", "no such database or user"),
    ("No such file or directory", "no such socket"),
    ("timeout expired", "no answer"),
    ("too many clients", "it has no connection left"),
    ("starting up", "it is starting up"),
    ("terminating connection", "the connection was cut"),
    ("closed the connection", "the connection was cut"),
    ("invalid transaction", "the connection was cut"),
    ("invalid", "an option in the URL has a value that Postgres does not take"),
)


def _describe_connection_error(error: BaseException | None) -> str:
    """A few words of ours for libpq's, which may repeat anything."""
    text = str(error)
    return next((ours for theirs, ours in _TROUBLES if theirs in text), "the connection failed")
