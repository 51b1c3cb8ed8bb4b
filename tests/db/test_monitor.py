"""What the data team sees: views without personal data, a reader that may read nothing else."""

import re
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import text

from db.database import Database, DatabaseError
from db.monitor import MAX_LINES, Rows, read_history
from leadloop.cli.app import app
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.monitor import seed_data

#: What others rely on (CONTRACT.md); views and columns may be added.
CONTRACT = (
    "campaign_health",
    "lead_funnel",
    "outcome_breakdown",
    "attempt_stats",
    "disable_latency",
    "run_history",
    "rejections",
)
_PERSON = {"phone_number": "+14155550177", "contact_name": "Zebulon Quirk", "state_code": "CA"}
_HOURS = "now() - interval '3 hours'"


def _confirm_slowly(kind: str, *, slow: float, quick: float, amount: int = 2) -> str:
    """Build the statement that adds two latencies of a hundred, or so many, in a slow bucket."""
    return f"""INSERT INTO leadloop.latencies
        SELECT date_trunc('hour', now(), 'UTC'), '{CAMPAIGN}', '{kind}', bucket, amount, 1
          FROM (VALUES ({quick}, 98), ({slow}, {amount})) AS counted (bucket, amount)
            ON CONFLICT (hour, campaign_id, kind, bucket_s)
            DO UPDATE SET amount = excluded.amount"""


def _sql_blocks(page: str) -> list[str]:
    """The blocks of SQL in a how-to."""
    text = (Path(__file__).parents[2] / "docs/how-to" / page).read_text(encoding="utf-8")
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


def _queries(page: str) -> list[str]:
    """The ready queries of a how-to: its last block that begins with a comment."""
    block = [block for block in _sql_blocks(page) if block.startswith("-- ")][-1]
    return [query.strip() for query in block.split("\n\n")]


def views(database: Database) -> list[str]:
    """Every view of the data team."""
    found = sql.fetch_rows(
        database,
        "SELECT table_name FROM information_schema.views WHERE table_schema = 'leadloop_monitor'",
    )
    return sorted(row["table_name"] for row in found)


def problems(database: Database) -> dict[str, dict[str, Any]]:
    """What is wrong, by the problem's name."""
    found = sql.fetch_rows(database, "SELECT * FROM leadloop_monitor.problems")
    return {row["problem"]: row for row in found}


def assert_complete(command: str) -> None:
    """The command line takes it as it stands: no option is missing, none is unknown."""
    program, name, *arguments = shlex.split(command)
    assert program == "leadloop"
    group: Any = typer.main.get_command(app)
    group.commands[name].make_context(name, arguments)


def as_reader(database: Database, statement: str) -> None:
    """Carry it out with the rights of a dashboard's login."""
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL ROLE leadloop_reader"))
        connection.execute(text(statement))


@pytest.fixture
def lived(database: Database) -> Database:
    """A campaign in which everything has happened to people whose data would be noticed."""
    factories.add_campaign(database)
    for status in ("new", "sending", "created", "rejected", "in_doubt", "cancelled"):
        factories.add_leads(
            database, factories.build_lead(status, **_PERSON, custom_fields={"note": "Zebulon"})
        )
        sql.execute(
            database,
            "UPDATE leadloop.leads SET status = :status WHERE lead_id = :status",
            status=status,
        )
    factories.add_opt_outs(database, "created", reason="Zebulon asked")
    for statement in (
        f"""INSERT INTO leadloop.disable_requests (campaign_id, lead_id, status, confirmed_at)
            VALUES ('{CAMPAIGN}', 'cancelled', 'cancelled', now())""",
        "UPDATE leadloop.leads SET last_error = 'state_code: missing' WHERE status = 'rejected'",
        f"""INSERT INTO leadloop.lead_outcomes
                   (campaign_id, lead_id, processed_at, outcome_name, total_cost, raw)
            VALUES ('{CAMPAIGN}', 'created', now(), 'Sold', 1.5, '{{"name": "Zebulon Quirk"}}')""",
        f"""INSERT INTO leadloop.outreach_attempts
                   (campaign_id, lead_id, channel, block, attempt_key, occurred_at, duration_s,
                    answers)
            VALUES ('{CAMPAIGN}', 'created', 'call', 'c', '1', now(), 30, '{{"q": "Zebulon"}}'),
                   ('{CAMPAIGN}', 'created', 'call', 'c', '2', now(), 0, '{{}}')""",
        f"""INSERT INTO leadloop.sync_runs (flow, campaign_id, state, ended_at, counts)
            VALUES ('push-leads', '{CAMPAIGN}', 'completed', now(), '{{"requests": 7}}')""",
        f"""INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before,
                   status, claimed_count, stored_count, pages)
            VALUES ('{CAMPAIGN}', 1, now() - interval '1 hour', now(), 'closed', 1, 1, 1)""",
        f"""INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through)
            VALUES ('{CAMPAIGN}', 'outcomes', now())""",
        f"""INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason,
                   found_at, next_try_at, accepted_at, accepted_by, accepted_reason)
            VALUES ('{CAMPAIGN}', {_HOURS}, {_HOURS}, 'HTTP 500', {_HOURS}, now(), now(), 'ann',
                    'Zebulon Quirk has moved')""",
        f"""INSERT INTO leadloop.latencies
            VALUES (date_trunc('hour', now(), 'UTC'), '{CAMPAIGN}', 'urgent lead', 300, 4, 400),
                   ('-infinity', '{CAMPAIGN}', 'urgent lead', 300, 4, 400)""",
        """INSERT INTO leadloop.rate_slots (slot, free_at, purposes, uses, occupied_s)
            VALUES (0, '-infinity', '{}', 0, 0), (1, now() + interval '1 min', '{bulk}', 1, 60.5),
                   (2, now() + interval '1 min', '{}', 7, 0)""",
    ):
        sql.execute(database, statement)
    return database


def test_the_views_of_the_contract_are_there(database: Database) -> None:
    """People's dashboards name them."""
    assert set(CONTRACT) <= set(views(database))


