"""`sync-leads`: the whole loop once, opt-outs first."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from prefect import flow
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from db import campaigns as campaign_table
from flows.campaign_runner import prefect_host
from flows.disable import disable_leads
from flows.poll import poll_outcomes
from flows.push import push_leads
from flows.reporting import (
    call_flow,
    completed_state,
    make_run_name,
    publish_artifact,
    run_as_stage,
)
from flows.run_log import fail_in_one_line
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import CampaignDeleted, LeadloopError, RunError, UsageError
from leadloop.core.summaries import Summary, collect_summary, report_summary
from leadloop.core.summary_text import format_summary, select_counts
from tasks.accounts import group_by_account, report_once
from tasks.blocks import RunSettings, resolve_settings
from tasks.context import (
    ApiContext,
    cover_campaigns,
    finish_run,
    open_api_context,
    start_run,
    translate_unexpected,
)
from tasks.disable import DISABLE
from tasks.jobs import CampaignsFailed, JobSpec, find_paused_accounts, sum_counts
from tasks.poll import POLL
from tasks.push import PUSH

_STAGES: dict[str, tuple[Callable[..., Summary], JobSpec[ApiContext]]] = {
    "disable": (disable_leads, DISABLE),
    "push": (push_leads, PUSH),
    "poll": (poll_outcomes, POLL),
}


@flow(name="sync-leads", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def sync_leads(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Disable, then push, then poll. The next stage also runs where one has failed.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        The three summaries under `disable`, `push` and `poll`.
    """
    failures: list[str] = []
    summary: Summary = {}
    with report_once(), open_api_context(resolve_settings(settings), prefect_host()) as context:
        selected = _select_campaigns(context, campaigns)
        record = _record_named if campaigns else _record_all
        try:
            with record(context, selected, summary, failures):
                # This run's heartbeat covers its stages, which live and die with its process. A
                # heartbeat for each stage would end it a second late.
                with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                    for stage in _STAGES:
                        existing = _find_existing(context, selected, failures)
                        ids: list[str] | None = [each.campaign_id for each in existing]
                        if not campaigns and (stage == "disable" or _are_enabled(existing)):
                            ids = None  # the stage selects its campaigns itself
                        _run_stage(stage, ids, settings, summary, failures)
                if failures:
                    raise CampaignsFailed(failures, summary)
        finally:
            report_summary(summary)
            publish_artifact("sync-leads", summary, page=context.settings.page_url)
    return completed_state(summary)


def _select_campaigns(context: ApiContext, ids: Sequence[str] | None) -> Sequence[Campaign]:
    """Return the campaigns of the run; none if there are only opt-outs of disabled ones.

    Raises:
        UsageError: a campaign is unknown, or there is nothing to do for any.
    """
    try:
        return context.select_campaigns(ids)
    except UsageError:
        if ids or not context.select_campaigns(None, campaign_table.select_for_disable):
            raise
        return []


@contextmanager
def _record_named(
    context: ApiContext, selected: Sequence[Campaign], summary: Summary, failures: list[str]
) -> Iterator[None]:
    """Write a row for each campaign; the end of the block writes how its run ended.

    Raises:
        CampaignsFailed: Postgres refused the end of a run.
    """
    runs = []
    for campaign in selected:
        with _collect_failure(context, campaign, failures):
            runs.append(start_run(context, "sync-leads", campaign))
    error: LeadloopError | None = RunError("the run was stopped before it was done")
    try:
        yield
        error = None
    except CampaignsFailed as failure:
        error = failure
        raise
    finally:
        for run in runs:
            counts = {
                name: select_counts(stage["campaigns"][run.campaign.campaign_id])
                for name, stage in summary.items()
                if run.campaign.campaign_id in stage["campaigns"]
            }
            with _collect_failure(context, run.campaign, failures):
                finish_run(run, counts, error)
    if failures:
        raise CampaignsFailed(failures, summary)


@contextmanager
def _record_all(
    context: ApiContext, selected: Sequence[Campaign], summary: Summary, _: list[str]
) -> Iterator[None]:
    """Write one row for all campaigns of an account; the end of the block writes how it ended."""
    accounts = list(group_by_account(selected)) or [context.account_name]
    paused = find_paused_accounts(context, selected)
    with ExitStack() as stack:
        rows = [
            stack.enter_context(cover_campaigns(context, "sync-leads", account))
            for account in accounts
        ]
        try:
            yield
        finally:
            for account, row in zip(accounts, rows, strict=True):
                row.counts.update(_count_stages(summary, selected, account))
                # The stages leave it out: this row must not stand for their work.
                row.error = row.error or paused.get(account)


def _count_stages(
    summary: Summary, selected: Sequence[Campaign], account: str
) -> dict[str, dict[str, int]]:
    """Return the counts of each stage; of several accounts, those of one."""
    others = {each.campaign_id for each in selected if each.account != account}
    return {
        name: select_counts(stage)
        if not others
        else sum_counts(
            [counts for key, counts in stage["campaigns"].items() if key not in others],
            list(select_counts(stage)),
        )
        for name, stage in summary.items()
    }


def _find_existing(
    context: ApiContext, selected: Sequence[Campaign], failures: list[str]
) -> list[Campaign]:
    """Return the campaigns whose row is still there: a stage refuses to start with an unknown one.

    A row that was deleted since the start becomes a failure of its campaign.
    """
    ids = [campaign.campaign_id for campaign in selected]
    rules = context.settings.campaign_rules()
    existing = context.database.retry(
        lambda c: campaign_table.find_campaigns(c, ids, rules), single_statement=True
    )
    found = {campaign.campaign_id for campaign in existing}
    for campaign in selected:
        if campaign.campaign_id not in found:
            with _collect_failure(context, campaign, failures):
                raise CampaignDeleted
    return existing


def _are_enabled(existing: Sequence[Campaign]) -> bool:
    return any(campaign.enabled for campaign in existing)


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
    with collect_summary() as collected, run_as_stage():
        try:
            call_flow(stage, campaigns=ids, settings=settings)
        except RunError as error:
            reasons = error.reasons if isinstance(error, CampaignsFailed) else [error]
            failures.extend(f"{name}: {reason}" for reason in reasons)
        finally:
            if collected.summary:
                summary[name] = collected.summary
                get_run_logger().info("%s: %s", name, format_summary(collected.summary))
