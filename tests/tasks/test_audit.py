"""`audit-leads`, against the sandbox over real HTTP."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import counts
from db.database import Database
from leadloop.core.audit_differences import DIFFERENCES
from leadloop.core.summaries import collect_summary
from leadloop.sandbox import SandboxHandle
from tasks.audit import AUDIT
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.jobs import audit_leads, disable_leads, poll_outcomes, push_leads
from tests.vendor_leads import create_elsewhere

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def push(database: Database, *leads: str | dict[str, Any], **columns: Any) -> None:
    """A campaign whose leads the vendor has."""
    factories.add_campaign(database, **columns)
    factories.add_leads(database, *leads)
    push_leads()


def process(vendor: SandboxHandle, *ids: str, at: datetime | None = None, **more: Any) -> None:
    """The vendor is done with leads."""
    moment = at or datetime.now(UTC) - timedelta(seconds=1)
    fixed = {"outcome_id": "1", "outcome_name": "Interested", "attempts": [], **more}
    stamp = int(moment.timestamp() * 1000)
    vendor.put_outcomes(
        [
            {"campaign_id": factories.CAMPAIGN, "lead_id": lead_id, "processed_at": stamp, **fixed}
            for lead_id in ids
        ]
    )


def differences(**parameters: Any) -> dict[str, list[str]]:
    """What an audit finds: the ids by difference; each count is the number of its ids."""
    summary = audit_leads(**parameters)
    (campaign,) = summary["campaigns"].values()
    samples: dict[str, list[str]] = campaign["samples"]
    found = {name: samples[name] for name in DIFFERENCES if campaign[name]}
    assert {name: len(ids) for name, ids in found.items()} == {
        name: campaign[name] for name in found
    }
    return found


def set_status(database: Database, lead_id: str, status: str) -> None:
    """Our books say something else of a lead."""
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = :status WHERE lead_id = :lead",
        status=status,
        lead=lead_id,
    )


def test_books_that_agree_have_no_difference(database: Database, vendor: SandboxHandle) -> None:
    """After a whole loop there is nothing to tell; every page is counted as a request."""
    ids = [f"L{number:03d}" for number in range(25)]
    push(database, *ids, page_size=10)
    process(vendor, *ids[:12])
    factories.add_opt_outs(database, "L020")
    disable_leads()
    poll_outcomes()
    summary = audit_leads()
    assert set(summary) == {*AUDIT.counts, "requests", "campaigns"}
    nonzero = {name: summary[name] for name in (*AUDIT.counts, "requests") if summary[name]}
    assert nonzero == {"pages": 3, "seen": 25, "requests": 3}
    assert summary["campaigns"][factories.CAMPAIGN]["samples"] == {}


def test_a_lead_that_the_vendor_lacks_is_missing_there(
    database: Database, vendor: SandboxHandle
) -> None:
    """Created here, never seen there."""
    push(database, "a", "b")
    factories.add_leads(database, "lost")
    set_status(database, "lost", "created")
    assert differences() == {"missing_there": ["lost"]}


def test_a_lead_that_we_lack_is_missing_here(database: Database, vendor: SandboxHandle) -> None:
    """The vendor may call somebody of whom we know nothing."""
    push(database, "a")
    create_elsewhere(vendor, factories.build_lead("stranger"))
    assert differences() == {"missing_here": ["stranger"]}


@pytest.mark.parametrize("status", ["new", "rejected", "cancelled"])
def test_a_lead_that_we_say_was_not_sent_is_told(
    database: Database, vendor: SandboxHandle, status: str
) -> None:
    """The vendor has it, whatever we say."""
    push(database, "a", "b")
    set_status(database, "a", status)
    assert differences() == {f"{status}_but_there": ["a"]}


@pytest.mark.parametrize("page_size", [1, 2, 10])
@pytest.mark.parametrize("time_format", ["ms", "s"])
def test_a_lead_that_is_there_twice_is_told(
    database: Database, vendor: SandboxHandle, page_size: int, time_format: str
) -> None:
    """Also where its two rows are alike in every word, on one page or on two."""
    vendor.change_rules(repeat="second", time_format=time_format)
    push(database, "a", "b", page_size=page_size)
    create_elsewhere(vendor, factories.build_lead("a"), factories.build_lead("a"))
    assert differences() == {"created_twice": ["a"]}


def test_what_the_vendor_says_of_a_person_is_compared(
    database: Database, vendor: SandboxHandle
) -> None:
    """Phone, name and state differ by themselves; how a number is written does not matter."""
    push(
        database, "a", "b", "c", "d", factories.build_lead("e", phone_number="(415) 555-0123"), "f"
    )
    change = "UPDATE leadloop.leads SET {} WHERE lead_id = :lead"
    sql.execute(database, change.format("phone_number = '+1 415 555 0199'"), lead="a")
    sql.execute(database, change.format("contact_name = 'Somebody Else'"), lead="b")
    sql.execute(database, change.format("state_code = 'CA'"), lead="c")
    sql.execute(database, change.format("contact_name = '  Ann d ', state_code = 'ny'"), lead="d")
    sql.execute(database, change.format("phone_number = '1-415-555.0123'"), lead="e")
    assert differences() == {
        "phone_differs": ["a"],
        "name_differs": ["b"],
        "state_differs": ["c"],
    }


def test_outcomes_are_compared_both_ways(database: Database, vendor: SandboxHandle) -> None:
    """Missing here, different in any of its four facts, and not shown there."""
    ids = ["a", "b", "c", "d", "e", "f"]
    push(database, *ids)
    process(vendor, *ids[:5], total_cost=0.5)
    poll_outcomes()
    sql.execute(database, "DELETE FROM leadloop.lead_outcomes WHERE lead_id = 'a'")
    change = "UPDATE leadloop.lead_outcomes SET {} WHERE lead_id = :lead"
    sql.execute(database, change.format("outcome_name = 'No'"), lead="b")
    sql.execute(database, change.format("total_cost = 0.50"), lead="c")
    sql.execute(database, change.format("total_cost = 9"), lead="d")
    earlier = "processed_at = processed_at - interval '1 hour'"
    sql.execute(database, change.format(earlier), lead="e")
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
           VALUES (:campaign, 'f', now(), '{}')""",
        campaign=factories.CAMPAIGN,
    )
    assert differences() == {
        "outcome_missing_here": ["a"],
        "outcome_differs": ["b", "d", "e"],
        "outcome_missing_there": ["f"],
    }


