"""The repeated create of a first contact: whatever ends it, the lead is created and is not lost."""

import itertools
from pathlib import Path

import pytest

from db import leads
from db.database import Database
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks import rate_limiter
from tasks.batch_claimer import BatchClaimer
from tasks.context import open_api_context, start_run
from tasks.lead_quota import LeadQuota
from tests import factories, sql
from tests.first_contacts import Person, run_contact
from tests.jobs import HOST, disable_leads, push_leads


@pytest.fixture(autouse=True)
def created_lead(database: Database, environment: Path, quick_retries: None) -> None:
    """A lead that the vendor has."""
    factories.add_campaign(database)
    factories.add_leads(database, "1")
    push_leads()


def die_in_a_repeated_create(database: Database, lead_id: str) -> None:
    """Claim a created lead, and end as a killed process does; the lead opts out meanwhile."""
    with open_api_context(Settings.load(), HOST) as context:
        (campaign,) = context.select_campaigns(["C1"])
        run = start_run(context, "push-leads", campaign)
        claimer = BatchClaimer(run, 1, quota=LeadQuota())
        batch = claimer.claim_created(context.limiter.acquire_permit(ApiCall.CREATE), lead_id)
        assert [lead.lead_id for lead in batch.leads] == [lead_id]
        factories.add_opt_outs(database, lead_id)
        assert sql.fetch_statuses(database)[lead_id] == "sending"


def test_a_process_that_dies_in_between_leaves_a_lead_in_doubt(
    database: Database, vendor: SandboxHandle
) -> None:
    """Not a new one, which a push would send a third time; a lookup finds it."""
    die_in_a_repeated_create(database, "1")
    push_leads()
    assert sql.fetch_statuses(database) == {"1": "created"}
    assert disable_leads()["disabled"] == 1
    assert vendor.store.offers("C1") == {"1": 1}


def test_a_lead_that_the_vendor_does_not_show_any_more_stays_created(
    database: Database, vendor: SandboxHandle
) -> None:
    """It was created once: it is not sent by itself, and its opt-out is sent."""
    factories.add_leads(database, "2")
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'created', sent_at = now(), confirmed_at = now()"
        " WHERE lead_id = '2'",
    )
    query = "SELECT sent_at, confirmed_at FROM leadloop.leads WHERE lead_id = '2'"
    before = sql.fetch_rows(database, query)
    die_in_a_repeated_create(database, "2")
    for _ in range(2):
        push_leads()
    assert sql.fetch_statuses(database) == {"1": "created", "2": "created"}
    assert sql.fetch_rows(database, query) == before
    disable_leads()
    # This vendor does not know the lead: the opt-out was sent and refused, and a person sees it.
    assert sql.fetch_opt_outs(database) == {"2": "failed"}
    assert vendor.store.offers("C1") == {"1": 1}


def test_whoever_requeues_it_makes_a_lead_like_any_other(
    database: Database, vendor: SandboxHandle
) -> None:
    """On the person's responsibility: if it is not created then, it is new again."""
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt'")
    with database.transaction() as connection:
        leads.requeue_leads(connection, campaign_ids=["C1"], status="in_doubt", lead_ids=["1"])
    query = "SELECT status, confirmed_at FROM leadloop.leads"
    assert sql.fetch_rows(database, query) == [{"status": "new", "confirmed_at": None}]


def test_permits_that_always_expire_end_it_and_nothing_is_sent(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is slower than permits last would keep the contact in this step forever."""

    def stand_still(announcement: str) -> None:
        if "AGAIN" in announcement:
            seconds = itertools.count(read_boot_clock(), 10)
            monkeypatch.setattr(rate_limiter, "read_boot_clock", lambda: next(seconds))

    with pytest.raises(RunError, match=r"was not sent again: .* permits to send expired"):
        run_contact(database, "1", person=Person(on_ask=stand_still), repeats_id=True)
    assert vendor.store.offers("C1") == {"1": 1}
    assert sql.fetch_statuses(database) == {"1": "created"}
    kept = "SELECT count(*) FROM leadloop.learned_answers WHERE question = 'repeated_id'"
    assert sql.fetch_value(database, kept) == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_leaves_the_lead_created(
    database: Database, vendor: SandboxHandle, when: str
) -> None:
    """The vendor has it, whatever became of the repetition; when it was created stays."""
    query = "SELECT confirmed_at, sent_at FROM leadloop.leads"
    before = sql.fetch_rows(database, query)
    vendor.add_fault(route="create", kind="reset", when=when, nth=2)
    learned = run_contact(database, "1", repeats_id=True)["learned"]
    assert learned["repeated_id"].startswith("no answer (")
    assert sql.fetch_statuses(database) == {"1": "created"}
    assert sql.fetch_rows(database, query) == before
    counted = "SELECT sum(amount) FROM leadloop_monitor.latencies WHERE kind = 'lead'"
    assert sql.fetch_value(database, counted) == 1
