"""Places for live runs: who may work, who waits, and whether the one that works is alive.

Two advisory locks are the places, and one for each share of the campaigns shows who works on it.
All are held by one connection of a live run, so that they end with it. On that connection the run
looks for work at least every three seconds. Postgres keeps when that was (`pg_stat_activity`): no
row is written, and a process that hangs, or is cut off, is seen as well as one that has ended.

The locks only save work: what keeps a lead from being sent twice are claims and runs (`db.runs`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, text

from db.due_work import SHARES

P = ParamSpec("P")
T = TypeVar("T")

#: Live runs that may exist at a time: one works, the other waits to take over.
PLACES = 2
#: Seconds without a statement after which a live run counts as hung or cut off.
SILENCE_S = 10.0

_TAKE_PLACE = text(f"""
SELECT place FROM generate_series(1, {PLACES}) AS place
 WHERE pg_try_advisory_lock(hashtext('leadloop.live.place'), place) LIMIT 1
""")
# Only those that are free: a lock that is taken twice would have to be released twice. Postgres
# evaluates the conditions of an AND in any order, and those of a CASE in theirs.
_TAKE_SHARES = text(f"""
WITH lead AS MATERIALIZED (
    -- Who has share 0 takes the others: of two runs that begin together, one works, and one waits.
    SELECT CASE WHEN 0 = ANY(CAST(:held AS integer[])) THEN true
                ELSE pg_try_advisory_lock(hashtext('leadloop.live.share'), 0) END AS is_ours
)
SELECT share FROM lead CROSS JOIN generate_series(0, {SHARES - 1}) AS share
 WHERE CASE WHEN share = ANY(CAST(:held AS integer[])) OR NOT is_ours THEN false
            WHEN share = 0 THEN true
            ELSE pg_try_advisory_lock(hashtext('leadloop.live.share'), share) END
""")
_RELEASE_SHARES = text("""
SELECT pg_advisory_unlock(hashtext('leadloop.live.share'), share)
  FROM unnest(CAST(:held AS integer[])) AS share
""")
# A two-key advisory lock in pg_locks: its keys are classid and objid, and objsubid is 2.
_LOCKS = """
  FROM pg_locks AS held
 WHERE held.locktype = 'advisory' AND held.objsubid = 2 AND held.granted
   AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND held.classid = CAST(CAST(hashtext({}) AS bigint) & 4294967295 AS oid)
"""
_OTHERS = text(f"""
SELECT session.pid, session.application_name,
       -- Null for a login that may not see the other's session: then nobody is ended.
       coalesce(extract(epoch FROM clock_timestamp() - session.state_change), 0) AS silent_s,
       EXISTS (SELECT {_LOCKS.format("'leadloop.live.share'")} AND held.pid = session.pid)
           AS is_working
  FROM pg_stat_activity AS session
 WHERE session.pid IN (SELECT held.pid {_LOCKS.format("'leadloop.live.place'")})
   AND session.pid <> pg_backend_pid()
""")
# With its other connections, whose runs other runs can then recover.
_JOIN = text("SELECT pg_advisory_lock_shared(hashtext('leadloop.live.session'), :session)")
_END = text(f"""
SELECT pg_terminate_backend(pid) FROM (
    SELECT held.pid {_LOCKS.format("'leadloop.live.session'")} AND held.objid = CAST(:pid AS oid)
     UNION
    SELECT CAST(:pid AS integer)) AS session
""")
_PID = text("SELECT pg_backend_pid()")
_NAME = text("SELECT set_config('application_name', :name, false)")
_SAVEPOINT = text("SAVEPOINT look")
# Releases the locks of the tables that were read.
_FORGET = text("ROLLBACK TO SAVEPOINT look")
# Within a transaction, Postgres shows the sessions as they were when it was first asked.
_REFRESH = text("SELECT pg_stat_clear_snapshot()")


@dataclass(frozen=True, kw_only=True)
class LiveSession:
    """Another live run, as Postgres sees its connection.

    Attributes:
        pid: the process id of its backend.
        name: its name, as it has named itself.
        silent_s: seconds since its last look for work.
        is_working: whether it holds any share.
    """

    pid: int
    name: str
    silent_s: float
    is_working: bool

    @property
    def is_silent(self) -> bool:
        """Whether it hangs, or is cut off."""
        return self.silent_s > SILENCE_S


class PlaceConnection:
    """The connection of a live run, on which it looks for work and holds its place and its shares.

    Attributes:
        pid: the process id of its backend, by which others may end it.

    Args:
        connection: a dedicated connection, which bypasses a proxy that pools transactions.
        name: what others see of the run, up to 63 characters.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        connection.execute(_NAME, {"name": name})
        self.pid: int = connection.execute(_PID).scalar_one()
        connection.execute(_JOIN, {"session": self.pid})
        connection.commit()
        self._is_in_transaction = False

    def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function that reads, or that takes advisory locks of the session.

        Its transaction goes on until `write`, but holds neither a snapshot nor the lock of a table:
        a day of looks is no day of 30,000 transactions.
        """
        if not self._is_in_transaction:
            self._connection.execute(_SAVEPOINT)
            self._is_in_transaction = True
        found = work(self._connection, *args, **kwargs)
        self._connection.execute(_FORGET)
        return found

    def write(
        self, work: Callable[Concatenate[Connection, P], None], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Run a function and commit its effect, with the transaction of the reads before."""
        work(self._connection, *args, **kwargs)
        self._connection.commit()
        self._is_in_transaction = False


def join_session(connection: Connection, pid: int) -> None:
    """Let another connection of a live run end with it, if others end it."""
    connection.execute(_JOIN, {"session": pid})


def take_place(connection: Connection) -> int | None:
    """Take a place for as long as the connection lasts; None if all are taken."""
    place: int | None = connection.scalar(_TAKE_PLACE)
    return place


def take_free_shares(connection: Connection, held: Sequence[int]) -> list[int]:
    """Take the shares that nobody holds, for as long as the connection lasts; return them.

    None is taken while another live run holds share 0.
    """
    return list(connection.scalars(_TAKE_SHARES, {"held": list(held)}))


def release_shares(connection: Connection, held: Sequence[int]) -> None:
    """Release shares, so that a live run that waits takes them."""
    connection.execute(_RELEASE_SHARES, {"held": list(held)})


def list_other_sessions(connection: Connection) -> list[LiveSession]:
    """Return the other live runs."""
    connection.execute(_REFRESH)
    rows = connection.execute(_OTHERS)
    return [
        LiveSession(
            pid=row.pid,
            name=row.application_name,
            silent_s=float(row.silent_s),
            is_working=row.is_working,
        )
        for row in rows
    ]


def end_session(connection: Connection, pid: int) -> None:
    """End the connections of a live run that is silent: its locks are free, its runs dead."""
    connection.execute(_END, {"pid": pid})
