"""`fan-out`: a separate run of `sync-leads` for each campaign, to be seen and retried alone."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger

from db import runs, watermarks
from flows.campaign_runner import prefect_host
from flows.reporting import completed_state, make_run_name
from flows.run_log import fail_in_one_line
from leadloop.core.summaries import Summary
from leadloop.core.summary_text import name_campaigns
from tasks.blocks import RunSettings, resolve_settings
from tasks.context import ApiContext, open_api_context

DEPLOYMENT = "sync-leads/default"
#: Not started yet: a worker of their queue takes them when it is back.
_WAITING = [StateType.SCHEDULED, StateType.PAUSED]
#: Running as far as Prefect knows, also where their machine is lost.
_AT_WORK = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
#: How long a run may take from its worker to its row in Postgres, image pull included.
_START_TIMEOUT = timedelta(minutes=10)


@flow(name="fan-out", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def fan_out(campaigns: list[str] | None = None, settings: RunSettings | None = None) -> Summary:
    """Start a run of `sync-leads/default` for each campaign, without waiting for it.

    A campaign whose last such run has not ended gets none, so that runs do not pile up after
    downtime. A run whose process is gone has ended, whatever Prefect shows. A run that waits in
    another work queue than the deployment's does not count.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        settings: settings for these runs alone, and the name of the blocks that hold others.

    Returns:
        How many runs were `started`, and for how many campaigns one is `unfinished`.
    """
    with open_api_context(resolve_settings(settings), prefect_host()) as context:
        ids = [campaign.campaign_id for campaign in context.select_campaigns(campaigns)]
        due = [campaign_id for campaign_id in ids if not _has_active_run(context, campaign_id)]
    run_settings = settings.model_dump(exclude_none=True) if settings else None
    for campaign_id in due:
        run_deployment(
            DEPLOYMENT,
            parameters={"campaigns": [campaign_id], "settings": run_settings},
            tags=[_campaign_tag(campaign_id)],
            timeout=0,
            # As a subflow its state would depend on this run, and a retry would be refused.
            as_subflow=False,
        )
    get_run_logger().info(
        "runs of sync-leads started for %s; campaigns whose last run has not ended: %d",
        *(name_campaigns(due) if due else "no campaign", len(ids) - len(due)),
    )
    return completed_state({"started": len(due), "unfinished": len(ids) - len(due)})


def _campaign_tag(campaign_id: str) -> str:
    return f"campaign:{campaign_id}"


def _has_active_run(context: ApiContext, campaign_id: str) -> bool:
    """Return whether a run of this campaign waits, starts or works; Postgres knows the last."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        waiting = _read_runs(client, deployment.id, campaign_id, _WAITING)
        at_work = _read_runs(client, deployment.id, campaign_id, _AT_WORK)
    # After a change of the work pool, runs in the old one may wait indefinitely.
    if any(run.work_queue_id == deployment.work_queue_id for run in waiting):
        return True
    with context.database.transaction() as connection:
        now = watermarks.get_database_time(connection)
        if any(run.state and now - run.state.timestamp < _START_TIMEOUT for run in at_work):
            return True  # it may not have its row in Postgres yet
        return bool(runs.find_live_flow_runs(connection, [str(run.id) for run in at_work]))


def _read_runs(
    client: SyncPrefectClient, deployment: UUID, campaign_id: str, states: Sequence[StateType]
) -> list[FlowRun]:
    """Return the campaign's runs of the deployment in these states; of very many, the latest."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
            tags=FlowRunFilterTags(all_=[_campaign_tag(campaign_id)]),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )
