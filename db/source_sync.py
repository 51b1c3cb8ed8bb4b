"""Sync of leads from a campaign's source: compute the differences once, apply them in chunks."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.leads import CLEAR_SUSPICION
from db.source import DIFF_QUERY, FOLLOWS_SOURCE

_LOCK = text("SELECT pg_advisory_lock(hashtext('leadloop.source'), hashtext(:campaign))")
_STAGE = text("""
CREATE TEMPORARY TABLE source_differences (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL,
    lead_id text, phone_number text, contact_name text, state_code text, ebr_datetime timestamptz,
    custom_fields jsonb, priority smallint
)
""")
_COLUMNS = "lead_id, phone_number, contact_name, state_code, ebr_datetime, custom_fields"
_COMPUTE_DIFF = text(f"""
INSERT INTO pg_temp.source_differences (kind, {_COLUMNS}, priority)
SELECT kind, {_COLUMNS}, priority FROM ({DIFF_QUERY}) AS compared
 WHERE kind <> 'kept' ORDER BY compared.place
""")
_SUMMARY = text("""
SELECT count(*) FILTER (WHERE kind = 'unnamed') AS unnamed,
       count(*) FILTER (WHERE kind = 'twin') AS duplicates,
       count(*) FILTER (WHERE kind = 'left') AS left_source,
       coalesce(max(place) FILTER (WHERE kind IN ('new', 'changed', 'gone')), 0) AS last
  FROM pg_temp.source_differences
""")
_INSERT = text(f"""
INSERT INTO leadloop.leads (campaign_id, from_source, {_COLUMNS}, priority)
SELECT :campaign, true, {_COLUMNS}, coalesce(priority, 0) FROM pg_temp.source_differences
 WHERE kind = 'new' AND place BETWEEN :first AND :last ORDER BY place
ON CONFLICT (campaign_id, lead_id) DO NOTHING
""")
# Locked in the order in which opt-outs lock leads. The condition is checked again under the lock: a
# lead may have been sent or opted out meanwhile.
_LOCKED = f"""
WITH locked AS (
    SELECT difference.* FROM leadloop.leads AS lead
      JOIN pg_temp.source_differences AS difference USING (lead_id)
     WHERE lead.campaign_id = :campaign AND {FOLLOWS_SOURCE} AND difference.kind = :kind
       AND difference.place BETWEEN :first AND :last
     ORDER BY lead.lead_id FOR UPDATE OF lead
)
"""
_THESE = "WHERE lead.campaign_id = :campaign AND lead.lead_id = locked.lead_id"
_REFRESH = text(f"""{_LOCKED}
UPDATE leadloop.leads AS lead
   SET phone_number = locked.phone_number, contact_name = locked.contact_name,
       state_code = locked.state_code, ebr_datetime = locked.ebr_datetime,
       custom_fields = locked.custom_fields, priority = coalesce(locked.priority, lead.priority),
       status = 'new', last_error = NULL, {CLEAR_SUSPICION}
  FROM locked {_THESE}
""")
_REMOVE = text(f"{_LOCKED} DELETE FROM leadloop.leads AS lead USING locked {_THESE}")


@dataclass(frozen=True, kw_only=True)
class SourceDiff:
    """The summary of a source's differences.

    `unnamed`: rows without a valid `lead_id`. `duplicates`: further rows of a `lead_id`.
    `left_source`: leads that were sent and have lost their row. `last`: the place of the last
    difference to apply, without those.
    """

    unnamed: int
    duplicates: int
    left_source: int
    last: int


@dataclass(frozen=True, kw_only=True)
class SyncCounts:
    """The leads that a sync inserted, refreshed and removed, and the rows it could not read."""

    inserted: int = 0
    refreshed: int = 0
    removed: int = 0
    unreadable: int = 0

    def __add__(self, more: "SyncCounts") -> "SyncCounts":
        """Add the counts."""
        return SyncCounts(
            inserted=self.inserted + more.inserted,
            refreshed=self.refreshed + more.refreshed,
            removed=self.removed + more.removed,
            unreadable=self.unreadable + more.unreadable,
        )


def lock_source(connection: Connection, campaign_id: str) -> None:
    """Take the campaign's advisory lock for syncs until the connection ends; wait for other runs.

    Of two concurrent syncs, the one with the older rows could write last.
    """
    with connection.begin():
        connection.execute(_LOCK, {"campaign": campaign_id})


def compute_diff(
    connection: Connection, campaign_id: str, *, opts_out_removed: bool = False
) -> SourceDiff:
    """Compare the staged rows of the source with the leads; store the differences.

    `opts_out_removed`: leads that were sent and have lost their row are among them.
    """
    parameters = {"campaign": campaign_id, "opts_out_removed": opts_out_removed}
    with connection.begin():
        connection.execute(_STAGE)
        connection.execute(_COMPUTE_DIFF, parameters)
        return SourceDiff(**connection.execute(_SUMMARY).one()._mapping)


def apply_diff(connection: Connection, campaign_id: str, first: int, last: int) -> SyncCounts:
    """Apply the differences from place `first` to `last`, each kind in a separate transaction.

    Each transaction locks leads in the order in which opt-outs do; one for all kinds could not.
    """
    these = {"campaign": campaign_id, "first": first, "last": last}
    with connection.begin():
        removed = connection.execute(_REMOVE, {**these, "kind": "gone"}).rowcount
    with connection.begin():
        refreshed = connection.execute(_REFRESH, {**these, "kind": "changed"}).rowcount
    with connection.begin():
        inserted = connection.execute(_INSERT, these).rowcount
    return SyncCounts(removed=removed, refreshed=refreshed, inserted=inserted)
