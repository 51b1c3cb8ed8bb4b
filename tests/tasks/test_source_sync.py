"""A campaign whose leads are in a table of the team's own, pushed against the sandbox."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from db.database import Database
from leadloop.cli.app import app
from leadloop.cli.plan import plan_campaigns
from leadloop.core.errors import RunError
from leadloop.core.summaries import collect_summary
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.forget import forget_leads
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.conftest import Ran
from tests.jobs import disable_leads, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

CUSTOMERS = """
CREATE SCHEMA crm;
CREATE TABLE crm.customers (lead_id text, phone_number text, contact_name text, state_code text,
                            plan text)
"""


@pytest.fixture
def crm(database: Database) -> Database:
    """A database with a campaign and the table that it takes its leads from."""
    sql.execute(database, CUSTOMERS)
    factories.add_campaign(database, source="crm.customers")
    return database


def test_json_columns_are_unwrapped(crm: Database, vendor: SandboxHandle) -> None:
    """`->` in place of `->>`: an id without quotes, no name that is null, no list as a name."""
    sql.execute_script(
        crm,
        """
        CREATE TABLE crm.documents (place integer, doc jsonb);
        INSERT INTO crm.documents VALUES
            (1, '{"id": "A-1", "phone": "4155550123", "name": "Ann", "state": "CA", "plan": [1]}'),
            (2, '{"id": 17, "phone": 4155550124, "name": "Bob", "state": "CA"}'),
            (3, '{"id": "A-3", "phone": "4155550125", "name": null, "state": "CA"}'),
            (4, '{"id": "A-4", "phone": "4155550126", "name": ["x"], "state": "CA"}'),
            (5, '{"id": null, "phone": "4155550127", "name": "Eve", "state": "CA"}');
        CREATE VIEW crm.unpacked AS
        SELECT doc -> 'id' AS lead_id, CAST(doc -> 'phone' AS json) AS phone_number,
               doc -> 'name' AS contact_name, doc -> 'state' AS state_code, doc -> 'plan' AS plan
          FROM crm.documents ORDER BY place;
        UPDATE leadloop.campaigns SET source = 'crm.unpacked';
        """,
    )
    assert push_leads()["created"] == 2
    leads = held(vendor)
    assert set(leads) == {"A-1", "17"}
    assert (leads["A-1"]["contact_name"], leads["A-1"]["plan"]) == ("Ann", [1])
    missing = "contact_name: missing"
    assert sql.fetch_errors(crm) == {"A-3": missing, "A-4": missing}


def add(database: Database, *leads: str, plan: str | None = None) -> None:
    """Rows of customers, as the team writes them."""
    for lead_id in leads:
        row = factories.build_lead(lead_id, plan=plan)
        sql.execute(
            database,
            "INSERT INTO crm.customers"
            " VALUES (:lead_id, :phone_number, :contact_name, :state_code, :plan)",
            **row,
        )


def held(vendor: SandboxHandle, campaign: str = factories.CAMPAIGN) -> dict[str, dict[str, Any]]:
    """What the vendor has of each lead."""
    return {
        lead.lead_id: {
            **{name: getattr(lead, name) for name in factories.build_lead(lead.lead_id)},
            **json.loads(lead.custom or b"{}"),
        }
        for lead in vendor.store.leads(campaign)
    }


def failure(*campaigns: str) -> str:
    """The line with which a push fails."""
    with pytest.raises(CampaignsFailed) as caught:
        push_leads(campaigns=list(campaigns) or None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_become_leads(crm: Database, vendor: SandboxHandle) -> None:
    """A push sends every row, each once; what is no field of a lead is a custom field."""
    add(crm, "007", "b", plan="gold")
    summary = push_leads()
    assert (summary["from_source"], summary["created"]) == (2, 2)
    assert held(vendor)["007"] == {**factories.build_lead("007"), "plan": "gold"}
    add(crm, "c")
    assert (push_leads()["from_source"], push_leads()["from_source"]) == (1, 0)
    assert vendor.store.creations(factories.CAMPAIGN) == {"007": 1, "b": 1, "c": 1}


def test_a_view_says_what_is_what(crm: Database, vendor: SandboxHandle) -> None:
    """Types and names are its business: numbers become text, JSON stays, nulls are left out."""
    sql.execute(
        crm,
        r"""CREATE VIEW crm.calls AS
            SELECT n AS lead_id, 4155550120 + n AS phone_number, 'Ann' AS contact_name,
                   CAST('ny' AS char(5)) AS state_code, date '2026-01-31' AS ebr_datetime,
                   CAST(NULL AS int) AS nothing, jsonb 'null' AS none, 1.50 AS price,
                   jsonb '{"a"\: null}' AS deep, timestamptz '2026-01-31 12\:00+02' AS at,
                   'x' AS "own", 'y' AS "Odd ""name"
              FROM generate_series(1, 2) AS n ORDER BY n DESC""",
    )
    sql.execute(crm, "UPDATE leadloop.campaigns SET source = 'crm.calls'")
    assert push_leads()["created"] == 2
    assert list(held(vendor)) == ["2", "1"], "sent in the view's order"
    assert held(vendor)["1"] == {
        "lead_id": "1",
        "phone_number": "+14155550121",
        "contact_name": "Ann",
        "state_code": "NY",
        "price": 1.5,
        "deep": {"a": None},
        "at": "2026-01-31T10:00:00+00:00",
        "own": "x",
        'Odd "name': "y",
    }
    moments = "SELECT DISTINCT ebr_datetime FROM leadloop.leads"
    assert sql.fetch_value(crm, moments) == datetime(2026, 1, 31, tzinfo=UTC)


def test_a_source_may_say_who_is_urgent(crm: Database, vendor: SandboxHandle) -> None:
    """It is no custom field. What is out of range counts as the nearest, and a null as 0."""
    sql.execute(
        crm,
        """CREATE TABLE crm.ranked AS
           SELECT lead_id, phone_number, contact_name, state_code, CAST(NULL AS bigint) AS priority
             FROM crm.customers""",
    )
    for lead_id, priority in {"a": None, "b": 0, "c": -5, "d": 7, "e": 10**9}.items():
        row = {**factories.build_lead(lead_id), "priority": priority}
        places = ", ".join(f":{name}" for name in row)
        sql.execute(crm, f"INSERT INTO crm.ranked VALUES ({places})", **row)
    sql.execute(crm, "UPDATE leadloop.campaigns SET source = 'crm.ranked', push_enabled = false")
    assert push_leads()["from_source"] == 5
    ranked = "SELECT lead_id, priority FROM leadloop.leads ORDER BY lead_id"

    def priorities() -> dict[str, int]:
        return {row["lead_id"]: row["priority"] for row in sql.fetch_rows(crm, ranked)}

    assert priorities() == {"a": 0, "b": 0, "c": 0, "d": 7, "e": 32767}
    sql.execute(crm, "UPDATE crm.ranked SET priority = 9 WHERE lead_id = 'b'")
    push_leads()
    assert priorities()["b"] == 9
    sql.execute(crm, "UPDATE leadloop.campaigns SET push_enabled = true")
    push_leads()
    assert list(held(vendor)) == ["e", "b", "d", "a", "c"]
    assert held(vendor)["e"] == factories.build_lead("e")


def test_a_priority_that_a_person_gives_stays(crm: Database, vendor: SandboxHandle) -> None:
    """Where the source has no such column; a row that changes does not undo it."""
    sql.execute(crm, "UPDATE leadloop.campaigns SET push_enabled = false")
    add(crm, "a", "b")
    push_leads()
    sql.execute(crm, "UPDATE leadloop.leads SET priority = 3 WHERE lead_id = 'b'")
    sql.execute(crm, "UPDATE crm.customers SET contact_name = 'Eve' WHERE lead_id = 'b'")
    assert push_leads()["from_source"] == 0
    (row,) = sql.fetch_rows(
        crm, "SELECT contact_name, priority FROM leadloop.leads WHERE lead_id = 'b'"
    )
    assert row == {"contact_name": "Eve", "priority": 3}
    sql.execute(crm, "UPDATE leadloop.campaigns SET push_enabled = true")
    push_leads()
    assert list(held(vendor)) == ["b", "a"]


def test_what_goes_and_what_changes_is_not_locked_at_once(
    crm: Database, vendor: SandboxHandle
) -> None:
    """While a push waits for a row that has changed it holds none: opt-outs meet no deadlock."""
    add(crm, "a", "z")
    sql.execute(crm, "UPDATE leadloop.campaigns SET enabled = false")
    run = partial(push_leads, campaigns=[factories.CAMPAIGN])
    vendor.add_fault(route="create", kind="status", status=401, when="before")
    with pytest.raises(CampaignsFailed):
        run()
    assert set(sql.fetch_statuses(crm).values()) == {"new"}
    vendor.clear_faults()
    sql.execute(crm, "UPDATE crm.customers SET plan = 'gold' WHERE lead_id = 'a'")
    sql.execute(crm, "DELETE FROM crm.customers WHERE lead_id = 'z'")
    lock = text("SELECT FROM leadloop.leads WHERE lead_id = :lead FOR NO KEY UPDATE NOWAIT")
    with ThreadPoolExecutor(1) as pool, crm.transaction() as upstream:
        upstream.execute(lock, {"lead": "a"})

        def opt_out_both() -> None:
            sql.wait_until_blocked(crm)
            upstream.execute(lock, {"lead": "z"})
            upstream.commit()

        opting_out = pool.submit(opt_out_both)
        assert run()["created"] == 1
        opting_out.result()


def test_a_source_brings_nobody_back(crm: Database, vendor: SandboxHandle) -> None:
    """Not even where the trigger missed an opt-out, and the lead's doubt is settled as absent."""
    add(crm, "a")
    missed = {"status": "in_doubt", "from_source": True}
    factories.add_leads(crm, factories.build_lead("a", **missed))
    factories.add_opt_outs(crm, "a")
    sql.execute(crm, "UPDATE leadloop.leads SET opted_out = false")
    forget_leads(crm, Settings.load(), factories.CAMPAIGN, ["a"])
    sql.execute(crm, "UPDATE leadloop.leads SET status = 'new', sent_at = NULL")
    assert push_leads()["created"] == 0
    left = sql.fetch_rows(crm, "SELECT phone_number, contact_name, state_code FROM leadloop.leads")
    assert left == [{"phone_number": None, "contact_name": None, "state_code": None}]
    assert vendor.store.creations(factories.CAMPAIGN) == {}


