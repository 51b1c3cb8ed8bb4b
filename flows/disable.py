"""`disable-leads`: people who opted out are called no more."""

from prefect import flow

from flows.campaigns import Summary, run_campaigns
from tasks.disable import Disable, disable_batches

COUNTS = ("disabled", "cancelled", "failed")


@flow(name="disable-leads", persist_result=False)
def disable_leads(campaigns: list[str] | None = None) -> Summary:
    """Cancel the leads of people who opted out, or have the vendor disable them.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.

    Returns:
        `disabled, cancelled, failed, requests`, and under `campaigns` each one's own.
    """
    return run_campaigns(
        "disable-leads", campaigns, counts=COUNTS, start=Disable, step=disable_batches
    )
