"""The vendor's listing of a campaign, read whole by an audit although its pages shift."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from db.database import Database
from leadloop.core.audit_differences import DIFFERENCES
from leadloop.core.summaries import collect_summary
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.jobs import audit_leads, push_leads
from tests.odd_reads import OddReads, let_row_leave
from tests.raw_http_server import response, run_raw_server
from tests.vendor_leads import create_elsewhere

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def push(database: Database, amount: int, *, page_size: int) -> None:
    """A campaign whose leads L00, L01, … the vendor has."""
    factories.add_campaign(database, page_size=page_size)
    factories.add_leads(database, *[f"L{number:02d}" for number in range(amount)])
    push_leads()


@pytest.mark.parametrize("rows", [-3, 3])
def test_pages_that_shift_are_read_again(
    database: Database, vendor: SandboxHandle, rows: int
) -> None:
    """A row that slipped from one page to another, or was shown twice, is no difference."""
    push(database, 30, page_size=10)
    vendor.add_fault(route="responses", kind="shift", nth=2, rows=rows)
    summary = audit_leads()
    assert [name for name in DIFFERENCES if summary[name]] == []
    assert (summary["seen"], summary["pages"] > 3) == (30, True)
    assert summary["pages"] == summary["requests"]


@pytest.mark.parametrize("beyond", ["404", "empty"])
@pytest.mark.parametrize(
    ("count", "link", "pages"),
    [
        ("page", "right", 6),
        ("page", "always", 6),
        ("query", "always", 3),
        ("query", "never", 3),
    ],
)
def test_a_listing_is_read_whatever_count_and_next_mean(
    database: Database, vendor: SandboxHandle, count: str, link: str, beyond: str, pages: int
) -> None:
    """Where `count` is that of the page alone, to its end, and twice; nothing is called missing."""
    vendor.change_rules(count=count, next=link, page_beyond_last=beyond)
    push(database, 25, page_size=10)
    summary = audit_leads()
    assert [name for name in DIFFERENCES if summary[name]] == []
    assert (summary["seen"], summary["pages"]) == (25, pages)


@pytest.mark.parametrize("rows", [-3, 3])
def test_pages_that_count_themselves_alone_and_shift(
    database: Database, vendor: SandboxHandle, rows: int
) -> None:
    """A row that slipped through is in no page's count; it is found all the same."""
    vendor.change_rules(count="page")
    push(database, 30, page_size=10)
    vendor.add_fault(route="responses", kind="shift", nth=2, rows=rows)
    summary = audit_leads()
    assert [name for name in DIFFERENCES if summary[name]] == []
    assert summary["seen"] == 30


def test_a_listing_that_never_stands_still_is_said(
    database: Database, vendor: SandboxHandle
) -> None:
    """The run fails and says so; nothing is called missing, and what was seen is told."""
    push(database, 30, page_size=10)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'rejected' WHERE lead_id = 'L20'")
    vendor.add_fault(route="responses", kind="shift", every=1, rows=3)
    with (
        collect_summary() as collected,
        pytest.raises(CampaignsFailed, match="27 leads read, 30 counted"),
    ):
        audit_leads()
    summary = collected.summary
    assert {name: summary[name] for name in DIFFERENCES if summary[name]} == {
        "rejected_but_there": 1
    }
    assert summary["absence_unproven"] == 3
    state = sql.fetch_value(
        database, "SELECT state FROM leadloop.sync_runs WHERE flow = 'audit-leads'"
    )
    assert state == "failed"


def test_leads_that_come_while_it_reads_are_read_too(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that was not there when the reading began, and no second reading for it."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    push(database, 20, page_size=5)
    before = len(vendor.requests)
    vendor.add_fault(route="responses", kind="slow", seconds=1, nth=2)

    def create_meanwhile() -> None:
        while len(vendor.requests) < before + 2:
            time.sleep(0.01)
        create_elsewhere(vendor, factories.build_lead("late"))

    with ThreadPoolExecutor(1) as pool:
        created = pool.submit(create_meanwhile)
        summary = audit_leads()
        created.result()
    assert (summary["seen"], summary["pages"]) == (21, 5)


def test_a_read_that_fails_is_tried_again(database: Database, vendor: SandboxHandle) -> None:
    """One failure costs a retry; what was read before is not read once more."""
    push(database, 30, page_size=5)
    vendor.add_fault(route="responses", kind="status", status=500, nth=4)
    summary = audit_leads()
    assert (summary["seen"], summary["pages"]) == (30, 6)


@pytest.mark.parametrize("count", [2, 5])
def test_a_listing_that_ignores_the_page_ends(
    database: Database, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """It shows the same rows again and again, in any order, and always names a next page.

    Its `count` may be that of a page or of the campaign.
    """
    factories.add_campaign(database, page_size=2)
    rows = [factories.build_lead("a"), factories.build_lead("b")]
    pages = [
        response("200 OK", json.dumps({"count": count, "next": "more", "results": shown}))
        for shown in (rows, rows[::-1], rows, rows[::-1], rows)
    ]
    with run_raw_server(*pages) as server:
        monkeypatch.setenv("LEADLOOP_API_URL", server.url)
        with pytest.raises(
            CampaignsFailed, match=r"does not end: page 4 .* ignore .* page"
        ) as said:
            audit_leads()
        assert len(server.requests) == 4
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(("count", "names"), [(1, "ababcd"), (9, "abababcde")])
def test_whole_pages_that_shift_end_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch, count: int, names: str
) -> None:
    """Leads that somebody creates meanwhile push pages down, which are shown once more.

    Where the vendor counts all of them, it may be any number of pages.
    """
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    factories.add_campaign(database, page_size=1)
    pages = [
        response("200 OK", json.dumps({"count": count, "next": "x", "results": [row]}))
        for row in map(factories.build_lead, names)
    ]
    end = response("200 OK", json.dumps({"count": 0, "results": []}))
    with run_raw_server(*pages, end, *pages, end) as server:
        monkeypatch.setenv("LEADLOOP_API_URL", server.url)
        with suppress(CampaignsFailed):
            audit_leads()
        assert len(server.requests) >= len(pages)


@pytest.mark.parametrize("enters", [False, True])
def test_a_row_that_leaves_between_two_pages_makes_no_other_missing(
    database: Database, odd_reads: OddReads, enters: bool
) -> None:
    """Before a lead is called missing, the listing is read again."""
    push(database, 30, page_size=10)
    let_row_leave(odd_reads, after=1, enters=enters)
    summary = audit_leads()
    assert (summary["missing_there"], summary["missing_here"]) == (0, int(enters))
    assert summary["seen"] == 30 + enters
