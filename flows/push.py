"""`push-leads`: new leads in Postgres are created at the vendor."""

from collections.abc import Callable

from prefect import flow

from flows.campaign_runner import run_campaigns
from flows.reporting import Summary, completed_state, make_run_name
from tasks.blocks import RunSettings
from tasks.context import CampaignRun
from tasks.push import PushJob, push_batches
from tasks.source_sync import SourceSync, sync_from_source

# Batches a task: half a minute's at the vendor's budget. Between two tasks nothing is sent for some
# hundredths of a second, a tenth of a push to a vendor without latency at 20 batches a task.
_LEAST = 60
COUNTS = ("created", "rejected", "in_doubt", "cancelled", "from_source", "held_back")


@flow(name="push-leads", flow_run_name=make_run_name, persist_result=False)
def push_leads(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Create new leads at the vendor, in batches, and settle those in doubt.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `created, rejected, in_doubt, cancelled, from_source, held_back, requests`, and under
        `campaigns` each one's own.
    """
    return completed_state(
        run_campaigns(
            "push-leads",
            campaigns,
            settings,
            counts=COUNTS,
            start=_begin,
            step=push_batches,
            least=_LEAST,
            finish=PushJob.finish,
        )
    )


def _begin(run: CampaignRun) -> PushJob:
    """The campaign's push, once its leads are those of its source, if it has one."""
    take: Callable[[SourceSync], int] = sync_from_source
    return PushJob(run, from_source=0 if run.campaign.source is None else take(SourceSync(run)))
