"""Thresholds of alerts for each campaign.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done.
"""

from alembic import op

revision = "0010_thresholds"
down_revision = "0009_scale"
branch_labels = None
depends_on = None

_HAS_COLUMN = """
SELECT FROM information_schema.columns
 WHERE table_schema = 'leadloop' AND table_name = 'campaigns' AND column_name = 'thresholds'
"""
_TABLES = r"""
ALTER TABLE leadloop.campaigns
    ADD COLUMN thresholds jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT campaigns_thresholds_named CHECK (
        jsonb_typeof(thresholds) = 'object' AND thresholds - ARRAY[
            'opt_outs_waiting', 'opt_outs_unknown', 'poll_behind', 'windows_owed',
            'leads_unsent', 'leads_in_doubt', 'outcomes_late', 'run_failed', 'run_too_long',
            'nothing_runs', 'results_unreadable', 'outcomes_unknown', 'leads_rejected',
            'doubts_growing', 'lead_slow', 'opt_out_slow', 'outcome_slow']
            = '{}'),
    ADD CONSTRAINT campaigns_thresholds_whole CHECK (
        NOT jsonb_path_exists(thresholds, 'strict $.* ? (@.type() != "number"
            || @ < 1 || @ > 31536000 || @.floor() != @)')
        AND NOT jsonb_path_exists(thresholds - ARRAY['lead_slow', 'opt_out_slow', 'outcome_slow'],
                                  'strict $.* ? ((@ / 60).floor() * 60 != @)'));
"""
_HAS_BOUND = """
SELECT FROM pg_constraint WHERE conname = 'campaigns_thresholds_of_opt_outs'
   AND conrelid = CAST('leadloop.campaigns' AS regclass)
"""
_BOUND = r"""
ALTER TABLE leadloop.campaigns ADD CONSTRAINT campaigns_thresholds_of_opt_outs CHECK (
    NOT jsonb_path_exists(
        thresholds, 'lax $.keyvalue() ? (@.key starts with "opt_outs_").value ? (@ > 86400)'));
"""


def upgrade() -> None:
    """Add a column. The last migration replaces triggers, views and the like."""
    connection = op.get_bind()
    if connection.exec_driver_sql(_HAS_COLUMN).first() is None:
        connection.exec_driver_sql(_TABLES)
    if connection.exec_driver_sql(_HAS_BOUND).first() is None:
        connection.exec_driver_sql(_BOUND)
