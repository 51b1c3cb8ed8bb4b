"""`live-leads`: do what is due within a second, in runs of about an hour that take turns."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Crashed

from db import live_places
from db.database import Database
from db.live_places import PLACES
from flows.orphans import outlive_worker
from flows.reporting import (
    cancelled_state,
    completed_state,
    emit_count_events,
    make_run_name,
    publish_artifact,
)
from flows.run_log import fail_in_one_line
from leadloop.core.errors import LeadloopError
from leadloop.core.summaries import Summary, report_summary
from leadloop.settings import Settings
from tasks.blocks import RunSettings, resolve_settings
from tasks.live import LiveHost, LiveState, PlacesTaken, run_live
from tasks.live_lanes import EndedErrand
from tasks.live_log import OnceAnHour
from tasks.prefect_progress import log_prefect_errors

#: A run waits for its predecessor for as long as that works, and then works for this time, seconds:
#: together less than the two hours after which an automation takes it for stuck.
WORK_S = 55 * 60.0
#: How long a run may take from its start to its place in Postgres.
_START_TIMEOUT = timedelta(minutes=2)
_NAME = "leadloop live {}"
_ACTIVE = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


@flow(name="live-leads", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def live_leads(settings: RunSettings | None = None) -> Summary:
    """Send opt-outs and leads within a second, and bring outcomes back, for about an hour.

    Two such runs are there at a time: one works, the other takes over from it, at its end or when
    it is lost. A third one ends at once.

    Args:
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        The sums of what it has done: `created, rejected, disabled, cancelled, inserted, updated,
        requests`.

    Raises:
        CampaignsFailed: campaigns failed, and nothing was done for any.
    """
    outlive_worker()
    run_id = flow_run.get_id()
    first = resolve_settings(settings)
    deployment_id = UUID(named) if (named := deployment.get_id()) else None
    if deployment_id is not None:
        # Without a database the run fails by itself, with the reason.
        with log_prefect_errors(), suppress(LeadloopError):
            settle_other_runs(first, deployment_id, run_id)
    state = LiveState()
    host = LiveHost(
        log=OnceAnHour(get_run_logger()),
        name=_NAME.format(run_id),
        load_settings=partial(resolve_settings, settings),
        is_cancelled=partial(check_runs, first, deployment_id, run_id),
        work_s=WORK_S,
        on_ended=_emit_events,
        flow_run_id=run_id,
    )
    try:
        run_live(host, state)
    except PlacesTaken as taken:
        get_run_logger().info("%s", taken)
    except TerminationSignal:
        if deployment_id is not None:
            with log_prefect_errors():
                start_successor(deployment_id, run_id)
        raise
    finally:
        summary = state.summary()
        report_summary(summary)
        failures = state.describe_failures()
        publish_artifact("live-leads", summary, page=first.page_url, failures=failures)
    if state.is_cancelled:
        return cancelled_state(summary, failures)
    state.require_progress()
    return completed_state(summary, failures)


def _emit_events(ended: EndedErrand) -> None:
    emit_count_events(ended.errand.campaign.campaign_id, ended.counts)


def settle_other_runs(settings: Settings, deployment_id: UUID, run_id: str | None) -> None:
    """Mark lost runs of a deployment as crashed, and cancel those that are late.

    Prefect takes a run for running until its worker reports otherwise, and a lost machine reports
    nothing. Late runs pile up while no worker is there; each would take a process, and end.
    """
    with get_client(sync_client=True) as client:
        others = _find_established(_read_runs(client, deployment_id, _ACTIVE), run_id)
        _crash_lost(client, others, settings)
        for each in _list_late(client, deployment_id):
            client.set_flow_run_state(
                each.id, Cancelled(message="late; a later run does its work"), force=True
            )


def check_runs(settings: Settings, deployment_id: UUID | None, run_id: str | None) -> bool:
    """Return whether somebody has cancelled a run; mark lost runs if there must be one.

    The worker should end a run that is cancelled, but gives up looking for cancellations once the
    server was away for half a minute, and nobody looks for a run whose worker was killed. And lost
    runs fill the work queue, so that no run starts that would find them.
    """
    if deployment_id is None:
        return False
    with get_client(sync_client=True) as client:
        runs = _read_runs(client, deployment_id, _ACTIVE)
        others = _find_established(runs, run_id)
        if len(others) >= PLACES:
            _crash_lost(client, others, settings)
    return any(str(each.id) == run_id and each.state_type is StateType.CANCELLING for each in runs)


def start_successor(deployment_id: UUID, run_id: str | None) -> None:
    """Start another run, for any worker, in place of one whose machine is being stopped (SIGTERM).

    The other run that is there may be on the same machine, and the schedule's next one may be
    minutes away. None is started if one is due already, nor if this run was cancelled.
    """
    with get_client(sync_client=True) as client:
        if run_id is not None:
            state_type = client.read_flow_run(UUID(run_id)).state_type
            if state_type in (StateType.CANCELLING, StateType.CANCELLED):
                return
        if not _list_late(client, deployment_id):
            client.create_flow_run_from_deployment(deployment_id)


def _find_established(runs: Sequence[FlowRun], run_id: str | None) -> list[FlowRun]:
    """Return the other runs that have had time to take a place in Postgres."""
    started_before = datetime.now(UTC) - _START_TIMEOUT
    return [
        each
        for each in runs
        if str(each.id) != run_id
        and each.state is not None
        and each.state.timestamp < started_before
    ]


def _crash_lost(client: SyncPrefectClient, others: Sequence[FlowRun], settings: Settings) -> None:
    """Mark runs as crashed that Prefect takes for active, and that have no place in Postgres."""
    if not others:
        return
    live_names = _list_live_names(settings)
    for each in others:
        if _NAME.format(each.id) not in live_names:
            client.set_flow_run_state(
                each.id, Crashed(message="its process is gone; a later run found it"), force=True
            )


def _list_live_names(settings: Settings) -> set[str]:
    with (
        Database(settings.require_database_url(), pool_size=1) as database,
        database.transaction() as connection,
    ):
        return {each.name for each in live_places.list_other_sessions(connection)}


def _list_late(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    """Return the runs of a deployment that are due and that no worker has begun."""
    now = datetime.now(UTC)
    scheduled = _read_runs(client, deployment_id, [StateType.SCHEDULED])
    return [
        each for each in scheduled if each.expected_start_time and each.expected_start_time < now
    ]


def _read_runs(
    client: SyncPrefectClient, deployment_id: UUID, states: Sequence[StateType]
) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))),
        )
    )