def test_a_row_that_was_committed_late_is_not_lost(crm: Database, vendor: SandboxHandle) -> None:
    """Its transaction began first and ended last: no cursor has gone past it."""
    with crm.transaction() as slow:
        slow.execute(text("INSERT INTO crm.customers VALUES ('a', '+14155550123', 'Ann', 'NY')"))
        add(crm, "b")
        push_leads()
    push_leads()
    assert set(held(vendor)) == {"a", "b"}


def test_rows_that_cannot_be_leads_are_counted(
    crm: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """Without an id, or with another's: one warning says how many; the others go out."""
    add(crm, "a", plan="silver")
    add(crm, "a", plan="gold")
    add(crm, "b")
    add(crm, "", "x" * 256)
    sql.execute(crm, "INSERT INTO crm.customers (phone_number) VALUES ('+14155550123')")
    assert push_leads()["from_source"] == 2
    assert held(vendor)["a"]["plan"] == "gold", "the same one, in whatever order they come"
    (said,) = [line for line in caplog.messages if "are skipped" in line]
    assert "3 without a lead_id" in said
    assert "1 whose lead_id another row has" in said
    assert "415" not in said


# 201 rows; `bad` has in it what cannot be read, in the column `broken`.
BROKEN = {
    "nul": 'json \'{"a": "\\u0000"}\'',
    "surrogate": "json '[\"\\ud800\"]'",
    "number": "json '1e200000'",
}
CAST_ERRORS = {
    "cast": "CAST(broken AS integer)",
    "time": "make_timestamp(2026, CAST(broken AS integer), 1, 0, 0, 0)",
    "division": "1 / CAST(replace(broken, 'x', '0') AS integer)",
}


def many_with_a_bad_one(database: Database, column: str) -> None:
    """A view of 201 customers, of which one makes the expression of a column fail."""
    sql.execute(
        database,
        """INSERT INTO crm.customers
           SELECT 'L' || n, '+1415555' || (1000 + n), 'Ann', 'NY', NULL
             FROM generate_series(1, 200) AS n UNION ALL
           SELECT 'bad', '+14155559999', 'Eve', 'NY', NULL""",
    )
    sql.execute(
        database,
        f"""CREATE VIEW crm.calls AS SELECT lead_id, phone_number, contact_name, state_code,
                   {column.replace(":", chr(92) + ":")} AS broken
              FROM (SELECT *, CASE lead_id WHEN 'bad' THEN 'x' ELSE '1' END AS broken
                      FROM crm.customers) AS customers;
            UPDATE leadloop.campaigns SET source = 'crm.calls'""",
    )


@pytest.mark.parametrize("kind", [*BROKEN, *CAST_ERRORS])
def test_a_row_that_cannot_be_read_holds_up_no_other(
    crm: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """200 of 201 are created; the other is named by id and column, counted, and a problem."""
    column = CAST_ERRORS.get(kind) or f"CASE WHEN lead_id = 'bad' THEN {BROKEN[kind]} END"
    many_with_a_bad_one(crm, column)
    for created in (200, 0):
        caplog.clear()
        with collect_summary() as collected:
            push_leads()
        assert (collected.summary["created"], collected.summary["unreadable_rows"]) == (created, 1)
        (said,) = [line for line in caplog.messages if "cannot be read" in line]
        assert said.endswith("are passed over: 1, lead 'bad' (column broken)")
    assert held(vendor).keys() == {f"L{n}" for n in range(1, 201)}
    problem = "SELECT amount FROM leadloop_monitor.problems WHERE problem = 'rows_unreadable'"
    assert sql.fetch_value(crm, problem) == 1
    plan = plan_of_source()
    assert (plan["send"], plan["passed_over"]) == (0, 1)
    sql.execute(crm, "DELETE FROM crm.customers WHERE lead_id = 'bad'")
    assert push_leads()["unreadable_rows"] == 0
    assert sql.fetch_rows(crm, problem) == []


def plan_of_source() -> dict[str, Any]:
    """What a plan counts."""
    settings = Settings.load()
    with Database(settings.require_database_url(), pool_size=2) as database:
        return plan_campaigns(database, settings, [])


def test_a_lead_whose_row_cannot_be_read_is_not_sent_as_it_was(
    crm: Database, vendor: SandboxHandle
) -> None:
    """It goes until its row can be read; whom the vendor has, or who opted out, stays."""
    hold(crm, "new", "out")
    factories.add_opt_outs(crm, "out")
    add(crm, "sent")
    push_leads()
    sql.execute(
        crm,
        """UPDATE crm.customers SET state_code = 'NY';
           CREATE TABLE crm.notes (lead_id text, note json);
           CREATE VIEW crm.calls AS SELECT * FROM crm.customers LEFT JOIN crm.notes USING (lead_id);
           UPDATE leadloop.campaigns SET source = 'crm.calls'""",
    )
    sql.execute(
        crm,
        "INSERT INTO crm.notes SELECT lead_id, CAST(:note AS json) FROM crm.customers",
        note='"\\u0000"',
    )
    add(crm, "fine")
    assert push_leads()["unreadable_rows"] == 3
    assert sql.fetch_statuses(crm) == {"fine": "created", "sent": "created", "out": "rejected"}
    sql.execute(crm, "DELETE FROM crm.notes")
    assert push_leads()["created"] == 1
    assert held(vendor).keys() == {"new", "sent", "fine"}


def hold(database: Database, *leads: str) -> None:
    """Leads of the source that stay unsent: their state is none until it is mended."""
    add(database, *leads)
    sql.execute(
        database,
        "UPDATE crm.customers SET state_code = '??' WHERE lead_id = ANY(:ids)",
        ids=[*leads],
    )
    push_leads()
    assert {sql.fetch_statuses(database)[lead_id] for lead_id in leads} == {"rejected"}


def test_a_row_that_changed_before_it_was_sent_is_refreshed(
    crm: Database, vendor: SandboxHandle
) -> None:
    """What was refused is tried again once its row is another, and not before."""
    hold(crm, "a", "b")
    assert push_leads()["rejected"] == 0
    sql.execute(crm, "UPDATE crm.customers SET state_code = 'CA', plan = 'new' WHERE lead_id = 'a'")
    summary = push_leads()
    assert (summary["created"], summary["from_source"], summary["rejected"]) == (1, 0, 0)
    assert (held(vendor)["a"]["plan"], held(vendor)["a"]["state_code"]) == ("new", "CA")
    assert sql.fetch_errors(crm).keys() == {"b"}


def test_what_did_not_change_is_not_written(crm: Database) -> None:
    """A million rows that stay as they are cost no write, whatever the time zone of a session."""
    sql.execute(
        crm, "ALTER TABLE crm.customers ADD at timestamptz DEFAULT now(), ADD price numeric"
    )
    hold(crm, "a")
    before = sql.fetch_value(crm, "SELECT xmin::text FROM leadloop.leads")
    name = sql.fetch_value(crm, "SELECT current_database()")
    sql.execute(crm, f"ALTER DATABASE {name} SET TimeZone = 'Asia/Kolkata'")
    push_leads()
    assert sql.fetch_value(crm, "SELECT xmin::text FROM leadloop.leads") == before


def test_a_sent_lead_stays_as_it_was_sent(crm: Database, vendor: SandboxHandle) -> None:
    """Changed or gone: it is the vendor's."""
    add(crm, "a", "b")
    push_leads()
    sql.execute(crm, "UPDATE crm.customers SET contact_name = 'Eve' WHERE lead_id = 'a'")
    sql.execute(crm, "DELETE FROM crm.customers WHERE lead_id = 'b'")
    assert push_leads()["created"] == 0
    names = "SELECT contact_name FROM leadloop.leads ORDER BY lead_id"
    assert [row["contact_name"] for row in sql.fetch_rows(crm, names)] == ["Ann a", "Ann b"]


def test_what_the_vendor_refused_waits_for_a_person(crm: Database, vendor: SandboxHandle) -> None:
    """It was sent, so a changed row does not send it again; `requeue` does, as the row is now."""
    vendor.change_rules(newer_limits=True)
    add(crm, "a", "b")
    sql.execute(crm, "UPDATE crm.customers SET contact_name = repeat('x', 60)")
    assert push_leads()["rejected"] == 2
    sql.execute(crm, "DELETE FROM crm.customers WHERE lead_id = 'b'")
    sql.execute(crm, "UPDATE crm.customers SET contact_name = 'Eve'")
    push_leads()
    assert (sql.fetch_statuses(crm), held(vendor)) == ({"a": "rejected", "b": "rejected"}, {})
    app(["requeue", "--rejected"], standalone_mode=False)
    push_leads()
    assert (set(sql.fetch_statuses(crm)), held(vendor)["a"]["contact_name"]) == ({"a"}, "Eve")


def test_a_row_that_vanished_is_not_sent(crm: Database, vendor: SandboxHandle) -> None:
    """Unless it comes again. A lead that came otherwise stays, whatever the source says."""
    hold(crm, "a", "b")
    factories.add_leads(crm, "loaded", factories.build_lead("b2"))
    add(crm, "b2", plan="of the source")
    sql.execute(crm, "DELETE FROM crm.customers WHERE lead_id = 'a'")
    sql.execute(crm, "UPDATE leadloop.leads SET status = 'new' WHERE lead_id = 'a'")
    push_leads()
    assert set(sql.fetch_statuses(crm)) == {"b", "loaded", "b2"}
    assert set(held(vendor)) == {"loaded", "b2"}
    assert "plan" not in held(vendor)["b2"]
    add(crm, "a")
    push_leads()
    assert set(held(vendor)) == {"loaded", "b2", "a"}


@pytest.mark.parametrize("disabled_before", [False, True])
def test_an_opt_out_of_a_lead_not_yet_taken_counts(
    crm: Database, vendor: SandboxHandle, disabled_before: bool
) -> None:
    """Whatever `disable` did about it meanwhile, the lead is cancelled when it comes."""
    add(crm, "a", "b")
    factories.add_opt_outs(crm, "a")
    if disabled_before:
        disable_leads()
    summary = push_leads()
    disable_leads()
    assert (summary["created"], summary["cancelled"]) == (1, 1)
    assert set(held(vendor)) == {"b"}
    assert sql.fetch_statuses(crm)["a"] == "cancelled"
    assert sql.fetch_opt_outs(crm) == {"a": "cancelled"}


def test_an_opt_out_counts_by_number_too(crm: Database, vendor: SandboxHandle) -> None:
    """A row with the number of somebody who opted out is not sent under its own id."""
    add(crm, "a", "b")
    sql.execute(crm, "UPDATE crm.customers SET phone_number = '+14155550123'")
    factories.add_opt_outs(crm, "a")
    push_leads()
    assert held(vendor) == {}
    assert set(sql.fetch_statuses(crm).values()) == {"cancelled"}


def test_who_opted_out_is_kept_though_the_row_is_gone(crm: Database, vendor: SandboxHandle) -> None:
    """The opt-out is settled as cancelled, and the number stays suppressed."""
    hold(crm, "a")
    factories.add_opt_outs(crm, "a")
    sql.execute(crm, "DELETE FROM crm.customers")
    sql.execute(crm, "UPDATE leadloop.leads SET status = 'new'")
    push_leads()
    disable_leads()
    assert sql.fetch_opt_outs(crm) == {"a": "cancelled"}
    add(crm, "z")
    number = factories.build_lead("a")["phone_number"]
    sql.execute(crm, "UPDATE crm.customers SET phone_number = :number", number=number)
    push_leads()
    assert held(vendor) == {}


def test_nothing_is_written_to_the_source_and_no_writer_waits(crm: Database) -> None:
    """Who changes the source all the while is not kept from it, nor keeps a push from its work."""
    add(crm, "a")
    sql.execute(crm, "UPDATE leadloop.campaigns SET source_timeout_s = 5")
    before = sql.fetch_value(crm, "SELECT xmin::text FROM crm.customers")
    with crm.transaction() as writer:
        writer.execute(text("LOCK TABLE crm.customers IN EXCLUSIVE MODE"))
        assert push_leads()["from_source"] == 1
    assert sql.fetch_value(crm, "SELECT xmin::text FROM crm.customers") == before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("crm.nobody", "is no table or view"),
        ("nowhere.leads", "is no table or view"),
        ("", "is no table or view"),
        ("a.b.c.d.e", "is no table or view"),
        ("crm.customers; DROP TABLE crm.customers", "is no table or view"),
        ("crm.customers AS own WHERE pg_sleep(9) IS NULL --", "is no table or view"),
        ('crm."customers', "is no table or view"),
        ("leadloop.leads", "is no table or view"),
        ("crm.no_id", "lacks the column lead_id"),
        ("crm.no_name", "lacks the columns contact_name, state_code"),
        ("crm.text_time", "ebr_datetime is text: it must be timestamptz, timestamp or date"),
        ("crm.own_names", "has columns whose names the vendor's API reserves: created_at"),
        ("crm.broken", r"cannot be read: Postgres refused: DivisionByZero (SQLSTATE 22012)"),
        ("crm.writing", "writes: a view may only read"),
        ("crm.sleeping", "was not read within 1 s"),
    ],
)
def test_a_source_that_is_no_good_is_one_line_and_no_other_campaigns_trouble(
    crm: Database, vendor: SandboxHandle, source: str, said: str
) -> None:
    """That campaign's run fails, with the reason and no row in it; the others do their work."""
    add(crm, "a")
    sql.execute(
        crm,
        r"""CREATE VIEW crm.no_id AS SELECT phone_number, contact_name, state_code
                                    FROM crm.customers;
            CREATE VIEW crm.no_name AS SELECT lead_id, phone_number FROM crm.customers;
            CREATE VIEW crm.text_time AS SELECT *, '2026' AS ebr_datetime FROM crm.customers;
            CREATE VIEW crm.own_names AS SELECT *, now() AS created_at FROM crm.customers;
            CREATE VIEW crm.broken AS SELECT *, 1 / length('') AS x FROM crm.customers;
            CREATE VIEW crm.sleeping AS SELECT *, pg_sleep(60) IS NULL AS x FROM crm.customers;
            CREATE FUNCTION crm.write() RETURNS text LANGUAGE sql AS
                'DELETE FROM crm.customers RETURNING lead_id';
            CREATE VIEW crm.writing AS SELECT *, crm.write() AS x FROM crm.customers""",
    )
    factories.add_campaign(crm, "bad", source=source, source_timeout_s=1)
    began = time.monotonic()
    line = failure()
    assert line.startswith("campaign bad: ")
    assert said in line
    assert "Ann" not in line
    assert time.monotonic() - began < 55
    assert set(held(vendor)) == {"a"}
    assert held(vendor, "bad") == {}
    assert sql.fetch_value(crm, "SELECT count(*) FROM crm.customers") == 1


