"""The screen: is it healthy, what is stuck and what to do about it; then the pictures."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import streamlit as st

from db.database import DatabaseError
from db.monitor import NotReadable, Seen
from leadloop.monitor import given
from leadloop.monitor.health import show_figures, show_headline, show_problems
from leadloop.monitor.judged import duration
from leadloop.monitor.markdown import plain
from leadloop.monitor.panels import show_campaigns, show_pictures, show_rejections, show_runs

# In the page itself: Streamlit fetches its own icons from elsewhere.
_ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
_PERIODS = {"24 hours": 1, "7 days": 7, "30 days": 30, "all": None}
_DEFAULT_PERIOD = "7 days"
#: Viewers who look within so many seconds share one look.
_SHARED_FOR_S = 5


def show() -> None:
    """Draw the page, and again and again while somebody looks at it."""
    st.set_page_config(page_title="leadloop", page_icon=_ICON, layout="wide")
    st.title("leadloop", anchor=False)
    st.fragment(_screen, run_every=given.given().refresh_s)()


def _screen() -> None:
    try:
        seen = _seen()
    except NotReadable as error:
        _trouble("The database is not ready for this page", str(error))
    except DatabaseError as error:
        away = "unreachable" if error.disconnected else "no help"
        _trouble(f"The database is {away}", str(error))
    else:
        _draw(seen)


def _seen() -> Seen:
    """What the views say of the campaigns and the period that are chosen."""
    ids = tuple(st.session_state.get("campaign") or ())
    period = st.session_state.get("period") or _DEFAULT_PERIOD
    # A spinner for what somebody waits for, and none that flickers at every refresh.
    if st.session_state.get("shown") == (ids, period):
        return _look(ids, _PERIODS[period])
    with st.spinner("Loading: reading the books …"):
        seen = _look(ids, _PERIODS[period])
    st.session_state["shown"] = (ids, period)
    return seen


@st.cache_data(ttl=_SHARED_FOR_S, max_entries=50, show_spinner=False)
def _look(campaign_ids: tuple[str, ...], days: int | None) -> Seen:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return given.look(campaign_ids, None if days is None else hour - timedelta(days=days))


def _trouble(said: str, why: str) -> None:
    st.session_state.pop("shown", None)
    st.error(f"**{said}**: {plain(why)}", icon=":material/cloud_off:")
    st.caption(f"The page looks again every {duration(given.given().refresh_s)}.")


def _draw(seen: Seen) -> None:
    show_headline(seen)
    st.caption(_freshness(seen))
    show_problems(seen.tables["problems"])
    if not seen.campaign_ids:
        return
    show_figures(seen)
    _filters(seen)
    show_campaigns(seen)
    show_pictures(seen, as_tables=bool(st.session_state.get("tables")))
    show_rejections(seen)
    show_runs(seen)


def _freshness(seen: Seen) -> str:
    now = f"{seen.at.astimezone(UTC):%d %b %Y, %H:%M:%S} UTC"
    if seen.newest is None:
        return f"As of {now}. Nothing has run yet."
    age = duration((seen.at - seen.newest["started_at"]).total_seconds())
    newest = f"{seen.newest['flow']} of {seen.newest['campaign_id']}"
    return f"As of {now}. Newest run: {plain(newest)}, {age} ago."


def _filters(seen: Seen) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.multiselect(
            "Campaigns", seen.campaign_ids, key="campaign", placeholder="all of them", width=320
        )
        st.segmented_control(
            "Period", list(_PERIODS), default=_DEFAULT_PERIOD, key="period", required=True
        )
        st.toggle("Figures as tables", key="tables")
