"""Old windows, runs and answers go; what is still needed stays."""

from collections.abc import Callable
from pathlib import Path

import pytest

from db.counts import count_drift, recount
from db.database import Database
from db.owed_windows import list_owed_windows
from db.watermarks import get_read_through
from leadloop.core.timestamps import EPOCH, to_epoch_ms
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.conftest import Ran
from tests.factories import CAMPAIGN
from tests.jobs import backfill_outcomes, poll_outcomes, push_leads, run_housekeeping

_YEAR_AGO = "now() - interval '1 year'"


@pytest.fixture
def year_old(environment: Path, database: Database, vendor: SandboxHandle) -> None:
    """A campaign whose every window, run and outcome is a year old; each flow ran twice."""
    factories.add_campaign(database)
    factories.add_leads(database, "A", "B")
    for _ in range(2):
        # Named, it has a row in the second run too, in which nothing is due.
        push_leads([CAMPAIGN])
        poll_outcomes([CAMPAIGN])
    call = {"reference_id": "r1", "called_at": 5000, "q": "private"}
    result = {"outcome_name": "yes", "call_attempt_x_1": [call]}
    at = to_epoch_ms(sql.fetch_value(database, "SELECT now() - interval '2 days'"))
    vendor.put_outcomes([{"campaign_id": CAMPAIGN, "lead_id": "A", "processed_at": at, **result}])
    backfill_outcomes(after=EPOCH, before=sql.fetch_value(database, "SELECT now()"))
    for change in (
        f"UPDATE leadloop.poll_windows SET polled_at = {_YEAR_AGO}",
        f"UPDATE leadloop.sync_runs SET started_at = {_YEAR_AGO}",
        f"UPDATE leadloop.lead_outcomes SET first_seen_at = {_YEAR_AGO}, updated_at = {_YEAR_AGO}",
    ):
        sql.execute(database, change)


@pytest.mark.usefixtures("year_old")
def test_history_goes_and_the_raw_answers_stay(database: Database) -> None:
    """By default: nothing that a team may still want to look into is lost."""
    kept = run_housekeeping()
    assert (kept["runs"], kept["raw"], kept["answers"], kept["requests"]) == (2, 0, 0, 0)
    assert kept["windows"] >= 1
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.poll_windows") == 0
    assert sql.fetch_value(database, "SELECT raw ->> 'lead_id' FROM leadloop.lead_outcomes") == "A"
    assert run_housekeeping()["runs"] == 0


@pytest.mark.usefixtures("year_old")
def test_requests_are_shown_for_as_long_as_their_runs_are_kept(database: Database) -> None:
    """The sums are those of the rows, before a purge and after it."""
    shown = "SELECT CAST(sum(runs) AS integer) FROM leadloop_monitor.request_stats"
    stored = "SELECT count(*) FROM leadloop.sync_runs"
    before = sql.fetch_value(database, shown)
    assert before == sql.fetch_value(database, stored)
    assert run_housekeeping()["runs"] == 2
    after = sql.fetch_value(database, stored)
    assert after < before
    assert sql.fetch_value(database, shown) == after
    assert database.run(count_drift) == 0