def test_a_hostile_name_is_a_name(crm: Database, vendor: SandboxHandle) -> None:
    """Whatever characters a table's name has, it is that table that is read."""
    name = r"""cus"tomers'; DROP TABLE :x %(y)s %s \:z::text --"""
    quoted = '"' + name.replace('"', '""') + '"'
    add(crm, "a")
    with crm.transaction() as connection:
        escaped = quoted.replace("%", "%%")
        connection.exec_driver_sql(f"ALTER TABLE crm.customers RENAME TO {escaped}", ())
    sql.execute(crm, "UPDATE leadloop.campaigns SET source = :name", name=f"crm.{quoted}")
    assert push_leads()["from_source"] == 1
    assert set(held(vendor)) == {"a"}


def test_two_runs_take_one_after_the_other(crm: Database) -> None:
    """Of two that read at once the older reading might be written last: the second one waits."""
    add(crm, "a")
    sql.execute(crm, "UPDATE leadloop.campaigns SET source_timeout_s = 1")
    with crm.autocommit() as other:
        other.execute(text("SELECT pg_advisory_lock(hashtext('leadloop.source'), hashtext('C1'))"))
        assert "another run is still taking leads" in failure()
        other.execute(text("SELECT pg_advisory_unlock_all()"))
    assert push_leads()["created"] == 1


