"""What the jobs of a run work with, and the row that each campaign's run has in Postgres."""

from concurrent.futures import Future
from contextlib import suppress

import pytest
from sqlalchemy import text

from db.database import Database
from leadloop.core.errors import CampaignDeleted, LeadloopError, RunError, UsageError
from leadloop.core.verdicts import ApiCall
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.context import (
    CampaignRun,
    DatabaseContext,
    finish_run,
    open_api_context,
    open_database_context,
    start_run,
)
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import HOST, disable_leads, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_CRASHED = "SELECT count(*) FROM leadloop.sync_runs WHERE state = 'crashed'"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A boot clock that shows the last of these times."""
    times = [1000.0]
    monkeypatch.setattr("tasks.context.read_boot_clock", lambda: times[-1])
    return times


def start(context: DatabaseContext) -> CampaignRun[DatabaseContext]:
    """The run of the only campaign, begun."""
    (campaign,) = context.select_campaigns(None)
    return start_run(context, "push-leads", campaign)


def test_what_a_dead_run_was_sending_is_settled_at_once(
    database: Database, vendor: SandboxHandle
) -> None:
    """The next run looks up what a killed one had sent, without waiting for a lease."""
    factories.add_campaign(database)
    factories.add_leads(database, "sent", "unsent")
    push_leads()
    factories.orphan_lead(database, "sent")
    push_leads()
    assert sql.fetch_statuses(database) == {"sent": "created", "unsent": "created"}
    assert vendor.store.creations(CAMPAIGN) == {"sent": 1, "unsent": 1}
    assert sql.fetch_value(database, _CRASHED) == 1


def test_a_dead_run_whose_lead_is_locked_stops_no_other(
    database: Database, vendor: SandboxHandle
) -> None:
    """The other dead run is settled, other leads and opt-outs go out; its own wait, unsent."""
    for campaign, lead_ids in (("C1", ["held"]), ("C2", ["free"])):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, *lead_ids, campaign=campaign)
    push_leads()
    for campaign, lead_id in (("C1", "held"), ("C2", "free")):
        factories.orphan_lead(database, lead_id, campaign)
    factories.add_leads(database, "fresh")
    factories.add_opt_outs(database, "free", campaign="C2")
    with database.transaction() as upstream:
        upstream.execute(text("SELECT FROM leadloop.leads WHERE lead_id = 'held' FOR UPDATE"))
        disable_leads()
        push_leads()
        assert sql.fetch_statuses(database) == {"held": "sending", "fresh": "created"}
        assert sql.fetch_statuses(database, "C2") == {"free": "created"}
        assert sql.fetch_opt_outs(database, "C2") == {"free": "disabled"}
        assert sql.fetch_value(database, _CRASHED) == 1
    push_leads()
    assert sql.fetch_statuses(database)["held"] == "created"
    assert sql.fetch_value(database, _CRASHED) == 2
    assert vendor.store.creations(CAMPAIGN) == {"held": 1, "fresh": 1}


def test_a_changed_setting_counts_once_the_row_is_a_second_old(
    database: Database, clock: list[float]
) -> None:
    """A claim a moment later does not query it again; `enabled` is kept as the run began."""
    factories.add_campaign(database, batch_size=7)
    with open_database_context(Settings.load(), HOST) as context:
        run = start(context)
        run.refresh()
        sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 9, enabled = false")
        clock.append(clock[-1] + 0.9)
        assert run.refresh().batch_size == 7
        clock.append(clock[-1] + 0.2)
        assert run.refresh().batch_size == 9
        assert (run.campaign.batch_size, run.campaign.enabled, run.was_enabled) == (9, False, True)
        sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = NULL")
        assert run.refresh().batch_size == 9
        assert run.reload().batch_size == context.settings.batch_size
        sql.execute(database, "DELETE FROM leadloop.campaigns")
        with pytest.raises(CampaignDeleted, match=r"^its row was deleted"):
            run.reload()
        assert run.campaign.campaign_id == CAMPAIGN


def test_the_first_refresh_reads_the_row(database: Database, clock: list[float]) -> None:
    """However long the campaign has waited for its turn since it was selected."""
    factories.add_campaign(database, batch_size=7)
    with open_database_context(Settings.load(), HOST) as context:
        run = start(context)
        sql.execute(database, "UPDATE leadloop.campaigns SET batch_size = 9")
        assert run.refresh().batch_size == 9


@pytest.mark.parametrize(
    ("error", "state", "line"),
    [
        (None, "completed", None),
        (RunError("the vendor is away"), "failed", "the vendor is away"),
        (ValueError("Ann Example, +14155550123"), "failed", "unexpected ValueError"),
    ],
)
def test_a_run_that_ends_states_how(
    database: Database, error: Exception | None, state: str, line: str | None
) -> None:
    """State, counts and our own errors are in its row; the text of others may be personal."""
    factories.add_campaign(database)
    with open_database_context(Settings.load(), HOST) as context:
        finish_run(start(context), {"created": 3}, error)
    row = sql.fetch_rows(database, "SELECT state, error, counts FROM leadloop.sync_runs")
    assert row == [{"state": state, "error": line, "counts": {"created": 3}}]


def test_ends_of_runs_fold_the_counts_once_a_minute(database: Database, clock: list[float]) -> None:
    """The first one does, and the first one after a minute."""
    factories.add_campaign(database)
    pending = "SELECT count(*) FROM leadloop.count_changes"
    with open_database_context(Settings.load(), HOST) as context:
        # A lead and a run.
        for lead_id, now, expected in (("a", 1000.0, 0), ("b", 1059.0, 1 + 1), ("c", 1060.0, 0)):
            factories.add_leads(database, factories.build_lead(lead_id, status="created"))
            clock.append(now)
            finish_run(start(context), {}, None)
            assert sql.fetch_value(database, pending) == expected


def test_a_long_run_folds_each_minute(database: Database, clock: list[float]) -> None:
    """Not in its first minute: its end does."""
    pending = "SELECT count(*) FROM leadloop.count_changes"
    with open_database_context(Settings.load(), HOST) as context:
        for lead_id, now, expected in (("a", 1059.0, 1), ("b", 1060.0, 0), ("c", 1119.0, 1)):
            factories.add_leads(database, factories.build_lead(lead_id, status="created"))
            clock.append(now)
            context.folder.fold_in_long_run(context.database, context.log.warning)
            assert sql.fetch_value(database, pending) == expected


def test_a_fold_that_cannot_wait_ends_no_run(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A recount holds the counts: a later run folds, and nobody is warned."""
    factories.add_campaign(database)
    with (
        open_database_context(Settings.load(), HOST) as context,
        database.transaction() as recount,
    ):
        recount.execute(text("LOCK TABLE leadloop.counts IN SHARE ROW EXCLUSIVE MODE"))
        factories.add_leads(database, factories.build_lead("a", status="created"))
        finish_run(start(context), {}, None)
    assert sql.fetch_value(database, "SELECT state FROM leadloop.sync_runs") == "completed"
    assert "fold" not in caplog.text


