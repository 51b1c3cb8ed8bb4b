"""Clock skew between the vendor and the database, and which clock to trust for what.

The vendor's clock stamps `processed_at`, so it bounds what to read. A window is closed for good, so
the earlier clock decides there: a clock that wrongly runs ahead then does no harm. A clock that is
truly ahead costs a repeated read of the difference at each poll.
"""

from datetime import UTC, datetime, timedelta

#: Skew up to this is not reported: the header is in whole seconds, and requests take time.
_TOLERANCE = timedelta(seconds=60)
_HEADER_UNIT = timedelta(seconds=1)
#: Skew up to this is ignored when one clock bounds what the other clock stamped.
NEGLIGIBLE_SKEW = timedelta(seconds=5)


def earlier_clock(vendor_now: datetime | None, database_now: datetime) -> datetime:
    """Return the earlier clock: a time that has passed at the vendor, whichever clock is wrong."""
    return database_now if vendor_now is None else min(vendor_now, database_now)


def read_ahead_end(end: datetime, vendor_now: datetime | None) -> datetime | None:
    """Return how far to read beyond `end` to reach the vendor's clock; None if it is not ahead."""
    if vendor_now is None or vendor_now - end <= NEGLIGIBLE_SKEW:
        return None
    # The header is rounded down.
    return vendor_now + _HEADER_UNIT


def measure_vendor_lag(vendor_now: datetime | None, database_now: datetime) -> timedelta:
    """Return how far the vendor's clock lags behind the database's; zero if unknown or close."""
    lag = timedelta(0) if vendor_now is None else database_now - vendor_now
    return lag if lag > NEGLIGIBLE_SKEW else timedelta(0)


def describe_skew(vendor_now: datetime | None, database_now: datetime) -> str | None:
    """Return a warning that names both clocks; None if the skew is tolerable."""
    if vendor_now is None or abs(vendor_now - database_now) <= _TOLERANCE:
        return None
    return f"{_format_clocks(vendor_now, database_now)}; the watermark uses the earlier of both"


def describe_future_watermark(
    watermark: datetime, vendor_now: datetime | None, database_now: datetime
) -> str | None:
    """Return an error text if the watermark lies in the future; else None."""
    if watermark <= earlier_clock(vendor_now, database_now) + _TOLERANCE:
        return None
    clocks = _format_clocks(vendor_now or database_now, database_now)
    return (
        f"the watermark {_format_utc(watermark)} is ahead of now ({clocks}); this poll has stored"
        " what it read, but until now passes the watermark, polls read only the lookback, and"
        " may miss outcomes after a longer pause: correct the clock that is wrong, or set"
        " processed_through in leadloop.watermarks back"
        " (docs/how-to/handle-stuck-leads.md#clocks-that-differ)"
    )


def _format_clocks(vendor_now: datetime, database_now: datetime) -> str:
    vendor, database = _format_utc(vendor_now), _format_utc(database_now)
    return f"the vendor's clock is at {vendor}, the database's at {database}"


def _format_utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
