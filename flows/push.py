"""`push-leads`: create new leads at the vendor."""

from functools import partial

from prefect import flow

from flows.campaign_runner import run_campaigns
from flows.reporting import completed_state, make_run_name
from flows.run_log import fail_in_one_line
from leadloop.core.summaries import Summary
from tasks.blocks import RunSettings
from tasks.push import PUSH, PushJob, add_rejections, limit_push


@flow(name="push-leads", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def push_leads(
    campaigns: list[str] | None = None,
    settings: RunSettings | None = None,
    limit: int | None = None,
) -> Summary:
    """Create new leads at the vendor, in batches, and resolve leads in doubt.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for this run alone, and the name of the blocks that hold others.
        limit: the most leads that this run sends, over all its campaigns; none: all.

    Returns:
        `created, rejected, in_doubt, cancelled, from_source, held_back, requests`, and under
        `campaigns` each one's own, with `rejections`: what was rejected, by reason.

    Raises:
        UsageError: `limit` is below 1.
    """
    jobs: list[PushJob] = []
    return completed_state(
        run_campaigns(
            PUSH if limit is None else limit_push(limit),
            campaigns,
            settings,
            on_started=jobs.extend,
            on_summary=partial(add_rejections, jobs=jobs),
        )
    )
