"""Opting in again, numbers suppressed by each lead that opted out, and area codes of a campaign.

Until the first release, 0001 states the whole schema; so each statement here does nothing where it
has been done.
"""

from alembic import op

revision = "0006_input"
down_revision = "0005_counts"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE leadloop.campaigns ADD COLUMN IF NOT EXISTS area_codes text[] CHECK (
    array_to_string(area_codes, ',') ~ '^[2-9][0-9]{2}(,[2-9][0-9]{2})*$');
CREATE TABLE IF NOT EXISTS leadloop.opt_ins (
    opt_in_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id  text NOT NULL,
    lead_id      text NOT NULL,
    opted_in_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    opted_in_by  text NOT NULL DEFAULT session_user,
    reason       text NOT NULL CHECK (reason <> ''),
    opted_out_at timestamptz
);
CREATE INDEX IF NOT EXISTS opt_ins_by_lead ON leadloop.opt_ins (campaign_id, lead_id);
CREATE INDEX IF NOT EXISTS suppressed_numbers_by_lead
    ON leadloop.suppressed_numbers (campaign_id, lead_id);
"""
_SUPPRESSES_BY_NUMBER = """
SELECT array_length(conkey, 1) = 1 FROM pg_constraint
 WHERE conrelid = CAST('leadloop.suppressed_numbers' AS regclass) AND contype = 'p'
"""
# The numbers of all opted-out leads are indexed again, each for its own lead. Those of forgotten
# leads are erased. Where one may have been kept for another lead with that number, all numbers are
# kept for one forgotten lead too, which cannot opt in.
_SUPPRESS_BY_LEAD = """
ALTER TABLE leadloop.suppressed_numbers DROP CONSTRAINT suppressed_numbers_pkey;
ALTER TABLE leadloop.suppressed_numbers ADD PRIMARY KEY (number_key, campaign_id, lead_id);
INSERT INTO leadloop.suppressed_numbers (number_key, campaign_id, lead_id, noted_at)
SELECT known.number_key, kept.campaign_id, kept.lead_id, known.noted_at
  FROM leadloop.suppressed_numbers AS known
 CROSS JOIN (SELECT campaign_id, lead_id FROM leadloop.forgotten
              WHERE NOT EXISTS (SELECT FROM leadloop.suppressed_numbers AS own
                                 WHERE own.campaign_id = forgotten.campaign_id
                                   AND own.lead_id = forgotten.lead_id)
              ORDER BY campaign_id, lead_id LIMIT 1) AS kept;
UPDATE leadloop.leads SET number_noted = false WHERE number_noted;
"""


def upgrade() -> None:
    """Add a table, a column and an index."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
    if connection.exec_driver_sql(_SUPPRESSES_BY_NUMBER).scalar_one():
        connection.exec_driver_sql(_SUPPRESS_BY_LEAD)
