"""Several accounts at the vendor: a campaign names the one whose login and rate limit it uses.

Each account has separate slots of the rate limiter, and separate covering rows of runs.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done.
"""

from alembic import op

from db.schema import REPLACEABLE, create_schema

revision = "0014_accounts"
down_revision = "0013_opt_out_source"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE leadloop.campaigns
    ADD COLUMN IF NOT EXISTS account text NOT NULL DEFAULT 'default' CHECK (
        account ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(account) <= 40);
ALTER TABLE leadloop.sync_runs ADD COLUMN IF NOT EXISTS account text NOT NULL DEFAULT 'default';
CREATE INDEX IF NOT EXISTS sync_runs_covering ON leadloop.sync_runs (account, flow, run_id DESC)
    WHERE campaign_id = '';
ALTER TABLE leadloop.rate_slots ADD COLUMN IF NOT EXISTS account text NOT NULL DEFAULT 'default';
"""
_HAS_KEY = """
SELECT FROM pg_constraint
 WHERE conrelid = CAST('leadloop.rate_slots' AS regclass) AND contype = 'p'
   AND cardinality(conkey) = 2
"""
_KEY = """
ALTER TABLE leadloop.rate_slots DROP CONSTRAINT rate_slots_pkey, ADD PRIMARY KEY (account, slot);
"""


def upgrade() -> None:
    """Add columns, an index and a key; replace triggers, views and descriptions."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
    if connection.exec_driver_sql(_HAS_KEY).first() is None:
        connection.exec_driver_sql(_KEY)
    create_schema(connection, *REPLACEABLE)
