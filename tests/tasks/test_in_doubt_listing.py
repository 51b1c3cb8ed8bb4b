"""Many leads in doubt, settled by the campaign's listing in fewer requests than lookups take."""

from contextlib import suppress
from random import random
from typing import Any

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import push_leads
from tests.odd_reads import OddReads, let_row_leave
from tests.tasks.test_push_progress import add_leads, count_requests, doubt_all

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def test_many_doubts_are_settled_by_the_listing(database: Database, vendor: SandboxHandle) -> None:
    """1,900 in doubt of 3,000 take the pages of the listing, and not a lookup each (CASES P3)."""
    leads = add_leads(database, 300)
    push_leads()
    factories.add_leads(database, *(f"absent{number}" for number in range(50)))
    doubt_all(database)
    before = count_requests(vendor, "responses")
    push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"created"}
    # The count of its first page, and its pages twice.
    assert count_requests(vendor, "responses") - before <= 1 + 2 * 3
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}
    assert len(vendor.store.creations(CAMPAIGN)) == len(leads) + 50


def test_a_listing_without_unprocessed_leads_proves_no_absence(
    database: Database, vendor: SandboxHandle
) -> None:
    """It proves presence alone: who is not listed stays in doubt."""
    add_leads(database, 30)
    push_leads()
    vendor.put_outcomes([{"campaign_id": CAMPAIGN, "lead_id": "L7"}])
    vendor.change_rules(shows_unprocessed=False)
    doubt_all(database)
    push_leads()
    statuses = sql.fetch_statuses(database)
    assert {key for key, status in statuses.items() if status == "created"} == {"L7"}
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


def test_few_doubts_are_looked_up(database: Database, vendor: SandboxHandle) -> None:
    """Where the listing has more pages than leads are in doubt."""
    leads = add_leads(database, 45, page_size=2)
    push_leads()
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
        " WHERE lead_id = ANY(:ids)",
        ids=leads[:12],
    )
    push_leads()
    asked = [entry.query for entry in vendor.requests if entry.kind == "responses"]
    # The count of the first page of 23, and each lead.
    assert len(asked) == 1 + 12
    assert sum("lead_id" in query for query in asked) == 12


def test_who_is_in_doubt_since_the_listing_began_is_not_called_absent(
    database: Database, vendor: SandboxHandle
) -> None:
    """Its create may still be on its way."""
    add_leads(database, 30, settle_s=600)
    push_leads()
    factories.add_leads(database, *(f"late{number}" for number in range(20)))
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now()")
    push_leads()
    statuses = sql.fetch_statuses(database)
    assert {statuses[f"late{number}"] for number in range(20)} == {"in_doubt"}
    assert {statuses[f"L{number}"] for number in range(30)} == {"created"}


def test_a_page_that_fails_stops_no_lead_but_its_own(
    database: Database, vendor: SandboxHandle
) -> None:
    """The leads of the pages before it are created, and the others are looked up."""
    leads = add_leads(database, 60, page_size=10)
    push_leads()
    doubt_all(database)
    vendor.change_rules(order="created")
    vendor.add_fault(route="responses", kind="status", status=500, lead_id="L45")
    summary = push_leads()
    assert sql.fetch_statuses(database) == {**dict.fromkeys(leads, "created"), "L45": "in_doubt"}
    assert (summary["created"], summary["in_doubt"]) == (59, 1)
    looked_up = [entry.query for entry in vendor.requests if "lead_id" in entry.query]
    assert not any(query.endswith("lead_id=L7") for query in looked_up), "its page was read"
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(leads, 1)


#: A lead's id, and what the vendor makes of its row: it names no lead, or writes the id otherwise.
BADLY_NAMED = [
    ("L7", None),
    ("L7", {}),
    ("L7", {"lead_id": None}),
    ("L7", {"id": "L7"}),
    ("a-7", {"lead_id": "A-7"}),
    ("é7", {"lead_id": "É7"}),
    ("L 7", {"lead_id": "L7"}),
    ("L7", {"lead_id": "L7\u200b"}),
    ("0007", {"lead_id": "7"}),
    ("0007", {"lead_id": 7}),
    ("7.0", {"lead_id": 7.0}),
]


