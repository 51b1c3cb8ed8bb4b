"""A phone number that opted out is not sent under another name."""

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.jobs import disable_leads, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

NUMBER = "+14155550123"


def sent(vendor: SandboxHandle, *campaigns: str) -> set[str]:
    """The leads that the vendor has."""
    names = campaigns or (factories.CAMPAIGN,)
    return {lead_id for name in names for lead_id in vendor.store.creations(name)}


@pytest.mark.parametrize("written", ["+14155550123", "(415) 555-0123", "1 415 555 0123"])
@pytest.mark.parametrize("known", ["new", "sent"])
def test_a_number_that_opted_out_is_not_sent_under_another_lead(
    database: Database, vendor: SandboxHandle, written: str, known: str
) -> None:
    """However it is written, and whether the lead that opted out had been sent or not."""
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("first", phone_number=NUMBER))
    if known == "sent":
        push_leads()
    factories.add_leads(database, factories.build_lead("second", phone_number=written), "other")
    factories.add_opt_outs(database, "first")
    summary = push_leads()
    assert summary["cancelled"] == (1 if known == "sent" else 2)
    assert sent(vendor) == ({"first", "other"} if known == "sent" else {"other"})
    assert sql.fetch_statuses(database)["second"] == "cancelled"
    assert "opted out" in sql.fetch_errors(database)["second"]
    assert "0123" not in sql.fetch_errors(database)["second"]


def test_nor_in_another_campaign_unless_it_says_so(
    database: Database, vendor: SandboxHandle
) -> None:
    """The person said no to the business; a campaign may be told that this does not concern it."""
    for name, more in (("A", {}), ("B", {}), ("C", {"sends_opted_out_numbers": True})):
        factories.add_campaign(database, name, **more)
    factories.add_leads(database, factories.build_lead("a", phone_number=NUMBER), campaign="A")
    factories.add_opt_outs(database, "a", campaign="A")
    for name, lead_id in (("B", "b"), ("C", "c")):
        factories.add_leads(
            database, factories.build_lead(lead_id, phone_number=NUMBER), campaign=name
        )
    push_leads()
    assert sent(vendor, "A", "B", "C") == {"c"}


def test_an_opt_out_that_came_before_its_lead_counts_too(
    database: Database, vendor: SandboxHandle
) -> None:
    """Also for a lead with the same number that stands before it in the queue."""
    factories.add_campaign(database)
    factories.add_opt_outs(database, "late")
    factories.add_leads(
        database,
        factories.build_lead("early", phone_number=NUMBER),
        factories.build_lead("late", phone_number=NUMBER),
    )
    push_leads()
    assert sent(vendor) == set()
    assert set(sql.fetch_statuses(database).values()) == {"cancelled"}


def test_the_number_itself_is_not_kept(database: Database, vendor: SandboxHandle) -> None:
    """What is suppressed is a keyed hash, and a lead without a number is none."""
    vendor.change_rules(required=("lead_id",))
    factories.add_campaign(database, required_fields=[])
    factories.add_leads(
        database,
        factories.build_lead("a", phone_number=NUMBER),
        factories.build_lead("b", phone_number=None),
    )
    push_leads()
    factories.add_opt_outs(database, "a", "b")
    factories.add_leads(database, "c")
    push_leads()
    disable_leads()
    (row,) = sql.fetch_rows(database, "SELECT * FROM leadloop.suppressed_numbers")
    assert (row["campaign_id"], row["lead_id"], len(row["number_key"])) == ("C1", "a", 32)
    assert sent(vendor) == {"a", "b", "c"}


def test_a_number_of_a_campaign_whose_region_is_wrong(
    database: Database, vendor: SandboxHandle
) -> None:
    """It is suppressed once it can be read, and holds up no other campaign until that time."""
    factories.add_campaign(database)
    factories.add_campaign(database, "C2", default_region="UK")
    for lead_id, number in (("plus", "+442079460018"), ("national", "020 7946 0019")):
        factories.add_leads(
            database, factories.build_lead(lead_id, phone_number=number), campaign="C2"
        )
    factories.add_opt_outs(database, "plus", "national", campaign="C2")
    factories.add_leads(database, factories.build_lead("a", phone_number="+442079460018"))
    assert push_leads([factories.CAMPAIGN])["cancelled"] == 1
    sql.execute(database, "UPDATE leadloop.campaigns SET default_region = 'GB' WHERE name IS NULL")
    factories.add_leads(database, factories.build_lead("b", phone_number="+442079460019"))
    assert push_leads([factories.CAMPAIGN])["cancelled"] == 1


@pytest.mark.parametrize(
    "number", ["(+44) 20 7946 0018", "Tel: +44 20 7946 0018", "\uff0b442079460018"]
)
def test_a_country_code_needs_no_region(
    database: Database, vendor: SandboxHandle, number: str
) -> None:
    """Whatever stands before its plus, and in a campaign whose region is wrong."""
    factories.add_campaign(database)
    factories.add_campaign(database, "C2", default_region="UK")
    factories.add_leads(database, factories.build_lead("b", phone_number=number), campaign="C2")
    factories.add_opt_outs(database, "b", campaign="C2")
    factories.add_leads(database, factories.build_lead("a", phone_number="+442079460018"))
    assert push_leads([factories.CAMPAIGN])["cancelled"] == 1


def test_a_number_with_an_area_code_of_one_campaign(
    database: Database, vendor: SandboxHandle
) -> None:
    """It opted out in a campaign that does not know the code: nobody calls it."""
    factories.add_campaign(database, "A")
    factories.add_campaign(database, "B", area_codes=["999"])
    for name in "AB":
        lead = factories.build_lead(name.lower(), phone_number="(999) 555-0123")
        factories.add_leads(database, lead, campaign=name)
    assert push_leads(["B"])["created"] == 1
    factories.add_opt_outs(database, "a", campaign="A")
    lead = factories.build_lead("c", phone_number="999-555-0123")
    factories.add_leads(database, lead, campaign="B")
    assert push_leads(["B"])["cancelled"] == 1
