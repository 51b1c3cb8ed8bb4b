"""`sync-leads` as a deployment runs it: three stages, opt-outs first."""

import pytest
from sqlalchemy import text

from db.database import Database
from flows.sync import sync_leads
from leadloop.core.errors import UsageError
from leadloop.core.summaries import collect_summary
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import disable_leads, push_leads

pytestmark = pytest.mark.usefixtures("prefect", "quick_retries", "environment")


def sent_and_more(database: Database) -> None:
    """A campaign with two leads at the vendor and thirty that are to be sent."""
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, "first", "second")
    push_leads()
    factories.add_leads(database, *[f"L{number:03d}" for number in range(30)])


def test_sync_disables_first_and_does_all_three(database: Database, vendor: SandboxHandle) -> None:
    """Who opted out before the sync is not in its push; outcomes come back by its poll."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    factories.add_opt_outs(database, "a")
    summary = sync_leads()
    assert summary["disable"]["cancelled"] == 1
    assert summary["push"]["created"] == 1
    assert set(summary["poll"]) >= {"windows", "pages", "seen", "inserted", "requests"}
    flows = "SELECT flow, campaign_id FROM leadloop.sync_runs ORDER BY run_id"
    assert [tuple(row.values()) for row in sql.fetch_rows(database, flows)] == [
        ("sync-leads", ""),
        ("disable-leads", ""),
        ("disable-leads", CAMPAIGN),
        ("push-leads", ""),
        ("push-leads", CAMPAIGN),
        ("poll-outcomes", ""),
        ("poll-outcomes", CAMPAIGN),
    ]
    states = "SELECT DISTINCT state FROM leadloop.sync_runs"
    assert sql.fetch_rows(database, states) == [{"state": "completed"}]


def test_a_sync_that_leaves_a_paused_account_out_has_not_done_its_work(
    database: Database, vendor: SandboxHandle, emea: SandboxHandle
) -> None:
    """Its row stands for disable, push and poll: that of the account is failed."""
    factories.add_account_campaigns(database, "a")
    push_leads()
    sql.execute(
        database,
        """UPDATE leadloop.rate_slots SET free_at = clock_timestamp() + interval '1 hour'
            WHERE account = 'emea' AND slot = 0""",
    )
    before = len(emea.requests)
    sync_leads()
    assert len(emea.requests) == before
    rows = "SELECT account, state FROM leadloop.sync_runs WHERE flow = 'sync-leads' ORDER BY 1"
    assert [tuple(row.values()) for row in sql.fetch_rows(database, rows)] == [
        ("default", "completed"),
        ("emea", "failed"),
    ]


def test_a_sync_states_once_which_campaigns_it_leaves_alone(
    database: Database,
    emea: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its three stages leave alone the same ones; the other accounts are done."""
    factories.add_campaign(database)
    factories.add_campaign(database, "C2", account="emea")
    for campaign in (CAMPAIGN, "C2"):
        factories.add_leads(database, "a", campaign=campaign)
    summary = sync_leads()
    assert summary["push"]["created"] == 2
    rows = "SELECT campaign_id, account, counts FROM leadloop.sync_runs WHERE flow = 'sync-leads'"
    assert [
        (row["account"], row["counts"]["push"]["created"])
        for row in sql.fetch_rows(database, f"{rows} ORDER BY run_id")
    ] == [("default", 1), ("emea", 1)]
    monkeypatch.delenv("LEADLOOP_ACCOUNT_EMEA_API_TOKEN")
    caplog.clear()
    sync_leads()
    assert [message for message in caplog.messages if "left alone" in message] == [
        "campaign C2: left alone, because account emea has no login here: set"
        " LEADLOOP_ACCOUNT_EMEA_API_TOKEN (or the four of an OAuth login), or create its block"
    ]
    with pytest.raises(UsageError, match=r"^campaign C2: left alone"):
        sync_leads([CAMPAIGN, "C2"])


def test_a_paused_campaign_creates_nobody_and_does_all_else(
    database: Database, vendor: SandboxHandle
) -> None:
    """Opt-outs, polls and lookups go on; what a lookup frees stays new."""
    sent_and_more(database)
    sql.execute(
        database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 hour'"
        " WHERE lead_id = 'L000'",
    )
    sql.execute(database, "UPDATE leadloop.campaigns SET push_enabled = false")
    factories.add_opt_outs(database, "first")
    vendor.put_outcomes(
        [{"campaign_id": CAMPAIGN, "lead_id": "first", "outcome_name": "Interested"}]
    )
    summary = sync_leads(campaigns=[CAMPAIGN])
    assert (summary["push"]["created"], summary["push"]["held_back"]) == (0, 30)
    assert set(vendor.store.disabled(CAMPAIGN)) == {"first"}
    assert summary["poll"]["seen"] == 1
    assert set(sql.fetch_statuses(database).values()) == {"created", "new"}
    sql.execute(database, "UPDATE leadloop.campaigns SET push_enabled = true")
    assert push_leads()["created"] == 30
    assert set(vendor.store.creations(CAMPAIGN).values()) == {1}


def test_opt_outs_go_out_whatever_enabled_says(database: Database, vendor: SandboxHandle) -> None:
    """By the schedule's runs, which name no campaign; neither push nor poll takes it."""
    sent_and_more(database)
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled = false")
    assert disable_leads()["campaigns"] == {}, "nothing is to be sent"
    factories.add_opt_outs(database, "first")
    assert disable_leads()["disabled"] == 1
    factories.add_opt_outs(database, "L000")
    summary = sync_leads()
    assert summary["disable"]["cancelled"] == 1
    assert (summary["push"]["created"], summary["poll"]["requests"]) == (0, 0)


