"""Connections to Postgres, and errors from it that repeat no row."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TypeVar

import psycopg2
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from leadloop.core.errors import LeadloopError, RunError

__all__ = ["Connection", "Database", "DatabaseError", "InvalidUrl", "normalised"]

T = TypeVar("T")

# At DEBUG SQLAlchemy logs every row that it reads; `hide_parameters` does not keep it from that.
logging.getLogger("sqlalchemy.engine.Engine").addFilter(
    lambda record: record.levelno > logging.DEBUG
)

_CONNECT = {"connect_timeout": 10, "application_name": "leadloop"}
_RECONNECT_AFTER_S = (0.2, 1.0, 3.0)


class DatabaseError(RunError):
    """Postgres refused or was not there.

    The message holds the SQLSTATE and the constraint's name, never Postgres's own words, which
    repeat whole rows.
    """

    def __init__(self, message: str, *, sqlstate: str | None, disconnected: bool) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.disconnected = disconnected


class InvalidUrl(LeadloopError):
    """The text is not the URL of a Postgres database."""


def normalised(text: str) -> URL:
    """The URL for SQLAlchemy with psycopg2, from any spelling that people use.

    Raises:
        InvalidUrl: not a Postgres URL. The message does not repeat it: it may hold a password.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        raise InvalidUrl("not a URL; write postgresql://user@host:5432/database") from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise InvalidUrl(f"{url.drivername}:// is not Postgres; write postgresql://…")
    return url.set(drivername="postgresql+psycopg2")


class Database:
    """A pool of connections; `begin` is the one way to a transaction."""

    def __init__(self, url: str, *, connections: int) -> None:
        self._url = normalised(url)
        self._engine = create_engine(
            self._url,
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,
            connect_args=_CONNECT,
        )
        # For single statements: no BEGIN and no COMMIT, a third of the ways there and back.
        self._single = create_engine(
            self._url,
            pool_size=connections,
            max_overflow=0,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args=_CONNECT,
        )

    def __enter__(self) -> Self:
        """The database; the pool is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._single.dispose()

    @property
    def place(self) -> str:
        """Host, port and name for messages, without a password."""
        host = self._url.host or self._url.query.get("host") or "local socket"
        port = f":{self._url.port}" if self._url.port else ""
        return f"{host}{port}/{self._url.database or ''}"

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back on an exception.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self._plain_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection that commits each statement: for a session's lock, or one statement.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self._plain_errors(), self._single.connect() as connection:
            yield connection

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """For work on a `session` that outlives the block: its errors as those of `session`.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self._plain_errors():
            yield

    def insist(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, again on a new connection if this one was cut.

        For work that may be repeated: the commit of a cut connection may have happened.

        Raises:
            DatabaseError: Postgres refused, or stayed away for some seconds.
        """
        for pause_s in _RECONNECT_AFTER_S:
            try:
                with self.begin() as connection:
                    return work(connection)
            except DatabaseError as error:
                if not error.disconnected:
                    raise
            time.sleep(pause_s)
        with self.begin() as connection:
            return work(connection)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._plain(error.orig, error.connection_invalidated) from None
        except psycopg2.Error as error:
            raise self._plain(error, isinstance(error, psycopg2.InterfaceError)) from None

    def _plain(self, error: BaseException | None, disconnected: bool) -> DatabaseError:
        sqlstate = getattr(error, "pgcode", None)
        diagnosis = getattr(error, "diag", None)
        constraint = getattr(diagnosis, "constraint_name", None)
        if sqlstate is None:
            reason = _connection_trouble(error)
            return DatabaseError(
                f"cannot reach Postgres at {self.place}: {reason}; is it running, and is"
                " LEADLOOP_DATABASE_URL right?",
                sqlstate=None,
                disconnected=True,
            )
        about = f", constraint {constraint}" if constraint else ""
        return DatabaseError(
            f"Postgres refused: {type(error).__name__} (SQLSTATE {sqlstate}{about})",
            sqlstate=sqlstate,
            # Class 08 is a broken connection, 57P a server or a session that was shut down.
            disconnected=disconnected or sqlstate.startswith(("08", "57P")),
        )


_TROUBLES = (
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
)


def _connection_trouble(error: BaseException | None) -> str:
    """A few words of ours for libpq's, which may repeat anything."""
    text = str(error)
    return next((ours for theirs, ours in _TROUBLES if theirs in text), "the connection failed")
