"""Pushes that get past anything: a bad lead is found, and all others are created, nobody twice."""

from contextlib import suppress
from math import ceil, log2
from typing import Any

import pytest

from db.database import Database
from db.suspects import MAX_LONE_FAILURES
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import push_leads
from tests.odd_reads import OddReads
from tests.raw_http_server import response, run_raw_server

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

#: Runs after which every culprit is found: PROGRESS.md's K for creates.
_MAX_RUNS = 2 + ceil(log2(100)) + MAX_LONE_FAILURES


def add_leads(database: Database, amount: int, **campaign: Any) -> list[str]:
    """Add a campaign with leads L0, L1, and so on."""
    factories.add_campaign(database, **campaign)
    leads = [f"L{number}" for number in range(amount)]
    factories.add_leads(database, *leads)
    return leads


def count_requests(vendor: SandboxHandle, kind: str) -> int:
    """Count the requests of a kind that the vendor got."""
    return sum(entry.kind == kind for entry in vendor.requests)


def reach_due_times(database: Database) -> None:
    """Let the time pass until every suspect is due."""
    sql.execute(
        database,
        "UPDATE leadloop.leads SET next_try_at = clock_timestamp() - interval '1 second'"
        " WHERE next_try_at IS NOT NULL",
    )


def push_until_done(database: Database, *, runs: int = _MAX_RUNS) -> dict[str, str]:
    """Push until no lead waits, at most so often; return the leads' statuses."""
    statuses = sql.fetch_statuses(database)
    for _ in range(runs):
        push_leads()
        statuses = sql.fetch_statuses(database)
        if not {"new", "in_doubt"} & set(statuses.values()):
            break
        reach_due_times(database)
    return statuses


_FAILURES = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502, "body": "html"},
    {"kind": "reset"},
    {"kind": "hang", "seconds": 0.01},
    # A firewall's page: nothing was carried out.
    {"kind": "status", "status": 403, "body": "html"},
    {"kind": "status", "status": 400, "body": "html"},
    # A proxy's limit of bytes, or the vendor's.
    {"kind": "status", "status": 413, "body": "html"},
    {"kind": "status", "status": 413},
]


@pytest.mark.parametrize(
    "fault", _FAILURES, ids=lambda fault: str(fault.get("status", fault["kind"]))
)
def test_one_bad_lead_is_found_and_all_others_are_created(
    database: Database, vendor: SandboxHandle, fault: dict[str, Any]
) -> None:
    """It is rejected with the way the vendor failed; its batch-mates are created, each once."""
    leads = add_leads(database, 300)
    vendor.add_fault(route="create", lead_id="L130", **fault)
    statuses = push_until_done(database)
    assert statuses == {**dict.fromkeys(leads, "created"), "L130": "rejected"}
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(set(leads) - {"L130"}, 1)
    reason = sql.fetch_errors(database)["L130"]
    assert ("firewall" in reason) == (fault.get("status") in (400, 403))
    assert factories.build_lead("L130")["phone_number"] not in reason


def test_the_price_of_one_bad_lead(database: Database, vendor: SandboxHandle) -> None:
    """It is PROGRESS.md's: so many creates, and so many lookups, or the campaign's listing."""
    add_leads(database, 1)
    push_leads()
    before = {kind: count_requests(vendor, kind) for kind in ("create", "responses")}
    factories.add_leads(database, *(f"M{number}" for number in range(100)))
    vendor.add_fault(route="create", kind="status", status=500, lead_id="M42")
    statuses = push_until_done(database)
    assert statuses["M42"] == "rejected"
    halvings = ceil(log2(100))
    assert count_requests(vendor, "create") - before["create"] <= 2 * halvings + MAX_LONE_FAILURES
    rounds = halvings + MAX_LONE_FAILURES
    reads = count_requests(vendor, "responses") - before["responses"]
    assert reads <= 2 * 100 + halvings + 5 + 2 * rounds