def test_no_view_shows_anything_personal(lived: Database) -> None:
    """Not a digit of a number, not a name, not an answer: in no column of any view."""
    for view in views(lived):
        rows = sql.fetch_rows(lived, f"SELECT * FROM leadloop_monitor.{view}")
        assert rows or view == "problems"
        for private in ("Zebulon", "Quirk", "4155550177"):
            assert private not in str(rows), view


def test_the_reader_may_read_them_and_nothing_else(lived: Database) -> None:
    """A dashboard's login can do no harm, and cannot see people."""
    for view in views(lived):
        as_reader(lived, f"SELECT * FROM leadloop_monitor.{view}")
    forbidden = [
        *(
            f"SELECT FROM leadloop.{row['table_name']}"
            for row in sql.fetch_rows(
                lived,
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'leadloop'",
            )
        ),
        "CREATE TABLE leadloop_monitor.mine ()",
        "DELETE FROM leadloop_monitor.run_history",
    ]
    for statement in forbidden:
        with pytest.raises(DatabaseError, match="SQLSTATE 42501"):
            as_reader(lived, statement)


def test_the_figures(lived: Database) -> None:
    """Funnel, attempts, cost, latency and requests match the stored rows."""
    funnel = sql.fetch_rows(lived, "SELECT * FROM leadloop_monitor.lead_funnel ORDER BY position")
    assert [(row["stage"], row["leads"]) for row in funnel] == [
        (stage, 1)
        for stage in (
            *("new", "sending", "in_doubt", "created"),
            *("processed", "rejected", "cancelled"),
        )
    ]
    (attempts,) = sql.fetch_rows(lived, "SELECT * FROM leadloop_monitor.attempt_stats")
    assert (attempts["attempts"], attempts["connected"], attempts["duration_s"]) == (2, 1, 30)
    assert attempts["state_code"] == "CA"
    (outcome,) = sql.fetch_rows(lived, "SELECT * FROM leadloop_monitor.outcome_breakdown")
    assert (outcome["outcome_name"], outcome["outcomes"], float(outcome["cost"])) == (
        *("Sold", 1),
        1.5,
    )
    (outcome,) = sql.fetch_rows(lived, "SELECT * FROM leadloop_monitor.outcomes_by_hour")
    assert (outcome["outcomes"], float(outcome["cost"])) == (1, 1.5)
    (attempts,) = sql.fetch_rows(lived, "SELECT * FROM leadloop_monitor.attempts_by_hour")
    assert (attempts["attempts"], attempts["connected"]) == (2, 1)
    (rejected,) = sql.fetch_rows(lived, "SELECT * FROM leadloop_monitor.rejections")
    assert rejected["reason"] == "state_code: missing"
    assert rejected["sample_lead_ids"] == ["rejected"]
    (run,) = sql.fetch_rows(lived, "SELECT * FROM leadloop_monitor.run_history")
    assert (run["flow"], run["requests"]) == ("push-leads", 7)
    (budget,) = sql.fetch_rows(lived, "SELECT * FROM leadloop_monitor.budget_now")
    assert (budget["slots"], budget["taken"]) == (1, 1)


def test_what_is_no_state_is_shown_as_none(lived: Database) -> None:
    """A file with shifted columns puts names there; small letters are a state all the same."""
    for stands, shown in (("Zebulon Quirk", None), ("+14155550177", None), (" ny", "NY")):
        sql.execute(lived, "UPDATE leadloop.leads SET state_code = :code", code=stands)
        for view in ("outcome_breakdown", "attempt_stats"):
            (row,) = sql.fetch_rows(lived, f"SELECT state_code FROM leadloop_monitor.{view}")
            assert row["state_code"] == shown


def test_outcomes_of_no_known_lead_and_without_attempts_are_counted(lived: Database) -> None:
    """Deleted leads have no state; an outcome that took no attempt has a row with 0."""
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, outcome_name,
                                                raw)
            VALUES ('{CAMPAIGN}', 'deleted', now(), 'Gone', '{{}}')""",
    )
    gone = "FROM leadloop_monitor.{} WHERE outcome_name = 'Gone'"
    rows = sql.fetch_rows(lived, f"SELECT state_code, outcomes {gone}".format("outcome_breakdown"))
    assert [(row["state_code"], row["outcomes"]) for row in rows] == [(None, 1)]
    tried = sql.fetch_rows(lived, f"SELECT attempts, leads {gone}".format("attempts_to_outcome"))
    assert [(row["attempts"], row["leads"]) for row in tried] == [(0, 1)]


def test_a_backfill_is_not_behind(lived: Database) -> None:
    """It reads what is long past; how far the polls are behind, it does not tell."""
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before,
                   closed_through, status, claimed_count, stored_count, pages, range_after,
                   range_before)
            SELECT '{CAMPAIGN}', 2, at, at, at, 'closed', 0, 0, 1, at, at
              FROM (SELECT now() - interval '30 days' AS at) AS past""",
    )
    rows = sql.fetch_rows(lived, "SELECT windows, lag_s FROM leadloop_monitor.window_stats")
    assert [(row["windows"], round(row["lag_s"])) for row in rows] == [(2, 3600)]


