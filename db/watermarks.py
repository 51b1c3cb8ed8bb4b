"""Watermarks, and the windows that move them."""

from datetime import datetime

from sqlalchemy import Connection, text

from leadloop.core.windows import Window

#: The one stream that is read incrementally.
OUTCOMES = "outcomes"

_READ = text("""
SELECT processed_through FROM leadloop.watermarks
 WHERE campaign_id = :campaign AND stream = :stream
""")
_START = text("""
INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through)
VALUES (:campaign, :stream, :at) ON CONFLICT DO NOTHING
""")
# Only a window that begins where everything is stored already may move it.
_ADVANCE = text("""
UPDATE leadloop.watermarks SET processed_through = :through, updated_at = now()
 WHERE campaign_id = :campaign AND stream = :stream
   AND processed_through >= :after AND processed_through < :through
""")
_WINDOW = text("""
INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before, status,
                                   claimed_count, stored_count, pages, closed_through)
VALUES (:campaign, :run, :after, :before, :status, :claimed, :stored, :pages, :through)
""")
_NOW = text("SELECT clock_timestamp()")


def read(connection: Connection, campaign_id: str) -> datetime | None:
    """Up to where everything is stored; None before the first poll."""
    parameters = {"campaign": campaign_id, "stream": OUTCOMES}
    moment: datetime | None = connection.scalar(_READ, parameters)
    return moment


def start(connection: Connection, campaign_id: str, at: datetime) -> None:
    """Set the first watermark; does nothing where there is one."""
    connection.execute(_START, {"campaign": campaign_id, "stream": OUTCOMES, "at": at})


def advance(
    connection: Connection, campaign_id: str, *, after: datetime, through: datetime
) -> bool:
    """Move the watermark over a stretch that is proven stored, if it adjoins. Never back.

    Returns:
        Whether it moved.
    """
    moved = connection.execute(
        _ADVANCE,
        {"campaign": campaign_id, "stream": OUTCOMES, "after": after, "through": through},
    )
    return moved.rowcount == 1


def record_window(
    connection: Connection,
    campaign_id: str,
    window: Window,
    *,
    run_id: int,
    status: str,
    claimed: int,
    stored: int,
    pages: int,
    closed_through: datetime | None,
) -> None:
    """Write down that a window was read, and what came of it."""
    connection.execute(
        _WINDOW,
        {
            "campaign": campaign_id,
            "run": run_id,
            "after": window.after,
            "before": window.before,
            "status": status,
            "claimed": claimed,
            "stored": stored,
            "pages": pages,
            "through": closed_through,
        },
    )


def now(connection: Connection) -> datetime:
    """The database's clock."""
    moment: datetime = connection.execute(_NOW).scalar_one()
    return moment
