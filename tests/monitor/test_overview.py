"""The top of the page: problems with their commands, and the key metrics."""

from datetime import UTC, datetime, timedelta
from typing import Any

from streamlit.proto.Metric_pb2 import Metric

from db.database import Database
from db.monitor import StatusSnapshot, read_status_snapshot
from leadloop.monitor.overview import (
    show_freshness,
    show_headline,
    show_metrics,
    show_problems,
    show_upgrade,
)
from tests import factories, sql
from tests.monitor import seed_data
from tests.monitor.page_script import list_texts, run_part

_NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def build_status(**changes: Any) -> StatusSnapshot:
    """Return the snapshot of a database without campaigns; `changes` replace its parts."""
    budget = {"account": "default", "slots": 0, "taken": 0, "paused_s": 0.0}
    empty: dict[str, Any] = {
        "campaigns": [],
        "problems": [],
        "latencies": [],
        "newest_run": None,
        "budgets": [budget],
        "thresholds": {},
        "upgrade_complete": True,
    }
    return StatusSnapshot(**{"taken_at": _NOW, **empty, **changes})


def build_problem(said: str, **changes: Any) -> dict[str, Any]:
    """Return a problem with this text."""
    fixed = {"campaign_id": "C-1", "severity": "warning", "since": _NOW, "command": "leadloop push"}
    return {**fixed, "said": said, **changes}


def show_metric_values(status: StatusSnapshot) -> dict[str, str]:
    """Return the metrics of a snapshot by label."""
    return {metric.label: metric.value for metric in run_part(show_metrics, status).metric}


def test_empty_database() -> None:
    """The next command is shown, and nothing is called well."""
    part = run_part(show_headline, build_status(), is_stale=False)
    assert part.info[0].value == "**No campaign yet**: Load the first leads:"
    assert part.code[0].value == "leadloop load FILE.csv --campaign C"


def test_problems_have_commands() -> None:
    """The severity is a word, since not everyone can tell colours apart; the command is code."""
    part = run_part(show_problems, [build_problem("3 leads wait", severity="critical")])
    text = part.markdown[0].value
    assert "critical" in text
    assert text.endswith(r"**C\-1**: 3 leads wait :small[since 01 Mar 12:30 UTC]")
    assert part.code[0].value == "leadloop push"


def test_text_of_the_vendor_is_literal() -> None:
    """A vendor's message can neither format the page nor add a link to it."""
    part = run_part(show_problems, [build_problem("*no* [login](http://evil) <b>")])
    assert r"\*no\* \[login\]\(http\:" in part.markdown[0].value
    assert r"\<b\>" in part.markdown[0].value


def test_many_problems_are_folded() -> None:
    """Six problems are shown, further ones are behind a line that counts them."""
    part = run_part(show_problems, [build_problem(f"problem {n}") for n in range(8)])
    assert [expander.label for expander in part.expander] == ["and 2 more"]
    assert len(part.expander[0].markdown) == 2
    assert len(part.markdown) == 8


def test_very_many_problems_are_cut() -> None:
    """A page of thousands of elements would be slow; the CSV has them all."""
    part = run_part(show_problems, [build_problem(f"problem {n}") for n in range(1001)])
    assert len(part.markdown) == 100
    assert [expander.label for expander in part.expander] == ["and 995 more"]
    assert part.caption[0].value == "The first 100; the CSV has all 1,001."


def test_freshness() -> None:
    """The time of the data, the age of the latest run, and the problems that the filter hides."""
    run = {"flow": "push-leads", "campaign_id": "C1", "started_at": _NOW - timedelta(minutes=12)}
    part = run_part(show_freshness, build_status(newest_run=run), 2)
    assert part.caption[0].value == (
        r"As of 01 Mar 2026, 12:30:00 UTC. Latest run: push\-leads of C1, 12 min ago."
        " **Not shown: 2 problems of other campaigns.**"
    )
    assert run_part(show_freshness, build_status(), 0).caption[0].value == (
        "As of 01 Mar 2026, 12:30:00 UTC."
    )


