"""Marks and an index for clearing the vendor's answers, and autovacuum of the large tables.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done.
"""

from alembic import op

revision = "0008_housekeeping"
down_revision = "0007_idle_runs"
branch_labels = None
depends_on = None

_TABLES = r"""
ALTER TABLE leadloop.campaigns ADD COLUMN IF NOT EXISTS raw_cleared_through timestamptz;
CREATE INDEX IF NOT EXISTS lead_outcomes_updated
    ON leadloop.lead_outcomes (campaign_id, updated_at)
    WHERE updated_at <> first_seen_at AND raw <> '{}';
ALTER TABLE leadloop.leads SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE leadloop.lead_outcomes SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE leadloop.outreach_attempts SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE leadloop.watermarks SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE leadloop.rate_slots SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
"""


def upgrade() -> None:
    """Add a column and an index, and set when tables are vacuumed.

    The last migration replaces triggers, views and the like.
    """
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
