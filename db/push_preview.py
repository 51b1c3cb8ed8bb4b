"""What a push would find: the leads that are to be sent, were the source taken now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Row, text

from db.leads import EBR_DATETIME
from db.source import DIFF_QUERY
from leadloop.core.leads import Lead

_AT_ONCE = 1000
# One view of everything, in which nothing can be written.
_ONLY_LOOK = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_NEW = """
SELECT *, 'kept' AS kind FROM leadloop.leads WHERE campaign_id = :campaign AND status = 'new'
"""
_PLANNED = """
SELECT planned.kind, planned.lead_id, planned.phone_number, planned.contact_name,
       planned.state_code, {ebr_datetime}, CAST(planned.custom_fields AS text) AS custom_fields,
       planned.opted_out OR request.lead_id IS NOT NULL AS opted_out
  FROM ({planned}) AS planned
  LEFT JOIN leadloop.disable_requests AS request
    ON request.campaign_id = :campaign AND request.lead_id = planned.lead_id
 WHERE planned.kind IS NOT NULL
"""


@dataclass(frozen=True, kw_only=True)
class PreviewRow:
    """A lead that a push would take up, or a row of the source that it would pass over.

    `kind`: `new`, `changed`, `kept`: to be sent; `gone`, `unnamed`, `twin`: not (see
    `db.source.COMPARED`).
    """

    kind: str
    lead: Lead
    opted_out: bool

    @property
    def will_be_sent(self) -> bool:
        """Whether it is to be sent."""
        return self.kind in ("new", "changed", "kept")


@contextmanager
def read_only_snapshot(connection: Connection) -> Iterator[None]:
    """A transaction that sees one moment and can change nothing."""
    with connection.begin():
        connection.execute(_ONLY_LOOK)
        yield


def iter_rows(
    connection: Connection, campaign_id: str, *, has_source: bool
) -> Iterator[PreviewRow]:
    """All of them, one after the other: there may be millions.

    `has_source`: the connection has the rows of a source (`db.source.copy_rows`).
    """
    return _stream_rows(connection, campaign_id, "", has_source=has_source)


def iter_opted_out_rows(
    connection: Connection, campaign_id: str, *, has_source: bool
) -> Iterator[PreviewRow]:
    """Those alone that opted out."""
    is_so = " AND (planned.opted_out OR request.lead_id IS NOT NULL)"
    return _stream_rows(connection, campaign_id, is_so, has_source=has_source)


def _stream_rows(
    connection: Connection, campaign_id: str, where: str, *, has_source: bool
) -> Iterator[PreviewRow]:
    query = _PLANNED.format(ebr_datetime=EBR_DATETIME, planned=DIFF_QUERY if has_source else _NEW)
    streaming = {"yield_per": _AT_ONCE}
    rows = connection.execute(
        text(query + where), {"campaign": campaign_id}, execution_options=streaming
    )
    return (_to_preview_row(row) for row in rows)


def _to_preview_row(row: Row[tuple[object, ...]]) -> PreviewRow:
    values = row._asdict()
    kind, opted_out = values.pop("kind"), values.pop("opted_out")
    # A row that cannot be taken has no id.
    lead = Lead(**{**values, "lead_id": values["lead_id"] or ""})
    return PreviewRow(kind=kind, opted_out=opted_out, lead=lead)
