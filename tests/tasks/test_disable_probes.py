"""Outages, and what a disable probes to tell them from opt-outs on which the vendor fails."""

from contextlib import nullcontext
from typing import Any

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.jobs import disable_leads, push_leads
from tests.opted_out import (
    count_requests,
    name_failure,
    opted_out_people,
    poison,
    push_campaign,
)

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_OUTAGES: list[dict[str, Any]] = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502, "body": "html"},
    {"kind": "reset"},
    {"kind": "hang", "seconds": 1},
    {"kind": "foreign"},
]


@pytest.mark.parametrize("failure", _OUTAGES, ids=name_failure)
def test_an_outage_ends_the_run_with_the_address_and_the_number(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    failure: dict[str, Any],
) -> None:
    """Nobody is set aside, the first list is sent once, and the message says how many wait."""
    monkeypatch.setenv("LEADLOOP_TIMEOUT", "1,0.3")
    opted_out_people(database, 30)
    vendor.add_fault(**failure)
    with pytest.raises(CampaignsFailed, match=rf"{vendor.url} .*not confirmed: 30"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}
    assert count_requests(vendor, "disable") == 1
    vendor.clear_faults()
    assert disable_leads()["disabled"] == 30


@pytest.mark.parametrize("is_first", [True, False])
def test_the_first_request_after_an_outage_is_a_probe(
    database: Database, vendor: SandboxHandle, is_first: bool
) -> None:
    """A read; or the disable of one lead that the vendor has confirmed before."""
    opted_out_people(database, 30)
    if not is_first:
        sql.execute(
            database,
            "UPDATE leadloop.disable_requests SET status = 'disabled' WHERE lead_id = 'P000'",
        )
    # It never fires, and counts the requests that name the confirmed lead.
    vendor.add_fault(route="disable", kind="reset", lead_id="P000", times=0)
    before = len(vendor.requests)
    vendor.add_fault(kind="reset", times=4)
    summary = disable_leads()
    assert (summary["failed"], set(sql.fetch_opt_outs(database).values())) == (0, {"disabled"})
    kinds = [entry.kind for entry in vendor.requests[before:]]
    probe = "responses" if is_first else "disable"
    assert kinds == ["disable", *[probe] * 4, "disable"]
    assert vendor.faults[0]["seen"] == (2 if is_first else 4)


def test_who_fails_alone_in_an_outage_right_after_a_success_is_not_set_aside(
    database: Database, vendor: SandboxHandle
) -> None:
    """Lists of one: the probe before anybody is set aside fails too, so they are sent again."""
    opted_out_people(database, 3)
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 1")
    for number in range(2, 7):
        vendor.add_fault(route="disable", kind="reset", nth=number)
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"]) == (3, 0)


def test_a_list_that_fails_while_reads_do_too_holds_up_the_others_once(
    database: Database, vendor: SandboxHandle
) -> None:
    """Nothing tells its failure from an outage; the next run sends it last."""
    opted_out_people(database, 60)
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 20")
    poison(vendor, "P000", {"status": 500})
    vendor.add_fault(route="responses", kind="status")
    with pytest.raises(CampaignsFailed, match="not confirmed: 60"):
        disable_leads()
    assert disable_leads()["disabled"] == 59


