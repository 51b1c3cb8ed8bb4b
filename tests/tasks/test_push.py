"""`push-leads` as a deployment runs it, against the sandbox over real HTTP."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import leads, session_settings
from db.database import Database
from leadloop.core.errors import UsageError
from leadloop.core.summaries import collect_summary
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.conftest import Ran
from tests.cutting_proxy import run_cutting_proxy
from tests.dedicated_postgres import run_dedicated_postgres
from tests.jobs import disable_leads, push_leads
from tests.raw_http_server import response, run_raw_server

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_ANY_LOCK_WAIT = text("""
SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock')
""")
_OPT_OUT_BOTH = text("""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('C1', 'B'), ('C1', 'A')
""")
REFUSE_ALL = {"phone_number": "+1 415 not a number"}


def created(vendor: SandboxHandle) -> dict[str, int]:
    """How often the vendor has created each lead."""
    return dict(vendor.store.creations(factories.CAMPAIGN))


def ids(amount: int) -> list[str]:
    """So many lead ids."""
    return [f"L{number:04d}" for number in range(amount)]


def learned(database: Database) -> dict[str, int]:
    """What pushes have learned of the vendor's limits."""
    rows = sql.fetch_rows(database, "SELECT name, value FROM leadloop.learned_limits")
    return {row["name"]: row["value"] for row in rows}


def on_created(database: Database, lead_id: str, statement: str) -> None:
    """Have a statement carried out as soon as a lead of this id becomes created."""
    sql.execute(
        database,
        f"""CREATE FUNCTION public.pull() RETURNS trigger LANGUAGE plpgsql AS $pull$ BEGIN
                {statement}; RETURN NULL;
            END $pull$;
            CREATE TRIGGER pull AFTER UPDATE ON leadloop.leads FOR EACH ROW
                WHEN (NEW.lead_id = '{lead_id}' AND NEW.status = 'created')
                EXECUTE FUNCTION public.pull()""",
    )


def test_leads_are_created_in_batches(database: Database, vendor: SandboxHandle) -> None:
    """Pushing n leads takes ceil(n / batch) requests, and each is created once."""
    factories.add_campaign(database)
    factories.add_leads(database, *ids(250))
    summary = push_leads()
    assert summary["created"] == 250
    assert summary["requests"] == 3
    assert set(created(vendor).values()) == {1}
    assert set(sql.fetch_statuses(database).values()) == {"created"}


@pytest.mark.parametrize(
    ("change", "created_then", "requests"),
    [("batch_size = 20", 33, 3 + 2), ("required_fields = '{ebr_datetime}'", 3, 3)],
)
def test_a_changed_setting_counts_from_the_next_claim_on(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    created_then: int,
    requests: int,
) -> None:
    """Nobody has to stop a run that takes an hour."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    monkeypatch.setattr("tasks.context.MAX_ROW_AGE_S", 0)
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, *ids(33))
    on_created(database, "L0002", f"UPDATE leadloop.campaigns SET {change}")
    summary = push_leads()
    assert (summary["created"], summary["requests"]) == (created_then, requests)
    assert summary["rejected"] == 33 - created_then


def test_a_campaign_whose_row_is_deleted_ends_its_part_alone(
    database: Database, vendor: SandboxHandle
) -> None:
    """With one line; what it has not sent stays as it is, and the other campaign sends all."""
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign, batch_size=1)
        factories.add_leads(database, *ids(30), campaign=campaign)
    on_created(database, "L0004", "DELETE FROM leadloop.campaigns WHERE campaign_id = 'C1'")
    with pytest.raises(CampaignsFailed) as caught:
        push_leads()
    (line,) = caught.value.reasons
    assert line.startswith("campaign C1: its row was deleted")
    assert set(sql.fetch_statuses(database).values()) == {"created", "new"}
    assert set(sql.fetch_statuses(database, "C2").values()) == {"created"}
    problems = "SELECT problem FROM leadloop_monitor.problems WHERE campaign_id = 'C1'"
    assert sql.fetch_value(database, problems) == "campaign_unknown"


def test_a_push_without_one_usable_response_fails(
    database: Database, vendor: SandboxHandle
) -> None:
    """Its leads are in doubt, and the line says so; the next push goes on."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    vendor.add_fault(route="any", kind="reset", when="before")
    with pytest.raises(CampaignsFailed, match=r"answered no request of this run .* in doubt"):
        push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"in_doubt"}
    vendor.clear_faults()
    factories.add_leads(database, "c")
    # With the one that is created now, the vendor shows that the others are absent.
    assert push_leads()["created"] == 3
    assert created(vendor) == {"a": 1, "b": 1, "c": 1}


