"""Preview of a push (dry run): the leads that would be sent if the source were synced now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.leads import FIELD_SIZES, LEAD_COLUMNS, NO_LIMIT
from db.source import DIFF_QUERY
from leadloop.core.leads import Lead

_FETCH_SIZE = 1000
# One snapshot, read-only.
_READ_ONLY_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_NEW = """
SELECT *, 'kept' AS kind FROM leadloop.leads WHERE campaign_id = :campaign AND status = 'new'
"""
_CHECK_CONVERTIBLE = text("SELECT count(CAST(fields AS jsonb)) FROM pg_temp.source_rows")
_PREVIEW = """
SELECT kind, opted_out, {columns} FROM (
    SELECT preview.kind, preview.lead_id, preview.phone_number, preview.contact_name,
           preview.state_code, preview.ebr_datetime, preview.custom_fields, {sizes} AS sizes,
           preview.opted_out OR request.lead_id IS NOT NULL AS opted_out
      FROM ({preview}) AS preview
      LEFT JOIN leadloop.disable_requests AS request
        ON request.campaign_id = :campaign AND request.lead_id = preview.lead_id
     WHERE preview.kind IS NOT NULL
    OFFSET 0) AS row
"""


@dataclass(frozen=True, kw_only=True)
class PreviewRow:
    """A lead that a push would send, or a row of the source that it would skip.

    `kind`: `new`, `changed` and `kept` are sent; `gone`, `unnamed` and `twin` are not (see
    `db.source.DIFF_QUERY`).
    """

    kind: str
    lead: Lead
    opted_out: bool

    @property
    def will_be_sent(self) -> bool:
        """Whether a push would send the lead."""
        return self.kind in ("new", "changed", "kept")


@contextmanager
def read_only_snapshot(connection: Connection) -> Iterator[None]:
    """Open a read-only transaction on one snapshot (REPEATABLE READ)."""
    with connection.begin():
        connection.execute(_READ_ONLY_SNAPSHOT)
        yield


def check_convertible(connection: Connection) -> None:
    """Check that the JSON of all staged rows of a source can be stored."""
    with connection.begin():
        connection.execute(_CHECK_CONVERTIBLE)


def iter_rows(
    connection: Connection, campaign_id: str, *, has_source: bool, max_lead_bytes: int = NO_LIMIT
) -> Iterator[PreviewRow]:
    """Stream all rows of the preview: there may be millions.

    Args:
        connection: in `read_only_snapshot`.
        campaign_id: the campaign.
        has_source: the connection holds a source's rows (`db.source.stage_source_rows`).
        max_lead_bytes: the fields of a lead with more bytes are not read (`Lead.left_out`).
    """
    return _stream_rows(
        connection, campaign_id, "", has_source=has_source, max_lead_bytes=max_lead_bytes
    )


def iter_opted_out_rows(
    connection: Connection, campaign_id: str, *, has_source: bool, max_lead_bytes: int = NO_LIMIT
) -> Iterator[PreviewRow]:
    """Stream the preview's rows of opted-out leads only; otherwise as `iter_rows`."""
    return _stream_rows(
        connection,
        campaign_id,
        "WHERE opted_out",
        has_source=has_source,
        max_lead_bytes=max_lead_bytes,
    )


def _stream_rows(
    connection: Connection,
    campaign_id: str,
    condition: str,
    *,
    has_source: bool,
    max_lead_bytes: int,
) -> Iterator[PreviewRow]:
    query = _PREVIEW.format(
        columns=LEAD_COLUMNS, sizes=FIELD_SIZES, preview=DIFF_QUERY if has_source else _NEW
    )
    streaming = {"yield_per": _FETCH_SIZE}
    parameters = {"campaign": campaign_id, "max_lead_bytes": max_lead_bytes}
    rows = connection.execute(text(query + condition), parameters, execution_options=streaming)
    for row in rows:
        values = row._asdict()
        kind, opted_out = values.pop("kind"), values.pop("opted_out")
        # A row that a push would skip has no id.
        lead = Lead(**{**values, "lead_id": values["lead_id"] or ""})
        yield PreviewRow(kind=kind, opted_out=opted_out, lead=lead)