def test_only_calls_connect(lived: Database) -> None:
    """Emails and SMS are attempts, and make no connect rate better or worse."""
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.outreach_attempts
                   (campaign_id, lead_id, channel, block, attempt_key, occurred_at, duration_s)
            VALUES ('{CAMPAIGN}', 'created', 'sms', 's', '1', now(), NULL),
                   ('{CAMPAIGN}', 'created', 'ivr', 'i', '1', now(), 9)""",
    )
    (row,) = sql.fetch_rows(
        lived,
        """SELECT sum(attempts) AS attempts, sum(calls) AS calls, sum(connected) AS connected
             FROM leadloop_monitor.attempts_by_hour""",
    )
    assert (row["attempts"], row["calls"], row["connected"]) == (4, 2, 1)


@pytest.mark.parametrize(
    ("view", "column"),
    [
        ("outcomes_by_hour", "hour"),
        ("outcomes_by_day", "day"),
        ("attempts_by_hour", "hour"),
        ("window_stats", "polled_hour"),
        ("lateness", "seen_hour"),
        ("request_stats", "hour"),
    ],
)
def test_hours_are_those_of_utc(lived: Database, view: str, column: str) -> None:
    """Also in a session whose time zone has an offset of half an hour."""
    with lived.transaction() as connection:
        connection.execute(text("SET LOCAL TimeZone = 'Asia/Kolkata'"))
        query = f"SELECT extract(minute FROM {column} AT TIME ZONE 'UTC') FROM"
        assert connection.scalar(text(f"{query} leadloop_monitor.{view}")) == 0


@pytest.mark.parametrize(("days", "hours"), [(2, [11, 12, 10]), (3, [0, 0, 0])])
def test_long_histories_of_outcomes_are_read_by_day(
    database: Database, days: int, hours: list[int]
) -> None:
    """The chart shows them so: fewer rows are read."""
    sql.execute(
        database,
        f"""INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
            VALUES ('C1', 'a', '2026-03-01T11:30:00Z', '{{}}'),
                   ('C1', 'b', '2026-03-02T12:30:00Z', '{{}}'),
                   ('C1', 'c', '2026-03-0{1 + days}T10:30:00Z', '{{}}')""",
    )
    outcomes = read_history(database, [], None)["outcomes"]
    assert [row["hour"].hour for row in outcomes] == hours
    assert [row["hour"].day for row in outcomes] == [1, 2, 1 + days]


def test_sums_of_all_campaigns_are_those_of_each_one(database: Database) -> None:
    """The page reads others if no campaign is selected: they show the same."""
    seed_data.seed_healthy(database)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for since in (None, yesterday.replace(minute=0, second=0, microsecond=0)):
        of_all, of_each = (
            read_history(database, ids, since) for ids in ([], list(seed_data.CAMPAIGNS))
        )
        assert of_all == of_each
        assert all(of_all[name] for name in ("outcomes", "attempts", "requests", "lag"))


def test_attempts_of_long_periods_are_those_of_the_last_90_days(lived: Database) -> None:
    """A year would be 8,760 rows a campaign, and a chart of 365 lines."""
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.outreach_attempts
                   (campaign_id, lead_id, channel, block, attempt_key, occurred_at)
            SELECT '{CAMPAIGN}', 'created', 'sms', 's', days, now() - interval '1 day' * days
              FROM unnest(ARRAY[80, 92]) AS days""",
    )
    assert age_days(read_history(lived, (), None)["attempts"]) == 80


