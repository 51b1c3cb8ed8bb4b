"""Retention: purges of old windows, runs, latencies and hours, and of the vendor's raw answers.

Each chunk is a separate transaction: locks are short, and a stopped run keeps its progress. History
is purged for all campaigns of a run at once; the personal data of a campaign is cleared campaign by
campaign, while nothing of it is stored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, text

from db import erasure
from db.schema.counting import SPANS

#: The most rows that one transaction deletes.
CHUNK_SIZE = 20_000
#: The most outcomes whose raw answers one transaction clears, while polls of the campaign wait. The
#: outcomes that one transaction stored have one time, and are cleared together, however many.
CLEAR_SIZE = 5_000

# now(), as a condition of an index may not be volatile.
_OLD = "now() - make_interval(days => :days)"
# The campaigns of the run, and those whose row was deleted.
_IS_PURGED = """(campaign_id = ANY(:campaigns)
            OR NOT EXISTS (SELECT FROM leadloop.campaigns AS known
                            WHERE known.campaign_id = each.campaign_id))"""
_COUNT = "SELECT campaign_id, count(*) AS amount FROM gone GROUP BY campaign_id"


def _delete_by_campaign(table: str, key: str, time: str, condition: str = "true") -> TextClause:
    """Build a statement that deletes the oldest rows of each campaign, by its index.

    A loose index scan finds the campaigns: from each one to the next.
    """
    return text(f"""
WITH RECURSIVE found (campaign_id) AS (
    SELECT min(campaign_id) FROM leadloop.{table}
    UNION ALL
    SELECT (SELECT min(next.campaign_id) FROM leadloop.{table} AS next
             WHERE next.campaign_id > found.campaign_id)
      FROM found WHERE campaign_id IS NOT NULL
), gone AS (
    DELETE FROM leadloop.{table} WHERE {key} IN (
        SELECT old.{key}
          FROM (SELECT campaign_id FROM found AS each WHERE {_IS_PURGED}) AS purged
         CROSS JOIN LATERAL (SELECT {key} FROM leadloop.{table} AS each
                              WHERE campaign_id = purged.campaign_id AND {time} < {_OLD}
                                AND {condition}
                              ORDER BY {time} LIMIT :limit) AS old
         LIMIT :limit)
    RETURNING campaign_id
)
{_COUNT}
""")


def _has_later(condition: str) -> str:
    """Return the condition that a later run of the campaign, account and flow meets a condition."""
    return f"""EXISTS (SELECT FROM leadloop.sync_runs AS later
                        WHERE later.campaign_id = each.campaign_id AND later.flow = each.flow
                          AND later.account = each.account
                          AND later.run_id > each.run_id AND {condition})"""


_WINDOWS = _delete_by_campaign("poll_windows", "window_id", "polled_at")
# The views `campaign_health` and `problems` need the last run of a flow that ended and that
# completed, and the lookback that the last poll had.
_RUNS = _delete_by_campaign(
    "sync_runs",
    "run_id",
    "started_at",
    f"""state <> 'running' AND {_has_later("later.state <> 'running'")}
                                AND (state <> 'completed'
                                     OR {_has_later("later.state = 'completed'")})
                                AND (counts ->> 'lookback_s' IS NULL
                                     OR {_has_later("later.counts ->> 'lookback_s' IS NOT NULL")})
    """,
)
# The total since the first latency has the hour -infinity and stays.
_LATENCIES = text(f"""
WITH gone AS (
    DELETE FROM leadloop.latencies WHERE ctid IN (
        SELECT ctid FROM leadloop.latencies AS each
         WHERE hour > '-infinity' AND hour < {_OLD} AND {_IS_PURGED} LIMIT :limit)
    RETURNING campaign_id
)
{_COUNT}
""")
# No view shows them: db/schema/counting.py. Attempts without a time have the hour infinity.
_HOURS = text(f"""
WITH gone AS (
    DELETE FROM leadloop.counts WHERE ctid IN (
        SELECT ctid FROM leadloop.counts AS each
         WHERE kind = ANY(ARRAY[{", ".join(f"'{kind}'" for kind in SPANS)}])
           AND span IN ('hour', 'total hour')
           AND since < {_OLD} AND {_IS_PURGED} LIMIT :limit)
    RETURNING campaign_id
)
{_COUNT}
""")
_IS_RECOUNTED = text("""
SELECT EXISTS (SELECT FROM pg_locks
                WHERE relation = CAST('leadloop.counts' AS regclass) AND granted
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND mode = 'ShareRowExclusiveLock')
""")
# Such a result may have brought attempts of a lead that has no outcome: with an outcome, their
# answers are cleared as the outcome's raw answer is.
_UNREADABLE = text(f"""
WITH gone AS (
    DELETE FROM leadloop.unreadable_results WHERE ctid IN (
        SELECT ctid FROM leadloop.unreadable_results AS each
         WHERE seen_at < {_OLD} AND {_IS_PURGED} LIMIT :limit)
    RETURNING campaign_id, {erasure.LEAD_ID_OF_RAW} AS lead_id
), cleared AS (
    UPDATE leadloop.outreach_attempts AS attempt SET answers = '{{}}' FROM gone
     WHERE attempt.campaign_id = gone.campaign_id AND attempt.lead_id = gone.lead_id
       AND attempt.answers <> '{{}}'
       AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                        WHERE outcome.campaign_id = gone.campaign_id
                          AND outcome.lead_id = gone.lead_id)
)
{_COUNT}
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