@pytest.mark.parametrize(("lead_id", "row"), BADLY_NAMED)
def test_a_lead_that_may_be_listed_under_another_name_is_not_absent(
    database: Database, vendor: SandboxHandle, odd_reads: OddReads, lead_id: str, row: Any
) -> None:
    """It stays in doubt, where it was created once more; the others are created."""
    leads = add_leads(database, 7)
    more = [f"M{number}" for number in range(10)]
    factories.add_leads(database, lead_id, *more)
    push_leads()
    doubt_all(database)
    odd_reads.alter = lambda query, rows: (
        500 if "lead_id" in query else [row if r["lead_id"] == lead_id else r for r in rows]
    )
    push_leads()
    # The listing is not read again, and the lead cannot be looked up.
    with suppress(CampaignsFailed):
        push_leads()
    assert sql.fetch_statuses(database) == {
        **dict.fromkeys([*leads, *more], "created"),
        lead_id: "in_doubt",
    }
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


@pytest.mark.parametrize("amount", [4, 20], ids=["lookups", "listing"])
@pytest.mark.parametrize(
    "sign",
    [
        {"outcome_id": 7},
        {"outcome_name": "Sale"},
        {"call_attempt_keys": ["call_attempt_x_1"]},
        {"call_attempt_x_1": [{"reference_id": 1}]},
        {"opted_out": "in doubt"},
        {"opted_out": "created"},
    ],
    ids=lambda sign: "-".join(map(str, next(iter(sign.items())))),
)
def test_a_lead_that_may_show_because_it_is_processed_or_disabled_proves_nothing(
    database: Database,
    vendor: SandboxHandle,
    odd_reads: OddReads,
    sign: dict[str, Any],
    amount: int,
) -> None:
    """A vendor that shows such leads alone, without `processed_at`, hides the leads in doubt."""
    add_leads(database, 10 + amount)
    push_leads()
    sql.execute(database, "UPDATE leadloop.campaigns SET specimen_lead_id = 'L0'")
    if "opted_out" in sign:
        factories.add_opt_outs(database, "L0")
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
        " WHERE lead_id = 'L0' AND :l0 OR CAST(substr(lead_id, 2) AS integer) >= 10",
        l0=sign.get("opted_out") != "created",
    )
    odd_reads.alter = lambda _, rows: [row | sign for row in rows if row["lead_id"] == "L0"]
    push_leads()
    push_leads()
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}
    assert list(sql.fetch_statuses(database).values()).count("in_doubt") == amount


@pytest.mark.parametrize("enters", [False, True])
def test_a_row_that_leaves_between_two_pages_makes_no_other_absent(
    database: Database, vendor: SandboxHandle, odd_reads: OddReads, enters: bool
) -> None:
    """The first row of page 2 slips to page 1, which has been read; the count adds up all the same.

    The listing is read after its first page was read for the count.
    """
    leads = add_leads(database, 40, page_size=10)
    push_leads()
    doubt_all(database)
    let_row_leave(odd_reads, after=2, enters=enters)
    push_leads()
    assert sql.fetch_statuses(database).keys() - {"L0"} == set(leads) - {"L0"}
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


@pytest.mark.parametrize("amount", [5, 30], ids=["lookups", "listing"])
@pytest.mark.parametrize("our_id", [CAMPAIGN, CAMPAIGN.lower(), None])
@pytest.mark.parametrize("their_id", ["C2", 2])
def test_a_lead_of_another_campaign_is_none_of_this_one(
    database: Database,
    vendor: SandboxHandle,
    odd_reads: OddReads,
    amount: int,
    our_id: str | None,
    their_id: str | int,
) -> None:
    """A vendor that shows the rows of all campaigns shows the presence of those of this one."""
    add_leads(database, 2)
    push_leads()
    absent = [f"absent{number}" for number in range(amount)]
    factories.add_leads(database, *absent)
    theirs = [{"lead_id": lead_id, "campaign_id": their_id} for lead_id in absent]
    odd_reads.alter = lambda _, rows: [*theirs, *({**row, "campaign_id": our_id} for row in rows)]
    in_doubt = "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 h'"
    sql.execute(database, f"{in_doubt} WHERE lead_id <> 'L0'")
    push_leads()
    statuses = sql.fetch_statuses(database)
    here = vendor.store.creations(CAMPAIGN)
    assert {lead_id for lead_id, status in statuses.items() if status == "created"} == here.keys()
    assert set(here.values()) == {1}


