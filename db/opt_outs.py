"""Queries on `leadloop.disable_requests`."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text

from db.leads import Doubt

_REQUEST = text("""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id)
SELECT :campaign, unnest(CAST(:ids AS text[])) ON CONFLICT DO NOTHING
""")

# A lead that was never sent is cancelled, under the lock that a claim would need.
_CANCEL = text("""
WITH unsent AS (
    SELECT lead.campaign_id, lead.lead_id
      FROM leadloop.leads AS lead
      JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)
     WHERE d.campaign_id = :campaign AND d.status = 'requested'
       AND lead.status IN ('new', 'rejected', 'cancelled')
       FOR NO KEY UPDATE OF lead
), lead_cancelled AS (
    UPDATE leadloop.leads AS lead SET status = 'cancelled'
      FROM unsent
     WHERE lead.campaign_id = unsent.campaign_id AND lead.lead_id = unsent.lead_id
       AND lead.status IN ('new', 'rejected', 'cancelled')
    RETURNING lead.campaign_id, lead.lead_id
)
UPDATE leadloop.disable_requests AS d
   SET status = 'cancelled', confirmed_at = clock_timestamp()
  FROM lead_cancelled AS lead
 WHERE d.campaign_id = lead.campaign_id AND d.lead_id = lead.lead_id AND d.status = 'requested'
""")

# Oldest first. What another run is sending at this moment is left for later: the vendor may not
# know it yet.
_NEXT = text("""
UPDATE leadloop.disable_requests AS d
   SET sent_at = coalesce(d.sent_at, clock_timestamp())
  FROM (SELECT r.campaign_id, r.lead_id
          FROM leadloop.disable_requests AS r
          LEFT JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
         WHERE r.campaign_id = :campaign AND r.status = 'requested'
           AND r.lead_id <> ALL(:tried)
           AND lead.status IS DISTINCT FROM 'sending' AND lead.status IS DISTINCT FROM 'new'
         ORDER BY r.requested_at, r.lead_id
         LIMIT :most) AS due
 WHERE d.campaign_id = due.campaign_id AND d.lead_id = due.lead_id
RETURNING d.lead_id
""")
_IN_DOUBT = text("""
SELECT lead.lead_id, lead.sent_at,
       lead.sent_at + make_interval(secs => :settle_s) < clock_timestamp() AS settled
  FROM leadloop.disable_requests AS d JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
 WHERE d.campaign_id = :campaign AND d.status = 'requested' AND lead.status = 'in_doubt'
 ORDER BY d.requested_at
""")
_CONFIRM = text("""
UPDATE leadloop.disable_requests
   SET status = 'disabled', confirmed_at = clock_timestamp(), last_error = NULL
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids) AND status = 'requested'
""")
# A refusal of a lead that may yet turn up at the vendor is never the last word.
_REFUSE = text("""
UPDATE leadloop.disable_requests AS d
   SET tries = d.tries + 1, last_error = refused.reason,
       status = CASE WHEN d.tries + 1 >= :most_tries AND NOT EXISTS (
                         SELECT FROM leadloop.leads AS lead
                          WHERE lead.campaign_id = d.campaign_id AND lead.lead_id = d.lead_id
                            AND lead.status = 'in_doubt')
                     THEN 'failed' ELSE d.status END
  FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS refused (lead_id, reason)
 WHERE d.campaign_id = :campaign AND d.lead_id = refused.lead_id AND d.status = 'requested'
RETURNING d.status
""")
# Those in doubt wait for the next run: another try now would tell nothing new.
_STILL_REQUESTED = text("""
SELECT count(*) FROM leadloop.disable_requests AS d
 WHERE d.campaign_id = :campaign AND d.lead_id = ANY(:ids) AND d.status = 'requested'
   AND NOT EXISTS (SELECT FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = d.campaign_id AND lead.lead_id = d.lead_id
                      AND lead.status = 'in_doubt')
""")
_REQUEUE = text("""
UPDATE leadloop.disable_requests SET status = 'requested', tries = 0, last_error = NULL
 WHERE campaign_id = ANY(:campaigns) AND status = 'failed'
   AND (CAST(:ids AS text[]) IS NULL OR lead_id = ANY(:ids))
""")


def request(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """Opt leads out, as upstream does. Returns how many had not yet."""
    return connection.execute(_REQUEST, {"campaign": campaign_id, "ids": list(lead_ids)}).rowcount


def cancel_unsent(connection: Connection, campaign_id: str) -> int:
    """Cancel leads that opted out before they were sent. Returns how many opt-outs that settled."""
    return connection.execute(_CANCEL, {"campaign": campaign_id}).rowcount


def next_due(
    connection: Connection, *, campaign_id: str, most: int, tried: Sequence[str]
) -> list[str]:
    """Ids of the leads to disable next, oldest opt-out first, without those `tried` already."""
    parameters = {"campaign": campaign_id, "most": most, "tried": list(tried)}
    return list(connection.scalars(_NEXT, parameters))


def in_doubt(connection: Connection, *, campaign_id: str, settle_s: int) -> list[Doubt]:
    """Leads in doubt whose opt-out waits."""
    rows = connection.execute(_IN_DOUBT, {"campaign": campaign_id, "settle_s": settle_s})
    return [Doubt(lead_id=row.lead_id, sent_at=row.sent_at, settled=row.settled) for row in rows]


def confirm(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """The vendor has confirmed them."""
    return connection.execute(_CONFIRM, {"campaign": campaign_id, "ids": list(lead_ids)}).rowcount


def refuse(
    connection: Connection, *, campaign_id: str, reasons: Mapping[str, str], most_tries: int
) -> int:
    """The vendor refused them. Returns how many are given up, after `most_tries`."""
    states = connection.scalars(
        _REFUSE,
        {
            "campaign": campaign_id,
            "ids": list(reasons),
            "reasons": list(reasons.values()),
            "most_tries": most_tries,
        },
    )
    return sum(state == "failed" for state in states)


def still_requested(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """How many of these are to be tried again within the same run."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids)}
    count: int = connection.execute(_STILL_REQUESTED, parameters).scalar_one()
    return count


def requeue(connection: Connection, *, campaign_ids: Sequence[str], lead_ids: Sequence[str]) -> int:
    """Ask again for opt-outs that failed; all of them where no ids are given."""
    return connection.execute(
        _REQUEUE, {"campaigns": list(campaign_ids), "ids": list(lead_ids) or None}
    ).rowcount
