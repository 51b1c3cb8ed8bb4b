"""Queries on `leadloop.disable_requests`: the transitions of an opt-out's status in a disable.

Others: `db.leads` (cancelled with its lead), `db.outcomes` (requested again) and `db.audit`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.create_holds import IS_HELD
from db.latencies import build_count
from db.opt_out_source import ORIGIN, cancel_strangers, is_held_by_vendor
from leadloop.core.opt_ins import OPTED_OUT_REASON

_REQUEST = text("""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id)
SELECT :campaign, unnest(CAST(:ids AS text[])) ON CONFLICT DO NOTHING
""")
_RECORD = text("""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id, reason, origin)
SELECT :campaign, lead_id, :reason, 'person'
  FROM unnest(CAST(:ids AS text[])) AS given (lead_id) ORDER BY lead_id
ON CONFLICT DO NOTHING RETURNING lead_id
""")

# A lead that was never sent is cancelled, under the lock that a claim would need. A lead that the
# vendor rejected is not: the vendor may hold it, so the opt-out is sent. This statement also sets
# `opted_out` where the triggers missed it (opt-out and lead written by concurrent transactions), so
# that the number is suppressed. While creates are held, the vendor may hold any lead: all opt-outs
# are sent.
_UNSENT = f"""(lead.status = 'cancelled'
        OR {IS_HELD} IS NOT TRUE AND (lead.status = 'new'
                                      OR lead.status = 'rejected' AND lead.sent_at IS NULL))"""
_CANCEL_UNSENT = text(f"""
WITH unsettled AS (
    SELECT lead.campaign_id, lead.lead_id
      FROM leadloop.leads AS lead
      JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)
     WHERE d.campaign_id = :campaign AND d.status IN ('requested', 'failed')
       AND ({_UNSENT} OR NOT lead.opted_out)
     ORDER BY lead.lead_id
       FOR NO KEY UPDATE OF lead
), noted AS (
    UPDATE leadloop.leads AS lead
       SET opted_out = true, status = CASE WHEN {_UNSENT} THEN 'cancelled' ELSE lead.status END,
           last_error = CASE WHEN {_UNSENT} AND lead.last_error IS NULL
                             THEN '{OPTED_OUT_REASON}' ELSE lead.last_error END
      FROM unsettled
     WHERE lead.campaign_id = unsettled.campaign_id AND lead.lead_id = unsettled.lead_id
    RETURNING lead.campaign_id, lead.lead_id, lead.status
)
UPDATE leadloop.disable_requests AS d
   SET status = 'cancelled', confirmed_at = clock_timestamp()
  FROM noted
 WHERE noted.status = 'cancelled' AND d.campaign_id = noted.campaign_id
   AND d.lead_id = noted.lead_id AND d.status IN ('requested', 'failed')
""")

# Oldest first; opt-outs that the vendor rejected come last: they may be many, and stop the run. A
# lead that another run is sending now is left for later: the vendor may not hold it yet. While
# creates are held, strangers of an opt-out source are due too: after those whom the vendor has.
_PICK_DUE = text(f"""
UPDATE leadloop.disable_requests AS d
   SET sent_at = coalesce(d.sent_at, clock_timestamp())
  FROM (SELECT r.campaign_id, r.lead_id
          FROM leadloop.disable_requests AS r
          LEFT JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
         WHERE r.campaign_id = :campaign
           AND r.status IN ('requested', 'failed') AND r.status = :status
           AND r.lead_id <> ALL(:exclude)
           AND lead.status IS DISTINCT FROM 'sending'
           AND (lead.status IS DISTINCT FROM 'new' OR {IS_HELD})
           AND (r.status = 'requested'
                OR coalesce(r.next_try_at, '-infinity') <= clock_timestamp())
           -- Its row was deleted while a run was sending it.
           AND NOT EXISTS (SELECT FROM leadloop.sent_leads AS sent
                            WHERE sent.campaign_id = r.campaign_id AND sent.lead_id = r.lead_id
                              AND sent.doubted_at = 'infinity')
         ORDER BY (lead.lead_id IS NULL AND r.origin = '{ORIGIN}'
                   AND NOT {is_held_by_vendor("r")}) IS TRUE,
                  r.tried_at NULLS FIRST, r.requested_at, r.lead_id
         LIMIT :limit) AS due
 WHERE d.campaign_id = due.campaign_id AND d.lead_id = due.lead_id
