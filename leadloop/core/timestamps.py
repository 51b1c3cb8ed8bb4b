"""Timestamps of the vendor: epoch milliseconds in v1, ISO 8601 in v4, seconds in some fields.

`parse_time` is lenient, and only for what the vendor writes. Times that people type or put into a
file are read by `parse_strict_time`: a number in another unit is refused, not taken for 1970.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from leadloop.core.unseen_characters import strip_unseen

EpochUnit = Literal["ms", "s"]

OTHER_UNIT: dict[EpochUnit, EpochUnit] = {"ms": "s", "s": "ms"}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The unit of a number is plain by its size: each unit spans from March 1973 to the year 5138, and
# no call was made outside of these years. Smaller numbers are seconds.
_MILLISECONDS_FROM = 10**11
_MICROSECONDS_FROM = 10**14
_NANOSECONDS_FROM = 10**17
_TOO_LARGE_FROM = 10**20
_MILLISECOND = timedelta(milliseconds=1)

#: The formats that people may write.
TIME_FORMATS = "write ISO 8601 with an offset (2026-01-31T09:00:00+00:00) or epoch milliseconds"
_FIRST_YEAR, _LAST_YEAR = 1900, 2100
# January 2101.
_MILLISECONDS_TO = 4_133_980_800_000
# The year 2100 in seconds, read as milliseconds.
_AFTER_MISREAD = EPOCH + timedelta(days=49)
_MAX_SPREADSHEET_DAY = 100_000
_MAX_DIGITS = 20
_NUMBER = re.compile(r"([+-]?)(\d+)(?:[.,](\d*))?(?:[eE]([+-]?\d+))?")
_COMPACT_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_SECOND = timedelta(seconds=1)


def parse_time(value: object) -> datetime:
    """Parse a timestamp in any format of the vendor.

    Args:
        value: epoch seconds, milliseconds, microseconds or nanoseconds (number or digits), which
            their size distinguishes; or ISO 8601 text, in UTC if it has no offset.

    Returns:
        The time in UTC; nanoseconds are truncated to microseconds.

    Raises:
        ValueError: the value has another format. The message does not repeat the value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"not a time: {type(value).__name__}")
    if isinstance(value, str):
        text = value.strip()
        try:
            value = int(text) if text.lstrip("-").isdecimal() else float(text)
        except ValueError:
            return _from_iso(text)
    try:
        return EPOCH + _measure_epoch(value)
    except (OverflowError, ValueError):
        raise ValueError("not a time: the number is out of range") from None


def parse_strict_time(text: str) -> datetime:
    """Parse a time that a person gives: ISO 8601 with an offset, or epoch milliseconds.

    The time is from 1900 to 2100, and epoch milliseconds are from March 1973 on: smaller numbers
    are in another unit.

    Raises:
        ValueError: the text is not such a time. The message describes it without repeating it.
    """
    text = strip_unseen(text)
    if number := _NUMBER.fullmatch(text):
        milliseconds = _read_milliseconds(number)
        return EPOCH + timedelta(milliseconds=milliseconds)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("is not a time") from None
    if moment.tzinfo is None:
        raise ValueError("has no offset from UTC")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range: the years 1900 to 2100") from None
    if reason := find_implausible(moment):
        raise ValueError(reason)
    return moment


def parse_time_argument(text: str) -> datetime:
    """Parse a time of the command line (`parse_strict_time`).

    Raises:
        ValueError: the text is not such a time; the message names the accepted formats.
    """
    try:
        return parse_strict_time(text)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}: {TIME_FORMATS}") from None


def find_implausible(moment: datetime) -> str | None:
    """Return why a time cannot be meant, or None.

    In the first weeks of 1970 lie the seconds of our time that were read as milliseconds, and the
    days of a spreadsheet that were read as seconds.
    """
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        return "is out of range: the years 1900 to 2100"
    if EPOCH <= moment < _AFTER_MISREAD:
        return "is in the first weeks of 1970: a number read in another unit?"
    return None


def _read_milliseconds(number: re.Match[str]) -> int:
    """Return the epoch milliseconds that a number is.

    Raises:
        ValueError: the number seems to have another unit.
    """
    sign, digits, fraction, exponent = number.groups(default="")
    if exponent:
        raise ValueError("is in scientific notation: digits may be missing")
    whole = int(digits) if len(digits) <= _MAX_DIGITS else _TOO_LARGE_FROM
    if sign == "-":
        raise ValueError("is out of range: epoch milliseconds from 1973 to 2100")
    if looks_like := _describe_unit(whole):
        raise ValueError(f"looks like {looks_like}")
    if fraction.strip("0"):
        raise ValueError("has a fraction: epoch milliseconds are whole numbers")
    return whole


def _describe_unit(number: int) -> str | None:
    """Return what a number looks like that is not in milliseconds from 1973 to 2100, or None."""
    if _is_compact_date(str(number)):
        return "a date without separators"
    if number < _MAX_SPREADSHEET_DAY:
        return "a date of a spreadsheet (days since 1900)"
    if number < _MILLISECONDS_FROM:
        return "epoch seconds"
    if number < _MILLISECONDS_TO:
        return None
    if number < _MICROSECONDS_FROM:
        return "a time after 2100"
    return "epoch microseconds" if number < _NANOSECONDS_FROM else "epoch nanoseconds"


def _is_compact_date(digits: str) -> bool:
    """Return whether digits are a date (20260131), also with hours, minutes and seconds."""
    form = _COMPACT_FORMATS.get(len(digits))
    try:
        return (
            form is not None and _FIRST_YEAR <= datetime.strptime(digits, form).year <= _LAST_YEAR
        )
    except ValueError:
        return False


def to_epoch_ms(moment: datetime) -> int:
    """Return whole milliseconds since the epoch, rounded down."""
    return (moment - EPOCH) // _MILLISECOND


def _measure_epoch(value: float) -> timedelta:
    """Return the time since the epoch, by integer arithmetic: a float of seconds is not exact.

    Raises:
        OverflowError, ValueError: the number is out of range, or NaN.
    """
    size = abs(value)
    if size < _MILLISECONDS_FROM:
        return value * _SECOND
    if size < _MICROSECONDS_FROM:
        return value * _MILLISECOND
    if size >= _TOO_LARGE_FROM:
        raise OverflowError
    microseconds = int(size) if size < _NANOSECONDS_FROM else int(size) // 1000
    return timedelta(microseconds=microseconds if value > 0 else -microseconds)


def _from_iso(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("not a time: the text is not ISO 8601") from None
