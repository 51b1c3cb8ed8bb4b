"""Moments at which a process can be held: in the middle of a statement, or of a request."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, text

from db.database import Database
from leadloop.sandbox import Handle
from tests import books
from tests.fire.processes import until

_KEY = 4711
_WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
 WHERE locktype = 'advisory' AND objid = :key AND NOT granted AND datname = current_database()
"""
_FUNCTION = f"""
CREATE OR REPLACE FUNCTION public.wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock({_KEY}); RETURN NEW; END $$
"""


class Hold(Protocol):
    """Something that a process runs into; `backend`: whose connection holds it, 0 if nobody's."""

    backend: int

    def wait(self) -> None:
        """Return when it has."""

    def release(self) -> None:
        """Let it, and everybody else, go on."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A change of a table whose rows meet a condition; `at_commit`: all done but the commit."""

    change: str
    table: str
    when: str = "true"
    at_commit: bool = False

    @contextmanager
    def set(self, database: Database, _: Handle) -> Iterator[Hold]:
        """Hold whoever does this from now on."""
        kind, moment = ("CONSTRAINT ", "AFTER") if self.at_commit else ("", "BEFORE")
        late = "DEFERRABLE INITIALLY DEFERRED" if self.at_commit else ""
        books.run(database, _FUNCTION)
        books.run(
            database,
            f"CREATE {kind}TRIGGER held {moment} {self.change} ON leadloop.{self.table} {late}"
            f" FOR EACH ROW WHEN ({self.when}) EXECUTE FUNCTION public.wait_for_the_test()",
        )
        with database.autocommit() as connection:
            connection.execute(text(f"SELECT pg_advisory_lock({_KEY})"))
            hold = _HeldStatement(database, connection)
            yield hold
            hold.release()
        books.run(database, f"DROP TRIGGER held ON leadloop.{self.table}")


class _HeldStatement:
    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection
        self.backend: int = connection.scalar(text("SELECT pg_backend_pid()")) or 0

    def wait(self) -> None:
        until(
            lambda: books.value(self._database, _WAITING, key=_KEY),
            "no statement came to where it would be held",
        )

    def release(self) -> None:
        self._connection.execute(text("SELECT pg_advisory_unlock_all()"))


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that the vendor does not answer: before it did anything, after it, or half."""

    route: str
    kind: str = "hang"
    when: str = "before"
    nth: int = 1
    seconds: float = 60.0

    @contextmanager
    def set(self, _: Database, vendor: Handle) -> Iterator[Hold]:
        """Hold whoever asks this from now on."""
        fault: dict[str, Any] = {"kind": self.kind, "when": self.when, "seconds": self.seconds}
        vendor.fault(route=self.route, nth=self.nth, **fault)
        yield _HeldRequest(vendor)
        vendor.clear_faults()


class _HeldRequest:
    backend = 0

    def __init__(self, vendor: Handle) -> None:
        self._vendor = vendor

    def wait(self) -> None:
        until(
            lambda: any(fault["fired"] for fault in self._vendor.faults),
            "no request came to where it would be held",
        )

    def release(self) -> None:
        """Nothing to do: it lasts for its own time, or until its caller is gone."""


Boundary = Statement | Request
