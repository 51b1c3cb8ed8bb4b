"""`sync-leads`: the whole loop once, opt-outs first."""

from collections.abc import Callable
from typing import Any

from prefect import flow

from flows.campaigns import CampaignsFailed, Summary
from flows.disable import disable_leads
from flows.poll import poll_outcomes
from flows.push import push_leads
from leadloop.core.errors import RunError, UsageError

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
    summary: dict[str, Any] = {}
    failures: list[str] = []
    for name, stage in _STAGES.items():
        try:
            summary[name] = stage(campaigns=campaigns)
        except UsageError:
            raise
        except CampaignsFailed as error:
            summary[name] = error.summary
            failures.append(f"{name}: {error}")
        except RunError as error:
            failures.append(f"{name}: {error}")
    if failures:
        raise CampaignsFailed("; ".join(failures), summary)
    return summary
