"""`sync-leads`: the whole loop once, opt-outs first."""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import flow

from flows.campaigns import CampaignsFailed, Summary, chosen
from flows.disable import disable_leads
from flows.poll import poll_outcomes
from flows.push import push_leads
from leadloop.core.errors import RunError, UsageError
from leadloop.settings import Settings
from tasks import workplace

_STAGES: dict[str, Callable[..., Summary]] = {
    "disable": disable_leads,
    "push": push_leads,
    "poll": poll_outcomes,
}


@flow(name="sync-leads", persist_result=False)
def sync_leads(campaigns: list[str] | None = None) -> Summary:
    """Disable, then push, then poll. A stage that fails does not keep the next from its work.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.

    Returns:
        The three summaries under `disable`, `push` and `poll`.
    """
    with workplace.opened(Settings.load()) as place:
        found = chosen(place, campaigns)
        ids = [campaign.campaign_id for campaign in found]
        runs = [workplace.begin(place, "sync-leads", campaign) for campaign in found]
        summary: dict[str, Any] = {}
        error: BaseException | None = RunError("the run was stopped before it was done")
        try:
            error = _do_stages(ids, summary)
        finally:
            for run in runs:
                workplace.end(run, _counts_of(summary, run.campaign.campaign_id), error)
    if error is not None:
        raise error
    return summary


def _do_stages(ids: Sequence[str], summary: dict[str, Any]) -> CampaignsFailed | None:
    """Run the stages as flows of their own; what they did goes into `summary`."""
    failures: list[str] = []
    for name, stage in _STAGES.items():
        try:
            summary[name] = stage(campaigns=list(ids))
        except UsageError:
            raise
        except CampaignsFailed as error:
            summary[name] = error.summary
            failures.append(f"{name}: {error}")
        except RunError as error:
            failures.append(f"{name}: {error}")
    return CampaignsFailed("; ".join(failures), summary) if failures else None


def _counts_of(summary: Summary, campaign_id: str) -> dict[str, Any]:
    return {name: part["campaigns"][campaign_id] for name, part in summary.items()}
