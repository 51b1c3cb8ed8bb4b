"""Results of a window as lines for COPY, and their identity."""

from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.window_pages import parse_key, parse_row

_ODD = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_TIMES = st.integers(1_600_000_000_000, 1_800_000_000_000) | st.datetimes().map(datetime.isoformat)
_CALLS = st.lists(st.dictionaries(st.just("reference_id"), _ODD), max_size=2)
_RESULTS = st.fixed_dictionaries(
    {"lead_id": st.just("lead-1") | st.just("x" * 2000) | _ODD, "processed_at": _TIMES | _ODD},
    optional={"outcome_name": _ODD, "call_attempt_1": _CALLS},
)


@given(_RESULTS | _ODD)
def test_a_result_has_one_key_whether_all_of_it_is_parsed_or_not(result: Any) -> None:
    """A window is verified by keys alone: the keys must be those of its rows."""
    assert parse_key(result).key == parse_row(result).key


def test_results_without_a_time_are_told_apart_by_their_content() -> None:
    """Two different results of one lead are both kept."""
    results = [{"lead_id": "lead-1", "outcome_name": name} for name in ("yes", "no")]
    rows = [parse_row(result) for result in results]
    assert len({row.key for row in rows}) == 2
    assert [row.unreadable and row.unreadable[1] for row in rows] == results
