"""Opt-ins: opt-outs that a person withdraws, on record (`leadloop opt-in`)."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.opt_out_source import NO_LEAD
from leadloop.core.opt_ins import OptOutState

# Leads before opt-outs, as in a claim and in `db.opt_outs`: the reverse order could deadlock.
_LOCK_LEADS = text("""
SELECT FROM leadloop.leads WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
 ORDER BY lead_id FOR NO KEY UPDATE
""")
_LOCK_OPT_OUTS = text("""
SELECT FROM leadloop.disable_requests WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
 ORDER BY lead_id FOR UPDATE
""")
_STATES = text("""
SELECT asked.lead_id, lead.status AS lead_status, coalesce(lead.opted_out, false) AS opted_out,
       lead.phone_number, d.lead_id IS NOT NULL AS has_request,
       coalesce(d.sent_at IS NOT NULL OR d.status = 'disabled', false) AS was_sent,
       lead.lead_id IS NULL
           AND NOT EXISTS (SELECT FROM leadloop.sent_leads AS sent
                            WHERE sent.campaign_id = :campaign AND sent.lead_id = asked.lead_id)
           AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                            WHERE outcome.campaign_id = :campaign
                              AND outcome.lead_id = asked.lead_id) AS is_unknown,
       EXISTS (SELECT FROM leadloop.forgotten
                WHERE forgotten.campaign_id = :campaign
                  AND forgotten.lead_id = asked.lead_id) AS is_forgotten
  FROM unnest(CAST(:ids AS text[])) AS asked (lead_id)
  LEFT JOIN leadloop.leads AS lead
         ON lead.campaign_id = :campaign AND lead.lead_id = asked.lead_id
  LEFT JOIN leadloop.disable_requests AS d
         ON d.campaign_id = :campaign AND d.lead_id = asked.lead_id
 ORDER BY asked.lead_id
""")
_RECORD = text("""
INSERT INTO leadloop.opt_ins (campaign_id, lead_id, reason, opted_out_at)
SELECT :campaign, asked.lead_id, :reason, d.requested_at
  FROM unnest(CAST(:ids AS text[])) AS asked (lead_id)
  LEFT JOIN leadloop.disable_requests AS d
         ON d.campaign_id = :campaign AND d.lead_id = asked.lead_id
 ORDER BY asked.lead_id
""")
# A cancelled lead was never sent.
_STEPS = tuple(
    text(statement)
    for statement in (
        """
DELETE FROM leadloop.disable_requests WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
        """
DELETE FROM leadloop.suppressed_numbers WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
        """
UPDATE leadloop.leads
   SET opted_out = false, number_noted = false,
       status = CASE status WHEN 'cancelled' THEN 'new' ELSE status END,
       last_error = CASE WHEN status <> 'cancelled' THEN last_error END
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
    )
)
# Numbers that rows of the campaign's opt-out source name; their rows stay remembered, so that they
# count again only when they come back.
_RELEASE_NUMBERS = text(f"""
DELETE FROM leadloop.suppressed_numbers
 WHERE campaign_id = :campaign AND lead_id = '{NO_LEAD}' AND number_key = ANY(:keys)
""")
_HOLDERS = text("""
SELECT campaign_id, lead_id FROM leadloop.suppressed_numbers WHERE number_key = :key
 ORDER BY campaign_id, lead_id
""")


@dataclass(frozen=True, kw_only=True)
class NumberHolder:
    """An opted-out lead by which a phone number is suppressed.

    `lead_id` is empty if a row of the campaign's opt-out source names the number.
    """

    campaign_id: str
    lead_id: str

    def __str__(self) -> str:
        """Return how messages name it."""
        if self.lead_id == NO_LEAD:
            return f"the opt-out source of campaign {self.campaign_id}"
        return f"{self.lead_id} of campaign {self.campaign_id}"


def lock_opt_outs(
    connection: Connection, campaign_id: str, lead_ids: Sequence[str]
) -> list[tuple[OptOutState, str | None]]:
    """Lock leads and their opt-outs.

    Returns:
        What is known of each lead, and its phone number.
    """
    asked = {"campaign": campaign_id, "ids": list(lead_ids)}
    connection.execute(_LOCK_LEADS, asked)
    connection.execute(_LOCK_OPT_OUTS, asked)
    states = []
    for row in connection.execute(_STATES, asked):
        values = row._asdict()
        phone_number: str | None = values.pop("phone_number")
        states.append((OptOutState(**values), phone_number))
    return states


def record_opt_ins(
    connection: Connection,
    campaign_id: str,
    lead_ids: Sequence[str],
    reason: str,
    *,
    number_keys: Sequence[bytes] = (),
) -> None:
    """Withdraw the opt-outs of locked leads, and record who did it and why.

    Leads that were cancelled are new again. Their numbers, of the hashes `number_keys`, are not
    suppressed any more by them, nor by rows of the campaign's opt-out source.
    """
    asked = {"campaign": campaign_id, "ids": list(lead_ids)}
    connection.execute(_RECORD, {**asked, "reason": reason})
    for step in _STEPS:
        connection.execute(step, asked)
    connection.execute(_RELEASE_NUMBERS, {"campaign": campaign_id, "keys": list(number_keys)})


def list_number_holders(connection: Connection, number_key: bytes) -> list[NumberHolder]:
    """List the leads by which a number is suppressed, by its hash."""
    rows = connection.execute(_HOLDERS, {"key": number_key})
    return [NumberHolder(**row._mapping) for row in rows]