def test_a_campaign_whose_row_is_deleted_with_leads_in_doubt(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lookups are asked of what the row has learned: that is gone too."""
    monkeypatch.setattr("tasks.context.MAX_ROW_AGE_S", 1000)
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, "a", campaign=campaign)
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
        " WHERE campaign_id = 'C1'",
    )
    # Two lookups, each of which is tried three times.
    vendor.add_fault(route="responses", kind="status", status=500, times=6)
    on_created(database, "a", "DELETE FROM leadloop.campaigns WHERE campaign_id = 'C1'")
    with pytest.raises(CampaignsFailed, match=r"^campaign C1: its row was deleted"):
        push_leads()
    assert sql.fetch_statuses(database, "C2") == {"a": "created"}


def test_nothing_to_push_sends_nothing(database: Database, vendor: SandboxHandle) -> None:
    """A run with no new lead costs no request."""
    factories.add_campaign(database)
    assert push_leads()["requests"] == 0
    assert vendor.requests == []


def test_a_bad_lead_never_holds_up_a_good_one(database: Database, vendor: SandboxHandle) -> None:
    """Bad leads are rejected with a reason that repeats no value; the others are created."""
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("bad", **REFUSE_ALL), "good")
    summary = push_leads()
    assert (summary["created"], summary["rejected"]) == (1, 1)
    assert sql.fetch_statuses(database) == {"bad": "rejected", "good": "created"}
    assert sql.fetch_errors(database)["bad"].startswith("phone_number")
    assert "415" not in sql.fetch_errors(database)["bad"]
    assert set(created(vendor)) == {"good"}


def test_bad_leads_leave_no_half_empty_batches(database: Database, vendor: SandboxHandle) -> None:
    """The place of a bad lead in a batch is filled with the next good one."""
    factories.add_campaign(database, batch_size=10)
    bad = [factories.build_lead(f"B{number}", **REFUSE_ALL) for number in range(20)]
    good = ids(40)
    mixed = [item for pair in zip(bad, good[:20], strict=True) for item in pair]
    factories.add_leads(database, *mixed, *good[20:])
    summary = push_leads()
    assert summary["created"] == 40
    assert summary["requests"] <= 4 + 3


@pytest.mark.parametrize("policy", ["batch", "batch-anonymous", "lead"])
def test_a_refused_batch_is_narrowed_down(
    database: Database, vendor: SandboxHandle, policy: str
) -> None:
    """Whichever way the vendor refuses, the culprits alone are rejected, in its own words."""
    vendor.change_rules(bad_lead=policy, newer_limits=True)
    factories.add_campaign(database)
    factories.add_leads(database, *ids(60), factories.build_lead("long", contact_name="x" * 60))
    summary = push_leads()
    assert (summary["created"], summary["rejected"]) == (60, 1)
    assert sql.fetch_statuses(database)["long"] == "rejected"
    assert sql.fetch_errors(database)["long"].startswith("vendor: ")
    assert set(created(vendor).values()) == {1}
    # The batch, and two requests a halving for one culprit.
    assert summary["requests"] <= 1 + 2 * 6


def test_too_large_a_batch_is_halved_and_remembered(
    database: Database, vendor: SandboxHandle
) -> None:
    """After a 413 smaller batches go out, in later runs from the start."""
    vendor.change_rules(max_body_bytes=4000)
    factories.add_campaign(database)
    factories.add_leads(database, *ids(100))
    assert push_leads()["created"] == 100
    factories.add_leads(database, *[f"M{number}" for number in range(50)])
    push_leads()
    assert [entry.status for entry in vendor.requests].count(413) <= 6
    assert set(created(vendor).values()) == {1}
    assert 0 < learned(database)["batch_size"] < 100


@pytest.mark.parametrize("bytes_each", [50_000, 39_900])
def test_a_lead_of_many_bytes_makes_no_batch_smaller(
    database: Database, vendor: SandboxHandle, bytes_each: int
) -> None:
    """Whether it is too large by itself or just with others: later batches are as full as ever."""
    vendor.change_rules(max_body_bytes=40_000)
    factories.add_campaign(database)
    giant = factories.build_lead("giant", custom_fields={"note": "x" * (bytes_each - 200)})
    factories.add_leads(database, *ids(99), giant)
    push_leads()
    assert sql.fetch_statuses(database).pop("giant") == (
        "rejected" if bytes_each > 40_000 else "created"
    )
    assert set(created(vendor)) >= set(ids(99))
    factories.add_leads(database, *[f"M{number}" for number in range(40)])
    assert push_leads()["requests"] == 1
    assert learned(database).keys() == ({"batch_bytes"} if bytes_each < 40_000 else set())


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
        {"kind": "status", "status": 503, "headers": {"Retry-After": "0"}},
    ],
)
def test_what_was_certainly_not_done_is_sent_again(
    database: Database, vendor: SandboxHandle, fault: dict[str, Any]
) -> None:
    """A refusal that says when to come back costs a retry and no lead."""
    factories.add_campaign(database)
    factories.add_leads(database, *ids(150))
    vendor.add_fault(route="create", when="before", nth=1, **fault)
    assert push_leads()["created"] == 150
    assert set(created(vendor).values()) == {1}


@pytest.mark.parametrize(
    ("when", "fault"),
    [
        (when, fault)
        for when in ("before", "after")
        for fault in (
            {"kind": "status", "status": 500},
            {"kind": "status", "status": 503},
            {"kind": "reset"},
            {"kind": "foreign"},
        )
    ]
    + [("after", {"kind": "cut"})],
)
def test_what_may_have_been_done_is_looked_up_and_never_sent_twice(
    database: Database, vendor: SandboxHandle, fault: dict[str, Any], when: str
) -> None:
    """Whether the vendor carried the request out or not, each lead is created exactly once."""
    factories.add_campaign(database)
    factories.add_leads(database, *ids(30))
    vendor.add_fault(route="create", when=when, nth=2, **fault)
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 10")
    push_leads()
    push_leads()
    assert created(vendor) == dict.fromkeys(ids(30), 1)
    assert set(sql.fetch_statuses(database).values()) == {"created"}


@pytest.mark.parametrize(
    "answer", [{"status": 404, "body": "html"}, {"status": 404}], ids=["proxy", "vendor"]
)
def test_a_lookup_that_is_answered_404_proves_nothing(
    database: Database, vendor: SandboxHandle, answer: dict[str, Any]
) -> None:
    """A lead that was created and cannot be looked up stays in doubt; it is not sent again."""
    vendor.change_rules(repeat="second")
    factories.add_campaign(database, shows_unprocessed=True)
    factories.add_leads(database, *ids(5))
    vendor.add_fault(route="create", kind="reset", when="after", nth=1)
    vendor.add_fault(route="responses", kind="status", every=1, **answer)
    push_leads()
    assert created(vendor) == dict.fromkeys(ids(5), 1)
    assert set(sql.fetch_statuses(database).values()) == {"in_doubt"}


def test_the_vendors_words_are_kept_without_the_name(
    database: Database, vendor: SandboxHandle
) -> None:
    """What the vendor repeats of a person does not get into `last_error`."""
    vendor.change_rules(newer_limits=True)
    factories.add_campaign(database)
    name = "Zebulon " + "Quirk" * 12
    factories.add_leads(database, factories.build_lead("long", contact_name=name))
    push_leads()
    assert "Quirk" not in sql.fetch_errors(database)["long"]
    assert "Zebulon" not in sql.fetch_errors(database)["long"]


def test_a_vendor_that_never_answers_creates_does_not_get_the_whole_backlog(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run gives up after a few batches; they are in doubt, and the rest is still new."""
    monkeypatch.setenv("LEADLOOP_SETTLE", "60")
    monkeypatch.setattr("tasks.retries.MAX_FRUITLESS_ATTEMPTS", 3)
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, *ids(100))
    vendor.add_fault(route="create", when="after", kind="status", status=500, every=1)
    vendor.change_rules(shows_unprocessed=False)
    with pytest.raises(CampaignsFailed):
        push_leads()
    doubts = list(sql.fetch_statuses(database).values()).count("in_doubt")
    assert 1 <= doubts <= 4 + 2
    assert set(created(vendor).values()) == {1}


