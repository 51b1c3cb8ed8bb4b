"""Runs: a row written first, an advisory lock while the process lives, recovery of dead runs.

All rows of a flow run share one lock, on the number of its first row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from db.database import Database, DatabaseError
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.errors import RunError
from leadloop.core.plurals import format_count
from leadloop.core.postgres_json import dump_json

_OPEN = text("""
INSERT INTO leadloop.sync_runs (flow, campaign_id, flow_run_id, lock_id, account)
SELECT :flow, each.campaign_id, :flow_run, CAST(:lock AS bigint),
       coalesce(campaign.account, :account)
  FROM unnest(CAST(:campaigns AS text[])) WITH ORDINALITY AS each (campaign_id, place)
  LEFT JOIN leadloop.campaigns AS campaign USING (campaign_id)
 ORDER BY each.place
RETURNING campaign_id, run_id
""")
_CLOSE = text("""
UPDATE leadloop.sync_runs
   SET state = :state, ended_at = clock_timestamp(), counts = CAST(:counts AS jsonb), error = :error
 WHERE run_id = :run AND state = 'running'
""")
_LOCK = text("SELECT pg_try_advisory_lock(hashtext('leadloop.run'), CAST(:lock AS int))")
# A two-key advisory lock in pg_locks: its keys are classid and objid, and objsubid is 2.
_HOLDER = text("""
SELECT session.pid, session.usename
  FROM pg_locks AS held JOIN pg_stat_activity AS session USING (pid)
 WHERE held.locktype = 'advisory' AND held.objsubid = 2 AND held.granted
   AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND held.classid = CAST(CAST(hashtext('leadloop.run') AS bigint) & 4294967295 AS oid)
   AND held.objid = CAST(CAST(:lock AS bigint) AS oid)
 LIMIT 1
""")
# Nobody but a run takes the lock of its number. A number whose lock is taken is passed over.
_MAX_NUMBERS = 5
_STATE = text("SELECT state FROM leadloop.sync_runs WHERE run_id = :run")

_TRY_LOCK = """pg_try_advisory_xact_lock(hashtext('leadloop.run'),
                                 CAST(coalesce(lock_id, run_id) AS int))"""
# A `running` run whose advisory lock is free is dead.
_DEAD = text(f"""
SELECT run_id FROM leadloop.sync_runs
 WHERE state = 'running' AND coalesce(lock_id, run_id) IS DISTINCT FROM CAST(:lock AS bigint)
   AND {_TRY_LOCK}
 ORDER BY run_id
""")
# The inverse check, by Prefect's ids of flow runs.
_ALIVE = text(f"""
SELECT DISTINCT flow_run_id FROM leadloop.sync_runs
 WHERE state = 'running' AND flow_run_id = ANY(:flow_runs) AND NOT {_TRY_LOCK}
""")
# The lock is kept to the end of the transaction, so that two runs do not recover the same one.
_MARK_CRASHED = text(f"""
UPDATE leadloop.sync_runs
   SET state = 'crashed', ended_at = clock_timestamp(),
       error = 'the process of the run ended unexpectedly; a later run found it'
 WHERE state = 'running' AND run_id = :run AND {_TRY_LOCK}
""")
# The start of a run does not wait for a transaction that locks leads of the dead run.
_SHORT_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '1s'")
_MARK_UNANSWERED = text("""
WITH unanswered AS (
    SELECT campaign_id, lead_id FROM leadloop.leads
     WHERE status = 'sending' AND run_id = :run
       AND campaign_id = (SELECT campaign_id FROM leadloop.sync_runs WHERE run_id = :run)
     ORDER BY lead_id FOR NO KEY UPDATE
)
UPDATE leadloop.leads AS lead
   SET status = 'in_doubt', last_error = 'the run that sent it ended before the answer',
       doubted_at = clock_timestamp(), looked_up_at = NULL
  FROM unanswered
 WHERE lead.campaign_id = unanswered.campaign_id AND lead.lead_id = unanswered.lead_id
