"""The sections below the overview: campaigns, charts, rejections and runs, each also as CSV."""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from db.monitor import MAX_RUNS, History, Rows, StatusSnapshot
from leadloop.monitor import data
from leadloop.monitor.charts import build_charts
from leadloop.monitor.csv_download import show_csv_button

#: The most campaigns, and latencies, that the page lists: the worst ones.
MAX_LISTED = 200
#: Most severe first: the order of the table.
_HEALTH = {"critical": "✖ critical", "warning": "▲ warning", "ok": "● ok"}
_STATES = {
    "running": "▶ running",
    "completed": "● completed",
    "failed": "✖ failed",
    "crashed": "✖ crashed",
}


def show_campaigns(campaigns: Rows) -> None:
    """Show a table of the campaigns, most severe health first; of very many, the first ones."""
    severity = list(_HEALTH).index
    rows = sorted(campaigns, key=lambda row: severity(row["health"]))
    _show_heading("Campaigns", "campaigns", pd.DataFrame(rows))
    _show_limit(len(rows))
    frame = pd.DataFrame(rows[:MAX_LISTED])
    shown = frame.assign(
        name=frame["name"].fillna(""),
        health=frame["health"].map(_HEALTH),
        enabled=frame["enabled"].map({True: "yes", False: "no"}),
    )
    _show_table(shown, _CAMPAIGNS, list(_CAMPAIGNS))


def show_latencies(latencies: Rows) -> None:
    """Show the latencies of the last hour by campaign and kind; nothing if there are none.

    Of very many, show the greatest ones, by their 99th percentile.
    """
    if not latencies:
        return
    _show_heading("Latency in the last hour", "latencies", pd.DataFrame(latencies))
    st.caption("Counted in buckets: each figure is an upper bound.")
    _show_limit(len(latencies))
    listed = latencies
    if len(latencies) > MAX_LISTED:
        listed = heapq.nlargest(
            MAX_LISTED, latencies, key=lambda row: (row["p99_s"], row["amount"])
        )
    frame = pd.DataFrame(listed)
    shown = frame.assign(**{name: frame[name].map(_format_bound) for name in _BOUNDS})
    _show_table(shown, _LATENCIES)


def _show_limit(amount: int) -> None:
    """Show that a list has more rows than the page shows, if it has."""
    if amount > MAX_LISTED:
        st.caption(
            f"The worst {MAX_LISTED} of {amount:,}; the filter above shows others, the CSV all."
        )


def _format_bound(seconds: float) -> str:
    return "> 1 h" if math.isinf(seconds) else f"{seconds:g} s"


def show_charts(status: StatusSnapshot, history: History, *, as_tables: bool) -> None:
    """Show the charts two in a row, or one on a narrow screen; as tables if asked."""
    panels = build_charts(status, history)
    for pair in zip(panels[::2], panels[1::2], strict=True):
        for column, panel in zip(st.columns(2, gap="large"), pair, strict=True):
            with column:
                _show_heading(panel.title, panel.name, panel.frame)
                st.caption(panel.note)
                if panel.chart is None:
                    st.info(panel.empty_text, icon=":material/inbox:")
                elif as_tables:
                    _show_table(panel.frame, _FIGURES)
                else:
                    st.altair_chart(panel.chart, alt=f"{panel.title}. {panel.note}")


def show_rejections(rejections: Rows) -> None:
    """Show the reasons for which leads are rejected, with counts."""
    frame = pd.DataFrame(rejections)
    if frame.empty:
        return
    _show_heading("Rejection reasons", "rejections", frame)
    _show_table(frame, _REJECTIONS)


def show_runs(runs: Rows) -> None:
    """Show the runs of the period, with links to Prefect's UI if it is known."""
    links = [data.get_config().build_run_url(run["flow_run_id"]) for run in runs]
    # A run that has not ended has none, and must not turn the others into 3.0.
    requests = pd.Series([run["requests"] for run in runs], dtype="Int64")
    frame = pd.DataFrame(runs).assign(requests=requests, prefect=pd.Series(links, dtype=object))
    _show_heading("Runs", "runs", frame)
    if frame.empty:
        st.info("No run in this period.", icon=":material/inbox:")
        return
    if len(frame) == MAX_RUNS:
        st.caption(f"The latest {MAX_RUNS}.")
    frame["state"] = frame["state"].map(_STATES)
    frame["error"] = frame["error"].fillna("")
    frame["campaign_id"] = frame["campaign_id"].fillna("every campaign")
    shown = [name for name in _RUNS if name != "prefect" or frame["prefect"].notna().any()]
    _show_table(frame, _RUNS, shown)