def test_doubt_stays_where_the_vendor_hides_unprocessed_leads(
    database: Database, vendor: SandboxHandle
) -> None:
    """Absence proves nothing there: the leads stay in doubt, until their outcome or a person."""
    vendor.change_rules(shows_unprocessed=False)
    factories.add_campaign(database, batch_size=10)
    factories.add_leads(database, *ids(20))
    vendor.add_fault(route="create", when="before", nth=2, kind="status", status=500)
    push_leads()
    summary = push_leads()
    assert summary["in_doubt"] == 10
    assert sorted(sql.fetch_statuses(database).values()) == ["created"] * 10 + ["in_doubt"] * 10
    assert set(created(vendor).values()) == {1}


def test_an_answer_that_leaves_a_lead_out_settles_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom it names is created or rejected; who is missing is in doubt, and is not sent again."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b", "c")
    told = '{"created": ["a"], "errors": {"b": "full"}}'
    nobody = response("200 OK", '{"count": 0, "results": []}')
    with run_raw_server(response("201 Created", told), nobody) as odd:
        monkeypatch.setenv("LEADLOOP_API_URL", odd.url)
        summary = push_leads()
    assert sql.fetch_statuses(database) == {"a": "created", "b": "rejected", "c": "in_doubt"}
    assert (summary["created"], summary["rejected"], summary["in_doubt"]) == (1, 1, 1)
    assert sum(request.startswith(b"POST") for request in odd.requests) == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "413 Too Large", "422 No"])
