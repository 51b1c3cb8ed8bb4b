"""Preview of a push (dry run): the leads that would be sent if the source were synced now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.leads import FIELD_SIZES, LEAD_COLUMNS, NO_LIMIT, TOO_OLD
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
SELECT kind, opted_out, too_old, {columns} FROM (
    SELECT lead.kind, lead.lead_id, lead.phone_number, lead.contact_name,
           lead.state_code, lead.ebr_datetime, lead.custom_fields, {sizes} AS sizes,
           lead.opted_out OR request.lead_id IS NOT NULL{or_new} AS opted_out,
           {too_old} AS too_old
      FROM ({preview}) AS lead
      LEFT JOIN leadloop.disable_requests AS request
        ON request.campaign_id = :campaign AND request.lead_id = lead.lead_id
     WHERE lead.kind IS NOT NULL
    OFFSET 0) AS row
"""
# An opt-out that is new in the campaign's opt-out source.
_OR_NEW = """
           OR EXISTS (SELECT FROM pg_temp.opt_out_changes AS change
                       WHERE change.lead_id = lead.lead_id)"""


@dataclass(frozen=True, kw_only=True)
class PreviewRow:
    """A lead that a push would send, or a row of the source that it would skip.

    `kind`: `new`, `changed` and `kept` are sent; `gone`, `left`, `unnamed` and `twin` are not (see
    `db.source.DIFF_QUERY`).
    """

    kind: str
    lead: Lead
    opted_out: bool
    too_old: bool

    @property
    def will_be_sent(self) -> bool:
        """Whether a push would send the lead, if it passes the checks."""
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
    connection: Connection,
    campaign_id: str,
    *,
    has_source: bool,
    opts_out_removed: bool = False,
    has_opt_outs: bool = False,
    max_lead_bytes: int = NO_LIMIT,
    max_lead_age_s: int | None = None,
) -> Iterator[PreviewRow]:
    """Stream all rows of the preview: there may be millions.

    Args:
        connection: in `read_only_snapshot`.
        campaign_id: the campaign.
        has_source: the connection holds a source's rows (`db.source.stage_source_rows`).
        opts_out_removed: leads that were sent, and have lost their row, are among the rows.
        has_opt_outs: the connection holds new opt-outs (`db.opt_out_source.stage_changes`).
        max_lead_bytes: the fields of a lead with more bytes are not read (`Lead.left_out`).
        max_lead_age_s: leads that were inserted more seconds ago are `too_old`.
    """
    return _stream_rows(
        connection,
        campaign_id,
        "",
        has_source=has_source,
        opts_out_removed=opts_out_removed,
        has_opt_outs=has_opt_outs,
        max_lead_bytes=max_lead_bytes,
        max_lead_age_s=max_lead_age_s,
    )


def iter_opted_out_rows(
    connection: Connection,
    campaign_id: str,
    *,
    has_source: bool,
    has_opt_outs: bool = False,
    max_lead_bytes: int = NO_LIMIT,
) -> Iterator[PreviewRow]:
    """Stream the preview's rows of opted-out leads only; otherwise as `iter_rows`."""
    return _stream_rows(
        connection,
        campaign_id,
        "WHERE opted_out",
        has_source=has_source,
        has_opt_outs=has_opt_outs,
        max_lead_bytes=max_lead_bytes,
    )


def _stream_rows(
    connection: Connection,
    campaign_id: str,
    condition: str,
    *,
    has_source: bool,
    opts_out_removed: bool = False,
    has_opt_outs: bool,
    max_lead_bytes: int,
    max_lead_age_s: int | None = None,
) -> Iterator[PreviewRow]:
    query = _PREVIEW.format(
        columns=LEAD_COLUMNS,
        sizes=FIELD_SIZES,
        too_old=TOO_OLD,
        preview=DIFF_QUERY if has_source else _NEW,
        or_new=_OR_NEW if has_opt_outs else "",
    )
    streaming = {"yield_per": _FETCH_SIZE}
    parameters = {
        "campaign": campaign_id,
        "max_lead_bytes": max_lead_bytes,
        "max_lead_age_s": max_lead_age_s,
        **({"opts_out_removed": opts_out_removed} if has_source else {}),
    }
    rows = connection.execute(text(query + condition), parameters, execution_options=streaming)
    for row in rows:
        values = row._asdict()
        kind, opted_out, too_old = (values.pop(name) for name in ("kind", "opted_out", "too_old"))
        # A row that a push would skip has no id.
        lead = Lead(**{**values, "lead_id": values["lead_id"] or ""})
        yield PreviewRow(kind=kind, opted_out=opted_out, too_old=too_old, lead=lead)
