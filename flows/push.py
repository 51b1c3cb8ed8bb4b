"""`push-leads`: new leads in Postgres are created at the vendor."""

from prefect import flow

from flows.campaigns import run_campaigns
from flows.telling import Summary, completed, run_name
from tasks.blocks import RunSettings
from tasks.push import Push, push_batches

COUNTS = ("created", "rejected", "in_doubt", "cancelled")


@flow(name="push-leads", flow_run_name=run_name, persist_result=False)
def push_leads(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Create new leads at the vendor, in batches, and settle those in doubt.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `created, rejected, in_doubt, cancelled, requests`, and under `campaigns` each one's own.
    """
    return completed(
        run_campaigns(
            "push-leads", campaigns, settings, counts=COUNTS, start=Push, step=push_batches
        )
    )
