"""A flow's jobs under Prefect: what its server and the caller get of a run of campaigns."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from db.database import Database
from flows.campaign_runner import run_campaigns
from flows.push import push_leads
from leadloop.core.summaries import Summary, collect_summary
from leadloop.sandbox import SandboxHandle
from tasks.context import CampaignRun
from tasks.housekeeping import HOUSEKEEPING, HousekeepingContext, HousekeepingJob
from tasks.jobs import CampaignsFailed, ChunkResult
from tasks.push import PUSH
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.prefect_events import collect_events, is_event_of
from tests.prefect_runs import read_artifacts

pytestmark = pytest.mark.usefixtures("prefect", "quick_retries", "environment")


def test_prefect_shows_the_sync_as_a_task(database: Database, prefect: str) -> None:
    """In Prefect, a sync that fails is a failed task of the push."""
    factories.add_campaign(database, source="crm.customers")

    def push() -> None:
        with pytest.raises(CampaignsFailed):
            push_leads()

    (event,) = collect_events(prefect, push, "prefect.task-run.Failed")
    assert event.resource.name == f"take-from-source {CAMPAIGN}"


def test_prefect_shows_each_chunk_as_a_task(
    database: Database,
    vendor: SandboxHandle,
    prefect: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each campaign's, under the name of the flow's work, its campaign, and its turn."""
    monkeypatch.setattr("flows.push.PUSH", replace(PUSH, min_chunk=1))
    for campaign in ("C1", "C{2}"):
        factories.add_campaign(database, campaign, batch_size=1)
        factories.add_leads(database, "a", "b", campaign=campaign)
    events = collect_events(prefect, push_leads, "prefect.task-run.Completed")
    run = UUID(sql.fetch_value(database, "SELECT DISTINCT flow_run_id FROM leadloop.sync_runs"))
    names = [str(event.resource.name) for event in events if is_event_of(event, run)]
    assert names == [
        "push-batches C1",
        "push-batches C{2}",
        *("push-batches C1 (2)", "push-batches C{2} (2)"),
        *("push-batches C1 (3)", "push-batches C{2} (3)"),
    ]


def test_problems_that_cannot_be_read_fail_no_run(
    database: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """The work is done; the log warns that no event tells of open problems."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    sql.execute(database, "DROP VIEW leadloop_monitor.problems CASCADE")
    with caplog.at_level("WARNING"):
        assert push_leads()["created"] == 1
    (line,) = [message for message in caplog.messages if "problems" in message]
    assert line.startswith("the problems of the campaigns cannot be read: Postgres refused")


def test_an_unexpected_error_is_shown_without_its_text(
    database: Database, prefect: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Prefect shows that the chunk has failed, with type and place; whom it was about, nowhere."""
    factories.add_campaign(database)
    person = ", ".join(["Ann", "+14155550123"])

    def start(run: CampaignRun[HousekeepingContext]) -> _StoppedJob:
        job = _StoppedJob(run)
        job.error = ValueError(person)
        return job

    runs: list[UUID] = []

    @flow(persist_result=False)
    def purge() -> Summary:
        runs.append(UUID(flow_run.get_id()))
        return run_campaigns(replace(HOUSEKEEPING, start=start), None, None)

    def run() -> None:
        with pytest.raises(CampaignsFailed, match=r"^campaign C1: unexpected ValueError in"):
            purge()

    with caplog.at_level("DEBUG", logger="prefect.task_runs"):
        events = collect_events(prefect, run, "prefect.task-run.Failed")
    (event,) = [each for each in events if is_event_of(each, runs[0])]
    shown = f"{event.model_dump_json()} {caplog.text}"
    assert "unexpected ValueError in" in shown
    assert "in run_chunk" in caplog.text
    assert "Ann" not in shown
    assert "4155550123" not in shown


class _StoppedJob(HousekeepingJob):
    """A job that has purged 3 leads when it is stopped."""

    error: BaseException

    def run_chunk(self, limit: int) -> ChunkResult:
        raise self.error

    def counts(self) -> dict[str, int]:
        return {**super().counts(), next(iter(HOUSEKEEPING.counts)): 3}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_a_run_that_is_stopped_states_what_it_did(database: Database, error: BaseException) -> None:
    """Its caller gets the summary with what the flow adds, and Prefect the table of counts."""
    factories.add_campaign(database)
    count = HOUSEKEEPING.counts[0]

    def start(run: CampaignRun[HousekeepingContext]) -> _StoppedJob:
        job = _StoppedJob(run)
        job.error = error
        return job

    runs: list[Any] = []

    @flow(persist_result=False)
    def purge() -> Summary:
        runs.append(flow_run.get_id())
        return run_campaigns(
            replace(HOUSEKEEPING, start=start),
            None,
            None,
            on_summary=lambda summary: summary.update(added=True),
        )

    with collect_summary() as collected, pytest.raises(type(error)):
        purge()
    assert (collected.summary[count], collected.summary["added"]) == (3, True)
    with get_client(sync_client=True) as client:
        tables = read_artifacts(client.read_flow_run(runs[0]))
    assert f"{count.replace('_', ' ')} 3" in str(tables["markdown"].data)
