"""The screen: is it healthy, what is stuck and what to do about it; then the pictures."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import pandas as pd
import streamlit as st

from db.database import DatabaseError
from db.monitor import StatusSnapshot, ViewsUnavailable
from leadloop.monitor import given
from leadloop.monitor.download import as_csv
from leadloop.monitor.health import show_figures, show_freshness, show_headline, show_problems
from leadloop.monitor.judged import duration
from leadloop.monitor.markdown import plain
from leadloop.monitor.panels import show_campaigns, show_pictures, show_rejections, show_runs

T = TypeVar("T")

# In the page itself: Streamlit fetches its own icons from elsewhere.
_ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
_PERIODS = {"24 hours": 1, "7 days": 7, "30 days": 30, "all": None}
_DEFAULT_PERIOD = "7 days"
# Streamlit leaves a strip free for its menu; there is room for the title beside that.
_STYLE = """<style>
    .stMainBlockContainer { padding-top: 0.6rem }
    .stAppHeader { background: none }
</style>"""


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """What the viewer has chosen; campaigns: none is all of them; days: None is ever."""

    campaign_ids: tuple[str, ...]
    days: int | None
    as_tables: bool


@dataclass(frozen=True, kw_only=True)
class _Seen(Generic[T]):
    """What a look saw; stale: it could not be renewed."""

    what: T
    is_stale: bool


def show() -> None:
    """Draw the page, and again and again while somebody looks at it."""
    st.set_page_config(page_title="leadloop", page_icon=_ICON, layout="wide")
    st.html(_STYLE)
    st.title("leadloop", anchor=False)
    st.fragment(_screen, run_every=given.given().refresh_s)()


def _screen() -> None:
    # Trouble has a place of its own, so that nothing moves when it comes or goes.
    trouble, health, filters = st.container(), st.container(), st.container()
    with trouble:
        seen = _seen("standing", None, given.standing)
    if seen is None:
        return
    now = seen.what
    # What is chosen is there once it is drawn, and decides what is shown above it.
    with filters:
        chosen = _choose(now.campaign_ids) if now.campaign_ids else None
    with health:
        _show_health(now, chosen.campaign_ids if chosen else (), is_stale=seen.is_stale)
    if chosen is not None:
        _show_rest(now.for_campaigns(chosen.campaign_ids), chosen)


def _show_health(now: StatusSnapshot, campaign_ids: Sequence[str], *, is_stale: bool) -> None:
    shown = now.for_campaigns(campaign_ids)
    show_headline(shown, is_stale=is_stale)
    with st.container(horizontal=True, vertical_alignment="center", wrap=False):
        show_freshness(shown, len(now.problems) - len(shown.problems))
        if shown.problems:
            as_csv("problems", "Problems", pd.DataFrame(shown.problems))
    show_problems(shown.problems)
    if shown.campaigns:
        show_figures(shown)


def _show_rest(now: StatusSnapshot, chosen: _Chosen) -> None:
    show_campaigns(now.campaigns)
    asked = (chosen.campaign_ids, chosen.days)
    with st.container():
        seen = _seen("past", asked, lambda: given.past(*asked))
    if seen is None:
        return
    past = seen.what
    show_pictures(now, past, as_tables=chosen.as_tables)
    show_rejections(past["rejections"])
    show_runs(past["runs"])


def _choose(campaign_ids: Sequence[str]) -> _Chosen:
    """Let the viewer choose; the page's address holds it, for whoever it is sent to."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Campaigns",
            campaign_ids,
            key="campaign",
            placeholder="all of them",
            width=320,
            bind="query-params",
        )
        period = st.segmented_control(
            "Period",
            list(_PERIODS),
            default=_DEFAULT_PERIOD,
            key="period",
            required=True,
            bind="query-params",
        )
        as_tables = st.toggle("Figures as tables", key="tables", bind="query-params")
    days = _PERIODS[period or _DEFAULT_PERIOD]
    return _Chosen(campaign_ids=tuple(chosen), days=days, as_tables=as_tables)


def _seen(what: str, asked: object, look: Callable[[], T]) -> _Seen[T] | None:
    """What a look sees; where it fails, which is then shown, what the last one saw, or None."""
    asked_before, kept = st.session_state.get(what, (None, None))
    if asked_before != (asked,):
        kept = None
    # A spinner for what somebody waits for, and none that flickers at every refresh.
    try:
        with st.spinner("Loading: reading the books …") if kept is None else nullcontext():
            seen = look()
    except ViewsUnavailable as error:
        _trouble("The database is not ready for this page", str(error))
    except DatabaseError as error:
        away = "unreachable" if error.disconnected else "no help"
        _trouble(f"The database is {away}", str(error))
    else:
        kept = _Seen(what=seen, is_stale=False)
        st.session_state[what] = ((asked,), kept)
        return kept
    return None if kept is None else replace(kept, is_stale=True)


def _trouble(said: str, why: str) -> None:
    st.error(f"**{said}**: {plain(why)}", icon=":material/cloud_off:")
    st.caption(f"The page looks again every {duration(given.given().refresh_s)}.")
