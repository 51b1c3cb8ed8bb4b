"""What a first contact learns: a table of answers, and whether lead ids are sent as numbers.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done.
"""

from alembic import op

revision = "0011_first_contact"
down_revision = "0010_thresholds"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE leadloop.campaigns
    ADD COLUMN IF NOT EXISTS numeric_lead_ids boolean NOT NULL DEFAULT false;
CREATE TABLE IF NOT EXISTS leadloop.learned_answers (
    campaign_id text NOT NULL,
    question    text NOT NULL,
    answer      text NOT NULL,
    learned_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, question)
);
"""


def upgrade() -> None:
    """Add a table and a column. The last migration replaces triggers, views and the like."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
