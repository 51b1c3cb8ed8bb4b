"""Prefect's progress artifacts: a bar in the run's page, on which no work depends."""

from threading import Thread
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect.runtime import flow_run

from db.database import Database
from flows.audit import audit_leads
from flows.push import push_leads
from leadloop.sandbox import SandboxHandle
from tasks import prefect_progress
from tasks.prefect_progress import ProgressArtifacts
from tests import factories
from tests.factories import CAMPAIGN
from tests.prefect_runs import list_artifacts, read_artifacts, run_flow

pytestmark = pytest.mark.usefixtures("prefect", "environment")


def test_long_work_shows_how_far_it_is(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bar for all campaigns, full at the end; then the table of counts is left alone."""
    monkeypatch.setattr(prefect_progress, "_UPDATE_INTERVAL_S", 0.0)
    seen: list[tuple[Any, str | None]] = []
    remove = ProgressArtifacts.remove

    def look_and_remove(bars: ProgressArtifacts) -> None:
        run = client.read_flow_run(UUID(flow_run.get_id()))
        seen.extend((each.data, each.description) for each in list_artifacts(run))
        remove(bars)

    monkeypatch.setattr(ProgressArtifacts, "remove", look_and_remove)
    for campaign in (CAMPAIGN, "C2"):
        factories.add_campaign(database, campaign, batch_size=2)
        factories.add_leads(database, *(f"L{number}" for number in range(10)), campaign=campaign)
    with get_client(sync_client=True) as client:
        _, run = run_flow(push_leads)
    table, bar = sorted(seen, key=lambda each: str(each[0]))
    assert bar == (100.0, f"push {CAMPAIGN}, push C2")
    assert [each.description for each in list_artifacts(run)] == [table[1]]


def test_no_work_depends_on_prefect(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hiccup of its server, when bars and tables are told, fails no push and no audit."""

    def hiccup(*_: Any, **__: Any) -> None:
        raise httpx.ReadTimeout("hiccup")

    monkeypatch.setattr(SyncPrefectClient, "create_artifact", hiccup)
    monkeypatch.setattr(PrefectClient, "create_artifact", hiccup)
    monkeypatch.setattr(prefect_progress, "_UPDATE_INTERVAL_S", 0.0)
    factories.add_campaign(database)
    factories.add_leads(database, "A")
    assert push_leads()["created"] == 1
    assert audit_leads(repair=True)["seen"] == 1


def test_short_work_has_no_bar(database: Database, vendor: SandboxHandle) -> None:
    """A request to Prefect takes as long as several batches."""
    factories.add_campaign(database)
    factories.add_leads(database, "A")
    _, run = run_flow(push_leads)
    assert "progress" not in read_artifacts(run)


@pytest.mark.parametrize(
    ("total", "amounts", "percent"), [(8, [1, 1], 25.0), (2, [1, 3], 100.0), (0, [1], 0.0)]
)
def test_a_bar_shows_the_share_that_is_done(
    monkeypatch: pytest.MonkeyPatch, total: int, amounts: list[int], percent: float
) -> None:
    """At most 100 %, also where there was more than expected; threads share a run's bar."""
    monkeypatch.setattr(prefect_progress, "_UPDATE_INTERVAL_S", 0.0)

    @flow(persist_result=False)
    def work() -> None:
        listener = ProgressArtifacts()
        listener.add_total("read", total)
        for amount in amounts:
            thread = Thread(target=listener.advance, args=("read", amount))
            thread.start()
            thread.join()

    _, run = run_flow(work)
    bar = read_artifacts(run)["progress"]
    assert (bar.data, bar.description) == (percent, "read")
