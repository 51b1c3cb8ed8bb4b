"""`push --limit`: no more people than somebody wants to try."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.database import Database
from leadloop.core.errors import UsageError
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tasks.lead_quota import LeadQuota
from tests import factories, sql
from tests.jobs import push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def count_created(vendor: SandboxHandle, campaign: str = factories.CAMPAIGN) -> int:
    """Count the leads that the vendor has, each of which it was sent once."""
    creations = vendor.store.creations(campaign)
    assert set(creations.values()) <= {1}
    return len(creations)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_limited_push_sends_no_more(
    database: Database, vendor: SandboxHandle, batch_size: int
) -> None:
    """However many senders share the limit; the others stay new, and the next push goes on."""
    factories.add_campaign(database, batch_size=batch_size)
    factories.add_leads(database, *[f"L{number:02d}" for number in range(30)])
    assert push_leads(limit=10)["created"] == 10
    assert count_created(vendor) == 10
    assert set(sql.fetch_statuses(database).values()) == {"created", "new"}
    assert push_leads(limit=1)["created"] == 1
    assert push_leads()["created"] == 19
    assert count_created(vendor) == 30


def test_the_limit_is_that_of_all_campaigns(database: Database, vendor: SandboxHandle) -> None:
    """A person who wants to try ten does not think of campaigns; the most urgent comes first."""
    for campaign, priority in (("C1", 0), ("C2", 1)):
        factories.add_campaign(database, campaign, priority=priority)
        factories.add_leads(database, "a", "b", "c", campaign=campaign)
    assert push_leads(limit=4)["created"] == 4
    assert (count_created(vendor, "C2"), count_created(vendor, "C1")) == (3, 1)


def test_leads_that_are_not_sent_do_not_count(database: Database, vendor: SandboxHandle) -> None:
    """Our own checks refuse one, another has opted out: the limit is of people who may be called.

    What the vendor refuses was sent, and counts.
    """
    factories.add_campaign(database)
    factories.add_leads(
        database, factories.build_lead("a", phone_number="no number"), "b", "c", "d", "e"
    )
    factories.add_opt_outs(database, "b")
    vendor.add_fault(route="create", kind="status", status=400, lead_id="c")
    with_reason = push_leads(limit=1)
    assert (with_reason["created"], with_reason["rejected"], with_reason["cancelled"]) == (0, 2, 1)
    assert push_leads(limit=1)["created"] == 1
    assert sorted(sql.fetch_statuses(database).values()) == [
        *("cancelled", "created", "new", "rejected", "rejected"),
    ]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
        {"kind": "status", "status": 503, "headers": {"Retry-After": "0"}},
    ],
)
def test_what_was_certainly_not_sent_is_sent_within_the_limit(
    database: Database, vendor: SandboxHandle, fault: dict[str, Any]
) -> None:
    """A demand for a pause uses nothing of the limit up."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b", "c")
    vendor.add_fault(route="create", when="before", nth=1, **fault)
    assert push_leads(limit=2)["created"] == 2
    assert count_created(vendor) == 2


def test_what_may_have_been_sent_counts(database: Database, vendor: SandboxHandle) -> None:
    """In doubt is as good as sent; a later push finds out, and resends within its own limit."""
    factories.add_campaign(database, settle_s=0)
    factories.add_leads(database, "a", "b", "c", "d")
    vendor.add_fault(route="create", when="before", nth=1, kind="status", status=500)
    vendor.add_fault(route="responses", kind="status", status=500)
    with pytest.raises(CampaignsFailed):
        push_leads(limit=2)
    assert sorted(sql.fetch_statuses(database).values()) == ["in_doubt", "in_doubt", "new", "new"]
    vendor.clear_faults()
    assert push_leads(limit=1)["created"] == 1
    assert count_created(vendor) == 1
    # With that one, absence is proven: the limit of the next push is of suspects too.
    assert push_leads(limit=2)["created"] == 2
    assert push_leads()["created"] == 1
    assert count_created(vendor) == 4


def test_a_limit_below_one_is_refused(database: Database, vendor: SandboxHandle) -> None:
    """A deployment's parameter can be anything; nothing is sent then."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    with pytest.raises(UsageError, match="1 or more"):
        push_leads(limit=0)
    assert count_created(vendor) == 0


@given(limit=st.integers(1, 50), wishes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))
def test_no_more_is_sent_than_the_quota(limit: int, wishes: list[tuple[int, int]]) -> None:
    """Whatever is reserved, and however little of it is used: what is kept never exceeds it."""
    quota, kept = LeadQuota(left=limit), 0
    for wish, used in wishes:
        granted = quota.reserve(wish)
        assert kept + granted <= limit
        kept += min(granted, used)
        quota.give_back(granted - min(granted, used))
    assert quota.left == limit - kept
    assert quota.is_spent == (kept == limit)
