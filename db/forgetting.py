"""A person's data, removed on request; what keeps them from being called stays."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

_FIND = text("""
SELECT lead_id, status = 'sending' AS is_on_its_way FROM leadloop.leads
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
 ORDER BY lead_id FOR NO KEY UPDATE
""")
# The last of these steps removes what the others need.
_STEPS = tuple(
    text(statement)
    for statement in (
        """
INSERT INTO leadloop.disable_requests (campaign_id, lead_id, reason)
SELECT :campaign, unnest(CAST(:ids AS text[])), 'forgotten'
ON CONFLICT (campaign_id, lead_id) DO UPDATE SET reason = 'forgotten', last_error = NULL
""",
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
       custom_fields = '{}', last_error = NULL,
       status = CASE WHEN status IN ('new', 'rejected') AND sent_at IS NULL THEN 'cancelled'
                     ELSE status END
 WHERE campaign_id = :campaign AND lead_id = ANY(:ids)
""",
    )
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Leads of a campaign: those that are there, and those of them that are being sent."""

    there: Sequence[str]
    on_their_way: Sequence[str]


def find(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> Found:
    """Which of these leads there are; they are locked, so that no run claims them meanwhile."""
    rows = connection.execute(_FIND, {"campaign": campaign_id, "ids": list(lead_ids)}).all()
    return Found(
        there=[row.lead_id for row in rows],
        on_their_way=[row.lead_id for row in rows if row.is_on_its_way],
    )


def forget(connection: Connection, campaign_id: str, lead_ids: Sequence[str]) -> None:
    """Opt leads out and remove what is known of the people; their numbers must be noted before."""
    for step in _STEPS:
        connection.execute(step, {"campaign": campaign_id, "ids": list(lead_ids)})
