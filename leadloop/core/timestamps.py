"""Timestamps of the vendor: epoch milliseconds in v1, ISO 8601 in v4, seconds in some fields.

`parse_time` is lenient, and only for what the vendor writes. Times that people type are read by
`parse_time_argument`, which is strict.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal

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


def parse_time_argument(text: str) -> datetime:
    """Parse a time typed by a person: ISO 8601 with an offset, or epoch milliseconds.

    Raises:
        ValueError: the text is not such a time; the message names the accepted formats.
    """
    advice = "write ISO 8601 with an offset (2026-01-31T09:00:00+00:00) or epoch milliseconds"
    try:
        if text.strip().lstrip("-").isdecimal():
            return EPOCH + timedelta(milliseconds=int(text))
        moment = datetime.fromisoformat(text.strip())
        aware = moment if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time: {advice}") from None
    if aware.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC: {advice}")
    return aware


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
