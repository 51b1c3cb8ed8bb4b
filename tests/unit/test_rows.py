"""Results as rows: what tells them apart does not hang on how much of them is read."""

from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.window_reader import parse_key, parse_row

_ODD = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_TIMES = st.integers(1_600_000_000_000, 1_800_000_000_000) | st.datetimes().map(datetime.isoformat)
_CALLS = st.lists(st.dictionaries(st.just("reference_id"), _ODD), max_size=2)
_RESULTS = st.fixed_dictionaries(
    {"lead_id": st.just("lead-1") | st.just("x" * 2000) | _ODD, "processed_at": _TIMES | _ODD},
    optional={"outcome_name": _ODD, "call_attempt_1": _CALLS},
)


@given(_RESULTS | _ODD)
def test_a_result_has_one_key_however_much_of_it_is_read(result: Any) -> None:
    """Read for its key alone, any result is the same one as when its row was read."""
    assert parse_key(result).key == parse_row(result).key


def test_results_of_no_time_are_told_apart_by_what_they_say() -> None:
    """Two different ones of one lead are two, and both are kept."""
    said = [{"lead_id": "lead-1", "outcome_name": name} for name in ("yes", "no")]
    rows = [parse_row(result) for result in said]
    assert len({found.key for found in rows}) == 2
    assert [found.unreadable and found.unreadable[1] for found in rows] == said
