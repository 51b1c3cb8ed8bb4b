"""The live loop in this process: how it ends, and what it shows of what fails."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import text

from db import live_places
from db.database import Database, DatabaseError
from leadloop.core import opt_out_looks, source_looks
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks import live
from tasks.live import LiveHost, LiveState, run_live
from tests import factories, sql
from tests.live_runs import LOG, LiveRun, start_run
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("environment", "quick_looks")

StartRun = Callable[[str], LiveRun]


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at other live runs and at the host are due twice a second."""
    for name in ("_TIMED_LOOK_S", "_WATCH_S", "_CHECK_S"):
        monkeypatch.setattr(live, name, 0.5)


@pytest.fixture
def start() -> Iterator[StartRun]:
    """Starts live runs, which end with the test."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(start_run(name))


@pytest.mark.parametrize("ending", ["is_cancelled", "is_stopped"])
def test_a_run_that_waits_for_a_response_at_its_end_is_not_silent(
    start: StartRun,
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ending: str,
) -> None:
    """Its successor works meanwhile, and does not end its connections: no lead is in doubt."""
    monkeypatch.setattr(live_places, "SILENCE_S", 3.0)
    factories.add_campaign(database)
    first = start("first")
    wait_until(lambda: first.works, "nobody works")
    second = start("second")
    vendor.add_fault(route="create", kind="slow", seconds=6)
    factories.add_leads(database, "a")
    wait_until(lambda: vendor.store.creations("C1"), "no lead is sent")
    getattr(first, ending).set()
    wait_until(lambda: second.works, "nobody takes over")
    assert not first.has_ended.is_set(), "it waits for a response"
    assert first.has_ended.wait(60)
    assert "has not looked for work" not in caplog.text
    assert sql.fetch_statuses(database) == {"a": "created"}
    assert sql.fetch_rows(database, "SELECT DISTINCT state FROM leadloop.sync_runs") == [
        {"state": "completed"}
    ]


def test_a_run_without_postgres_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line names host and database; only a connection that a run had is opened again."""
    monkeypatch.setenv("LEADLOOP_DATABASE_URL", "postgresql://leads:pw@127.0.0.1:1/leads")
    host = LiveHost(log=LOG, name="live", load_settings=Settings.load)
    with pytest.raises(
        DatabaseError, match=r"^cannot reach Postgres at postgresql://leads@127\.0\.0\.1:1/leads: "
    ):
        run_live(host, LiveState())


def test_what_was_done_is_logged_in_sums(
    start: StartRun,
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line for all jobs of some minutes; none while nothing happens, and none a job."""
    monkeypatch.setattr(live, "_REPORT_S", 1.0)
    caplog.set_level(logging.INFO, LOG.name)
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)
    run = start("live")
    wait_until(lambda: run.works, "nobody works")
    waiting = start("waiting")
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "a", "b", campaign=campaign)
    wait_until(lambda: count_reported(caplog) == 4, "nothing is reported")
    assert not any("campaign C" in line for line in caplog.messages)
    assert sum("another live run does the work" in line for line in caplog.messages) == 1
    assert not waiting.works


def count_reported(caplog: pytest.LogCaptureFixture) -> int:
    """Return how many created leads the lines of a live run count together."""
    lines = [line for line in caplog.messages if line.startswith("in the last minutes: ")]
    return sum(int(each) for line in lines for each in re.findall(r"created (\d+)", line))


def test_a_source_that_cannot_be_read_is_a_problem(
    start: StartRun, database: Database, vendor: SandboxHandle
) -> None:
    """Whoever looks at the problems sees it; once the table is back, its leads go."""
    sql.execute(
        database,
        "CREATE SCHEMA crm; CREATE TABLE crm.customers (lead_id text, phone_number text,"
        " contact_name text, state_code text)",
    )
    factories.add_campaign(database, source="crm.customers")
    run = start("live")
    wait_until(lambda: run.works, "nobody works")
    sql.execute(database, "ALTER TABLE crm.customers RENAME TO clients")
    sql.wait_until(
        database,
        "SELECT count(*) = 1 FROM leadloop_monitor.problems WHERE said LIKE '%crm.customers%'",
    )
    sql.execute(
        database,
        "ALTER TABLE crm.clients RENAME TO customers; INSERT INTO crm.customers"
        " VALUES ('a', '+12025550123', 'Ann', 'NY')",
    )
    sql.wait_until(database, "SELECT count(*) = 1 FROM leadloop.leads WHERE status = 'created'")
    sql.wait_until(database, "SELECT count(*) = 0 FROM leadloop_monitor.problems")


def test_an_opt_out_source_is_followed_within_seconds(
    start: StartRun, database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is disabled at the vendor; while the table is away, nobody is sent, but for others."""
    monkeypatch.setattr(source_looks, "LEAST_SOURCE_INTERVAL_S", 0.5)
    monkeypatch.setattr(opt_out_looks, "LEAST_SOURCE_INTERVAL_S", 0.5)
    sql.execute(database, "CREATE SCHEMA crm; CREATE TABLE crm.out (lead_id text)")
    factories.add_campaign(database, opt_out_source="crm.out")
    factories.add_campaign(database, "C2")
    run = start("live")
    factories.add_leads(database, "a")
    wait_until(lambda: vendor.store.creations("C1") == {"a": 1}, "the lead is not sent")
    sql.execute(database, "INSERT INTO crm.out VALUES ('a'), ('stranger')")
    wait_until(lambda: set(vendor.store.disabled("C1")) == {"a"}, "the lead is not disabled")
    runs = "SELECT count(*) FROM leadloop.sync_runs WHERE counts ->> 'from_opt_out_source' = '2'"
    assert sql.fetch_value(database, runs) == 1
    sql.execute(database, "ALTER TABLE crm.out RENAME TO gone")
    failed = "SELECT count(*) = 1 FROM leadloop.opt_out_source_reads WHERE failed_at IS NOT NULL"
    sql.wait_until(database, failed)
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "b", "c", campaign=campaign)
    factories.add_leads(database, factories.build_lead("urgent", priority=1))
    wait_until(lambda: len(vendor.store.creations("C2")) == 2, "the others are not sent")
    assert vendor.store.creations("C1") == {"a": 1}
    sql.execute(database, "ALTER TABLE crm.gone RENAME TO out; INSERT INTO crm.out VALUES ('b')")
    wait_until(lambda: len(vendor.store.creations("C1")) == 3, "they are not sent")
    assert vendor.store.creations("C1") == {"a": 1, "c": 1, "urgent": 1}
    assert run.state.failures == {} or "polls" not in {lane for lane, _ in run.state.failures}


