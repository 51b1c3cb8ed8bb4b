"""The live loop in this process: how it ends, and what it shows of what fails."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from db import live_places
from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks import live
from tests import factories, sql
from tests.live_runs import LiveRun, start_run
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
