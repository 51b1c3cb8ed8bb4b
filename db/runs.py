"""Runs: written first, alive while they hold their lock, and buried by the next run if they die."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from leadloop.core.storable import dumps

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

# A running run whose lock can be had is dead. The lock is kept to the end of this transaction, so
# that two runs do not bury the same one.
_BURY = text("""
UPDATE leadloop.sync_runs
   SET state = 'crashed', ended_at = clock_timestamp(),
       error = 'the run ended without a word; found by a later run'
 WHERE state = 'running' AND run_id <> :run
   AND pg_try_advisory_xact_lock(hashtext('leadloop.run'), CAST(run_id AS int))
RETURNING run_id
""")
_DOUBT_THEIRS = text("""
UPDATE leadloop.leads
   SET status = 'in_doubt', last_error = 'the run that sent it ended before the answer',
       doubted_at = clock_timestamp(), looked_up_at = NULL
 WHERE status = 'sending' AND run_id = ANY(:runs)
   AND campaign_id IN (SELECT campaign_id FROM leadloop.sync_runs WHERE run_id = ANY(:runs))
""")


class Lifeline:
    """One connection whose locks tell other processes that this one's runs are alive.

    The server drops the locks the moment the connection ends, however the process died. Behind a
    proxy that pools transactions it has to bypass the proxy.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, *, flow: str, campaign_id: str, flow_run_id: str | None) -> int:
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


def close(
    connection: Connection,
    *,
    run_id: int,
    state: str,
    counts: Mapping[str, Any],
    error: str | None,
) -> None:
    """Write how a run ended; a run that was declared dead stays so."""
    connection.execute(
        _CLOSE, {"run": run_id, "state": state, "counts": dumps(counts), "error": error}
    )


def doubt_unanswered(connection: Connection, run_id: int) -> int:
    """Put in doubt what a run that ends has sent and heard nothing of. Returns how many leads."""
    return connection.execute(_DOUBT_THEIRS, {"runs": [run_id]}).rowcount


def is_running(connection: Connection, run_id: int) -> bool:
    """Whether nobody has declared the run dead."""
    return bool(connection.scalar(_STATE, {"run": run_id}) == "running")


def bury_dead(connection: Connection, *, run_id: int) -> tuple[int, int]:
    """Declare dead every run whose process is gone; what it may have sent becomes in doubt.

    Returns:
        How many runs, and how many leads.
    """
    dead = connection.scalars(_BURY, {"run": run_id}).all()
    if not dead:
        return 0, 0
    return len(dead), connection.execute(_DOUBT_THEIRS, {"runs": list(dead)}).rowcount
