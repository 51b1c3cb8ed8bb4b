"""`leadloop plan`, and what a push then really does."""

import json
import re
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from db.database import Database
from flows.push import push_leads
from leadloop.core.opt_ins import OPTED_OUT_REASON
from leadloop.core.push_preview import mask_values
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command

SOURCE = """
CREATE SCHEMA crm;
CREATE TABLE crm.customers (lead_id text, phone_number text, contact_name text, state_code text,
                            plan text)
"""


def customer(database: Database, **row: Any) -> None:
    """A row of the team's own table."""
    names, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    sql.execute(database, f"INSERT INTO crm.customers ({names}) VALUES ({places})", **row)


def everything(database: Database) -> str:
    """All that a plan must not change."""
    tables = ("leads", "disable_requests", "campaigns", "sync_runs", "suppressed_numbers")
    query = " || ".join(
        f"coalesce((SELECT string_agg(t.xmin::text || t::text, '' ORDER BY t::text)"
        f" FROM leadloop.{table} AS t), '')"
        for table in tables
    )
    return str(sql.fetch_value(database, f"SELECT {query}"))


@pytest.fixture
def mixed(database: Database) -> Database:
    """A campaign with a source, and leads of every kind that a push tells apart."""
    sql.execute(database, SOURCE)
    factories.add_campaign(database, source="crm.customers", batch_size=2, max_lead_age_s=3600)
    factories.add_leads(database, "loaded", factories.build_lead("bad", phone_number="415"))
    for lead_id in ("a", "b", "c"):
        customer(database, **factories.build_lead(lead_id), plan="gold")
    customer(database, **factories.build_lead("a"), plan="silver")
    customer(database, phone_number="+14155550123")
    customer(database, **factories.build_lead("odd", state_code="??"))
    customer(database, **factories.build_lead("out"))
    customer(
        database,
        **factories.build_lead("twin", phone_number=factories.build_lead("out")["phone_number"]),
    )
    factories.add_opt_outs(database, "out")
    for lead_id, status in (("left", "new"), ("mended", "rejected")):
        factories.add_leads(
            database, factories.build_lead(lead_id, status=status, from_source=True)
        )
    customer(database, **factories.build_lead("mended"), plan="mended")
    for lead_id, from_source in (("aged", True), ("old", False)):
        old = {"inserted_at": "2026-01-01", "from_source": from_source}
        factories.add_leads(database, factories.build_lead(lead_id, **old))
    customer(database, **factories.build_lead("aged"))
    return database


