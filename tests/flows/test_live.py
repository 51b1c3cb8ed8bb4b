"""`live-leads`: Prefect runs that take turns. What they do: tests/resilience/test_live.py."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling, Pending, Running, Scheduled

from db import live_places
from db.database import Database
from db.live_places import PlaceConnection
from flows import live
from flows.live import live_leads, settle_other_runs
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks import live as live_loop
from tests import factories, sql
from tests.prefect_runs import read_artifacts, run_flow

pytestmark = pytest.mark.usefixtures("work_pools", "environment")


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[UUID]:
    """`live-leads/default`, gone with its runs after the test."""
    made = client.create_deployment(client.create_flow(live_leads), "default")
    yield made
    client.delete_deployment(made)


def take_place(stack: ExitStack, database: Database, name: str) -> None:
    """Take a place, as a live run of this name does, until the stack is closed."""
    place = PlaceConnection(stack.enter_context(database.dedicated()), name)
    assert place.read(live_places.take_place) is not None


def read_plain(run: FlowRun) -> str:
    """Return the text of a run's artifact without Markdown's escapes."""
    return str(read_artifacts(run)["markdown"].data).replace("\\", "")


def state_of(client: SyncPrefectClient, run: UUID) -> StateType | None:
    """What Prefect takes a run for."""
    return client.read_flow_run(run).state_type


def test_a_third_run_ends_at_once(database: Database, prefect: str) -> None:
    """Completed: two are there, and that is all that it is for."""
    factories.add_campaign(database)
    with ExitStack() as stack:
        for name in ("one", "two"):
            take_place(stack, database, name)
        state, _ = run_flow(live_leads)
    assert state.is_completed()
    assert state.message == "nothing to do"


def test_a_run_that_ends_shows_its_counts(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its hour, with a successor waiting: in its state and in an artifact."""
    monkeypatch.setattr(live, "WORK_S", 0.0)
    monkeypatch.setattr(live_loop, "_TIMED_LOOK_S", 2.0)
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    with ExitStack() as stack:
        take_place(stack, database, "successor")
        state, run = run_flow(live_leads)
    assert state.is_completed(), state.message
    assert state.message is not None
    assert "created 1" in state.message
    assert "| **all** | 1 |" in read_artifacts(run)["markdown"].data


