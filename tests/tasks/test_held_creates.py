"""A database that forgot creates nobody, until an audit or a person lets go: real parts."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from db import opt_out_source, session_settings
from db.database import Database
from leadloop.core.errors import RunError, UsageError
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.held_creates import release_held, report_restore
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.conftest import new_database
from tests.dedicated_postgres import run_dedicated_postgres
from tests.factories import CAMPAIGN
from tests.jobs import audit_leads, disable_leads, poll_outcomes, push_leads, sync_leads
from tests.odd_reads import OddReads, let_row_leave
from tests.tasks.test_in_doubt_listing import BADLY_NAMED

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_HELD = r"^campaign C1: creates are held since .*leadloop audit --repair --campaign C1"


@pytest.fixture
def forgetful(
    postgres: str, database_url: str, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """A copy of a database, from before four of its leads were sent and one was inserted.

    The vendor has a, b, c and d, and creates a second lead for whoever is sent again. Here a is
    new, b is rejected, c is missing and d is in doubt; e was never sent.
    """
    vendor.change_rules(repeat="second")
    name = make_url(database_url).database
    assert name
    with Database(database_url, pool_size=4) as original:
        factories.add_campaign(original, page_size=2)
        factories.add_leads(original, "a", "b", "c", "d")
        push_leads()
    with ExitStack() as stack:
        url = new_database(stack, postgres, name)
        monkeypatch.setenv("LEADLOOP_DATABASE_URL", url)
        copy = stack.enter_context(Database(url, pool_size=4))
        back = "UPDATE leadloop.leads SET status = '{}', confirmed_at = NULL"
        for lead_id, status in (("a", "new"), ("b", "rejected"), ("d", "in_doubt")):
            sql.execute(copy, back.format(status) + f" WHERE lead_id = '{lead_id}'")
        sql.execute(copy, "DELETE FROM leadloop.leads WHERE lead_id = 'c'")
        sql.execute(copy, "DELETE FROM leadloop.sent_leads")
        factories.add_leads(copy, "e")
        yield copy


def created(vendor: SandboxHandle) -> dict[str, int]:
    """How often the vendor has created each lead."""
    return dict(vendor.store.creations(CAMPAIGN))


def pass_time(database: Database) -> None:
    """Let the time be over after which the listing shows all that was sent before the hold."""
    sql.execute(database, "UPDATE leadloop.create_holds SET held_at = held_at - interval '1 hour'")


def push_is_held() -> None:
    """A push ends with the line, and nothing else."""
    with pytest.raises(CampaignsFailed, match=_HELD) as caught:
        push_leads()
    assert len(caught.value.reasons) == 1


def is_held(database: Database) -> bool:
    """Whether the campaign is held."""
    query = "SELECT count(*) FROM leadloop.create_holds WHERE released_at IS NULL"
    return bool(sql.fetch_value(database, query))


def test_a_copy_creates_nobody_until_an_audit(forgetful: Database, vendor: SandboxHandle) -> None:
    """What the vendor has is created here, or known as sent; then the push goes on."""
    before = created(vendor)
    push_is_held()
    assert created(vendor) == before
    audit_leads(repair=True)
    assert is_held(forgetful), "a request from before may still arrive"
    push_is_held()
    pass_time(forgetful)
    assert audit_leads(repair=True)["created_twice"] == 0
    assert not is_held(forgetful)
    assert sql.fetch_statuses(forgetful) == {
        **dict.fromkeys("abd", "created"),
        "e": "new",
    }
    # Your code inserts it once more, and a corrected lead would be sent.
    factories.add_leads(forgetful, "c")
    assert push_leads()["created"] == 1
    assert created(vendor) == dict.fromkeys("abcde", 1)
    assert set(sql.fetch_statuses(forgetful).values()) == {"created"}
    (hold,) = sql.fetch_rows(forgetful, "SELECT * FROM leadloop.create_holds")
    assert hold["reason"].startswith("the database has changed: database oid ")
    assert hold["released_reason"].startswith("audit: 4 listed leads")


def test_an_audit_without_repair_lets_go_only_if_there_is_nothing_to_repair(
    forgetful: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts what a push could create again."""
    push_is_held()
    pass_time(forgetful)
    audit_leads()
    assert "a push could create 3 listed leads again" in caplog.text
    assert is_held(forgetful)
    with forgetful.transaction() as connection:
        assert connection.exec_driver_sql("DELETE FROM leadloop.leads").rowcount == 4
    factories.add_leads(forgetful, "a", "b", "c")
    sql.execute(forgetful, "UPDATE leadloop.leads SET status = 'created'")
    audit_leads()
    assert not is_held(forgetful)


