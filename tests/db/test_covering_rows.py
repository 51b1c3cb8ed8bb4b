"""Covering rows: what the views show of a campaign that has no row of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db.database import Database
from tests import factories, sql
from tests.factories import CAMPAIGN

_ENDED = ("completed", "failed", "crashed")
_INSERT = text("""
INSERT INTO leadloop.sync_runs (flow, campaign_id, state, started_at, ended_at, lock_id, counts)
VALUES (:flow, :campaign, :state, :at, CASE WHEN :state <> 'running'
        THEN CAST(:at AS timestamptz) END, :lock, '{"requests": 3}') RETURNING run_id
""")


@dataclass(frozen=True, kw_only=True)
class Push:
    """A flow run: the state of its covering row, and of the campaign's own row; None: no row."""

    covering: str | None
    own: str | None


#: Pushes, and between them whether a person enables (True) or disables the campaign.
_HISTORIES = st.lists(
    st.booleans()
    | st.builds(
        Push,
        covering=st.none() | st.sampled_from(_ENDED),
        own=st.none() | st.sampled_from([*_ENDED, "running"]),
    ),
    max_size=8,
)


def write_run(
    database: Database,
    campaign: str,
    state: str,
    at: datetime,
    *,
    flow: str = "push-leads",
    lock: int | None = None,
) -> int:
    """Insert the row of a run that took no time; return its id."""
    parameters = {"flow": flow, "campaign": campaign, "state": state, "at": at, "lock": lock}
    with database.transaction() as connection:
        run_id: int = connection.execute(_INSERT, parameters).scalar_one()
    return run_id


def live_through(database: Database, history: Sequence[Push | bool], start: datetime) -> None:
    """Write a history, a minute a step."""
    for number, step in enumerate(history):
        at = start + timedelta(minutes=number)
        if isinstance(step, bool):
            sql.execute(database, "UPDATE leadloop.campaigns SET enabled = :on", on=step)
            # The trigger has noted the present.
            sql.execute(
                database,
                """UPDATE leadloop.campaigns SET enabled_at = :at
                    WHERE enabled_at > now() - interval '1 minute'""",
                at=at,
            )
            continue
        lock = write_run(database, "", step.covering, at) if step.covering else None
        if step.own:
            write_run(database, CAMPAIGN, step.own, at, lock=lock)


def expect(history: Sequence[Push | bool]) -> tuple[int | None, bool]:
    """Return the step of the last completed push, and whether the last one has failed. Pure."""
    is_enabled, enabled_at = True, -1
    for number, step in enumerate(history):
        if isinstance(step, bool):
            if step and not is_enabled:
                enabled_at = number
            is_enabled = step
    completed, has_failed = None, False
    for number, step in enumerate(history):
        if isinstance(step, bool):
            continue
        is_covered = (
            step.covering == "completed" and not step.own and is_enabled and number >= enabled_at
        )
        if is_covered or step.own == "completed":
            completed, has_failed = number, False
        elif step.own in ("failed", "crashed"):
            has_failed = True
    return completed, has_failed and is_enabled


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=_HISTORIES)
def test_a_covering_row_is_a_run_of_each_campaign_without_its_own(
    database: Database, history: list[Push | bool]
) -> None:
    """If it was enabled by then. A run that failed is a problem until a later one has completed."""
    sql.execute(database, "TRUNCATE leadloop.campaigns, leadloop.sync_runs")
    factories.add_campaign(database)
    start = datetime.now(UTC) - timedelta(minutes=30)
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled_at = '-infinity'")
    live_through(database, history, start)
    completed, has_failed = expect(history)
    last = sql.fetch_value(database, "SELECT last_push_at FROM leadloop_monitor.campaign_health")
    assert last == (None if completed is None else start + timedelta(minutes=completed))
    problems = sql.fetch_rows(database, "SELECT problem FROM leadloop_monitor.problems")
    assert problems == ([{"problem": "run_failed"}] if has_failed else [])


def test_a_campaign_is_not_covered_by_runs_before_it_was_enabled(database: Database) -> None:
    """The database notes the time, whoever enables it; other changes leave it."""
    before = datetime.now(UTC)
    factories.add_campaign(database, enabled=False)
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled_at = '-infinity'")
    sql.execute(database, "UPDATE leadloop.campaigns SET push_enabled = false")
    noted = "SELECT enabled_at >= :before FROM leadloop.campaigns"
    assert sql.fetch_value(database, noted, before=before) is False
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled = true")
    assert sql.fetch_value(database, noted, before=before) is True
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled_at = '-infinity'")
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled = true")
    assert sql.fetch_value(database, noted, before=before) is False


@pytest.mark.parametrize(("age_h", "found"), [(0, []), (5, ["nothing_runs"])])
def test_a_covering_row_shows_that_runs_come(
    database: Database, age_h: int, found: list[str]
) -> None:
    """A campaign in which nothing is ever due is no campaign that nobody runs."""
    factories.add_campaign(database)
    sql.execute(database, "UPDATE leadloop.campaigns SET enabled_at = '-infinity'")
    ended_at = datetime.now(UTC) - timedelta(hours=age_h)
    write_run(database, "", "completed", ended_at, flow="disable-leads")
    problems = sql.fetch_rows(database, "SELECT problem FROM leadloop_monitor.problems")
    assert [row["problem"] for row in problems] == found


def test_a_covering_row_names_no_campaign(database: Database) -> None:
    """In the history of runs and in the sums of requests: it is a run of all of them."""
    factories.add_campaign(database)
    now = datetime.now(UTC)
    for campaign in ("", CAMPAIGN):
        write_run(database, campaign, "completed", now)
    for view in ("run_history", "request_stats"):
        rows = sql.fetch_rows(
            database,
            f"SELECT campaign_id, requests FROM leadloop_monitor.{view} ORDER BY campaign_id",
        )
        assert rows == [
            {"campaign_id": CAMPAIGN, "requests": 3},
            {"campaign_id": None, "requests": 3},
        ]


def test_the_lookback_in_force_is_that_of_the_last_poll(database: Database) -> None:
    """Whether it was a poll of the campaign, or one in which it had nothing new."""
    factories.add_campaign(database)
    now = datetime.now(UTC)
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes
                  (campaign_id, lead_id, processed_at, raw, lookback_needed_s)
           VALUES (:campaign, 'a', now(), '{}', 500)""",
        campaign=CAMPAIGN,
    )
    query = "SELECT count(*) FROM leadloop_monitor.problems WHERE problem = 'outcomes_late'"
    for campaign, lookback_s, is_late in (("", 400, 1), (CAMPAIGN, 600, 0), ("", 400, 1)):
        run_id = write_run(database, campaign, "completed", now, flow="poll-outcomes")
        sql.execute(
            database,
            """UPDATE leadloop.sync_runs SET counts = jsonb_build_object('lookback_s', :s)
                WHERE run_id = :run""",
            s=lookback_s,
            run=run_id,
        )
        assert sql.fetch_value(database, query) == is_late
