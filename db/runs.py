"""Runs: written first, alive while they hold their lock, and buried by the next run if they die."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from db.database import Database, DatabaseError
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
_LOCK = text("SELECT pg_advisory_lock(hashtext('leadloop.run'), CAST(:run AS int))")
_STATE = text("SELECT state FROM leadloop.sync_runs WHERE run_id = :run")

# A running run whose lock can be had is dead.
_DEAD = text("""
SELECT run_id FROM leadloop.sync_runs
 WHERE state = 'running' AND run_id IS DISTINCT FROM CAST(:run AS bigint)
   AND pg_try_advisory_xact_lock(hashtext('leadloop.run'), CAST(run_id AS int))
 ORDER BY run_id
""")
# The same look from the other side, at runs as Prefect names them.
_ALIVE = text("""
SELECT DISTINCT flow_run_id FROM leadloop.sync_runs
 WHERE state = 'running' AND flow_run_id = ANY(:flow_runs)
   AND NOT pg_try_advisory_xact_lock(hashtext('leadloop.run'), CAST(run_id AS int))
""")
# Here the lock is kept to the end of the transaction, so that two runs do not bury the same one.
_BURY = text("""
UPDATE leadloop.sync_runs
   SET state = 'crashed', ended_at = clock_timestamp(),
       error = 'the run ended without a word; found by a later run'
 WHERE state = 'running' AND run_id = :run
   AND pg_try_advisory_xact_lock(hashtext('leadloop.run'), CAST(run_id AS int))
""")
# Whoever begins a run does not wait for somebody who holds on to a lead of another one's.
_HURRY = text("SET LOCAL lock_timeout = '1s'")
_DOUBT_THEIRS = text("""
WITH theirs AS (
    SELECT campaign_id, lead_id FROM leadloop.leads
     WHERE status = 'sending' AND run_id = :run
       AND campaign_id = (SELECT campaign_id FROM leadloop.sync_runs WHERE run_id = :run)
     ORDER BY lead_id FOR NO KEY UPDATE
)
UPDATE leadloop.leads AS lead
   SET status = 'in_doubt', last_error = 'the run that sent it ended before the answer',
       doubted_at = clock_timestamp(), looked_up_at = NULL
  FROM theirs
 WHERE lead.campaign_id = theirs.campaign_id AND lead.lead_id = theirs.lead_id
""")


class RunLocks:
    """One connection whose locks tell other processes that this one's runs are alive.

    The server drops the locks the moment the connection ends, however the process died. Behind a
    proxy that pools transactions it has to bypass the proxy.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open_run(self, *, flow: str, campaign_id: str, flow_run_id: str | None) -> int:
        """Write a run's row and take its lock, in one transaction: no one sees it without.

        Returns:
            The run's id.
        """
        self._connection.execute(text("BEGIN"))
        run_id: int = self._connection.execute(
            _OPEN, {"flow": flow, "campaign": campaign_id, "flow_run": flow_run_id}
        ).scalar_one()
        self._connection.execute(_LOCK, {"run": run_id})
        self._connection.execute(text("COMMIT"))
        return run_id


def close_run(
    connection: Connection,
    *,
    run_id: int,
    state: str,
    counts: Mapping[str, Any],
    error: str | None,
) -> None:
    """Write how a run ended; a run that was declared dead stays so."""
    connection.execute(
        _CLOSE, {"run": run_id, "state": state, "counts": dump_json(counts), "error": error}
    )


def mark_unanswered_in_doubt(connection: Connection, run_id: int) -> int:
    """Put in doubt what a run that ends has sent and heard nothing of. Returns how many leads."""
    return connection.execute(_DOUBT_THEIRS, {"run": run_id}).rowcount


def is_running(connection: Connection, run_id: int) -> bool:
    """Whether nobody has declared the run dead."""
    return bool(connection.scalar(_STATE, {"run": run_id}) == "running")


def list_dead_runs(connection: Connection, *, run_id: int | None) -> list[int]:
    """Every run, other than this one, whose process is gone and that nobody has buried."""
    return list(connection.scalars(_DEAD, {"run": run_id}))


def find_live_flow_runs(connection: Connection, flow_run_ids: Sequence[str]) -> set[str]:
    """Which of these flow runs, by Prefect's ids, are at work in a process that lives."""
    return set(connection.scalars(_ALIVE, {"flow_runs": list(flow_run_ids)}))


def recover_run(connection: Connection, run_id: int) -> int | None:
    """Declare a run dead; what it may have sent becomes in doubt.

    In a transaction of its own: where somebody holds on to one of its leads, that fails after a
    second, and whoever begins a run next tries again.

    Returns:
        How many leads; None where somebody else buries it, or it is alive after all.
    """
    connection.execute(_HURRY)
    if not connection.execute(_BURY, {"run": run_id}).rowcount:
        return None
    return mark_unanswered_in_doubt(connection, run_id)


def recover_dead_runs(
    database: Database, warn: Callable[..., None], *, run_id: int | None = None
) -> None:
    """Bury every dead run: what they had sent becomes in doubt.

    Each in its own transaction: one that cannot be buried now stops neither us nor the rest.

    Args:
        database: where they are.
        tell: takes a warning, as a logger does.
        run_id: the run that looks, which is alive; None: no run does.

    Raises:
        DatabaseError: trouble that does not pass by itself.
    """
    with database.transaction() as connection:
        found = list_dead_runs(connection, run_id=run_id)
    for each in found:
        try:
            with database.transaction() as connection:
                doubted = recover_run(connection, each)
        except DatabaseError as error:
            if not error.is_transient:
                raise
            warn("dead run %d found; the next run tries again to settle its leads: %s", each, error)
        else:
            if doubted is not None:
                warn("dead run %d found; %d leads that it had sent are in doubt", each, doubted)