@pytest.mark.parametrize("others", [0, MAX_LINES])
def test_opt_outs_of_long_periods_are_those_of_the_last_90_days(
    lived: Database, others: int
) -> None:
    """Of all campaigns each day's sums are read: of ten years as many as of a quarter."""
    for number in range(others):
        factories.add_campaign(lived, f"Other {number}")
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.disable_requests
                   (campaign_id, lead_id, status, requested_at, confirmed_at)
            SELECT '{CAMPAIGN}', days, 'disabled', asked_at, asked_at
              FROM unnest(ARRAY[80, 92]) AS days
             CROSS JOIN LATERAL (SELECT now() - interval '1 day' * days AS asked_at) AS asked""",
    )
    for since in (None, datetime.now(UTC) - timedelta(days=365)):
        for ids in ((), (CAMPAIGN,)):
            assert age_days(read_history(lived, ids, since)["opt_outs"]) == 80


def age_days(rows: Rows) -> int:
    """The age of the oldest day, in days."""
    today = datetime.now(UTC).date()
    return int(max((today - row["day"]).days for row in rows))


@pytest.mark.parametrize("view", ["outcomes_by_hour", "attempts_by_hour", "lateness"])
def test_the_sums_of_one_day_are_found_by_the_index(lived: Database, view: str) -> None:
    """Each has a row an hour and campaign of the last 400 days."""
    sql.execute(
        lived,
        """INSERT INTO leadloop.counts
                  (kind, span, since, campaign_id, digest, name, amount, marked)
           SELECT kind, 'hour', date_trunc('hour', now()) - interval '1 hour' * n, 'C1', 'key',
                  CASE kind WHEN 'delay' THEN '1' ELSE 'call' END, 1, 0
             FROM unnest(ARRAY['outcome', 'attempt', 'delay']) AS kind,
                  generate_series(0, 9000) AS n""",
    )
    sql.execute(lived, "ANALYZE leadloop.counts")
    hour = "seen_hour" if view == "lateness" else "hour"
    plan = sql.fetch_value(
        lived,
        f"""EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM leadloop_monitor.{view}
             WHERE {hour} >= now() - interval '1 day'""",
    )
    scans = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == "counts"]
    read = sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in scans)
    assert 20 <= read <= 30


@pytest.mark.parametrize("view", ["slowest_opt_outs", "disable_latency"])
def test_opt_outs_of_a_week_read_its_sums_once(database: Database, view: str) -> None:
    """Though each campaign has slow opt-outs, too few for the percentile of its day."""
    sql.execute(
        database,
        """INSERT INTO leadloop.counts
                  (kind, span, since, campaign_id, digest, name, detail, amount, marked)
           SELECT 'opt_out', span, date_trunc('day', now(), 'UTC') - interval '1 day' * n,
                  CASE span WHEN 'day' THEN 'C' || number ELSE '' END, CAST(detail AS bytea),
                  'disabled', detail, amount, 0
             FROM generate_series(0, 300) AS n CROSS JOIN generate_series(1, 20) AS number
            CROSS JOIN (VALUES ('10', 40), ('1800', 1)) AS bucket (detail, amount)
            CROSS JOIN unnest(ARRAY['day', 'total day']) AS span
            WHERE span = 'day' OR number = 1""",
    )
    sql.execute(database, "ANALYZE leadloop.counts")
    week = f"""SELECT * FROM leadloop_monitor.{view}
               WHERE since >= date_trunc('day', now(), 'UTC') - interval '6 days'"""
    rows = sql.fetch_rows(database, week)
    assert len(rows) == (7 if view == "slowest_opt_outs" else 7 * 20)
    assert {row["p95_s"] for row in rows} == {10}
    plan = sql.fetch_value(database, f"EXPLAIN (ANALYZE, FORMAT JSON) {week}")
    scans = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == "counts"]
    read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in scans
    )
    assert read == 7 * 20 * 2


def test_an_opt_out_from_the_future_waits_no_less_than_nought(lived: Database) -> None:
    """Clocks differ; a negative wait would distort an average."""
    sql.execute(lived, "UPDATE leadloop.disable_requests SET requested_at = now() + interval '5 h'")
    for figure in ("campaign_health.disable_oldest_s", "disable_latency.oldest_waiting_s"):
        view, _, column = figure.partition(".")
        waited = sql.fetch_value(lived, f"SELECT {column} FROM leadloop_monitor.{view}")
        assert 0 <= waited < 60


def test_opt_out_latency(database: Database) -> None:
    """Bounds of median, 95th percentile and worst latency; the age of the oldest that waits."""
    factories.add_campaign(database)
    ids = [f"L{number}" for number in range(21)]
    factories.add_opt_outs(database, *ids)
    sql.execute(
        database,
        f"""UPDATE leadloop.disable_requests
               SET requested_at = {_HOURS}, status = 'disabled',
                   confirmed_at = {_HOURS} + make_interval(secs => substr(lead_id, 2)::int)
             WHERE lead_id <> 'L20'""",
    )
    sql.execute(
        database,
        f"UPDATE leadloop.disable_requests SET requested_at = {_HOURS} WHERE lead_id = 'L20'",
    )
    rows = sql.fetch_rows(database, "SELECT * FROM leadloop_monitor.disable_latency")
    assert sum(row["requested"] for row in rows) == 21
    (latency,) = [row for row in rows if row["waiting"]]
    assert (latency["p50_s"], latency["p95_s"], latency["worst_s"]) == (10, 30, 30)
    assert latency["waiting"] == 1
    assert 3 * 3600 <= latency["oldest_waiting_s"] < 4 * 3600


def test_all_is_well(lived: Database) -> None:
    """Nothing is wrong with what has only just happened."""
    assert problems(lived) == {}
    health = "SELECT health FROM leadloop_monitor.campaign_health"
    assert sql.fetch_value(lived, health) == "ok"


@pytest.mark.parametrize(
    ("change", "problem", "severity", "command"),
    [
        (
            f"UPDATE leadloop.disable_requests SET requested_at = {_HOURS}",
            *("opt_outs_waiting", "critical", "leadloop disable"),
        ),
        (
            f"UPDATE leadloop.disable_requests SET requested_at = {_HOURS}, status = 'failed'",
            *("opt_outs_failed", "critical", "leadloop requeue --disables --campaign C1"),
        ),
        (
            "UPDATE leadloop.disable_requests SET requested_at = now() + interval '5 h'",
            *("opt_outs_waiting", "critical", "leadloop disable"),
        ),
        (
            f"UPDATE leadloop.sync_runs SET ended_at = {_HOURS}",
            *("nothing_runs", "warning", "leadloop doctor"),
        ),
        (
            "DELETE FROM leadloop.sync_runs",
            *("nothing_runs", "warning", "leadloop sync --campaign C1"),
        ),
        (
            f"UPDATE leadloop.watermarks SET processed_through = {_HOURS}",
            *("poll_behind", "critical", "leadloop poll"),
        ),
        (
            f"""INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason,
                                                   found_at, next_try_at)
                VALUES ('{CAMPAIGN}', now(), now(), 'HTTP 500', {_HOURS}, now())""",
            *("windows_owed", "critical", "leadloop owed --campaign C1"),
        ),
        (
            f"""INSERT INTO leadloop.unreadable_results (campaign_id, digest, reason, raw)
                VALUES ('{CAMPAIGN}', 'x', 'lead_id: missing', '{{"phone": "+14155550177"}}')""",
            *("results_unreadable", "warning", "leadloop audit --campaign C1"),
        ),
        (
            "UPDATE leadloop.lead_outcomes SET lead_id = 'created.0'",
            *("outcomes_unknown", "warning", "leadloop audit --campaign C1"),
        ),
        (
            f"""INSERT INTO leadloop.sync_runs (flow, campaign_id, state, ended_at, counts)
                VALUES ('push-leads', '{CAMPAIGN}', 'completed', now(),
                        '{{"created": 9, "rejected": 10}}')""",
            *("leads_rejected", "warning", "leadloop requeue --rejected --campaign C1"),
        ),
        (
            f"""INSERT INTO leadloop.sync_runs (flow, campaign_id, state, ended_at, counts)
                SELECT 'push-leads', '{CAMPAIGN}', 'completed', now(),
                       jsonb_build_object('in_doubt', n) FROM generate_series(1, 3) AS n""",
            *("doubts_growing", "warning", "leadloop audit --campaign C1"),
        ),
        (
            f"""INSERT INTO leadloop.sync_runs (flow, campaign_id, state, ended_at, counts)
                VALUES ('push-leads', '{CAMPAIGN}', 'completed', now(),
                        '{{"unreadable_rows": 2}}')""",
            *("rows_unreadable", "warning", "leadloop push --campaign C1"),
        ),
        (
            f"UPDATE leadloop.leads SET inserted_at = {_HOURS}",
            *("leads_unsent", "warning", "leadloop push"),
        ),
        (
            _confirm_slowly("urgent lead", slow=300, quick=60),
            *("lead_slow", "warning", "leadloop status --campaign C1"),
        ),
        (
            _confirm_slowly("opt-out", slow=900, quick=300),
            *("opt_out_slow", "warning", "leadloop status --campaign C1"),
        ),
        (
            _confirm_slowly("outcome", slow=3600, quick=900),
            *("outcome_slow", "warning", "leadloop status --campaign C1"),
        ),
        (
            f"UPDATE leadloop.leads SET doubted_at = {_HOURS} WHERE status = 'in_doubt'",
            *("leads_in_doubt", "warning", "leadloop audit"),
        ),
        (
            """UPDATE leadloop.lead_outcomes
                  SET lookback_needed_s = 901, processed_at = '2026-01-31 12\\:00\\:00.5+00'""",
            *(
                *("outcomes_late", "warning"),
                "leadloop backfill --campaign C1 --after 2026-01-31T12:00:00Z --before 20",
            ),
        ),
        (
            "UPDATE leadloop.sync_runs SET state = 'failed', error = 'no answer'",
            *("run_failed", "warning", "leadloop doctor"),
        ),
        (
            f"UPDATE leadloop.sync_runs SET state = 'running', started_at = {_HOURS}",
            *("run_too_long", "warning", "leadloop doctor"),
        ),
    ],
)
def test_each_problem_is_found_with_its_command(
    lived: Database, change: str, problem: str, severity: str, command: str
) -> None:
    """One change for the worse, one problem; the campaign's health is that of its worst."""
    sql.execute(lived, change)
    found = problems(lived)
    assert list(found) == [problem]
    assert found[problem]["severity"] == severity
    assert found[problem]["command"].startswith(command)
    assert_complete(found[problem]["command"])
    health = "SELECT health FROM leadloop_monitor.campaign_health"
    assert sql.fetch_value(lived, health) == severity