@pytest.mark.parametrize(
    ("told", "statuses"),
    [
        ({"created": 3, "failed": [{"lead_id": "b", "error": "full"}]}, {"b": "rejected"}),
        ({"status": "partial", "created": 3, "failed": 1}, {}),
        ({"message": "3 of 4 leads created"}, {}),
        ({"created": ["a"], "errors": {"b": "full"}}, {"a": "created", "b": "rejected"}),
    ],
    ids=str,
)
def test_a_refusal_that_states_that_it_created_some_is_not_sent_again(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    told: dict[str, Any],
    statuses: dict[str, str],
) -> None:
    """Whom it names is settled; all others may exist, so they are in doubt and looked up."""
    factories.add_campaign(database)
    factories.add_leads(database, *"abcd")
    nobody = response("200 OK", '{"count": 0, "results": []}')
    with run_raw_server(response(status, json.dumps(told)), nobody) as odd:
        monkeypatch.setenv("LEADLOOP_API_URL", odd.url)
        push_leads()
    assert sql.fetch_statuses(database) == dict.fromkeys("abcd", "in_doubt") | statuses
    assert sum(request.startswith(b"POST") for request in odd.requests) == 1


def test_a_duplicate_counts_as_created(database: Database, vendor: SandboxHandle) -> None:
    """A lead that the vendor says it has already is created, not rejected."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    push_leads()
    sql.execute(database, "UPDATE leadloop.leads SET status = 'new' WHERE lead_id = 'a'")
    assert push_leads()["created"] == 1
    assert created(vendor) == {"a": 1, "b": 1}


@pytest.mark.parametrize("named", [True, False])
def test_a_reason_that_merely_contains_exists_is_no_proof(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """The lead is in doubt; lookups show that it was not created, so it is sent again."""
    factories.add_campaign(database)
    factories.add_leads(database, "before")
    push_leads()
    factories.add_leads(database, *(["a", "b"] if named else ["b"]))
    reason = "Lead exists in another campaign"
    told = {"errors": {"a": "full", "b": reason}} if named else {"detail": reason}
    with run_raw_server(response("400 Bad Request", json.dumps(told))) as odd:
        monkeypatch.setenv("LEADLOOP_API_URL", odd.url)
        push_leads()
    assert sql.fetch_statuses(database)["b"] == "in_doubt"
    assert reason in sql.fetch_errors(database)["b"]
    monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
    sql.execute(database, "UPDATE leadloop.leads SET next_try_at = NULL")
    push_leads()
    assert sql.fetch_statuses(database)["b"] == "created"
    assert created(vendor) == {"before": 1, "b": 1}


def test_a_lead_that_opted_out_is_never_sent(database: Database, vendor: SandboxHandle) -> None:
    """It is cancelled inside the claim, without a disable having run."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    factories.add_opt_outs(database, "a")
    assert push_leads()["cancelled"] == 1
    assert sql.fetch_statuses(database) == {"a": "cancelled", "b": "created"}
    assert sql.fetch_opt_outs(database) == {"a": "cancelled"}
    assert set(created(vendor)) == {"b"}