def test_what_no_poll_had_to_read_yet_is_no_difference(
    database: Database, vendor: SandboxHandle
) -> None:
    """An outcome from after the watermark is told apart: the next poll stores it."""
    push(database, "a", "b")
    process(vendor, "a")
    poll_outcomes()
    process(vendor, "a", "b", at=datetime.now(UTC) + timedelta(seconds=5))
    summary = audit_leads()
    assert summary["outcome_not_polled"] == 2
    assert [name for name in DIFFERENCES if summary[name]] == []


def test_counts_that_differ_are_no_difference_and_are_repaired(
    database: Database, vendor: SandboxHandle
) -> None:
    """Rows that a restore deleted without triggers are counted until then."""
    push(database, "a", "b")
    process(vendor, "a")
    poll_outcomes()
    sql.execute(
        database,
        """SET LOCAL session_replication_role = replica;
           UPDATE leadloop.counts SET amount = amount + 1 WHERE kind = 'lead'""",
    )
    funnel = "SELECT leads FROM leadloop_monitor.lead_funnel WHERE stage = 'created'"
    assert sql.fetch_value(database, funnel) == 3
    summary = audit_leads(repair=True)
    assert summary["counts_differ"] == 2
    assert [name for name in DIFFERENCES if summary[name]] == []
    assert sql.fetch_value(database, funnel) == 2
    assert audit_leads()["counts_differ"] == 0


