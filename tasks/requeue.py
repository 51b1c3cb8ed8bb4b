"""Requeueing of leads and opt-outs, for `leadloop requeue`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db import campaigns, leads, opt_outs
from db.database import Connection, Database
from db.leads import KnownLead
from leadloop.core.errors import UsageError
from leadloop.settings import Settings


@dataclass(frozen=True, kw_only=True)
class RequeueResult:
    """The number of requeued items by kind, and a line for each named lead without any."""

    counts: Mapping[str, int]
    unchanged: Sequence[str]


def requeue_items(
    database: Database,
    settings: Settings,
    campaign_ids: Sequence[str],
    kinds: Sequence[str],
    lead_ids: Sequence[str],
) -> RequeueResult:
    """Requeue leads as `new`, and failed opt-outs as `requested`, in one transaction.

    Args:
        database: where the items are.
        settings: the campaigns' defaults.
        campaign_ids: none: every enabled campaign.
        kinds: of `rejected`, `in_doubt`, `disables`.
        lead_ids: none: all items of those kinds.

    Raises:
        UsageError: an unknown campaign, or a lead that none of the campaigns has; nothing was
            requeued.
    """

    def requeue(connection: Connection) -> RequeueResult:
        chosen = campaigns.select_campaigns(connection, campaign_ids, settings.campaign_rules())
        ids = [campaign.campaign_id for campaign in chosen]
        known = leads.list_known(connection, ids, lead_ids)
        if unknown := set(lead_ids) - {lead.lead_id for lead in known}:
            raise UsageError(
                f"nothing is known of {', '.join(sorted(unknown))} in campaign {', '.join(ids)};"
                " nothing was requeued: check the id and the campaign"
            )
        counts = {
            kind: opt_outs.requeue_failed(connection, campaign_ids=ids, lead_ids=lead_ids)
            if kind == "disables"
            else leads.requeue_leads(connection, campaign_ids=ids, status=kind, lead_ids=lead_ids)
            for kind in kinds
        }
        unchanged = [line for lead in known if (line := _explain_unchanged(lead, kinds))]
        return RequeueResult(counts=counts, unchanged=unchanged)

    return database.run(requeue)


def _explain_unchanged(lead: KnownLead, kinds: Sequence[str]) -> str | None:
    """Explain why nothing of a lead was requeued; None if something was."""
    if "disables" in kinds and lead.opt_out_status == "failed":
        return None
    opted_out = lead.opted_out or lead.opt_out_status is not None
    if lead.status in kinds and not opted_out:
        return None
    standing = f"lead {lead.lead_id} of campaign {lead.campaign_id} is {lead.status or 'no lead'}"
    if opted_out:
        return f"{standing}, and has opted out: leadloop opt-in withdraws an opt-out"
    return f"{standing}: nothing to requeue"