@pytest.mark.parametrize("amount", [1, 5, 12])
def test_absent_leads_that_are_answered_with_404_are_proven_absent_by_the_listing(
    database: Database, vendor: SandboxHandle, odd_reads: OddReads, amount: int
) -> None:
    """A 404 proves nothing, so one push reads the listing; also after it has sent fresh leads."""
    add_leads(database, 40)
    push_leads()
    absent = [f"absent{number}" for number in range(amount)]
    factories.add_leads(database, *absent)
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
        " WHERE lead_id LIKE 'absent%'",
    )
    factories.add_leads(database, "fresh")
    odd_reads.alter = lambda query, rows: (
        404 if query.get("lead_id", "").startswith("absent") else rows
    )
    push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"created"}
    assert vendor.store.creations(CAMPAIGN).keys() >= set(absent)
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


@pytest.mark.parametrize("counts_per_page", [False, True])
def test_a_large_listing_is_not_read_for_few_leads(
    database: Database, odd_reads: OddReads, counts_per_page: bool
) -> None:
    """Its count takes one request, and may be of no use; the leads stay in doubt."""
    odd_reads.counts_per_page = counts_per_page
    add_leads(database, 120, page_size=2)
    push_leads()
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
        " WHERE lead_id IN ('L1', 'L2')",
    )
    odd_reads.alter = lambda query, rows: 404 if "lead_id" in query else rows
    push_leads()
    push_leads()
    assert (odd_reads.count_pages(), odd_reads.count_lookups()) == (1, 2)


def _fail_first_page(query: dict[str, str], rows: list[Any]) -> list[Any] | int:
    return rows if "lead_id" in query else 500


def _fail_second_page(query: dict[str, str], rows: list[Any]) -> list[Any] | int:
    return 500 if query.get("page") == "2" else rows


def _hide_a_row(query: dict[str, str], rows: list[Any]) -> list[Any] | int:
    return rows if "lead_id" in query else [*rows[:-1], rows[0]]


def _change_at_each_read(query: dict[str, str], rows: list[Any]) -> list[Any] | int:
    return rows if "lead_id" in query else [*rows[1:], {"lead_id": str(random())}]


@pytest.mark.parametrize(
    ("alter", "pages"),
    [
        # Three attempts.
        (_fail_first_page, 3),
        # The count; the first reading, with three attempts of page 2.
        (_fail_second_page, 1 + 4 + 3),
        (_hide_a_row, 1 + 5),
        (_change_at_each_read, 1 + 2 * 5),
    ],
)
def test_a_listing_that_proves_nothing_is_replaced_by_lookups(
    database: Database, vendor: SandboxHandle, odd_reads: OddReads, alter: Any, pages: int
) -> None:
    """All leads in doubt are settled by the same push, and the next ones do not read it again."""
    leads = add_leads(database, 50, page_size=10)
    push_leads()
    absent = [f"absent{number}" for number in range(15)]
    factories.add_leads(database, *absent)
    doubt_all(database)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created' WHERE lead_id = 'L49'")
    odd_reads.alter = alter
    push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"created"}
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys([*leads, *absent], 1)
    assert odd_reads.count_pages() <= pages
    before = len(odd_reads.queries)
    doubt_all(database)
    push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"created"}
    if alter is not _fail_first_page:
        assert not any("lead_id" not in query for query in odd_reads.queries[before:])
