import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.late_outcomes import Lateness, warning

_LATE = st.builds(Lateness, late=st.integers(0, 9), needed_s=st.floats(0, 1e6))


@given(_LATE, _LATE)
def test_of_two_the_worse_is_what_is_needed(one: Lateness, other: Lateness) -> None:
    """Counts add up; one lookback has to do for all."""
    both = one + other
    assert both.late == one.late + other.late
    assert both.needed_s == max(one.needed_s, other.needed_s)


@given(_LATE, st.integers(0, 10**6))
def test_what_is_suggested_needs_no_further_warning(lateness: Lateness, lookback_s: int) -> None:
    """Whoever sets what the warning says has heard it for the last time."""
    assert warning(lateness, lookback_s=lateness.suggested_s) is None
    if lateness.late and lateness.needed_s > lookback_s:
        assert str(lateness.suggested_s) in (warning(lateness, lookback_s=lookback_s) or "")


@pytest.mark.parametrize(
    ("needed_s", "words"),
    [(100.0, None), (800.0, "was only just long enough"), (900.5, "is too short")],
)
def test_a_lookback_that_will_do_is_not_spoken_of(needed_s: float, words: str | None) -> None:
    """One that just sufficed is: the next outcome may come a little later."""
    said = warning(Lateness(late=1, needed_s=needed_s), lookback_s=900)
    assert (said is None) if words is None else (words in (said or ""))