def test_another_trouble_is_not_taken_for_another_run(crm: Database) -> None:
    """A connection that is cut while it waits for its turn is told of as that."""

    def cut_waiting() -> None:
        sql.wait_until_blocked(crm)
        sql.execute(
            crm,
            """SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'""",
        )

    turn = "SELECT pg_advisory_lock(hashtext('leadloop.source'), hashtext('C1'))"
    with crm.autocommit() as other, ThreadPoolExecutor(1) as pool:
        other.execute(text(turn))
        cutting = pool.submit(cut_waiting)
        assert "cut" in failure()
        cutting.result()


def test_many_rows_are_taken_in_portions(
    crm: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a transaction of its own, in the order of the source, none left out."""
    monkeypatch.setattr("tasks.source_sync._CHUNK_ROWS", 7)
    add(crm, *[f"L{number:02d}" for number in range(50)])
    assert push_leads()["from_source"] == 50
    portions = sql.fetch_value(crm, "SELECT count(DISTINCT inserted_at) FROM leadloop.leads")
    assert portions == 8
    queue = "SELECT lead_id FROM leadloop.leads ORDER BY seq"
    assert [row["lead_id"] for row in sql.fetch_rows(crm, queue)] == sorted(held(vendor))


def view_calling(database: Database, body: str) -> None:
    """The source is a view of the customers that calls a function of theirs on each row."""
    sql.execute(
        database,
        f"""CREATE FUNCTION crm.meddle() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                {body}
                RETURN 'done';
            END $$;
            CREATE VIEW crm.calls AS SELECT customers.*, crm.meddle() AS meddled FROM crm.customers;
            UPDATE leadloop.campaigns SET source = 'crm.calls'""",
    )


def test_what_a_view_calls_stays_in_a_session_that_is_thrown_away(
    crm: Database, vendor: SandboxHandle
) -> None:
    """It sets a path on which ours would find other functions, and leaves a notice: in vain."""
    add(crm, "a", "b")
    factories.add_opt_outs(crm, "b")
    sql.execute(
        crm,
        """CREATE SCHEMA trap;
           CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql
               AS $$ BEGIN RAISE EXCEPTION 'ours looked here'; END $$""",
    )
    view_calling(
        crm,
        """PERFORM set_config('search_path', 'trap, pg_catalog', false);
           PERFORM set_config('statement_timeout', '1', false);
           PERFORM pg_notify('theirs', 'a');""",
    )
    with crm.autocommit() as listening:
        listening.execute(text("LISTEN theirs"))
        assert push_leads()["created"] == 1
        raw = listening.connection.driver_connection
        assert raw is not None
        raw.poll()
        assert raw.notifies == []
    assert sql.fetch_statuses(crm) == {"a": "created", "b": "cancelled"}
    assert held(vendor).keys() == {"a"}


def test_what_a_view_calls_can_write_nothing(crm: Database) -> None:
    """The transaction is read-only, and the function cannot make it another."""
    add(crm, "a")
    view_calling(crm, "DELETE FROM leadloop.disable_requests;")
    assert "writes: a view may only read" in failure()
    sql.execute(crm, "DROP VIEW crm.calls; DROP FUNCTION crm.meddle()")
    view_calling(crm, "PERFORM set_config('transaction_read_only', 'off', true);")
    assert "crm.calls" in failure()


def test_a_views_functions_find_what_their_owner_expects(
    crm: Database, vendor: SandboxHandle, database_url: str
) -> None:
    """Names without a schema in their bodies are looked up by the path of the role, as ever."""
    add(crm, "a")
    sql.execute(
        crm,
        """CREATE FUNCTION crm.helper() RETURNS text LANGUAGE sql AS $$ SELECT 'helped' $$;
           DO $$ BEGIN
               EXECUTE format('ALTER DATABASE %I SET search_path = crm', current_database());
           END $$""",
    )
    view_calling(crm, "PERFORM helper();")
    with Database(database_url, pool_size=1):
        assert push_leads()["created"] == 1


@pytest.fixture
def reader(crm: Database, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[str]:
    """A login of its own for sources: it may read the team's schema and nothing of leadloop's."""
    sql.execute(
        crm,
        """REVOKE ALL ON SCHEMA leadloop FROM PUBLIC; CREATE ROLE source_reader LOGIN;
           GRANT USAGE ON SCHEMA crm TO source_reader;
           ALTER DEFAULT PRIVILEGES IN SCHEMA crm GRANT SELECT ON TABLES TO source_reader;
           GRANT SELECT ON ALL TABLES IN SCHEMA crm TO source_reader""",
    )
    url = make_url(database_url).set(username="source_reader")
    monkeypatch.setenv("LEADLOOP_SOURCE_URL", url.render_as_string(hide_password=False))
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        sql.execute(crm, "DROP OWNED BY source_reader; DROP ROLE source_reader")


@pytest.mark.usefixtures("reader")
def test_a_login_for_sources_keeps_them_from_what_is_ours(
    crm: Database, vendor: SandboxHandle
) -> None:
    """Leads and the numbers' key cannot be read by what a view calls; the view itself works."""
    add(crm, "a")
    assert push_leads()["created"] == 1
    view_calling(crm, "PERFORM FROM leadloop.number_key;")
    assert "reads data that this role, or the view's owner, may not read" in failure()
    assert "reads data that this role" in str(plan_failure())


def plan_failure() -> RunError:
    """What a plan fails with."""
    settings = Settings.load()
    with (
        Database(settings.require_database_url(), pool_size=2) as database,
        pytest.raises(RunError) as caught,
    ):
        plan_campaigns(database, settings, [])
    return caught.value


def test_a_login_for_sources_is_one_of_the_same_database(
    crm: Database,
    reader: str,
    empty_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    leadloop: Callable[..., Ran],
) -> None:
    """Doctor and runs say so; and doctor says where it could read what is ours."""
    checks = {each["check"]: each for each in leadloop("doctor", "--json").last["checks"]}
    assert checks["source login"]["ok"]
    assert not checks["source login"]["warns"]
    monkeypatch.setenv("LEADLOOP_SOURCE_URL", empty_database_url)
    checks = {each["check"]: each for each in leadloop("doctor", "--json").last["checks"]}
    assert "another database" in checks["source login"]["detail"]
    assert "another database" in failure()
    monkeypatch.delenv("LEADLOOP_SOURCE_URL")
    checks = {each["check"]: each for each in leadloop("doctor", "--json").last["checks"]}
    assert checks["source login"]["warns"]
    assert "LEADLOOP_SOURCE_URL" in checks["source login"]["detail"]


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3cret", "LEADLOOP_SOURCE_URL is wrong: not a URL"),
        ("postgresql://a:s3cret@127.0.0.1:1/d", "LEADLOOP_SOURCE_URL is correct"),
    ],
)
def test_a_login_for_sources_that_is_wrong_is_named(
    crm: Database, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    """Not the setting of the other login, which is right."""
    monkeypatch.setenv("LEADLOOP_SOURCE_URL", url)
    assert said in failure()
    assert "s3cret" not in failure()


def test_a_source_is_named_with_its_schema(crm: Database) -> None:
    """No search path completes a name: whoever may write to a schema on it could take its place."""
    sql.execute(crm, "CREATE TABLE public.customers AS TABLE crm.customers")
    sql.execute(crm, "UPDATE leadloop.campaigns SET source = 'customers'")
    assert "write schema.name into leadloop.campaigns.source" in failure()


def test_a_stop_while_a_source_is_read_stops_the_push(
    crm: Database, vendor: SandboxHandle, environment: Path, prefect: str
) -> None:
    """SIGTERM ends it at once: neither a slow source nor the next campaign goes on."""
    add(crm, "a")
    view_calling(crm, "PERFORM pg_sleep(60);")
    factories.add_campaign(crm, "next")
    factories.add_leads(crm, "n", campaign="next")
    command = [str(Path(sys.executable).with_name("leadloop")), "push"]
    with subprocess.Popen(
        command, cwd=environment, env={**os.environ, "PREFECT_API_URL": prefect}
    ) as process:
        sleeping = """SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event = 'PgSleep'"""
        while sql.fetch_value(crm, sleeping) == 0:
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=40) == 1
    assert sql.fetch_value(crm, sleeping) == 0
    assert vendor.store.creations("next") == {}
    states = (
        "SELECT DISTINCT error FROM leadloop.sync_runs"
        " WHERE flow = 'push-leads' AND campaign_id <> ''"
    )
    assert all("stopped" in row["error"] for row in sql.fetch_rows(crm, states))


