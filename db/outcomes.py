"""Outcomes and attempts: copied to a staging table, then merged in one statement each."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from db import erasure
from db.bulk_copy import copy_lines
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import Outcome, OutreachAttempt

# Made once a connection and emptied by each commit: no catalogue churn, no cleaning up.
_STAGES = text("""
CREATE TEMPORARY TABLE IF NOT EXISTS stage_outcomes (
    lead_id text, processed_at timestamptz, outcome_id text, outcome_name text,
    total_cost numeric, raw jsonb
) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS stage_attempts (
    lead_id text, processed_at timestamptz, channel text, block text, attempt_key text,
    reference_id text, outcome_id text, outcome_name text, occurred_at timestamptz,
    duration_s numeric, cost numeric, answers jsonb
) ON COMMIT DELETE ROWS
""")

# Of those who were forgotten nothing personal is stored again.
_LEAVE_OUT_FORGOTTEN = """
UPDATE stage_outcomes AS stage SET raw = '{}' FROM leadloop.forgotten
 WHERE forgotten.campaign_id = :campaign AND forgotten.lead_id = stage.lead_id;
UPDATE stage_attempts AS stage SET answers = '{}' FROM leadloop.forgotten
 WHERE forgotten.campaign_id = :campaign AND forgotten.lead_id = stage.lead_id
"""

# What was removed of an answer does not come back with the next reading of that same answer.
_RAW = """CASE WHEN stored.raw = '{}' AND stored.processed_at = excluded.processed_at
                       THEN stored.raw ELSE excluded.raw END"""
# A lead can come twice in one reading, processed again meanwhile: the newest wins, of two that are
# equally new the one read last (COPY fills an empty table in order, so the ctid tells). An older
# one never replaces a newer one. Sorted, so that two polls lock rows in the same order. Where the
# raw answers are gone, the columns still tell what has changed.
_MERGE_OUTCOMES = f"""
WITH newest AS (
    SELECT DISTINCT ON (lead_id) * FROM stage_outcomes
     ORDER BY lead_id, processed_at DESC, ctid DESC
), merged AS (
    INSERT INTO leadloop.lead_outcomes AS stored
           (campaign_id, lead_id, processed_at, outcome_id, outcome_name, total_cost, raw)
    SELECT :campaign, lead_id, processed_at, outcome_id, outcome_name, total_cost, raw FROM newest
    ON CONFLICT (campaign_id, lead_id) DO UPDATE
       SET processed_at = excluded.processed_at, outcome_id = excluded.outcome_id,
           outcome_name = excluded.outcome_name, total_cost = excluded.total_cost,
           raw = {_RAW}, updated_at = now(),
           seen_at = CASE stored.processed_at
                     WHEN excluded.processed_at THEN stored.seen_at ELSE now() END,
           lookback_needed_s = CASE stored.processed_at
                               WHEN excluded.processed_at THEN stored.lookback_needed_s END
     WHERE stored.processed_at <= excluded.processed_at
       AND (stored.processed_at, stored.outcome_id, stored.outcome_name, stored.total_cost,
            stored.raw)
           IS DISTINCT FROM
           (excluded.processed_at, excluded.outcome_id, excluded.outcome_name, excluded.total_cost,
            {_RAW})
    RETURNING xmax = 0 AS inserted
)
SELECT (SELECT count(*) FROM stage_outcomes)                AS staged,
       (SELECT count(DISTINCT lead_id) FROM stage_outcomes) AS leads,
       (SELECT count(*) FROM merged WHERE inserted)         AS inserted,
       (SELECT count(*) FROM merged WHERE NOT inserted)     AS updated
"""

# What an older version of a result says of an attempt counts only where nothing else is known.
# Where all outcomes read were the newest, none of them is looked up: a third of this statement.
_MERGE_ATTEMPTS = """
WITH told AS (
    SELECT DISTINCT ON (stage.lead_id, stage.block, stage.attempt_key) stage.*,
           CASE WHEN :all_newest AND stage.processed_at IS NOT NULL THEN false
                ELSE coalesce(stage.processed_at, '-infinity')
                     < (SELECT processed_at FROM leadloop.lead_outcomes
                         WHERE campaign_id = :campaign AND lead_id = stage.lead_id)
           END IS TRUE AS is_old
      FROM stage_attempts AS stage
     ORDER BY stage.lead_id, stage.block, stage.attempt_key,
              stage.processed_at DESC NULLS LAST, stage.ctid DESC
), added AS (
    INSERT INTO leadloop.outreach_attempts
           (campaign_id, lead_id, channel, block, attempt_key, reference_id, outcome_id,
            outcome_name, occurred_at, duration_s, cost, answers)
    SELECT :campaign, lead_id, channel, block, attempt_key, reference_id, outcome_id,
           outcome_name, occurred_at, duration_s, cost, answers
      FROM told WHERE is_old
    ON CONFLICT DO NOTHING
)
INSERT INTO leadloop.outreach_attempts AS stored
       (campaign_id, lead_id, channel, block, attempt_key, reference_id, outcome_id, outcome_name,
        occurred_at, duration_s, cost, answers)
SELECT :campaign, lead_id, channel, block, attempt_key, reference_id, outcome_id, outcome_name,
       occurred_at, duration_s, cost, answers
  FROM told WHERE NOT is_old
