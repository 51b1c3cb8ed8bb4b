"""A campaign whose opt-outs are in a table of the team's own, against the sandbox."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import opt_out_source, session_settings
from db.campaigns import select_campaigns
from db.database import Database
from leadloop.cli.plan import plan_campaigns
from leadloop.core import opt_out_looks, source_looks
from leadloop.core.source_requirements import SourceError
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks import opt_out_sync
from tasks.disable import DISABLE
from tasks.forget import forget_leads
from tasks.held_creates import report_restore
from tasks.jobs import CampaignsFailed
from tasks.opt_in import opt_in_leads
from tests import factories, sql
from tests.jobs import HOST, audit_leads, disable_leads, poll_outcomes, push_leads, sync_leads
from tests.sql import fetch_opt_outs, fetch_statuses
from tests.vendor_leads import create_elsewhere

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

NUMBER = "+14155550123"
ORIGINS = "SELECT lead_id, origin FROM leadloop.disable_requests ORDER BY lead_id"
PROBLEMS = "SELECT problem, amount, said FROM leadloop_monitor.problems ORDER BY problem"


_ONE_A_CHUNK = """
SELECT place, lead_id, phone_number FROM pg_temp.opt_out_changes WHERE place > :after
 ORDER BY place LIMIT 1
"""


@pytest.fixture
def crm(database: Database) -> Database:
    """A database with a campaign and the table that has its opt-outs."""
    sql.execute(
        database, "CREATE SCHEMA crm; CREATE TABLE crm.out (lead_id text, phone_number text)"
    )
    factories.add_campaign(database, opt_out_source="crm.out")
    return database


def opt_out(database: Database, lead_id: str | None = None, number: str | None = None) -> None:
    """Insert a row as the team does."""
    sql.execute(database, "INSERT INTO crm.out VALUES (:id, :number)", id=lead_id, number=number)


def disabled(vendor: SandboxHandle, campaign: str = "C1") -> set[str]:
    """Return the leads that the vendor has disabled."""
    return set(vendor.store.disabled(campaign))


def failure(run: Callable[[], object]) -> str:
    """Return the line with which a run fails."""
    with pytest.raises(CampaignsFailed) as caught:
        run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def problems(database: Database) -> dict[str, Any]:
    """Return the amount of each problem."""
    return {row["problem"]: row["amount"] for row in sql.fetch_rows(database, PROBLEMS)}


def test_a_row_stops_its_lead(crm: Database, vendor: SandboxHandle) -> None:
    """The sent one at the vendor, the other before it is sent; a push is enough to see the row."""
    factories.add_leads(crm, "sent")
    assert push_leads()["created"] == 1
    factories.add_leads(crm, "new", "other")
    opt_out(crm, "sent")
    opt_out(crm, "new")
    summary = push_leads()
    assert (summary["created"], summary["cancelled"]) == (1, 1)
    assert fetch_statuses(crm) == {"sent": "created", "new": "cancelled", "other": "created"}
    summary = disable_leads()
    assert (summary["disabled"], summary["from_opt_out_source"]) == (1, 0)
    assert disabled(vendor) == {"sent"}
    assert vendor.store.creations("C1") == {"sent": 1, "other": 1}
    rows = sql.fetch_rows(crm, ORIGINS)
    assert rows == [{"lead_id": each, "origin": "opt_out_source"} for each in ("new", "sent")]


def test_a_disable_takes_rows_too(crm: Database, vendor: SandboxHandle) -> None:
    """Also in a campaign that is not enabled, by a run that names none; each row once."""
    factories.add_leads(crm, "a", "b")
    push_leads()
    sql.execute(crm, "UPDATE leadloop.campaigns SET enabled = false")
    opt_out(crm, "a")
    summary = disable_leads()
    assert (summary["disabled"], summary["from_opt_out_source"]) == (1, 1)
    summary = disable_leads()
    assert (summary["disabled"], summary["from_opt_out_source"], summary["requests"]) == (0, 0, 0)
    assert disabled(vendor) == {"a"}


def test_a_number_stops_all_leads_that_have_it(crm: Database, vendor: SandboxHandle) -> None:
    """However it is written; and whoever comes with it later, in each campaign."""
    factories.add_campaign(crm, "C2")
    same = ["+1 (415) 555-0123", "415.555.0123", "4155550123.0", "tel: 415-555-0123", NUMBER]
    same += ["415-555-0123\ufe0f", "+14155550123\u2028"]
    for number, written in enumerate(same):
        factories.add_leads(crm, factories.build_lead(f"s{number}", phone_number=written))
    factories.add_leads(crm, "other")
    factories.add_leads(crm, factories.build_lead("far", phone_number=NUMBER), campaign="C2")
    assert push_leads()["created"] == len(same) + 2
    factories.add_leads(crm, factories.build_lead("new", phone_number=NUMBER))
    opt_out(crm, number="(415) 555 0123")
    summary = disable_leads()
    assert (summary["disabled"], summary["cancelled"]) == (len(same), 1)
    assert disabled(vendor) == {f"s{number}" for number in range(len(same))}
    assert disabled(vendor, "C2") == set(), "a number opts out sent leads of its campaign alone"
    for campaign in ("C1", "C2"):
        factories.add_leads(
            crm, factories.build_lead("later", phone_number=NUMBER), campaign=campaign
        )
    assert push_leads()["created"] == 0
    assert fetch_statuses(crm)["later"] == "cancelled"
    assert fetch_statuses(crm, "C2") == {"far": "created", "later": "cancelled"}


def test_a_number_counts_where_those_of_others_do_not(crm: Database, vendor: SandboxHandle) -> None:
    """A campaign that sends numbers which opted out under other leads heeds its own table."""
    sql.execute(crm, "UPDATE leadloop.campaigns SET sends_opted_out_numbers = true")
    opt_out(crm, number=NUMBER)
    disable_leads()
    factories.add_leads(crm, factories.build_lead("a", phone_number="415-555-0123"), "b")
    assert (push_leads()["created"], fetch_statuses(crm)["a"]) == (1, "cancelled")


def test_people_who_are_no_leads_cost_the_vendor_nothing(
    crm: Database, vendor: SandboxHandle
) -> None:
    """A table of all customers names many. Whoever of them comes later is never sent."""
    sql.execute(crm, "INSERT INTO crm.out SELECT 'p' || n, NULL FROM generate_series(1, 2500) AS n")
    summary = disable_leads()
    assert (summary["from_opt_out_source"], summary["requests"], summary["disabled"]) == (
        2500,
        0,
        0,
    )
    assert set(fetch_opt_outs(crm).values()) == {"cancelled"}
    assert audit_leads()["counts_differ"] == 0
    assert problems(crm) == {}
    sql.execute(crm, "UPDATE leadloop.disable_requests SET requested_at = now() - interval '1 day'")
    assert problems(crm) == {}
    sql.execute(crm, "DELETE FROM crm.out")
    factories.add_leads(crm, "p7", "q")
    assert push_leads()["created"] == 1
    assert fetch_statuses(crm) == {"p7": "cancelled", "q": "created"}


def test_a_stranger_whom_the_vendor_has_is_disabled(crm: Database, vendor: SandboxHandle) -> None:
    """Others have created the lead there; its outcome shows that."""
    factories.add_leads(crm, "a")
    push_leads()
    opt_out(crm, "b")
    disable_leads()
    assert fetch_opt_outs(crm) == {"b": "cancelled"}
    create_elsewhere(vendor, factories.build_lead("b"))
    done = int(time.time() * 1000) - 2000
    vendor.put_outcomes([{"campaign_id": "C1", "lead_id": "b", "processed_at": done}])
    assert poll_outcomes()["inserted"] == 1
    assert fetch_opt_outs(crm) == {"b": "requested"}
    disable_leads()
    assert disabled(vendor) == {"b"}


def test_a_lead_that_is_sent_while_its_row_is_taken_is_disabled(
    crm: Database, vendor: SandboxHandle
) -> None:
    """The claim cannot see the opt-out yet, and the opt-out has found no lead."""
    sql.execute_script(
        crm,
        """CREATE FUNCTION crm.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;
           CREATE TRIGGER wait AFTER INSERT ON leadloop.disable_requests
           EXECUTE FUNCTION crm.wait()""",
    )
    opt_out(crm, "a")
    with ThreadPoolExecutor(1) as pool:
        with crm.transaction() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
            disabling = pool.submit(disable_leads)
            sql.wait_until_blocked(crm)
            # A push that has read the source a moment ago.
            sql.execute(crm, "UPDATE leadloop.campaigns SET opt_out_source = NULL")
            factories.add_leads(crm, "a")
            assert push_leads()["created"] == 1
            sql.execute(crm, "UPDATE leadloop.campaigns SET opt_out_source = 'crm.out'")
        assert disabling.result()["from_opt_out_source"] == 1
    disable_leads()
    assert (disabled(vendor), fetch_opt_outs(crm)) == ({"a"}, {"a": "disabled"})


def test_an_id_in_another_notation_is_a_problem(crm: Database, vendor: SandboxHandle) -> None:
    """Nobody is opted out whom the row does not name, and somebody has to look."""
    factories.add_leads(crm, "A-1")
    opt_out(crm, "a-1")
    sync_leads()
    assert fetch_statuses(crm) == {"A-1": "created"}
    assert problems(crm) == {"opt_outs_misspelt": 1}


@pytest.mark.parametrize(("lead_id", "number"), [("a", None), (None, "(415) 555-0123")])
def test_who_opts_in_stays_until_a_row_comes_back(
    crm: Database, vendor: SandboxHandle, lead_id: str | None, number: str | None
) -> None:
    """The row may stand where it is; it counts again once it was gone."""
    factories.add_leads(crm, factories.build_lead("a", phone_number=NUMBER))
    opt_out(crm, lead_id, number)
    assert disable_leads()["cancelled"] == 1
    result = opt_in_leads(crm, Settings.load(), "C1", ["a"], "a mistake")
    assert result.suppressed == {}
    assert disable_leads()["from_opt_out_source"] == 0
    assert fetch_opt_outs(crm) == {}
    opt_out(crm, "somebody else")
    disable_leads()
    assert "a" not in fetch_opt_outs(crm)
    sql.execute(crm, "DELETE FROM crm.out")
    disable_leads()
    assert "a" not in fetch_opt_outs(crm)
    opt_out(crm, lead_id, number)
    assert push_leads()["created"] == 0
    assert fetch_statuses(crm) == {"a": "cancelled"}
    assert vendor.store.creations("C1") == {}


def test_a_restore_has_lost_opt_outs_taken_again(crm: Database, vendor: SandboxHandle) -> None:
    """By id and by number; but not those of people who opted in, where that can be told."""
    settings = Settings.load()
    people = [("id in", "415-555-0101"), ("number in", "415-555-0102"), ("again", "415-555-0103")]
    people += [("id lost", "415-555-0104"), ("number lost", "415-555-0105"), ("id", "415-555-0106")]
    for lead_id, number in people:
        factories.add_leads(crm, factories.build_lead(lead_id, phone_number=number))
    for row in (("id in", None), (None, "415-555-0102"), ("again", None)):
        opt_out(crm, *row)
    disable_leads()
    opt_in_leads(crm, settings, "C1", ["id in", "number in", "again"], "a mistake")
    sql.execute(crm, "DELETE FROM crm.out WHERE lead_id = 'again'")
    disable_leads()
    for row in (("again", None), ("id lost", None), (None, "+1 415 555 0105"), ("id", None)):
        opt_out(crm, *row)
    disable_leads()
    out = {"again", "id lost", "number lost", "id"}
    assert set(fetch_opt_outs(crm)) == out
    sql.execute(
        crm,
        """DELETE FROM leadloop.disable_requests WHERE lead_id <> 'id';
           DELETE FROM leadloop.suppressed_numbers;
           UPDATE leadloop.leads SET opted_out = false, status = 'new' WHERE lead_id <> 'id'""",
    )
    assert disable_leads()["from_opt_out_source"] == 0
    assert set(fetch_opt_outs(crm)) == {"id"}
    report_restore(crm, settings, [])
    assert disable_leads()["from_opt_out_source"] == 3
    assert set(fetch_opt_outs(crm)) == out
    report_restore(crm, settings, [])
    disable_leads()
    assert set(fetch_opt_outs(crm)) == out


def test_who_opts_in_is_sent(crm: Database, vendor: SandboxHandle) -> None:
    """The opt-in names what still suppresses the number: another campaign's table."""
    factories.add_leads(crm, factories.build_lead("a", phone_number=NUMBER))
    opt_out(crm, "a", NUMBER)
    disable_leads()
    opt_in_leads(crm, Settings.load(), "C1", ["a"], "a mistake")
    assert push_leads()["created"] == 1
    factories.add_campaign(crm, "C2", opt_out_source="crm.out")
    disable_leads()
    factories.add_leads(crm, factories.build_lead("b", phone_number=NUMBER))
    push_leads()
    result = opt_in_leads(crm, Settings.load(), "C1", ["b"], "a mistake")
    assert "the opt-out source of campaign C2 opted out" in result.suppressed["b"]