def test_a_lead_without_an_answer_is_in_doubt_when_its_run_ends(database: Database) -> None:
    """Its run was sending it, and the next run looks it up; other leads stay new."""
    factories.add_campaign(database)
    factories.add_leads(database, "sent", "unsent")
    with open_database_context(Settings.load(), HOST) as context:
        run = start(context)
        sql.execute(
            database,
            "UPDATE leadloop.leads SET status = 'sending', run_id = :run WHERE lead_id = 'sent'",
            run=run.run_id,
        )
        finish_run(run, {}, RunError("the run was stopped"))
    assert sql.fetch_statuses(database) == {"sent": "in_doubt", "unsent": "new"}


def test_a_run_is_dead_as_soon_as_its_context_is_closed(database: Database) -> None:
    """A process that ends without a word leaves a row that the next run finds."""
    factories.add_campaign(database)
    with open_database_context(Settings.load(), HOST) as living:
        with open_database_context(Settings.load(), HOST) as dying:
            start(dying)
            start(living)
            assert sql.fetch_value(database, _CRASHED) == 0
        sql.wait_for_run_locks(database, 1)
        start(living)
    assert sql.fetch_value(database, _CRASHED) == 1


def test_settings_are_the_defaults_of_campaigns(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign's row wins over the settings of the run."""
    monkeypatch.setenv("LEADLOOP_BATCH_SIZE", "7")
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "8")
    factories.add_campaign(database, page_size=9)
    with open_database_context(Settings.load(), HOST) as context:
        (campaign,) = context.select_campaigns([CAMPAIGN])
    assert (campaign.batch_size, campaign.page_size) == (7, 9)


def test_a_schema_of_another_version_is_refused(database: Database) -> None:
    """One line names the command that migrates it."""
    sql.execute(database, "UPDATE leadloop.alembic_version SET version_num = '0000'")
    with (
        pytest.raises(LeadloopError, match="leadloop init"),
        open_database_context(Settings.load(), HOST),
    ):
        pass


def test_a_database_context_needs_no_login(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge runs where only the database is named; a run that sends needs the login."""
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    with open_database_context(Settings.load(), HOST) as context:
        assert context.requests_sent == 0
    with (
        pytest.raises(UsageError, match="LEADLOOP_API_TOKEN"),
        open_api_context(Settings.load(), HOST),
    ):
        pass


def test_requests_are_counted(database: Database, vendor: SandboxHandle) -> None:
    """The context counts what was sent to the vendor through it."""
    factories.add_campaign(database)
    with open_api_context(Settings.load(), HOST) as context:
        assert context.requests_sent == 0
        context.api.look_up(CAMPAIGN, "nobody")
        context.api.look_up(CAMPAIGN, "nobody")
        assert context.requests_sent == len(vendor.requests) == 2


def test_a_stop_ends_the_waits_for_permits(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that waits an hour for its turn does not hold up the end of the run."""
    monkeypatch.setenv("LEADLOOP_RATE_LIMIT", "1/3600")
    waiting: list[Future[None]] = []
    with open_api_context(Settings.load(), HOST) as context:
        context.limiter.wait_for_permit(ApiCall.READ)
        with suppress(KeyboardInterrupt), context.open_threads() as pool:
            waiting.append(pool.submit(context.limiter.wait_for_permit, ApiCall.READ))
            raise KeyboardInterrupt
    (waited,) = waiting
    assert waited.cancelled() or isinstance(waited.exception(), RunError)
