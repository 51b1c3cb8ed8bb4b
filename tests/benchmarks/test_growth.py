"""The seeded history of the benchmark of growth, and its verdicts."""

import math
from itertools import chain, repeat

import pytest

from db.database import Database
from tests import sql
from tests.benchmarks.growth import Reading, judge_growth, list_reads, measure_median
from tests.benchmarks.growth_seed import (
    OUTCOME_NAMES,
    REASONS,
    RUNS,
    HistorySize,
    seed_history,
)

_LEADS, _CAMPAIGNS = 2_000, 3


@pytest.fixture
def history(database: Database) -> Database:
    """A database with a small history."""
    seed_history(database, HistorySize(leads=_LEADS, campaigns=_CAMPAIGNS))
    return database


def test_history_is_what_the_views_show(history: Database) -> None:
    """The rows are counted as if pushes and polls had written them."""

    def fetch_sum(column: str, view: str) -> int:
        query = f"SELECT CAST(sum({column}) AS bigint) FROM leadloop_monitor.{view}"
        total: int = sql.fetch_value(history, query)
        return total

    def count_rows(table: str, condition: str = "true") -> int:
        query = f"SELECT count(*) FROM leadloop.{table} WHERE {condition}"
        total: int = sql.fetch_value(history, query)
        return total

    statuses = ("created", "rejected", "cancelled")
    shown = {status: fetch_sum(status, "campaign_health") for status in statuses}
    assert sum(shown.values()) == count_rows("leads") == _LEADS
    assert shown == {status: count_rows("leads", f"status = '{status}'") for status in statuses}
    assert all(shown.values())
    outcomes = count_rows("lead_outcomes")
    assert fetch_sum("outcomes", "outcomes_by_hour") == outcomes == shown["created"]
    assert fetch_sum("outcomes", "lateness") == fetch_sum("leads", "attempts_to_outcome")
    attempts = count_rows("outreach_attempts")
    assert fetch_sum("attempts", "attempts_by_hour") == attempts > 1.4 * outcomes
    assert fetch_sum("leads", "rejections") == shown["rejected"]
    assert fetch_sum("requested", "disable_latency") == count_rows("disable_requests")
    names = "SELECT count(DISTINCT {}) FROM leadloop_monitor.{}"
    assert sql.fetch_value(history, names.format("reason", "rejections")) <= REASONS
    assert sql.fetch_value(history, names.format("outcome_name", "outcomes_by_hour")) == (
        OUTCOME_NAMES
    )
    assert count_rows("sync_runs", "flow = 'push-leads'") == RUNS * _CAMPAIGNS


def test_history_has_no_problem(history: Database) -> None:
    """Problems would be measured with it, and fail `status --check`."""
    assert sql.fetch_rows(history, "SELECT problem, said FROM leadloop_monitor.problems") == []


def test_each_view_is_read(history: Database) -> None:
    """As a whole, and a day of it where it has times."""
    readings = {name: work() for name, work in list_reads(history)}
    assert readings["outcomes_by_hour"].rows > readings["outcomes_by_hour, 1 day"].rows > 0
    assert {"slowest_opt_outs, 1 day", "page: ever"} <= readings.keys()
    assert all(math.isfinite(each.seconds) for each in readings.values())


@pytest.mark.parametrize(
    ("first", "last", "met"),
    [
        (Reading(seconds=1), Reading(seconds=1.29), True),
        (Reading(seconds=1), Reading(seconds=1.31), False),
        (Reading(seconds=0.0003), Reading(seconds=0.02), True),
        (Reading(seconds=0.0003), Reading(seconds=0.03), False),
        (Reading(seconds=0.0003), Reading(seconds=5, rows=1_000_000), True),
        (Reading(seconds=0.0003), Reading(seconds=7, rows=1_000_000), False),
        (Reading(seconds=1), Reading(seconds=math.inf), False),
        (Reading(seconds=math.inf), Reading(seconds=math.inf), False),
    ],
)
def test_growth_is_judged_without_output(first: Reading, last: Reading, met: bool) -> None:
    """The target is a ratio; what is negligible and what the output takes is no growth."""
    assert judge_growth(first, last)[1] == met


def test_median_leaves_out_the_warm_up() -> None:
    """The first turn counts only if it is the only one: after a minute no other one begins."""
    quick = (Reading(seconds=each) for each in (9, 1, 3, 2))
    assert measure_median(lambda: next(quick), turns=3).seconds == 2
    slow = chain([Reading(seconds=61)], repeat(Reading(seconds=1)))
    assert measure_median(lambda: next(slow), turns=3).seconds == 61