def test_two_bad_leads_wait_for_others_where_nobody_else_is_left(
    database: Database, vendor: SandboxHandle
) -> None:
    """Two that fail alike may be an outage: each is tried again, and rejected beside others."""
    leads = add_leads(database, 40)
    for bad in ("L3", "L4"):
        vendor.add_fault(route="create", kind="status", status=500, lead_id=bad)
    for number in range(_MAX_RUNS):
        push_leads()
        reach_due_times(database)
        factories.add_leads(database, f"fresh{number}")
    statuses = push_until_done(database)
    assert {key: statuses[key] for key in leads} == {
        **dict.fromkeys(leads, "created"),
        "L3": "rejected",
        "L4": "rejected",
    }
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


@pytest.mark.parametrize(
    "fault", _FAILURES, ids=lambda fault: str(fault.get("status", fault["kind"]))
)
def test_nobody_is_rejected_where_everybody_fails_alike(
    database: Database, vendor: SandboxHandle, fault: dict[str, Any]
) -> None:
    """However long creates fail: the runs fail, and afterwards everybody is created once."""
    factories.add_campaign(database, batch_size=5)
    factories.add_leads(database, "before")
    push_leads()
    leads = [f"L{number}" for number in range(30)]
    factories.add_leads(database, *leads)
    vendor.add_fault(route="create", every=1, **fault)
    for _ in range(_MAX_RUNS):
        with suppress(CampaignsFailed):
            push_leads()
        reach_due_times(database)
        assert "rejected" not in sql.fetch_statuses(database).values()
    vendor.clear_faults()
    assert set(push_until_done(database).values()) == {"created"}
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys([*leads, "before"], 1)