def _show_table(
    frame: pd.DataFrame, columns: Mapping[str, Any], order: Sequence[str] | None = None
) -> None:
    """Show a table whose missing values are dashes: Streamlit would show the word None."""
    st.dataframe(frame, hide_index=True, column_config=columns, column_order=order, placeholder="–")


def _show_heading(title: str, name: str, frame: pd.DataFrame) -> None:
    with st.container(horizontal=True, vertical_alignment="center", wrap=False):
        st.subheader(title, anchor=False)
        if not frame.empty:
            show_csv_button(name, title, frame)


_TIME = "DD MMM HH:mm"
_CAMPAIGNS = {
    # A column of labels, since cells of text have no colour; the same one as everywhere.
    "health": st.column_config.MultiselectColumn(
        "Health", options=list(_HEALTH.values()), color=["red", "orange", "green"]
    ),
    "campaign_id": st.column_config.TextColumn("Campaign"),
    "name": st.column_config.TextColumn("Name"),
    "enabled": st.column_config.TextColumn("Enabled"),
    "new": st.column_config.NumberColumn("New", format="localized"),
    "in_doubt": st.column_config.NumberColumn("In doubt", format="localized"),
    "created": st.column_config.NumberColumn("Created", format="localized"),
    "processed": st.column_config.NumberColumn("With outcome", format="localized"),
    "rejected": st.column_config.NumberColumn("Rejected", format="localized"),
    "disabled": st.column_config.NumberColumn("Opted out", format="localized"),
    "cost": st.column_config.NumberColumn("Cost", format="accounting"),
    "last_push_at": st.column_config.DatetimeColumn("Last push", format=_TIME, timezone="UTC"),
    "last_poll_at": st.column_config.DatetimeColumn("Last poll", format=_TIME, timezone="UTC"),
    "last_disable_at": st.column_config.DatetimeColumn(
        "Last disable", format=_TIME, timezone="UTC"
    ),
}
#: The columns of all charts' frames; each frame has some of them.
_FIGURES = {
    "stage": st.column_config.TextColumn("Stage"),
    "campaign_id": st.column_config.TextColumn("Campaign"),
    "outcome": st.column_config.TextColumn("Outcome"),
    "flow": st.column_config.TextColumn("Flow"),
    "day": st.column_config.Column("Day (UTC)"),
    "hour": st.column_config.Column("From (UTC)"),
    "leads": st.column_config.NumberColumn("Leads", format="localized"),
    "share": st.column_config.NumberColumn("Share", format="percent"),
    "cost": st.column_config.NumberColumn("Cost", format="accounting"),
    "attempts": st.column_config.NumberColumn("Attempts", format="localized"),
    "calls": st.column_config.NumberColumn("Calls", format="localized"),
    "connected": st.column_config.NumberColumn("Connected", format="localized"),
    "connect_rate": st.column_config.NumberColumn("Connect rate of calls", format="percent"),
    "requests": st.column_config.NumberColumn("Requests", format="localized"),
    "lag_min": st.column_config.NumberColumn("Lag (minutes)", format="%.1f"),
    "p95_min": st.column_config.NumberColumn("95th percentile (minutes)", format="%.1f"),
}
#: The columns of latencies that are bounds of buckets.
_BOUNDS = ("p50_s", "p99_s", "worst_s")
_LATENCIES = {
    "campaign_id": st.column_config.TextColumn("Campaign"),
    "kind": st.column_config.TextColumn("Kind"),
    "amount": st.column_config.NumberColumn("Confirmed", format="localized"),
    "p50_s": st.column_config.TextColumn("Median"),
    "p99_s": st.column_config.TextColumn("99th percentile"),
    "worst_s": st.column_config.TextColumn("Maximum"),
}
_REJECTIONS = {
    "campaign_id": st.column_config.TextColumn("Campaign"),
    "reason": st.column_config.TextColumn("Reason", width="large"),
    "leads": st.column_config.NumberColumn("Leads", format="localized"),
    "sample_lead_ids": st.column_config.TextColumn("Latest lead ids"),
}
_RUNS = {
    "state": st.column_config.TextColumn("State"),
    "flow": st.column_config.TextColumn("Flow"),
    "campaign_id": st.column_config.TextColumn("Campaign"),
    "started_at": st.column_config.DatetimeColumn(
        "Started (UTC)", format="DD MMM HH:mm:ss", timezone="UTC"
    ),
    "duration_s": st.column_config.NumberColumn("Seconds", format="%.1f"),
    "requests": st.column_config.NumberColumn("Requests", format="localized"),
    "prefect": st.column_config.LinkColumn("Prefect", display_text="open the run"),
    "error": st.column_config.TextColumn("Error", width="large"),
}
