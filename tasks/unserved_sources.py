"""Opt-out sources of campaigns whose account cannot be used here, or is paused.

A phone number that such a source names is suppressed in the campaigns of all accounts. To read it
takes the database alone, so no number waits for the login of its campaign, or for its vendor.
"""

from collections.abc import Set
from functools import partial

from db import campaigns
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError
from tasks.accounts import find_unserved
from tasks.context import ApiContext, CampaignRun, DatabaseContext, translate_unexpected
from tasks.opt_out_sync import take_opt_outs


def read_unserved_sources(context: ApiContext, paused: Set[str]) -> None:
    """Take the opt-outs of all campaigns that are left alone; send nothing, and write no run.

    A row of a run would stand for disables that nobody sends. A source that cannot be read is
    logged, and becomes a problem as any other.
    """
    selected = DatabaseContext.select_campaigns(context, None, campaigns.select_for_disable)
    left_alone = paused | find_unserved(context.settings, selected).keys()
    for campaign in selected:
        if campaign.account in left_alone and campaign.opt_out_source is not None:
            context.host.run_step(
                "read-opt-outs", [campaign.campaign_id], partial(_read_source, context, campaign)
            )


def _read_source(context: ApiContext, campaign: Campaign) -> None:
    # Its number is never used: nothing is claimed or finished.
    run = CampaignRun(run_id=0, campaign=campaign, context=context)
    try:
        with translate_unexpected(context.log), context.database.translate_errors():
            if taken := take_opt_outs(run):
                context.log.info(
                    "campaign %s: opt-outs taken from its opt-out source, which are sent once its"
                    " account can be used: %d",
                    *(campaign.campaign_id, taken),
                )
    except LeadloopError as error:
        run.warn("%s", error)
