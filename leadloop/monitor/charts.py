"""The charts of the page: each a frame of figures and an Altair chart of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import altair as alt
import pandas as pd

from db.monitor import MAX_CHART_DAYS, History, Rows, StatusSnapshot
from db.schema.counting import DELAY_BOUNDS_S
from leadloop.monitor.chart_frames import (
    STAGES,
    build_attempts_frame,
    build_funnel_frame,
    build_lag_frame,
    build_opt_outs_frame,
    build_outcomes_frame,
    build_requests_frame,
)
from leadloop.monitor.colours import ACCENT, GREY, OUTLINE, SERIES

AltairChart = alt.Chart | alt.LayerChart | alt.FacetChart

_HEIGHT = 250
#: A legend takes its space from the chart, so a chart with one is taller.
_LEGEND_HEIGHT = 70
# The longest opt-outs are only known to have taken longer.
_LAST_BOUND_MIN = DELAY_BOUNDS_S[-2] / 60


@dataclass(frozen=True, kw_only=True)
class ChartPanel:
    """A chart with its figures and texts.

    Args:
        name: the part of the CSV file's name.
        title: its heading.
        note: how to read it.
        frame: the figures.
        chart: a chart of the figures; None if there are none.
        empty_text: the text to show if there are none.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame
    chart: AltairChart | None
    empty_text: str


@dataclass(frozen=True, kw_only=True)
class ChartSpec:
    """The fixed part of a panel, and the functions that make its frame and its chart.

    `problem`: the problem whose threshold `draw` takes as `limit_min`, in minutes.
    """

    name: str
    title: str
    note: str
    build_frame: Callable[[Rows], pd.DataFrame]
    draw: Callable[..., AltairChart]
    problem: str | None = None
    empty_text: str = "Nothing in this period."


def build_charts(status: StatusSnapshot, history: History) -> list[ChartPanel]:
    """Return all chart panels, in the order of the page."""
    rows = {**history, "funnel": status.campaigns}
    panels = []
    for spec in _SPECS:
        frame = spec.build_frame(rows[spec.name])
        limits = {}
        if spec.problem is not None:
            limits["limit_min"] = int(status.thresholds[spec.problem].total_seconds() / 60)
        panels.append(
            ChartPanel(
                name=spec.name,
                title=spec.title,
                note=spec.note,
                frame=frame,
                chart=None if frame.empty else spec.draw(frame, **limits),
                empty_text=spec.empty_text,
            )
        )
    return panels