@pytest.mark.parametrize(
    "change",
    [
        f"""INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason,
                                               next_try_at)
            VALUES ('{CAMPAIGN}', now(), now(), 'HTTP 500', now())""",
        "UPDATE leadloop.lead_outcomes SET lookback_needed_s = 899",
        "UPDATE leadloop.sync_runs SET state = 'running', ended_at = NULL",
        f"""UPDATE leadloop.watermarks
               SET (processed_through, written_through, read_through)
                   = ({_HOURS}, {_HOURS}, now())""",
    ],
)
def test_what_comes_right_by_itself_is_no_problem(lived: Database, change: str) -> None:
    """A window that a later poll reads again, what the lookback finds, a run that goes on.

    Nor is a watermark behind polls that are up to date: what holds it is a problem of its own.
    """
    sql.execute(lived, change)
    assert problems(lived) == {}


def ran(
    database: Database, flow: str, state: str, *, ago: str = "1 minute", counts: str = "{}"
) -> None:
    """A run that began and ended then; one that is running has not ended."""
    sql.execute(
        database,
        """INSERT INTO leadloop.sync_runs (flow, campaign_id, state, started_at, ended_at, counts)
           VALUES (:flow, :campaign, :state, now() - CAST(:ago AS interval),
                   CASE WHEN :state <> 'running' THEN now() - CAST(:ago AS interval) END,
                   CAST(:counts AS jsonb))""",
        flow=flow, state=state, ago=ago, counts=counts, campaign=CAMPAIGN,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("waits", "amount"),
    [
        (
            "INSERT INTO leadloop.leads (campaign_id, lead_id) VALUES ('Z''Z', 'a'), ('Z''Z', 'b')",
            2,
        ),
        ("INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('Z''Z', 'a')", 1),
        (
            f"""INSERT INTO leadloop.leads (campaign_id, lead_id, status, sent_at)
                VALUES ('Z''Z', 'a', 'in_doubt', {_HOURS})""",
            1,
        ),
    ],
)
def test_what_waits_in_a_campaign_that_nobody_added(
    lived: Database, waits: str, amount: int
) -> None:
    """No run or command takes it: the only problem is the unknown campaign, with the fix."""
    sql.execute(lived, waits)
    (found,) = problems(lived).values()
    assert (found["problem"], found["severity"]) == ("campaign_unknown", "critical")
    assert (found["campaign_id"], found["amount"]) == ("Z'Z", amount)
    assert_complete(found["command"])
    sql.execute(lived, found["said"].partition(": ")[2])
    assert "campaign_unknown" not in problems(lived)


def test_opt_outs_of_a_disabled_campaign_are_as_urgent(lived: Database) -> None:
    """The schedule sends them too, whether the campaign is enabled or not."""
    sql.execute(lived, f"UPDATE leadloop.disable_requests SET requested_at = {_HOURS}")
    sql.execute(lived, "UPDATE leadloop.campaigns SET enabled = false")
    (found,) = problems(lived).values()
    assert (found["problem"], found["severity"]) == ("opt_outs_waiting", "critical")


def test_a_campaign_that_is_pushed_and_never_polled(lived: Database) -> None:
    """It has no watermark that could be behind, and its outcomes are missing all the same."""
    sql.execute(lived, "DELETE FROM leadloop.watermarks")
    ran(lived, "push-leads", "completed", ago="3 hours", counts='{"created": 0}')
    ran(lived, "disable-leads", "completed")
    assert problems(lived) == {}
    ran(lived, "push-leads", "completed", ago="2 hours", counts='{"created": 5}')
    ran(lived, "push-leads", "completed", counts='{"created": 5}')
    (found,) = problems(lived).values()
    assert (found["problem"], found["severity"]) == ("poll_behind", "critical")


def test_a_run_that_goes_on_hides_no_failure(lived: Database) -> None:
    """A flow that fails each time fails also while it tries again; a success ends that."""
    ran(lived, "push-leads", "failed")
    ran(lived, "push-leads", "running")
    assert list(problems(lived)) == ["run_failed"]
    ran(lived, "push-leads", "completed")
    assert problems(lived) == {}


def test_a_newer_run_hides_none_that_hangs(lived: Database) -> None:
    """Each run that has not ended for hours is reported."""
    ran(lived, "push-leads", "running", ago="3 hours")
    ran(lived, "push-leads", "completed")
    assert list(problems(lived)) == ["run_too_long"]


@pytest.mark.parametrize("flow", ["backfill-outcomes", "audit-leads", "sync-leads"])
def test_what_was_tried_once_is_not_told_for_ever(lived: Database, flow: str) -> None:
    """No schedule repeats it, so no success of the same flow would clear it."""
    ran(lived, flow, "failed", ago="2 days")
    assert problems(lived) == {}
    ran(lived, flow, "failed")
    assert list(problems(lived)) == ["run_failed"]


