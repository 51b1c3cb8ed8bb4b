"""The pictures: each a question, the figures that answer it, and a chart of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from db.monitor import History, Rows, StatusSnapshot
from leadloop.monitor.colours import ACCENT, GREY, SERIES

Drawn = alt.Chart | alt.LayerChart | alt.FacetChart

_HEIGHT = 250
# A legend takes its room from the chart.
_LEGEND = 70
#: More lines or colours than this nobody tells apart.
_MOST = 6
_HOURS_UP_TO_DAYS = 2
_LAG_ALLOWED_MIN = 60
_OPT_OUT_ALLOWED_MIN = 15

_STAGES = {
    "new": "New",
    "sending": "Sending",
    "in_doubt": "In doubt",
    "created": "Created",
    "processed": "With outcome",
    "rejected": "Rejected",
    "cancelled": "Cancelled",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One of them; `chart` is None where there is nothing to draw.

    Args:
        name: for its CSV file.
        title: what it is about.
        note: how to read it.
        frame: the figures.
        chart: a chart of them.
        nothing: what to say where there is none.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    chart: Drawn | None
    nothing: str


def pictures(now: StatusSnapshot, past: History) -> list[Picture]:
    """All of them, in the order in which they are shown."""
    rows = {**past, "funnel": now.campaigns}
    return [_picture(rows[about["name"]], **about) for about in _ABOUT]


def _picture(
    rows: Rows,
    name: str,
    title: str,
    note: str,
    frame: Callable[[Rows], pd.DataFrame],
    chart: Callable[[pd.DataFrame], Drawn],
    nothing: str = "Nothing in this period.",
) -> Picture:
    figures = frame(rows)
    drawn = None if figures.empty else chart(figures)
    return Picture(name=name, title=title, note=note, frame=figures, chart=drawn, nothing=nothing)


# Figures


def _funnel(campaigns: Rows) -> pd.DataFrame:
    leads = {stage: sum(row[stage] for row in campaigns) for stage in _STAGES}
    total = sum(leads.values()) - leads["processed"]
    if not total:
        return pd.DataFrame()
    return pd.DataFrame(
        {
            "stage": _STAGES[stage],
            "leads": amount,
            "share": amount / total,
        }
        for stage, amount in leads.items()
    )


def _outcomes(rows: Rows) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame(rows)
    frame["outcome"] = _fewer(frame, "outcome", "leads")
    frame["hour"] = _coarse(frame["hour"])
    return frame.groupby(["hour", "outcome"])[["leads", "cost"]].sum().reset_index()


def _attempts(rows: Rows) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["day"] = frame["day"].astype(str)
    # Emails and the like do not connect; where nobody was called there is no rate.
    frame["connect_rate"] = frame["connected"] / frame["calls"].where(frame["calls"] > 0)
    return frame


def _requests(rows: Rows) -> pd.DataFrame:
    frame = pd.DataFrame(row for row in rows if row["requests"])
    if frame.empty:
        return frame
    frame["hour"] = _coarse(frame["hour"])
    return frame.groupby(["hour", "flow"])[["requests"]].sum().reset_index()


def _lag(rows: Rows) -> pd.DataFrame:
    frame = pd.DataFrame(row for row in rows if row["lag_s"] is not None)
    return frame if frame.empty else _minutes(frame, "hour", "lag_s", "lag_min")


def _opt_outs(rows: Rows) -> pd.DataFrame:
    frame = pd.DataFrame(row for row in rows if row["p95_s"] is not None)
    if frame.empty:
        return frame
    frame["day"] = pd.to_datetime(frame["day"])
    return _minutes(frame, "day", "p95_s", "p95_min")


def _minutes(frame: pd.DataFrame, when: str, seconds: str, minutes: str) -> pd.DataFrame:
    """A line a campaign in minutes; of many campaigns, the slowest alone."""
    frame[minutes] = frame[seconds].astype(float) / 60
    if frame["campaign_id"].nunique() <= _MOST:
        return frame[[when, "campaign_id", minutes]]
    slowest = frame.groupby(when)[[minutes]].max().reset_index()
    slowest["campaign_id"] = "the slowest campaign"
    return slowest


def _coarse(hours: "pd.Series[Any]") -> "pd.Series[Any]":
    """Hours, or days where there are many."""
    hours = pd.to_datetime(hours)
    wide = (hours.max() - hours.min()).days >= _HOURS_UP_TO_DAYS
    return hours.dt.floor("D") if wide else hours


def _fewer(frame: pd.DataFrame, column: str, amount: str) -> "pd.Series[Any]":
    """The greatest by their names, the rest as one."""
    totals = frame.groupby(column)[amount].sum().sort_values(ascending=False)
    return frame[column].where(frame[column].isin(totals.index[:_MOST]), "(others)")


# Charts


def _draw_funnel(frame: pd.DataFrame) -> Drawn:
    pairs = zip(frame["leads"], frame["share"], strict=True)
    labels = [f"{leads:,}  ({share:.0%})" for leads, share in pairs]
    bars = alt.Chart(frame.assign(label=labels)).encode(
        y=alt.Y("stage:N", sort=list(_STAGES.values()), title=None),
        tooltip=[
            "stage:N",
            alt.Tooltip("leads:Q", format=","),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    # The longest bar leaves room for its label.
    room = alt.X(
        "leads:Q", axis=None, scale=alt.Scale(domain=[0, int(frame["leads"].max()) * 1.45])
    )
    return alt.layer(
        bars.mark_bar(color=ACCENT, cornerRadiusEnd=3).encode(x=room),
        bars.mark_text(align="left", dx=6, color=GREY, fontWeight="bold").encode(
            x=room, text="label:N"
        ),
    ).properties(height=_HEIGHT)


def _draw_outcomes(frame: pd.DataFrame) -> Drawn:
    return _bars(frame, "outcome", "leads", "leads")


def _draw_requests(frame: pd.DataFrame) -> Drawn:
    return _bars(frame, "flow", "requests", "requests")


def _bars(frame: pd.DataFrame, part: str, amount: str, title: str) -> Drawn:
    order = list(frame.groupby(part)[amount].sum().sort_values(ascending=False).index)
    by_day = bool((frame["hour"] == frame["hour"].dt.floor("D")).all())
    unit = "yearmonthdate" if by_day else "yearmonthdatehours"
    chart: alt.Chart = (
        alt.Chart(frame)
        # The gap shows where a part ends to those who see no difference in colour.
        .mark_bar(stroke="#808890", strokeWidth=0.6)
        .encode(
            x=alt.X(
                f"{unit}(hour):T",
                title="UTC",
                axis=alt.Axis(format="%d %b" if by_day else "%H:%M", labelOverlap=True),
            ),
            y=alt.Y(f"{amount}:Q", title=title),
            color=_colour(part, order),
            order=alt.Order("rank:Q"),
            tooltip=[
                alt.Tooltip("hour:T", title="from", format="%d %b %H:%M"),
                f"{part}:N",
                alt.Tooltip(f"{amount}:Q", format=","),
            ],
        )
        .transform_calculate(rank=f"indexof({order!r}, datum.{part})")
        .properties(height=_HEIGHT + _LEGEND)
    )
    return chart


def _draw_attempts(frame: pd.DataFrame) -> Drawn:
    chart: alt.Chart = (
        alt.Chart(frame)
        .mark_rect(cornerRadius=2)
        .encode(
            x=alt.X(
                "hour:O",
                title="hour, UTC",
                scale=alt.Scale(domain=list(range(24))),
                axis=alt.Axis(labelAngle=0, values=list(range(0, 24, 3))),
            ),
            y=alt.Y("day:O", title=None, sort="descending"),
            color=alt.Color(
                "attempts:Q", scale=alt.Scale(scheme="cividis"), legend=alt.Legend(title="attempts")
            ),
            tooltip=[
                "day:O",
                "hour:O",
                alt.Tooltip("attempts:Q", format=","),
                alt.Tooltip("connect_rate:Q", title="calls connected", format=".0%"),
            ],
        )
        .properties(height=max(_HEIGHT, 18 * frame["day"].nunique() + 60))
    )
    return chart


def _draw_lag(frame: pd.DataFrame) -> Drawn:
    return _lines(frame, "hour", "lag_min", _LAG_ALLOWED_MIN, "%d %b %H:%M")


def _draw_opt_outs(frame: pd.DataFrame) -> Drawn:
    return _lines(frame, "day", "p95_min", _OPT_OUT_ALLOWED_MIN, "%d %b")


def _lines(frame: pd.DataFrame, when: str, minutes: str, allowed: int, time: str) -> Drawn:
    order = sorted(frame["campaign_id"].unique())
    lines = alt.Chart(frame).encode(
        x=alt.X(f"{when}:T", title="UTC", axis=alt.Axis(format=time, labelOverlap=True)),
        y=alt.Y(f"{minutes}:Q", title="minutes", scale=alt.Scale(domainMin=0)),
        color=_colour("campaign_id", order),
        shape=alt.Shape("campaign_id:N", scale=alt.Scale(domain=order), legend=None),
        tooltip=[
            alt.Tooltip(f"{when}:T", format=time),
            "campaign_id:N",
            alt.Tooltip(f"{minutes}:Q", format=".1f"),
        ],
    )
    said = f"a problem above {allowed} min"
    limit = alt.Chart(pd.DataFrame({"allowed": [allowed], "said": [said]}))
    return alt.layer(
        lines.mark_line(),
        lines.mark_point(filled=True, size=50, opacity=1),
        limit.mark_rule(strokeDash=[5, 4], color=GREY).encode(y="allowed:Q"),
        limit.mark_text(align="left", dy=-7, dx=4, color=GREY).encode(
            y="allowed:Q", x=alt.value(0), text="said:N"
        ),
    ).properties(height=_HEIGHT + _LEGEND)


def _colour(column: str, order: list[str]) -> alt.Color:
    return alt.Color(
        f"{column}:N",
        scale=alt.Scale(domain=order, range=[SERIES[i % len(SERIES)] for i in range(len(order))]),
        legend=alt.Legend(title=None, orient="bottom", columns=2, labelLimit=160),
    )


_ABOUT: tuple[Mapping[str, Any], ...] = (
    {
        "name": "funnel",
        "title": "Where the leads are",
        "note": "Now, whatever the period. A lead with an outcome is also counted as created.",
        "frame": _funnel,
        "chart": _draw_funnel,
        "nothing": "No lead yet.",
    },
    {
        "name": "outcomes",
        "title": "Outcomes over time",
        "note": "By the time at which the vendor processed the lead.",
        "frame": _outcomes,
        "chart": _draw_outcomes,
    },
    {
        "name": "attempts",
        "title": "Attempts by day and hour",
        "note": "Calls, emails, SMS and IVR together.",
        "frame": _attempts,
        "chart": _draw_attempts,
    },
    {
        "name": "requests",
        "title": "Budget used: requests",
        "note": "Requests to the vendor, by the time at which their run began.",
        "frame": _requests,
        "chart": _draw_requests,
    },
    {
        "name": "lag",
        "title": "Watermark lag",
        "note": "How far behind the polls of each hour were at most.",
        "frame": _lag,
        "chart": _draw_lag,
    },
    {
        "name": "opt_outs",
        "title": "Opt-out latency",
        "note": "From the request to the confirmation: 95 of 100 of the day's stayed within.",
        "frame": _opt_outs,
        "chart": _draw_opt_outs,
    },
)
