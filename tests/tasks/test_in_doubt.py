"""What the vendor may or may not have: looked up, and never sent twice."""

from contextlib import nullcontext
from typing import Any

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.jobs import disable_leads, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def doubt(database: Database, *lead_ids: str) -> None:
    """Leads whose request broke off before its answer."""
    factories.add_leads(database, *lead_ids)
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', sent_at = now(), doubted_at = now()"
        " WHERE lead_id = ANY(:ids)",
        ids=list(lead_ids),
    )


def created(vendor: SandboxHandle) -> dict[str, int]:
    """How often the vendor has created each lead."""
    return dict(vendor.store.creations(factories.CAMPAIGN))


def test_that_a_processed_lead_shows_proves_nothing(
    database: Database, vendor: SandboxHandle
) -> None:
    """A vendor that shows processed leads alone is not believed that an absent one is not there."""
    vendor.change_rules(shows_unprocessed=False, repeat="second")
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, "specimen")
    push_leads()
    vendor.put_outcomes([{"campaign_id": factories.CAMPAIGN, "lead_id": "specimen"}])
    factories.add_leads(database, "lost")
    vendor.add_fault(route="create", kind="reset", when="after", nth=1)
    push_leads()
    push_leads()
    assert created(vendor) == {"specimen": 1, "lost": 1}
    assert sql.fetch_statuses(database)["lost"] == "in_doubt"


def lookups(vendor: SandboxHandle) -> int:
    """How many leads were looked up."""
    return [entry.kind for entry in vendor.requests].count("responses")


def _remembered_is_missing(database: Database, vendor: SandboxHandle) -> None:
    sql.execute(
        database, "UPDATE leadloop.campaigns SET specimen_lead_id = NULL, specimen_at = NULL"
    )


def _remembered_is_processed(database: Database, vendor: SandboxHandle) -> None:
    vendor.put_outcomes([{"campaign_id": factories.CAMPAIGN, "lead_id": "specimen"}])


_USELESS = pytest.mark.parametrize("remembered", [_remembered_is_missing, _remembered_is_processed])


@_USELESS
def test_any_lead_that_is_created_and_not_processed_serves(
    database: Database, vendor: SandboxHandle, remembered: Any
) -> None:
    """Where it shows, one that does not is not there: it is sent again, and created once."""
    factories.add_campaign(database)
    factories.add_leads(database, "other", "specimen")
    push_leads()
    remembered(database, vendor)
    doubt(database, "lost", "lost too")
    push_leads()
    push_leads()
    assert set(sql.fetch_statuses(database).values()) == {"created"}
    assert created(vendor) == {"specimen": 1, "other": 1, "lost": 1, "lost too": 1}


@_USELESS
def test_a_vendor_that_does_not_show_another_one_is_not_believed(
    database: Database, vendor: SandboxHandle, remembered: Any
) -> None:
    """A created lead that is absent shows that absence proves nothing, and this is remembered."""
    vendor.change_rules(shows_unprocessed=False)
    factories.add_campaign(database)
    factories.add_leads(database, "other", "specimen")
    push_leads()
    remembered(database, vendor)
    doubt(database, "lost")
    push_leads()
    assert sql.fetch_statuses(database)["lost"] == "in_doubt"
    assert sql.fetch_value(database, "SELECT shows_unprocessed FROM leadloop.campaigns") is False


@pytest.mark.parametrize(
    "useless",
    [
        "INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)"
        " VALUES (:campaign, 'other', now(), '{}')",
        "INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES (:campaign, 'other')",
        "UPDATE leadloop.leads SET status = 'rejected' WHERE lead_id = 'other'",
        "UPDATE leadloop.leads SET confirmed_at = now() + interval '1 day' WHERE lead_id = 'other'",
    ],
)
def test_no_other_lead_serves_that_proves_nothing(
    database: Database, vendor: SandboxHandle, useless: str
) -> None:
    """One with an outcome, opted out, not created, or so new that it need not show yet."""
    factories.add_campaign(database)
    factories.add_leads(database, "other", "specimen")
    push_leads()
    _remembered_is_processed(database, vendor)
    sql.execute(database, useless.replace(":campaign", f"'{factories.CAMPAIGN}'"))
    doubt(database, "lost", "lost too")
    push_leads()
    assert sql.fetch_statuses(database)["lost"] == "in_doubt"
    # The specimen once, and each of the two that are in doubt.
    assert lookups(vendor) == 3


