"""Import of leads from a file (`leadloop load`): staging table, then insert of the new leads."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from db.bulk_copy import CopyValue, copy_lines, format_row
from db.campaigns import add_campaign

COLUMNS = (
    "lead_id",
    "phone_number",
    "contact_name",
    "state_code",
    "ebr_datetime",
    "custom_fields",
    "priority",
)

_STAGE = text("""
CREATE TEMPORARY TABLE IF NOT EXISTS stage_leads (
    place bigint GENERATED ALWAYS AS IDENTITY,
    lead_id text, phone_number text, contact_name text, state_code text, ebr_datetime timestamptz,
    custom_fields jsonb, priority smallint
) ON COMMIT DELETE ROWS
""")
_INSERT = text("""
INSERT INTO leadloop.leads
       (campaign_id, lead_id, phone_number, contact_name, state_code, ebr_datetime, custom_fields,
        priority)
SELECT :campaign, lead_id, phone_number, contact_name, state_code, ebr_datetime, custom_fields,
       coalesce(priority, 0)
  FROM stage_leads ORDER BY place
ON CONFLICT (campaign_id, lead_id) DO NOTHING
""")


def insert_new_leads(
    connection: Connection, campaign_id: str, rows: Sequence[Sequence[CopyValue]]
) -> int:
    """Insert leads; existing ones stay unchanged (idempotent). `rows` have the order of COLUMNS.

    Returns:
        The number of inserted leads.
    """
    connection.execute(_STAGE)
    copy_lines(connection, "stage_leads", COLUMNS, map(format_row, rows))
    return connection.execute(_INSERT, {"campaign": campaign_id}).rowcount


def import_campaign(
    connection: Connection, campaign_id: str, rows: Sequence[Sequence[CopyValue]]
) -> None:
    """Add the campaign if it is missing, and its leads that are new."""
    add_campaign(connection, campaign_id)
    insert_new_leads(connection, campaign_id, rows)
