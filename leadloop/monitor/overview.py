"""The top of the page: the headline, the problems with their commands, the key metrics."""

from datetime import UTC
from typing import Any, Literal

import streamlit as st

from db.monitor import Rows, StatusSnapshot
from db.schema import UPGRADE_INCOMPLETE
from leadloop.core.escaping import escape_markdown
from leadloop.core.plurals import format_count
from leadloop.monitor.headline import choose_headline, format_rough_duration

_MAX_EXPANDED = 6
#: The most problems that are drawn.
_MAX_DRAWN = 100
_BOXES = {
    "critical": (st.error, ":material/error:"),
    "warning": (st.warning, ":material/warning:"),
    "stale": (st.warning, ":material/hourglass_disabled:"),
    "empty": (st.info, ":material/inbox:"),
    "ok": (st.success, ":material/check_circle:"),
}
_BADGES = {"critical": (":material/error:", "red"), "warning": (":material/warning:", "orange")}


def show_upgrade(status: StatusSnapshot) -> None:
    """Show that rows from before an upgrade of the schema are not counted yet, if so."""
    if not status.upgrade_complete:
        st.warning(f"{UPGRADE_INCOMPLETE}.", icon=":material/warning:")


def show_headline(status: StatusSnapshot, *, is_stale: bool) -> None:
    """Show the overall state in a coloured box, with its advice and command if there are any."""
    headline = choose_headline(status, is_stale=is_stale)
    box, icon = _BOXES[headline.level]
    box(f"**{headline.text}**" + (f": {headline.advice}" if headline.advice else ""), icon=icon)
    if headline.command:
        st.code(headline.command, language=None, wrap_lines=True)


def show_freshness(status: StatusSnapshot, hidden: int) -> None:
    """Show the time of the data, the latest run, and how many problems the filter hides."""
    sentences = [f"As of {status.taken_at.astimezone(UTC):%d %b %Y, %H:%M:%S} UTC."]
    if status.newest_run is not None:
        age = format_rough_duration(
            (status.taken_at - status.newest_run["started_at"]).total_seconds()
        )
        campaign = status.newest_run["campaign_id"] or "every campaign"
        run = f"{status.newest_run['flow']} of {campaign}"
        sentences.append(f"Latest run: {escape_markdown(run)}, {age} ago.")
    if hidden:
        sentences.append(f"**Not shown: {format_count(hidden, 'problem')} of other campaigns.**")
    st.caption(" ".join(sentences))


def show_problems(problems: Rows) -> None:
    """Show the problems, most severe first, each with the command that resolves it.

    Of very many, show the first ones.
    """
    if not problems:
        return
    with st.container(border=True, gap="small"):
        for problem in problems[:_MAX_EXPANDED]:
            _show_problem(problem)
        if rest := problems[_MAX_EXPANDED:]:
            with st.expander(f"and {len(rest):,} more"):
                for problem in problems[_MAX_EXPANDED:_MAX_DRAWN]:
                    _show_problem(problem)
                if len(problems) > _MAX_DRAWN:
                    st.caption(f"The first {_MAX_DRAWN}; the CSV has all {len(problems):,}.")


def _show_problem(problem: dict[str, Any]) -> None:
    icon, colour = _BADGES[problem["severity"]]
    campaign, text = (escape_markdown(problem[column]) for column in ("campaign_id", "said"))
    since = problem["since"]
    when = f"since {since.astimezone(UTC):%d %b %H:%M} UTC" if since else ""
    left, right = st.columns([3, 2], vertical_alignment="center", gap="small")
    left.markdown(
        f":{colour}-badge[{icon} {problem['severity']}] **{campaign}**: {text} :small[{when}]"
    )
    right.code(problem["command"], language=None, wrap_lines=True)


def show_metrics(status: StatusSnapshot) -> None:
    """Show the current figures, summed over the selected campaigns."""
    campaigns = status.campaigns
    with st.container(horizontal=True):
        for label, column in (
            ("New", "new"),
            ("In doubt", "in_doubt"),
            ("Created", "created"),
            ("With outcome", "processed"),
            ("Rejected", "rejected"),
        ):
            _show_metric(label, f"{sum(row[column] for row in campaigns):,}")
        failed = sum(row["disable_failed"] for row in campaigns)
        pending = sum(row["disable_pending"] for row in campaigns) + failed
        oldest = _longest_duration(campaigns, "disable_oldest_s")
        _show_metric("Opt-outs open", f"{pending:,}", oldest and f"oldest: {oldest}")
        note = "may still be called" if failed else None
        _show_metric("Opt-outs failed", f"{failed:,}", note, note_color="red")
        # A disabled campaign is polled only on demand, so its lag is expected.
        enabled = [row for row in campaigns if row["enabled"]]
        lag = _longest_duration(enabled, "watermark_lag_s")
        owed = sum(row["owed"] for row in campaigns)
        held = f"owed: {format_count(owed, 'window')}" if owed else None
        _show_metric("Watermark lag", lag or "no poll yet", held)
        # A rate limit is an account's, shared by all of its campaigns.
        budgets = [row for row in status.budgets if row["slots"]] or status.budgets[:1]
        for row in budgets:
            share = f"{row['taken'] / row['slots']:.0%}" if row["slots"] else "none yet"
            pause_s = row["paused_s"]
            paused = f"vendor pause: {format_rough_duration(pause_s)}" if pause_s else None
            whose = f" ({row['account']})" if len(budgets) > 1 else ""
            _show_metric(f"Rate limit in use{whose}", share, paused)


def _show_metric(
    label: str, value: str, note: str | None = None, *, note_color: Literal["off", "red"] = "off"
) -> None:
    st.metric(
        label,
        value,
        note,
        border=True,
        height="stretch",
        delta_color=note_color,
        delta_arrow="off",
    )


def _longest_duration(campaigns: Rows, column: str) -> str | None:
    seconds = [row[column] for row in campaigns if row[column] is not None]
    return format_rough_duration(max(seconds)) if seconds else None