def test_no_lookups_where_they_can_tell_nothing(database: Database, vendor: SandboxHandle) -> None:
    """Where unprocessed leads are known not to show, a backlog of doubts costs no budget."""
    factories.add_campaign(database, shows_unprocessed=False, visibility_tried_at="now")
    doubt(database, "a", "b")
    assert push_leads()["requests"] == 0
    assert set(sql.fetch_statuses(database).values()) == {"in_doubt"}


def test_a_no_is_tried_again_after_a_day(database: Database, vendor: SandboxHandle) -> None:
    """The vendor may only have been slow on that one occasion."""
    factories.add_campaign(database)
    factories.add_leads(database, "specimen")
    push_leads()
    sql.execute(
        database,
        "UPDATE leadloop.campaigns SET shows_unprocessed = false,"
        " visibility_tried_at = now() - interval '25 hours'",
    )
    doubt(database, "lost")
    push_leads()
    assert sql.fetch_statuses(database)["lost"] == "created"
    assert created(vendor) == {"specimen": 1, "lost": 1}


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_lookup_that_fails_holds_up_nothing(
    database: Database, vendor: SandboxHandle, status: int
) -> None:
    """Neither fresh leads nor opt-outs wait for a lead that cannot be looked up.

    A push without any answer to its lookups fails nevertheless; a 404 is an answer.
    """
    factories.add_campaign(database, shows_unprocessed=True)
    factories.add_leads(database, "gone")
    push_leads()
    doubt(database, "bad")
    factories.add_leads(database, "good")
    factories.add_opt_outs(database, "bad", "gone")
    vendor.add_fault(route="responses", kind="status", status=status, every=1)
    disable_leads()
    with nullcontext() if status == 404 else pytest.raises(CampaignsFailed):
        push_leads()
    assert sql.fetch_statuses(database) == {"gone": "created", "bad": "in_doubt", "good": "created"}
    assert sql.fetch_opt_outs(database)["gone"] == "disabled"


def test_a_vendor_that_answers_no_lookup_still_gets_leads(
    database: Database, vendor: SandboxHandle
) -> None:
    """After one pause: the lookups are put off, not the leads. The push fails because of them."""
    factories.add_campaign(database, shows_unprocessed=True)
    doubt(database, *(f"D{n}" for n in range(10)))
    factories.add_leads(database, "good")
    vendor.add_fault(route="responses", kind="status", status=500, every=1)
    with pytest.raises(CampaignsFailed, match="10 leads in doubt could not be looked up"):
        push_leads()
    assert sql.fetch_statuses(database)["good"] == "created"


def test_no_confirmation_counts_while_the_lead_is_in_doubt(
    database: Database, vendor: SandboxHandle
) -> None:
    """Its create may be carried out after the disable: then it is disabled once more."""
    vendor.change_rules(unknown_disable="ignore")
    factories.add_campaign(database)
    doubt(database, "a")
    factories.add_opt_outs(database, "a")
    disable_leads()
    assert sql.fetch_opt_outs(database) == {"a": "requested"}
    # Now the request that had been on its way arrives.
    sql.execute(database, "UPDATE leadloop.leads SET status = 'new', doubted_at = NULL")
    sql.execute(database, "UPDATE leadloop.leads SET opted_out = false")
    sql.execute(database, "DELETE FROM leadloop.disable_requests")
    push_leads()
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now()")
    factories.add_opt_outs(database, "a")
    assert disable_leads()["disabled"] == 1
    assert set(vendor.store.disabled(factories.CAMPAIGN)) == {"a"}


@pytest.mark.parametrize("flow", [push_leads, disable_leads])
def test_every_doubt_is_looked_up_in_the_run(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, flow: Any
) -> None:
    """Also behind more than a share of others that the vendor does not show yet: each once.

    A push reads the campaign's only page instead, after its count has told that there is one.
    """
    monkeypatch.setenv("LEADLOOP_SETTLE", "600")
    shown = [f"Z{n:02d}" for n in range(25)]
    absent = [f"A{n:02d}" for n in range(45)]
    factories.add_campaign(database)
    factories.add_leads(database, *shown)
    push_leads()
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now()")
    doubt(database, *absent)
    if flow is disable_leads:
        vendor.change_rules(unknown_disable="ignore")
        factories.add_opt_outs(database, *shown, *absent)
    flow()
    assert lookups(vendor) == (len(shown + absent) if flow is disable_leads else 2)
    statuses = sql.fetch_statuses(database)
    assert {statuses[lead_id] for lead_id in shown} == {"created"}
    assert {statuses[lead_id] for lead_id in absent} == {"in_doubt"}
    if flow is disable_leads:
        assert {sql.fetch_opt_outs(database)[lead_id] for lead_id in shown} == {"disabled"}