def test_counts_that_an_upgrade_has_left_are_not_compared(
    database: Database, vendor: SandboxHandle, caplog: pytest.LogCaptureFixture
) -> None:
    """Runs go on meanwhile, opt-outs first; what is left is for `init`, not for a repair."""
    push(database, "a", "b")
    sql.execute(
        database,
        """SET LOCAL session_replication_role = replica;
           DELETE FROM leadloop.counts_filled; DELETE FROM leadloop.counts""",
    )
    factories.add_opt_outs(database, "a")
    assert disable_leads()["disabled"] == 1
    process(vendor, "b")
    assert poll_outcomes()["inserted"] == 1
    assert audit_leads(repair=True)["counts_differ"] == 0
    assert "not complete yet: run `leadloop init`" in caplog.text
    counts.fill_counts(database)
    assert audit_leads()["counts_differ"] == 0
    funnel = "SELECT leads FROM leadloop_monitor.lead_funnel WHERE stage = 'created'"
    assert sql.fetch_value(database, funnel) == 2


def test_leads_in_doubt_are_told_by_whether_they_are_there(
    database: Database, vendor: SandboxHandle
) -> None:
    """Shown, or not shown."""
    push(database, "a")
    factories.add_leads(database, "b")
    set_status(database, "a", "in_doubt")
    set_status(database, "b", "in_doubt")
    assert differences() == {"in_doubt_there": ["a"], "in_doubt_not_there": ["b"]}


@pytest.mark.parametrize("calls", [[], [{"reference_id": "r", "called_at": 4102444800000}]])
def test_a_person_who_is_called_after_opting_out_is_told(
    database: Database, vendor: SandboxHandle, calls: list[dict[str, Any]]
) -> None:
    """Processed or called after the vendor confirmed; what came before it is not."""
    push(database, "a", "b")
    past = datetime.now(UTC) - timedelta(hours=1)
    process(vendor, "a", at=past)
    factories.add_opt_outs(database, "a", "b")
    disable_leads()
    late = past if calls else datetime.now(UTC) + timedelta(seconds=5)
    process(vendor, "b", at=late, attempts=calls)
    assert differences()["called_after_opt_out"] == ["b"]


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_the_vendors_clock_is_allowed_for(
    database: Database, vendor: SandboxHandle, ahead: int
) -> None:
    """A call before the opt-out is not one after it, nor the reverse, because clocks differ."""
    vendor.change_rules(clock_offset=ahead)
    push(database, "a", "b")
    factories.add_opt_outs(database, "a", "b")
    disable_leads()
    there = datetime.now(UTC) + timedelta(seconds=ahead)
    process(vendor, "a", at=there - timedelta(minutes=5))
    process(vendor, "b", at=there + timedelta(minutes=5))
    assert differences()["called_after_opt_out"] == ["b"]


def test_an_opt_out_that_the_vendor_was_not_told_of(
    database: Database, vendor: SandboxHandle
) -> None:
    """Cancelled here as never sent, and held there."""
    push(database, "a")
    set_status(database, "a", "new")
    factories.add_opt_outs(database, "a")
    disable_leads()
    assert differences() == {"cancelled_but_there": ["a"], "opt_out_not_sent": ["a"]}


def test_a_row_that_is_no_outcome_is_told(database: Database, vendor: SandboxHandle) -> None:
    """A `processed_at` that is no time: neither a missing lead nor a missing outcome."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    create_elsewhere(vendor, factories.build_lead("a", processed_at="soon"))
    set_status(database, "a", "created")
    assert differences() == {"unreadable": ["a"]}


def test_a_new_lead_is_not_called_missing(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was created within SETTLE may not show yet; that is said."""
    vendor.change_rules(lead_visible_after=3600)
    push(database, "a", "b")
    monkeypatch.setenv("LEADLOOP_SETTLE", "60")
    set_status(database, "b", "in_doubt")
    summary = audit_leads()
    assert [name for name in DIFFERENCES if summary[name]] == []
    assert summary["absence_unproven"] == 2


