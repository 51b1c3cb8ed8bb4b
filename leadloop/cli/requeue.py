"""`leadloop requeue`: a person decides that leads are to be sent again."""

from collections.abc import Sequence

from db import campaigns, leads, opt_outs
from db.database import Database
from leadloop.settings import Settings


def requeue_leads(
    database: Database,
    settings: Settings,
    campaign_ids: Sequence[str],
    kinds: Sequence[str],
    lead_ids: Sequence[str],
) -> dict[str, int]:
    """Make leads `new`, or failed opt-outs `requested`, again.

    Args:
        database: where they are.
        settings: the campaigns' defaults.
        campaign_ids: none: every enabled campaign.
        kinds: of `rejected`, `in_doubt`, `disables`.
        lead_ids: none: all of those kinds.

    Returns:
        How many of each kind.

    Raises:
        UsageError: an unknown campaign.
    """
    with database.transaction() as connection:
        chosen = campaigns.select_campaigns(connection, campaign_ids, settings.campaign_rules())
        ids = [campaign.campaign_id for campaign in chosen]
        return {
            kind: opt_outs.requeue_failed(connection, campaign_ids=ids, lead_ids=lead_ids)
            if kind == "disables"
            else leads.requeue_leads(connection, campaign_ids=ids, status=kind, lead_ids=lead_ids)
            for kind in kinds
        }
