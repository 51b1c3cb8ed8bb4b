"""`fan-out`: which campaigns get a run of their own. No worker is there: what is told is enough."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect import State
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.states import Pending, Running

from db.database import Database
from db.runs import RunLocks
from flows.fan_out import DEPLOYMENT, fan_out
from flows.sync import sync_leads
from leadloop.sandbox import SandboxHandle
from tests import factories
from tests.factories import CAMPAIGN

pytestmark = pytest.mark.usefixtures("work_pools", "environment")


@pytest.fixture
def deployment(client: SyncPrefectClient) -> Iterator[UUID]:
    """`sync-leads/default`, gone with its runs after the test."""
    made = client.create_deployment(client.create_flow(sync_leads), DEPLOYMENT.partition("/")[2])
    yield made
    client.delete_deployment(made)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run has just begun any more."""
    monkeypatch.setattr("flows.fan_out._START_TIMEOUT", timedelta(0))


def begun(client: SyncPrefectClient, deployment: UUID, state: State[Any]) -> UUID:
    """A run that a fan-out has started, in a state of Prefect's."""
    run = client.create_flow_run_from_deployment(deployment, tags=[f"campaign:{CAMPAIGN}"])
    client.set_flow_run_state(run.id, state, force=True)
    return run.id


def started() -> int:
    """How many runs a fan-out starts now."""
    count: int = fan_out()["started"]
    return count


def test_one_run_a_campaign(database: Database, vendor: SandboxHandle, deployment: UUID) -> None:
    """Each campaign gets one; while nobody takes it up, it gets no other."""
    factories.add_campaign(database)
    factories.add_campaign(database, "ANOTHER")
    assert fan_out() == {"started": 2, "unfinished": 0}
    assert fan_out() == {"started": 0, "unfinished": 2}


@pytest.mark.parametrize("state", [Running, Pending])
def test_a_run_whose_machine_is_gone(
    database: Database,
    vendor: SandboxHandle,
    client: SyncPrefectClient,
    deployment: UUID,
    later: None,
    state: Callable[[], State[Any]],
) -> None:
    """What Prefect takes to be at work for ever keeps no campaign from its next run."""
    factories.add_campaign(database)
    begun(client, deployment, state())
    assert started() == 1


def test_a_run_that_takes_long(
    database: Database,
    vendor: SandboxHandle,
    client: SyncPrefectClient,
    deployment: UUID,
    later: None,
) -> None:
    """As long as its process lives, and no longer, its campaign gets no other."""
    factories.add_campaign(database)
    run = begun(client, deployment, Running())
    with database.autocommit() as connection:
        connection.detach()
        RunLocks(connection).open_run(flow="sync-leads", campaign_id=CAMPAIGN, flow_run_id=str(run))
        assert started() == 0
    assert started() == 1


def test_a_run_that_has_just_begun(
    database: Database, vendor: SandboxHandle, client: SyncPrefectClient, deployment: UUID
) -> None:
    """It may not have written its row yet: its campaign gets no other."""
    factories.add_campaign(database)
    begun(client, deployment, Pending())
    assert started() == 0


def test_a_run_that_waits_in_the_pool_of_before(
    database: Database, vendor: SandboxHandle, client: SyncPrefectClient, deployment: UUID
) -> None:
    """After a change of the work pool nobody may take it up: its campaign gets one in the new."""
    factories.add_campaign(database)
    for pool, runs in (("old", (1, 0)), ("new", (1, 0))):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        client.create_deployment(
            client.create_flow(sync_leads), DEPLOYMENT.partition("/")[2], work_pool_name=pool
        )
        assert (started(), started()) == runs
    for pool in ("old", "new"):
        client.delete_work_pool(pool)


def test_a_run_of_something_else(
    database: Database, vendor: SandboxHandle, client: SyncPrefectClient, deployment: UUID
) -> None:
    """A run with the campaign's tag that is of another deployment is no run of ours."""
    factories.add_campaign(database)
    other = client.create_deployment(client.create_flow(sync_leads), "other")
    begun(client, other, Running())
    assert started() == 1
    client.delete_deployment(other)