@pytest.mark.parametrize("known", [None, False, True])
def test_a_vendor_that_shows_processed_leads_only(
    database: Database, vendor: SandboxHandle, known: bool | None
) -> None:
    """An unprocessed lead that it does not show is not missing; one with an outcome here is."""
    vendor.change_rules(shows_unprocessed=False)
    push(database, "a", "b", "c", shows_unprocessed=known)
    process(vendor, "a", "b")
    poll_outcomes()
    vendor.reset()
    create_elsewhere(vendor, *(factories.build_lead(lead_id) for lead_id in "ac"))
    process(
        vendor,
        "a",
        at=sql.fetch_value(database, "SELECT min(processed_at) FROM leadloop.lead_outcomes"),
    )
    summary = audit_leads()
    expected = ["b", "c"] if known else ["b"]
    assert summary["campaigns"][factories.CAMPAIGN]["samples"]["missing_there"] == expected
    assert summary["absence_unproven"] == (0 if known else 1)


def test_a_lookup_that_shows_more_than_the_listing_is_believed(
    database: Database, vendor: SandboxHandle
) -> None:
    """Leads that the listing lacks are not called missing where a lookup shows one of them."""
    vendor.change_rules(shows_unprocessed=False)
    push(database, "a", "b", shows_unprocessed=True)
    # The second request is the lookup of "a" or "b", whichever was confirmed first: both are done.
    vendor.add_fault(route="responses", kind="late", nth=2)
    vendor.add_fault(route="responses", kind="late", nth=2)
    summary = audit_leads()
    assert (summary["missing_there"], summary["absence_unproven"]) == (0, 2)
    assert (summary["pages"], summary["requests"]) == (1, 2)


def test_a_refusal_ends_the_campaign_and_no_other(
    database: Database, vendor: SandboxHandle
) -> None:
    """The other campaign is audited; the run fails with the reason."""
    vendor.change_rules(campaigns={factories.CAMPAIGN: "known"})
    push(database, "a")
    factories.add_campaign(database, "C0")
    with (
        collect_summary() as collected,
        pytest.raises(CampaignsFailed, match=r"campaign C0: .*HTTP 404"),
    ):
        audit_leads()
    assert collected.summary["campaigns"][factories.CAMPAIGN]["seen"] == 1


def test_a_repair_mends_what_is_safe(database: Database, vendor: SandboxHandle) -> None:
    """Leads that are there are created, outcomes are stored, opt-outs go out; nothing is sent."""
    push(database, *"abcdefg")
    process(vendor, "c", "d", attempts=[{"reference_id": "r1", "called_at": 1531409739413}])
    poll_outcomes()
    mark = sql.fetch_value(database, "SELECT processed_through FROM leadloop.watermarks")
    set_status(database, "a", "in_doubt")
    set_status(database, "b", "new")
    sql.execute(database, "DELETE FROM leadloop.lead_outcomes WHERE lead_id = 'c'")
    sql.execute(database, "DELETE FROM leadloop.outreach_attempts WHERE lead_id = 'c'")
    sql.execute(
        database,
        """UPDATE leadloop.lead_outcomes SET outcome_name = 'No', raw = '{}',
                  processed_at = processed_at - interval '1 hour' WHERE lead_id = 'd'""",
    )
    set_status(database, "e", "new")
    set_status(database, "f", "new")
    factories.add_opt_outs(database, "e", "f")
    disable_leads()
    assert sql.fetch_opt_outs(database) == {"e": "cancelled", "f": "cancelled"}
    sent = len([entry for entry in vendor.requests if entry.kind != "responses"])

    summary = audit_leads(repair=True)
    repaired = {name: summary[name] for name in summary if name.startswith("repaired")}
    assert repaired == {"repaired_leads": 4, "repaired_outcomes": 2, "repaired_opt_outs": 2}
    assert summary["new_but_there"] == summary["in_doubt_there"] == 1
    assert summary["opt_out_not_sent"] == 2
    assert set(sql.fetch_statuses(database).values()) == {"created"}
    assert sql.fetch_outcomes(database) == {"c": "Interested", "d": "Interested"}
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.outreach_attempts") == 2
    assert sql.fetch_value(database, "SELECT processed_through FROM leadloop.watermarks") == mark
    assert len([entry for entry in vendor.requests if entry.kind != "responses"]) == sent

    assert disable_leads()["disabled"] == 2
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == {"e", "f"}
    assert differences(repair=True) == {}
    assert push_leads()["created"] == 0
    assert set(vendor.store.creations(factories.CAMPAIGN).values()) == {1}


