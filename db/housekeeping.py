"""What is kept for a time only: windows, runs, and the vendor's answers as they came.

In portions, each in a transaction of its own: nobody waits for long, and a run that is stopped has
done what it has done.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, text

CHUNK_SIZE = 20_000

_OLD = "clock_timestamp() - make_interval(days => :days)"
# An incomplete window is owed until it has been made good, however old it is.
_WINDOWS = text(f"""
DELETE FROM leadloop.poll_windows WHERE window_id IN (
    SELECT window_id FROM leadloop.poll_windows
     WHERE campaign_id = :campaign AND polled_at < {_OLD}
       AND (status <> 'incomplete' OR made_good_at IS NOT NULL)
     LIMIT :most)
""")
_RUNS = text(f"""
DELETE FROM leadloop.sync_runs WHERE run_id IN (
    SELECT run_id FROM leadloop.sync_runs
     WHERE campaign_id = :campaign AND started_at < {_OLD} AND state <> 'running'
     LIMIT :most)
""")
_UNREADABLE = text(f"""
DELETE FROM leadloop.unreadable_results
 WHERE ctid IN (SELECT ctid FROM leadloop.unreadable_results
                 WHERE campaign_id = :campaign AND seen_at < {_OLD} LIMIT :most)
""")
# What is emptied stays, so that each stretch begins where the last one ended. Its bounds are
# values: by them Postgres knows how short it is. Locked in the order in which polls lock.
_STRETCH = text("""
SELECT max(lead_id) FROM (
    SELECT lead_id FROM leadloop.lead_outcomes WHERE campaign_id = :campaign AND lead_id > :after
     ORDER BY lead_id LIMIT :most) AS stretch
""")
_ANSWERS = text(f"""
WITH old AS (
    SELECT lead_id FROM leadloop.lead_outcomes
     WHERE campaign_id = :campaign AND lead_id > :after AND lead_id <= :last
       AND updated_at < {_OLD} AND raw <> '{{}}'
     ORDER BY lead_id FOR NO KEY UPDATE
)
UPDATE leadloop.lead_outcomes AS stored SET raw = '{{}}' FROM old
 WHERE stored.campaign_id = :campaign AND stored.lead_id = old.lead_id
""")


# The trigger that empties them does not see a forget that was committed after its transaction took
# its snapshot (REPEATABLE READ).
_FORGOTTEN = text("""
WITH back AS (
    SELECT lead_id FROM leadloop.leads AS lead JOIN leadloop.forgotten USING (campaign_id, lead_id)
     WHERE campaign_id = :campaign
       AND (phone_number, contact_name, state_code, ebr_datetime, custom_fields)
           IS DISTINCT FROM (NULL, NULL, NULL, NULL, CAST('{}' AS jsonb))
     ORDER BY lead_id LIMIT :most FOR NO KEY UPDATE OF lead
)
UPDATE leadloop.leads AS lead
   SET phone_number = NULL, contact_name = NULL, state_code = NULL, ebr_datetime = NULL,
       custom_fields = '{}', opted_out = true
  FROM back WHERE lead.campaign_id = :campaign AND lead.lead_id = back.lead_id
""")


@dataclass(frozen=True, kw_only=True)
class PurgeResult:
    """How many rows went, and after which key the next portion begins; None: there is no more."""

    rows: int
    resume_after: str | None


#: Tidies a portion of a campaign: what is older than so many days, after that key.
PurgeStep = Callable[[Connection, str, int, str], PurgeResult]


def _purge_with(statement: TextClause) -> PurgeStep:
    """Rows that go are not met again: the next portion begins where this one did."""

    def tidy(connection: Connection, campaign_id: str, days: int, after: str) -> PurgeResult:
        parameters = {"campaign": campaign_id, "days": days, "most": CHUNK_SIZE}
        gone = connection.execute(statement, parameters).rowcount
        return PurgeResult(rows=gone, resume_after=after if gone == CHUNK_SIZE else None)

    return tidy


def _clear_raw(connection: Connection, campaign_id: str, days: int, after: str) -> PurgeResult:
    stretch = {"campaign": campaign_id, "after": after, "most": CHUNK_SIZE}
    last: str | None = connection.scalar(_STRETCH, stretch)
    if last is None:
        return PurgeResult(rows=0, resume_after=None)
    old = {"campaign": campaign_id, "days": days, "after": after, "last": last}
    return PurgeResult(rows=connection.execute(_ANSWERS, old).rowcount, resume_after=last)


#: What goes whatever its age, by the name under which it is counted.
IMMEDIATE: Mapping[str, PurgeStep] = {"forgotten": _purge_with(_FORGOTTEN)}
#: What goes after LEADLOOP_KEEP_HISTORY days.
HISTORY: Mapping[str, PurgeStep] = {"windows": _purge_with(_WINDOWS), "runs": _purge_with(_RUNS)}
#: What goes after LEADLOOP_KEEP_RAW days.
RAW: Mapping[str, PurgeStep] = {"raw": _clear_raw, "unreadable": _purge_with(_UNREADABLE)}