@pytest.mark.usefixtures("year_old")
def test_raw_answers_go_where_it_is_set(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome stays with its columns, is corrected, and no later reading brings it back."""
    monkeypatch.setenv("LEADLOOP_KEEP_RAW", "30")
    cleared = run_housekeeping()
    assert (cleared["raw"], cleared["answers"]) == (1, 1)
    assert sql.fetch_value(database, "SELECT raw FROM leadloop.lead_outcomes") == {}
    answers = "SELECT answers FROM leadloop.outreach_attempts"
    assert sql.fetch_value(database, answers) == {}
    now = sql.fetch_value(database, "SELECT now()")
    again = backfill_outcomes(after=EPOCH, before=now)
    assert (again["inserted"], again["updated"], again["unchanged"]) == (0, 0, 1)
    assert sql.fetch_value(database, answers) == {}
    at = sql.fetch_value(database, "SELECT processed_at FROM leadloop.lead_outcomes")
    corrected = {"processed_at": to_epoch_ms(at), "outcome_id": 9, "total_cost": 5}
    vendor.put_outcomes([{"campaign_id": CAMPAIGN, "lead_id": "A", **corrected}])
    assert backfill_outcomes(after=EPOCH, before=now)["updated"] == 1
    outcome = "SELECT processed_at, total_cost, raw FROM leadloop.lead_outcomes"
    stored = sql.fetch_rows(database, outcome)
    assert stored == [{"processed_at": at, "total_cost": 5, "raw": {}}]


@pytest.mark.usefixtures("year_old")
def test_what_is_owed_stays(database: Database) -> None:
    """However old it is, accepted or not; and the next poll starts where it would have."""
    factories.owe_window(database, "2025-01-01T00:00:00Z", "2025-01-01T00:00:01Z")
    factories.owe_window(
        database,
        "2025-01-02T00:00:00Z",
        "2025-01-02T00:00:01Z",
        accepted_at="2025-01-03T00:00:00Z",
        accepted_by="ann",
        accepted_reason="deleted there",
    )
    sql.execute(
        database,
        f"""UPDATE leadloop.owed_windows SET found_at = {_YEAR_AGO}, tried_at = {_YEAR_AGO};
            UPDATE leadloop.poll_windows SET status = 'incomplete'""",
    )
    with database.transaction() as connection:
        owed = list_owed_windows(connection, [CAMPAIGN])
        start = get_read_through(connection, CAMPAIGN)
    assert len(owed) == 2
    assert start is not None
    assert run_housekeeping()["windows"] >= 1
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.poll_windows") == 0
    with database.transaction() as connection:
        assert list_owed_windows(connection, [CAMPAIGN]) == owed
        assert get_read_through(connection, CAMPAIGN) == start


@pytest.mark.usefixtures("year_old")
def test_another_campaign_is_left_alone(database: Database) -> None:
    """Named campaigns alone are tidied; each has its own counts."""
    factories.add_campaign(database, "OTHER")
    assert run_housekeeping(campaigns=["OTHER"])["runs"] == 0
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.poll_windows") >= 1
    counted = run_housekeeping()["campaigns"]
    assert (counted[CAMPAIGN]["runs"], counted["OTHER"]["runs"]) == (2, 0)


@pytest.mark.usefixtures("year_old")
def test_a_campaign_without_a_row_is_left_with_no_history(database: Database) -> None:
    """Whichever campaign was named: nothing else would ever purge it."""
    factories.add_campaign(database, "OTHER")
    sql.execute(database, "DELETE FROM leadloop.campaigns WHERE campaign_id = 'C1'")
    assert run_housekeeping(campaigns=["OTHER"])["windows"] == 0
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.poll_windows") == 0


@pytest.mark.usefixtures("year_old")
def test_the_last_runs_stay(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """When each flow last completed, how it last ended, and the lookback of the last poll."""
    monkeypatch.setenv("LEADLOOP_LOOKBACK", "77")
    poll_outcomes([CAMPAIGN])
    sql.execute(
        database,
        f"""UPDATE leadloop.sync_runs SET started_at = {_YEAR_AGO};
            INSERT INTO leadloop.sync_runs (flow, campaign_id, state, started_at)
            SELECT 'poll-outcomes', 'C1', 'crashed', {_YEAR_AGO} FROM generate_series(1, 3)""",
    )
    last = """SELECT last_push_at, last_poll_at FROM leadloop_monitor.campaign_health"""
    before = sql.fetch_rows(database, last)
    problems = "SELECT problem FROM leadloop_monitor.problems ORDER BY 1"
    found = sql.fetch_rows(database, problems)
    assert {"problem": "run_failed"} in found
    assert run_housekeeping()["runs"] == 5
    assert sql.fetch_rows(database, last) == before
    assert sql.fetch_rows(database, problems) == found
    kept = """SELECT flow, state, counts ->> 'lookback_s' AS lookback FROM leadloop.sync_runs
               WHERE flow <> 'housekeeping' ORDER BY run_id"""
    assert [tuple(row.values()) for row in sql.fetch_rows(database, kept)] == [
        ("push-leads", "completed", None),
        ("backfill-outcomes", "completed", "900"),
        ("poll-outcomes", "completed", "77"),
        ("poll-outcomes", "crashed", None),
    ]


@pytest.mark.usefixtures("year_old")
def test_it_needs_the_database_alone_and_leaves_no_campaign_out(
    database: Database,
    leadloop: Callable[..., Ran],
    prefect: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a login at the vendor, and where no campaign is enabled, or there is none at all."""
    monkeypatch.delenv("LEADLOOP_API_TOKEN")
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled = false")
    ran = leadloop("housekeeping", "--json", PREFECT_API_URL=prefect)
    assert (ran.code, ran.last["runs"], ran.last["requests"]) == (0, 2, 0)
    sql.execute(database, "DELETE FROM leadloop.campaigns")
    assert run_housekeeping()["campaigns"] == {}


def test_sums_by_hour_go_after_400_days(environment: Path, database: Database) -> None:
    """Sums by day and of all time stay; attempts without a time have no age."""
    factories.add_campaign(database)
    hours = """INSERT INTO leadloop.counts
                      (kind, span, since, campaign_id, digest, name, amount, marked)
               SELECT kind, span, CAST(since AS timestamptz),
                      CASE span WHEN 'total hour' THEN '' ELSE 'C1' END, 'key', 'call', 1, 0
                 FROM unnest(ARRAY['outcome', 'attempt', 'delay']) AS kind,
                      unnest(ARRAY['hour', 'day', 'total hour']) AS span,
                      unnest(ARRAY[now() - interval '401 days', now() - interval '399 days',
                                   'infinity']) AS since"""
    sql.execute(database, hours)
    assert run_housekeeping()["hours"] == 3
    assert run_housekeeping()["hours"] == 0
    left = """SELECT span, count(*) AS sums, min(since) > now() - interval '400 days' AS is_new
                FROM leadloop.counts WHERE kind <> 'run' GROUP BY span ORDER BY span"""
    assert [tuple(row.values()) for row in sql.fetch_rows(database, left)] == [
        ("day", 9, False),
        ("hour", 6, True),
        ("total hour", 6, True),
    ]


def test_hours_wait_for_no_recount(environment: Path, database: Database) -> None:
    """`leadloop init` may count for minutes after an upgrade: the next housekeeping purges them."""
    factories.add_campaign(database)
    sql.execute(
        database,
        """INSERT INTO leadloop.counts
                  (kind, span, since, campaign_id, digest, name, amount, marked)
           VALUES ('delay', 'hour', now() - interval '401 days', 'C1', 'key', '1', 1, 0)""",
    )
    with database.transaction() as connection:
        recount(connection)
        # A recount leaves no sum that no row accounts for; its own are not committed yet.
        assert run_housekeeping()["hours"] == 0
        connection.rollback()
    assert run_housekeeping()["hours"] == 1