def test_a_row_that_vanishes_takes_nothing_back(crm: Database, vendor: SandboxHandle) -> None:
    """Nor does the end of the campaign's own table."""
    factories.add_leads(crm, "a", "b")
    opt_out(crm, "a")
    opt_out(crm, number=factories.build_lead("b")["phone_number"])
    disable_leads()
    sql.execute(crm, "DELETE FROM crm.out")
    disable_leads()
    sql.execute(crm, "UPDATE leadloop.campaigns SET opt_out_source = NULL")
    factories.add_leads(crm, factories.build_lead("c", **{"phone_number": "212-555-0100"}))
    same = {"phone_number": factories.build_lead("b")["phone_number"]}
    factories.add_leads(crm, factories.build_lead("d", **same))
    push_leads()
    assert fetch_statuses(crm) == dict.fromkeys("abd", "cancelled") | {"c": "created"}


def test_rows_that_name_nobody_hold_up_no_others(
    crm: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """They are counted and a problem until they are gone; the log has reasons and no number."""
    factories.add_leads(crm, "a", "b")
    for row in (("a", "77 555 0123"), ("b ", None), (None, "030 1234567"), (None, " ")):
        opt_out(crm, *row)
    opt_out(crm)
    caplog.set_level(logging.DEBUG)
    assert disable_leads()["cancelled"] == 1
    assert problems(crm) == {"opt_outs_unreadable": 5}
    (line,) = [each for each in caplog.messages if "are refused" in each]
    assert line == (
        "campaign C1: rows of its opt-out source are refused, so nobody opts out by them: 5"
        " (2 × phone_number: not a valid number (default region US);"
        " 1 × lead 'b ': lead_id: has a blank at an end or an invisible character;"
        " 1 × neither a lead_id nor a phone_number; 1 × phone_number: missing)"
    )
    assert "1234567" not in caplog.text
    assert "5550123" not in caplog.text
    caplog.clear()
    disable_leads()
    assert "are refused" in caplog.text, "for as long as they stand there"
    sql.execute(crm, "DELETE FROM crm.out WHERE lead_id IS DISTINCT FROM 'a'")
    sql.execute(crm, "UPDATE crm.out SET phone_number = NULL")
    disable_leads()
    assert problems(crm) == {}


def test_the_documented_query_finds_refused_numbers(crm: Database, vendor: SandboxHandle) -> None:
    """The log names no number, so somebody with both rights has to look."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "bring-your-own-table.md"
    (query,) = re.findall(r"^```postgresql\n(.*?);", page.read_text("utf-8"), re.M | re.S)
    for row in (("a", "77 555 0123"), (None, NUMBER)):
        opt_out(crm, *row)
    disable_leads()
    query = query.replace("crm.do_not_call", "crm.out").replace("12345", "C1")
    found = sql.fetch_rows(crm, query)
    assert found == [{"lead_id": "a", "phone_number": "77 555 0123"}]


def test_a_corrected_region_reads_numbers_again(crm: Database, vendor: SandboxHandle) -> None:
    """What was no number in the wrong one is one in the right one."""
    sql.execute(crm, "UPDATE leadloop.campaigns SET required_fields = '{lead_id,phone_number}'")
    opt_out(crm, number="030 1234567")
    disable_leads()
    assert problems(crm) == {"opt_outs_unreadable": 1}
    sql.execute(crm, "UPDATE leadloop.campaigns SET default_region = 'DE'")
    factories.add_leads(crm, {"lead_id": "a", "phone_number": "+49 30 1234567"})
    assert (push_leads()["created"], problems(crm)) == (0, {})
    assert fetch_statuses(crm) == {"a": "cancelled"}


def test_rows_that_cannot_be_read_hold_up_no_others(
    crm: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """A view that fails on some: the others count, and no row counts as gone meanwhile."""
    sql.execute(
        crm,
        """CREATE TABLE crm.people (id text, n text);
           INSERT INTO crm.people VALUES ('a', '1'), ('b', 'x'), ('c', '1');
           CREATE VIEW crm.some AS SELECT id AS lead_id, CAST(n AS integer) AS weight,
                  CASE WHEN CAST(n AS integer) > 0 THEN '' END AS phone_number FROM crm.people;
           UPDATE leadloop.campaigns SET opt_out_source = 'crm.some'""",
    )
    factories.add_leads(crm, "a", "b", "c")
    assert disable_leads()["cancelled"] == 2
    assert "cannot be read, so nobody opts out by them: 1, lead 'b'" in caplog.text
    assert problems(crm) == {"opt_outs_unreadable": 1}
    opt_in_leads(crm, Settings.load(), "C1", ["a"], "a mistake")
    sql.execute(crm, "DELETE FROM crm.people WHERE id = 'a'")
    disable_leads()
    sql.execute(crm, "INSERT INTO crm.people VALUES ('a', '1')")
    disable_leads()
    assert "a" not in fetch_opt_outs(crm), "nobody saw that it was gone"
    sql.execute(crm, "UPDATE crm.people SET n = '1'")
    assert disable_leads()["cancelled"] == 1
    assert problems(crm) == {}


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Hold a lock on the table that no read gets by."""
    sql.execute(database, "UPDATE leadloop.campaigns SET source_timeout_s = 1")
    with database.transaction() as connection:
        connection.execute(text("LOCK TABLE crm.out IN ACCESS EXCLUSIVE MODE"))
        yield


@contextmanager
def renamed(database: Database) -> Iterator[None]:
    """Have no such table for a while."""
    sql.execute(database, "ALTER TABLE crm.out RENAME TO gone")
    yield
    sql.execute(database, "ALTER TABLE crm.gone RENAME TO out")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(locked, "was not read within 1 s"), (renamed, "is no table or view of this database")],
)
def test_while_it_cannot_be_read_nobody_is_sent(
    crm: Database,
    vendor: SandboxHandle,
    broken: Callable[[Database], Any],
    reason: str,
) -> None:
    """Opt-outs on record, polls and other campaigns go on; then everything does."""
    factories.add_campaign(crm, "C2")
    factories.add_leads(crm, "sent")
    sync_leads()
    with broken(crm):
        for campaign in ("C1", "C2"):
            factories.add_leads(crm, "a", campaign=campaign)
        factories.add_opt_outs(crm, "sent")
        line = failure(sync_leads)
        assert line.count(f"campaign C1: the campaign's opt-out source 'crm.out' {reason}") == 2
        assert disabled(vendor) == {"sent"}
        assert fetch_statuses(crm) == {"sent": "created", "a": "new"}
        assert vendor.store.creations("C2") == {"a": 1}
        assert "opt_outs_unread" not in problems(crm)
        sql.execute(
            crm,
            "UPDATE leadloop.opt_out_source_reads SET failed_at = now() - interval '20 minutes'",
        )
        assert failure(disable_leads)
        (said,) = [
            row["said"]
            for row in sql.fetch_rows(crm, PROBLEMS)
            if row["problem"] == "opt_outs_unread"
        ]
        assert said.startswith("no lead is sent, because people may have opted out unnoticed: ")
        assert reason in said
    opt_out(crm, "a")
    sync_leads()
    assert fetch_statuses(crm) == {"sent": "created", "a": "cancelled"}
    assert problems(crm) == {}


