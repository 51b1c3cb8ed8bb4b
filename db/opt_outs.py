"""Queries on `leadloop.disable_requests`."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text

_REQUEST = text("""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id)
SELECT :campaign, unnest(CAST(:ids AS text[])) ON CONFLICT DO NOTHING
""")

# A lead that was never sent is cancelled, under the lock that a claim would need. What the vendor
# has refused it may hold all the same: it has to be told. The triggers have not seen an opt-out
# that was written while its lead's own transaction was open, or the other way round: it is noted on
# the lead here, so that its number is suppressed.
_UNSENT = """(lead.status IN ('new', 'cancelled')
        OR lead.status = 'rejected' AND lead.sent_at IS NULL)"""
_CANCEL = text(f"""
WITH theirs AS (
    SELECT lead.campaign_id, lead.lead_id
      FROM leadloop.leads AS lead
      JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)
     WHERE d.campaign_id = :campaign AND d.status IN ('requested', 'failed')
       AND ({_UNSENT} OR NOT lead.opted_out)
     ORDER BY lead.lead_id
       FOR NO KEY UPDATE OF lead
), noted AS (
    UPDATE leadloop.leads AS lead
       SET opted_out = true, status = CASE WHEN {_UNSENT} THEN 'cancelled' ELSE lead.status END
      FROM theirs
     WHERE lead.campaign_id = theirs.campaign_id AND lead.lead_id = theirs.lead_id
    RETURNING lead.campaign_id, lead.lead_id, lead.status
)
UPDATE leadloop.disable_requests AS d
   SET status = 'cancelled', confirmed_at = clock_timestamp()
  FROM noted
 WHERE noted.status = 'cancelled' AND d.campaign_id = noted.campaign_id
   AND d.lead_id = noted.lead_id AND d.status IN ('requested', 'failed')
""")

# Oldest first, those that the vendor has refused behind the others: they may be many, and stop the
# run. What another run is sending at this moment is left for later: the vendor may not
# know it yet.
_NEXT = text("""
UPDATE leadloop.disable_requests AS d
   SET sent_at = coalesce(d.sent_at, clock_timestamp())
  FROM (SELECT r.campaign_id, r.lead_id
          FROM leadloop.disable_requests AS r
          LEFT JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
         WHERE r.campaign_id = :campaign
           AND r.status IN ('requested', 'failed') AND r.status = :status
           AND r.lead_id <> ALL(:tried)
           AND lead.status IS DISTINCT FROM 'sending' AND lead.status IS DISTINCT FROM 'new'
           AND (r.status = 'requested'
                OR coalesce(r.next_try_at, '-infinity') <= clock_timestamp())
           -- Its row was deleted while a run was sending it.
           AND NOT EXISTS (SELECT FROM leadloop.sent_leads AS sent
                            WHERE sent.campaign_id = r.campaign_id AND sent.lead_id = r.lead_id
                              AND sent.doubted_at = 'infinity')
         ORDER BY r.tried_at NULLS FIRST, r.requested_at, r.lead_id
         LIMIT :most) AS due
 WHERE d.campaign_id = due.campaign_id AND d.lead_id = due.lead_id
RETURNING d.lead_id
""")
# Of a lead in doubt no confirmation counts: its create may be carried out after the disable. It is
# disabled again until the doubt is settled.
# One whose row was deleted is not looked up: the vendor has its time, and then it counts.
_LEAD_IN_DOUBT = """
SELECT 1 FROM leadloop.leads AS lead
 WHERE lead.campaign_id = d.campaign_id AND lead.lead_id = d.lead_id AND lead.status = 'in_doubt'
 UNION ALL
SELECT 1 FROM leadloop.sent_leads AS sent
 WHERE sent.campaign_id = d.campaign_id AND sent.lead_id = d.lead_id AND sent.status = 'in_doubt'
   AND coalesce(sent.doubted_at, sent.sent_at) + make_interval(secs => :settle_s)
       > clock_timestamp()