""")


#: The campaign of a covering row: it stands for all campaigns of its account in which nothing was
#: due.
EVERY_CAMPAIGN = ""


class RunLocks:
    """The advisory lock on one connection that shows other processes that its runs are alive.

    One lock, whatever the number of runs. The server releases it when the connection ends, however
    the process died. The connection must bypass a proxy that pools transactions.

    Attributes:
        lock_id: the number of the lock: the first run's id; None before the first run.
    """

    def __init__(self, connection: Connection) -> None:
        self.lock_id: int | None = None
        self._connection = connection

    def open_run(
        self,
        *,
        flow: str,
        campaign_id: str,
        flow_run_id: str | None,
        account: str = DEFAULT_ACCOUNT,
    ) -> int:
        """Insert a run's row under the lock, and return its id; see `open_runs`."""
        ids = self.open_runs(
            flow=flow, campaign_ids=[campaign_id], flow_run_id=flow_run_id, account=account
        )
        return ids[campaign_id]

    def open_runs(
        self,
        *,
        flow: str,
        campaign_ids: Sequence[str],
        flow_run_id: str | None,
        account: str = DEFAULT_ACCOUNT,
    ) -> dict[str, int]:
        """Insert a row for each campaign's run in one transaction, under the lock.

        The first call takes the lock in the same transaction, so no row is visible unlocked.

        Args:
            flow: the flow's name.
            campaign_ids: the campaigns; or EVERY_CAMPAIGN for a covering row.
            flow_run_id: Prefect's id of the flow run, if it is one.
            account: the account of a covering row; other rows have their campaign's.

        Returns:
            The runs' ids by campaign.

        Raises:
            RunError: another session holds the locks of the next numbers.
        """
        if not campaign_ids:
            return {}
        row = {"flow": flow, "flow_run": flow_run_id, "account": account}
        if self.lock_id is not None:
            with self._begin_transaction():
                ids = self._insert(campaign_ids, {**row, "lock": self.lock_id})
                self._connection.execute(text("COMMIT"))
            return ids
        taken: list[int] = []
        while len(taken) < _MAX_NUMBERS:
            with self._begin_transaction():
                ids = self._insert(campaign_ids[:1], {**row, "lock": None})
                (number,) = ids.values()
                is_locked = self._connection.scalar(_LOCK, {"lock": number})
                if is_locked:
                    ids |= self._insert(campaign_ids[1:], {**row, "lock": number})
                self._connection.execute(text("COMMIT" if is_locked else "ROLLBACK"))
            if is_locked:
                self.lock_id = number
                return ids
            taken.append(number)
        raise RunError(self._describe_holder(taken[-1]))

    def _insert(self, campaign_ids: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, int]:
        rows = self._connection.execute(_OPEN, {**parameters, "campaigns": list(campaign_ids)})
        return {row.campaign_id: row.run_id for row in rows}

    @contextmanager
    def _begin_transaction(self) -> Iterator[None]:
        """Begin a transaction, which the block ends; roll it back if the block fails."""
        self._connection.execute(text("BEGIN"))
        try:
            yield
        except BaseException:
            with suppress(SQLAlchemyError):
                self._connection.execute(text("ROLLBACK"))
            raise

    def _describe_holder(self, number: int) -> str:
        holder = self._connection.execute(_HOLDER, {"lock": number}).one_or_none()
        by = "another session"
        if holder is not None:
            by = f"the session with pid {holder.pid}, of the role {holder.usename}"
        return (
            f"cannot begin a run: {by}, holds the advisory locks of runs that do not exist; end it"
            " (SELECT pg_terminate_backend(pid)) and run the command again"
        )


def close_run(
    connection: Connection,
    *,
    run_id: int,
    state: str,
    counts: Mapping[str, Any],
    error: str | None,
) -> None:
    """Record how a run ended; a run that was declared dead stays `crashed`."""
    connection.execute(
        _CLOSE, {"run": run_id, "state": state, "counts": dump_json(counts), "error": error}
    )


def mark_unanswered_in_doubt(connection: Connection, run_id: int) -> int:
    """Mark an ending run's leads without a response `in_doubt`. Returns their number."""
    return connection.execute(_MARK_UNANSWERED, {"run": run_id}).rowcount


def is_running(connection: Connection, run_id: int) -> bool:
    """Return whether the run is `running`: no other run has declared it dead."""
    return bool(connection.scalar(_STATE, {"run": run_id}) == "running")


def list_dead_runs(connection: Connection, *, lock_id: int | None) -> list[int]:
    """List runs whose process is gone and that were not recovered yet, except those of a lock."""
    return list(connection.scalars(_DEAD, {"lock": lock_id}))


def find_live_flow_runs(connection: Connection, flow_run_ids: Sequence[str]) -> set[str]:
    """Return which of these flow runs (Prefect's ids) are running in a live process."""
    return set(connection.scalars(_ALIVE, {"flow_runs": list(flow_run_ids)}))


def recover_run(connection: Connection, run_id: int) -> int | None:
    """Recover a dead run: mark it `crashed`, and its unanswered leads `in_doubt`.

    Use a separate transaction: it fails after a second if another transaction locks one of the
    leads, and the next run that starts tries again.

    Returns:
        The number of leads; None if another run recovers the run, or the run is alive.
    """
    connection.execute(_SHORT_LOCK_TIMEOUT)
    if not connection.execute(_MARK_CRASHED, {"run": run_id}).rowcount:
        return None
    return mark_unanswered_in_doubt(connection, run_id)


def recover_dead_runs(
    database: Database, warn: Callable[..., None], *, lock_id: int | None = None
) -> None:
    """Recover every dead run, each in a separate transaction: a failure delays only that run.

    Args:
        database: the database.
        warn: takes a warning and its arguments, like `logging.Logger.warning`.
        lock_id: the lock of the calling runs, which are alive; None: the caller is no run.

    Raises:
        DatabaseError: an error that a retry cannot fix.
    """
    with database.transaction() as connection:
        found = list_dead_runs(connection, lock_id=lock_id)
    for each in found:
        try:
            with database.transaction() as connection:
                in_doubt = recover_run(connection, each)
        except DatabaseError as error:
            if not error.is_transient:
                raise
            warn("run %d is dead; the next run tries again to recover its leads: %s", each, error)
        else:
            if in_doubt is not None:
                sent = format_count(in_doubt, "lead that it sent is", "leads that it sent are")
                warn("run %d is dead; %s in doubt", each, sent)
