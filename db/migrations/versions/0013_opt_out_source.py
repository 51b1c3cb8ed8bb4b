"""Opt-outs from tables of the team, and those of leads whose rows leave the campaign's source.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done.
"""

from alembic import op

revision = "0013_opt_out_source"
down_revision = "0012_totals"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE leadloop.campaigns
    ADD COLUMN IF NOT EXISTS on_source_removal text NOT NULL DEFAULT 'keep'
        CHECK (on_source_removal IN ('keep', 'opt_out')),
    ADD COLUMN IF NOT EXISTS opt_out_source text
        CONSTRAINT campaigns_opt_out_source_is_another CHECK (opt_out_source <> source);
ALTER TABLE leadloop.disable_requests
    ADD COLUMN IF NOT EXISTS origin text
        CHECK (origin IN ('opt_out_source', 'source_removal', 'person'));
CREATE INDEX IF NOT EXISTS disable_requests_removed
    ON leadloop.disable_requests (campaign_id, requested_at) WHERE origin = 'source_removal';
CREATE TABLE IF NOT EXISTS leadloop.opt_out_source_rows (
    campaign_id text NOT NULL,
    entry       bytea NOT NULL,
    reason      text,
    read_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, entry)
);
CREATE INDEX IF NOT EXISTS opt_out_source_rows_refused
    ON leadloop.opt_out_source_rows (campaign_id) WHERE reason IS NOT NULL;
CREATE TABLE IF NOT EXISTS leadloop.opt_out_source_reads (
    campaign_id text PRIMARY KEY,
    digest      text,
    unreadable  integer NOT NULL DEFAULT 0,
    read_at     timestamptz DEFAULT now(),
    failed_at   timestamptz,
    error       text,
    CHECK ((failed_at IS NULL) = (error IS NULL))
);
CREATE TABLE IF NOT EXISTS leadloop.held_removals (
    campaign_id text PRIMARY KEY,
    amount      integer NOT NULL CHECK (amount > 0),
    held_at     timestamptz NOT NULL DEFAULT now()
);
"""


def upgrade() -> None:
    """Add tables and columns. The last migration replaces triggers, views and the like."""
    op.get_bind().exec_driver_sql(_TABLES)