def test_an_opt_out_source_that_is_locked_holds_up_no_other(
    start: StartRun, database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither opt-outs and leads of other campaigns, nor their tables, nor its own opt-outs."""
    monkeypatch.setattr(source_looks, "LEAST_SOURCE_INTERVAL_S", 0.5)
    monkeypatch.setattr(opt_out_looks, "LEAST_SOURCE_INTERVAL_S", 0.5)
    sql.execute(
        database,
        "CREATE SCHEMA crm; CREATE TABLE crm.out (lead_id text);"
        " CREATE TABLE crm.other (lead_id text)",
    )
    factories.add_campaign(database, opt_out_source="crm.out", source_timeout_s=2)
    factories.add_campaign(database, "C2", opt_out_source="crm.other")
    factories.add_campaign(database, "C3")
    start("live")
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "a", "b", campaign=campaign)
    wait_until(lambda: len(vendor.store.creations("C1")) == 2, "nobody is sent")
    wait_until(lambda: len(vendor.store.creations("C2")) == 2, "nobody is sent")
    with database.transaction() as connection:
        connection.execute(text("LOCK TABLE crm.out IN ACCESS EXCLUSIVE MODE"))
        sql.wait_until(
            database,
            "SELECT count(*) = 1 FROM leadloop.opt_out_source_reads WHERE failed_at IS NOT NULL",
        )
        factories.add_opt_outs(database, "a")
        factories.add_leads(database, "z", campaign="C3")
        factories.add_leads(database, "c")
        sql.execute(database, "INSERT INTO crm.other VALUES ('b')")
        wait_until(lambda: set(vendor.store.disabled("C1")) == {"a"}, "its own opt-out waits")
        wait_until(lambda: set(vendor.store.disabled("C2")) == {"b"}, "the other table waits")
        wait_until(lambda: vendor.store.creations("C3") == {"z": 1}, "another campaign waits")
        assert "c" not in vendor.store.creations("C1")
    wait_until(lambda: "c" in vendor.store.creations("C1"), "the lead is not sent")


def test_a_login_for_sources_that_is_refused_stops_no_other_work(
    start: StartRun,
    database: Database,
    database_url: str,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is a problem of the campaign; the loop's own connections are good."""
    monkeypatch.setenv("LEADLOOP_SOURCE_URL", database.sibling_url("nowhere", "postgresql"))
    factories.add_campaign(database, source="crm.customers")
    factories.add_campaign(database, "C2")
    run = start("live")
    wait_until(lambda: run.works, "nobody works")
    sql.wait_until(database, "SELECT count(*) > 0 FROM leadloop_monitor.problems")
    factories.add_leads(database, "a", campaign="C2")
    sql.wait_until(database, "SELECT count(*) = 1 FROM leadloop.leads WHERE status = 'created'")
    assert "trying again until Postgres answers" not in caplog.text