def test_it_says_what_a_push_then_does(
    mixed: Database,
    vendor: SandboxHandle,
    invoke: Command,
    prefect: str,
    quick_retries: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counts and reasons; nothing is sent or written before, and a push does just that."""
    # Several senders share what is left, and may make one batch more of it.
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    before = everything(mixed)
    ran = invoke("plan", "--json")
    assert ran.code == 0, ran.err
    assert everything(mixed) == before
    assert vendor.requests == []
    plan = ran.last["campaigns"]["C1"]
    assert {name: value for name, value in plan.items() if isinstance(value, int)} == {
        **{"send": 5, "refuse": 4, "cancel": 2, "requests": 3},
        **{"from_source": 6, "refreshed": 1, "gone": 1, "passed_over": 2},
        **{"left_source": 0, "opt_outs": 0, "to_disable": 0, "refused_opt_outs": 0},
    }
    assert plan["cancellations"] == {
        "opted out": 1,
        "its phone number has opted out under another lead": 1,
    }
    summary = push_leads()
    assert [summary[name] for name in ("created", "rejected", "cancelled", "requests")] == [
        *(plan["send"], plan["refuse"], plan["cancel"], plan["requests"])
    ]
    assert summary["from_source"] == plan["from_source"]
    assert set(sql.fetch_errors(mixed).values()) == {
        OPTED_OUT_REASON,
        *(*plan["refusals"], "its phone number has opted out under another lead"),
    }
    assert "too old: inserted more than 3600 s" in " ".join(plan["refusals"])


@pytest.mark.parametrize("arguments", [["--json"], [], ["--campaign", "C1"]])
def test_nothing_of_a_person_is_shown(
    mixed: Database, invoke: Command, arguments: list[str]
) -> None:
    """The sample has keys and kinds; no name, and no part of a number."""
    ran = invoke("plan", *arguments)
    shown = ran.out + ran.err
    assert "<text>" in shown
    assert not any(secret in shown for secret in ("Ann", "+1", "555", "gold", "NY", "415"))
    if "--json" in arguments:
        sample = ran.last["campaigns"]["C1"]["sample"]
        assert set(sample.values()) == {"<text>"}


def test_ids_are_listed_if_asked(mixed: Database, invoke: Command) -> None:
    """Those to send, and those of each reason; --json has the same lists."""
    assert "lead_ids" not in invoke("plan", "--json").last["campaigns"]["C1"]
    ids = invoke("plan", "--show", "--json").last["campaigns"]["C1"]["lead_ids"]
    assert sorted(ids["send"]) == ["a", "b", "c", "loaded", "mended"]
    assert ids["cancellations"] == {
        "opted out": ["out"],
        "its phone number has opted out under another lead": ["twin"],
    }
    refused = [lead_id for each in ids["refusals"].values() for lead_id in each]
    assert sorted(refused) == ["aged", "bad", "odd", "old"]
    shown = invoke("plan", "--show").out
    assert "cancel, opted out: out\n" in shown
    assert re.search(r"^refuse, too old: .*: (aged, old|old, aged)$", shown, re.MULTILINE)


def test_a_long_list_of_ids_is_cut(database: Database, invoke: Command) -> None:
    """After the first hundred of each reason, with the number of the others."""
    factories.add_campaign(database)
    factories.add_leads(database, *(f"L{number:03d}" for number in range(103)))
    ran = invoke("plan", "--show", COLUMNS="2000")
    (line,) = [line for line in ran.out.splitlines() if line.startswith("send: ")]
    assert (line.count("L"), line.endswith(" and 3 more")) == (100, True)


def test_every_kind_of_value_is_masked() -> None:
    """Also what Python would rather not parse."""
    body = b'{"a":"x","b":1.5,"c":true,"d":[1],"e":{"f":2},"n":null,"g":' + b"9" * 5000 + b"}"
    assert list(mask_values(body).values()) == [
        *("<text>", "<number>", "<true or false>", "<list>", "<object>", "<null>", "<number>")
    ]


def test_without_a_source_it_looks_at_what_is_loaded(database: Database, invoke: Command) -> None:
    """And at each campaign, or those that are named."""
    factories.add_campaign(database)
    factories.add_campaign(database, "other")
    factories.add_leads(database, "a", "b")
    factories.add_leads(database, "c", campaign="other")
    assert invoke("plan", "--json").last["send"] == 3
    named = invoke("plan", "--campaign", "C1", "--campaign", "other", "--json")
    assert [plan["send"] for plan in named.last["campaigns"].values()] == [2, 1]
    shown = invoke("plan", "--campaign", "C1")
    assert (shown.code, "a push of C1" in shown.out) == (0, True)
    assert invoke("plan", "--campaign", "nobody").code == 2


def test_campaigns_with_nothing_to_push_cost_no_question(
    database: Database, invoke: Command
) -> None:
    """Two thousand of them took half a minute; each is listed all the same."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    statements: list[str] = []

    def note_statement(_: Connection, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    def plan_all() -> tuple[dict[str, int], int]:
        """The leads to be sent of each campaign, and the statements that it took."""
        statements.clear()
        event.listen(Engine, "before_cursor_execute", note_statement)
        try:
            plans = invoke("plan", "--json").last["campaigns"]
        finally:
            event.remove(Engine, "before_cursor_execute", note_statement)
        return {name: plan["send"] for name, plan in plans.items()}, len(statements)

    alone, expected = plan_all()
    assert alone == {"C1": 1}
    for number in (1, 2, 3):
        factories.add_campaign(database, f"idle {number}")
    sent, counted = plan_all()
    assert counted == expected
    assert sent == {
        "C1": 1,
        **dict.fromkeys(("idle 1", "idle 2", "idle 3"), 0),
    }


def test_a_source_that_is_no_good_does_not_keep_it_from_the_others(
    mixed: Database, invoke: Command
) -> None:
    """Exit 1, one line, and the plans of the others; `doctor` has said so before."""
    factories.add_campaign(mixed, "bad", source="crm.nowhere")
    ran = invoke("plan", "--json")
    assert (ran.code, set(ran.last["campaigns"])) == (1, {"C1"})
    assert ran.err.strip() == (
        "leadloop: campaign bad: the campaign's source 'crm.nowhere' is no table or view of"
        " this database: write schema.name into leadloop.campaigns.source"
    )
    checks = {check["check"]: check for check in invoke("doctor", "--json").last["checks"]}
    assert checks["source of C1"]["ok"]
    assert not checks["source of bad"]["ok"]
    assert "is no table or view" in checks["source of bad"]["detail"]
    assert checks["API"]["ok"]


def test_a_view_cannot_write_while_it_is_looked_at(mixed: Database, invoke: Command) -> None:
    """Whatever functions it calls."""
    with mixed.transaction() as connection:
        connection.execute(
            text(
                """CREATE FUNCTION crm.write() RETURNS text LANGUAGE sql AS
                       'DELETE FROM crm.customers RETURNING lead_id';
                   CREATE VIEW crm.writing AS SELECT *, crm.write() AS x FROM crm.customers"""
            )
        )
    sql.execute(mixed, "UPDATE leadloop.campaigns SET source = 'crm.writing'")
    ran = invoke("plan")
    assert (ran.code, "a view may only read" in ran.err) == (1, True)


def test_it_is_one_json_object(mixed: Database, invoke: Command) -> None:
    """As every command's: the last line on stdout, and nothing else there."""
    assert set(json.loads(invoke("plan", "--json").out)) >= {"send", "refuse", "campaigns"}
