"""Requeueing of leads and opt-outs, for `leadloop requeue`."""

from collections.abc import Sequence

from db import campaigns, leads, opt_outs
from db.database import Connection, Database
from leadloop.settings import Settings


def requeue_items(
    database: Database,
    settings: Settings,
    campaign_ids: Sequence[str],
    kinds: Sequence[str],
    lead_ids: Sequence[str],
) -> dict[str, int]:
    """Requeue leads as `new`, and failed opt-outs as `requested`, in one transaction.

    Args:
        database: where the items are.
        settings: the campaigns' defaults.
        campaign_ids: none: every enabled campaign.
        kinds: of `rejected`, `in_doubt`, `disables`.
        lead_ids: none: all items of those kinds.

    Returns:
        The number of items by kind.

    Raises:
        UsageError: an unknown campaign.
    """

    def requeue(connection: Connection) -> dict[str, int]:
        chosen = campaigns.select_campaigns(connection, campaign_ids, settings.campaign_rules())
        ids = [campaign.campaign_id for campaign in chosen]
        return {
            kind: opt_outs.requeue_failed(connection, campaign_ids=ids, lead_ids=lead_ids)
            if kind == "disables"
            else leads.requeue_leads(connection, campaign_ids=ids, status=kind, lead_ids=lead_ids)
            for kind in kinds
        }

    return database.run(requeue)