@pytest.mark.parametrize(
    ("failed", "succeeded"), [("sync-leads", "poll-outcomes"), ("disable-leads", "sync-leads")]
)
def test_the_same_work_done_by_another_flow_clears_a_failure(
    lived: Database, failed: str, succeeded: str
) -> None:
    """After a change from sync to its parts, or back, the old flow's failure is not reported."""
    ran(lived, failed, "failed")
    ran(lived, "audit-leads", "completed")
    assert list(problems(lived)) == ["run_failed"]
    ran(lived, succeeded, "completed")
    assert problems(lived) == {}


def test_outcomes_are_late_by_the_lookback_in_force(lived: Database) -> None:
    """The campaign's own, or that of the last poll: once it is long enough, all is well."""
    sql.execute(lived, "UPDATE leadloop.lead_outcomes SET lookback_needed_s = 600")
    assert problems(lived) == {}
    ran(lived, "poll-outcomes", "completed", counts='{"lookback_s": 300}')
    assert list(problems(lived)) == ["outcomes_late"]
    ran(lived, "poll-outcomes", "completed", counts='{"lookback_s": 601}')
    assert problems(lived) == {}
    sql.execute(lived, "UPDATE leadloop.campaigns SET lookback_s = 300")
    assert list(problems(lived)) == ["outcomes_late"]


def test_owed_windows_are_told_until_they_are_read_or_accepted(lived: Database) -> None:
    """With the reason that most of them have; one that a person accepted is listed elsewhere."""
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason,
                                               found_at, next_try_at)
            SELECT '{CAMPAIGN}', now(), now(), reason, {_HOURS}, now()
              FROM unnest(ARRAY['HTTP 500', 'no response', 'HTTP 500']) AS reason""",
    )
    (found,) = problems(lived).values()
    assert found["amount"] == 3
    assert found["said"].startswith("3 windows could not be read completely")
    assert found["said"].endswith("HTTP 500")
    accept = (
        "UPDATE leadloop.owed_windows SET accepted_at = now(), accepted_reason = 'vendor gave up'"
    )
    sql.execute(lived, f"{accept} WHERE reason = 'HTTP 500'")
    (found,) = problems(lived).values()
    assert (found["amount"], found["said"].partition(" could")[0]) == (1, "1 window")
    sql.execute(lived, accept)
    assert problems(lived) == {}


def test_results_that_cannot_be_read_are_told_for_a_week(lived: Database) -> None:
    """How many, equal ones too, with the reason of most; nothing of what they hold."""
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.unreadable_results (campaign_id, digest, reason, raw, occurrences)
            VALUES ('{CAMPAIGN}', 'a', 'lead_id: missing', '{{"phone": "+14155550177"}}', 1),
                   ('{CAMPAIGN}', 'b', 'the result is not an object', 'null', 5),
                   ('{CAMPAIGN}', 'c', 'lead_id: missing', '{{"phone": "+14155550178"}}', 1)""",
    )
    (found,) = problems(lived).values()
    assert found["amount"] == 7
    assert found["said"].startswith("7 results of the last 7 days could not be read")
    assert found["said"].endswith("the result is not an object")
    sql.execute(
        lived,
        "UPDATE leadloop.unreadable_results SET seen_at = now() - interval '8 days'"
        " WHERE digest <> 'a'",
    )
    (found,) = problems(lived).values()
    assert found["said"].startswith("1 result of the last 7 days")
    assert found["said"].endswith("lead_id: missing")
    sql.execute(lived, "UPDATE leadloop.unreadable_results SET seen_at = now() - interval '8 days'")
    assert problems(lived) == {}


def came(database: Database, *lead_ids: str, ago: str = "1 hour") -> None:
    """Outcomes of these leads were stored then."""
    for lead_id in lead_ids:
        sql.execute(
            database,
            """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw,
                                                   first_seen_at)
               VALUES (:campaign, :lead, now(), '{}', now() - CAST(:ago AS interval))""",
            campaign=CAMPAIGN, lead=lead_id, ago=ago,
        )  # fmt: skip


@pytest.mark.parametrize("is_gone", [False, True])
def test_outcomes_of_nobody_while_leads_wait(lived: Database, is_gone: bool) -> None:
    """The vendor writes ids in another way: the sample shows how. One that matches settles it."""
    sql.execute(lived, "DELETE FROM leadloop.lead_outcomes")
    came(lived, "created/1", "created/2", "created/3", "created/4")
    if is_gone:
        sql.execute(lived, "DELETE FROM leadloop.leads WHERE lead_id = 'created'")
    found = problems(lived)["outcomes_unknown"]
    assert (found["severity"], found["amount"]) == ("warning", 4)
    assert found["said"].endswith(": created/1, created/2, created/3")
    factories.add_leads(lived, factories.build_lead("other", status="created"))
    came(lived, "other")
    assert "outcomes_unknown" not in problems(lived)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE leadloop.lead_outcomes SET first_seen_at = now() - interval '25 hours'",
        "UPDATE leadloop.leads SET status = 'rejected' WHERE status = 'created'",
        "DELETE FROM leadloop.lead_outcomes",
        f"""INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw,
                                                first_seen_at)
            VALUES ('{CAMPAIGN}', 'created', now(), '{{}}', now() - interval '2 days')""",
    ],
)
def test_outcomes_of_others_alone_are_no_problem(lived: Database, change: str) -> None:
    """The vendor may have leads that are not ours: nothing is missing, or nothing new has come."""
    sql.execute(lived, "DELETE FROM leadloop.lead_outcomes")
    came(lived, "theirs")
    sql.execute(lived, change)
    assert "outcomes_unknown" not in problems(lived)


