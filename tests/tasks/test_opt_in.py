"""Opting in again: leads are sent after all, and nobody whom another opt-out protects."""

import pytest

from db.database import Database
from leadloop.core.errors import UsageError
from leadloop.core.opt_ins import OPTED_OUT_REASON
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.opt_in import OptInResult, opt_in_leads
from tests import factories, sql
from tests.jobs import disable_leads, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

NUMBER = "+14155550123"


def opt_in(database: Database, *lead_ids: str) -> OptInResult:
    """Withdraw the opt-outs of these leads."""
    return opt_in_leads(database, Settings.load(), factories.CAMPAIGN, lead_ids, "mistyped")


@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("run", [push_leads, disable_leads])
def test_a_lead_that_opted_out_by_mistake(
    database: Database, vendor: SandboxHandle, deleted: bool, run: object
) -> None:
    """It states why it waits; after the opt-in it is sent, and so is its number."""
    assert callable(run)
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("a", phone_number=NUMBER))
    factories.add_opt_outs(database, "a")
    if deleted:
        sql.execute(database, "DELETE FROM leadloop.disable_requests")
        run = push_leads
    run()
    assert sql.fetch_statuses(database) == {"a": "cancelled"}
    assert sql.fetch_errors(database) == {"a": OPTED_OUT_REASON}
    assert opt_in(database, "a") == OptInResult(opted_in=["a"], suppressed={})
    factories.add_leads(database, factories.build_lead("b", phone_number=NUMBER))
    assert push_leads()["created"] == 2
    assert sql.fetch_opt_outs(database) == {}
    assert disable_leads()["disabled"] == 0
    assert sql.fetch_errors(database) == {}


def test_a_number_that_opted_out_under_another_lead_too(
    database: Database, vendor: SandboxHandle
) -> None:
    """It stays suppressed, and the other lead is named, until that one opts in as well."""
    factories.add_campaign(database)
    leads = [factories.build_lead(lead_id, phone_number=NUMBER) for lead_id in ("a", "b", "c")]
    factories.add_leads(database, *leads)
    factories.add_opt_outs(database, "a", "b")
    assert push_leads()["cancelled"] == 3
    result = opt_in(database, "a")
    assert "b of campaign C1 opted out with the same number" in result.suppressed["a"]
    assert push_leads()["created"] == 0
    assert opt_in(database, "a", "b", "c").suppressed == {}
    assert push_leads()["created"] == 3


def test_a_number_that_no_push_has_indexed_yet(database: Database, vendor: SandboxHandle) -> None:
    """The other lead is named at once, not cancelled without a word by the next push."""
    factories.add_campaign(database)
    leads = [factories.build_lead(lead_id, phone_number=NUMBER) for lead_id in ("a", "b")]
    factories.add_leads(database, *leads)
    factories.add_opt_outs(database, "a", "b")
    suppressed = opt_in(database, "a").suppressed
    assert "b of campaign C1 opted out with the same number" in suppressed["a"]


def test_a_lead_that_was_disabled_at_the_vendor(database: Database, vendor: SandboxHandle) -> None:
    """Its API has no way back: nothing is changed, of any of the leads."""
    factories.add_campaign(database)
    factories.add_leads(database, "sent", "new")
    push_leads()
    factories.add_opt_outs(database, "sent")
    disable_leads()
    factories.add_opt_outs(database, "other")
    with pytest.raises(UsageError, match="sent may have been disabled at the vendor"):
        opt_in(database, "sent", "other")
    with pytest.raises(UsageError, match="new has not opted out"):
        opt_in(database, "new")
    assert sql.fetch_opt_outs(database) == {"sent": "disabled", "other": "requested"}
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.opt_ins") == 0


def test_an_opt_out_of_a_lead_that_was_sent_can_be_withdrawn_until_it_is_sent(
    database: Database, vendor: SandboxHandle
) -> None:
    """The vendor never hears of it."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    push_leads()
    factories.add_opt_outs(database, "a")
    opt_in(database, "a")
    assert disable_leads()["disabled"] == 0
    assert list(vendor.store.disabled(factories.CAMPAIGN)) == []
    factories.add_opt_outs(database, "a")
    assert disable_leads()["disabled"] == 1, "it may opt out again"
