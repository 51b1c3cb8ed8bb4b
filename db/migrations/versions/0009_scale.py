"""Indexes and views whose costs follow what is open, not campaigns, runs or history.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done.
"""

from alembic import op

revision = "0009_scale"
down_revision = "0008_housekeeping"
branch_labels = None
depends_on = None

_TABLES = r"""
DROP INDEX IF EXISTS leadloop.sync_runs_troubled;
CREATE INDEX sync_runs_troubled ON leadloop.sync_runs (campaign_id, run_id DESC)
    WHERE flow = 'push-leads' AND (CAST(counts ->> 'rejected' AS bigint)
                                       > coalesce(CAST(counts ->> 'created' AS bigint), 0)
                                   OR CAST(counts ->> 'in_doubt' AS bigint) > 0
                                   OR CAST(counts ->> 'unreadable_rows' AS bigint) > 0);
"""


def upgrade() -> None:
    """Replace an index. The last migration replaces triggers, views and the like."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