@pytest.mark.parametrize("share", [0, 1])
def test_new_outcomes_are_found_by_an_index(lived: Database, share: int) -> None:
    """Whose they are is looked up for the newest alone, or for all only if they are nobody's."""
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.leads (campaign_id, lead_id, status)
            SELECT '{CAMPAIGN}', 'many-' || n, 'created' FROM generate_series(1, 20000) AS n""",
    )
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw,
                                                first_seen_at)
            SELECT '{CAMPAIGN}', 'many-' || n || repeat('x', :share), now(), '{{}}',
                   now() - make_interval(mins => n)
              FROM generate_series(1, 20000) AS n""",
        share=share,
    )
    sql.execute(lived, "DELETE FROM leadloop.lead_outcomes WHERE lead_id = 'created'")
    sql.execute(lived, "ANALYZE leadloop.leads, leadloop.lead_outcomes")
    plan = sql.fetch_value(
        lived,
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM leadloop_monitor.problems"
        " WHERE problem = 'outcomes_unknown'",
    )
    read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in _nodes(plan[0]["Plan"])
        if node.get("Relation Name") in ("leads", "lead_outcomes")
    )
    # All outcomes of a day, twice; or a single one, and its lead.
    assert read <= (2 * 1440 + 20 if share else 10)
    assert ("outcomes_unknown" in problems(lived)) == bool(share)