@pytest.mark.parametrize("accepts_first", [0, 2])
def test_a_run_ends_where_every_create_is_too_large(
    database: Database, vendor: SandboxHandle, accepts_first: int
) -> None:
    """Also if it begins within the run: nobody is rejected, at the price of a few creates."""
    add_leads(database, 90, batch_size=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEADLOOP_CONCURRENCY", "1")
        vendor.add_fault(route="create", kind="slow", seconds=0, times=accepts_first)
        vendor.add_fault(route="create", kind="status", status=413, body="html")
        with pytest.raises(CampaignsFailed, match="413"):
            push_leads()
    statuses = list(sql.fetch_statuses(database).values())
    assert statuses.count("created") == 20 * accepts_first
    assert set(statuses) <= {"created", "new"}
    assert count_requests(vendor, "create") <= accepts_first + 2 * ceil(log2(20)) + 6


@pytest.mark.parametrize("place", [0, 19, 20, 89])
def test_a_lead_that_is_too_large_is_rejected_wherever_it_stands(
    database: Database, vendor: SandboxHandle, place: int
) -> None:
    """First or last of its batch: the others are created, and it is found by what they show."""
    vendor.change_rules(max_body_bytes=20_000)
    factories.add_campaign(database, batch_size=20)
    rows = [factories.build_lead(f"L{number}") for number in range(90)]
    rows[place] = factories.build_lead(f"L{place}", custom_fields={"note": "x" * 30_000})
    factories.add_leads(database, *rows)
    statuses = push_until_done(database)
    assert statuses.pop(f"L{place}") == "rejected"
    assert set(statuses.values()) == {"created"}
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


def test_fresh_leads_come_before_suspects(database: Database, vendor: SandboxHandle) -> None:
    """Whoever came in the meantime is not held up by leads that failed before."""
    add_leads(database, 10, batch_size=10)
    vendor.add_fault(route="create", kind="status", status=403, body="html", lead_id="L5")
    with pytest.MonkeyPatch.context() as patch:
        # The first create alone.
        patch.setattr("tasks.push.PushJob._send_suspects", lambda *_: True)
        push_leads()
    reach_due_times(database)
    factories.add_leads(database, "fresh")
    push_leads()
    first = vendor.store.leads(CAMPAIGN)[0].lead_id
    assert first == "fresh"


def test_a_suspect_that_opts_out_is_not_sent(database: Database, vendor: SandboxHandle) -> None:
    """As a suspect it has not been created, so it is cancelled."""
    add_leads(database, 4)
    vendor.add_fault(route="create", kind="status", status=403, body="html", lead_id="L1")
    push_leads()
    factories.add_opt_outs(database, "L1")
    reach_due_times(database)
    vendor.clear_faults()
    push_leads()
    assert sql.fetch_statuses(database)["L1"] == "cancelled"
    assert "L1" not in vendor.store.creations(CAMPAIGN)


# Outages.


_PAUSE = {"kind": "status", "status": 503, "headers": {"Retry-After": "0"}}


def test_a_read_follows_a_demand_for_a_pause(database: Database, vendor: SandboxHandle) -> None:
    """A create of the whole batch would put it in doubt if the vendor does not work yet."""
    leads = add_leads(database, 30)
    vendor.add_fault(route="create", nth=1, **_PAUSE)
    push_leads()
    assert [entry.kind for entry in vendor.requests] == ["create", "responses", "create"]
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(leads, 1)


@pytest.mark.parametrize("outage", ["no connection", "503"])
def test_the_first_request_of_the_run_after_an_outage_is_a_read(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    """The run before it has failed, and its leads are new; then a single lead goes first."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    leads = add_leads(database, 30)
    if outage == "503":
        vendor.add_fault(route="create", every=1, **_PAUSE)
    else:
        with run_raw_server(response("200 OK", "")) as gone:
            monkeypatch.setenv("LEADLOOP_API_URL", gone.url)
    with pytest.raises(CampaignsFailed):
        push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"new"}
    vendor.clear_faults()
    monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
    before = len(vendor.requests)
    push_leads()
    kinds = [entry.kind for entry in vendor.requests[before:]]
    assert kinds == ["responses", "create", "create"]
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(leads, 1)


# Successes without content.


@pytest.mark.parametrize("answer", ["list", "object", "empty-leads"])
def test_a_success_without_content_is_looked_up_once(
    database: Database, vendor: SandboxHandle, answer: str
) -> None:
    """A few leads of the first batch show what it means, and the others are believed (CASES S5)."""
    vendor.change_rules(created_answer=answer)
    leads = add_leads(database, 30, batch_size=10)
    assert push_leads()["created"] == 30
    assert count_requests(vendor, "responses") == 3
    factories.add_leads(database, "later")
    assert push_leads()["created"] == 1
    assert count_requests(vendor, "responses") == 3
    sql.execute(database, "UPDATE leadloop.learned_limits SET learned_at = now() - interval '2 d'")
    factories.add_leads(database, "next day")
    assert push_leads()["created"] == 1
    assert count_requests(vendor, "responses") == 4, "it is tried again after a day"
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys([*leads, "later", "next day"], 1)


@pytest.mark.parametrize(
    "body",
    [
        *("[]", "{}", '{"leads": []}', "null", '""', '{"status": "ok", "leads": []}', "[{}]"),
        *('{"status": "500"}', '{"saved": 0}', '"Please log in"', "[201, 201, 400]"),
        '{"created": ["Z1", "Z2", "Z3"]}',
        '[{"lead_id": "Z1", "status": "created"}, {"lead_id": "Z2"}, {"lead_id": "Z3"}]',
    ],
)
def test_a_success_without_content_that_created_nobody(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """It is not believed: the leads are in doubt, and created once the vendor works."""
    add_leads(database, 1)
    push_leads()
    factories.add_leads(database, "a", "b", "c")
    with run_raw_server(response("201 Created", body)) as odd:
        monkeypatch.setenv("LEADLOOP_API_URL", odd.url)
        with suppress(CampaignsFailed):
            push_leads()
    assert {sql.fetch_statuses(database)[lead_id] for lead_id in "abc"} == {"in_doubt"}
    monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
    assert set(push_until_done(database).values()) == {"created"}
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(["L0", "a", "b", "c"], 1)


def test_only_a_success_that_was_looked_up_is_believed(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That `[]` means created says nothing about a login page, which comes the same day."""
    vendor.change_rules(created_answer="list")
    add_leads(database, 3)
    assert push_leads()["created"] == 3
    factories.add_leads(database, "a")
    with run_raw_server(response("200 OK", '"Please log in"')) as odd:
        monkeypatch.setenv("LEADLOOP_API_URL", odd.url)
        with suppress(CampaignsFailed):
            push_leads()
    assert sql.fetch_statuses(database)["a"] == "in_doubt"


@pytest.mark.parametrize("answer", ["[]", "500"])
def test_a_create_that_is_found_later_ends_the_creates_of_single_leads(
    database: Database,
    vendor: SandboxHandle,
    odd_reads: OddReads,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    """The last failed create is found by the next push, so it sends whole batches again.

    If the response was a success that affirms nothing, it means from then on what was found.
    """
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    leads = add_leads(database, 30, batch_size=10, settle_s=600)
    if answer == "[]":
        vendor.change_rules(created_answer="list")
    else:
        vendor.add_fault(route="create", kind="status", status=500, when="after", every=1)
    show_all, odd_reads.alter = odd_reads.alter, lambda *_: []
    with pytest.raises(CampaignsFailed):
        push_leads()
    # Two batches, and single leads until the run ends.
    assert count_requests(vendor, "create") == 6
    assert len(vendor.store.creations(CAMPAIGN)) == 24
    odd_reads.alter = show_all
    assert push_leads()["created"] == (30 if answer == "[]" else 24)
    assert count_requests(vendor, "create") == 7
    push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"created"}
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(leads, 1)


# In doubt.


def doubt_all(database: Database) -> None:
    """Put all leads in doubt, long ago."""
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', sent_at = now() - interval '1 hour',"
        " doubted_at = now() - interval '1 hour'",
    )


def test_what_was_shown_once_is_shown_again_before_absence_is_believed(
    database: Database, vendor: SandboxHandle
) -> None:
    """A vendor that has begun to hide unprocessed leads is not believed because of what it was."""
    add_leads(database, 2)
    push_leads()
    sql.execute(database, "UPDATE leadloop.campaigns SET shows_unprocessed = true")
    vendor.change_rules(shows_unprocessed=False)
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
        " WHERE lead_id = 'L0'",
    )
    push_leads()
    assert sql.fetch_statuses(database)["L0"] == "in_doubt"
    assert vendor.store.creations(CAMPAIGN) == {"L0": 1, "L1": 1}


