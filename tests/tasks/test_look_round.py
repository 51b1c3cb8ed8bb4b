"""The look round of a poll: what campaigns with nothing new cost, and what all others get."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from db.database import Database
from leadloop.core.summaries import Summary, collect_summary
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.context import open_api_context
from tasks.head_look import look_at_head
from tasks.jobs import CampaignsFailed
from tasks.look_round import look_round
from tasks.poll import POLL
from tests import factories, sql
from tests.jobs import HOST, poll_outcomes, push_leads, run_jobs

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_ALL = [f"C{number}" for number in range(6)]
_MARKS = """
SELECT campaign_id, processed_through = written_through AS is_written,
       read_through = reread_through AS is_reread, read_through > now() - interval '2 minutes' AS
       is_recent FROM leadloop.watermarks ORDER BY campaign_id
"""
_WINDOWS = """
SELECT campaign_id, status, claimed_count, stored_count, pages
  FROM leadloop.poll_windows WHERE polled_at > :since ORDER BY campaign_id, window_id
"""


@pytest.fixture
def polled(
    database: Database, vendor: SandboxHandle, environment: Path, quick_retries: None
) -> None:
    """Six campaigns with an outcome each, stored an hour ago, and nothing new since."""
    for campaign in _ALL:
        factories.add_campaign(database, campaign, lookback_s=600, settle_s=1)
        factories.add_leads(database, "a", "b", campaign=campaign)
    push_leads()
    sql.execute(database, "UPDATE leadloop.leads SET sent_at = sent_at - interval '3 hours'")
    vendor.put_outcomes([build_outcome(vendor, campaign, "a", age_s=7200) for campaign in _ALL])
    poll_outcomes()
    names = ("processed_through", "read_through", "written_through", "reread_through")
    back = ", ".join(f"{name} = now() - interval '1 hour'" for name in names)
    sql.execute(database, f"UPDATE leadloop.watermarks SET {back}")


def build_outcome(
    vendor: SandboxHandle, campaign: str, lead_id: str, *, age_s: int
) -> dict[str, Any]:
    """Return the outcome of a lead."""
    return {
        "campaign_id": campaign,
        "lead_id": lead_id,
        "outcome_name": "Sold",
        "processed_at": vendor.now() - age_s * 1000,
    }


def poll(*, with_look: bool) -> Summary:
    """Poll all campaigns; return the summary, also where campaigns failed."""
    with collect_summary() as collected, suppress(CampaignsFailed):
        run_jobs(POLL if with_look else replace(POLL, find_due=None), None)
    return collected.summary


def fetch_stored(database: Database, since: Any) -> Mapping[str, Any]:
    """Return what a poll since then has stored."""
    return {
        "marks": sql.fetch_rows(database, _MARKS),
        "windows": sql.fetch_rows(database, _WINDOWS, since=since),
        "outcomes": sql.fetch_rows(
            database,
            "SELECT campaign_id, lead_id FROM leadloop.lead_outcomes ORDER BY 1, 2",
        ),
    }


def fetch_now(database: Database) -> Any:
    """Return the database's clock."""
    return sql.fetch_value(database, "SELECT clock_timestamp()")


@pytest.mark.usefixtures("polled")
def test_campaigns_with_nothing_new_cost_a_request_each(
    database: Database, vendor: SandboxHandle
) -> None:
    """And one row of a run for all; summary, windows and watermarks are those of jobs."""
    now, sent_before = fetch_now(database), len(vendor.requests)
    summary = poll(with_look=True)
    assert len(vendor.requests) - sent_before == len(_ALL)
    rows = "SELECT campaign_id, state FROM leadloop.sync_runs WHERE started_at > :since"
    assert sql.fetch_rows(database, rows, since=now) == [{"campaign_id": "", "state": "completed"}]
    stored = fetch_stored(database, now)
    assert [row["campaign_id"] for row in stored["windows"]] == _ALL
    assert all(row["is_recent"] and row["is_written"] for row in stored["marks"])
    now = fetch_now(database)
    assert poll(with_look=False) == summary
    assert fetch_stored(database, now) == stored


