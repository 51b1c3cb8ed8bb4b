"""`housekeeping`: what need not be kept for ever goes."""

from prefect import flow

from db.housekeeping import HISTORY, IMMEDIATE, RAW
from flows.campaign_runner import every, run_campaigns
from flows.reporting import Summary, completed_state, make_run_name
from tasks.blocks import RunSettings
from tasks.context import open_database_context
from tasks.housekeeping import HousekeepingJob, tidy_up

COUNTS = (*IMMEDIATE, *HISTORY, *RAW)


@flow(name="housekeeping", flow_run_name=make_run_name, persist_result=False)
def keep_house(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Remove old windows and runs, and what was to be kept for a time only or not at all.

    It needs the database alone.

    Args:
        campaigns: ids of the campaigns; none: all of them, also those that are not enabled.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `forgotten, windows, runs, raw, unreadable, requests`, and under `campaigns` each one's own.
    """
    return completed_state(
        run_campaigns(
            "housekeeping",
            campaigns,
            settings,
            counts=COUNTS,
            start=HousekeepingJob,
            step=tidy_up,
            opened=open_database_context,
            choose=every,
        )
    )
