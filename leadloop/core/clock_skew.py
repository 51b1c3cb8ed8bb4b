"""Two clocks, the vendor's and the database's, and what may be believed of them.

The vendor's says up to when to read: `processed_at` is of that clock. What is *closed* is closed
for good, so there the earlier of the two counts. A clock that goes wrong ahead then does no harm,
whichever it is, and one that is truly ahead costs the reading of the stretch between them at each
poll.
"""

from datetime import UTC, datetime, timedelta

#: What clocks may differ by without a word: the header is in whole seconds, and requests take time.
_TOLERANCE = timedelta(seconds=60)
_HEADER_UNIT = timedelta(seconds=1)
#: What is made nothing of where one clock says what the other one has to read up to, or from.
NEGLIGIBLE_SKEW = timedelta(seconds=5)


def earlier_clock(vendor_now: datetime | None, database_now: datetime) -> datetime:
    """What is surely past for the vendor, whichever clock is wrong."""
    return database_now if vendor_now is None else min(vendor_now, database_now)


def read_ahead_end(end: datetime, vendor_now: datetime | None) -> datetime | None:
    """Up to where to read on from `end` to follow the vendor's clock; None: it is not ahead."""
    if vendor_now is None or vendor_now - end <= NEGLIGIBLE_SKEW:
        return None
    # Its header is rounded down.
    return vendor_now + _HEADER_UNIT


def measure_vendor_lag(vendor_now: datetime | None, database_now: datetime) -> timedelta:
    """How far the vendor's clock is behind ours; nothing where it is not told, or close."""
    apart = timedelta(0) if vendor_now is None else database_now - vendor_now
    return apart if apart > NEGLIGIBLE_SKEW else timedelta(0)


def describe_skew(vendor_now: datetime | None, database_now: datetime) -> str | None:
    """That the clocks are apart, naming both of them; None where they agree."""
    if vendor_now is None or abs(vendor_now - database_now) <= _TOLERANCE:
        return None
    return f"{_both(vendor_now, database_now)}; the watermark goes by the earlier of them"


def describe_future_watermark(
    watermark: datetime, vendor_now: datetime | None, database_now: datetime
) -> str | None:
    """That the watermark lies in the future, with what to do; None where it does not."""
    if watermark <= earlier_clock(vendor_now, database_now) + _TOLERANCE:
        return None
    return (
        f"the watermark {_utc(watermark)} is ahead of now ({_both(vendor_now or database_now, database_now)}): what is"
        " processed between two polls may be missed until then; if the clocks are right, set"
        " processed_through in leadloop.watermarks to what is surely stored"
    )


def _both(vendor_now: datetime, ours: datetime) -> str:
    return f"the vendor's clock says {_utc(vendor_now)}, the database's {_utc(ours)}"


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
