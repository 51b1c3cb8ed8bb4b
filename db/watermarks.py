"""Watermarks, and the windows that move them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from leadloop.core.windows import Window, WindowProof, merge_windows

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
                                   claimed_count, stored_count, pages, closed_through,
                                   range_after, range_before)
VALUES (:campaign, :run, :after, :before, :status, :claimed, :stored, :pages, :through,
        :range_after, :range_before)
""")
_MAKE_GOOD = text("""
UPDATE leadloop.poll_windows AS owed SET made_good_at = now()
 WHERE campaign_id = :campaign AND status = 'incomplete' AND made_good_at IS NULL
   AND tstzrange(window_after, window_before, '[]') <@ (
       SELECT range_agg(tstzrange(later.window_after, later.closed_through, '[]'))
         FROM leadloop.poll_windows AS later
        WHERE later.campaign_id = :campaign AND later.window_id > owed.window_id
          AND later.closed_through >= owed.window_after
          AND later.window_after <= owed.window_before)
""")
_OWED = text("""
SELECT DISTINCT window_after, window_before FROM leadloop.poll_windows
 WHERE campaign_id = :campaign AND status = 'incomplete' AND made_good_at IS NULL
""")
# Since the last backfill of this very range that was completed; of runs long ago much may be late.
_CLOSED_BEFORE = text("""
SELECT DISTINCT window_after, window_before FROM leadloop.poll_windows
 WHERE campaign_id = :campaign AND range_after = :after AND range_before = :before
   AND status = 'closed' AND polled_at > now() - make_interval(days => :days)
   AND run_id > coalesce((
       SELECT max(run.run_id)
         FROM leadloop.poll_windows AS done JOIN leadloop.sync_runs AS run USING (run_id)
        WHERE done.campaign_id = :campaign AND done.range_after = :after
          AND done.range_before = :before AND run.state = 'completed'), 0)
""")
#: Days for which a backfill that was broken off can be taken up where it was.
RESUMABLE_DAYS = 7
_NOW = text("SELECT clock_timestamp()")


def get_watermark(connection: Connection, campaign_id: str) -> datetime | None:
    """Up to where everything is stored; None before the first poll."""
    parameters = {"campaign": campaign_id, "stream": OUTCOMES}
    moment: datetime | None = connection.scalar(_READ, parameters)
    return moment


def select_polled(connection: Connection, campaign_ids: Sequence[str]) -> list[str]:
    """Return those of the campaigns that have a watermark."""
    return [id_ for id_ in campaign_ids if get_watermark(connection, id_) is not None]


def start_watermark(connection: Connection, campaign_id: str, at: datetime) -> None:
    """Set the first watermark; does nothing where there is one."""
    connection.execute(_START, {"campaign": campaign_id, "stream": OUTCOMES, "at": at})


def advance_watermark(
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


@dataclass(frozen=True, kw_only=True)
class WindowRecord:
    """A row of `leadloop.poll_windows`.

    `claimed` is the API's count, `stored` the distinct results read, `proof` what that proves, and
    `backfill` the range that was asked for, None for a poll.
    """

    run_id: int
    window: Window
    proof: WindowProof
    reported_count: int
    stored_count: int
    pages: int
    backfill: Window | None


def record_windows(
    connection: Connection, campaign_id: str, polled: Iterable[WindowRecord]
) -> None:
    """Write down that windows were read, and what came of it."""
    for window in polled:
        _record_window(connection, campaign_id, window)


def _record_window(connection: Connection, campaign_id: str, polled: WindowRecord) -> None:
    proven, backfill = polled.proof.proven, polled.backfill
    connection.execute(
        _WINDOW,
        {
            "campaign": campaign_id,
            "run": polled.run_id,
            "after": polled.window.after,
            "before": polled.window.before,
            "status": polled.proof.status,
            "claimed": polled.reported_count,
            "stored": polled.stored_count,
            "pages": polled.pages,
            "through": proven.before if proven else None,
            "range_after": backfill.after if backfill else None,
            "range_before": backfill.before if backfill else None,
        },
    )


def list_incomplete_windows(connection: Connection, campaign_id: str) -> list[Window]:
    """Windows that were left incomplete and that no later reading has made good."""
    connection.execute(_MAKE_GOOD, {"campaign": campaign_id})
    return _to_windows(connection.execute(_OWED, {"campaign": campaign_id}))


def list_resumable_windows(
    connection: Connection, campaign_id: str, backfill: Window
) -> list[Window]:
    """What a backfill of this very range has closed already, if it was not completed."""
    parameters = {
        "campaign": campaign_id,
        "after": backfill.after,
        "before": backfill.before,
        "days": RESUMABLE_DAYS,
    }
    return _to_windows(connection.execute(_CLOSED_BEFORE, parameters))


def _to_windows(rows: Iterable[Any]) -> list[Window]:
    return merge_windows(Window(after=row.window_after, before=row.window_before) for row in rows)


def get_database_time(connection: Connection) -> datetime:
    """The database's clock."""
    moment: datetime = connection.execute(_NOW).scalar_one()
    return moment