"""
_CONFIRM = text(f"""
UPDATE leadloop.disable_requests AS d
   SET status = 'disabled', confirmed_at = clock_timestamp(), last_error = NULL,
       next_try_at = NULL
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids) AND status IN ('requested', 'failed')
   AND NOT EXISTS ({_LEAD_IN_DOUBT})
""")
# A minute after the third try, then ever more seldom, at least daily, for ever.
_NEXT_TRY = """clock_timestamp() + least(
           interval '1 day', interval '30 seconds' * power(2, least(d.tries, 20) - 1))"""
# A refusal of a lead that may yet turn up at the vendor is never the last word. A lead that the
# vendor refused when it was sent, and does not know now, was never created.
_REFUSE = text(f"""
UPDATE leadloop.disable_requests AS d
   SET tries = d.tries + 1, tried_at = clock_timestamp(), last_error = refused.reason,
       next_try_at = {_NEXT_TRY},
       confirmed_at = CASE WHEN d.tries + 1 >= :most_tries AND refused.was_rejected
                           THEN clock_timestamp() END,
       status = CASE WHEN d.tries + 1 < :most_tries OR EXISTS ({_LEAD_IN_DOUBT}) THEN d.status
                     WHEN refused.was_rejected THEN 'cancelled'
                     ELSE 'failed' END
  FROM (SELECT given.lead_id, given.reason,
               EXISTS (SELECT FROM leadloop.leads AS lead
                        WHERE lead.campaign_id = :campaign AND lead.lead_id = given.lead_id
                          AND lead.status = 'rejected') AS was_rejected
          FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS given (lead_id, reason)
       ) AS refused
 WHERE d.campaign_id = :campaign AND d.lead_id = refused.lead_id
   AND d.status IN ('requested', 'failed')
RETURNING d.status, d.tries
""")
_SET_ASIDE = text(f"""
UPDATE leadloop.disable_requests AS d
   SET status = 'failed', tries = greatest(d.tries + 1, :most_tries), tried_at = clock_timestamp(),
       next_try_at = {_NEXT_TRY.replace("d.tries", "greatest(d.tries, :most_tries - 1)")},
       last_error = :reason
 WHERE d.campaign_id = :campaign AND d.lead_id = ANY(:ids) AND d.status IN ('requested', 'failed')
""")
_POSTPONE = text("""
UPDATE leadloop.disable_requests SET tried_at = clock_timestamp()
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids) AND status = 'requested'
""")
# A campaign that the vendor had may be back in a minute; one that it never had, hardly.
_FAIL_ALL = text(f"""
UPDATE leadloop.disable_requests AS d
   SET status = 'failed', tries = greatest(d.tries + 1, :most_tries), tried_at = clock_timestamp(),
       next_try_at = CASE WHEN EXISTS (
                               SELECT FROM leadloop.leads
                                WHERE campaign_id = :campaign AND status = 'created')
                            OR EXISTS (
                               SELECT FROM leadloop.disable_requests
                                WHERE campaign_id = :campaign AND status = 'disabled')
                          THEN {_NEXT_TRY.replace("d.tries", "greatest(d.tries, :most_tries - 1)")}
                          ELSE clock_timestamp() + interval '1 day' END,
       last_error = :reason
 WHERE d.campaign_id = :campaign
   AND (d.status = 'requested'
        OR d.status = 'failed' AND coalesce(d.next_try_at, '-infinity') <= clock_timestamp())
""")
_CONFIRMED_LAST = text("""
SELECT lead_id FROM leadloop.disable_requests
 WHERE campaign_id = :campaign AND status = 'disabled' ORDER BY confirmed_at DESC LIMIT 1
""")
# Those in doubt wait for the next run: another try now would tell nothing new.
_STILL_REQUESTED = text(f"""
SELECT count(*) FROM leadloop.disable_requests AS d
 WHERE d.campaign_id = :campaign AND d.lead_id = ANY(:ids) AND d.status = 'requested'
   AND NOT EXISTS ({_LEAD_IN_DOUBT})
