"""`housekeeping`: what need not be kept for ever goes."""

from prefect import flow

from db.housekeeping import AT_ONCE, HISTORY, RAW
from flows.campaigns import every, run_campaigns
from flows.telling import Summary, completed, run_name
from tasks.blocks import RunSettings
from tasks.housekeeping import Housekeeping, tidy_up
from tasks.workplace import opened_without_vendor

COUNTS = (*AT_ONCE, *HISTORY, *RAW)


@flow(name="housekeeping", flow_run_name=run_name, persist_result=False)
def keep_house(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Remove old windows and runs, and what was to be kept for a time only or not at all.

    It needs the database alone.

    Args:
        campaigns: ids of the campaigns; none: all of them, also those that are not enabled.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `forgotten, windows, runs, raw, unreadable, requests`, and under `campaigns` each one's own.
    """
    return completed(
        run_campaigns(
            "housekeeping",
            campaigns,
            settings,
            counts=COUNTS,
            start=Housekeeping,
            step=tidy_up,
            opened=opened_without_vendor,
            choose=every,
        )
    )
