"""Live runs outlive what ends processes, connections and vendors, and take turns."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from db.database import Database
from db.source_triggers import find_trigger_table, render_trigger
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.dedicated_postgres import run_dedicated_postgres
from tests.factories import CAMPAIGN
from tests.resilience.processes import ForkServer, LeadloopProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.servers

#: What a live run says once it works.
WORKING = "working on"

StartLive = Callable[[], LeadloopProcess]


@pytest.fixture
def campaign(environment: Path, database: Database) -> None:
    """A campaign without leads."""
    factories.add_campaign(database)


@pytest.fixture
def start_live(campaign: None, fork_server: ForkServer, tmp_path: Path) -> Iterator[StartLive]:
    """Starts live runs, and ends them at last."""
    started: list[LeadloopProcess] = []

    def start() -> LeadloopProcess:
        process = fork_server.start_command(tmp_path, "live", "--json")
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()


def says(process: LeadloopProcess, text: str) -> LeadloopProcess:
    """Return once a process has said something."""
    wait_until(lambda: text in process.output or not process.is_alive, f"nobody says {text!r}")
    assert text in process.output, process.output
    return process


def send(database: Database, *lead_ids: str) -> None:
    """Insert leads, and return once the vendor has accepted all of them."""
    factories.add_leads(database, *lead_ids)
    sql.wait_until(
        database,
        "SELECT count(*) = :count FROM leadloop.leads"
        " WHERE lead_id = ANY(:ids) AND status = 'created'",
        count=len(lead_ids),
        ids=list(lead_ids),
    )


def opt_out(database: Database, lead_id: str) -> None:
    """Opt somebody out, and return once the vendor has confirmed it."""
    factories.add_opt_outs(database, lead_id)
    sql.wait_until(
        database,
        "SELECT status = 'disabled' FROM leadloop.disable_requests WHERE lead_id = :lead",
        lead=lead_id,
    )


def process_lead(vendor: SandboxHandle, database: Database, lead_id: str) -> None:
    """Have the vendor call somebody, and return once the outcome is stored."""
    vendor.put_outcomes([{"campaign_id": CAMPAIGN, "lead_id": lead_id}])
    sql.wait_until(
        database,
        "SELECT count(*) > 0 FROM leadloop.lead_outcomes WHERE lead_id = :lead",
        lead=lead_id,
    )


def check_once(vendor: SandboxHandle, *lead_ids: str) -> None:
    """Check that the vendor got each lead once, and no other."""
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(lead_ids, 1)
    assert vendor.store.violations == []


def test_the_whole_loop_and_its_end(
    start_live: StartLive, database: Database, vendor: SandboxHandle
) -> None:
    """A lead, its outcome and an opt-out go by themselves; SIGTERM ends it, with its counts."""
    live = says(start_live(), WORKING)
    send(database, "a", "b")
    process_lead(vendor, database, "a")
    opt_out(database, "b")
    os.kill(live.pid, signal.SIGTERM)
    live.wait()
    check_once(vendor, "a", "b")
    summary = live.last_json
    assert {summary[name] for name in ("created", "disabled", "inserted")} <= {1, 2}
    assert (summary["created"], summary["disabled"], summary["inserted"]) == (2, 1, 1)
    assert "stopped" in summary["error"]
    running = "SELECT count(*) FROM leadloop.sync_runs WHERE state <> 'completed'"
    assert sql.fetch_value(database, running) == 0


def test_nothing_is_written_while_nothing_happens(
    start_live: StartLive, database: Database, vendor: SandboxHandle
) -> None:
    """Looks write no rows, neither with a lead out there nor without."""
    says(start_live(), WORKING)
    send(database, "a")
    sql.wait_until(database, "SELECT count(*) > 0 FROM leadloop.watermarks")
    sql.wait_until(database, "SELECT count(*) = 0 FROM leadloop.sync_runs WHERE state = 'running'")
    runs = "SELECT count(*) FROM leadloop.sync_runs"
    before, requests = sql.fetch_value(database, runs), len(vendor.requests)
    wait_until(lambda: len(vendor.requests) > requests + 2, "nobody looks for outcomes")
    assert sql.fetch_value(database, runs) == before


def test_notifications_that_are_lost_make_it_slower_and_no_more(
    start_live: StartLive, database: Database, vendor: SandboxHandle
) -> None:
    """It looks all the same."""
    sql.execute(database, "DROP FUNCTION leadloop.announce_work() CASCADE")
    says(start_live(), WORKING)
    send(database, "a")
    opt_out(database, "a")
    check_once(vendor, "a")


def test_a_row_of_a_table_of_the_team(
    start_live: StartLive, database: Database, vendor: SandboxHandle
) -> None:
    """With the trigger that is printed; the role that writes has no right on leadloop."""
    sql.execute(
        database,
        "CREATE SCHEMA crm; CREATE TABLE crm.customers (lead_id text, phone_number text,"
        " contact_name text, state_code text); CREATE ROLE crm_writer;"
        " GRANT USAGE ON SCHEMA crm TO crm_writer; GRANT INSERT ON crm.customers TO crm_writer",
    )
    sql.execute_script(database, render_trigger(find_trigger_table(database, "crm.customers")))
    sql.execute(database, "UPDATE leadloop.campaigns SET source = 'crm.customers'")
    says(start_live(), WORKING)
    for lead_id in ("a", "b"):
        with database.transaction() as connection:
            connection.execute(text("SET LOCAL ROLE crm_writer"))
            row = factories.build_lead(lead_id)
            connection.execute(
                text(
                    "INSERT INTO crm.customers"
                    " VALUES (:lead_id, :phone_number, :contact_name, :state_code)"
                ),
                row,
            )
        created = "SELECT count(*) = 1 FROM leadloop.leads WHERE lead_id = :lead"
        sql.wait_until(database, f"{created} AND status = 'created'", lead=lead_id)
    check_once(vendor, "a", "b")
    sql.execute(database, "DROP OWNED BY crm_writer; DROP ROLE crm_writer")


def test_two_places(start_live: StartLive, database: Database, vendor: SandboxHandle) -> None:
    """One works, one waits, a third ends at once; the one that waits takes over from a dead one."""
    first, second = says(start_live(), WORKING), start_live()
    says(second, "another live run does the work: waiting to take it over")
    third = start_live()
    third.wait()
    assert "2 live runs are there already" in third.output
    assert WORKING not in second.output
    first.kill()
    says(second, WORKING)
    send(database, "a")
    check_once(vendor, "a")


def test_a_run_that_hangs(start_live: StartLive, database: Database, vendor: SandboxHandle) -> None:
    """It is seen by its silence, and its connections are ended; awake again, it waits."""
    first = says(start_live(), WORKING)
    second = start_live()
    send(database, "a")
    os.kill(first.pid, signal.SIGSTOP)
    says(second, "has not looked for work")
    send(database, "b")
    os.kill(first.pid, signal.SIGCONT)
    says(first, "trying again until Postgres answers")
    send(database, "c")
    check_once(vendor, "a", "b", "c")
    second.kill()
    wait_until(lambda: first.output.count(WORKING) == 2, "nobody takes over")
    send(database, "d")
    check_once(vendor, "a", "b", "c", "d")


def test_a_vendor_that_is_away(
    start_live: StartLive, database: Database, vendor: SandboxHandle
) -> None:
    """Said once; little is sent to it meanwhile, and all that waits goes when it is back."""
    live = says(start_live(), WORKING)
    send(database, "a", "seen")
    vendor.add_fault(route="any", kind="status", status=503)
    factories.add_leads(database, "b")
    factories.add_opt_outs(database, "a")
    says(live, "does not answer")
    requests = len(vendor.requests)
    wait_until(lambda: len(vendor.requests) > requests + 4, "nobody asks whether it is back")
    vendor.clear_faults()
    says(live, "answers again")
    sql.wait_until(
        database,
        "SELECT count(*) = 3 FROM leadloop.leads WHERE status = 'created'"
        " AND EXISTS (SELECT FROM leadloop.disable_requests WHERE status = 'disabled')",
        timeout_s=120,
    )
    assert live.output.count("does not answer") == 1
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


def test_a_run_that_got_nothing_done_states_why(
    start_live: StartLive,
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At its end, in the last line: its log may have had it long before."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "wrong")
    live = says(start_live(), WORKING)
    factories.add_leads(database, "a")
    failed = "SELECT count(*) >= 2 FROM leadloop.sync_runs WHERE state = 'failed'"
    sql.wait_until(database, failed)
    os.kill(live.pid, signal.SIGTERM)
    live.wait()
    assert "the login is not accepted: check LEADLOOP_API_TOKEN" in live.last_json["error"]


def test_a_schema_of_another_version(start_live: StartLive, database: Database) -> None:
    """A new version was deployed: the old one ends, and says what to do."""
    live = says(start_live(), WORKING)
    sql.execute(database, "UPDATE leadloop.alembic_version SET version_num = '9999_next'")
    live.wait()
    assert "9999_next" in live.output
    assert "start it again" in live.output


def test_a_database_that_restarts(
    environment: Path,
    vendor: SandboxHandle,
    fork_server: ForkServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same process works on, with a place of its own again and new runs."""
    with run_dedicated_postgres(tmp_path / "postgres") as postgres:
        monkeypatch.setenv("LEADLOOP_DATABASE_URL", postgres.url)
        with Database(postgres.url, pool_size=1) as database:
            factories.add_campaign(database)
            live = says(fork_server.start_command(tmp_path, "live", "--json"), WORKING)
            send(database, "a")
        postgres.stop()
        says(live, "trying again until Postgres answers")
        postgres.start()
        with Database(postgres.url, pool_size=1) as database:
            send(database, "b")
            opt_out(database, "a")
        live.kill()
        assert live.output.count(WORKING) == 2
    check_once(vendor, "a", "b")