ON CONFLICT (campaign_id, lead_id, block, attempt_key) DO UPDATE
   SET channel = excluded.channel, reference_id = excluded.reference_id,
       outcome_id = excluded.outcome_id, outcome_name = excluded.outcome_name,
       occurred_at = excluded.occurred_at, duration_s = excluded.duration_s,
       cost = excluded.cost, answers = excluded.answers
 WHERE (stored.channel, stored.reference_id, stored.outcome_id, stored.outcome_name,
        stored.occurred_at, stored.duration_s, stored.cost, stored.answers)
       IS DISTINCT FROM
       (excluded.channel, excluded.reference_id, excluded.outcome_id, excluded.outcome_name,
        excluded.occurred_at, excluded.duration_s, excluded.cost, excluded.answers)
"""

# Whatever we thought of a lead that has an outcome: the vendor has it. So an opt-out that was
# settled because the lead had never been sent is not settled. Locked in the order in which opt-outs
# lock leads. Postgres knows nothing of a staging table, and would rather go through all leads for
# each window: OFFSET 0 leaves it no choice.
_SETTLE_LEADS = """
WITH these AS (
    SELECT lead.lead_id
      FROM (SELECT DISTINCT lead_id FROM stage_outcomes ORDER BY lead_id) AS stage
     CROSS JOIN LATERAL (SELECT lead_id FROM leadloop.leads
                          WHERE campaign_id = :campaign AND lead_id = stage.lead_id
                            AND status NOT IN ('created', 'sending')
                         OFFSET 0 FOR NO KEY UPDATE) AS lead
), held AS (
    UPDATE leadloop.leads AS lead
       SET status = 'created', confirmed_at = clock_timestamp(), last_error = NULL,
           doubted_at = NULL, looked_up_at = NULL,
           sent_at = coalesce(lead.sent_at, clock_timestamp())
     WHERE lead.campaign_id = :campaign AND lead.lead_id = ANY(ARRAY(SELECT lead_id FROM these))
    RETURNING lead.lead_id
)
UPDATE leadloop.disable_requests AS d
   SET status = 'requested', confirmed_at = NULL, tries = 0, last_error = NULL
  FROM held
 WHERE d.campaign_id = :campaign AND d.lead_id = held.lead_id AND d.status = 'cancelled'
"""

# As few ways to Postgres as will do: each one back waits for Python's lock, which the threads that
# read pages hold.
_STORE_OUTCOMES = text(f"{_LEAVE_OUT_FORGOTTEN};{_MERGE_OUTCOMES}")
_STORE_REST = text(f"{_MERGE_ATTEMPTS};{_SETTLE_LEADS}")

_AWAITED_SINCE = text("""
SELECT min(sent_at) FROM leadloop.leads
 WHERE campaign_id = :campaign AND status = 'created'
   AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes WHERE campaign_id = :campaign)
""")

_KEEP_UNREADABLE = text("""
INSERT INTO leadloop.unreadable_results (campaign_id, digest, reason, raw)
SELECT :campaign, :digest, :reason, given.raw FROM (SELECT CAST(:raw AS jsonb) AS raw) AS given
 WHERE NOT EXISTS (SELECT FROM leadloop.forgotten
                    WHERE campaign_id = :campaign AND lead_id = given.raw ->> 'lead_id')
ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True, kw_only=True)
class MergeCounts:
    """What storing outcomes changed, in leads."""

    inserted: int
    updated: int
    unchanged: int


def merge_outcomes(
    connection: Connection,
    campaign_id: str,
    *,
    outcomes: Iterable[str],
    attempts: Iterable[str],
) -> MergeCounts:
    """Store outcomes and attempts, lines for COPY; rows are touched only where something changed.

    A lead in doubt whose outcome has come is `created`.
    """
    erasure.hold_off_erasure(connection, campaign_id)
    connection.execute(_STAGES)
    copy_lines(connection, "stage_outcomes", Outcome._fields, outcomes)
    copy_lines(connection, "stage_attempts", OutreachAttempt._fields, attempts)
    row = connection.execute(_STORE_OUTCOMES, {"campaign": campaign_id}).one()
    all_newest = row.staged == row.inserted + row.updated
    connection.execute(_STORE_REST, {"campaign": campaign_id, "all_newest": all_newest})
    return MergeCounts(
        inserted=row.inserted,
        updated=row.updated,
        unchanged=row.leads - row.inserted - row.updated,
    )


def get_waiting_since(connection: Connection, campaign_id: str) -> datetime | None:
    """When the first lead was sent, where no outcome has ever come; None where one has."""
    moment: datetime | None = connection.scalar(_AWAITED_SINCE, {"campaign": campaign_id})
    return moment


def store_unreadable(
    connection: Connection, campaign_id: str, results: Sequence[tuple[str, object]]
) -> None:
    """Keep results that could not be read, each with the reason; the same one only once.

    Those of the forgotten are not kept: nothing is in them but what is personal.
    """
    if results:
        erasure.hold_off_erasure(connection, campaign_id)
    for reason, result in results:
        raw = dump_json(result)
        digest = hashlib.sha256(raw.encode()).hexdigest()
        connection.execute(
            _KEEP_UNREADABLE,
            {"campaign": campaign_id, "digest": digest, "reason": reason, "raw": raw},
        )
