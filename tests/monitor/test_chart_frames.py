"""The figures behind the charts."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from db import counts
from db.database import Database
from db.monitor import read_history
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
from tests import factories, sql

_START = datetime(2026, 3, 1, 5, tzinfo=UTC).replace(tzinfo=None)
# Opt-outs are charted for the last days only.
_DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
_DAY -= timedelta(days=10)


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


def test_many_campaigns_show_the_slowest(database: Database) -> None:
    """More campaigns than colours: one line, the maximum of each hour, in minutes."""

    def build_frame(*selected: str) -> pd.DataFrame:
        return build_lag_frame(read_history(database, selected, None)["lag"])

    for number in range(MAX_SERIES):
        add_window(database, f"C-{number}", lag_s=60 * number)
    assert len(build_frame()) == MAX_SERIES
    add_window(database, "C-9", lag_s=600)
    slowest = {"hour": _START, "lag_min": 10.0, "campaign_id": "the slowest campaign"}
    assert build_frame().to_dict("records") == [slowest]
    assert len(build_frame("C-0", "C-9")) == 2
    many = [f"C-{number}" for number in (*range(MAX_SERIES), 9)]
    add_window(database, "C-8", lag_s=900)
    assert build_frame(*many).to_dict("records") == [slowest]
    assert build_frame().to_dict("records") == [{**slowest, "lag_min": 15.0}]


def add_window(database: Database, campaign: str, *, lag_s: int) -> None:
    """Add a campaign with two polls of one hour, of which one is a backfill of long ago."""
    factories.add_campaign(database, campaign)
    sql.execute(
        database,
        """INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before,
                  closed_through, range_after, status, claimed_count, stored_count, pages,
                  polled_at)
           SELECT :campaign, 1, through, through, through, range_after, 'closed', 0, 0, 1, :at
             FROM (VALUES (CAST(:at AS timestamptz) - make_interval(secs => :lag), NULL),
                          (CAST('-infinity' AS timestamptz), CAST('-infinity' AS timestamptz)))
                  AS read (through, range_after)""",
        campaign=campaign,
        lag=lag_s,
        at=_START.replace(minute=30, tzinfo=UTC),
    )


def test_many_campaigns_show_the_slowest_opt_outs(database: Database) -> None:
    """The campaign with the greatest percentile: one slow opt-out in thirty does not count."""

    def build_frame(*selected: str) -> pd.DataFrame:
        return build_opt_outs_frame(read_history(database, selected, None)["opt_outs"])

    campaigns = [f"C-{number}" for number in range(MAX_SERIES + 1)]
    for campaign, quick, slow_s in zip(
        campaigns, (10, 30, 10, 10, 10, 10, 0), (200, 9000, 500, 25, 25, 25, 25), strict=True
    ):
        add_opt_outs(database, campaign, *[25] * quick, slow_s)
    slowest = {"day": _DAY, "campaign_id": "the slowest campaign", "p95_min": 15.0}
    for is_folded in (False, True):
        if is_folded:
            counts.fold_all_counts(database)
        assert build_frame().to_dict("records") == [slowest]
        assert build_frame(*campaigns).to_dict("records") == [slowest]
        few = build_frame("C-1", "C-2").to_dict("records")
        assert [(row["campaign_id"], row["p95_min"]) for row in few] == [("C-1", 0.5), ("C-2", 15)]
    # Changes that are not folded: the slowest campaign loses its slow opt-out.
    sql.execute(
        database,
        """DELETE FROM leadloop.disable_requests WHERE campaign_id = 'C-2'
              AND confirmed_at > requested_at + interval '1 minute'""",
    )
    assert build_frame().to_dict("records") == [{**slowest, "p95_min": 5.0}]
    add_opt_outs(database, "C-7", 3000)
    assert build_frame().to_dict("records") == [{**slowest, "p95_min": 60.0}]


def add_opt_outs(database: Database, campaign: str, *seconds: int) -> None:
    """Add a campaign with opt-outs of one day that took these seconds to be confirmed."""
    factories.add_campaign(database, campaign)
    sql.execute(
        database,
        """INSERT INTO leadloop.disable_requests
                  (campaign_id, lead_id, status, requested_at, confirmed_at)
           SELECT :campaign, number, 'disabled', :at, :at + make_interval(secs => seconds)
             FROM unnest(CAST(:seconds AS integer[])) WITH ORDINALITY AS each (seconds, number)""",
        campaign=campaign,
        seconds=list(seconds),
        at=_DAY.replace(hour=5, tzinfo=UTC),
    )
