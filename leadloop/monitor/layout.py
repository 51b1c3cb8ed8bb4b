"""The layout of the page: errors, overview, filters and sections, refreshed in place."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import pandas as pd
import streamlit as st

from db.database import DatabaseError
from db.monitor import StatusSnapshot, ViewsUnavailable
from leadloop.core.errors import LeadloopError
from leadloop.core.escaping import escape_markdown
from leadloop.monitor import data
from leadloop.monitor.csv_download import show_csv_button
from leadloop.monitor.headline import format_rough_duration
from leadloop.monitor.overview import (
    show_freshness,
    show_headline,
    show_metrics,
    show_problems,
    show_upgrade,
)
from leadloop.monitor.sections import (
    show_campaigns,
    show_charts,
    show_latencies,
    show_rejections,
    show_runs,
)
from leadloop.monitor.throttled_cache import PageBusy

T = TypeVar("T")

# Inlined: Streamlit would fetch its default icon from another host.
_ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
_PERIODS = {"24 hours": 1, "7 days": 7, "30 days": 30, "all": None}
_DEFAULT_PERIOD = "7 days"
# Streamlit reserves a strip for its menu; the title fits beside the menu.
_STYLE = """<style>
    .stMainBlockContainer { padding-top: 0.6rem }
    .stAppHeader { background: none }
</style>"""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The viewer's selection; an empty `campaign_ids` selects all, `days` None everything."""

    campaign_ids: tuple[str, ...]
    days: int | None
    as_tables: bool


@dataclass(frozen=True, kw_only=True)
class LoadedData(Generic[T]):
    """A value from the database; stale if the latest refresh failed."""

    value: T
    is_stale: bool


def show_page() -> None:
    """Show the page, and refresh it for as long as a browser has it open."""
    st.set_page_config(page_title="leadloop", page_icon=_ICON, layout="wide")
    st.html(_STYLE)
    st.title("leadloop", anchor=False)
    st.fragment(_show_body, run_every=data.get_config().refresh_s)()


def _show_body() -> None:
    # An error has its own container, so that the rest keeps its place when it comes and goes.
    error_box, overview_box, filter_box = st.container(), st.container(), st.container()
    with error_box:
        loaded = _load_or_keep("status", None, data.load_status)
    if loaded is None:
        return
    status = loaded.value
    # Drawing the filters returns the selection, which the overview above them depends on.
    with filter_box:
        filters = _show_filters(status.campaign_ids) if status.campaign_ids else None
    selected = status.for_campaigns(filters.campaign_ids if filters else ())
    with overview_box:
        show_upgrade(status)
        show_headline(selected, is_stale=loaded.is_stale)
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            show_freshness(selected, len(status.problems) - len(selected.problems))
            if selected.problems:
                show_csv_button("problems", "Problems", pd.DataFrame(selected.problems))
        show_problems(selected.problems)
        if selected.campaigns:
            show_metrics(selected)
    if filters is not None:
        _show_sections(selected, filters)


def _show_sections(status: StatusSnapshot, filters: Filters) -> None:
    show_campaigns(status.campaigns)
    show_latencies(status.latencies)
    query = (filters.campaign_ids, filters.days)
    with st.container():
        loaded = _load_or_keep("history", query, lambda: data.load_history(*query))
    if loaded is None:
        return
    history = loaded.value
    show_charts(status, history, as_tables=filters.as_tables)
    show_rejections(history["rejections"])
    show_runs(history["runs"])


def _show_filters(campaign_ids: Sequence[str]) -> Filters:
    """Show the filters and return the selection; the URL holds it, so that a link shares it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        selected = st.multiselect(
            "Campaigns",
            campaign_ids,
            key="campaign",
            placeholder="all campaigns",
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
    return Filters(campaign_ids=data.normalize_selection(selected), days=days, as_tables=as_tables)


def _load_or_keep(name: str, query: object, load: Callable[[], T]) -> LoadedData[T] | None:
    """Return what `load` returns; if it fails, show the error and return the previous value.

    Args:
        name: where the session keeps the value.
        query: the parameters of the load; a value of another query is not kept.
        load: reads the database.

    Returns:
        The value, stale if the load failed; None: it failed and there is no previous value.
    """
    kept_query, kept = st.session_state.get(name, (None, None))
    if kept_query != query:
        kept = None
    # A spinner for the first load alone: it would flicker at every refresh.
    try:
        with st.spinner("Loading data…") if kept is None else nullcontext():
            value = load()
    except ViewsUnavailable as error:
        _show_error("The database is not ready for this page", error)
    except DatabaseError as error:
        failure = "The database is unreachable" if error.disconnected else "Database query failed"
        _show_error(failure, error)
    except PageBusy as error:
        _show_error("Too many selections at once", error)
    else:
        kept = LoadedData(value=value, is_stale=False)
        st.session_state[name] = (query, kept)
        return kept
    return None if kept is None else replace(kept, is_stale=True)


def _show_error(failure: str, error: LeadloopError) -> None:
    st.error(f"**{failure}**: {escape_markdown(str(error))}", icon=":material/cloud_off:")
    st.caption(f"The page retries every {format_rough_duration(data.get_config().refresh_s)}.")