@pytest.mark.usefixtures("polled")
def test_campaigns_with_news_get_a_job(database: Database, vendor: SandboxHandle) -> None:
    """It stores the page that the look has read: there is no request beside the look's."""
    vendor.put_outcomes([build_outcome(vendor, "C2", "b", age_s=60)])
    now, sent_before = fetch_now(database), len(vendor.requests)
    summary = poll(with_look=True)
    assert (summary["inserted"], summary["requests"]) == (1, len(_ALL))
    assert len(vendor.requests) - sent_before == len(_ALL)
    rows = "SELECT campaign_id FROM leadloop.sync_runs WHERE started_at > :since ORDER BY run_id"
    assert [row["campaign_id"] for row in sql.fetch_rows(database, rows, since=now)] == ["", "C2"]
    assert summary["campaigns"]["C2"]["requests"] == 1
    assert all(row["is_recent"] for row in fetch_stored(database, now)["marks"])


@pytest.mark.usefixtures("polled")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE leadloop.watermarks SET processed_through = now() - interval '3 hours'",
        "DELETE FROM leadloop.watermarks",
        """INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason,
                                              next_try_at)
           SELECT campaign_id, now() - interval '5 hours', now() - interval '4 hours', 'HTTP 500',
                  now() FROM leadloop.campaigns""",
        "INSERT INTO leadloop.learned_limits SELECT campaign_id, 'page_size', 7"
        " FROM leadloop.campaigns",
        "DELETE FROM leadloop.lead_outcomes",
    ],
)
def test_what_one_request_cannot_show_is_for_jobs(
    database: Database, vendor: SandboxHandle, change: str
) -> None:
    """A watermark that was set back, what is owed, and so on: each campaign has its row."""
    sql.execute(database, change)
    now = fetch_now(database)
    poll(with_look=True)
    rows = "SELECT campaign_id FROM leadloop.sync_runs WHERE started_at > :since ORDER BY run_id"
    assert [row["campaign_id"] for row in sql.fetch_rows(database, rows, since=now)] == ["", *_ALL]
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.owed_windows") == 0


@pytest.mark.usefixtures("polled")
def test_a_look_that_fails_stops_no_other(database: Database, vendor: SandboxHandle) -> None:
    """The campaign gets a job, which reads again; the others are looked at."""
    vendor.add_fault(route="responses", kind="status", status=500, nth=2)
    now = fetch_now(database)
    summary = poll(with_look=True)
    assert all(counts["windows"] == 1 for counts in summary["campaigns"].values())
    states = "SELECT DISTINCT state FROM leadloop.sync_runs WHERE started_at > :since"
    assert sql.fetch_rows(database, states, since=now) == [{"state": "completed"}]
    assert all(row["is_recent"] for row in fetch_stored(database, now)["marks"])


@pytest.mark.usefixtures("polled")
def test_a_defect_in_one_look_stops_no_other(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the exception: that campaign gets a job, and the others are looked at."""

    def look(context: Any, campaign: Any, *more: Any) -> Any:
        if campaign.campaign_id == "C3":
            raise ZeroDivisionError
        return look_at_head(context, campaign, *more)

    monkeypatch.setattr("tasks.look_round.look_at_head", look)
    now = fetch_now(database)
    poll(with_look=True)
    rows = "SELECT campaign_id FROM leadloop.sync_runs WHERE started_at > :since ORDER BY run_id"
    assert [row["campaign_id"] for row in sql.fetch_rows(database, rows, since=now)] == ["", "C3"]
    assert all(row["is_recent"] for row in fetch_stored(database, now)["marks"])


@pytest.mark.usefixtures("polled")
def test_a_campaign_that_was_never_sent_a_lead_is_not_asked_for(
    database: Database, vendor: SandboxHandle
) -> None:
    """Nothing can be processed there: neither a request nor a row."""
    factories.add_campaign(database, "empty")
    summary = poll(with_look=True)
    assert not any("empty" in request.path for request in vendor.requests)
    assert not any(summary["campaigns"]["empty"].values())


def test_a_campaign_that_was_moved_is_not_asked_about(
    polled: None, database: Database, vendor: SandboxHandle
) -> None:
    """Its account's turn may come long after it was selected; its job finds out."""
    newest = sql.fetch_value(database, "SELECT max(run_id) FROM leadloop.sync_runs")
    with open_api_context(Settings.load(), HOST) as context:
        selected = context.select_campaigns(None)
        with database.transaction() as connection:
            connection.exec_driver_sql(
                "SET LOCAL leadloop.renames_account = 'on';"
                "UPDATE leadloop.campaigns SET account = 'emea' WHERE campaign_id = 'C1'"
            )
        before = len(vendor.requests)
        due = look_round(lambda *_: None, context, selected, newest)
    asked = {request.path.strip("/").split("/")[-1] for request in vendor.requests[before:]}
    assert asked == {*_ALL} - {"C1"}
    assert due.ids == {"C1"}
