"""`sync-leads`: the whole loop once, opt-outs first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prefect import flow
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows import disable, poll, push
from flows.campaign_runner import CampaignsFailed, chosen, to_disable, with_summary
from flows.disable import disable_leads
from flows.poll import poll_outcomes
from flows.push import push_leads
from flows.reporting import Summary, call_flow, completed_state, make_run_name, publish_artifacts
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError, UsageError
from tasks import context
from tasks.blocks import RunSettings, resolve_settings
from tasks.context import CampaignRun, RunContext

_STAGES: dict[str, Callable[..., Summary]] = {
    "disable": disable_leads,
    "push": push_leads,
    "poll": poll_outcomes,
}
_COUNTS = {"disable": disable.COUNTS, "push": push.COUNTS, "poll": poll.COUNTS}


@flow(name="sync-leads", flow_run_name=make_run_name, persist_result=False)
def sync_leads(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Disable, then push, then poll. A stage that fails does not keep the next from its work.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        The three summaries under `disable`, `push` and `poll`.
    """
    with context.open_api_context(resolve_settings(settings)) as place:
        failures: list[str] = []
        runs = [
            run
            for campaign in _chosen(place, campaigns)
            if (run := _begin(place, campaign, failures))
        ]
        summary: Summary = {}
        error: BaseException | None = RunError("the run was stopped before it was done")
        try:
            ids = [run.campaign.campaign_id for run in runs]
            # The whole run's heartbeat is theirs too: they live and die with its process, and each
            # one of their own would end a stage a second late.
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
                # Named none, the disable has the campaigns too that are not enabled.
                stage_ids = {"disable": ids if campaigns else None}
                _do_stages(ids, stage_ids, settings, summary, failures)
            error = CampaignsFailed(failures, summary) if failures else None
        except BaseException as stop:
            raise with_summary(stop, summary) from None
        finally:
            for run in runs:
                with _collect_failure(run.campaign, failures):
                    context.finish_run(run, _counts_of(summary, run.campaign.campaign_id), error)
            publish_artifacts("sync-leads", summary, page=place.settings.page_url)
    if failures:
        raise CampaignsFailed(failures, summary)
    return completed_state(summary)


def _chosen(place: RunContext, ids: Sequence[str] | None) -> list[Campaign]:
    """Return the campaigns of the whole loop; none of a table where only opt-outs are to be sent.

    Raises:
        UsageError: a campaign is unknown, or there is nothing to do for any.
    """
    try:
        return chosen(place, ids)
    except UsageError:
        if ids or not to_disable(place, None):
            raise
        return []


def _begin(place: RunContext, campaign: Campaign, failures: list[str]) -> CampaignRun | None:
    with _collect_failure(campaign, failures), place.database.translate_errors():
        return context.start_run(place, "sync-leads", campaign)
    return None


@contextmanager
def _collect_failure(campaign: Campaign, failures: list[str]) -> Iterator[None]:
    """An error in the block is told, and is no other campaign's."""
    try:
        yield
    except RunError as error:
        failures.append(f"campaign {campaign.campaign_id}: {error}")


def _do_stages(
    ids: Sequence[str],
    stage_ids: Mapping[str, Sequence[str] | None],
    settings: RunSettings | None,
    summary: Summary,
    failures: list[str],
) -> None:
    """Run the stages as flows of their own; what they did goes into `summary`.

    A stage whose campaigns `stage_ids` does not name takes `ids`, and has nothing to do where they
    are none.
    """
    for name, stage in _STAGES.items():
        chosen_ids = stage_ids.get(name, ids)
        if chosen_ids is not None and not chosen_ids:
            summary[name] = {**dict.fromkeys([*_COUNTS[name], "requests"], 0), "campaigns": {}}
            continue
        try:
            summary[name] = call_flow(stage, campaigns=chosen_ids, settings=settings)
        except UsageError:
            raise
        except RunError as error:
            reasons = error.reasons if isinstance(error, CampaignsFailed) else [error]
            failures.extend(f"{name}: {reason}" for reason in reasons)
            _keep(summary, name, error)
        except BaseException as error:
            _keep(summary, name, error)
            raise


def _keep(summary: Summary, stage: str, error: BaseException) -> None:
    done = getattr(error, "summary", None)
    if done is not None:
        summary[stage] = done


def _counts_of(summary: Summary, campaign_id: str) -> dict[str, Any]:
    return {
        name: part["campaigns"][campaign_id]
        for name, part in summary.items()
        if campaign_id in part["campaigns"]
    }
