"""Opt-out sources of campaigns whose account has no login here are read all the same."""

from typing import Any

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.jobs import disable_leads, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment", "vendor")


@pytest.fixture
def unserved(
    database: Database, emea: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Two leads of a served campaign, one with the number in the source of C2; its columns."""
    monkeypatch.delenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN")
    named, other = factories.build_lead("a"), factories.build_lead("b")
    sql.execute(
        database,
        "CREATE SCHEMA crm; CREATE TABLE crm.out (lead_id text, phone_number text);"
        " INSERT INTO crm.out VALUES ('z', :number)",
        number=named["phone_number"],
    )
    factories.add_campaign(database, "C1")
    factories.add_campaign(database, "C2", account="emea", opt_out_source="crm.out")
    factories.add_leads(database, named, other, campaign="C1")
    return named


@pytest.mark.parametrize("enabled", [True, False])
def test_a_number_in_the_source_is_sent_in_no_campaign(
    unserved: dict[str, Any],
    database: Database,
    vendor: SandboxHandle,
    emea: SandboxHandle,
    enabled: bool,
) -> None:
    """A disable over all campaigns reads it, as no run of its campaign, and sends nothing of it."""
    sql.execute(
        database,
        "UPDATE leadloop.campaigns SET enabled = :enabled WHERE campaign_id = 'C2'",
        enabled=enabled,
    )
    disable_leads()
    push_leads()
    assert vendor.store.creations("C1") == {"b": 1}
    assert emea.requests == []
    own = "SELECT count(*) FROM leadloop.sync_runs WHERE campaign_id = 'C2' OR account = 'emea'"
    assert sql.fetch_value(database, own) == 0


def test_a_source_that_cannot_be_read_is_logged_and_stops_nothing(
    unserved: dict[str, Any], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """It becomes a problem, as that of a campaign with a login."""
    sql.execute(database, "DROP TABLE crm.out")
    disable_leads()
    assert "campaign C2: the campaign's opt-out source 'crm.out' is no table" in caplog.text
    sql.execute(
        database,
        "UPDATE leadloop.opt_out_source_reads SET failed_at = now() - interval '20 minutes'",
    )
    problems = "SELECT campaign_id FROM leadloop_monitor.problems WHERE problem = 'opt_outs_unread'"
    assert sql.fetch_rows(database, problems) == [{"campaign_id": "C2"}]


def test_a_run_that_names_campaigns_reads_no_others(
    unserved: dict[str, Any], database: Database
) -> None:
    """It does what it was asked for."""
    disable_leads(["C1"])
    assert sql.fetch_rows(database, "SELECT * FROM leadloop.opt_out_source_reads") == []


def test_the_source_of_a_paused_account_is_read(
    database: Database, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """Its vendor asks for a pause for which runs leave its campaigns out."""
    named = factories.build_lead("a")
    sql.execute(database, "CREATE SCHEMA crm; CREATE TABLE crm.out (phone_number text)")
    factories.add_campaign(database, "C1")
    factories.add_campaign(database, "C2", account="emea", opt_out_source="crm.out")
    factories.add_leads(database, factories.build_lead("z"), campaign="C2")
    push_leads()
    sql.execute(
        database,
        """INSERT INTO crm.out VALUES (:number);
           UPDATE leadloop.rate_slots SET free_at = clock_timestamp() + interval '1 hour'
            WHERE account = 'emea' AND slot = 0""",
        number=named["phone_number"],
    )
    factories.add_leads(database, named, campaign="C1")
    before = len(emea.requests)
    disable_leads()
    push_leads()
    assert sql.fetch_statuses(database, "C1") == {"a": "cancelled"}
    assert len(emea.requests) == before
