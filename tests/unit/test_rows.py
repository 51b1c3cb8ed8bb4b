"""Results as rows: what tells them apart does not hang on how much of them is read."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.reading import key_alone, row

_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_RESULTS = _SCALARS | st.fixed_dictionaries(
    {},
    optional={
        "lead_id": _SCALARS | st.just("x" * 2000),
        "processed_at": _SCALARS | st.integers(1_600_000_000_000, 1_800_000_000_000),
        "outcome_name": _SCALARS,
        "call_attempt_1": st.lists(st.dictionaries(st.just("reference_id"), _SCALARS), max_size=2),
    },
)


@given(_RESULTS)
def test_a_window_is_proven_by_the_keys_of_its_rows(result: Any) -> None:
    """Read for its key alone, any result is the same one as when its row was read."""
    assert key_alone(result).key == row(result).key
