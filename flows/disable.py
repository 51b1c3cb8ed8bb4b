"""`disable-leads`: send opt-outs to the vendor."""

from prefect import flow

from flows.campaign_runner import run_campaigns
from flows.reporting import completed_state, make_run_name
from flows.run_log import fail_in_one_line
from leadloop.core.summaries import Summary
from tasks.blocks import RunSettings
from tasks.disable import DISABLE


@flow(name="disable-leads", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def disable_leads(
    campaigns: list[str] | None = None, settings: RunSettings | None = None
) -> Summary:
    """Cancel the leads of people who opted out, or have the vendor disable them.

    New opt-outs are taken from the opt-out sources of campaigns that name one.

    Args:
        campaigns: ids of the campaigns; none: every enabled campaign, and every disabled one with
            opt-outs to send or an opt-out source.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `disabled, cancelled, failed, set_aside, in_doubt, from_opt_out_source, requests`, and under
        `campaigns` each one's own.
    """
    return completed_state(run_campaigns(DISABLE, campaigns, settings))
