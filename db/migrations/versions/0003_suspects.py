"""Suspects of failed creates, holds of creates, and learned limits of a create.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done. The last migration replaces views and comments, which need all columns.
"""

from alembic import op

revision = "0003_suspects"
down_revision = "0002_progress"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE leadloop.campaigns ADD COLUMN IF NOT EXISTS create_accepted_at timestamptz;
ALTER TABLE leadloop.campaigns ADD COLUMN IF NOT EXISTS create_failed_at timestamptz;
ALTER TABLE leadloop.campaigns ADD COLUMN IF NOT EXISTS listing_failed_at timestamptz;
ALTER TABLE leadloop.leads ADD COLUMN IF NOT EXISTS suspect_list bigint;
ALTER TABLE leadloop.leads ADD COLUMN IF NOT EXISTS suspected_at timestamptz;
ALTER TABLE leadloop.leads ADD COLUMN IF NOT EXISTS last_failed_at timestamptz;
ALTER TABLE leadloop.leads ADD COLUMN IF NOT EXISTS lone_failures integer NOT NULL DEFAULT 0;
ALTER TABLE leadloop.leads ADD COLUMN IF NOT EXISTS next_try_at timestamptz;
CREATE INDEX IF NOT EXISTS leads_suspected ON leadloop.leads (campaign_id, suspect_list)
    WHERE suspect_list IS NOT NULL;
ALTER TABLE leadloop.learned_limits DROP CONSTRAINT IF EXISTS learned_limits_name_check;
ALTER TABLE leadloop.learned_limits ADD CONSTRAINT learned_limits_name_check
    CHECK (name IN ('page_size', 'page_depth', 'batch_size', 'batch_bytes', 'blank_success'));
CREATE TABLE IF NOT EXISTS leadloop.database_identity (
    system_identifier text,
    timeline          text,
    database_oid      oid,
    seen_at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX IF NOT EXISTS database_identity_one
    ON leadloop.database_identity ((true));
CREATE TABLE IF NOT EXISTS leadloop.create_holds (
    hold_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id  text NOT NULL,
    held_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_by      text NOT NULL DEFAULT session_user,
    reason       text NOT NULL,
    released_at  timestamptz,
    released_by  text,
    released_reason text CHECK (released_reason <> ''),
    CHECK ((released_at IS NULL) = (released_reason IS NULL))
);
CREATE UNIQUE INDEX IF NOT EXISTS create_holds_open ON leadloop.create_holds (campaign_id)
    WHERE released_at IS NULL;
"""
# `batch_limit` was only ever lowered; as a learned limit it is tried upwards in a day.
_HAS_BATCH_LIMIT = """
SELECT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = to_regclass('leadloop.campaigns') AND attname = 'batch_limit')
"""
_MOVE_BATCH_LIMIT = """
INSERT INTO leadloop.learned_limits (campaign_id, name, value)
SELECT campaign_id, 'batch_size', batch_limit FROM leadloop.campaigns
 WHERE batch_limit IS NOT NULL;
ALTER TABLE leadloop.campaigns DROP COLUMN batch_limit;
"""


def upgrade() -> None:
    """Add columns, tables and indexes, and move the batch limit."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
    if connection.exec_driver_sql(_HAS_BATCH_LIMIT).scalar_one():
        connection.exec_driver_sql(_MOVE_BATCH_LIMIT)