RETURNING d.lead_id
""")
# A confirmation does not count while the lead is in doubt: its create may be carried out after the
# disable. The lead is disabled again until it is settled. A lead whose row was deleted is never
# looked up: it counts as settled after its settle time.
_LEAD_IN_DOUBT = """
SELECT 1 FROM leadloop.leads AS lead
 WHERE lead.campaign_id = d.campaign_id AND lead.lead_id = d.lead_id AND lead.status = 'in_doubt'
 UNION ALL
SELECT 1 FROM leadloop.sent_leads AS sent
 WHERE sent.campaign_id = d.campaign_id AND sent.lead_id = d.lead_id AND sent.status = 'in_doubt'
   AND coalesce(sent.doubted_at, sent.sent_at) + make_interval(secs => :settle_s)
       > clock_timestamp()
"""
_COUNT_LATENCIES = build_count(
    "disabled",
    kind="'opt-out'",
    since="disabled.requested_at",
    until="disabled.confirmed_at",
)
_CONFIRM_DISABLED = text(f"""
WITH disabled AS (
    UPDATE leadloop.disable_requests AS d
       SET status = 'disabled', confirmed_at = clock_timestamp(), last_error = NULL,
           next_try_at = NULL
     WHERE campaign_id = :campaign AND lead_id = ANY(:ids) AND status IN ('requested', 'failed')
       AND NOT EXISTS ({_LEAD_IN_DOUBT})
    RETURNING d.lead_id, d.requested_at, d.confirmed_at
), counted AS ({_COUNT_LATENCIES}
)
SELECT lead_id FROM disabled
""")
# Exponential backoff: a minute after the third attempt, doubled each time, at most a day;
# indefinitely.
_NEXT_ATTEMPT = """clock_timestamp() + least(
           interval '1 day', interval '30 seconds' * power(2, least(d.tries, 20) - 1))"""
# A rejection is never final while the lead is in doubt. A lead that the vendor rejected when it was
# sent, and whose disable it rejects, was never created.
_RECORD_REJECTIONS = text(f"""
UPDATE leadloop.disable_requests AS d
   SET tries = d.tries + 1, tried_at = clock_timestamp(), last_error = rejection.reason,
       next_try_at = {_NEXT_ATTEMPT},
       confirmed_at = CASE WHEN d.tries + 1 >= :max_attempts AND rejection.was_rejected
                           THEN clock_timestamp() END,
       status = CASE WHEN d.tries + 1 < :max_attempts OR EXISTS ({_LEAD_IN_DOUBT}) THEN d.status
                     WHEN rejection.was_rejected THEN 'cancelled'
                     ELSE 'failed' END
  FROM (SELECT reported.lead_id, reported.reason,
               EXISTS (SELECT FROM leadloop.leads AS lead
                        WHERE lead.campaign_id = :campaign AND lead.lead_id = reported.lead_id
                          AND lead.status = 'rejected') AS was_rejected
          FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS reported (lead_id, reason)
       ) AS rejection
 WHERE d.campaign_id = :campaign AND d.lead_id = rejection.lead_id
   AND d.status IN ('requested', 'failed')
RETURNING d.status, d.tries
""")
# For opt-outs that are failed at once, as if all attempts were used.
_NEXT_FAILED_ATTEMPT = _NEXT_ATTEMPT.replace("d.tries", "greatest(d.tries, :max_attempts - 1)")
_MARK_FAILED = text(f"""
UPDATE leadloop.disable_requests AS d
   SET status = 'failed', tries = greatest(d.tries + 1, :max_attempts),
       tried_at = clock_timestamp(),
       next_try_at = {_NEXT_FAILED_ATTEMPT},
       last_error = :reason
 WHERE d.campaign_id = :campaign AND d.lead_id = ANY(:ids) AND d.status IN ('requested', 'failed')
