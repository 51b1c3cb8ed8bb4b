"""The figures behind the charts."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from leadloop.monitor.chart_frames import (
    MAX_SERIES,
    STAGES,
    build_attempts_frame,
    build_funnel_frame,
    build_lag_frame,
    build_opt_outs_frame,
    build_outcomes_frame,
    build_requests_frame,
)

_START = datetime(2026, 3, 1, 5, tzinfo=UTC).replace(tzinfo=None)


def test_no_rows() -> None:
    """Without figures every frame is empty, so that the page shows a text instead of a chart."""
    for build in (
        build_attempts_frame,
        build_funnel_frame,
        build_lag_frame,
        build_opt_outs_frame,
        build_outcomes_frame,
        build_requests_frame,
    ):
        assert build([]).empty, build.__name__


def test_funnel_shares() -> None:
    """Shares are of all leads; a lead with an outcome counts as created, and once in the total."""
    campaign = {**dict.fromkeys(STAGES, 0), "new": 1, "created": 3, "processed": 2}
    frame = build_funnel_frame([campaign, campaign]).set_index("stage")
    assert dict(frame["leads"]) == {
        **dict.fromkeys(STAGES.values(), 0),
        "New": 2,
        "Created": 6,
        "With outcome": 4,
    }
    assert frame["share"]["Created"] == 0.75


def outcome(name: str, leads: int, after: timedelta) -> dict[str, Any]:
    """Return a row of the view."""
    return {"hour": _START + after, "outcome": name, "leads": leads, "cost": 0.5}


def test_rare_outcomes_are_grouped() -> None:
    """More outcomes than colours: the rarest become one."""
    rows = [outcome(f"o{number}", 9 - number, timedelta()) for number in range(MAX_SERIES + 2)]
    frame = build_outcomes_frame(rows).set_index("outcome")
    assert len(frame) == MAX_SERIES + 1
    assert frame["leads"]["(others)"] == 3 + 2
    assert frame["cost"]["(others)"] == 1.0


def test_long_periods_are_grouped_by_day() -> None:
    """Hours stay apart within two days; beyond, a bar is a day."""
    short = [outcome("o", 1, timedelta(hours=hours)) for hours in (0, 1)]
    assert list(build_outcomes_frame(short)["leads"]) == [1, 1]
    long = [*short, outcome("o", 1, timedelta(days=2))]
    assert list(build_outcomes_frame(long)["leads"]) == [2, 1]


def test_connect_rate_needs_calls() -> None:
    """An hour with emails alone has no connect rate."""
    day = {"day": date(2026, 3, 1), "attempts": 4}
    frame = build_attempts_frame(
        [
            {**day, "hour": 1, "calls": 4, "connected": 1},
            {**day, "hour": 2, "calls": 0, "connected": 0},
        ]
    )
    assert frame["connect_rate"][0] == 0.25
    assert frame["connect_rate"].isna()[1]


def test_many_campaigns_show_the_slowest() -> None:
    """More campaigns than colours: one line, the maximum of each hour, in minutes."""
    few = [{"hour": _START, "campaign_id": f"C-{n}", "lag_s": 60 * n} for n in range(MAX_SERIES)]
    assert len(build_lag_frame(few)) == MAX_SERIES
    frame = build_lag_frame([*few, {"hour": _START, "campaign_id": "C-9", "lag_s": 600}])
    assert frame.to_dict("records") == [
        {"hour": _START, "lag_min": 10.0, "campaign_id": "the slowest campaign"}
    ]
