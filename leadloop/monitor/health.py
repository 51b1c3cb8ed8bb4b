"""The first screenful: the headline, what is stuck with its commands, the figures that matter."""

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from db.monitor import Rows, StatusSnapshot
from leadloop.monitor.judged import count, duration, headline
from leadloop.monitor.markdown import plain

_FIRST = 6
_BOXES = {
    "critical": (st.error, ":material/error:"),
    "warning": (st.warning, ":material/warning:"),
    "stale": (st.warning, ":material/hourglass_disabled:"),
    "empty": (st.info, ":material/inbox:"),
    "ok": (st.success, ":material/check_circle:"),
}
_BADGES = {"critical": (":material/error:", "red"), "warning": (":material/warning:", "orange")}


def show_headline(now: StatusSnapshot, *, is_stale: bool) -> None:
    """In a word whether it is healthy."""
    line = headline(now, is_stale=is_stale)
    box, icon = _BOXES[line.level]
    box(f"**{line.said}**" + (f": {line.advice}" if line.advice else ""), icon=icon)
    if line.command:
        st.code(line.command, language=None, wrap_lines=True)


def show_freshness(now: StatusSnapshot, hidden: int) -> None:
    """Of when it is, and how many problems other campaigns have than those that are shown."""
    said = [f"As of {now.taken_at.astimezone(UTC):%d %b %Y, %H:%M:%S} UTC."]
    if now.newest_run is not None:
        age = duration((now.taken_at - now.newest_run["started_at"]).total_seconds())
        newest = f"{now.newest_run['flow']} of {now.newest_run['campaign_id']}"
        said.append(f"Newest run: {plain(newest)}, {age} ago.")
    if hidden:
        said.append(f"**Not shown: {count(hidden, 'problem')} of other campaigns.**")
    st.caption(" ".join(said))


def show_problems(problems: Rows) -> None:
    """What is stuck, the worst first, each with the command that deals with it."""
    if not problems:
        return
    with st.container(border=True, gap="small"):
        for problem in problems[:_FIRST]:
            _show_problem(problem)
        if rest := problems[_FIRST:]:
            with st.expander(f"and {len(rest)} more"):
                for problem in rest:
                    _show_problem(problem)


def _show_problem(problem: dict[str, Any]) -> None:
    icon, colour = _BADGES[problem["severity"]]
    left, right = st.columns([3, 2], vertical_alignment="center", gap="small")
    left.markdown(
        f":{colour}-badge[{icon} {problem['severity']}] **{plain(problem['campaign_id'])}**:"
        f" {plain(problem['said'])} :small[{_since(problem['since'])}]"
    )
    right.code(problem["command"], language=None, wrap_lines=True)


def _since(moment: datetime | None) -> str:
    return f"since {moment.astimezone(UTC):%d %b %H:%M} UTC" if moment else ""


def show_figures(now: StatusSnapshot) -> None:
    """What stands now, over the chosen campaigns."""
    campaigns = now.campaigns
    with st.container(horizontal=True):
        for label, column in (
            ("New", "new"),
            ("In doubt", "in_doubt"),
            ("Created", "created"),
            ("With outcome", "processed"),
            ("Rejected", "rejected"),
        ):
            _figure(label, f"{sum(row[column] for row in campaigns):,}")
        waiting = sum(row["disable_pending"] + row["disable_failed"] for row in campaigns)
        oldest = _worst(campaigns, "disable_oldest_s")
        _figure("Opt-outs waiting", f"{waiting:,}", oldest and f"oldest: {oldest}")
        # A campaign that is not enabled is polled by hand alone, and need not be up to date.
        lag = _worst([row for row in campaigns if row["enabled"]], "watermark_lag_s")
        _figure("Outcomes behind", lag or "no poll yet")
        _figure("Budget in use", *_budget(now))


def _figure(label: str, value: str, more: str | None = None) -> None:
    st.metric(
        label,
        value,
        more,
        border=True,
        height="stretch",
        delta_color="off",
        delta_arrow="off",
    )


def _worst(campaigns: Rows, column: str) -> str | None:
    seconds = [row[column] for row in campaigns if row[column] is not None]
    return duration(max(seconds)) if seconds else None


def _budget(now: StatusSnapshot) -> tuple[str, str | None]:
    """The share of the business's requests that is used at this moment, of all campaigns."""
    slots, taken, paused_s = (now.budget[name] for name in ("slots", "taken", "paused_s"))
    paused = f"vendor asks for {duration(paused_s)}" if paused_s else None
    return (f"{taken / slots:.0%}" if slots else "none yet"), paused