""")
_MOVE_TO_BACK = text("""
UPDATE leadloop.disable_requests SET tried_at = clock_timestamp()
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids) AND status = 'requested'
""")
# A campaign that the vendor is known to have held may be back in a minute; others wait a day.
_FAIL_ALL_DUE = text(f"""
UPDATE leadloop.disable_requests AS d
   SET status = 'failed', tries = greatest(d.tries + 1, :max_attempts),
       tried_at = clock_timestamp(),
       next_try_at = CASE WHEN EXISTS (
                               SELECT FROM leadloop.leads
                                WHERE campaign_id = :campaign AND status = 'created')
                            OR EXISTS (
                               SELECT FROM leadloop.disable_requests
                                WHERE campaign_id = :campaign AND status = 'disabled')
                          THEN {_NEXT_FAILED_ATTEMPT}
                          ELSE clock_timestamp() + interval '1 day' END,
       last_error = :reason
 WHERE d.campaign_id = :campaign
   AND (d.status = 'requested'
        OR d.status = 'failed' AND coalesce(d.next_try_at, '-infinity') <= clock_timestamp())
""")
_LAST_CONFIRMED = text("""
SELECT lead_id FROM leadloop.disable_requests
 WHERE campaign_id = :campaign AND status = 'disabled' ORDER BY confirmed_at DESC LIMIT 1
""")
# Leads in doubt are excluded: another attempt in the same run would not settle them.
_COUNT_OPEN = text(f"""
SELECT count(*) FILTER (WHERE status = 'requested'
                           OR coalesce(next_try_at, '-infinity') <= clock_timestamp()) AS due,
       count(*) FILTER (WHERE status = 'failed') AS set_aside,
       count(*) FILTER (WHERE EXISTS ({_LEAD_IN_DOUBT})) AS in_doubt
  FROM leadloop.disable_requests AS d
 WHERE campaign_id = :campaign AND status IN ('requested', 'failed')
""")
_COUNT_RETRIABLE = text(f"""
SELECT count(*) FROM leadloop.disable_requests AS d
 WHERE d.campaign_id = :campaign AND d.lead_id = ANY(:ids) AND d.status = 'requested'
   AND NOT EXISTS ({_LEAD_IN_DOUBT})
""")
_REQUEUE_FAILED = text("""
UPDATE leadloop.disable_requests
   SET status = 'requested', tries = 0, next_try_at = NULL, last_error = NULL
 WHERE campaign_id = ANY(:campaigns) AND status = 'failed'
   AND (CAST(:ids AS text[]) IS NULL OR lead_id = ANY(:ids))
""")


@dataclass(frozen=True, kw_only=True)
class OpenOptOuts:
    """The number of a campaign's opt-outs that are not confirmed.

    Attributes:
        due: requested, or failed and due for a retry.
        set_aside: failed; each is retried at least daily.
        in_doubt: those of leads in doubt, which no response confirms.
    """

    due: int
    set_aside: int
    in_doubt: int


def request_opt_outs(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """Insert opt-outs, as your code would; idempotent. Returns the number of new ones."""
    return connection.execute(_REQUEST, {"campaign": campaign_id, "ids": list(lead_ids)}).rowcount


def record_opt_outs(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], reason: str | None
) -> set[str]:
    """Insert opt-outs of a person's word; idempotent. Returns the leads that had not opted out."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "reason": reason}
    return set(connection.scalars(_RECORD, parameters))


def cancel_unsent(connection: Connection, campaign_id: str) -> int:
    """Cancel opted-out leads that were never sent; mark the others `opted_out`.

    After a hold of creates, opt-outs of strangers are cancelled too.

    Returns:
        The number of opt-outs settled without a request to the vendor.
    """
    cancelled = connection.execute(_CANCEL_UNSENT, {"campaign": campaign_id}).rowcount
    return cancelled + cancel_strangers(connection, campaign_id)