""")
_REQUEUE = text("""
UPDATE leadloop.disable_requests
   SET status = 'requested', tries = 0, next_try_at = NULL, last_error = NULL
 WHERE campaign_id = ANY(:campaigns) AND status = 'failed'
   AND (CAST(:ids AS text[]) IS NULL OR lead_id = ANY(:ids))
""")


def request_opt_outs(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """Opt leads out, as upstream does. Returns how many had not yet."""
    return connection.execute(_REQUEST, {"campaign": campaign_id, "ids": list(lead_ids)}).rowcount


def cancel_unsent(connection: Connection, campaign_id: str) -> int:
    """Cancel leads that opted out before they were sent, and note on the others that they did.

    Returns:
        How many opt-outs that settled.
    """
    return connection.execute(_CANCEL, {"campaign": campaign_id}).rowcount


def pick_due(
    connection: Connection, *, campaign_id: str, status: str, limit: int, exclude: Sequence[str]
) -> list[str]:
    """Ids of the leads to disable next, oldest opt-out first, without those `tried` already.

    Those that the vendor has refused before come last.

    `status`: those `requested`, or those that have `failed` and are due to be tried again.
    """
    parameters = {"campaign": campaign_id, "status": status, "most": limit, "tried": list(exclude)}
    return list(connection.scalars(_NEXT, parameters))


def confirm_disabled(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], *, settle_s: int
) -> int:
    """Record that the vendor has confirmed them, but for those whose leads are in doubt.

    `settle_s`: the seconds that the vendor has to carry out a create that nobody waits for.
    """
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "settle_s": settle_s}
    return connection.execute(_CONFIRM, parameters).rowcount


def record_refused(
    connection: Connection,
    *,
    campaign_id: str,
    reasons: Mapping[str, str],
    max_attempts: int,
    settle_s: int,
) -> int:
    """The vendor refused them. Returns how many are given up, after `most_tries`."""
    rows = connection.execute(
        _REFUSE,
        {
            "campaign": campaign_id,
            "ids": list(reasons),
            "reasons": list(reasons.values()),
            "most_tries": max_attempts,
            "settle_s": settle_s,
        },
    )
    return sum(row.status == "failed" and row.tries == max_attempts for row in rows)


def mark_failed(
    connection: Connection,
    *,
    campaign_id: str,
    lead_ids: Sequence[str],
    reason: str,
    max_attempts: int,
) -> int:
    """Mark opt-outs `failed` on which the vendor fails; each is tried again, at least daily.

    Returns how many were not `failed` before, or failed once more.
    """
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "reason": reason}
    return connection.execute(_SET_ASIDE, {**parameters, "most_tries": max_attempts}).rowcount


def move_to_back(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """Send these after all others from now on. Returns how many."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids)}
    return connection.execute(_POSTPONE, parameters).rowcount


def fail_all_due(
    connection: Connection, campaign_id: str, reason: str, *, max_attempts: int
) -> int:
    """Mark all opt-outs of a campaign that are due `failed`.

    They are tried again in a day; where the vendor is known to have had the campaign, as others
    are: a minute later, then ever more seldom. Returns how many.
    """
    parameters = {"campaign": campaign_id, "reason": reason, "most_tries": max_attempts}
    return connection.execute(_FAIL_ALL, parameters).rowcount


def find_last_confirmed(connection: Connection, campaign_id: str) -> str | None:
    """Return the lead whose opt-out the vendor has confirmed last, None where there is none."""
    lead_id: str | None = connection.scalar(_CONFIRMED_LAST, {"campaign": campaign_id})
    return lead_id


def count_retriable(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], *, settle_s: int
) -> int:
    """How many of these are to be tried again within the same run."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "settle_s": settle_s}
    count: int = connection.execute(_STILL_REQUESTED, parameters).scalar_one()
    return count


def requeue_failed(
    connection: Connection, *, campaign_ids: Sequence[str], lead_ids: Sequence[str]
) -> int:
    """Ask again for opt-outs that failed; all of them where no ids are given."""
    return connection.execute(
        _REQUEUE, {"campaigns": list(campaign_ids), "ids": list(lead_ids) or None}
    ).rowcount
