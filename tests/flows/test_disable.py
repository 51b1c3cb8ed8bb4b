"""`disable-leads` and `sync-leads`, against the sandbox over real HTTP."""

import pytest
from sqlalchemy import text

from db import opt_outs
from db.database import Database
from flows.campaigns import CampaignsFailed
from flows.disable import disable_leads
from flows.push import push_leads
from flows.sync import sync_leads
from leadloop.cli.forget import forget_leads
from leadloop.sandbox import Handle
from leadloop.settings import Settings
from tests import books

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def push(database: Database, *ids: str) -> None:
    """A campaign whose leads the vendor has."""
    books.add_campaign(database)
    books.add_leads(database, *ids)
    push_leads()


def test_people_who_opted_out_are_disabled(database: Database, vendor: Handle) -> None:
    """The vendor disables them, and both times are kept."""
    push(database, "a", "b", "c")
    books.opt_out(database, "a", "b")
    summary = disable_leads()
    assert (summary["disabled"], summary["requests"]) == (2, 1)
    assert set(vendor.books.disabled(books.CAMPAIGN)) == {"a", "b"}
    times = "SELECT bool_and(requested_at <= sent_at AND sent_at <= confirmed_at)"
    assert books.value(database, f"{times} FROM leadloop.disable_requests")


def test_a_lead_that_was_not_sent_is_cancelled(database: Database, vendor: Handle) -> None:
    """It costs no request, and no later push sends it."""
    books.add_campaign(database)
    books.add_leads(database, "a")
    books.opt_out(database, "a")
    summary = disable_leads()
    assert (summary["cancelled"], summary["requests"]) == (1, 0)
    push_leads()
    assert books.statuses(database) == {"a": "cancelled"}
    assert dict(vendor.books.creations(books.CAMPAIGN)) == {}


@pytest.mark.parametrize("first", ["lead", "opt-out"])
@pytest.mark.parametrize("sent", [False, True])
def test_an_opt_out_and_its_lead_that_do_not_see_each_other_meet_at_the_disable(
    database: Database, vendor: Handle, first: str, sent: bool
) -> None:
    """Each is committed while the other's transaction is open: the number is suppressed anyway."""
    books.add_campaign(database)
    row = books.lead("a")
    insert = text(
        "INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number) VALUES ('C1', 'a', :n)"
    )
    with database.begin() as upstream, database.begin() as other:
        lead, opt_out = (upstream, other) if first == "lead" else (other, upstream)
        lead.execute(insert, {"n": row["phone_number"]})
        opt_outs.request(opt_out, books.CAMPAIGN, ["a"])
    if sent:
        books.run(database, "UPDATE leadloop.leads SET status = 'created', sent_at = now()")
    disable_leads()
    books.add_leads(database, books.lead("twin", phone_number=row["phone_number"]))
    push_leads()
    assert dict(vendor.books.creations(books.CAMPAIGN)) == {}
    assert books.statuses(database)["twin"] == "cancelled"


@pytest.mark.parametrize("policy", ["404", "400", "lead"])
def test_an_unknown_lead_holds_up_nobody(database: Database, vendor: Handle, policy: str) -> None:
    """It is tried again, then reported; the others are disabled at the first try."""
    vendor.change(unknown_disable=policy)
    push(database, "a", "b", "c")
    books.opt_out(database, "a", "nobody", "c")
    summary = disable_leads()
    assert (summary["disabled"], summary["failed"]) == (2, 1)
    assert books.opt_outs(database) == {"a": "disabled", "c": "disabled", "nobody": "failed"}
    tries = "SELECT tries FROM leadloop.disable_requests WHERE lead_id = 'nobody'"
    assert books.value(database, tries) == 3


@pytest.mark.parametrize("policy", ["404", "lead"])
def test_a_campaign_that_refuses_everybody_is_not_asked_for_each(
    database: Database, vendor: Handle, policy: str
) -> None:
    """After a hundred refusals with the same words the run stops; the next one asks for others."""
    vendor.change(unknown_disable=policy)
    push(database, "known")
    books.opt_out(database, *(f"U{n:03d}" for n in range(180)), "known")
    with pytest.raises(CampaignsFailed, match="100 opt-outs in a row"):
        disable_leads()
    assert set(books.opt_outs(database).values()) == {"requested"}
    assert len(vendor.requests) <= 202
    with pytest.raises(CampaignsFailed, match="100 opt-outs in a row"):
        disable_leads()
    assert books.opt_outs(database)["known"] == "disabled"


def test_too_large_a_list_is_halved_and_remembered(database: Database, vendor: Handle) -> None:
    """One 413 a halving, not one a list."""
    push(database, *(f"L{n:03d}" for n in range(160)))
    books.opt_out(database, *(f"L{n:03d}" for n in range(160)))
    books.run(database, "UPDATE leadloop.campaigns SET batch_size = 40")
    vendor.change(max_body_bytes=300)
    assert disable_leads()["disabled"] == 160
    answers = [entry.status for entry in vendor.requests if entry.kind == "disable"]
    assert answers.count(413) <= 3
    assert len(answers) <= 20