def pick_due(
    connection: Connection, *, campaign_id: str, status: str, limit: int, exclude: Sequence[str]
) -> list[str]:
    """Pick the leads to disable next, oldest opt-out first, and date their first attempt.

    Opt-outs that the vendor rejected before come last.

    Args:
        connection: a transaction.
        campaign_id: the campaign.
        status: `requested`, or `failed` for those whose next attempt is due.
        limit: maximum number of leads.
        exclude: lead ids that this run has tried already.
    """
    parameters = {
        "campaign": campaign_id,
        "status": status,
        "limit": limit,
        "exclude": list(exclude),
    }
    return list(connection.scalars(_PICK_DUE, parameters))


def confirm_disabled(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], *, settle_s: int
) -> int:
    """Mark opt-outs `disabled` that the vendor confirmed, except of leads in doubt.

    `settle_s`: the settle time in seconds. Returns the number of changed opt-outs.
    """
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "settle_s": settle_s}
    return connection.execute(_CONFIRM_DISABLED, parameters).rowcount


def record_disable_rejections(
    connection: Connection,
    *,
    campaign_id: str,
    reasons: Mapping[str, str],
    max_attempts: int,
    settle_s: int,
) -> int:
    """Record that the vendor rejected opt-outs; `reasons`: redacted reason by lead id.

    After `max_attempts` an opt-out becomes `failed`, or `cancelled` if the vendor had rejected its
    lead. Returns the number of opt-outs that became `failed`.
    """
    rows = connection.execute(
        _RECORD_REJECTIONS,
        {
            "campaign": campaign_id,
            "ids": list(reasons),
            "reasons": list(reasons.values()),
            "max_attempts": max_attempts,
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
    """Mark opt-outs `failed` on which the vendor fails, in any way; each is retried at least daily.

    Returns the number of opt-outs marked.
    """
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "reason": reason}
    return connection.execute(_MARK_FAILED, {**parameters, "max_attempts": max_attempts}).rowcount


def move_to_back(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> int:
    """Move opt-outs to the back of the queue. Returns their number."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids)}
    return connection.execute(_MOVE_TO_BACK, parameters).rowcount


def fail_all_due(
    connection: Connection, campaign_id: str, reason: str, *, max_attempts: int
) -> int:
    """Mark all due opt-outs of a campaign `failed`.

    The next attempt follows in a day. If the vendor is known to have held the campaign, the usual
    backoff applies: a minute, doubled each time. Returns the number of opt-outs.
    """
    parameters = {"campaign": campaign_id, "reason": reason, "max_attempts": max_attempts}
    return connection.execute(_FAIL_ALL_DUE, parameters).rowcount


def find_last_confirmed(connection: Connection, campaign_id: str) -> str | None:
    """Return the lead whose opt-out the vendor confirmed last, or None."""
    lead_id: str | None = connection.scalar(_LAST_CONFIRMED, {"campaign": campaign_id})
    return lead_id


def count_open(connection: Connection, campaign_id: str, *, settle_s: int) -> OpenOptOuts:
    """Count the opt-outs that are not confirmed; `settle_s`: the settle time in seconds."""
    row = connection.execute(_COUNT_OPEN, {"campaign": campaign_id, "settle_s": settle_s}).one()
    return OpenOptOuts(**row._mapping)


def count_retriable(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str], *, settle_s: int
) -> int:
    """Count the opt-outs to retry within the same run: still `requested`, and not in doubt."""
    parameters = {"campaign": campaign_id, "ids": list(lead_ids), "settle_s": settle_s}
    count: int = connection.execute(_COUNT_RETRIABLE, parameters).scalar_one()
    return count


def requeue_failed(
    connection: Connection, *, campaign_ids: Sequence[str], lead_ids: Sequence[str]
) -> int:
    """Requeue failed opt-outs: of these leads, or all if no id is given. Returns their number."""
    return connection.execute(
        _REQUEUE_FAILED, {"campaigns": list(campaign_ids), "ids": list(lead_ids) or None}
    ).rowcount