def test_a_hiding_vendor_needs_a_person(
    forgetful: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """An audit cannot see who waits there; the line has the command."""
    vendor.change_rules(shows_unprocessed=False)
    push_is_held()
    pass_time(forgetful)
    audit_leads(repair=True)
    assert is_held(forgetful)
    assert 'leadloop release --campaign C1 --because "why"' in caplog.text
    with pytest.raises(UsageError, match="the reason is empty"):
        release_held(forgetful, Settings.load(), ["C1"], " \t")
    assert is_held(forgetful)
    result = release_held(forgetful, Settings.load(), ["C1"], "asked\nthe vendor")
    assert (result.released, result.not_held) == (["C1"], [])
    assert not is_held(forgetful)
    words = "SELECT released_reason FROM leadloop.create_holds"
    assert sql.fetch_value(forgetful, words) == "asked the vendor"
    again = release_held(forgetful, Settings.load(), ["C1"], "again")
    assert (again.released, again.not_held) == ([], ["C1"])
    # The person was wrong about a, and answers for it.
    assert push_leads()["created"] == 2


def test_a_listing_that_is_not_complete_lets_nobody_go(
    forgetful: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that moved may be one that we forgot."""
    push_is_held()
    pass_time(forgetful)
    vendor.add_fault(route="responses", kind="shift", every=1, rows=1)
    with pytest.raises(CampaignsFailed, match="changed during all"):
        audit_leads(repair=True)
    assert "could not be read completely" in caplog.text
    assert is_held(forgetful)


def test_an_insert_that_has_not_committed_is_waited_for(
    forgetful: Database, vendor: SandboxHandle
) -> None:
    """Else it would be new after the audit has let go."""
    push_is_held()
    pass_time(forgetful)
    insert = "INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('C1', 'c')"
    with forgetful.transaction() as connection:
        connection.exec_driver_sql(insert)
        with pytest.raises(CampaignsFailed, match=r"SQLSTATE 55P03.*run the command again"):
            audit_leads(repair=True)
    assert is_held(forgetful)
    audit_leads(repair=True)
    assert not is_held(forgetful)
    assert sql.fetch_statuses(forgetful)["c"] == "created"


def test_opt_outs_polls_and_lookups_go_on(forgetful: Database, vendor: SandboxHandle) -> None:
    """An opt-out of a forgotten lead reaches the vendor, though the lead is new here.

    Of a sync, the push alone fails.
    """
    factories.add_opt_outs(forgetful, "a", "c", "e")
    done = {"campaign_id": CAMPAIGN, "lead_id": "b", "processed_at": int(time.time() * 1000) - 2000}
    vendor.put_outcomes([done])
    with pytest.raises(CampaignsFailed) as caught:
        sync_leads()
    (reason,) = caught.value.reasons
    assert re.match(_HELD, reason)
    assert set(vendor.store.disabled(CAMPAIGN)) == {"a", "c"}
    assert sql.fetch_opt_outs(forgetful) == {"a": "disabled", "c": "disabled", "e": "failed"}
    assert set(sql.fetch_outcomes(forgetful)) == {"b"}
    assert sql.fetch_statuses(forgetful) == {
        **{"a": "new", "b": "created", "d": "created"},
        "e": "new",
    }
    pass_time(forgetful)
    audit_leads(repair=True)
    disable_leads()
    assert sql.fetch_opt_outs(forgetful)["e"] == "cancelled"
    assert push_leads()["created"] == 0
    assert created(vendor) == dict.fromkeys("abcd", 1)


def test_other_flows_detect_it_too(forgetful: Database, vendor: SandboxHandle) -> None:
    """A poll or a disable that comes first; neither fails because of it."""
    poll_outcomes()
    assert is_held(forgetful)
    push_is_held()


@pytest.mark.parametrize("how", ["changed", "forgotten", "restored"])
def test_a_hold_within_a_push_stops_it(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """From the next claim on; what has been sent is recorded.

    A database that has forgotten the run itself is no other run's declaration that it is dead.
    """
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, *[f"L{number:03d}" for number in range(30)])
    changed = "UPDATE leadloop.database_identity SET timeline = '000000FF'"
    statement = {
        "changed": changed,
        "forgotten": f"{changed}; DELETE FROM leadloop.sync_runs",
        "restored": "INSERT INTO leadloop.create_holds (campaign_id, reason) VALUES ('C1', 'x')",
    }[how]
    sql.execute(
        database,
        f"""CREATE FUNCTION public.pull() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                {statement}; RETURN NULL;
            END $$;
            CREATE TRIGGER pull AFTER UPDATE ON leadloop.leads FOR EACH ROW
                WHEN (NEW.lead_id = 'L004' AND NEW.status = 'created')
                EXECUTE FUNCTION public.pull()""",
    )
    push_is_held()
    assert len(created(vendor)) == 5
    assert sorted(sql.fetch_statuses(database).values()) == ["created"] * 5 + ["new"] * 25


def test_a_report_of_a_restore_is_idempotent(database: Database, vendor: SandboxHandle) -> None:
    """Of one campaign or of all; the others go on."""
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, "a", campaign=campaign)
    (first,) = report_restore(database, Settings.load(), ["C1"])
    assert first.reason == "a person reported a restore"
    with pytest.raises(CampaignsFailed, match=_HELD) as caught:
        push_leads()
    assert len(caught.value.reasons) == 1
    assert set(sql.fetch_statuses(database, "C2").values()) == {"created"}
    assert report_restore(database, Settings.load(), ["C1"]) == [first]
    both = report_restore(database, Settings.load(), [])
    assert [hold.campaign_id for hold in both] == ["C1", "C2"]
    assert both[0] == first
    with pytest.raises(UsageError, match="unknown campaign C3"):
        report_restore(database, Settings.load(), ["C3"])


def test_creates_are_held_while_an_opt_out_source_is_read(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the restore has lost of it is taken again later; no lead is sent meanwhile."""
    sql.execute(database, "CREATE SCHEMA crm; CREATE TABLE crm.out (lead_id text)")
    factories.add_campaign(database, opt_out_source="crm.out")
    factories.add_leads(database, "a")
    ours = session_settings.SESSION_SETTINGS.replace("lock_timeout = '30s'", "lock_timeout = '1s'")
    monkeypatch.setattr(session_settings, "SESSION_SETTINGS", ours)
    with database.dedicated() as reading:
        opt_out_source.lock_opt_out_source(reading, "C1")
        with pytest.raises(RunError, match="creates are held, but opt-outs that the restore"):
            report_restore(database, Settings.load(), [])
    push_is_held()
    assert len(report_restore(database, Settings.load(), [])) == 1


def test_a_person_may_come_before_any_run(forgetful: Database, vendor: SandboxHandle) -> None:
    """What they say covers the change that no run has detected yet: it does not hold again."""
    (hold,) = report_restore(forgetful, Settings.load(), [])
    assert hold.reason.startswith("the database has changed: database oid ")
    sql.execute(forgetful, "DELETE FROM leadloop.create_holds")
    sql.execute(forgetful, "UPDATE leadloop.database_identity SET timeline = '000000FF'")
    assert release_held(forgetful, Settings.load(), ["C1"], "planned").released == ["C1"]
    assert push_leads()["created"] == 3


def test_the_problem_has_the_command(database: Database) -> None:
    """Critical, and leads that wait are no other problem."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    sql.execute(database, "UPDATE leadloop.leads SET inserted_at = now() - interval '1 day'")
    report_restore(database, Settings.load(), [])
    query = "SELECT problem, severity, command FROM leadloop_monitor.problems"
    found = {row["problem"]: row for row in sql.fetch_rows(database, query)}
    assert found["creates_held"]["severity"] == "critical"
    assert found["creates_held"]["command"] == "leadloop audit --repair --campaign C1"
    assert "leads_unsent" not in found


def let_go(database: Database) -> None:
    """Have an audit end the hold once the time is over."""
    pass_time(database)
    audit_leads(repair=True)
    assert not is_held(database)


@pytest.mark.parametrize("how", ["failover", "snapshot"])
def test_a_real_server_that_has_forgotten(
    vendor: SandboxHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A promoted standby that was behind is detected; a snapshot put back has to be reported."""
    vendor.change_rules(repeat="second")
    with run_dedicated_postgres(tmp_path / "pg") as server:
        monkeypatch.setenv("LEADLOOP_DATABASE_URL", server.url)
        with Database(server.url, pool_size=2) as database:
            factories.add_campaign(database)
            factories.add_leads(database, "early")
            push_leads()
            factories.add_leads(database, *[f"L{number}" for number in range(5)])
        server.stop()
        server.back_up()
        server.start()
        assert push_leads()["created"] == 5
        server.stop()
        server.fail_over() if how == "failover" else server.restore()
        with Database(server.url, pool_size=2) as database:
            assert set(sql.fetch_statuses(database).values()) == {"created", "new"}
            if how == "snapshot":
                report_restore(database, Settings.load(), [])
            push_is_held()
            reason = sql.fetch_value(database, "SELECT reason FROM leadloop.create_holds")
            assert reason == (
                "the database has changed: timeline 00000001 → 00000002"
                if how == "failover"
                else "a person reported a restore"
            )
            let_go(database)
            factories.add_leads(database, "late")
            assert push_leads()["created"] == 1
            assert set(sql.fetch_statuses(database).values()) == {"created"}
    assert set(created(vendor).values()) == {1}


def test_a_failover_within_a_push(
    vendor: SandboxHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The push reconnects to a standby that was behind, and sends nobody more."""
    vendor.change_rules(repeat="second")
    ids = [f"L{number:03d}" for number in range(100)]
    with run_dedicated_postgres(tmp_path / "pg") as server:
        monkeypatch.setenv("LEADLOOP_DATABASE_URL", server.url)
        with Database(server.url, pool_size=2) as database:
            factories.add_campaign(database, batch_size=5)
            factories.add_leads(database, "early")
            push_leads()
            factories.add_leads(database, *ids)
        server.stop()
        server.back_up()
        server.start()
        vendor.add_fault(route="create", kind="slow", seconds=0.3)

        def fail_over() -> None:
            while len(created(vendor)) < 20:
                time.sleep(0.01)
            server.stop()
            server.fail_over()

        with ThreadPoolExecutor(1) as pool:
            failing_over = pool.submit(fail_over)
            with pytest.raises(CampaignsFailed):
                push_leads()
            failing_over.result(timeout=60)
        sent = created(vendor)
        vendor.clear_faults()
        push_is_held()
        assert created(vendor) == sent
        assert len(sent) < 101
        with Database(server.url, pool_size=2) as database:
            let_go(database)
            push_leads()
            assert set(sql.fetch_statuses(database).values()) == {"created"}
    assert created(vendor) == dict.fromkeys(["early", *ids], 1)


@pytest.mark.parametrize(("lead_id", "row"), BADLY_NAMED)
def test_a_lead_that_may_be_listed_under_another_name_stays_held(
    database: Database,
    vendor: SandboxHandle,
    odd_reads: OddReads,
    caplog: pytest.LogCaptureFixture,
    lead_id: str,
    row: Any,
) -> None:
    """The forgotten lead is new here and is not created again; a person decides."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b", lead_id)
    push_leads()
    report_restore(database, Settings.load(), [])
    pass_time(database)
    forget = "UPDATE leadloop.leads SET status = 'new', confirmed_at = NULL WHERE lead_id = :lead"
    sql.execute(database, forget, lead=lead_id)
    odd_reads.alter = lambda _, rows: [row if r["lead_id"] == lead_id else r for r in rows]
    audit_leads(repair=True)
    assert 'leadloop release --campaign C1 --because "why"' in caplog.text
    push_is_held()
    assert set(created(vendor).values()) == {1}


@pytest.mark.parametrize("enters", [False, True])
def test_a_row_that_leaves_between_two_pages_lets_nobody_go(
    database: Database, vendor: SandboxHandle, odd_reads: OddReads, enters: bool
) -> None:
    """The forgotten lead slips from page 2 to page 1, which has been read: it is found later."""
    factories.add_campaign(database, page_size=10)
    factories.add_leads(database, *(f"L{number}" for number in range(40)))
    push_leads()
    report_restore(database, Settings.load(), [])
    pass_time(database)
    forget = "UPDATE leadloop.leads SET status = 'new', confirmed_at = NULL WHERE lead_id = 'L10'"
    sql.execute(database, forget)
    let_row_leave(odd_reads, after=1, enters=enters)
    audit_leads(repair=True)
    assert not is_held(database)
    push_leads()
    assert set(created(vendor).values()) == {1}
