"""Outcomes and attempts: bulk copied to staging tables, then upserted in one statement each."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from db import erasure
from db.bulk_copy import copy_lines, format_row
from db.latencies import build_count
from leadloop.core.late_outcomes import LateOutcomes
from leadloop.core.postgres_json import dump_json
from leadloop.core.results import Outcome, OutreachAttempt, parse_lead_id
from leadloop.core.windows import Window

# The staging tables are created once a connection and emptied by each commit.
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

# Personal data of forgotten leads is not stored again.
_LEAVE_OUT_FORGOTTEN = """
UPDATE stage_outcomes AS stage SET raw = '{}' FROM leadloop.forgotten
 WHERE forgotten.campaign_id = :campaign AND forgotten.lead_id = stage.lead_id;
UPDATE stage_attempts AS stage SET answers = '{}' FROM leadloop.forgotten
 WHERE forgotten.campaign_id = :campaign AND forgotten.lead_id = stage.lead_id
"""

# A raw result that was cleared stays cleared when the same result is read again, and so do the
# answers of its attempts. Housekeeping clears what is a day old at least: where nothing that was
# read is so old, no stored outcome is looked up. OFFSET 0 forces index lookups.
_LEAVE_OUT_CLEARED = """
UPDATE stage_attempts AS stage SET answers = '{}'
  FROM (SELECT lead.lead_id, stored.processed_at
          FROM (SELECT DISTINCT lead_id FROM stage_attempts) AS lead
         CROSS JOIN LATERAL (SELECT processed_at FROM leadloop.lead_outcomes
                              WHERE campaign_id = :campaign AND lead_id = lead.lead_id
                                AND raw = '{}'
                             OFFSET 0) AS stored) AS cleared
 WHERE (SELECT min(processed_at) < now() - interval '12 hours' FROM stage_outcomes)
   AND stage.lead_id = cleared.lead_id AND stage.answers <> '{}'
   AND coalesce(stage.processed_at, '-infinity') <= cleared.processed_at
"""
_RAW = """CASE WHEN stored.raw = '{}' AND stored.processed_at = excluded.processed_at
                       THEN stored.raw ELSE excluded.raw END"""
_COUNT_LATENCIES = build_count(
    "(SELECT processed_at FROM merged WHERE is_first_sight AND NOT :is_backfill) AS seen",
    kind="'outcome'",
    since="seen.processed_at",
    until="clock_timestamp()",
)
# The upsert. A lead that is processed again during the read comes twice: the newest result wins;
# of two equally new ones, the one read last (COPY fills an empty table in order, so by ctid). An
# older result never replaces a newer one. Sorted, so that two polls lock rows in the same order.
# The columns are compared too: the raw results may have been cleared.
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
    RETURNING xmax = 0 AS inserted, processed_at, seen_at = now() AS is_first_sight
), counted AS ({_COUNT_LATENCIES}
)
SELECT (SELECT count(*) FROM stage_outcomes)                AS staged,
       (SELECT count(DISTINCT lead_id) FROM stage_outcomes) AS leads,
       (SELECT count(*) FROM merged WHERE inserted)         AS inserted,
       (SELECT count(*) FROM merged WHERE NOT inserted)     AS updated
"""