# Outcomes are cleared in the order in which they were first stored, up to a mark: a night costs
# what has become old since the last one, not what is stored.
_CHUNK = text(f"""
WITH campaign AS (
    SELECT coalesce(raw_cleared_through, '-infinity') AS after FROM leadloop.campaigns
     WHERE campaign_id = :campaign
)
SELECT after, (SELECT max(first_seen_at) FROM (
                   SELECT first_seen_at FROM leadloop.lead_outcomes
                    WHERE campaign_id = :campaign AND first_seen_at > after
                      AND first_seen_at < {_OLD}
                    ORDER BY first_seen_at LIMIT :limit) AS chunk) AS through
  FROM campaign
""")
_ADVANCE = text("""
UPDATE leadloop.campaigns SET raw_cleared_through = :through WHERE campaign_id = :campaign
""")


def _clear_outcomes(chunk: str) -> TextClause:
    """Build a statement that clears the raw answers of outcomes, and their attempts' answers.

    The arrays force index lookups: without them, the planner may scan all rows of the campaign.
    """
    return text(f"""
WITH old AS MATERIALIZED (
    SELECT lead_id FROM leadloop.lead_outcomes WHERE campaign_id = :campaign AND {chunk}
), raw AS (
    UPDATE leadloop.lead_outcomes SET raw = '{{}}'
     WHERE campaign_id = :campaign AND lead_id = ANY(ARRAY(SELECT lead_id FROM old))
       AND raw <> '{{}}'
    RETURNING 1
), answers AS (
    UPDATE leadloop.outreach_attempts SET answers = '{{}}'
     WHERE campaign_id = :campaign AND lead_id = ANY(ARRAY(SELECT lead_id FROM old))
       AND answers <> '{{}}'
    RETURNING 1
)
SELECT (SELECT count(*) FROM raw) AS raw, (SELECT count(*) FROM answers) AS answers
""")


# An outcome that was processed or corrected again since is left to the second statement.
_CLEAR_FIRST_SEEN = _clear_outcomes(
    f"first_seen_at > :after AND first_seen_at <= :through AND updated_at < {_OLD}"
)
_CLEAR_UPDATED = _clear_outcomes(
    f"updated_at <> first_seen_at AND raw <> '{{}}' AND updated_at < {_OLD} LIMIT :limit"
)

#: Purges one chunk: (connection, ids of campaigns, minimum age in days). Returns the rows purged by
#: campaign; campaigns without a row in `campaigns` are purged too. No row: nothing is left.
PurgeStep = Callable[[Connection, Sequence[str], int], Mapping[str, int]]


def _purge_with(statement: TextClause) -> PurgeStep:
    def purge_chunk(
        connection: Connection, campaign_ids: Sequence[str], days: int
    ) -> Mapping[str, int]:
        parameters = {"campaigns": list(campaign_ids), "days": days, "limit": CHUNK_SIZE}
        return {row.campaign_id: row.amount for row in connection.execute(statement, parameters)}

    return purge_chunk


#: Steps for rows older than LEADLOOP_KEEP_HISTORY days, by the name of their count.
HISTORY: Mapping[str, PurgeStep] = {
    "windows": _purge_with(_WINDOWS),
    "runs": _purge_with(_RUNS),
    "latencies": _purge_with(_LATENCIES),
}

_purge_kept_hours = _purge_with(_HOURS)


def _purge_hours(
    connection: Connection, campaign_ids: Sequence[str], days: int
) -> Mapping[str, int]:
    """Purge a chunk of hours; while all rows are counted again, leave it to the next housekeeping.

    It would wait for the count, and fail.
    """
    if connection.scalar(_IS_RECOUNTED):
        return {}
    return _purge_kept_hours(connection, campaign_ids, days)


#: Steps for rows older than HOURS_KEPT_DAYS days.
HOURS: Mapping[str, PurgeStep] = {"hours": _purge_hours}
#: Steps for rows older than LEADLOOP_KEEP_RAW days.
RAW: Mapping[str, PurgeStep] = {"unreadable": _purge_with(_UNREADABLE)}


@dataclass(frozen=True, kw_only=True)
class ClearedAnswers:
    """The outcomes and the attempts that were cleared, and whether more may be due."""

    raw: int
    answers: int
    has_more: bool


def clear_forgotten(connection: Connection, campaign_id: str) -> int:
    """Clear up to a chunk of forgotten leads that have personal data again; return their number."""
    chunk = {"campaign": campaign_id, "limit": CHUNK_SIZE}
    return connection.execute(_CLEAR_FORGOTTEN, chunk).rowcount


def clear_answers(connection: Connection, campaign_id: str, days: int) -> ClearedAnswers:
    """Clear the vendor's answers of one chunk of outcomes that were last stored `days` ago.

    Nothing of the campaign is stored meanwhile: a read of the same results would have seen the
    answers, and bring them back.
    """
    erasure.hold_off_storing(connection, campaign_id)
    old = {"campaign": campaign_id, "days": days, "limit": CLEAR_SIZE}
    updated = connection.execute(_CLEAR_UPDATED, old).one()
    raw, answers = updated.raw, updated.answers
    chunk = connection.execute(_CHUNK, old).one()
    if chunk.through is not None:
        bounds = {"after": chunk.after, "through": chunk.through}
        first_seen = connection.execute(_CLEAR_FIRST_SEEN, old | bounds).one()
        raw, answers = raw + first_seen.raw, answers + first_seen.answers
        connection.execute(_ADVANCE, {"campaign": campaign_id, "through": chunk.through})
    has_more = chunk.through is not None or updated.raw == CLEAR_SIZE
    return ClearedAnswers(raw=raw, answers=answers, has_more=has_more)
