"""Runs: a row written first, an advisory lock while the process lives, recovery of dead runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from db.database import Database, DatabaseError
from leadloop.core.errors import RunError
from leadloop.core.postgres_json import dump_json

_OPEN = text("""
INSERT INTO leadloop.sync_runs (flow, campaign_id, flow_run_id)
VALUES (:flow, :campaign, :flow_run) RETURNING run_id
""")
_CLOSE = text("""
UPDATE leadloop.sync_runs
   SET state = :state, ended_at = clock_timestamp(), counts = CAST(:counts AS jsonb), error = :error
 WHERE run_id = :run AND state = 'running'
""")
_TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtext('leadloop.run'), CAST(:run AS int))")
# A two-key advisory lock in pg_locks: its keys are classid and objid, and objsubid is 2.
_HOLDER = text("""
SELECT session.pid, session.usename
  FROM pg_locks AS held JOIN pg_stat_activity AS session USING (pid)
 WHERE held.locktype = 'advisory' AND held.objsubid = 2 AND held.granted
   AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND held.classid = CAST(CAST(hashtext('leadloop.run') AS bigint) & 4294967295 AS oid)
   AND held.objid = CAST(CAST(:run AS bigint) AS oid)
 LIMIT 1
""")
# Nobody but a run takes the lock of its number. A number whose lock is taken is passed over.
_MAX_NUMBERS = 5
_STATE = text("SELECT state FROM leadloop.sync_runs WHERE run_id = :run")

# A `running` run whose advisory lock is free is dead.
_DEAD = text("""
SELECT run_id FROM leadloop.sync_runs
 WHERE state = 'running' AND run_id IS DISTINCT FROM CAST(:run AS bigint)
   AND pg_try_advisory_xact_lock(hashtext('leadloop.run'), CAST(run_id AS int))
 ORDER BY run_id
""")
# The inverse check, by Prefect's ids of flow runs.
_ALIVE = text("""
SELECT DISTINCT flow_run_id FROM leadloop.sync_runs
 WHERE state = 'running' AND flow_run_id = ANY(:flow_runs)
   AND NOT pg_try_advisory_xact_lock(hashtext('leadloop.run'), CAST(run_id AS int))
""")
# The lock is kept to the end of the transaction, so that two runs do not recover the same one.
_MARK_CRASHED = text("""
UPDATE leadloop.sync_runs
   SET state = 'crashed', ended_at = clock_timestamp(),
       error = 'the process of the run ended unexpectedly; a later run found it'
 WHERE state = 'running' AND run_id = :run
   AND pg_try_advisory_xact_lock(hashtext('leadloop.run'), CAST(run_id AS int))
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


class RunLocks:
    """Advisory locks on one connection that show other processes which runs are alive.

    The server releases the locks when the connection ends, however the process died. The
    connection must bypass a proxy that pools transactions.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open_run(self, *, flow: str, campaign_id: str, flow_run_id: str | None) -> int:
        """Insert a run's row and take its lock in one transaction: no row is visible unlocked.

        Returns:
            The run's id.

        Raises:
            RunError: another session holds the locks of the next numbers.
        """
        row = {"flow": flow, "campaign": campaign_id, "flow_run": flow_run_id}
        taken: list[int] = []
        while len(taken) < _MAX_NUMBERS:
            self._connection.execute(text("BEGIN"))
            run_id: int = self._connection.execute(_OPEN, row).scalar_one()
            is_locked = self._connection.scalar(_TRY_LOCK, {"run": run_id})
            self._connection.execute(text("COMMIT" if is_locked else "ROLLBACK"))
            if is_locked:
                return run_id
            taken.append(run_id)
        raise RunError(self._describe_holder(taken[-1]))

    def _describe_holder(self, run_id: int) -> str:
        holder = self._connection.execute(_HOLDER, {"run": run_id}).one_or_none()
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


def list_dead_runs(connection: Connection, *, run_id: int | None) -> list[int]:
    """List runs whose process is gone and that were not recovered yet, except `run_id`."""
    return list(connection.scalars(_DEAD, {"run": run_id}))


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
    database: Database, warn: Callable[..., None], *, run_id: int | None = None
) -> None:
    """Recover every dead run, each in a separate transaction: a failure delays only that run.

    Args:
        database: the database.
        warn: takes a warning and its arguments, like `logging.Logger.warning`.
        run_id: the calling run, which is alive; None: the caller is no run.

    Raises:
        DatabaseError: an error that a retry cannot fix.
    """
    with database.transaction() as connection:
        found = list_dead_runs(connection, run_id=run_id)
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
                warn("run %d is dead; %d leads that it sent are in doubt", each, in_doubt)
