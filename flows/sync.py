"""`sync-leads`: the whole loop once, opt-outs first."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from db import campaigns as campaign_table
from flows.campaign_runner import prefect_host
from flows.disable import disable_leads
from flows.poll import poll_outcomes
from flows.push import push_leads
from flows.reporting import call_flow, completed_state, make_run_name, publish_artifacts
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError, UsageError
from leadloop.core.summaries import Summary, collect_summary, report_summary
from tasks.blocks import RunSettings, resolve_settings
from tasks.context import (
    ApiContext,
    CampaignRun,
    finish_run,
    open_api_context,
    start_run,
    translate_unexpected,
)
from tasks.disable import DISABLE
from tasks.jobs import CampaignsFailed, JobSpec
from tasks.poll import POLL
from tasks.push import PUSH

_STAGES: dict[str, tuple[Callable[..., Summary], JobSpec[ApiContext]]] = {
    "disable": (disable_leads, DISABLE),
    "push": (push_leads, PUSH),
    "poll": (poll_outcomes, POLL),
}


@flow(name="sync-leads", flow_run_name=make_run_name, persist_result=False)
def sync_leads(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Disable, then push, then poll. The next stage also runs where one has failed.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        The three summaries under `disable`, `push` and `poll`.
    """
    with open_api_context(resolve_settings(settings), prefect_host()) as context:
        failures: list[str] = []
        runs = _start_runs(context, campaigns, failures)
        summary: Summary = {}
        error: BaseException | None = RunError("the run was stopped before it was done")
        try:
            ids = [run.campaign.campaign_id for run in runs]
            # This run's heartbeat covers its stages, which live and die with its process. A
            # heartbeat for each stage would end it a second late.
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                for stage in _STAGES:
                    # Without named campaigns, disable also takes those that are not enabled.
                    takes_all = stage == "disable" and not campaigns
                    ids = _select_existing(runs, ids, failures)
                    _run_stage(stage, None if takes_all else ids, settings, summary, failures)
            error = CampaignsFailed(failures, summary) if failures else None
        finally:
            for run in runs:
                campaign_id = run.campaign.campaign_id
                counts = {
                    name: stage["campaigns"][campaign_id]
                    for name, stage in summary.items()
                    if campaign_id in stage["campaigns"]
                }
                with _collect_failure(context, run.campaign, failures):
                    finish_run(run, counts, error)
            report_summary(summary)
            publish_artifacts("sync-leads", summary, page=context.settings.page_url)
    if failures:
        raise CampaignsFailed(failures, summary)
    return completed_state(summary)


def _start_runs(
    context: ApiContext, ids: Sequence[str] | None, failures: list[str]
) -> list[CampaignRun[ApiContext]]:
    """Write the row of each campaign's run.

    Raises:
        UsageError: a campaign is unknown, or there is nothing to do for any.
    """
    try:
        selected = context.select_campaigns(ids)
    except UsageError:
        if ids or not context.select_campaigns(None, campaign_table.select_for_disable):
            raise
        selected = []  # there are only opt-outs to send
    runs = []
    for campaign in selected:
        with _collect_failure(context, campaign, failures):
            runs.append(start_run(context, "sync-leads", campaign))
    return runs


def _select_existing(
    runs: Sequence[CampaignRun[ApiContext]], ids: Sequence[str], failures: list[str]
) -> list[str]:
    """Return the campaigns whose row is still there: a stage refuses to start with an unknown one.

    A row that was deleted since the last stage becomes a failure of its campaign.
    """
    existing = []
    for run in runs:
        if run.campaign.campaign_id in ids:
            with _collect_failure(run.context, run.campaign, failures):
                existing.append(run.reload().campaign_id)
    return existing


@contextmanager
def _collect_failure(
    context: ApiContext, campaign: Campaign, failures: list[str]
) -> Iterator[None]:
    """Collect an error of the block, so that other campaigns continue; a stop passes."""
    try:
        with translate_unexpected(context.log), context.database.translate_errors():
            yield
    except RunError as error:
        line = f"campaign {campaign.campaign_id}: {error}"
        if not any(failure.endswith(line) for failure in failures):
            failures.append(line)


def _run_stage(
    name: str,
    ids: Sequence[str] | None,
    settings: RunSettings | None,
    summary: Summary,
    failures: list[str],
) -> None:
    """Run a stage as a subflow, and put what it did into `summary`.

    Args:
        name: the stage.
        ids: its campaigns; None: those that the stage selects itself.
        settings: settings for this run alone.
        summary: gets the stage's summary, also where the stage fails or is stopped.
        failures: gets the reasons of a stage that fails.
    """
    stage, spec = _STAGES[name]
    if ids is not None and not ids:
        summary[name] = {**dict.fromkeys([*spec.counts, "requests"], 0), "campaigns": {}}
        return
    with collect_summary() as collected:
        try:
            call_flow(stage, campaigns=ids, settings=settings)
        except RunError as error:
            reasons = error.reasons if isinstance(error, CampaignsFailed) else [error]
            failures.extend(f"{name}: {reason}" for reason in reasons)
        finally:
            if collected.summary:
                summary[name] = collected.summary
