"""Priorities, ages, calling hours, re-reads, purposes of slots, latencies, contrasts of pages.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done. The last migration replaces views and comments, which need all columns.
"""

from alembic import op

revision = "0004_live"
down_revision = "0003_suspects"
branch_labels = None
depends_on = None

_TABLES = r"""
ALTER TABLE leadloop.campaigns ADD COLUMN IF NOT EXISTS
    priority smallint NOT NULL DEFAULT 0 CHECK (priority >= 0);
ALTER TABLE leadloop.campaigns ADD COLUMN IF NOT EXISTS
    max_lead_age_s integer CHECK (max_lead_age_s > 0);
ALTER TABLE leadloop.campaigns ADD COLUMN IF NOT EXISTS calling_hours text
    CHECK (
        calling_hours ~ '^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9] \S+$'
        AND substr(calling_hours, 1, 5) <> substr(calling_hours, 7, 5));
ALTER TABLE leadloop.leads ADD COLUMN IF NOT EXISTS
    priority smallint NOT NULL DEFAULT 0 CHECK (priority >= 0);
CREATE INDEX IF NOT EXISTS leads_urgent ON leadloop.leads (campaign_id, priority DESC, seq)
    WHERE status = 'new' AND priority > 0;
CREATE INDEX IF NOT EXISTS disable_requests_new
    ON leadloop.disable_requests (campaign_id, requested_at) WHERE status = 'requested';
ALTER TABLE leadloop.watermarks ADD COLUMN IF NOT EXISTS reread_through timestamptz;
-- Until the ring is resized, no request uses the slots that are there; each has served one.
ALTER TABLE leadloop.rate_slots ADD COLUMN IF NOT EXISTS purposes text[] NOT NULL DEFAULT '{}';
ALTER TABLE leadloop.rate_slots ADD COLUMN IF NOT EXISTS uses integer NOT NULL DEFAULT 1;
ALTER TABLE leadloop.rate_slots
    ADD COLUMN IF NOT EXISTS occupied_s double precision NOT NULL DEFAULT 0;
ALTER TABLE leadloop.rate_slots ALTER COLUMN purposes DROP DEFAULT,
    ALTER COLUMN uses DROP DEFAULT, ALTER COLUMN occupied_s DROP DEFAULT;
ALTER TABLE leadloop.owed_windows
    ADD COLUMN IF NOT EXISTS tries_as_is integer NOT NULL DEFAULT 1;
ALTER TABLE leadloop.learned_limits DROP CONSTRAINT IF EXISTS learned_limits_name_check;
ALTER TABLE leadloop.learned_limits ADD CONSTRAINT learned_limits_name_check
    CHECK (name IN ('page_size', 'page_contrasts', 'page_depth',
                    'batch_size', 'batch_bytes', 'blank_success'));
CREATE TABLE IF NOT EXISTS leadloop.latencies (
    hour        timestamptz NOT NULL,
    campaign_id text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('lead', 'urgent lead', 'opt-out', 'outcome')),
    bucket_s    double precision NOT NULL,
    amount      bigint NOT NULL,
    total_s     double precision NOT NULL,
    PRIMARY KEY (hour, campaign_id, kind, bucket_s)
)
WITH (fillfactor = 50);
"""


def upgrade() -> None:
    """Add columns, tables and indexes."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
