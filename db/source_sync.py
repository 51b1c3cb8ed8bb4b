"""Leads taken from a campaign's source: differences by one reading, applied in portions."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.source import DIFF_QUERY, FOLLOWS_SOURCE

_ONE_AT_A_TIME = text("SELECT pg_advisory_lock(hashtext('leadloop.source'), hashtext(:campaign))")
_STAGE = text("""
CREATE TEMPORARY TABLE source_differences (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL,
    lead_id text, phone_number text, contact_name text, state_code text, ebr_datetime timestamptz,
    custom_fields jsonb
)
""")
_COLUMNS = "lead_id, phone_number, contact_name, state_code, ebr_datetime, custom_fields"
_COMPARE = text(f"""
INSERT INTO pg_temp.source_differences (kind, {_COLUMNS})
SELECT kind, {_COLUMNS} FROM ({DIFF_QUERY}) AS compared
 WHERE kind <> 'kept' ORDER BY compared.place
""")
_KINDS = text("""
SELECT count(*) FILTER (WHERE kind = 'unnamed') AS unnamed,
       count(*) FILTER (WHERE kind = 'twin') AS duplicates,
       coalesce(max(place) FILTER (WHERE kind NOT IN ('unnamed', 'twin')), 0) AS last
  FROM pg_temp.source_differences
""")
_INSERT = text(f"""
INSERT INTO leadloop.leads (campaign_id, from_source, {_COLUMNS})
SELECT :campaign, true, {_COLUMNS} FROM pg_temp.source_differences
 WHERE kind = 'new' AND place BETWEEN :first AND :last ORDER BY place
ON CONFLICT (campaign_id, lead_id) DO NOTHING
""")
# Locked in the order in which opt-outs lock them. Whoever has sent one meanwhile, or opted it out,
# was first: the condition is looked at again under the lock.
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
       custom_fields = locked.custom_fields, status = 'new', last_error = NULL
  FROM locked {_THESE}
""")
_REMOVE = text(f"{_LOCKED} DELETE FROM leadloop.leads AS lead USING locked {_THESE}")


@dataclass(frozen=True, kw_only=True)
class SourceDiff:
    """What a reading of a source has found.

    `unnamed`: rows without a usable `lead_id`; `twins`: further rows of a `lead_id`. `last`: the
    place of the last difference that is to be applied.
    """

    unnamed: int
    duplicates: int
    last: int


@dataclass(frozen=True, kw_only=True)
class SyncCounts:
    """How many leads were inserted, brought up to date, and removed."""

    inserted: int = 0
    refreshed: int = 0
    removed: int = 0

    def __add__(self, more: "SyncCounts") -> "SyncCounts":
        """Both together."""
        return SyncCounts(
            inserted=self.inserted + more.inserted,
            refreshed=self.refreshed + more.refreshed,
            removed=self.removed + more.removed,
        )


def lock_source(connection: Connection, campaign_id: str) -> None:
    """Wait until no other run takes leads of this campaign; for as long as the connection lives.

    Of two at once the one that has read first might write last.
    """
    with connection.begin():
        connection.execute(_ONE_AT_A_TIME, {"campaign": campaign_id})


def compute_diff(connection: Connection, campaign_id: str) -> SourceDiff:
    """Compare the copied rows of the source with the leads, and keep what differs."""
    with connection.begin():
        connection.execute(_STAGE)
        connection.execute(_COMPARE, {"campaign": campaign_id})
        return SourceDiff(**connection.execute(_KINDS).one()._mapping)


def apply_diff(connection: Connection, campaign_id: str, first: int, last: int) -> SyncCounts:
    """Apply the differences of these places, those of each kind in a transaction of their own.

    Each locks its leads in the order in which opt-outs do; two of them together would not.
    """
    these = {"campaign": campaign_id, "first": first, "last": last}
    with connection.begin():
        removed = connection.execute(_REMOVE, {**these, "kind": "gone"}).rowcount
    with connection.begin():
        refreshed = connection.execute(_REFRESH, {**these, "kind": "changed"}).rowcount
    with connection.begin():
        inserted = connection.execute(_INSERT, these).rowcount
    return SyncCounts(removed=removed, refreshed=refreshed, inserted=inserted)