def test_a_run_that_got_nothing_done_fails(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message and its artifact state why, and what to do; the counts are 0."""
    monkeypatch.setattr(live, "WORK_S", 0.0)
    monkeypatch.setattr(live_loop, "_TIMED_LOOK_S", 2.0)
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "wrong")
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    with ExitStack() as stack:
        take_place(stack, database, "successor")
        state, run = run_flow(live_leads)
    assert state.is_failed()
    for text in (str(state.message), read_plain(run)):
        assert "campaign C1: " in text
        assert "the login is not accepted: check LEADLOOP_API_TOKEN" in text


def test_a_run_that_got_something_done_completes_with_its_failures(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in its message and its artifact."""
    monkeypatch.setattr(live, "WORK_S", 0.0)
    monkeypatch.setattr(live_loop, "_TIMED_LOOK_S", 2.0)
    for name in ("C1", "C2"):
        factories.add_campaign(database, name)
    factories.add_leads(database, "a")
    sql.execute(
        database, "UPDATE leadloop.campaigns SET source = 'crm.missing' WHERE campaign_id = 'C2'"
    )
    with ExitStack() as stack:
        take_place(stack, database, "successor")
        state, run = run_flow(live_leads)
    assert state.is_completed()
    for text in (str(state.message), read_plain(run)):
        assert "created 1" in text
        assert "campaign C2: the campaign's source 'crm.missing' is no table" in text


def test_a_cancelled_run_shows_its_counts(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as cancelled by itself: nobody else may be left who would end it."""
    created = "SELECT count(*) = 1 FROM leadloop.leads WHERE status = 'created'"
    monkeypatch.setattr(live, "check_runs", lambda *_: sql.fetch_value(database, created))
    monkeypatch.setattr(live_loop, "_CHECK_S", 0.5)
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    state, _ = run_flow(live_leads)
    assert state.is_cancelled()
    assert state.message is not None
    assert "created 1" in state.message


def test_a_run_finds_that_it_is_cancelled(
    client: SyncPrefectClient, deployment: UUID, database: Database
) -> None:
    """And no other one that is; a run without a deployment has no worker that must end it."""
    itself, other = (client.create_flow_run_from_deployment(deployment).id for _ in range(2))
    client.set_flow_run_state(itself, Running(), force=True)
    client.set_flow_run_state(other, Cancelling(), force=True)
    settings = Settings.load()
    assert not live.check_runs(settings, deployment, str(itself))
    client.set_flow_run_state(itself, Cancelling(), force=True)
    assert live.check_runs(settings, deployment, str(itself))
    assert not live.check_runs(settings, None, str(itself))


def test_a_run_at_work_finds_lost_ones(
    database: Database,
    client: SyncPrefectClient,
    deployment: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They fill the work queue, so that none may start any more that would find them."""
    monkeypatch.setattr(live, "_START_TIMEOUT", timedelta(0))
    lost, alive, itself = (client.create_flow_run_from_deployment(deployment).id for _ in range(3))
    for run in (lost, alive, itself):
        client.set_flow_run_state(run, Running(), force=True)
    with ExitStack() as stack:
        take_place(stack, database, f"leadloop live {alive}")
        assert not live.check_runs(Settings.load(), deployment, str(itself))
    assert [state_of(client, run) for run in (lost, alive, itself)] == [
        StateType.CRASHED,
        StateType.RUNNING,
        StateType.RUNNING,
    ]


def test_runs_that_are_lost_are_crashed(
    database: Database,
    client: SyncPrefectClient,
    deployment: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those without a place in Postgres, but for those that have just begun, and the run itself."""
    lost, alive, itself = (client.create_flow_run_from_deployment(deployment).id for _ in range(3))
    for run in (lost, alive, itself):
        client.set_flow_run_state(run, Running(), force=True)
    settle_other_runs(Settings.load(), deployment, str(itself))
    assert state_of(client, lost) is StateType.RUNNING, "it has just begun"
    monkeypatch.setattr(live, "_START_TIMEOUT", timedelta(0))
    begun = client.create_flow_run_from_deployment(deployment).id
    client.set_flow_run_state(begun, Pending(), force=True)
    with ExitStack() as stack:
        take_place(stack, database, f"leadloop live {alive}")
        settle_other_runs(Settings.load(), deployment, str(itself))
    assert [state_of(client, run) for run in (lost, begun, alive, itself)] == [
        StateType.CRASHED,
        StateType.CRASHED,
        StateType.RUNNING,
        StateType.RUNNING,
    ]


def test_runs_that_are_late_are_cancelled(
    client: SyncPrefectClient, deployment: UUID, database: Database
) -> None:
    """They pile up while no worker is there; those to come stay."""
    now = datetime.now(UTC)
    late, next_one = (
        client.create_flow_run_from_deployment(
            deployment, state=Scheduled(scheduled_time=now + timedelta(minutes=minutes))
        ).id
        for minutes in (-30, 5)
    )
    settle_other_runs(Settings.load(), deployment, str(uuid4()))
    assert state_of(client, late) is StateType.CANCELLED
    assert state_of(client, next_one) is StateType.SCHEDULED


def test_a_run_whose_machine_is_stopped_starts_another_one(
    client: SyncPrefectClient, deployment: UUID
) -> None:
    """At once, and a single one for both runs of a machine; none for a run that is cancelled."""
    first, second = (client.create_flow_run_from_deployment(deployment).id for _ in range(2))
    client.set_flow_run_state(first, Cancelling(), force=True)
    client.set_flow_run_state(second, Running(), force=True)
    live.start_successor(deployment, str(first))
    assert list_scheduled(client, deployment) == []
    for _ in range(2):
        live.start_successor(deployment, str(second))
    (successor,) = list_scheduled(client, deployment)
    assert successor.expected_start_time is not None
    assert successor.expected_start_time <= datetime.now(UTC)


def list_scheduled(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    """The runs of a deployment that wait for a worker."""
    # The server belongs to all tests of a process, and shows 200 runs at once.
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        )
    )
