"""Holds of creates: after a failover or a restore, sent leads may be `new` here, or missing.

The first run remembers what distinguishes this database from its copies: the cluster's system
identifier, the timeline and the database's oid. (Not `leadloop init`: a copy of a database that has
never run, such as a template, has forgotten nothing.) If a value has changed, every campaign is
held. Each claim compares the values too, as a failover may come within a run. A value that cannot
be read is unknown, and counts as unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

# One row: the changes in words, '' if there is none; no row before the first run.
_CHANGE = """
SELECT concat_ws(', ',
           CASE WHEN seen.system_identifier <> now.system_identifier
                THEN 'system identifier ' || seen.system_identifier || ' → '
                     || now.system_identifier END,
           CASE WHEN seen.timeline <> now.timeline
                THEN 'timeline ' || seen.timeline || ' → ' || now.timeline END,
           CASE WHEN seen.database_oid <> now.database_oid
                THEN 'database oid ' || seen.database_oid || ' → ' || now.database_oid END)
  FROM leadloop.database_identity AS seen
 CROSS JOIN leadloop.read_database_identity() AS now
"""
_OPEN_HOLD = """SELECT FROM leadloop.create_holds AS hold
                WHERE hold.campaign_id = :campaign AND hold.released_at IS NULL"""
#: The campaign `:campaign` is held, or the database has changed: no lead is created.
IS_HELD = f"(EXISTS ({_OPEN_HOLD}) OR ({_CHANGE}) <> '')"

_FIND_CHANGE = text(_CHANGE)
_REMEMBER = text("""
INSERT INTO leadloop.database_identity (system_identifier, timeline, database_oid)
SELECT * FROM leadloop.read_database_identity() ON CONFLICT DO NOTHING
""")
_LOCK = text("SELECT FROM leadloop.database_identity FOR UPDATE")
# A value that cannot be read any more stays as it was seen.
_REPLACE = text("""
UPDATE leadloop.database_identity AS seen
   SET system_identifier = coalesce(now.system_identifier, seen.system_identifier),
       timeline = coalesce(now.timeline, seen.timeline),
       database_oid = coalesce(now.database_oid, seen.database_oid),
       seen_at = clock_timestamp()
  FROM leadloop.read_database_identity() AS now
""")
_HOLD = text("""
INSERT INTO leadloop.create_holds (campaign_id, reason)
SELECT campaign_id, :reason FROM leadloop.campaigns
 WHERE CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids)
    ON CONFLICT (campaign_id) WHERE released_at IS NULL DO NOTHING
""")
_LIST_OPEN = text("""
SELECT campaign_id, held_at, reason FROM leadloop.create_holds
 WHERE released_at IS NULL AND (CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids))
 ORDER BY campaign_id
""")
_RELEASE = text("""
UPDATE leadloop.create_holds
   SET released_at = clock_timestamp(), released_by = session_user, released_reason = :reason
 WHERE released_at IS NULL AND campaign_id = ANY(:ids)
RETURNING campaign_id
""")


@dataclass(frozen=True, kw_only=True)
class CreateHold:
    """An open hold of a campaign's creates; `reason` has no personal data."""

    campaign_id: str
    held_at: datetime
    reason: str


def check_database(connection: Connection) -> str | None:
    """Hold the creates of every campaign if the database has changed; remember it as it is now.

    Args:
        connection: a transaction.

    Returns:
        What has changed; None if nothing has, or another run was first to find it.
    """
    change = connection.scalar(_FIND_CHANGE)
    if change is None:
        connection.execute(_REMEMBER)
    if not change:
        return None
    connection.execute(_LOCK)
    change = connection.scalar(_FIND_CHANGE)
    if not change:
        return None
    connection.execute(_HOLD, {"ids": None, "reason": f"the database has changed: {change}"})
    connection.execute(_REPLACE)
    return str(change)


def hold_creates(connection: Connection, campaign_ids: Sequence[str] | None, reason: str) -> None:
    """Hold the creates of these campaigns, or of all. A hold that is open stays as it is."""
    connection.execute(_HOLD, {"ids": _or_all(campaign_ids), "reason": reason})


def list_holds(connection: Connection, campaign_ids: Sequence[str] | None) -> list[CreateHold]:
    """Return the open holds of these campaigns, or of all, by campaign."""
    rows = connection.execute(_LIST_OPEN, {"ids": _or_all(campaign_ids)})
    return [CreateHold(**row._mapping) for row in rows]


def find_hold(connection: Connection, campaign_id: str) -> CreateHold | None:
    """Return the open hold of a campaign, or None."""
    return next(iter(list_holds(connection, [campaign_id])), None)


def release_creates(connection: Connection, campaign_ids: Sequence[str], reason: str) -> list[str]:
    """End the open holds of these campaigns; the reason is kept. Return their ids, sorted."""
    parameters = {"ids": list(campaign_ids), "reason": reason}
    return sorted(connection.scalars(_RELEASE, parameters))


def _or_all(campaign_ids: Sequence[str] | None) -> list[str] | None:
    return list(campaign_ids) if campaign_ids else None
