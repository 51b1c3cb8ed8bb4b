"""A person's data, removed on request; what keeps them from being called stays."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

# Two open transactions do not see each other: what one stores of somebody whom the other forgets
# would stay. So they take turns; those that store results do so beside each other.
_HOLD_OFF = text("""
SELECT pg_advisory_xact_lock_shared(hashtext('leadloop.forget'), hashtext(:campaign))
""")
_WAIT_FOR_STORING = text("""
SELECT pg_advisory_xact_lock(hashtext('leadloop.forget'), hashtext(:campaign))
""")
# Not all leads are ours: some were made at the vendor by hand, some are only opted out.
_KNOWN = text("""
SELECT DISTINCT lead_id FROM unnest(CAST(:ids AS text[])) AS asked (lead_id)
 WHERE EXISTS (SELECT FROM leadloop.leads AS lead
                WHERE lead.campaign_id = :campaign AND lead.lead_id = asked.lead_id)
    OR EXISTS (SELECT FROM leadloop.disable_requests AS d
                WHERE d.campaign_id = :campaign AND d.lead_id = asked.lead_id)
    OR EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                WHERE outcome.campaign_id = :campaign AND outcome.lead_id = asked.lead_id)
    OR EXISTS (SELECT FROM leadloop.outreach_attempts AS attempt
                WHERE attempt.campaign_id = :campaign AND attempt.lead_id = asked.lead_id)
    OR EXISTS (SELECT FROM leadloop.unreadable_results AS odd
                WHERE odd.campaign_id = :campaign AND odd.raw ->> 'lead_id' = asked.lead_id)
    OR EXISTS (SELECT FROM leadloop.sent_leads AS sent
                WHERE sent.campaign_id = :campaign AND sent.lead_id = asked.lead_id)
    OR EXISTS (SELECT FROM leadloop.forgotten
                WHERE forgotten.campaign_id = :campaign AND forgotten.lead_id = asked.lead_id)
""")
# Before their leads are locked, as upstream does, whose opt-out's trigger locks them: the other way
# round the two could wait for each other.
_OPT_OUT = text("""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id, reason)
SELECT :campaign, lead_id, 'forgotten' FROM unnest(CAST(:ids AS text[])) AS known (lead_id)
 ORDER BY lead_id
ON CONFLICT (campaign_id, lead_id) DO UPDATE SET reason = 'forgotten', last_error = NULL
""")
# Whoever inserts one of these leads at this moment is waited for, and whoever does so until we are
# done waits for us: the trigger of `leads` then finds it forgotten.
_INSERT_PLACEHOLDERS = text("""
INSERT INTO leadloop.leads (campaign_id, lead_id)
SELECT :campaign, lead_id FROM unnest(CAST(:ids AS text[])) AS known (lead_id) ORDER BY lead_id
ON CONFLICT DO NOTHING RETURNING lead_id
""")
_REMOVE = text("DELETE FROM leadloop.leads WHERE campaign_id = :campaign AND lead_id = ANY(:ids)")
_LOCK = text("""
SELECT lead_id, status = 'sending' AS is_on_its_way FROM leadloop.leads
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
 ORDER BY lead_id FOR NO KEY UPDATE
""")
# The last of these steps removes what the others need.
_STEPS = tuple(
    text(statement)
    for statement in (
        """
INSERT INTO leadloop.forgotten (campaign_id, lead_id)
SELECT :campaign, unnest(CAST(:ids AS text[])) ON CONFLICT DO NOTHING
""",
        """
UPDATE leadloop.outreach_attempts SET answers = '{}'
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
        """
UPDATE leadloop.lead_outcomes SET raw = '{}'
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
        """
DELETE FROM leadloop.unreadable_results
 WHERE campaign_id = :campaign AND raw ->> 'lead_id' = ANY(:ids)
""",
        """
UPDATE leadloop.leads
   SET phone_number = NULL, contact_name = NULL, state_code = NULL, ebr_datetime = NULL,
       custom_fields = '{}', last_error = NULL, opted_out = true,
       status = CASE WHEN status IN ('new', 'rejected') AND sent_at IS NULL THEN 'cancelled'
                     ELSE status END
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
    )
)


_FORGOTTEN = text("""
SELECT lead_id FROM leadloop.forgotten WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""")


@dataclass(frozen=True, kw_only=True)
class LockedLeads:
    """Ids of a campaign: those of which something is known, and the leads that are being sent."""

    known: Sequence[str]
    sending: Sequence[str]


def hold_off_erasure(connection: Connection, campaign_id: str) -> None:
    """Have nobody of a campaign forgotten until this transaction, which stores results, is over."""
    connection.execute(_HOLD_OFF, {"campaign": campaign_id})


def lock_for_erasure(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str]
) -> LockedLeads:
    """Of which of these something is known; from now on nobody claims, inserts or stores them.

    For the transaction of `forget`: it opts out those that are known.
    """
    connection.execute(_WAIT_FOR_STORING, {"campaign": campaign_id})
    asked = {"campaign": campaign_id, "ids": list(lead_ids)}
    known = {"campaign": campaign_id, "ids": list(connection.scalars(_KNOWN, asked))}
    connection.execute(_OPT_OUT, known)
    placeholders = list(connection.scalars(_INSERT_PLACEHOLDERS, known))
    connection.execute(_REMOVE, {"campaign": campaign_id, "ids": placeholders})
    rows = connection.execute(_LOCK, known).all()
    return LockedLeads(
        known=known["ids"], sending=[row.lead_id for row in rows if row.is_on_its_way]
    )


def erase_leads(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> None:
    """Remove what is known of people that were found; their numbers must be noted before."""
    for step in _STEPS:
        connection.execute(step, {"campaign": campaign_id, "ids": list(lead_ids)})


def find_forgotten(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> set[str]:
    """Which of these leads are forgotten: nothing tells what of the vendor's words is personal."""
    asked = {"campaign": campaign_id, "ids": list(lead_ids)}
    return set(connection.scalars(_FORGOTTEN, asked))
