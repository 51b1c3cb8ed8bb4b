"""Suspects: leads that a failed create may be about, sent again in halves behind all fresh leads.

A create that fails shows only that one of its leads may be the reason. Its leads form two lists,
the halves, which are sent once they are known not to exist; so do the halves of a list that fails
again, down to the lead that fails alone. Nobody is rejected because the vendor fails on everybody:
a failure of a lone lead counts only beside a create that the vendor accepted.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from db import learned_limits
from db.leads import LEADS_OF_CLAIM, NOT_SENT, ClaimRef, locked_update, mark_in_doubt

# The name in `learned_limits` of a success that affirms nothing and yet created the leads.
_BLANK_SUCCESS = "blank_success"
#: Failures of a lone lead that count, after which it is rejected once it is proven absent.
MAX_LONE_FAILURES = 8
# The reason of leads in doubt after a success whose meaning is not known; its shape follows.
_BLANK_REASON = "create: a success that affirms nothing, of shape "

# At the end of the queue, where it is in no fresh lead's way.
_SUSPECT = """seq = DEFAULT, suspected_at = coalesce(lead.suspected_at, clock_timestamp()),
       last_failed_at = now(),
       suspect_list = (SELECT min(seq) FROM leadloop.leads
                        WHERE campaign_id = :campaign AND lead_id = ANY(:ids))"""
# Only while `sending`, so that a retry after a lost commit confirmation counts no failure twice.
_SENDING = f"{LEADS_OF_CLAIM} AND status = 'sending'"
_SUSPECT_LIST = locked_update(_SENDING, _SUSPECT)
# A lead's failure counts in three cases: the vendor has accepted another lead since the lead failed
# last; it is the lead's first failure, and the create before it was accepted; or the vendor has
# accepted others since the lead is suspected, and no other lead has failed alone. A failure that
# does not count postpones the next try, each time longer, up to a day.
_COUNTS = """(SELECT campaign.create_accepted_at > lead.last_failed_at
             OR lead.suspected_at IS NULL
                AND campaign.create_accepted_at > coalesce(campaign.create_failed_at, '-infinity')
             OR campaign.create_accepted_at > lead.suspected_at
                AND NOT EXISTS (SELECT FROM leadloop.leads AS other
                                 WHERE other.campaign_id = lead.campaign_id
                                   AND other.lead_id <> lead.lead_id
                                   AND other.suspect_list IS NOT NULL
                                   AND other.next_try_at IS NOT NULL)
        FROM leadloop.campaigns AS campaign WHERE campaign.campaign_id = lead.campaign_id)"""
_SUSPECT_LONE_LEAD = locked_update(
    _SENDING,
    f"""{_SUSPECT},
       lone_failures = lead.lone_failures + CASE WHEN {_COUNTS} THEN 1 ELSE 0 END,
       next_try_at = clock_timestamp() + CASE WHEN {_COUNTS}
           THEN make_interval(secs => :settle_s)
           ELSE least(interval '1 day', greatest(make_interval(secs => :settle_s),
                                                 clock_timestamp() - lead.suspected_at)) END""",
)
# The campaign's row before the leads, so that an opt-out, which locks leads, waits for no campaign;
# all leads in one order, before their halves.
_LOCK_CAMPAIGN = text("""
SELECT FROM leadloop.campaigns WHERE campaign_id = :campaign FOR NO KEY UPDATE
""")
_LOCK_LEADS = text("""
SELECT FROM leadloop.leads WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
 ORDER BY campaign_id, lead_id FOR NO KEY UPDATE
""")
_RECORD_FAILURE = text("""
UPDATE leadloop.campaigns SET create_failed_at = now() WHERE campaign_id = :campaign
""")
_RECORD_ACCEPTED = text("""
UPDATE leadloop.campaigns SET create_accepted_at = clock_timestamp() WHERE campaign_id = :campaign
""")
# The vendor had accepted the create when it was sent; also after it failed, if none has since.
_RECORD_FOUND = text("""
UPDATE leadloop.campaigns AS campaign
   SET create_accepted_at = greatest(create_accepted_at, (
       SELECT max(greatest(lead.sent_at, CASE WHEN lead.last_failed_at >= campaign.create_failed_at
                                              THEN campaign.create_failed_at END))
         FROM leadloop.leads AS lead
        WHERE lead.campaign_id = :campaign AND lead.lead_id = ANY(:ids)))
 WHERE campaign_id = :campaign
""")
# Only if the vendor shows all leads of the create that are not known to be created.
_FIND_SHAPE = text("""
SELECT CAST(substr(last_error, length(:reason) + 1) AS integer) FROM leadloop.leads AS found
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids) AND status = 'in_doubt'
   AND starts_with(last_error, :reason)
   AND NOT EXISTS (SELECT FROM leadloop.leads AS other
                    WHERE other.campaign_id = found.campaign_id
                      AND other.run_id = found.run_id AND other.claim_no = found.claim_no
                      AND other.status <> 'created' AND other.lead_id <> ALL (:ids))
 ORDER BY sent_at DESC LIMIT 1
