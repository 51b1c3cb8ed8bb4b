"""One lock a flow run, and covering rows: a run in which nothing is due writes one row.

Each statement does nothing where it has been done, because 0001 states the whole schema.
"""

from alembic import op

revision = "0007_idle_runs"
down_revision = "0006_input"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE leadloop.sync_runs ADD COLUMN IF NOT EXISTS lock_id bigint;
-- A campaign that exists counts as enabled for as long as it has been there.
ALTER TABLE leadloop.campaigns
    ADD COLUMN IF NOT EXISTS enabled_at timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE leadloop.campaigns ALTER COLUMN enabled_at SET DEFAULT now();
CREATE INDEX IF NOT EXISTS sync_runs_created ON leadloop.sync_runs (campaign_id, run_id)
    WHERE flow = 'push-leads' AND CAST(counts ->> 'created' AS bigint) > 0;
CREATE INDEX IF NOT EXISTS sync_runs_troubled ON leadloop.sync_runs (campaign_id, run_id DESC)
    WHERE flow = 'push-leads' AND (CAST(counts ->> 'rejected' AS bigint) > 0
                                   OR CAST(counts ->> 'in_doubt' AS bigint) > 0
                                   OR CAST(counts ->> 'unreadable_rows' AS bigint) > 0);
CREATE INDEX IF NOT EXISTS sync_runs_failed ON leadloop.sync_runs (campaign_id, flow, run_id DESC)
    WHERE state IN ('failed', 'crashed');
"""


def upgrade() -> None:
    """Add columns and indexes; the last migration replaces triggers, views and the like."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
