"""The figures of the charts: rows of the database, aggregated into data frames.

Every function returns an empty frame if there is nothing to draw.
"""

from typing import Any

import pandas as pd

from db.monitor import MAX_LINES, Rows

#: The most lines or colours that a viewer can tell apart.
MAX_SERIES = MAX_LINES
#: A period of this many days is aggregated by day, a shorter one by hour.
_MIN_DAYS_BY_DAY = 2

#: The stages of a lead, in the order of the funnel: column and label.
STAGES = {
    "new": "New",
    "sending": "Sending",
    "in_doubt": "In doubt",
    "created": "Created",
    "processed": "With outcome",
    "rejected": "Rejected",
    "cancelled": "Cancelled",
}


def build_funnel_frame(campaigns: Rows) -> pd.DataFrame:
    """Return `stage`, `leads` and `share` of all leads, summed over the campaigns."""
    leads = {stage: sum(row[stage] for row in campaigns) for stage in STAGES}
    # A lead with an outcome is also counted as created.
    total = sum(leads.values()) - leads["processed"]
    if not total:
        return pd.DataFrame()
    return pd.DataFrame(
        {"stage": STAGES[stage], "leads": amount, "share": amount / total}
        for stage, amount in leads.items()
    )


def build_outcomes_frame(rows: Rows) -> pd.DataFrame:
    """Return `leads` and `cost` by `hour` and `outcome`; the rarest outcomes are one."""
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame(rows)
    totals = frame.groupby("outcome")["leads"].sum().sort_values(ascending=False)
    is_frequent = frame["outcome"].isin(totals.index[:MAX_SERIES])
    frame["outcome"] = frame["outcome"].where(is_frequent, "(others)")
    frame["hour"] = _round_to_days(frame["hour"])
    return frame.groupby(["hour", "outcome"])[["leads", "cost"]].sum().reset_index()


def build_attempts_frame(rows: Rows) -> pd.DataFrame:
    """Return `attempts`, `calls` and `connected` by `day` and `hour`, with the `connect_rate`."""
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["day"] = frame["day"].astype(str)
    # Only calls connect: without a call the rate is undefined.
    frame["connect_rate"] = frame["connected"] / frame["calls"].where(frame["calls"] > 0)
    return frame


def build_requests_frame(rows: Rows) -> pd.DataFrame:
    """Return `requests` by `hour` and `flow`."""
    frame = pd.DataFrame(row for row in rows if row["requests"])
    if frame.empty:
        return frame
    frame["hour"] = _round_to_days(frame["hour"])
    return frame.groupby(["hour", "flow"])[["requests"]].sum().reset_index()


def build_lag_frame(rows: Rows) -> pd.DataFrame:
    """Return the watermark lag `lag_min` by `hour` and campaign, or of the slowest campaign."""
    return _convert_to_minutes(rows, "lag_s", "lag_min")


def build_opt_outs_frame(rows: Rows) -> pd.DataFrame:
    """Return the opt-out latency `p95_min` by `day` and campaign, or of the slowest campaign."""
    frame = _convert_to_minutes(rows, "p95_s", "p95_min")
    return frame if frame.empty else frame.assign(day=pd.to_datetime(frame["day"]))


def _convert_to_minutes(rows: Rows, seconds: str, minutes: str) -> pd.DataFrame:
    """Return the rows with minutes in place of seconds; a row without a campaign: the slowest."""
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["campaign_id"] = frame["campaign_id"].fillna("the slowest campaign")
    frame[minutes] = frame[seconds].astype(float) / 60
    return frame.drop(columns=seconds)


def _round_to_days(hours: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return the hours as timestamps, rounded down to days if they span several."""
    hours = pd.to_datetime(hours)
    spans_days = (hours.max() - hours.min()).days >= _MIN_DAYS_BY_DAY
    return hours.dt.floor("D") if spans_days else hours
