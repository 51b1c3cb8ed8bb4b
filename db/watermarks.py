"""Watermarks, and the polled windows that advance them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from leadloop.core.windows import Window, WindowProof, merge_windows

#: The only stream that is read incrementally.
OUTCOMES = "outcomes"

_GET = text("""
SELECT processed_through FROM leadloop.watermarks
 WHERE campaign_id = :campaign AND stream = :stream
""")
_START = text("""
INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through)
VALUES (:campaign, :stream, :at) ON CONFLICT DO NOTHING
""")
# Only a window that adjoins the stored range may advance the watermark.
_ADVANCE = text("""
UPDATE leadloop.watermarks SET processed_through = :through, updated_at = now()
 WHERE campaign_id = :campaign AND stream = :stream
   AND processed_through >= :after AND processed_through < :through
""")
_WINDOW = text("""
INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before, status,
                                   claimed_count, stored_count, pages, closed_through,
                                   range_after, range_before)
VALUES (:campaign, :run, :after, :before, :status, :reported, :stored, :pages, :through,
        :range_after, :range_before)
""")
_MAKE_GOOD = text("""
UPDATE leadloop.poll_windows AS incomplete SET made_good_at = now()
 WHERE campaign_id = :campaign AND status = 'incomplete' AND made_good_at IS NULL
   AND tstzrange(window_after, window_before, '[]') <@ (
       SELECT range_agg(tstzrange(later.window_after, later.closed_through, '[]'))
         FROM leadloop.poll_windows AS later
        WHERE later.campaign_id = :campaign AND later.window_id > incomplete.window_id
          AND later.closed_through >= incomplete.window_after
          AND later.window_after <= incomplete.window_before)
""")
_INCOMPLETE = text("""
SELECT DISTINCT window_after, window_before FROM leadloop.poll_windows
 WHERE campaign_id = :campaign AND status = 'incomplete' AND made_good_at IS NULL
""")
# Since the last completed backfill of the same range, and for a few days only: late outcomes may
# have appeared in windows that were read long ago.
_RESUMABLE = text("""
SELECT DISTINCT window_after, window_before FROM leadloop.poll_windows
 WHERE campaign_id = :campaign AND range_after = :after AND range_before = :before
   AND status = 'closed' AND polled_at > now() - make_interval(days => :days)
   AND run_id > coalesce((
       SELECT max(run.run_id)
         FROM leadloop.poll_windows AS done JOIN leadloop.sync_runs AS run USING (run_id)
        WHERE done.campaign_id = :campaign AND done.range_after = :after
          AND done.range_before = :before AND run.state = 'completed'), 0)
""")
#: Days for which an interrupted backfill can be resumed.
RESUMABLE_DAYS = 7
_NOW = text("SELECT clock_timestamp()")


def get_watermark(connection: Connection, campaign_id: str) -> datetime | None:
    """Return the watermark, up to which everything is stored; None before the first poll."""
    parameters = {"campaign": campaign_id, "stream": OUTCOMES}
    moment: datetime | None = connection.scalar(_GET, parameters)
    return moment


def select_polled(connection: Connection, campaign_ids: Sequence[str]) -> list[str]:
    """Return those of the campaigns that have a watermark."""
    return [id_ for id_ in campaign_ids if get_watermark(connection, id_) is not None]


def start_watermark(connection: Connection, campaign_id: str, at: datetime) -> None:
    """Set the first watermark; idempotent: an existing watermark stays."""
    connection.execute(_START, {"campaign": campaign_id, "stream": OUTCOMES, "at": at})


def advance_watermark(
    connection: Connection, campaign_id: str, *, after: datetime, through: datetime
) -> bool:
    """Advance the watermark over a verified range, if the range adjoins it. It never moves back.

    Returns:
        Whether the watermark moved.
    """
    moved = connection.execute(
        _ADVANCE,
        {"campaign": campaign_id, "stream": OUTCOMES, "after": after, "through": through},
    )
    return moved.rowcount == 1


@dataclass(frozen=True, kw_only=True)
class WindowRecord:
    """A row of `leadloop.poll_windows`.

    `reported_count`: the API's count. `stored_count`: distinct results read. `proof`: the verified
    part of the window. `backfill`: the requested range; None for a poll.
    """

    run_id: int
    window: Window
    proof: WindowProof
    reported_count: int
    stored_count: int
    pages: int
    backfill: Window | None


def record_windows(
    connection: Connection, campaign_id: str, records: Iterable[WindowRecord]
) -> None:
    """Record polled windows and the verified part of each."""
    for record in records:
        proven, backfill = record.proof.proven, record.backfill
        connection.execute(
            _WINDOW,
            {
                "campaign": campaign_id,
                "run": record.run_id,
                "after": record.window.after,
                "before": record.window.before,
                "status": record.proof.status,
                "reported": record.reported_count,
                "stored": record.stored_count,
                "pages": record.pages,
                "through": proven.before if proven else None,
                "range_after": backfill.after if backfill else None,
                "range_before": backfill.before if backfill else None,
            },
        )


def list_incomplete_windows(connection: Connection, campaign_id: str) -> list[Window]:
    """List the incomplete windows that no later read has made good; mark those that one has.

    Returns:
        Merged windows, in order.
    """
    connection.execute(_MAKE_GOOD, {"campaign": campaign_id})
    return _to_windows(connection.execute(_INCOMPLETE, {"campaign": campaign_id}))


def list_resumable_windows(
    connection: Connection, campaign_id: str, backfill: Window
) -> list[Window]:
    """List the closed windows of an interrupted backfill of the same range, merged, in order."""
    parameters = {
        "campaign": campaign_id,
        "after": backfill.after,
        "before": backfill.before,
        "days": RESUMABLE_DAYS,
    }
    return _to_windows(connection.execute(_RESUMABLE, parameters))


def _to_windows(rows: Iterable[Any]) -> list[Window]:
    return merge_windows(Window(after=row.window_after, before=row.window_before) for row in rows)


def get_database_time(connection: Connection) -> datetime:
    """Return the database's clock."""
    moment: datetime = connection.execute(_NOW).scalar_one()
    return moment
