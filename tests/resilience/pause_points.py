"""Points at which a test can pause a process: in a statement, or in a request."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, text

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import sql
from tests.waiting import wait_until

LOCK_KEY = 4711
_WAITING_QUERY = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
 WHERE locktype = 'advisory' AND objid = :key AND NOT granted AND datname = current_database()
"""
_FUNCTION = f"""
CREATE OR REPLACE FUNCTION public.wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock({LOCK_KEY}); RETURN NEW; END $$
"""


class Pause(Protocol):
    """A pause that a process runs into; `backend` is the connection that holds it, or 0."""

    backend: int

    def wait(self) -> None:
        """Wait until a process has run into the pause."""

    def release(self) -> None:
        """Let every paused process continue."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A change of rows that meet a condition; `at_commit` pauses just before the commit."""

    change: str
    table: str
    when: str = "true"
    at_commit: bool = False

    @contextmanager
    def install(self, database: Database, _: SandboxHandle) -> Iterator[Pause]:
        """Pause every process that executes the statement, for the block."""
        kind, moment = ("CONSTRAINT ", "AFTER") if self.at_commit else ("", "BEFORE")
        late = "DEFERRABLE INITIALLY DEFERRED" if self.at_commit else ""
        sql.execute(database, _FUNCTION)
        sql.execute(
            database,
            f"CREATE {kind}TRIGGER paused {moment} {self.change} ON leadloop.{self.table} {late}"
            f" FOR EACH ROW WHEN ({self.when}) EXECUTE FUNCTION public.wait_for_test()",
        )
        with database.autocommit() as connection:
            connection.execute(text(f"SELECT pg_advisory_lock({LOCK_KEY})"))
            pause = _PausedStatement(database, connection)
            yield pause
            pause.release()
        sql.execute(database, f"DROP TRIGGER paused ON leadloop.{self.table}")


class _PausedStatement:
    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection
        self.backend: int = connection.scalar(text("SELECT pg_backend_pid()")) or 0

    def wait(self) -> None:
        wait_until(
            lambda: sql.fetch_value(self._database, _WAITING_QUERY, key=LOCK_KEY),
            "no process has run into the pause",
        )

    def release(self) -> None:
        self._connection.execute(text("SELECT pg_advisory_unlock_all()"))


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request without a timely response: before its effect, after it, or slow."""

    route: str
    kind: str = "hang"
    when: str = "before"
    nth: int = 1
    seconds: float = 60.0

    @contextmanager
    def install(self, _: Database, vendor: SandboxHandle) -> Iterator[Pause]:
        """Pause every process that sends the request, for the block."""
        fault: dict[str, Any] = {"kind": self.kind, "when": self.when, "seconds": self.seconds}
        vendor.add_fault(route=self.route, nth=self.nth, **fault)
        yield _PausedRequest(vendor)
        vendor.clear_faults()


class _PausedRequest:
    backend = 0

    def __init__(self, vendor: SandboxHandle) -> None:
        self._vendor = vendor

    def wait(self) -> None:
        wait_until(
            lambda: any(fault["fired"] for fault in self._vendor.faults),
            "no request has run into the pause",
        )

    def release(self) -> None:
        """Do nothing: the pause ends by itself, or with its client."""


PausePoint = Statement | Request