def test_a_lookup_that_fails_stops_no_other(database: Database, vendor: SandboxHandle) -> None:
    """The others are settled in the same run, and it by the next one (CASES P2)."""
    add_leads(database, 6, batch_size=1)
    push_leads()
    doubt_all(database)
    factories.add_leads(database, "probe")
    push_leads()
    doubt = "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
    sql.execute(database, f"{doubt} WHERE lead_id <> 'probe'")
    vendor.add_fault(route="responses", kind="status", status=500, lead_id="L2")
    summary = push_leads()
    assert summary["in_doubt"] == 1
    vendor.clear_faults()
    assert push_leads()["in_doubt"] == 0
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


def test_a_probe_that_fails_postpones_nothing(database: Database, vendor: SandboxHandle) -> None:
    """Nothing was learned, so the next run looks the same leads up again."""
    add_leads(database, 1)
    push_leads()
    factories.add_leads(database, "a", "b")
    doubt = "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
    sql.execute(database, f"{doubt} WHERE lead_id <> 'L0'")
    vendor.add_fault(route="responses", kind="status", status=500, lead_id="L0")
    assert push_leads()["in_doubt"] == 2
    vendor.clear_faults()
    assert push_leads()["created"] == 2
    assert vendor.store.creations(CAMPAIGN) == {"L0": 1, "a": 1, "b": 1}


def test_no_lookup_before_the_settle_time_by_the_run_that_put_it_in_doubt(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could only prove presence, and the next run's proves either."""
    monkeypatch.setenv("LEADLOOP_SETTLE", "600")
    add_leads(database, 3)
    vendor.add_fault(route="create", kind="status", status=500, nth=1)
    push_leads()
    asked = [entry for entry in vendor.requests if "lead_id" in entry.query]
    assert asked == []