def test_a_refusal_is_not_for_ever(database: Database, vendor: Handle) -> None:
    """What has failed is tried again by itself, a minute later and then ever more seldom."""
    push(database, "a", "b")
    books.opt_out(database, "a", "b")
    vendor.fault(route="disable", kind="status", status=404)
    assert disable_leads()["failed"] == 2
    vendor.clear_faults()
    assert disable_leads()["requests"] == 0
    books.run(
        database,
        "UPDATE leadloop.disable_requests SET tried_at = tried_at - interval '61 seconds'",
    )
    assert disable_leads()["disabled"] == 2
    assert set(vendor.books.disabled(books.CAMPAIGN)) == {"a", "b"}


def test_a_proxy_in_the_vendors_place_fails_no_opt_out(database: Database, vendor: Handle) -> None:
    """Its page says nothing of anybody: one request, the run stops, and all stay requested."""
    lead_ids = [f"L{number}" for number in range(32)]
    push(database, *lead_ids)
    books.opt_out(database, *lead_ids)
    vendor.fault(route="disable", kind="status", status=404, body="html")
    with pytest.raises(CampaignsFailed, match="LEADLOOP_API_URL") as caught:
        disable_leads()
    assert caught.value.summary["requests"] == 1
    assert set(books.opt_outs(database).values()) == {"requested"}


def test_a_name_in_the_vendors_words_is_not_kept(database: Database, vendor: Handle) -> None:
    """What the vendor repeats of a person who opted out does not get into `last_error`."""
    vendor.fault(route="disable", kind="status", status=404)
    books.add_campaign(database)
    # The sandbox's words are "A fault of the sandbox."
    books.add_leads(database, books.lead("a", contact_name="Sandbox Example"))
    push_leads()
    books.opt_out(database, "a")
    disable_leads()
    said = books.value(database, "SELECT last_error FROM leadloop.disable_requests")
    assert said.startswith("vendor: ")
    assert "sandbox" not in said.lower()


def test_the_vendors_words_of_somebody_forgotten_are_not_kept(
    database: Database, vendor: Handle, caplog: pytest.LogCaptureFixture
) -> None:
    """Their name is known to nobody any more, so that it could not be blotted out."""
    vendor.fault(route="disable", kind="status", status=404)
    books.add_campaign(database)
    books.add_leads(database, books.lead("a", contact_name="Sandbox Example"))
    push_leads()
    forget_leads(database, Settings.load(), books.CAMPAIGN, ["a"])
    disable_leads()
    told = books.value(database, "SELECT last_error FROM leadloop.disable_requests")
    assert told.startswith("vendor: ")
    assert "sandbox" not in (told + caplog.text).lower()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["reset", "status", "foreign"])
def test_a_disable_is_sent_until_it_is_confirmed(
    database: Database, vendor: Handle, kind: str, when: str
) -> None:
    """A disable that may not have been carried out is repeated."""
    push(database, "a")
    books.opt_out(database, "a")
    vendor.fault(route="disable", kind=kind, when=when, nth=1)
    assert disable_leads()["disabled"] == 1
    assert set(vendor.books.disabled(books.CAMPAIGN)) == {"a"}


def test_nothing_to_disable_sends_nothing(database: Database, vendor: Handle) -> None:
    """A run without an opt-out costs no request."""
    books.add_campaign(database)
    assert disable_leads()["requests"] == 0


def test_a_lead_in_doubt_is_settled_before_it_is_disabled(
    database: Database, vendor: Handle
) -> None:
    """Its lookup shows that the vendor has it, and it is disabled in the same run."""
    push(database, "a")
    books.run(database, "UPDATE leadloop.leads SET status = 'in_doubt'")
    books.opt_out(database, "a")
    assert disable_leads()["disabled"] == 1
    assert books.statuses(database) == {"a": "created"}
    assert set(vendor.books.disabled(books.CAMPAIGN)) == {"a"}


def test_sync_disables_first_and_does_all_three(database: Database, vendor: Handle) -> None:
    """Who opted out before the sync is not in its push; outcomes come back by its poll."""
    books.add_campaign(database)
    books.add_leads(database, "a", "b")
    books.opt_out(database, "a")
    summary = sync_leads()
    assert summary["disable"]["cancelled"] == 1
    assert summary["push"]["created"] == 1
    assert set(summary["poll"]) >= {"windows", "pages", "seen", "inserted", "requests"}
    flows = "SELECT flow FROM leadloop.sync_runs ORDER BY run_id"
    assert [row["flow"] for row in books.rows(database, flows)] == [
        "sync-leads",
        "disable-leads",
        "push-leads",
        "poll-outcomes",
    ]
    states = "SELECT DISTINCT state FROM leadloop.sync_runs"
    assert books.rows(database, states) == [{"state": "completed"}]
