"""The charts: what a viewer reads off each, as Vega-Lite has it."""

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from db.monitor import Rows, StatusSnapshot
from leadloop.monitor.chart_frames import STAGES
from leadloop.monitor.charts import ChartPanel, build_charts

_START = datetime(2026, 3, 1, 5, tzinfo=UTC).replace(tzinfo=None)
_THRESHOLDS = {
    "poll_behind": timedelta(minutes=60),
    "opt_outs_waiting": timedelta(minutes=15),
}
_NAMES = ("funnel", "outcomes", "attempts", "requests", "lag", "opt_outs")


def build_panels(*campaigns: Mapping[str, int], **history: Rows) -> dict[str, ChartPanel]:
    """Return the panels of campaigns with these leads by stage, and of this history, by name."""
    status = StatusSnapshot(
        taken_at=datetime.now(UTC),
        campaigns=[{**dict.fromkeys(STAGES, 0), **leads} for leads in campaigns],
        problems=[],
        latencies=[],
        newest_run=None,
        budgets=[],
        thresholds=_THRESHOLDS,
        upgrade_complete=True,
    )
    panels = build_charts(status, {**{name: [] for name in _NAMES}, **history})
    return {panel.name: panel for panel in panels}


def describe(panel: ChartPanel) -> dict[str, Any]:
    """Return the chart of a panel in Vega-Lite's terms."""
    assert panel.chart is not None
    spec: dict[str, Any] = panel.chart.to_dict()
    return spec


def outcome(name: str, leads: int, after: timedelta = timedelta()) -> dict[str, Any]:
    """Return a row of the outcomes by hour."""
    return {"hour": _START + after, "outcome": name, "leads": leads, "cost": 0.5}


def test_no_figures() -> None:
    """Without figures each panel has a text in place of a chart; the order is the page's."""
    panels = build_panels()
    assert tuple(panels) == _NAMES
    assert {panel.chart for panel in panels.values()} == {None}
    assert panels["funnel"].empty_text == "No lead yet."
    assert panels["lag"].empty_text == "Nothing in this period."


def test_funnel_labels() -> None:
    """Each bar states its leads and their share; the longest leaves space for that label."""
    spec = describe(build_panels({"new": 1500, "created": 500})["funnel"])
    (rows,) = spec["datasets"].values()
    labels = {row["stage"]: row["label"] for row in rows}
    assert (labels["New"], labels["Created"]) == ("1,500  (75%)", "500  (25%)")
    bars, texts = spec["layer"]
    assert texts["encoding"]["text"]["field"] == "label"
    assert bars["encoding"]["y"]["sort"] == list(STAGES.values())
    assert bars["encoding"]["x"]["scale"]["domain"][1] > 1.2 * 1500


def test_most_frequent_outcome_first() -> None:
    """Colours and the stack follow the totals of the period, whatever a single hour has."""
    rows = [outcome("rare", 2), outcome("often", 1), outcome("often", 9, timedelta(hours=1))]
    encoding = describe(build_panels(outcomes=rows)["outcomes"])["encoding"]
    assert encoding["color"]["scale"]["domain"] == ["often", "rare"]
    assert len(set(encoding["color"]["scale"]["range"])) == 2


def test_bars_by_hour_or_day() -> None:
    """A short period has a bar an hour, a long one a bar a day, and the axis is labelled so."""
    hours = [outcome("o", 1), outcome("o", 1, timedelta(hours=1))]
    days = [*hours, outcome("o", 1, timedelta(days=3))]
    by_hour, by_day = (
        describe(build_panels(outcomes=rows)["outcomes"])["encoding"]["x"] for rows in (hours, days)
    )
    assert (by_hour["timeUnit"], by_hour["axis"]["format"]) == ("yearmonthdatehours", "%H:%M")
    assert (by_day["timeUnit"], by_day["axis"]["format"]) == ("yearmonthdate", "%d %b")


def test_attempts_show_the_whole_day() -> None:
    """All 24 hours have their column, hours without an attempt too; more days make it taller."""

    def row(day: int) -> dict[str, Any]:
        counts = {"hour": 13, "attempts": 4, "calls": 4, "connected": 1}
        return {"day": date(2026, 3, day), **counts}

    few = describe(build_panels(attempts=[row(1)])["attempts"])
    many = describe(build_panels(attempts=[row(day) for day in range(1, 31)])["attempts"])
    assert few["encoding"]["x"]["scale"]["domain"] == list(range(24))
    assert many["height"] > few["height"]


@pytest.mark.parametrize("cells", [[7], [7, 7, 7]])
def test_attempts_of_one_value_are_readable(cells: list[int]) -> None:
    """A single cell, or cells that are alike: the scale begins at 0, and the value is in it."""
    rows = [
        {"day": date(2026, 3, day), "hour": 13, "attempts": attempts, "calls": 0, "connected": 0}
        for day, attempts in enumerate(cells, 1)
    ]
    spec = describe(build_panels(attempts=rows)["attempts"])
    assert spec["encoding"]["color"]["scale"]["domain"] == [0, 7]
    (shown,) = spec["datasets"].values()
    assert {row["calls_connected"] for row in shown} == {"–"}, "without a call there is no rate"
    # The palest colour, which is the largest value's, is hardly seen on white.
    assert spec["mark"]["stroke"]


def test_lag_has_its_threshold() -> None:
    """The line above which the lag is a problem is drawn and labelled, in minutes."""
    rows = [{"hour": _START, "campaign_id": id_, "lag_s": 120} for id_ in ("C2", "C1")]
    spec = describe(build_panels(lag=rows)["lag"])
    drawn = [row for dataset in spec["datasets"].values() for row in dataset]
    assert {"limit_min": 60, "label": "a problem above 60 min"} in drawn
    assert {row["lag_min"] for row in drawn if "lag_min" in row} == {2.0}
    colours = spec["layer"][0]["encoding"]["color"]["scale"]
    # A campaign keeps its colour from one refresh to the next.
    assert colours["domain"] == ["C1", "C2"]


def test_opt_out_latency_has_its_threshold() -> None:
    """An opt-out is to be confirmed within 15 minutes."""
    rows = [{"day": date(2026, 3, 1), "campaign_id": "C1", "p95_s": 90}]
    spec = describe(build_panels(opt_outs=rows)["opt_outs"])
    drawn = [row for dataset in spec["datasets"].values() for row in dataset]
    assert {"limit_min": 15, "label": "a problem above 15 min"} in drawn


def test_the_worst_opt_outs_are_drawn() -> None:
    """How long more than a week was is not known; without a value Vega draws nothing."""
    rows = [
        {"day": date(2026, 3, day), "campaign_id": "C1", "p95_s": p95_s}
        for day, p95_s in ((1, 90.0), (2, math.inf))
    ]
    spec = describe(build_panels(opt_outs=rows)["opt_outs"])
    drawn = [row for rows in spec["datasets"].values() for row in rows if "p95_min" in row]
    assert [(row["p95_min"], row["text"]) for row in drawn] == [
        (1.5, "1.5"),
        (10_080, "more than 10,080"),
    ]
