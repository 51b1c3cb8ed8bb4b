"""Sums of leads by attempts, of runs, and of all campaigns together; and the lags of polls by hour.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done. `leadloop init` counts the stored rows again afterwards (`db.counts.fill_counts`),
beside the writers. This migration holds polls off while it builds two indexes of their windows.
"""

from alembic import op

revision = "0012_totals"
down_revision = "0011_first_contact"
branch_labels = None
depends_on = None

_IS_COUNTED = "SELECT WHERE to_regclass('leadloop.attempt_changes') IS NOT NULL"
_COUNT_AGAIN = "DELETE FROM leadloop.counts_filled"
_HAS_KEY = """
SELECT FROM pg_attribute
 WHERE attrelid = CAST('leadloop.counts' AS regclass) AND attname = 'key' AND NOT attisdropped
"""
# A run of 0011 that goes on would fold the changes of kinds that it does not know into nothing, and
# its recount would delete their sums. Both name this column, so they fail, and the changes stay.
_RENAME_KEY = "ALTER TABLE leadloop.counts RENAME COLUMN key TO digest"
_TABLES = """
CREATE TABLE IF NOT EXISTS leadloop.attempt_changes (
    campaign_id  text NOT NULL,
    lead_ids     text[] NOT NULL,
    outcome_name text,
    outcomes     integer NOT NULL DEFAULT 0,
    attempts     integer NOT NULL DEFAULT 0
)
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
DROP INDEX IF EXISTS leadloop.poll_windows_by_hour, leadloop.poll_windows_slowest;
CREATE INDEX poll_windows_by_hour ON leadloop.poll_windows
    ((date_bin('1 hour', polled_at, '2000-01-01 00:00:00+00')), campaign_id);
CREATE INDEX poll_windows_slowest ON leadloop.poll_windows
    ((date_bin('1 hour', polled_at, '2000-01-01 00:00:00+00')),
     (CASE WHEN range_after IS NULL
           THEN date_part('epoch', polled_at - coalesce(closed_through, window_after)) END)
     DESC NULLS LAST);
"""
# After the indexes are built: whoever begins or ends a run, or reads a sum, waits for these.
_LAST = """
ALTER TABLE leadloop.counts
    DROP CONSTRAINT counts_span_check,
    ADD CONSTRAINT counts_span_check
        CHECK (span IN ('hour', 'day', 'ever', 'total hour', 'total day'));
DROP INDEX IF EXISTS leadloop.sync_runs_by_hour;
"""


def upgrade() -> None:
    """Add a table and sums, replace an index. The last migration replaces views and the like."""
    connection = op.get_bind()
    if connection.exec_driver_sql(_IS_COUNTED).first() is None:
        connection.exec_driver_sql(_COUNT_AGAIN)
    connection.exec_driver_sql(_TABLES)
    if connection.exec_driver_sql(_HAS_KEY).first() is not None:
        connection.exec_driver_sql(_RENAME_KEY)
    connection.exec_driver_sql(_LAST)
