import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.late_outcomes import LateOutcomes, format_lookback_warning

_LATE = st.builds(LateOutcomes, count=st.integers(0, 9), needed_lookback_s=st.floats(0, 1e6))


@given(_LATE, _LATE)
def test_of_two_the_worse_is_what_is_needed(one: LateOutcomes, other: LateOutcomes) -> None:
    """Counts add up; one lookback has to do for all."""
    both = one + other
    assert both.count == one.count + other.count
    assert both.needed_lookback_s == max(one.needed_lookback_s, other.needed_lookback_s)


@given(_LATE, st.integers(0, 10**6))
def test_what_is_suggested_needs_no_further_warning(
    lateness: LateOutcomes, lookback_s: int
) -> None:
    """Whoever sets what the warning says has heard it for the last time."""
    assert format_lookback_warning(lateness, lookback_s=lateness.suggested_lookback_s) is None
    if lateness.count and lateness.needed_lookback_s > lookback_s:
        assert str(lateness.suggested_lookback_s) in (
            format_lookback_warning(lateness, lookback_s=lookback_s) or ""
        )


@pytest.mark.parametrize(
    ("needed_s", "words"),
    [(100.0, None), (800.0, "was barely long enough"), (900.5, "is too short")],
)
def test_a_lookback_that_will_do_is_not_spoken_of(needed_s: float, words: str | None) -> None:
    """One that just sufficed is: the next outcome may come a little later."""
    said = format_lookback_warning(
        LateOutcomes(count=1, needed_lookback_s=needed_s), lookback_s=900
    )
    assert (said is None) if words is None else (words in (said or ""))