def test_texts_come_as_they_are_whatever_the_logins_speak(
    crm: Database, vendor: SandboxHandle, reader: str
) -> None:
    """Another client encoding of one of the two logins garbles no name."""
    sql.execute(
        crm,
        "INSERT INTO crm.customers VALUES ('a', '+14155550123', 'Zoë Ünal', 'NY', NULL)",
    )
    sql.execute(crm, "ALTER ROLE source_reader SET client_encoding = 'latin1'")
    assert push_leads()["created"] == 1
    assert held(vendor)["a"]["contact_name"] == "Zoë Ünal"


@pytest.mark.parametrize("reach", ["leadloop_like", "pg_execute_server_program"])
def test_doctor_looks_at_the_roles_that_a_login_may_change_to(
    crm: Database, reader: str, leadloop: Callable[..., Ran], reach: str
) -> None:
    """Rights that are not inherited can be had by SET ROLE, which a view's function may call."""
    sql.execute(crm, "CREATE ROLE leadloop_like; GRANT USAGE ON SCHEMA leadloop TO leadloop_like")
    try:
        sql.execute(crm, f"ALTER ROLE source_reader NOINHERIT; GRANT {reach} TO source_reader")
        checks = {each["check"]: each for each in leadloop("doctor", "--json").last["checks"]}
        assert checks["source login"]["warns"]
        assert reach in checks["source login"]["detail"]
    finally:
        sql.execute(crm, "DROP OWNED BY leadloop_like; DROP ROLE leadloop_like")