def _draw_funnel(frame: pd.DataFrame) -> AltairChart:
    pairs = zip(frame["leads"], frame["share"], strict=True)
    labels = [f"{leads:,}  ({share:.0%})" for leads, share in pairs]
    bars = alt.Chart(frame.assign(label=labels)).encode(
        y=alt.Y("stage:N", sort=list(STAGES.values()), title=None),
        tooltip=[
            "stage:N",
            alt.Tooltip("leads:Q", format=","),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    # The longest bar leaves space for its label.
    x = alt.X("leads:Q", axis=None, scale=alt.Scale(domain=[0, int(frame["leads"].max()) * 1.45]))
    return alt.layer(
        bars.mark_bar(color=ACCENT, cornerRadiusEnd=3).encode(x=x),
        bars.mark_text(align="left", dx=6, color=GREY, fontWeight="bold").encode(
            x=x, text="label:N"
        ),
    ).properties(height=_HEIGHT)


def _draw_stacked_bars(frame: pd.DataFrame, *, part: str, amount: str) -> AltairChart:
    order = list(frame.groupby(part)[amount].sum().sort_values(ascending=False).index)
    by_day = bool((frame["hour"] == frame["hour"].dt.floor("D")).all())
    unit = "yearmonthdate" if by_day else "yearmonthdatehours"
    chart: alt.Chart = (
        alt.Chart(frame)
        # The outline separates the parts for viewers who cannot tell the colours apart.
        .mark_bar(stroke=OUTLINE, strokeWidth=0.6)
        .encode(
            x=alt.X(
                f"{unit}(hour):T",
                title="UTC",
                axis=alt.Axis(format="%d %b" if by_day else "%H:%M", labelOverlap=True),
            ),
            y=alt.Y(f"{amount}:Q", title=amount),
            color=_colour_by(part, order),
            order=alt.Order("rank:Q"),
            tooltip=[
                alt.Tooltip("hour:T", title="from", format="%d %b %H:%M"),
                f"{part}:N",
                alt.Tooltip(f"{amount}:Q", format=","),
            ],
        )
        .transform_calculate(rank=f"indexof({order!r}, datum.{part})")
        .properties(height=_HEIGHT + _LEGEND_HEIGHT)
    )
    return chart


def _draw_attempts(frame: pd.DataFrame) -> AltairChart:
    # From 0: with a single value, or the same one everywhere, the scale would have no extent.
    scale = alt.Scale(scheme="cividis", domain=[0, int(frame["attempts"].max())])
    # As text: Vega would write the rate of an hour without calls as 0 %.
    connected = ["–" if pd.isna(rate) else f"{rate:.0%}" for rate in frame["connect_rate"]]
    chart: alt.Chart = (
        alt.Chart(frame.assign(calls_connected=connected))
        # The outline shows the palest cells on white.
        .mark_rect(cornerRadius=2, stroke=OUTLINE, strokeWidth=0.6)
        .encode(
            x=alt.X(
                "hour:O",
                title="hour, UTC",
                scale=alt.Scale(domain=list(range(24))),
                axis=alt.Axis(labelAngle=0, values=list(range(0, 24, 3))),
            ),
            y=alt.Y("day:O", title=None, sort="descending"),
            color=alt.Color(
                "attempts:Q",
                scale=scale,
                legend=alt.Legend(title="attempts", format=",d", tickMinStep=1),
            ),
            tooltip=[
                "day:O",
                "hour:O",
                alt.Tooltip("attempts:Q", format=","),
                alt.Tooltip("calls_connected:N", title="calls connected"),
            ],
        )
        .properties(height=max(_HEIGHT, 18 * frame["day"].nunique() + 60))
    )
    return chart


def _draw_lines(
    frame: pd.DataFrame, *, when: str, minutes: str, limit_min: int, time_format: str
) -> AltairChart:
    order = sorted(frame["campaign_id"].unique())
    # Vega draws no infinite value: the worst day would look like one without opt-outs.
    texts = [
        f"{each:,.1f}" if math.isfinite(each) else f"more than {_LAST_BOUND_MIN:,.0f}"
        for each in frame[minutes]
    ]
    frame = frame.assign(text=texts).replace({minutes: {math.inf: _LAST_BOUND_MIN}})
    lines = alt.Chart(frame).encode(
        x=alt.X(f"{when}:T", title="UTC", axis=alt.Axis(format=time_format, labelOverlap=True)),
        y=alt.Y(f"{minutes}:Q", title="minutes", scale=alt.Scale(domainMin=0)),
        color=_colour_by("campaign_id", order),
        shape=alt.Shape("campaign_id:N", scale=alt.Scale(domain=order), legend=None),
        tooltip=[
            alt.Tooltip(f"{when}:T", format=time_format),
            "campaign_id:N",
            alt.Tooltip("text:N", title="minutes"),
        ],
    )
    label = f"a problem above {limit_min} min"
    limit = alt.Chart(pd.DataFrame({"limit_min": [limit_min], "label": [label]}))
    return alt.layer(
        lines.mark_line(),
        lines.mark_point(filled=True, size=50, opacity=1),
        limit.mark_rule(strokeDash=[5, 4], color=GREY).encode(y="limit_min:Q"),
        limit.mark_text(align="left", dy=-7, dx=4, color=GREY).encode(
            y="limit_min:Q", x=alt.value(0), text="label:N"
        ),
    ).properties(height=_HEIGHT + _LEGEND_HEIGHT)


def _colour_by(column: str, order: list[str]) -> alt.Color:
    return alt.Color(
        f"{column}:N",
        scale=alt.Scale(domain=order, range=[SERIES[i % len(SERIES)] for i in range(len(order))]),
        legend=alt.Legend(title=None, orient="bottom", columns=2, labelLimit=160),
    )


_SPECS = (
    ChartSpec(
        name="funnel",
        title="Lead funnel",
        note="Now, independent of the period. A lead with an outcome is also counted as created.",
        build_frame=build_funnel_frame,
        draw=_draw_funnel,
        empty_text="No lead yet.",
    ),
    ChartSpec(
        name="outcomes",
        title="Outcomes over time",
        note="By the time at which the vendor processed the lead.",
        build_frame=build_outcomes_frame,
        draw=partial(_draw_stacked_bars, part="outcome", amount="leads"),
    ),
    ChartSpec(
        name="attempts",
        title="Attempts by day and hour",
        note=f"Calls, emails, SMS and IVR together, of the last {MAX_CHART_DAYS} days at most.",
        build_frame=build_attempts_frame,
        draw=_draw_attempts,
    ),
    ChartSpec(
        name="requests",
        title="API requests",
        note="Requests that count against the rate limit, by the start time of their run.",
        build_frame=build_requests_frame,
        draw=partial(_draw_stacked_bars, part="flow", amount="requests"),
    ),
    ChartSpec(
        name="lag",
        title="Watermark lag",
        note="The largest lag of the polls in each hour.",
        build_frame=build_lag_frame,
        draw=partial(
            _draw_lines,
            when="hour",
            minutes="lag_min",
            time_format="%d %b %H:%M",
        ),
        problem="poll_behind",
    ),
    ChartSpec(
        name="opt_outs",
        title="Opt-out latency",
        note="Below this, 95 % of each day, from the request to the confirmation; of the last"
        f" {MAX_CHART_DAYS} days at most.",
        build_frame=build_opt_outs_frame,
        draw=partial(_draw_lines, when="day", minutes="p95_min", time_format="%d %b"),
        problem="opt_outs_waiting",
    ),
)
