"""Leads whose rows have left the campaign's source after they were sent: opt-outs, or held ones.

A sync has compared the source (`db.source_sync.compute_diff`), and the connection has the
differences.
"""

from typing import Literal

from sqlalchemy import Connection, text

#: Who has decided on an opt-out: the campaign's setting, or a person.
RemovalOrigin = Literal["source_removal", "person"]

_REASON = "its row left the campaign's source"
# Leads a transaction: it is short, so that other transactions wait for few leads.
_CHUNK_LEADS = 1000

_COUNT_RECENT = text("""
SELECT count(*) FROM leadloop.disable_requests
 WHERE campaign_id = :campaign AND origin = 'source_removal'
   AND requested_at > clock_timestamp() - interval '24 hours'
""")
_COUNT_LEADS = text("SELECT count(*) FROM leadloop.leads WHERE campaign_id = :campaign")
_OPT_OUT = text("""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id, reason, origin)
SELECT :campaign, difference.lead_id, :reason, :origin
  FROM pg_temp.source_differences AS difference
 WHERE difference.kind = 'left'
   AND NOT EXISTS (SELECT FROM leadloop.disable_requests AS request
                    WHERE request.campaign_id = :campaign
                      AND request.lead_id = difference.lead_id)
 ORDER BY difference.lead_id LIMIT :limit
ON CONFLICT DO NOTHING
""")
_GET_HELD = text("SELECT amount FROM leadloop.held_removals WHERE campaign_id = :campaign")
_HOLD = text("""
INSERT INTO leadloop.held_removals AS held (campaign_id, amount) VALUES (:campaign, :amount)
ON CONFLICT (campaign_id) DO UPDATE SET amount = excluded.amount
 WHERE held.amount <> excluded.amount
""")
_RELEASE = text("DELETE FROM leadloop.held_removals WHERE campaign_id = :campaign")


def count_recent_removals(connection: Connection, campaign_id: str) -> int:
    """Return how many leads have opted out without a person in the last 24 hours."""
    count: int = connection.execute(_COUNT_RECENT, {"campaign": campaign_id}).scalar_one()
    return count


def count_leads(connection: Connection, campaign_id: str) -> int:
    """Return how many leads the campaign has."""
    count: int = connection.execute(_COUNT_LEADS, {"campaign": campaign_id}).scalar_one()
    return count


def opt_out_removed(connection: Connection, campaign_id: str, origin: RemovalOrigin) -> int:
    """Opt out the leads whose rows are gone, in chunks; return their number.

    `connection`: outside of a transaction.
    """
    parameters = {"campaign": campaign_id, "reason": _REASON, "origin": origin}
    total = 0
    while True:
        with connection.begin():
            added = connection.execute(_OPT_OUT, {**parameters, "limit": _CHUNK_LEADS}).rowcount
        if not added:
            return total
        total += added


def get_held_removals(connection: Connection, campaign_id: str) -> int:
    """Return how many leads wait for a person, as recorded last."""
    return connection.scalar(_GET_HELD, {"campaign": campaign_id}) or 0


def hold_removals(connection: Connection, campaign_id: str, amount: int) -> None:
    """Record how many leads wait for a person; 0: none does. Writes only what has changed."""
    if amount:
        connection.execute(_HOLD, {"campaign": campaign_id, "amount": amount})
    else:
        connection.execute(_RELEASE, {"campaign": campaign_id})