def test_without_repair_nothing_is_changed(database: Database, vendor: SandboxHandle) -> None:
    """An audit that is not told to repair only looks."""
    push(database, "a", "b", "c")
    process(vendor, "a")
    set_status(database, "b", "in_doubt")
    set_status(database, "c", "new")
    tables = ("leads", "lead_outcomes", "outreach_attempts", "disable_requests", "watermarks")
    before = [sql.fetch_rows(database, f"SELECT * FROM leadloop.{table}") for table in tables]
    audit_leads()
    assert [
        sql.fetch_rows(database, f"SELECT * FROM leadloop.{table}") for table in tables
    ] == before


def test_a_repair_leaves_alone_what_is_not_safe(database: Database, vendor: SandboxHandle) -> None:
    """A lead that is missing, there twice or different stays as it is, and so does a rejection."""
    vendor.change_rules(repeat="second")
    push(database, "a", "b", "c")
    create_elsewhere(vendor, factories.build_lead("a"), factories.build_lead("stranger"))
    set_status(database, "b", "rejected")
    factories.add_leads(database, "lost")
    set_status(database, "lost", "created")
    sql.execute(database, "UPDATE leadloop.leads SET state_code = 'CA' WHERE lead_id = 'c'")
    before = sql.fetch_rows(database, "SELECT * FROM leadloop.leads ORDER BY lead_id")
    first = differences(repair=True)
    assert first == {
        "missing_there": ["lost"],
        "missing_here": ["stranger"],
        "rejected_but_there": ["b"],
        "created_twice": ["a"],
        "state_differs": ["c"],
    }
    assert sql.fetch_rows(database, "SELECT * FROM leadloop.leads ORDER BY lead_id") == before
    assert differences() == first


def test_the_run_s_row_has_the_counts(database: Database, vendor: SandboxHandle) -> None:
    """`sync_runs` says what was found."""
    push(database, "a")
    set_status(database, "a", "rejected")
    audit_leads()
    counts = sql.fetch_value(
        database, "SELECT counts FROM leadloop.sync_runs WHERE flow = 'audit-leads'"
    )
    assert counts["rejected_but_there"] == counts["seen"] == counts["requests"] == 1
    assert set(counts) == {*AUDIT.counts, "requests"}


def test_each_campaign_is_told_by_itself(database: Database, vendor: SandboxHandle) -> None:
    """Sums over all, and each one's own."""
    push(database, "a", "b")
    factories.add_campaign(database, "C2")
    factories.add_leads(database, "a", campaign="C2")
    push_leads()
    summary = audit_leads()
    assert summary["seen"] == 3
    assert {name: part["seen"] for name, part in summary["campaigns"].items()} == {
        "C1": 2,
        "C2": 1,
    }
    assert audit_leads(campaigns=["C2"])["seen"] == 1


def test_what_was_staged_is_gone_afterwards(database: Database, vendor: SandboxHandle) -> None:
    """No copy of anybody's data stays in the database."""
    push(database, "a")
    staged = "SELECT count(*) FROM pg_class WHERE relname IN ('audit_listing', 'audit_leads')"
    audit_leads()
    # Postgres drops it when it notices that the connection has ended.
    deadline = time.monotonic() + 30
    while sql.fetch_value(database, staged):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_audit_that_is_broken_off_leaves_nothing(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut connection fails the run in one line; the next audit is whole."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    push(database, *[f"L{number:02d}" for number in range(20)], page_size=5)
    before = len(vendor.requests)
    vendor.add_fault(route="responses", kind="slow", seconds=2, nth=3)

    def cut() -> None:
        while len(vendor.requests) < before + 3:
            time.sleep(0.01)
        # Its last words, before the page that drips: the page before it.
        ends = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND query LIKE 'COPY audit_listing%'"""
        while not sql.fetch_rows(database, ends):
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(cut)
        with pytest.raises(CampaignsFailed, match="the connection was cut"):
            audit_leads()
        done.result()
    assert audit_leads()["seen"] == 20