@pytest.mark.parametrize("campaign", ["two words", "it's", "$(touch x); #", "-h", "'"])
def test_a_command_can_be_pasted_whatever_the_id(database: Database, campaign: str) -> None:
    """A shell hands the command line that very id, and does nothing else with it."""
    factories.add_campaign(database, campaign)
    factories.add_opt_outs(database, "a", campaign=campaign)
    sql.execute(database, f"UPDATE leadloop.disable_requests SET requested_at = {_HOURS}")
    command = problems(database)["opt_outs_waiting"]["command"]
    told = subprocess.run(
        ["sh", "-c", f"leadloop() {{ printf '%s\\n' \"$@\"; }}; {command}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == f"disable\n--campaign\n{campaign}\n"
    assert_complete(command)


@pytest.mark.parametrize(
    "change",
    [
        f"UPDATE leadloop.disable_requests SET requested_at = {_HOURS}",
        f"UPDATE leadloop.leads SET doubted_at = {_HOURS} WHERE status = 'in_doubt'",
    ],
)
def test_one_is_told_as_one(lived: Database, change: str) -> None:
    """A text says "1 lead has", not "1 leads have"."""
    sql.execute(lived, change)
    (found,) = problems(lived).values()
    assert found["said"].startswith(("1 opt-out has waited", "1 lead has been in doubt"))


@pytest.mark.parametrize("view", ["problems", "campaign_health"])
def test_runs_are_found_by_an_index(lived: Database, view: str) -> None:
    """Months of runs: to know how the last ones ended, none of the others is read."""
    sql.execute(
        lived,
        """INSERT INTO leadloop.sync_runs (flow, campaign_id, state, ended_at)
            SELECT flow, 'C' || n % 50, 'completed', now()
              FROM generate_series(1, 5000) AS n,
                   unnest(ARRAY['push-leads', 'poll-outcomes', 'disable-leads']) AS flow""",
    )
    sql.execute(lived, "ANALYZE leadloop.sync_runs")
    plan = sql.fetch_value(lived, f"EXPLAIN (FORMAT JSON) SELECT * FROM leadloop_monitor.{view}")
    nodes = _nodes(plan[0]["Plan"])
    used = {node["Index Name"] for node in nodes if "sync_runs" in node.get("Index Name", "")}
    few = {"sync_runs_covering", "sync_runs_created", "sync_runs_troubled", "sync_runs_failed"}
    assert used == {"sync_runs_by_flow", "sync_runs_recent", "sync_runs_running", *few}, used
    scans = [node for node in nodes if node.get("Relation Name") == "sync_runs"]
    assert [node for node in scans if node["Node Type"] == "Seq Scan"] == []


@pytest.mark.parametrize("view", ["problems", "campaign_health"])
def test_a_condition_on_the_campaign_reaches_every_rule(lived: Database, view: str) -> None:
    """A flow run reads the problems of its campaigns alone, also among thousands of campaigns."""
    sql.execute(
        lived, "INSERT INTO leadloop.campaigns SELECT 'many-' || n FROM generate_series(1, 900) n"
    )
    sql.execute(lived, "ANALYZE leadloop.campaigns")
    plan = sql.fetch_value(
        lived,
        "EXPLAIN (ANALYZE, FORMAT JSON)"
        f" SELECT * FROM leadloop_monitor.{view} WHERE campaign_id = '{CAMPAIGN}'",
    )
    read = [
        node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
        for node in _nodes(plan[0]["Plan"])
        if node.get("Relation Name") == "campaigns"
    ]
    assert read, "this shows nothing"
    assert max(read) <= 2, read


@pytest.mark.parametrize(
    ("view", "allowed"),
    [
        ("campaign_health", 1),
        ("lead_funnel", 1),
        ("problems", 0),
        ("outcomes_by_hour", 0),
        ("attempts_by_hour", 0),
    ],
)
def test_plans_read_the_leads_no_more_than_they_must(
    lived: Database, view: str, allowed: int
) -> None:
    """At a million leads each of these reads that table once at most; the rest goes by indexes."""
    sql.execute(
        lived,
        f"""INSERT INTO leadloop.leads (campaign_id, lead_id, status)
            SELECT '{CAMPAIGN}', 'many-' || n, 'created' FROM generate_series(1, 20000) AS n""",
    )
    sql.execute(lived, "ANALYZE leadloop.leads")
    plan = sql.fetch_value(lived, f"EXPLAIN (FORMAT JSON) SELECT * FROM leadloop_monitor.{view}")
    scans = [node for node in _nodes(plan[0]["Plan"]) if node.get("Relation Name") == "leads"]
    whole = sum(node["Node Type"] == "Seq Scan" for node in scans)
    assert whole <= allowed


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", []) for node in _nodes(part))]


@pytest.mark.parametrize(
    "query", _queries("dashboards-and-alerts.md"), ids=lambda query: query.splitlines()[0]
)
def test_the_documented_queries_work(lived: Database, query: str) -> None:
    """The queries of the how-to work with the dashboard's login."""
    as_reader(lived, query.rstrip(";"))


def test_the_documented_questions_have_answers(lived: Database) -> None:
    """Each gives the figures of its title, with the login of a BI tool as the how-to creates it."""
    page = "use-bi-and-dbt.md"
    with lived.transaction() as connection, connection.begin_nested() as savepoint:
        connection.exec_driver_sql(_sql_blocks(page)[0])
        connection.exec_driver_sql("SET LOCAL ROLE bi")
        answers = [
            [dict(row._mapping) for row in connection.exec_driver_sql(query)]
            for query in _queries(page)
        ]
        savepoint.rollback()
    (reached,), (cost,), (picked_up,) = answers
    assert reached == {
        "campaign_id": CAMPAIGN, "created": 1, "processed": 1, "processed_percent": 100,
    }  # fmt: skip
    assert cost.pop("week").isoweekday() == 1
    assert cost == {
        "outcome_name": "Sold", "outcomes": 1, "cost": 1.5, "cost_per_outcome": 1.5,
    }  # fmt: skip
    assert (picked_up["calls"], picked_up["connected_percent"]) == (2, 50)


@pytest.mark.parametrize("said", ["a-7", "A-7 ", " A-7", "A-7\u200b", "A\u00ad-7", "A\t-7\ufeff"])
def test_an_opt_out_that_means_another_id_is_critical_at_once(lived: Database, said: str) -> None:
    """It differs by case, blanks or invisible characters alone; the right one settles it."""
    factories.add_leads(
        lived,
        factories.build_lead("A-7", status="created"),
        factories.build_lead("b-8", status="created"),
    )
    factories.add_opt_outs(lived, said)
    found = problems(lived)["opt_outs_misspelt"]
    assert (found["severity"], found["amount"]) == ("critical", 1)
    statement = found["said"].partition(": ")[2]
    assert statement.endswith("'A-7')")
    sql.execute(lived, statement)
    sql.execute(
        lived,
        "UPDATE leadloop.disable_requests SET requested_at = now() - interval '2 hours'"
        " WHERE names_no_lead",
    )
    assert not {"opt_outs_misspelt", "opt_outs_unknown"} & problems(lived).keys()


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize(
    ("lead_id", "said"),
    [("Ab-7", "aB-7"), ("x y\u200b", "XY"), ("7", " 7 "), ("a\U000e0041", "A"), ("7", "7\ufe0f")],
)
def test_the_id_of_the_lead_itself_may_be_the_odd_one(
    lived: Database, lead_id: str, said: str, is_gone: bool
) -> None:
    """Mixed letters, blanks within: both sides are compared without them. Its row may be gone."""
    factories.add_leads(lived, factories.build_lead(lead_id, status="created"))
    if is_gone:
        sql.execute(lived, "DELETE FROM leadloop.leads WHERE lead_id = :lead", lead=lead_id)
    factories.add_opt_outs(lived, said)
    assert problems(lived)["opt_outs_misspelt"]["amount"] == 1


def test_an_opt_out_of_no_known_lead_is_a_problem_after_an_hour(lived: Database) -> None:
    """Until then its row may come; and where the vendor has called the lead, it is none."""
    factories.add_opt_outs(lived, "Q-1", "Q-2")
    assert "opt_outs_unknown" not in problems(lived)
    sql.execute(
        lived,
        "UPDATE leadloop.disable_requests SET requested_at = now() - interval '61 minutes'"
        " WHERE lead_id LIKE 'Q-%'",
    )
    found = problems(lived)["opt_outs_unknown"]
    assert (found["severity"], found["amount"]) == ("warning", 2)
    assert found["said"].endswith("Q-1, Q-2")
    assert_complete(found["command"])
    factories.add_leads(lived, "Q-1")
    sql.execute(
        lived,
        """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
           VALUES (:campaign, 'Q-2', now(), '{}')""",
        campaign=CAMPAIGN,
    )
    assert "opt_outs_unknown" not in problems(lived)


def test_an_opt_out_of_a_lead_whose_row_is_gone_names_a_known_one(lived: Database) -> None:
    """It was sent before its row was deleted."""
    factories.add_leads(lived, factories.build_lead("gone", status="created"))
    sql.execute(lived, "DELETE FROM leadloop.leads WHERE lead_id = 'gone'")
    factories.add_opt_outs(lived, "gone", requested_at="2026-01-31")
    sql.execute(lived, "UPDATE leadloop.disable_requests SET status = 'disabled'")
    assert problems(lived) == {}


def test_leads_that_wait_in_a_paused_campaign_say_so(lived: Database) -> None:
    """The command that deals with it lets it create again."""
    sql.execute(lived, "UPDATE leadloop.campaigns SET push_enabled = false")
    sql.execute(
        lived,
        "UPDATE leadloop.leads SET status = 'new', inserted_at = now() - interval '2 hours'",
    )
    found = problems(lived)["leads_unsent"]
    assert found["said"].endswith("the campaign is paused")
    assert found["command"].startswith("leadloop resume --campaign")
    assert_complete(found["command"])


@pytest.mark.parametrize(
    "change",
    [
        _confirm_slowly("lead", slow=3600, quick=900),
        _confirm_slowly("outcome", slow=3600, quick=900, amount=0),
        _confirm_slowly("opt-out", slow=900, quick=300).replace("now()", "now() - interval '3 h'"),
        _confirm_slowly("outcome", slow=300, quick=900),
    ],
    ids=["a file", "no slow one", "hours ago", "below the threshold"],
)
def test_latencies_that_are_no_problem(lived: Database, change: str) -> None:
    """Leads that are not urgent wait behind files; of four urgent ones too few were confirmed."""
    sql.execute(lived, change)
    assert problems(lived) == {}


def test_a_slow_hour_is_told_with_its_counts(lived: Database) -> None:
    """How many of how many, and the threshold."""
    sql.execute(lived, _confirm_slowly("opt-out", slow=900, quick=300))
    slow = problems(lived)["opt_out_slow"]
    assert (slow["amount"], slow["said"]) == (
        2,
        "2 of 100 opt-outs of the last hour took more than 300 s",
    )
