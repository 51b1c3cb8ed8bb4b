"""Retention: purges of old windows, runs and raw vendor responses.

Each chunk is a separate transaction: locks are short, and a stopped run keeps its progress.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, text

CHUNK_SIZE = 20_000

_OLD = "clock_timestamp() - make_interval(days => :days)"
_WINDOWS = text(f"""
DELETE FROM leadloop.poll_windows WHERE window_id IN (
    SELECT window_id FROM leadloop.poll_windows
     WHERE campaign_id = :campaign AND polled_at < {_OLD} LIMIT :limit)
""")
_RUNS = text(f"""
DELETE FROM leadloop.sync_runs WHERE run_id IN (
    SELECT run_id FROM leadloop.sync_runs
     WHERE campaign_id = :campaign AND started_at < {_OLD} AND state <> 'running'
     LIMIT :limit)
""")
_UNREADABLE = text(f"""
DELETE FROM leadloop.unreadable_results
 WHERE ctid IN (SELECT ctid FROM leadloop.unreadable_results
                 WHERE campaign_id = :campaign AND seen_at < {_OLD} LIMIT :limit)
""")
# The total since the first latency has the hour -infinity and stays.
_LATENCIES = text(f"""
DELETE FROM leadloop.latencies
 WHERE ctid IN (SELECT ctid FROM leadloop.latencies
                 WHERE campaign_id = :campaign AND hour < {_OLD} AND hour > '-infinity'
                 LIMIT :limit)
""")
# Cleared rows stay, so each chunk starts after the last key of the previous one. The bounds are
# parameters, which show the planner how short the range is. Rows are locked in the order of polls.
_CHUNK_END = text("""
SELECT max(lead_id) FROM (
    SELECT lead_id FROM leadloop.lead_outcomes WHERE campaign_id = :campaign AND lead_id > :after
     ORDER BY lead_id LIMIT :limit) AS chunk
""")
_CLEAR_RAW = text(f"""
WITH old AS (
    SELECT lead_id FROM leadloop.lead_outcomes
     WHERE campaign_id = :campaign AND lead_id > :after AND lead_id <= :last
       AND updated_at < {_OLD} AND raw <> '{{}}'
     ORDER BY lead_id FOR NO KEY UPDATE
)
UPDATE leadloop.lead_outcomes AS stored SET raw = '{{}}' FROM old
 WHERE stored.campaign_id = :campaign AND stored.lead_id = old.lead_id
""")


# The trigger that clears forgotten leads misses an erasure committed after its transaction's
# snapshot (REPEATABLE READ).
_CLEAR_FORGOTTEN = text("""
WITH back AS (
    SELECT lead_id FROM leadloop.leads AS lead JOIN leadloop.forgotten USING (campaign_id, lead_id)
     WHERE campaign_id = :campaign
       AND (phone_number, contact_name, state_code, ebr_datetime, custom_fields)
           IS DISTINCT FROM (NULL, NULL, NULL, NULL, CAST('{}' AS jsonb))
     ORDER BY lead_id LIMIT :limit FOR NO KEY UPDATE OF lead
)
UPDATE leadloop.leads AS lead
   SET phone_number = NULL, contact_name = NULL, state_code = NULL, ebr_datetime = NULL,
       custom_fields = '{}', opted_out = true
  FROM back WHERE lead.campaign_id = :campaign AND lead.lead_id = back.lead_id
""")


@dataclass(frozen=True, kw_only=True)
class PurgeResult:
    """The rows purged, and the key after which the next chunk starts (None: nothing is left)."""

    rows: int
    resume_after: str | None


#: Purges one chunk: (connection, campaign id, minimum age in days, key to start after).
PurgeStep = Callable[[Connection, str, int, str], PurgeResult]


def _purge_with(statement: TextClause) -> PurgeStep:
    """Return a step that deletes with `statement`; the next chunk starts at the same key."""

    def purge_chunk(connection: Connection, campaign_id: str, days: int, after: str) -> PurgeResult:
        parameters = {"campaign": campaign_id, "days": days, "limit": CHUNK_SIZE}
        rows = connection.execute(statement, parameters).rowcount
        return PurgeResult(rows=rows, resume_after=after if rows == CHUNK_SIZE else None)

    return purge_chunk


def _clear_raw(connection: Connection, campaign_id: str, days: int, after: str) -> PurgeResult:
    chunk = {"campaign": campaign_id, "after": after, "limit": CHUNK_SIZE}
    last: str | None = connection.scalar(_CHUNK_END, chunk)
    if last is None:
        return PurgeResult(rows=0, resume_after=None)
    old = {"campaign": campaign_id, "days": days, "after": after, "last": last}
    return PurgeResult(rows=connection.execute(_CLEAR_RAW, old).rowcount, resume_after=last)


#: Steps that ignore the age, by the name of their count.
IMMEDIATE: Mapping[str, PurgeStep] = {"forgotten": _purge_with(_CLEAR_FORGOTTEN)}
#: Steps for rows older than LEADLOOP_KEEP_HISTORY days.
HISTORY: Mapping[str, PurgeStep] = {
    "windows": _purge_with(_WINDOWS),
    "runs": _purge_with(_RUNS),
    "latencies": _purge_with(_LATENCIES),
}
#: Steps for raw responses older than LEADLOOP_KEEP_RAW days.
RAW: Mapping[str, PurgeStep] = {"raw": _clear_raw, "unreadable": _purge_with(_UNREADABLE)}
