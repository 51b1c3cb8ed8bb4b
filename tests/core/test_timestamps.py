from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.timestamps import (
    EPOCH,
    find_implausible,
    parse_strict_time,
    parse_time,
    parse_time_argument,
    to_epoch_ms,
)

# Where ms and seconds cannot be mistaken for each other: from March 1973 on.
_MS = st.integers(100_000_000_000, 4_102_444_800_000)
_REASONS = ("number is out of range", "text is not ISO 8601")


def _is_compact(number: int) -> bool:
    """Return whether a number of 12 digits looks like 202601310900."""
    try:
        return bool(datetime.strptime(str(number), "%Y%m%d%H%M"))
    except ValueError:
        return False


_OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@given(_MS)
def test_milliseconds_come_back_as_they_were(ms: int) -> None:
    """As a number, as text and as a float, to the very millisecond."""
    for written in (ms, str(ms), f" {ms} ", float(ms)):
        assert to_epoch_ms(parse_time(written)) == ms


@given(st.integers(0, 4_102_444_800))
def test_seconds_are_told_from_milliseconds(seconds: int) -> None:
    """A call of our time is meant, whichever unit the vendor writes."""
    for written in (seconds, str(seconds)):
        assert parse_time(written) == EPOCH + timedelta(seconds=seconds)


@given(_MS, st.integers(0, 999), st.integers(0, 999))
def test_smaller_units_are_told_by_their_size(ms: int, us: int, ns: int) -> None:
    """Microseconds to the very microsecond; nanoseconds lose what Postgres cannot hold."""
    microseconds = ms * 1000 + us
    moment = EPOCH + timedelta(microseconds=microseconds)
    for written in (microseconds, str(microseconds), float(microseconds)):
        assert parse_time(written) == moment
    nanoseconds = microseconds * 1000 + ns
    for written in (nanoseconds, str(nanoseconds)):
        assert parse_time(written) == moment
    assert abs(parse_time(float(nanoseconds)) - moment) <= timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("number", "unit"),
    [
        *((10**11 - 1, 10**6), (10**11, 1000), (10**14 - 1, 1000), (10**14, 1)),
        *((10**17 - 1, 1), (10**17, 0.001), (10**20 - 1, 0.001)),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_where_one_unit_ends_the_next_begins(number: int, unit: float, sign: int) -> None:
    """March 1973 or the year 5138, before the epoch likewise; `unit`: its microseconds."""
    microseconds = number // 1000 if unit == 0.001 else number * int(unit)
    try:
        moment = EPOCH + timedelta(microseconds=sign * microseconds)
    except OverflowError:
        with pytest.raises(ValueError, match="out of range"):
            parse_time(sign * number)
    else:
        assert parse_time(sign * number) == moment


@given(_MS, _OFFSETS)
def test_iso_with_any_offset_is_the_same_moment(ms: int, offset: timezone) -> None:
    """An offset changes how a time is written, not when it was; the answer is in UTC."""
    moment = EPOCH + timedelta(milliseconds=ms)
    read = parse_time(moment.astimezone(offset).isoformat())
    assert read == moment
    assert read.utcoffset() == timedelta(0)


def test_iso_as_the_newer_api_writes_it() -> None:
    """With Z, with fractions, and without an offset, which then means UTC."""
    expected = datetime(2021, 1, 5, 9, 30, tzinfo=UTC)
    for written in ("2021-01-05T09:30:00Z", "2021-01-05T15:00:00.000+05:30", "2021-01-05T09:30"):
        assert parse_time(written) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, [], {}, "", " ", "soon", "+14155550123x", "nan", "inf", "1e999", "9" * 5000),
        *(
            10**30,
            -(10**30),
            10**20,
            "-1" + "0" * 20,
            1e20,
            float("nan"),
            float("inf"),
            "2021-13-01",
            "0001-01-01T00:00+14:00",
        ),
        *("--5", "-", "9999-12-31T23:59:59-14:00"),
    ],
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    """As a ValueError and no other, whatever the vendor wrote."""
    with pytest.raises(ValueError, match="not a time"):
        parse_time(value)


@given(st.text())
def test_an_error_does_not_repeat_the_value(text: str) -> None:
    """It may be anything, a person's number too, and the message goes to logs."""
    said = ""
    try:
        parse_time(text)
    except ValueError as error:
        said = str(error)
    assert said in ("", *(f"not a time: the {why}" for why in _REASONS))


@given(_MS, _OFFSETS)
def test_a_typed_time_is_iso_with_an_offset_or_milliseconds(ms: int, offset: timezone) -> None:
    """Both mean the same."""
    moment = EPOCH + timedelta(milliseconds=ms)
    if not _is_compact(ms):
        for written in (str(ms), f"\ufeff{ms} ", f"{ms}.0"):
            assert parse_time_argument(written) == moment
    assert parse_time_argument(moment.astimezone(offset).isoformat()) == moment


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "2026-01-31T09:00",
        "now",
        "",
        "--5",
        "9" * 30,
        "9999-12-31T23:59:59-05:00",
        "0001-01-01T00:00:00+05:00",
        "1899-12-31T23:59:59Z",
        "2101-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "-1",
        "0",
        "1.76985E+12",
        "1769850000000.5",
        "4133980800000",
    ],
)
def test_a_typed_time_that_is_unclear_is_refused(text: str) -> None:
    """With what to write instead; a time without an offset could mean another hour."""
    with pytest.raises(ValueError, match="write ISO 8601 with an offset"):
        parse_time_argument(text)


@pytest.mark.parametrize(
    ("text", "looks_like"),
    [
        ("46053", "a date of a spreadsheet"),
        ("46053,375", "a date of a spreadsheet"),
        ("1769850000", "epoch seconds"),
        ("1769850000.123", "epoch seconds"),
        ("20260131", "a date without separators"),
        ("202601310900", "a date without separators"),
        ("20260131090000", "a date without separators"),
        ("1769850000000000", "epoch microseconds"),
        ("1769850000000000000", "epoch nanoseconds"),
        ("9" * 5000, "epoch nanoseconds"),
    ],
)
def test_a_number_in_another_unit_is_named(text: str, looks_like: str) -> None:
    """It is refused: read as milliseconds, it would be a time in 1970 or in no year at all."""
    with pytest.raises(ValueError, match=f"looks like {looks_like}"):
        parse_strict_time(text)


_UNITS = (
    *("a date without separators", "a date of a spreadsheet (days since 1900)"),
    *("a time after 2100", "epoch seconds", "epoch microseconds", "epoch nanoseconds"),
)
_MESSAGES = {
    "is not a time",
    "has no offset from UTC",
    "is out of range: the years 1900 to 2100",
    "is in the first weeks of 1970: a number read in another unit?",
    "is in scientific notation: digits may be missing",
    "is out of range: epoch milliseconds from 1973 to 2100",
    "has a fraction: epoch milliseconds are whole numbers",
    *(f"looks like {unit}" for unit in _UNITS),
}


@given(st.text() | st.from_regex(r"[-+]?[0-9]{1,25}([.,][0-9]*)?(e[0-9]+)?", fullmatch=True))
def test_a_strict_time_is_plausible_or_refused(text: str) -> None:
    """Nothing is guessed, and the message repeats nothing."""
    said, moment = "", None
    try:
        moment = parse_strict_time(text)
    except ValueError as error:
        said = str(error)
    # All messages are fixed. Not `text not in said`: Hypothesis draws parts of our messages too.
    assert moment is not None or said in _MESSAGES
    assert moment is None or (find_implausible(moment) is None and moment.tzinfo == UTC)