@pytest.fixture
def limited(crm: Database, source_login: str) -> Database:
    """A database whose sources are read by a login that row level security may apply to."""
    sql.execute(
        crm,
        f"GRANT USAGE ON SCHEMA crm TO {source_login}; GRANT SELECT ON crm.out TO {source_login}",
    )
    return crm


def has_news() -> bool:
    """Have a live run look at the table."""
    with (
        DISABLE.open_context(Settings.load(), HOST) as context,
        context.database.transaction() as c,
    ):
        (campaign,) = select_campaigns(c, ["C1"], Settings.load().campaign_rules())
        return opt_out_sync.has_new_opt_outs(context, campaign)


@pytest.mark.parametrize("rows", [1, 0])
def test_hidden_rows_count_as_a_table_that_cannot_be_read(
    limited: Database, vendor: SandboxHandle, rows: int
) -> None:
    """Nobody is sent, and no row counts as gone; also if the table had no row before."""
    if rows:
        opt_out(limited, "a")
    assert disable_leads()["from_opt_out_source"] == rows
    assert not has_news()
    factories.add_leads(limited, "b")
    sql.execute(limited, "ALTER TABLE crm.out ENABLE ROW LEVEL SECURITY")
    for look in (push_leads, disable_leads):
        assert "'crm.out' has no row for the login that reads it, and row level" in failure(look)
    with pytest.raises(SourceError, match="row level security applies"):
        has_news()
    assert fetch_statuses(limited) == {"b": "new"}
    kept = "SELECT count(*) FROM leadloop.opt_out_source_rows"
    assert sql.fetch_value(limited, kept) == rows
    sql.execute(limited, "CREATE POLICY all_rows ON crm.out USING (true)")
    opt_out(limited, "b")
    push_leads()
    assert fetch_statuses(limited) == {"b": "cancelled"}