def test_a_login_that_fails_is_no_opt_outs_fault(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it fails between two lists, no list is halved."""
    opted_out_people(database, 12)
    sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 4")
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    for name in ("client_id", "client_secret", "username", "password"):
        monkeypatch.setenv(f"LEADLOOP_{name.upper()}", getattr(vendor.rules, name))
    # Tokens so short that each request needs a login.
    vendor.change_rules(expires_in=1)
    for number in range(2, 7):
        vendor.add_fault(route="token", kind="status", nth=number)
    assert disable_leads()["disabled"] == 12
    assert count_requests(vendor, "disable") == 3


def test_a_login_that_never_works_ends_the_run_with_the_number(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was tried, so the run does not say that all is well."""
    opted_out_people(database, 4)
    monkeypatch.setenv("LEADLOOP_API_TOKEN", "another")
    with pytest.raises(CampaignsFailed, match=r"LEADLOOP_API_TOKEN.*not confirmed: 4"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}


def test_a_404_to_one_read_is_not_the_campaigns(database: Database, vendor: SandboxHandle) -> None:
    """It may be noise: the campaign is unknown only if reads of it fail so three times."""
    opted_out_people(database, 4)
    poison(vendor, "P001", {"status": 404})
    vendor.add_fault(route="responses", kind="status", status=404, times=2)
    assert disable_leads()["disabled"] == 3


def test_an_outage_sets_nobody_aside(database: Database, vendor: SandboxHandle) -> None:
    """Everybody's trouble is nobody's: all stay requested, and go out when it is over."""
    opted_out_people(database, 30)
    vendor.add_fault(route="disable", kind="status")
    with pytest.raises(CampaignsFailed, match="fails on all opt-outs"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}
    vendor.clear_faults()
    assert disable_leads()["disabled"] == 30


def test_who_hold_up_an_outage_of_their_own_come_last_the_next_time(
    database: Database, vendor: SandboxHandle
) -> None:
    """Nobody is confirmed yet, and a dozen bad ones are in front: the rest gets through next."""
    opted_out_people(database, 40)
    for number in range(12):
        vendor.add_fault(route="disable", kind="status", lead_id=f"P{number:03d}")
    with pytest.raises(CampaignsFailed, match="fails on all opt-outs"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}
    assert disable_leads()["disabled"] == 28
    assert sql.fetch_opt_outs(database)["P000"] == "failed"


def test_the_only_opt_out_is_not_taken_for_an_outage(
    database: Database, vendor: SandboxHandle
) -> None:
    """A read of the campaign gets through, so it is set aside, and the run says that it failed."""
    opted_out_people(database, 1)
    vendor.add_fault(route="disable", kind="status")
    with pytest.raises(CampaignsFailed, match="took no other"):
        disable_leads()
    assert sql.fetch_opt_outs(database) == {"P000": "failed"}


def test_a_proxy_in_the_vendors_place_fails_no_opt_out(
    database: Database, vendor: SandboxHandle
) -> None:
    """Its page says nothing of anybody: the run stops, and all stay requested."""
    lead_ids = [f"L{number}" for number in range(32)]
    push_campaign(database, *lead_ids)
    factories.add_opt_outs(database, *lead_ids)
    vendor.add_fault(route="disable", kind="status", status=404, body="html")
    with pytest.raises(CampaignsFailed, match="fails on all opt-outs"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}


def test_a_404_that_is_not_the_vendors_word_shelves_nobody(
    database: Database, vendor: SandboxHandle
) -> None:
    """A proxy's page for every address, while the vendor deploys: the run fails, all wait."""
    opted_out_people(database, 3)
    vendor.add_fault(kind="status", status=404, body="html")
    with pytest.raises(CampaignsFailed, match=r"not the vendor's JSON.* not confirmed: 3"):
        disable_leads()
    assert set(sql.fetch_opt_outs(database).values()) == {"requested"}


def test_a_campaign_that_the_vendor_had_is_tried_again_soon(
    database: Database, vendor: SandboxHandle
) -> None:
    """It may be away for a moment only: a minute, then ever more seldom."""
    opted_out_people(database, 3)
    vendor.add_fault(kind="status", status=404)
    assert disable_leads()["failed"] == 3
    waits = """SELECT max(extract(epoch FROM next_try_at - tried_at))
                 FROM leadloop.disable_requests"""
    assert float(sql.fetch_value(database, waits)) <= 300


def test_many_unknown_leads_hold_up_nobody(database: Database, vendor: SandboxHandle) -> None:
    """More than a hundred rejections alike in a row; but the vendor still takes a confirmed one."""
    opted_out_people(database, 2)
    disable_leads()
    factories.add_opt_outs(database, *(f"U{number:03d}" for number in range(150)))
    factories.add_leads(database, "late")
    push_leads()
    factories.add_opt_outs(database, "late")
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"]) == (1, 150)


@pytest.mark.parametrize(("poisoned", "ends_well"), [(3, True), (12, False)])
def test_a_run_in_which_the_vendor_took_no_due_opt_out(
    database: Database, vendor: SandboxHandle, poisoned: int, ends_well: bool
) -> None:
    """An earlier one is confirmed again: that excuses a few that fail, and not all of many."""
    opted_out_people(database, poisoned + 1)
    sql.execute(
        database,
        """UPDATE leadloop.disable_requests SET status = 'disabled', confirmed_at = now()
            WHERE lead_id = 'P000'""",
    )
    for number in range(1, poisoned + 1):
        poison(vendor, f"P{number:03}", {"kind": "status", "status": 500})
    with nullcontext() if ends_well else pytest.raises(CampaignsFailed, match="took no other"):
        disable_leads()
    query = "SELECT count(*) FROM leadloop.disable_requests WHERE status = 'failed'"
    assert sql.fetch_value(database, query) == poisoned
