"""`housekeeping`: purge rows that need not be kept indefinitely."""

from prefect import flow

from flows.campaign_runner import run_campaigns
from flows.reporting import completed_state, make_run_name
from flows.run_log import fail_in_one_line
from leadloop.core.summaries import Summary
from tasks.blocks import RunSettings
from tasks.housekeeping import HOUSEKEEPING


@flow(name="housekeeping", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def run_housekeeping(
    campaigns: list[str] | None = None, settings: RunSettings | None = None
) -> Summary:
    """Purge old windows and runs, and rows whose retention has ended. Needs only the database.

    Args:
        campaigns: ids of the campaigns; none: all of them, also those that are not enabled.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `forgotten, windows, runs, latencies, hours, raw, answers, unreadable, requests`, and
        under `campaigns` each one's own.
    """
    return completed_state(run_campaigns(HOUSEKEEPING, campaigns, settings))