# An attempt in an older version of a result is stored only if the attempt is unknown. If all
# outcomes read are the newest, no stored outcome is looked up: a third of this statement's time.
_MERGE_ATTEMPTS = """
WITH newest AS (
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
      FROM newest WHERE is_old
    ON CONFLICT DO NOTHING
)
INSERT INTO leadloop.outreach_attempts AS stored
       (campaign_id, lead_id, channel, block, attempt_key, reference_id, outcome_id, outcome_name,
        occurred_at, duration_s, cost, answers)
SELECT :campaign, lead_id, channel, block, attempt_key, reference_id, outcome_id, outcome_name,
       occurred_at, duration_s, cost, answers
  FROM newest WHERE NOT is_old
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

# The vendor holds every lead that has an outcome, whatever its status was, and also if it is
# unknown here. So an opt-out that was cancelled as "never sent" is requested again. Leads are
# locked in the order in which opt-outs lock them. OFFSET 0 forces index lookups: without statistics
# of the staging table the planner would scan all leads for each window.
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
), shown AS (
    SELECT lead_id FROM held
     UNION
    SELECT request.lead_id
      FROM (SELECT DISTINCT lead_id FROM stage_outcomes) AS stage
     CROSS JOIN LATERAL (SELECT lead_id FROM leadloop.disable_requests
                          WHERE campaign_id = :campaign AND lead_id = stage.lead_id
                            AND origin = 'opt_out_source' AND status = 'cancelled'
                         OFFSET 0) AS request
)
UPDATE leadloop.disable_requests AS d
   SET status = 'requested', confirmed_at = NULL, tries = 0, last_error = NULL
  FROM shown
 WHERE d.campaign_id = :campaign AND d.lead_id = shown.lead_id AND d.status = 'cancelled'
"""

# Few round trips: after each, the thread waits for the GIL, which the threads that read pages hold.
_STORE_OUTCOMES = text(f"{_LEAVE_OUT_FORGOTTEN};{_LEAVE_OUT_CLEARED};{_MERGE_OUTCOMES}")
_STORE_REST = text(f"{_MERGE_ATTEMPTS};{_SETTLE_LEADS}")

# Late outcomes: outcomes first stored in this transaction (`seen_at` is its time) with a
# `processed_at` in a window that an earlier run had verified.
_MARK_LATE = text("""
WITH proven AS (
    SELECT range_agg(tstzrange(window_after, closed_through, '[]')) AS ranges
      FROM leadloop.poll_windows
     WHERE campaign_id = :campaign AND run_id <> :run
       AND closed_through >= :after AND window_after <= :before
), missed AS (
    SELECT DISTINCT lead_id FROM stage_outcomes, proven WHERE processed_at <@ proven.ranges
), late AS (
    UPDATE leadloop.lead_outcomes AS stored
       SET lookback_needed_s = greatest(
               0, CAST(extract(epoch FROM :watermark - stored.processed_at) AS float8))
      FROM missed, proven
     WHERE stored.campaign_id = :campaign AND stored.lead_id = missed.lead_id
       AND stored.seen_at = now() AND stored.processed_at <@ proven.ranges
    RETURNING lookback_needed_s
)
SELECT count(*) AS late, coalesce(max(lookback_needed_s), 0) AS needed_s FROM late
""")

_WAITING_SINCE = text("""
SELECT min(sent_at) FROM leadloop.leads
 WHERE campaign_id = :campaign AND status = 'created'
   AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes WHERE campaign_id = :campaign)
""")

# Staged by COPY: a value in a statement would be repeated by Postgres's log if the statement fails,
# and by pg_stat_activity.
_STAGE_UNREADABLE = text("""
CREATE TEMPORARY TABLE IF NOT EXISTS stage_unreadable (
    digest text, reason text, raw jsonb, lead_id text, occurrences integer
) ON COMMIT DELETE ROWS
""")
_UNREADABLE_COLUMNS = ("digest", "reason", "raw", "lead_id", "occurrences")
# Results of forgotten leads are not stored. Every poll reads the lookback again: a result that it
# shows again is written at most once an hour. Sorted: two polls lock rows in the same order.
_STORE_UNREADABLE = text("""
INSERT INTO leadloop.unreadable_results AS stored (campaign_id, digest, reason, raw, occurrences)
SELECT :campaign, digest, reason, raw, occurrences
  FROM pg_temp.stage_unreadable AS shown
 WHERE NOT EXISTS (SELECT FROM leadloop.forgotten
                    WHERE campaign_id = :campaign AND forgotten.lead_id = shown.lead_id)
 ORDER BY digest
ON CONFLICT (campaign_id, digest) DO UPDATE
   SET occurrences = greatest(stored.occurrences, excluded.occurrences), seen_at = now()
 WHERE stored.occurrences < excluded.occurrences OR stored.seen_at < now() - interval '1 hour'
""")