""")
_ARE_CREATES_FAILING = text("""
SELECT create_failed_at > coalesce(create_accepted_at, '-infinity') FROM leadloop.campaigns
 WHERE campaign_id = :campaign
""")
_COUNT_WAITING = text("""
SELECT count(*) FROM leadloop.leads
 WHERE campaign_id = :campaign AND status = 'new' AND suspect_list IS NOT NULL
""")
# Of a request that was certainly not carried out.
_RELEASE_SUSPECTS = locked_update(
    LEADS_OF_CLAIM,
    f"""status = CASE WHEN lone_failures >= {MAX_LONE_FAILURES} THEN 'rejected' ELSE 'new' END,
       sent_at = CASE WHEN lone_failures >= {MAX_LONE_FAILURES} THEN sent_at END,
       suspect_list = CASE WHEN lone_failures < {MAX_LONE_FAILURES} THEN suspect_list END,
       last_error = :reason, doubted_at = NULL, looked_up_at = NULL""",
    NOT_SENT,
)


def record_failure(
    connection: Connection, claim: ClaimRef, reason: str, *, may_exist: bool, settle_s: int
) -> list[str]:
    """Record a create that failed, for a reason that may be one of its leads.

    Args:
        connection: a transaction.
        claim: the claim; its lead ids are those of the request, in order.
        reason: how it failed, without personal data.
        may_exist: the vendor may have created the leads: they are in doubt. Otherwise they are
            `new` again, and a lone lead that has failed MAX_LONE_FAILURES times is `rejected`.
        settle_s: the settle time in seconds, also the pause before a lone lead's next try.

    Returns:
        The ids of leads that are rejected.
    """
    ids = list(claim.lead_ids)
    connection.execute(_LOCK_CAMPAIGN, {"campaign": claim.campaign_id})
    connection.execute(_LOCK_LEADS, {"campaign": claim.campaign_id, "ids": ids})
    if len(ids) == 1:
        parameters = {**claim.to_parameters(), "settle_s": settle_s}
        connection.execute(_SUSPECT_LONE_LEAD, parameters)
    else:
        middle = len(ids) // 2
        for half in (ids[:middle], ids[middle:]):
            connection.execute(_SUSPECT_LIST, {**claim.to_parameters(), "ids": half})
    connection.execute(_RECORD_FAILURE, {"campaign": claim.campaign_id})
    if may_exist:
        mark_in_doubt(connection, claim, reason)
        return []
    rows = connection.execute(_RELEASE_SUSPECTS, {**claim.to_parameters(), "reason": reason})
    return [row.lead_id for row in rows if row.status == "rejected"]


def record_outage(connection: Connection, campaign_id: str) -> None:
    """Record a create that was not carried out in an outage: the next run tries a single lead."""
    connection.execute(_RECORD_FAILURE, {"campaign": campaign_id})


def record_found(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> None:
    """Record that the vendor has accepted the creates of these leads in doubt, which it shows.

    So creates are no longer failing if the last one that failed was theirs. If its response was a
    success that affirms nothing, its meaning is learned, as `get_success_shape` returns it.
    """
    parameters = {"campaign": campaign_id, "ids": list(lead_ids)}
    connection.execute(_RECORD_FOUND, parameters)
    if shape := connection.scalar(_FIND_SHAPE, {**parameters, "reason": _BLANK_REASON}):
        record_success_shape(connection, campaign_id, shape)


def build_blank_reason(shape: int) -> str:
    """Build the reason of leads in doubt after a success that affirms nothing."""
    return f"{_BLANK_REASON}{shape}"


def get_success_shape(connection: Connection, campaign_id: str) -> int | None:
    """Return the shape of a success that affirms nothing and was seen, in the last day, to create.

    None: there is no such shape.
    """
    known = learned_limits.get_learned_limits(connection, campaign_id).get(_BLANK_SUCCESS)
    return None if known is None or known.is_stale else known.value


def record_success_shape(connection: Connection, campaign_id: str, shape: int) -> None:
    """Record that the vendor has created all leads of a create with a success of this shape."""
    learned_limits.record_learned_limit(connection, campaign_id, _BLANK_SUCCESS, shape)


def record_accepted(connection: Connection, campaign_id: str) -> None:
    """Record that the vendor accepts creates: failures of others count again."""
    connection.execute(_RECORD_ACCEPTED, {"campaign": campaign_id})


def count_waiting(connection: Connection, campaign_id: str) -> int:
    """Count the suspects that are `new` and wait for their next try."""
    count: int = connection.execute(_COUNT_WAITING, {"campaign": campaign_id}).scalar_one()
    return count


def are_creates_failing(connection: Connection, campaign_id: str) -> bool:
    """Return whether the campaign's last create failed."""
    return bool(connection.scalar(_ARE_CREATES_FAILING, {"campaign": campaign_id}))
