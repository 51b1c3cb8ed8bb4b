"""Counts of what is past, kept by triggers, and indexes for the views that read them.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done. `leadloop init` counts the stored rows afterwards (`db.counts.fill_counts`), beside
the writers. This migration holds writers off while it builds indexes: some seconds for a million
leads.
"""

from alembic import op

revision = "0005_counts"
down_revision = "0004_live"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE IF NOT EXISTS leadloop.count_changes (
    kind        text NOT NULL,
    hour        timestamptz NOT NULL,
    campaign_id text NOT NULL,
    name        text,
    detail      text,
    amount      bigint NOT NULL,
    marked      bigint NOT NULL,
    cost        numeric
)
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE TABLE IF NOT EXISTS leadloop.counts (
    kind        text NOT NULL,
    span        text NOT NULL CHECK (span IN ('hour', 'day', 'ever')),
    since       timestamptz NOT NULL,
    campaign_id text NOT NULL,
    key         bytea NOT NULL,
    name        text,
    detail      text,
    amount      bigint NOT NULL,
    marked      bigint NOT NULL,
    cost        numeric,
    PRIMARY KEY (kind, span, since, campaign_id, key)
)
WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS leadloop.counts_filled (filled_at timestamptz NOT NULL DEFAULT now());
CREATE UNIQUE INDEX IF NOT EXISTS counts_filled_one ON leadloop.counts_filled ((true));
"""
_INDEXES = """
CREATE INDEX IF NOT EXISTS leads_rejected ON leadloop.leads
    (campaign_id, hashtext(coalesce(last_error, '')), seq DESC) WHERE status = 'rejected';
DROP INDEX IF EXISTS leadloop.lead_outcomes_late;
CREATE INDEX lead_outcomes_late ON leadloop.lead_outcomes (campaign_id, lookback_needed_s DESC)
    WHERE lookback_needed_s IS NOT NULL;
CREATE INDEX IF NOT EXISTS lead_outcomes_late_recent
    ON leadloop.lead_outcomes (campaign_id, seen_at) WHERE lookback_needed_s IS NOT NULL;
CREATE INDEX IF NOT EXISTS lead_outcomes_by_day ON leadloop.lead_outcomes
    USING brin ((CAST(processed_at AT TIME ZONE 'UTC' AS date)))
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX IF NOT EXISTS outreach_attempts_by_day ON leadloop.outreach_attempts
    USING brin ((CAST(occurred_at AT TIME ZONE 'UTC' AS date)))
    WITH (pages_per_range = 16, autosummarize = on);
CREATE INDEX IF NOT EXISTS sync_runs_by_hour ON leadloop.sync_runs
    ((date_trunc('hour', started_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'));
CREATE INDEX IF NOT EXISTS poll_windows_by_hour ON leadloop.poll_windows
    ((date_trunc('hour', polled_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'));
"""


def upgrade() -> None:
    """Create tables and indexes; the last migration replaces triggers, views and the like."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
    connection.exec_driver_sql(_INDEXES)