@dataclass(frozen=True, kw_only=True)
class MergeCounts:
    """The leads whose outcomes a merge inserted, updated and left unchanged."""

    inserted: int
    updated: int
    unchanged: int


def merge_outcomes(
    connection: Connection,
    campaign_id: str,
    *,
    outcomes: Iterable[str],
    attempts: Iterable[str],
    is_backfill: bool = False,
) -> MergeCounts:
    """Upsert outcomes and attempts; unchanged rows are not written.

    A lead that has an outcome becomes `created`. The merge is idempotent.

    Args:
        connection: a transaction.
        campaign_id: the campaign.
        outcomes: lines of COPY text with the fields of `Outcome`.
        attempts: lines of COPY text with the fields of `OutreachAttempt`.
        is_backfill: the past was read on purpose: latencies are not counted.
    """
    erasure.hold_off_erasure(connection, campaign_id)
    connection.execute(_STAGES)
    copy_lines(connection, "stage_outcomes", Outcome._fields, outcomes)
    copy_lines(connection, "stage_attempts", OutreachAttempt._fields, attempts)
    row = connection.execute(
        _STORE_OUTCOMES, {"campaign": campaign_id, "is_backfill": is_backfill}
    ).one()
    all_newest = row.staged == row.inserted + row.updated
    connection.execute(_STORE_REST, {"campaign": campaign_id, "all_newest": all_newest})
    return MergeCounts(
        inserted=row.inserted,
        updated=row.updated,
        unchanged=row.leads - row.inserted - row.updated,
    )


def mark_late_outcomes(
    connection: Connection, campaign_id: str, window: Window, *, run_id: int, watermark: datetime
) -> LateOutcomes:
    """Mark which of the outcomes just merged are late, and measure the lookback that they needed.

    Args:
        connection: the transaction of `merge_outcomes`.
        campaign_id: the campaign.
        window: the window that was read.
        run_id: the run; its own earlier windows do not count as verified.
        watermark: the watermark when the run began: earlier outcomes should have been stored.
    """
    row = connection.execute(
        _MARK_LATE,
        {
            "campaign": campaign_id,
            "run": run_id,
            "after": window.after,
            "before": window.before,
            "watermark": watermark,
        },
    ).one()
    return LateOutcomes(count=row.late, needed_lookback_s=row.needed_s)


def get_waiting_since(connection: Connection, campaign_id: str) -> datetime | None:
    """Return when the first lead was sent if no outcome has ever arrived; None if one has."""
    moment: datetime | None = connection.scalar(_WAITING_SINCE, {"campaign": campaign_id})
    return moment


def store_unreadable(
    connection: Connection, campaign_id: str, results: Sequence[tuple[str, object]]
) -> None:
    """Store results that could not be parsed, each with the reason; deduplicated by digest.

    Equal results are one row, with the greatest number of them that one call has stored. So a call
    has all the unreadable results of one read of a window.

    Results of forgotten leads are not stored: they contain personal data only.
    """
    if not results:
        return
    erasure.hold_off_erasure(connection, campaign_id)
    raws = [dump_json(result) for _, result in results]
    digests = [hashlib.sha256(raw.encode()).hexdigest() for raw in raws]
    occurrences = Counter(digests)
    rows = {
        digest: (reason, raw, parse_lead_id(result) if isinstance(result, dict) else None)
        for digest, raw, (reason, result) in zip(digests, raws, results, strict=True)
    }
    lines = (
        format_row((digest, reason, raw, lead_id, occurrences[digest]))
        for digest, (reason, raw, lead_id) in rows.items()
    )
    connection.execute(_STAGE_UNREADABLE)
    copy_lines(connection, "pg_temp.stage_unreadable", _UNREADABLE_COLUMNS, lines)
    connection.execute(_STORE_UNREADABLE, {"campaign": campaign_id})
