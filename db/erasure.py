"""Erasure of a person's data on request (`leadloop forget`); the opt-out and its number stay."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.audit_staging import build_loose_id

#: The lead id of an unreadable result, as `leadloop.core.leads.read_vendor_id` reads it.
LEAD_ID_OF_RAW = """CASE jsonb_typeof(raw -> 'lead_id')
           WHEN 'number' THEN CAST(trim_scale(CAST(raw ->> 'lead_id' AS numeric)) AS text)
           ELSE raw ->> 'lead_id' END"""
# An advisory lock, since two open transactions do not see each other: results stored by one of a
# person whom the other erases would stay. Transactions that store results share the lock.
_HOLD_OFF = text("""
SELECT pg_advisory_xact_lock_shared(hashtext('leadloop.forget'), hashtext(:campaign))
""")
_WAIT_FOR_STORING = text("""
SELECT pg_advisory_xact_lock(hashtext('leadloop.forget'), hashtext(:campaign))
""")
# Any trace counts: some leads were created at the vendor by others, some are only opted out.
_KNOWN = text(f"""
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
                WHERE odd.campaign_id = :campaign AND {LEAD_ID_OF_RAW} = asked.lead_id)
    OR EXISTS (SELECT FROM leadloop.sent_leads AS sent
                WHERE sent.campaign_id = :campaign AND sent.lead_id = asked.lead_id)
    OR EXISTS (SELECT FROM leadloop.forgotten
                WHERE forgotten.campaign_id = :campaign AND forgotten.lead_id = asked.lead_id)
""")
# Before the leads are locked, the same order as in an insert of an opt-out, whose trigger
# locks the leads: the reverse order could deadlock.
_OPT_OUT = text("""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id, reason)
SELECT :campaign, lead_id, 'forgotten' FROM unnest(CAST(:ids AS text[])) AS known (lead_id)
 ORDER BY lead_id
ON CONFLICT (campaign_id, lead_id) DO UPDATE SET reason = 'forgotten', last_error = NULL
""")
# A placeholder row serialises us with concurrent inserts of the same lead: we wait for an open
# insert, and a later insert waits for us, so that the trigger of `leads` finds the lead forgotten.
_INSERT_PLACEHOLDERS = text("""
INSERT INTO leadloop.leads (campaign_id, lead_id)
SELECT :campaign, lead_id FROM unnest(CAST(:ids AS text[])) AS known (lead_id) ORDER BY lead_id
ON CONFLICT DO NOTHING RETURNING lead_id
""")
_REMOVE = text("DELETE FROM leadloop.leads WHERE campaign_id = :campaign AND lead_id = ANY(:ids)")
_LOCK = text("""
SELECT lead_id, status = 'sending' AS is_sending FROM leadloop.leads
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
 ORDER BY lead_id FOR NO KEY UPDATE
""")
# The last step removes what the earlier steps need.
_STEPS = tuple(
    text(statement)
    for statement in (
        """
INSERT INTO leadloop.forgotten (campaign_id, lead_id)
SELECT :campaign, unnest(CAST(:ids AS text[])) ON CONFLICT DO NOTHING
""",
        """
UPDATE leadloop.opt_ins SET reason = 'forgotten'
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
        """
UPDATE leadloop.outreach_attempts SET answers = '{}'
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
        """
UPDATE leadloop.lead_outcomes SET raw = '{}'
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
        f"""
DELETE FROM leadloop.unreadable_results
 WHERE campaign_id = :campaign AND {LEAD_ID_OF_RAW} = ANY(:ids)
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


# Compared as the audit compares ids. All rows of the campaign are read.
_SIMILAR = text(f"""
SELECT asked.lead_id, array_agg(other.lead_id ORDER BY other.lead_id) AS others
  FROM unnest(CAST(:ids AS text[])) AS asked (lead_id)
  JOIN (SELECT lead_id FROM leadloop.leads WHERE campaign_id = :campaign
         UNION
        SELECT lead_id FROM leadloop.lead_outcomes WHERE campaign_id = :campaign
         UNION
        SELECT lead_id FROM leadloop.outreach_attempts WHERE campaign_id = :campaign
         UNION
        SELECT {LEAD_ID_OF_RAW} FROM leadloop.unreadable_results WHERE campaign_id = :campaign
       ) AS other
    ON {build_loose_id("other.lead_id")} = {build_loose_id("asked.lead_id")}
 WHERE other.lead_id <> ALL (CAST(:ids AS text[]))
   AND NOT EXISTS (SELECT FROM leadloop.forgotten
                    WHERE forgotten.campaign_id = :campaign
                      AND forgotten.lead_id = other.lead_id)
 GROUP BY asked.lead_id
""")


@dataclass(frozen=True, kw_only=True)
class LockedLeads:
    """The lead ids locked for erasure: `known` have data, `sending` are in a request now."""

    known: Sequence[str]
    sending: Sequence[str]


def hold_off_erasure(connection: Connection, campaign_id: str) -> None:
    """Hold off erasures in a campaign until this transaction, which stores results, has ended."""
    connection.execute(_HOLD_OFF, {"campaign": campaign_id})


def hold_off_storing(connection: Connection, campaign_id: str) -> None:
    """Hold off transactions that store results of a campaign until this transaction has ended."""
    connection.execute(_WAIT_FOR_STORING, {"campaign": campaign_id})


def lock_for_erasure(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str]
) -> LockedLeads:
    """Opt out and lock the leads of which data is known, in the transaction of `erase_leads`.

    Until the transaction ends, no other transaction claims or inserts these leads, or stores
    results of the campaign.
    """
    hold_off_storing(connection, campaign_id)
    asked = {"campaign": campaign_id, "ids": list(lead_ids)}
    known = {"campaign": campaign_id, "ids": list(connection.scalars(_KNOWN, asked))}
    connection.execute(_OPT_OUT, known)
    placeholders = list(connection.scalars(_INSERT_PLACEHOLDERS, known))
    connection.execute(_REMOVE, {"campaign": campaign_id, "ids": placeholders})
    rows = connection.execute(_LOCK, known).all()
    return LockedLeads(known=known["ids"], sending=[row.lead_id for row in rows if row.is_sending])


def erase_leads(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> None:
    """Erase the personal data of locked leads.

    Index the numbers first (`db.suppressed_numbers.index_numbers`): erasure removes them.
    """
    for step in _STEPS:
        connection.execute(step, {"campaign": campaign_id, "ids": list(lead_ids)})


def find_forgotten(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> set[str]:
    """Return which of these leads are forgotten.

    No vendor text may be kept about them: the fields to redact from the text are erased.
    """
    asked = {"campaign": campaign_id, "ids": list(lead_ids)}
    return set(connection.scalars(_FORGOTTEN, asked))


def find_similar(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str]
) -> dict[str, list[str]]:
    """Find leads with data whose ids differ from these only in how they are written.

    Returns:
        The other ids by each of these, if there are any.
    """
    asked = {"campaign": campaign_id, "ids": list(lead_ids)}
    return {row.lead_id: row.others for row in connection.execute(_SIMILAR, asked)}