def test_figures_from_before_an_upgrade(database: Database) -> None:
    """Until they are counted again, the page says that it shows too little."""
    assert list_texts(run_part(show_upgrade, read_status_snapshot(database))) == []
    sql.execute(database, "DELETE FROM leadloop.counts_filled")
    (told,) = list_texts(run_part(show_upgrade, read_status_snapshot(database)))
    assert "not complete yet: run `leadloop init`" in told


def test_no_recent_run(database: Database) -> None:
    """A stopped schedule is a problem by itself; a disabled campaign does not count as lagging."""
    seed_data.seed_idle(database)
    status = read_status_snapshot(database)
    headline = run_part(show_headline, status, is_stale=False)
    assert list_texts(headline) == ["**Warning: 2 problems**"]
    problems = run_part(show_problems, status.problems)
    assert all("no run for more than 60 minutes" in text.value for text in problems.markdown)
    assert {code.value for code in problems.code} == {"leadloop doctor"}
    # GONE-3 is disabled, and its watermark is 40 days old.
    assert show_metric_values(status)["Watermark lag"].endswith((" s", " min"))


def test_sums_of_all_campaigns(database: Database) -> None:
    """Figures are summed; the rate limit is the account's, with the share in use."""
    seed_data.seed_healthy(database)
    metrics = show_metric_values(read_status_snapshot(database))
    assert metrics["Created"] == "607"
    assert metrics["Rate limit in use"] == "31%"


def test_failed_opt_outs_have_a_tile(database: Database) -> None:
    """In the colour of what is critical if there is one, since that person may be called."""
    seed_data.seed_stuck(database)
    before = read_status_snapshot(database)
    sql.execute(
        database,
        "UPDATE leadloop.disable_requests SET status = 'failed'"
        " WHERE status = 'requested' AND lead_id = (SELECT min(lead_id) FROM"
        " leadloop.disable_requests WHERE status = 'requested')",
    )
    tiles = []
    for status in (before, read_status_snapshot(database)):
        metrics = {each.label: each for each in run_part(show_metrics, status).metric}
        opened, failed = metrics["Opt-outs open"], metrics["Opt-outs failed"]
        colour = Metric.MetricColor.Name(failed.color)
        tiles.append((opened.value, failed.value, failed.delta, colour))
    assert tiles == [("3", "0", "", "GRAY"), ("3", "1", "may still be called", "RED")]


def test_owed_windows_are_noted_at_the_watermark(database: Database) -> None:
    """What holds the watermark is beside its lag; nothing is noted where nothing is owed."""
    seed_data.seed_healthy(database)
    before = read_status_snapshot(database)
    campaign = before.campaign_ids[0]
    factories.owe_window(
        database, "2026-01-31T09:00:00Z", "2026-01-31T09:00:01Z", campaign=campaign
    )
    notes = [
        metric.delta
        for status in (before, read_status_snapshot(database))
        for metric in run_part(show_metrics, status).metric
        if metric.label == "Watermark lag"
    ]
    assert notes == ["", "owed: 1 window"]


def test_each_account_has_its_rate_limit() -> None:
    """One that has sent nothing yet is left out, unless it is the only one."""
    slots = {"default": 0, "emea": 10, "apac": 4}
    budgets = [
        {"account": name, "slots": amount, "taken": 2, "paused_s": None}
        for name, amount in slots.items()
    ]
    shown = run_part(show_metrics, build_status(budgets=budgets)).metric
    assert [(each.label, each.value) for each in shown if "Rate" in each.label] == [
        ("Rate limit in use (emea)", "20%"),
        ("Rate limit in use (apac)", "50%"),
    ]


def test_paused_by_the_vendor() -> None:
    """A pause that the vendor asked for is stated; without a slot there is no share."""
    paused = build_status(
        budgets=[{"account": "default", "slots": 10, "taken": 5, "paused_s": 120.0}]
    )
    (metric,) = [each for each in run_part(show_metrics, paused).metric if "Rate" in each.label]
    assert (metric.value, metric.delta) == ("50%", "vendor pause: 2 min")
    assert show_metric_values(build_status())["Rate limit in use"] == "none yet"
