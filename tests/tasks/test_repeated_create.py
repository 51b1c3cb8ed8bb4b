"""The repeated create of a first contact: whatever ends it, the lead is created and is not lost."""

from pathlib import Path

import pytest

from db.database import Database
from leadloop.core.verdicts import ApiCall
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.batch_claimer import BatchClaimer
from tasks.context import open_api_context, start_run
from tasks.lead_quota import LeadQuota
from tests import factories, sql
from tests.first_contacts import run_contact
from tests.jobs import HOST, disable_leads, push_leads


@pytest.fixture(autouse=True)
def created_lead(database: Database, environment: Path, quick_retries: None) -> None:
    """A lead that the vendor has."""
    factories.add_campaign(database)
    factories.add_leads(database, "1")
    push_leads()


def test_a_process_that_dies_in_between_leaves_a_lead_in_doubt(
    database: Database, vendor: SandboxHandle
) -> None:
    """Not a new one, which a push would send a third time; a lookup finds it."""
    with open_api_context(Settings.load(), HOST) as context:
        (campaign,) = context.select_campaigns(["C1"])
        run = start_run(context, "push-leads", campaign)
        claimer = BatchClaimer(run, 1, lambda **_: None, quota=LeadQuota())
        batch = claimer.claim_created(context.limiter.acquire_permit(ApiCall.CREATE), "1")
        assert [lead.lead_id for lead in batch.leads] == ["1"]
        factories.add_opt_outs(database, "1")
        assert sql.fetch_statuses(database) == {"1": "sending"}
    push_leads()
    assert sql.fetch_statuses(database) == {"1": "created"}
    assert disable_leads()["disabled"] == 1
    assert vendor.store.offers("C1") == {"1": 1}


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