def test_a_locked_lead_holds_up_no_other_opt_outs(
    crm: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of other chunks, nor of numbers. Nobody is sent until it has opted out too."""
    ours = session_settings.SESSION_SETTINGS.replace("lock_timeout = '30s'", "lock_timeout = '2s'")
    monkeypatch.setattr(session_settings, "SESSION_SETTINGS", ours)
    monkeypatch.setattr(opt_out_source, "_LIST_CHANGES", text(_ONE_A_CHUNK))
    factories.add_leads(crm, "a", "b", factories.build_lead("c", phone_number=NUMBER))
    push_leads()
    sql.execute(crm, "UPDATE leadloop.campaigns SET source_timeout_s = 1")
    for row in (("a", None), ("b", None), (None, NUMBER)):
        opt_out(crm, *row)
    factories.add_leads(crm, "waits")
    with crm.transaction() as connection:
        connection.execute(text("SELECT FROM leadloop.leads WHERE lead_id = 'a' FOR UPDATE"))
        line = failure(disable_leads)
        assert "'crm.out': 1 opt-out could not be put on record" in line
        assert fetch_opt_outs(crm) == dict.fromkeys("bc", "requested")
        assert failure(disable_leads)
        assert disabled(vendor) == {"b", "c"}
        assert "could not be put on record" in failure(push_leads)
        assert fetch_statuses(crm)["waits"] == "new"
        sql.execute(
            crm,
            "UPDATE leadloop.opt_out_source_reads SET failed_at = now() - interval '20 minutes'",
        )
        assert problems(crm)["opt_outs_unread"] == 1
    assert push_leads()["created"] == 1
    disable_leads()
    assert disabled(vendor) == {"a", "b", "c"}
    assert problems(crm) == {}


def test_the_timeout_of_the_source_is_none_of_our_writes(
    crm: Database, vendor: SandboxHandle
) -> None:
    """A chunk may wait for a lock longer than the source may take."""
    sql.execute(crm, "UPDATE leadloop.campaigns SET source_timeout_s = 1")
    sql.execute_script(
        crm,
        """CREATE FUNCTION crm.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO crm.seen VALUES (current_setting('statement_timeout'));
               RETURN NULL; END $$;
           CREATE TABLE crm.seen (timeout text);
           CREATE TRIGGER note AFTER INSERT ON leadloop.disable_requests
           EXECUTE FUNCTION crm.note()""",
    )
    opt_out(crm, "a")
    disable_leads()
    assert sql.fetch_value(crm, "SELECT timeout FROM crm.seen") == "0"


def test_a_row_that_appears_while_a_push_runs_counts(
    crm: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The push looks again before it claims more, as often as that is due."""
    for module in (source_looks, opt_out_looks):
        monkeypatch.setattr(module, "LEAST_SOURCE_INTERVAL_S", 0.0)
        monkeypatch.setattr(module, "SOURCE_SHARE", 1e9)
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    sql.execute(crm, "UPDATE leadloop.campaigns SET batch_size = 1")
    factories.add_leads(crm, *(f"L{number}" for number in range(6)))
    sql.execute_script(
        crm,
        """CREATE FUNCTION crm.complain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO crm.out VALUES ('L4'), ('L5'); RETURN NULL; END $$;
           CREATE TRIGGER complain AFTER UPDATE ON leadloop.leads FOR EACH ROW
           WHEN (NEW.lead_id = 'L1' AND NEW.status = 'created') EXECUTE FUNCTION crm.complain()""",
    )
    summary = push_leads()
    assert (summary["created"], summary["cancelled"]) == (4, 2)
    assert vendor.store.creations("C1") == {f"L{number}": 1 for number in range(4)}


def test_a_row_that_appears_while_a_batch_is_divided_counts(
    crm: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each half waits for a permit, so that the push looks again before it is sent."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    at_second_look(monkeypatch, lambda: opt_out(crm, "L3"))
    vendor.add_fault(
        route="create", kind="status", status=422, when="before", lead_id="L0", every=1
    )
    factories.add_leads(crm, *(f"L{number}" for number in range(4)))
    push_leads()
    assert vendor.store.creations("C1") == {"L1": 1, "L2": 1}
    assert fetch_statuses(crm)["L3"] == "cancelled"


def test_a_source_is_read_after_opt_outs_on_record_elsewhere(
    crm: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be locked: the opt-outs of another campaign do not wait for that."""
    factories.add_campaign(crm, "C2")
    factories.add_leads(crm, "a", campaign="C2")
    push_leads()
    factories.add_opt_outs(crm, "a", campaign="C2")
    seen: list[set[str]] = []
    read = opt_out_looks.OptOutLooks.begin

    def begin(self: opt_out_looks.OptOutLooks, campaign: Any) -> None:
        seen.append(disabled(vendor, "C2"))
        read(self, campaign)

    monkeypatch.setattr(opt_out_looks.OptOutLooks, "begin", begin)
    disable_leads()
    assert seen == [{"a"}]


def at_second_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have a look due before each batch, and do something when the second one begins."""
    for module in (source_looks, opt_out_looks):
        monkeypatch.setattr(module, "LEAST_SOURCE_INTERVAL_S", 0.0)
        monkeypatch.setattr(module, "SOURCE_SHARE", 1e9)
    looks: list[str] = []
    read = opt_out_looks.OptOutLooks.begin

    def begin(self: opt_out_looks.OptOutLooks, campaign: Any) -> None:
        looks.append(campaign.campaign_id)
        if len(looks) == 2:
            act()
        read(self, campaign)

    monkeypatch.setattr(opt_out_looks.OptOutLooks, "begin", begin)


def test_a_push_does_not_look_for_each_request(
    crm: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in ten seconds, however many batches; and not at all where nobody is to be sent."""
    looks: list[str] = []
    read = opt_out_looks.OptOutLooks.begin

    def begin(self: opt_out_looks.OptOutLooks, campaign: Any) -> None:
        looks.append(campaign.campaign_id)
        read(self, campaign)

    monkeypatch.setattr(opt_out_looks.OptOutLooks, "begin", begin)
    push_leads(campaigns=["C1"])
    assert looks == []
    sql.execute(crm, "UPDATE leadloop.campaigns SET batch_size = 1")
    factories.add_leads(crm, *(f"L{number}" for number in range(20)))
    assert push_leads()["created"] == 20
    assert looks == ["C1"]


def test_waits_and_writes_do_not_make_looks_rare(
    crm: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on only while the lock is waited for, and while opt-outs are written."""
    passed = 0.0

    def pass_time(work: Callable[..., Any]) -> Callable[..., Any]:
        def slowed(*args: Any) -> Any:
            nonlocal passed
            passed += 29
            return work(*args)

        return slowed

    for name in ("lock_opt_out_source", "opt_out_leads"):
        monkeypatch.setattr(opt_out_source, name, pass_time(getattr(opt_out_source, name)))
    monkeypatch.setattr(opt_out_sync, "read_boot_clock", lambda: passed)
    ended: list[tuple[float, float]] = []
    end = opt_out_looks.OptOutLooks.end

    def record(
        self: opt_out_looks.OptOutLooks, campaign: Any, began: float, now: float, **more: Any
    ) -> None:
        ended.append((began, now))
        end(self, campaign, began, now, **more)
        assert self.is_due(campaign, now + 10)
        assert self.is_slow(campaign), "it must not hold up others"

    monkeypatch.setattr(opt_out_looks.OptOutLooks, "end", record)
    opt_out(crm, "a")
    disable_leads()
    assert (ended, passed) == ([(29, 29)], 58)


_WRITTEN = """
SELECT CAST(xmin AS text) AS xmin, CAST(t AS text) AS row FROM leadloop.{} AS t ORDER BY 2
"""
_TABLES = ("opt_out_source_rows", "opt_out_source_reads", "disable_requests", "suppressed_numbers")


def test_while_nothing_changes_nothing_is_written(crm: Database, vendor: SandboxHandle) -> None:
    """Not a row, and no table is staged: the digest is enough."""
    factories.add_leads(crm, "a")
    opt_out(crm, "a", NUMBER)
    opt_out(crm, number="x")
    disable_leads()

    def written() -> list[Any]:
        return [sql.fetch_rows(crm, _WRITTEN.format(table)) for table in _TABLES]

    before = written()
    statements = "SELECT count(*) FROM pg_class WHERE relname LIKE 'opt_out_rows%'"
    sql.execute(crm, "REVOKE TEMPORARY ON DATABASE " + _name(crm) + " FROM PUBLIC")
    for _ in range(2):
        disable_leads()
    assert written() == before
    assert sql.fetch_value(crm, statements) == 0


def _name(database: Database) -> str:
    name: str = sql.fetch_value(database, "SELECT quote_ident(current_database())")
    return name


def test_a_plan_shows_what_a_new_table_would_do(crm: Database, vendor: SandboxHandle) -> None:
    """Rows that are new, whom they would keep back, and whom the vendor would have to disable."""
    sql.execute(crm, "UPDATE leadloop.campaigns SET opt_out_source = NULL")
    number = {"phone_number": NUMBER}
    factories.add_leads(crm, "sent", factories.build_lead("sent too", **number), "stays")
    push_leads()
    factories.add_leads(crm, "new", factories.build_lead("new too", **number), "goes")
    for row in (("sent", None), ("new", "x"), (None, "415 555 0123"), ("stranger", None)):
        opt_out(crm, *row)
    settings = Settings.load()
    with Database(settings.require_database_url(), pool_size=2) as ours:
        before = plan_campaigns(ours, settings, [], opt_out_source="crm.out")
        sql.execute(crm, "UPDATE leadloop.campaigns SET opt_out_source = 'crm.out'")
        plan = plan_campaigns(ours, settings, [])
    assert plan == before
    counts = ("opt_outs", "to_disable", "refused_opt_outs", "cancel", "send")
    assert [plan[name] for name in counts] == [4, 2, 1, 2, 1]
    assert fetch_opt_outs(crm) == {}
    summary = sync_leads()
    assert summary["disable"]["from_opt_out_source"] == plan["opt_outs"]
    assert summary["disable"]["disabled"] == plan["to_disable"]
    assert (summary["push"]["created"], summary["disable"]["cancelled"]) == (1, 2)
    with Database(settings.require_database_url(), pool_size=2) as ours:
        plan = plan_campaigns(ours, settings, [])
    assert [plan[name] for name in counts] == [0, 0, 0, 0, 0]


def test_a_forgotten_person_stays_opted_out(crm: Database, vendor: SandboxHandle) -> None:
    """Whether or not the row still stands there; nothing of the number is kept but hashes."""
    factories.add_leads(crm, factories.build_lead("a", phone_number=NUMBER))
    opt_out(crm, "a", NUMBER)
    disable_leads()
    forget_leads(crm, Settings.load(), "C1", ["a"])
    disable_leads()
    factories.add_leads(crm, factories.build_lead("b", phone_number=NUMBER))
    assert push_leads()["created"] == 0
    assert fetch_statuses(crm) == {"a": "cancelled", "b": "cancelled"}


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ("note text", "has neither a column lead_id nor phone_number: see docs/how-to"),
        ("lead_id bigint", None),
        ("phone_number bigint, lead_id uuid", None),
        ("lead_id jsonb", None),
    ],
)
def test_a_table_needs_one_of_two_columns(
    crm: Database, vendor: SandboxHandle, columns: str, line: str | None
) -> None:
    """Of any type."""
    sql.execute(crm, f"CREATE TABLE crm.odd ({columns})")
    sql.execute(crm, "UPDATE leadloop.campaigns SET opt_out_source = 'crm.odd'")
    if line is None:
        disable_leads()
    else:
        assert line in failure(disable_leads)


def test_numbers_and_ids_of_other_types_are_their_text(
    crm: Database, vendor: SandboxHandle
) -> None:
    """JSON is unwrapped, and digits are no float."""
    sql.execute(
        crm,
        """CREATE VIEW crm.odd AS SELECT to_jsonb(id) AS lead_id, number AS phone_number
             FROM (VALUES ('a', 4155550123), (NULL, 2125550123)) AS each (id, number);
           UPDATE leadloop.campaigns SET opt_out_source = 'crm.odd'""",
    )
    for lead_id, number in (
        ("a", "+12125550199"),
        ("b", NUMBER),
        ("c", "+12125550123"),
        ("d", "+12125550188"),
    ):
        factories.add_leads(crm, factories.build_lead(lead_id, phone_number=number))
    push_leads()
    assert fetch_statuses(crm) == dict.fromkeys("abc", "cancelled") | {"d": "created"}


def test_the_source_of_leads_is_none_of_opt_outs(crm: Database) -> None:
    """A name that was copied would opt everybody out."""
    with pytest.raises(Exception, match="campaigns_opt_out_source_is_another"):
        sql.execute(crm, "UPDATE leadloop.campaigns SET source = 'crm.out'")


def test_rows_that_are_away_while_they_are_copied_are_read_again(
    crm: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The team's reload, or a second server, had no row at that moment: the digest is the same."""
    factories.add_leads(crm, "a")
    push_leads()
    opt_out(crm, "a")
    stage = opt_out_sync.stage_opt_outs

    def stage_during_a_reload(*given: Any) -> Any:
        sql.execute(crm, "DELETE FROM crm.out")
        staged = stage(*given)
        opt_out(crm, "a")
        return staged

    monkeypatch.setattr(opt_out_sync, "stage_opt_outs", stage_during_a_reload)
    assert disable_leads()["disabled"] == 0
    monkeypatch.setattr(opt_out_sync, "stage_opt_outs", stage)
    assert disable_leads()["disabled"] == 1
    assert disabled(vendor) == {"a"}


def test_an_id_of_any_length_holds_up_no_others(crm: Database, vendor: SandboxHandle) -> None:
    """No index takes it: it is refused alone."""
    factories.add_leads(crm, "a")
    push_leads()
    opt_out(crm, "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(9000)))
    opt_out(crm, "a")
    assert disable_leads()["disabled"] == 1
    refused = "SELECT reason FROM leadloop.opt_out_source_rows WHERE reason IS NOT NULL"
    assert sql.fetch_value(crm, refused).endswith("lead_id: more than 255 characters")
