"""Timestamps of the vendor: epoch milliseconds in v1, ISO 8601 in v4, seconds in some fields."""

from datetime import UTC, datetime, timedelta
from typing import Literal

EpochUnit = Literal["ms", "s"]

OTHER_UNIT: dict[EpochUnit, EpochUnit] = {"ms": "s", "s": "ms"}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# 1e11 seconds is the year 5138 and 1e11 milliseconds March 1973: no call was made in either.
_MILLISECONDS_FROM = 100_000_000_000
_MILLISECOND = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)


def parse_time(value: object) -> datetime:
    """Parse a timestamp in any format of the vendor.

    Args:
        value: epoch milliseconds or seconds (number or digits), or ISO 8601 text, in UTC if it has
            no offset.

    Returns:
        The time in UTC.

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
        # Whole milliseconds by integer arithmetic: a float of seconds would be off by some µs.
        return EPOCH + value * (_MILLISECOND if abs(value) >= _MILLISECONDS_FROM else _SECOND)
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


def _from_iso(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("not a time: the text is not ISO 8601") from None
