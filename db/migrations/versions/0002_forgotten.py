"""People whose data was removed on request.

A table of its own: a column of `leads`, with the index that a poll needs, would keep everybody from
that table while the index is made.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FORGOTTEN = """
CREATE TABLE leadloop.forgotten (
    campaign_id  text NOT NULL,
    lead_id      text NOT NULL,
    forgotten_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, lead_id)
);
COMMENT ON TABLE leadloop.forgotten IS
    'Leads whose personal data was removed (`leadloop forget`): what the vendor still tells of them
is stored without it.';
COMMENT ON COLUMN leadloop.forgotten.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.forgotten.lead_id IS 'The lead''s id, which stays.';
COMMENT ON COLUMN leadloop.forgotten.forgotten_at IS 'When that was.';
"""


def upgrade() -> None:
    """Make the table."""
    op.get_bind().exec_driver_sql(FORGOTTEN)
