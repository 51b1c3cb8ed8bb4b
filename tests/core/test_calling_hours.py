"""The hours at which the vendor calls, by the clocks of a place."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from leadloop.core.calling_hours import CallingHours

#: Places with and without daylight saving time, one that moves by half an hour, one at each end.
ZONES = (
    *("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"),
    *("Pacific/Apia", "America/Adak"),
)
MINUTES = st.integers(0, 24 * 60 - 1).map(lambda minute: time(*divmod(minute, 60)))
NEW_YORK = ZoneInfo("America/New_York")


@st.composite
def moments(draw: st.DrawFn) -> datetime:
    """Draw any time of some years; often one near to a change of clocks."""
    change = draw(
        st.sampled_from(
            [
                datetime(2026, 1, 1, tzinfo=UTC),
                datetime(2026, 3, 8, 7, tzinfo=UTC),
                datetime(2026, 11, 1, 6, tzinfo=UTC),
                datetime(2026, 3, 29, 1, tzinfo=UTC),
                datetime(2026, 10, 25, 1, tzinfo=UTC),
                datetime(2026, 4, 4, 15, tzinfo=UTC),
                datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
            ]
        )
    )
    return change + draw(
        st.timedeltas(timedelta(hours=-30), timedelta(hours=30))
        | st.timedeltas(timedelta(days=-400), timedelta(days=400))
    )


@st.composite
def hours(draw: st.DrawFn) -> CallingHours:
    """Draw any hours."""
    opens, closes = draw(MINUTES), draw(MINUTES)
    assume(opens != closes)
    return CallingHours(opens=opens, closes=closes, zone=ZoneInfo(draw(st.sampled_from(ZONES))))


@given(hours(), moments())
def test_a_moment_is_in_the_hours_or_in_the_others(drawn: CallingHours, moment: datetime) -> None:
    """In one of both, also where clocks are changed; and whatever the zone of the moment is."""
    others = CallingHours(opens=drawn.closes, closes=drawn.opens, zone=drawn.zone)
    assert drawn.includes(moment) != others.includes(moment)
    assert drawn.includes(moment) == drawn.includes(moment.astimezone(NEW_YORK))


@given(hours(), moments(), st.timedeltas(timedelta(0), timedelta(minutes=59, seconds=59)))
def test_outcomes_are_expected_for_an_hour_after_each_call(
    drawn: CallingHours, moment: datetime, later: timedelta
) -> None:
    """A real hour, also where clocks are changed."""
    assume(drawn.includes(moment))
    assert drawn.brings_outcomes(moment)
    assert drawn.brings_outcomes(moment + later)


@given(hours(), moments())
def test_no_outcomes_are_expected_long_after_the_hours(
    drawn: CallingHours, moment: datetime
) -> None:
    """Such as on the next day, if the hours are short; a skipped hour adds up to one more."""
    day = [moment - timedelta(minutes=minutes) for minutes in range(0, 3 * 60 + 1)]
    assume(not any(map(drawn.includes, day)))
    skipped = (
        moment.astimezone(drawn.zone).utcoffset() != day[-1].astimezone(drawn.zone).utcoffset()
    )
    assert skipped or not drawn.brings_outcomes(moment)


@pytest.mark.parametrize(
    ("text", "local", "calls", "expects"),
    [
        ("08:00-21:00", "07:59", False, False),
        ("08:00-21:00", "08:00", True, True),
        ("08:00-21:00", "20:59", True, True),
        ("08:00-21:00", "21:00", False, True),
        ("08:00-21:00", "21:59", False, True),
        ("08:00-21:00", "22:00", False, False),
        ("22:00-06:00", "23:30", True, True),
        ("22:00-06:00", "00:00", True, True),
        ("22:00-06:00", "06:59", False, True),
        ("22:00-06:00", "07:00", False, False),
        ("08:00-00:00", "23:59", True, True),
        ("08:00-00:00", "00:59", False, True),
        ("08:00-00:00", "01:00", False, False),
        ("12:00-12:10", "12:30", False, True),
    ],
)
def test_hours_of_new_york(text: str, local: str, calls: bool, expects: bool) -> None:
    """In winter and in summer."""
    parsed = CallingHours.parse(f"{text} America/New_York")
    for day in ("2026-01-15", "2026-07-15"):
        moment = datetime.fromisoformat(f"{day} {local}").replace(tzinfo=NEW_YORK).astimezone(UTC)
        assert (parsed.includes(moment), parsed.brings_outcomes(moment)) == (calls, expects)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "are no hours"),
        ("always", "are no hours"),
        ("8-21 UTC", "are no hours"),
        ("08:00-21:00", "are no hours"),
        ("08:00-21:00 UTC\n", "are no hours"),
        ("०८:००-२१:०० UTC", "are no hours"),
        ("08:00-24:00 UTC", "beyond 23:59"),
        ("08:60-21:00 UTC", "beyond 23:59"),
        ("08:00-08:00 UTC", "the same time"),
        ("08:00-21:00 America", "unknown time zone"),
        ("08:00-21:00 America/Nowhere", "unknown time zone"),
        ("08:00-21:00 ../UTC", "unknown time zone"),
        ("08:00-21:00 /etc/passwd", "unknown time zone"),
        ("08:00-21:00 \0", "unknown time zone"),
    ],
)
def test_what_are_no_hours(text: str, reason: str) -> None:
    """One line states why, and how to write them."""
    with pytest.raises(ValueError, match=reason) as caught:
        CallingHours.parse(text)
    assert "\n" not in str(caught.value)
    assert "America/New_York" in str(caught.value)
