"""How late outcomes appear: measured as they are stored, and told by campaign."""

from datetime import datetime

from sqlalchemy import Connection, text

from leadloop.core.late_outcomes import LateOutcomes
from leadloop.core.windows import Window

# Of what this transaction has stored first (`seen_at` is its time), that which an earlier run
# should have found: it had proven the time of it.
_MEASURE = text("""
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
               0, CAST(extract(epoch FROM :mark - stored.processed_at) AS float8))
      FROM missed, proven
     WHERE stored.campaign_id = :campaign AND stored.lead_id = missed.lead_id
       AND stored.seen_at = now() AND stored.processed_at <@ proven.ranges
    RETURNING lookback_needed_s
)
SELECT count(*) AS late, coalesce(max(lookback_needed_s), 0) AS needed_s FROM late
""")


def mark_late_outcomes(
    connection: Connection, campaign_id: str, window: Window, *, run_id: int, watermark: datetime
) -> LateOutcomes:
    """Mark which of the outcomes just merged were late. For the transaction of the merge.

    Args:
        connection: the transaction of `outcomes.merge`.
        campaign_id: the campaign.
        window: what was read.
        run_id: the run, whose own windows do not count as earlier ones.
        mark: the watermark when the run began: behind it everything should have been stored.
    """
    row = connection.execute(
        _MEASURE,
        {
            "campaign": campaign_id,
            "run": run_id,
            "after": window.after,
            "before": window.before,
            "mark": watermark,
        },
    ).one()
    return LateOutcomes(count=row.late, needed_lookback_s=row.needed_s)
