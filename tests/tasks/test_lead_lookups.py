"""Lookups side by side: failures stop no other, and refusals of everybody end them."""

from typing import Any

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import push_leads
from tests.tasks.test_push_progress import add_leads, count_requests, doubt_all

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

#: Failures of lookups: no answer, and refusals that another attempt does not change.
_NO_ANSWERS = [
    {"kind": "reset"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503, "headers": {"Retry-After": "0"}},
]
_REFUSALS = [
    {"kind": "status", "status": 302},
    {"kind": "status", "status": 400},
    {"kind": "status", "status": 401},
    {"kind": "status", "status": 403},
    {"kind": "status", "status": 403, "body": "html"},
]


def _name_fault(fault: dict[str, Any]) -> str:
    return "-".join(str(fault[key]) for key in ("kind", "status", "body") if key in fault)


@pytest.mark.parametrize("amount", [5, 30])
@pytest.mark.parametrize("fault", _NO_ANSWERS + _REFUSALS, ids=_name_fault)
def test_a_lookup_without_an_answer_is_repeated_by_the_next_push(
    database: Database, vendor: SandboxHandle, fault: dict[str, Any], amount: int
) -> None:
    """It counts as none, so that all leads are settled as soon as the cause is mended."""
    leads = add_leads(database, amount)
    push_leads()
    doubt_all(database)
    vendor.add_fault(route="responses", every=1, **fault)
    with pytest.raises(CampaignsFailed, match=f"{amount} leads in doubt could not be looked up"):
        push_leads()
    assert sql.fetch_value(database, "SELECT count(looked_up_at) FROM leadloop.leads") == 0
    vendor.clear_faults()
    assert push_leads()["created"] == amount
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(leads, 1)


@pytest.mark.parametrize("fault", _REFUSALS, ids=_name_fault)
def test_refused_lookups_end_soon(
    database: Database,
    vendor: SandboxHandle,
    caplog: pytest.LogCaptureFixture,
    fault: dict[str, Any],
) -> None:
    """A vendor that refuses everybody costs neither a request nor a line a lead."""
    add_leads(database, 120)
    push_leads()
    doubt_all(database)
    vendor.add_fault(route="responses", every=1, **fault)
    before = count_requests(vendor, "responses")
    with pytest.raises(CampaignsFailed):
        push_leads()
    # The page of the listing, some lookups side by side and the probe, each three times at most.
    assert count_requests(vendor, "responses") - before <= 3 * 12
    assert sum(record.levelname == "WARNING" for record in caplog.records) <= 2


def test_a_refused_login_ends_the_lookups(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """More attempts with a wrong password may lock the account: one login, and one line."""
    add_leads(database, 30)
    push_leads()
    doubt_all(database)
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"LEADLOOP_{name}", "wrong")
    with pytest.raises(CampaignsFailed, match="30 leads in doubt could not be looked up"):
        push_leads()
    assert count_requests(vendor, "token") == 1
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 1


@pytest.mark.parametrize("status", [400, 403])
def test_leads_whose_lookups_are_refused_stop_no_other(
    database: Database, vendor: SandboxHandle, status: int
) -> None:
    """A firewall that takes offence at some leads lets the others be settled.

    Those that are refused come first; a lead that the vendor has shows that it answers.
    """
    refused, others = [f"A{n:02}" for n in range(25)], [f"Z{n:02}" for n in range(25)]
    factories.add_campaign(database, page_size=1)
    factories.add_leads(database, *refused, *others, "probe")
    push_leads()
    for lead_id in refused:
        vendor.add_fault(route="responses", kind="status", status=status, lead_id=lead_id)
    doubt_all(database)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created' WHERE lead_id = 'probe'")
    push_leads()
    statuses = sql.fetch_statuses(database)
    assert {statuses[lead_id] for lead_id in others} == {"created"}
    assert {statuses[lead_id] for lead_id in refused} == {"in_doubt"}