def test_a_source_that_is_locked_holds_up_nobody_for_long(
    database: Database, vendor: SandboxHandle
) -> None:
    """The push of that campaign fails in time; opt-outs go out meanwhile."""
    sql.execute(
        database,
        """CREATE SCHEMA crm;
           CREATE TABLE crm.customers (lead_id, phone_number, contact_name, state_code) AS
           VALUES ('a', '+14155550123', 'Ann', 'NY')""",
    )
    factories.add_campaign(database, source="crm.customers")
    factories.add_campaign(database, "other")
    factories.add_leads(database, "b", campaign="other")
    push_leads(campaigns=["other"])
    factories.add_opt_outs(database, "b", campaign="other")
    sql.execute(database, "UPDATE leadloop.campaigns SET source_timeout_s = 1")
    with database.transaction() as migration:
        migration.execute(text("LOCK TABLE crm.customers IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(CampaignsFailed, match="slow or locked"):
            sync_leads()
    assert set(vendor.store.disabled("other")) == {"b"}
    assert push_leads()["created"] == 1


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_a_campaign_whose_run_cannot_be_written_stops_no_other(
    database: Database, vendor: SandboxHandle, event: str
) -> None:
    """Postgres refuses the begin, or the end, of one campaign's run: the other is done."""
    broken, other = factories.add_campaigns_with_refused_run(database, event)
    with pytest.raises(CampaignsFailed, match=f"campaign {broken}: Postgres refused"):
        sync_leads()
    assert sql.fetch_statuses(database, other) == {"a": "created"}
    query = "SELECT count(*) FROM leadloop.sync_runs WHERE state = 'running' AND campaign_id = :c"
    assert sql.fetch_value(database, query, c=other) == 0


def test_a_campaign_whose_row_is_deleted_stops_no_other(
    database: Database, vendor: SandboxHandle
) -> None:
    """The stages that follow do not take it for a wrong name; it is told once."""
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, "a", campaign=campaign)
    factories.add_opt_outs(database, "gone", campaign="C1")
    sql.execute(
        database,
        """CREATE FUNCTION public.pull() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               DELETE FROM leadloop.campaigns WHERE campaign_id = 'C1'; RETURN NULL;
           END $$;
           CREATE TRIGGER pull AFTER UPDATE ON leadloop.disable_requests FOR EACH ROW
               EXECUTE FUNCTION public.pull()""",
    )
    with pytest.raises(CampaignsFailed) as caught:
        sync_leads()
    (line,) = [each for each in caught.value.reasons if "C1" in each]
    assert "campaign C1: its row was deleted" in line
    assert sql.fetch_statuses(database) == {"a": "new"}
    assert sql.fetch_statuses(database, "C2") == {"a": "created"}
    running = "SELECT count(*) FROM leadloop.sync_runs WHERE state = 'running'"
    assert sql.fetch_value(database, running) == 0


def test_a_stage_that_fails_does_not_hold_up_the_next(
    database: Database, vendor: SandboxHandle
) -> None:
    """The outcomes are polled all the same; the loop's row has the counts of each stage."""
    factories.add_campaign(database)
    factories.add_leads(database, "sent")
    push_leads()
    factories.add_leads(database, "refused")
    vendor.put_outcomes(
        [{"campaign_id": CAMPAIGN, "lead_id": "sent", "outcome_name": "Interested"}]
    )
    vendor.add_fault(route="create", kind="status", status=403, every=1)
    with (
        collect_summary() as collected,
        pytest.raises(CampaignsFailed, match=f"^push: campaign {CAMPAIGN}: .*HTTP 403"),
    ):
        sync_leads()
    assert list(collected.summary) == ["disable", "push", "poll"]
    assert sql.fetch_outcomes(database) == {"sent": "Interested"}
    (row,) = sql.fetch_rows(
        database, "SELECT state, counts FROM leadloop.sync_runs WHERE flow = 'sync-leads'"
    )
    assert row["state"] == "failed"
    assert row["counts"]["push"]["created"] == 0
    assert row["counts"]["poll"]["inserted"] == 1


def test_named_campaigns_are_the_only_ones(database: Database, vendor: SandboxHandle) -> None:
    """No stage takes another one, not even for its opt-outs."""
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, "a", "b", campaign=campaign)
        factories.add_opt_outs(database, "a", campaign=campaign)
    summary = sync_leads(campaigns=["C2"])
    assert [(name, *part["campaigns"]) for name, part in summary.items()] == [
        ("disable", "C2"),
        ("push", "C2"),
        ("poll", "C2"),
    ]
    assert sql.fetch_statuses(database, "C1") == {"a": "new", "b": "new"}
    assert sql.fetch_opt_outs(database, "C1") == {"a": "requested"}


@pytest.mark.parametrize(
    ("campaigns", "words"), [(None, "no campaign is enabled"), (["nope"], "unknown campaign nope")]
)
def test_a_loop_with_nothing_to_do_is_refused(
    database: Database, campaigns: list[str] | None, words: str
) -> None:
    """No campaign, and no opt-out to send either: one line, and no row of a run."""
    factories.add_campaign(database, enabled=False)
    with pytest.raises(UsageError, match=words):
        sync_leads(campaigns=campaigns)
    assert sql.fetch_rows(database, "SELECT 1 FROM leadloop.sync_runs") == []
