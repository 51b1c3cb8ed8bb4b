"""Import of leads from a file (`leadloop load`): staging table, then insert of the new leads."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, TextClause, text

from db.bulk_copy import CopyValue, copy_lines, format_row
from db.campaigns import add_campaign
from db.leads import CLEAR_SUSPICION

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


# The last row of a lead counts.
_LAST_ROWS = "SELECT DISTINCT ON (lead_id) * FROM stage_leads ORDER BY lead_id, place DESC"
_IS_CORRECTABLE = """lead.status IN ('new', 'rejected') AND NOT lead.opted_out
           AND NOT lead.from_source"""
_IS_FORGOTTEN = """EXISTS (SELECT FROM leadloop.forgotten
             WHERE forgotten.campaign_id = lead.campaign_id AND forgotten.lead_id = lead.lead_id)"""


@dataclass(frozen=True, kw_only=True)
class ImportedColumns:
    """The columns that a file has: `own`, those of `leadloop.leads`; `custom`, custom fields."""

    own: Sequence[str] = COLUMNS
    custom: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What an import did.

    Attributes:
        loaded: new leads.
        updated: existing leads that were corrected.
        correctable: existing leads that differ, were not sent, and stay as they are.
        kept: existing leads that differ and cannot be corrected.
        still_rejected: of the updated leads, those that the vendor has rejected.
    """

    loaded: int = 0
    updated: int = 0
    correctable: int = 0
    kept: int = 0
    still_rejected: int = 0

    def __add__(self, more: "ImportResult") -> "ImportResult":
        """Add the counts."""
        sums = {name: value + getattr(more, name) for name, value in vars(self).items()}
        return ImportResult(**sums)


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


def import_leads(
    connection: Connection,
    campaign_id: str,
    rows: Sequence[Sequence[CopyValue]],
    columns: ImportedColumns,
    *,
    update: bool = False,
) -> ImportResult:
    """Insert new leads, and count or correct existing ones that differ (idempotent).

    Args:
        connection: a transaction.
        campaign_id: the campaign.
        rows: in the order of COLUMNS.
        columns: those of the file: others of an existing lead neither differ nor change.
        update: correct the leads that were not sent. A lead that our checks had rejected is new
            again; one that the vendor has rejected stays so.
    """
    loaded = insert_new_leads(connection, campaign_id, rows)
    if loaded == len(rows):
        return ImportResult(loaded=loaded)
    parameters = {"campaign": campaign_id, "custom": list(columns.custom)}
    updated = still_rejected = 0
    if update:
        statuses = connection.scalars(_build_update(columns.own), parameters).all()
        updated, still_rejected = len(statuses), statuses.count("rejected")
    differing = connection.execute(_build_count(columns.own), parameters).one()
    return ImportResult(
        loaded=loaded, updated=updated, still_rejected=still_rejected, **differing._mapping
    )


def _build_differing(own: Sequence[str]) -> str:
    """Build the query of existing leads that differ from their last staged row, with new values."""
    fixed = [name for name in COLUMNS if name not in ("lead_id", "custom_fields")]
    values = {name: f"staged.{name}" if name in own else f"lead.{name}" for name in fixed}
    values["priority"] = values["priority"].replace(
        "staged.priority", "coalesce(staged.priority, 0)"
    )
    values["custom_fields"] = (
        "(lead.custom_fields - CAST(:custom AS text[])) || staged.custom_fields"
    )
    selected = ", ".join(f"{value} AS {name}" for name, value in values.items())
    return f"""
    SELECT lead.campaign_id, lead.lead_id, {_IS_CORRECTABLE} AS is_correctable, {selected}
      FROM ({_LAST_ROWS}) AS staged JOIN leadloop.leads AS lead USING (lead_id)
     WHERE lead.campaign_id = :campaign AND NOT {_IS_FORGOTTEN}
       AND ({", ".join(f"lead.{name}" for name in values)})
           IS DISTINCT FROM ({", ".join(values.values())})"""


def _build_count(own: Sequence[str]) -> TextClause:
    return text(f"""
SELECT count(*) FILTER (WHERE is_correctable) AS correctable,
       count(*) FILTER (WHERE NOT is_correctable) AS kept
  FROM ({_build_differing(own)}) AS differing
""")


def _build_update(own: Sequence[str]) -> TextClause:
    # Locked in the order in which opt-outs lock leads.
    return text(f"""
WITH corrected AS (
    {_build_differing(own)} AND {_IS_CORRECTABLE}
     ORDER BY lead.lead_id FOR NO KEY UPDATE OF lead
)
UPDATE leadloop.leads AS lead
   SET phone_number = corrected.phone_number, contact_name = corrected.contact_name,
       state_code = corrected.state_code, ebr_datetime = corrected.ebr_datetime,
       custom_fields = corrected.custom_fields, priority = corrected.priority,
       status = CASE WHEN lead.sent_at IS NULL THEN 'new' ELSE lead.status END,
       last_error = CASE WHEN lead.sent_at IS NOT NULL THEN lead.last_error END,
       {CLEAR_SUSPICION}
  FROM corrected
 WHERE lead.campaign_id = corrected.campaign_id AND lead.lead_id = corrected.lead_id
RETURNING lead.status
""")


def import_campaign(
    connection: Connection, campaign_id: str, rows: Sequence[Sequence[CopyValue]]
) -> None:
    """Add the campaign if it is missing, and its leads that are new."""
    add_campaign(connection, campaign_id)
    insert_new_leads(connection, campaign_id, rows)
