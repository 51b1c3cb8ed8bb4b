"""`fan-out`: every campaign gets a run of its own, which can be seen and retried by itself."""

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment

from flows.campaigns import chosen
from flows.telling import Summary, completed, run_name
from tasks import workplace
from tasks.blocks import RunSettings, settled

DEPLOYMENT = "sync-leads/default"
_UNFINISHED = [
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
]


@flow(name="fan-out", flow_run_name=run_name, persist_result=False)
def fan_out(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Start a run of `sync-leads/default` for each campaign, and do not wait for it.

    A campaign whose last such run has not ended gets none: after downtime nothing piles up.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for these runs alone, and the name of the blocks that hold others.

    Returns:
        How many runs were `started`, and for how many campaigns one is `unfinished`.
    """
    with workplace.opened(settled(settings)) as place:
        ids = [campaign.campaign_id for campaign in chosen(place, campaigns)]
    unfinished = {campaign_id for campaign_id in ids if _is_unfinished(campaign_id)}
    told = settings.model_dump(exclude_none=True) if settings else None
    for campaign_id in ids:
        if campaign_id not in unfinished:
            run_deployment(
                DEPLOYMENT,
                parameters={"campaigns": [campaign_id], "settings": told},
                tags=[_tag(campaign_id)],
                timeout=0,
                # Else its state would hang on ours, and a retry of it would be refused.
                as_subflow=False,
            )
    return completed({"started": len(ids) - len(unfinished), "unfinished": len(unfinished)})


def _tag(campaign_id: str) -> str:
    return f"campaign:{campaign_id}"


def _is_unfinished(campaign_id: str) -> bool:
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED))
    tags = FlowRunFilterTags(all_=[_tag(campaign_id)])
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=state, tags=tags), limit=1
        )
    return bool(found)
