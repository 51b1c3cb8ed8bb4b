"""The vendor's times: epoch milliseconds in v1, ISO 8601 in v4, seconds here and there."""

from datetime import UTC, datetime, timedelta
from typing import Literal

EpochUnit = Literal["ms", "s"]

OTHER_UNIT: dict[EpochUnit, EpochUnit] = {"ms": "s", "s": "ms"}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# 1e11 seconds are in the year 5138, 1e11 milliseconds in March 1973: no call was made in either.
_MILLISECONDS_FROM = 100_000_000_000
_MILLISECOND = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)


def parse_time(value: object) -> datetime:
    """Read a time as the vendor may write it.

    Args:
        value: epoch milliseconds or seconds (number or digits), or ISO 8601 text; text without an
            offset is taken as UTC.

    Returns:
        The time in UTC.

    Raises:
        ValueError: `value` is none of these. The message does not repeat the value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"not a time: {type(value).__name__}")
    if isinstance(value, str):
        text = value.strip()
        number = _number(text)
        return _from_iso(text) if number is None else _from_epoch(number)
    return _from_epoch(value)


def parse_time_argument(text: str) -> datetime:
    """Read a time that a person typed: ISO 8601 with an offset, or epoch milliseconds.

    Raises:
        ValueError: no such time; the message says what to write instead.
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
    """Whole milliseconds since the epoch, rounded down."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _number(text: str) -> float | int | None:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return None


def _from_epoch(value: float) -> datetime:
    try:
        # Whole milliseconds by integer arithmetic: a float of seconds would be off by some µs.
        return EPOCH + value * (_MILLISECOND if abs(value) >= _MILLISECONDS_FROM else _SECOND)
    except (OverflowError, ValueError):
        raise ValueError("not a time: the number is out of range") from None


def _from_iso(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError("not a time: the text is not ISO 8601") from None