def test_one_campaign_does_not_fail_the_others(database: Database, vendor: SandboxHandle) -> None:
    """The others are done; the run fails and says which campaign it was, with what was done."""
    vendor.change_rules(campaigns={"good": "Good"})
    for campaign in ("gone", "good"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, *ids(3), campaign=campaign)
    with (
        collect_summary() as collected,
        pytest.raises(CampaignsFailed, match=r"campaign gone.*404"),
    ):
        push_leads()
    assert collected.summary["created"] == 3
    assert set(sql.fetch_statuses(database, "gone").values()) == {"new"}
    states = sql.fetch_rows(database, "SELECT campaign_id, state FROM leadloop.sync_runs")
    assert {row["campaign_id"]: row["state"] for row in states} == {
        "": "completed",
        "gone": "failed",
        "good": "completed",
    }


def test_a_refused_login_stops_the_run(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leads stay new, and the message says what to check, without the token."""
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "wrong-token")
    factories.add_campaign(database)
    factories.add_leads(database, *ids(5))
    with pytest.raises(CampaignsFailed, match="LEADLOOP_API_TOKEN") as caught:
        push_leads()
    assert "wrong-token" not in str(caught.value)
    assert set(sql.fetch_statuses(database).values()) == {"new"}


@pytest.fixture
def oauth(environment: Path, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login by password instead of the fixed token."""
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    for name in ("client_id", "client_secret", "username", "password"):
        monkeypatch.setenv(f"LEADLOOP_{name.upper()}", getattr(vendor.rules, name))


@pytest.mark.usefixtures("oauth")
def test_nobody_is_claimed_while_the_run_logs_in(database: Database, vendor: SandboxHandle) -> None:
    """Who opts out while the login takes its time is not sent."""
    vendor.add_fault(route="token", kind="slow", seconds=2)
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")

    def opt_out_at_the_login() -> None:
        while not vendor.requests:
            time.sleep(0.01)
        factories.add_opt_outs(database, "a")

    with ThreadPoolExecutor(1) as pool:
        opting_out = pool.submit(opt_out_at_the_login)
        push_leads()
        opting_out.result()
    assert sql.fetch_statuses(database) == {"a": "cancelled", "b": "created"}
    assert set(created(vendor)) == {"b"}


@pytest.mark.usefixtures("oauth")
def test_a_token_that_is_no_longer_good_costs_a_retry_and_no_lead(
    database: Database, vendor: SandboxHandle
) -> None:
    """The leads are claimed anew once there is another token; each is created once."""
    factories.add_campaign(database, batch_size=10)
    factories.add_leads(database, *ids(40))
    vendor.add_fault(route="create", kind="status", status=401, when="before", nth=2)
    assert push_leads()["created"] == 40
    assert created(vendor) == dict.fromkeys(ids(40), 1)
    assert [entry.kind for entry in vendor.requests].count("token") == 2


@pytest.mark.parametrize("policy", ["batch", "batch-anonymous", "lead"])
def test_a_campaign_that_refuses_everybody_does_not_get_the_whole_backlog(
    database: Database, vendor: SandboxHandle, policy: str
) -> None:
    """After a hundred refusals with the same words the run stops, and rejects nobody for it."""
    vendor.change_rules(newer_limits=True, bad_lead=policy)
    factories.add_campaign(database)
    factories.add_leads(
        database, *[factories.build_lead(name, contact_name="x" * 60) for name in ids(250)]
    )
    with (
        collect_summary() as collected,
        pytest.raises(CampaignsFailed, match=r"100 leads in a row .*campaign is open"),
    ):
        push_leads()
    assert collected.summary["rejected"] == 0
    assert set(sql.fetch_statuses(database).values()) == {"new"}
    assert sql.fetch_errors(database) == {}
    vendor.change_rules(newer_limits=False)
    assert push_leads()["created"] == 250
    assert set(created(vendor).values()) == {1}


def test_leads_that_are_refused_alike_hold_up_no_good_one(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a stopped run puts back go behind the others: it was their own fault after all."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    vendor.change_rules(newer_limits=True)
    factories.add_campaign(database)
    factories.add_leads(
        database, *[factories.build_lead(name, contact_name="x" * 60) for name in ids(150)]
    )
    factories.add_leads(database, "good")
    with pytest.raises(CampaignsFailed, match="100 leads in a row"):
        push_leads()
    push_leads()
    assert set(created(vendor)) == {"good"}


def test_a_push_states_what_it_rejected(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By reason, of our checks and of the vendor, redacted; with ids of the first ones."""
    monkeypatch.setenv("LEADLOOP_MAX_LEAD_AGE", "600")
    vendor.change_rules(newer_limits=True)
    factories.add_campaign(database)
    factories.add_leads(
        database,
        *(factories.build_lead(name, state_code="?") for name in ids(7)),
        factories.build_lead("long", contact_name="x" * 60),
        factories.build_lead("old", inserted_at="2026-01-01T00:00:00Z"),
        "good",
    )
    summary = push_leads()
    rows = summary["campaigns"][factories.CAMPAIGN]["rejections"]
    assert (summary["rejected"], sum(row["leads"] for row in rows)) == (9, 9)
    assert [row["leads"] for row in rows] == [7, 1, 1]
    assert set(rows[0]["sample_lead_ids"]) < set(ids(7))
    assert len(rows[0]["sample_lead_ids"]) == 5
    errors = sql.fetch_errors(database)
    assert all(errors[row["sample_lead_ids"][0]] == row["reason"] for row in rows)
    # The counts of the run's row hold no reason, and no id.
    stored = sql.fetch_rows(database, "SELECT CAST(counts AS text) AS text FROM leadloop.sync_runs")
    assert stored
    assert not any("rejections" in row["text"] for row in stored)


def test_leads_that_a_stopped_run_takes_back_are_not_rejected(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A streak of equal reasons ends the run: only what stays rejected is stated."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    vendor.change_rules(newer_limits=True)
    factories.add_campaign(database)
    factories.add_leads(
        database,
        factories.build_lead("bad", state_code="?"),
        *(factories.build_lead(name, contact_name="x" * 60) for name in ids(150)),
    )
    with collect_summary() as collected, pytest.raises(CampaignsFailed, match="100 leads in a row"):
        push_leads()
    (row,) = collected.summary["campaigns"][factories.CAMPAIGN]["rejections"]
    assert (row["leads"], row["sample_lead_ids"]) == (1, ["bad"])
    assert collected.summary["rejected"] == 1


def test_who_opts_out_while_everybody_is_refused_stays_rejected(database: Database) -> None:
    """Only of a lead that is rejected is the vendor told, and it may have it all the same."""
    factories.add_leads(database, "a", "b")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'rejected', run_id = 1")
    factories.add_opt_outs(database, "a")
    with database.transaction() as connection:
        both = ["a", "b"]
        back = leads.requeue_rejected(
            connection, campaign_id=factories.CAMPAIGN, run_id=1, lead_ids=both
        )
    assert back == ["b"]
    assert sql.fetch_statuses(database) == {"a": "rejected", "b": "new"}


def test_who_was_refused_and_opts_out_is_told_to_the_vendor(
    database: Database, vendor: SandboxHandle
) -> None:
    """It may have the lead all the same; where it knows nothing of it, the opt-out is settled."""
    vendor.change_rules(newer_limits=True)
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("long", contact_name="x" * 60))
    push_leads()
    factories.add_opt_outs(database, "long")
    disable_leads()
    assert [entry.kind for entry in vendor.requests].count("disable") == 3
    assert sql.fetch_opt_outs(database) == {"long": "cancelled"}


def test_an_unknown_campaign_is_told(database: Database) -> None:
    """The message names it and says where to add it."""
    factories.add_campaign(database)
    with pytest.raises(UsageError, match="unknown campaign nope"):
        push_leads(campaigns=["nope"])


def test_runs_at_the_same_time_create_each_lead_once(
    database: Database, vendor: SandboxHandle, prefect: str, leadloop: Callable[..., Ran]
) -> None:
    """Several processes share the leads of one campaign without a double."""
    factories.add_campaign(database, batch_size=10)
    factories.add_leads(database, *ids(300))
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(leadloop, "push", "--json", PREFECT_API_URL=prefect) for _ in range(3)]
    assert sum(run.result().last["created"] for run in runs) == 300
    assert created(vendor) == dict.fromkeys(ids(300), 1)


def test_a_lead_that_is_committed_late_is_sent_by_the_same_run(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place in the queue is before those that were taken already."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    factories.add_campaign(database, batch_size=1)
    vendor.change_rules(latency=1)
    with database.transaction() as connection:
        connection.execute(
            text("""INSERT INTO leadloop.leads
                           (campaign_id, lead_id, phone_number, contact_name, state_code)
                    VALUES (:campaign, 'late', :phone, 'Ann', 'NY')"""),
            {"campaign": factories.CAMPAIGN, "phone": factories.build_phone(1)},
        )
        factories.add_leads(database, "b", "c")

        def commit_while_the_first_is_on_its_way() -> None:
            while not vendor.requests:
                time.sleep(0.01)
            connection.commit()
            vendor.change_rules(latency=0)

        with ThreadPoolExecutor(1) as pool:
            committing = pool.submit(commit_while_the_first_is_on_its_way)
            assert push_leads()["created"] == 3
            committing.result()
    assert [e.kind for e in vendor.requests] == ["create"] * 3


def test_a_claim_whose_answer_got_lost_leaves_nobody_in_doubt(
    database: Database, database_url: str, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is cut between commit and answer: nobody was sent, so all are new again."""
    factories.add_campaign(database)
    factories.add_leads(database, *ids(5))
    with run_cutting_proxy(database_url, cut_at=b"SET status = picked.decision") as url:
        monkeypatch.setenv("LEADLOOP_DATABASE_URL", url)
        # No other sender takes what this one gives back.
        monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
        with (
            collect_summary() as collected,
            pytest.raises(CampaignsFailed, match="the connection was cut"),
        ):
            push_leads()
        assert collected.summary["in_doubt"] == 0
        assert set(sql.fetch_statuses(database).values()) == {"new"}
        assert push_leads()["created"] == 5
    assert created(vendor) == dict.fromkeys(ids(5), 1)


def test_a_postgres_that_is_restarted_under_a_push(
    vendor: SandboxHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on or ends in one clear line; then all are created, nobody twice."""
    with run_dedicated_postgres(tmp_path / "pg") as server:
        monkeypatch.setenv("LEADLOOP_DATABASE_URL", server.url)
        with Database(server.url, pool_size=1) as database:
            factories.add_campaign(database, batch_size=5)
            factories.add_leads(database, *ids(200))
        # Requests are on their way while it is down.
        vendor.add_fault(route="create", kind="slow", seconds=0.3)

        def restart() -> None:
            while len(vendor.requests) < 8:
                time.sleep(0.01)
            server.stop()
            server.start()

        with ThreadPoolExecutor(1) as pool:
            restarting = pool.submit(restart)
            trouble = ""
            try:
                push_leads()
            except CampaignsFailed as error:
                trouble = str(error)
            restarting.result(timeout=60)
        assert re.fullmatch("(campaign C1: .*Postgres.*(cut|refused|starting up).*)?", trouble)
        vendor.clear_faults()
        push_leads()
        with Database(server.url, pool_size=1) as database:
            assert set(sql.fetch_statuses(database).values()) == {"created"}
    assert created(vendor) == dict.fromkeys(ids(200), 1)


@pytest.mark.parametrize("fails", [False, True])
def test_who_opts_out_waits_for_no_campaign(
    database: Database, vendor: SandboxHandle, fails: bool
) -> None:
    """A push that must record what a create did, and waits for the campaign, locks no lead."""
    factories.add_campaign(database)
    factories.add_leads(database, "A", "B")
    if fails:
        vendor.add_fault(route="create", kind="reset", when="after", nth=1)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            # As a person changes a setting, or a lookup records what it has found.
            connection.execute(text("UPDATE leadloop.campaigns SET create_accepted_at = now()"))
            push = pool.submit(push_leads)
            while not (created(vendor) and connection.scalar(_ANY_LOCK_WAIT)):
                time.sleep(0.05)
            connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
            connection.execute(_OPT_OUT_BOTH)
        push.result()
    assert created(vendor) == {"A": 1, "B": 1}
    assert set(sql.fetch_statuses(database).values()) <= {"created", "in_doubt"}


def test_what_was_created_is_recorded_though_the_campaign_is_locked(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails, since it cannot record that creates work; no lead is left in doubt."""
    shorter = session_settings.SESSION_SETTINGS.replace("30s", "100ms")
    monkeypatch.setattr(session_settings, "SESSION_SETTINGS", shorter)
    factories.add_campaign(database)
    factories.add_leads(database, "A", "B")
    with database.transaction() as connection:
        connection.execute(text("UPDATE leadloop.campaigns SET create_accepted_at = now()"))
        with pytest.raises(CampaignsFailed):
            push_leads()
    assert created(vendor) == {"A": 1, "B": 1}
    assert set(sql.fetch_statuses(database).values()) == {"created"}
