"""Watermarks, and the polled windows that advance them.

Everything up to `read_through` is stored or owed (`db.owed_windows`), and the next head poll starts
there. `processed_through`, the watermark, follows it up to the first owed window that nobody has
accepted. `reread_through` is where the next poll starts that reads the lookback again: head polls
leave it, so that what they may have missed is read, however many of them came between.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

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
# A watermark below what leadloop wrote last was set back by a person: the next poll starts there.
# The columns of the row alone decide, so that a concurrent write cannot mix two states.
_READ_THROUGH = """CASE WHEN processed_through < written_through THEN processed_through
            ELSE greatest(read_through, processed_through) END"""
_GET_READ_THROUGH = text(f"""
SELECT {_READ_THROUGH} FROM leadloop.watermarks
 WHERE campaign_id = :campaign AND stream = :stream
""")
#: SQL: up to where a row's polls have read the lookback. `least` ignores NULL: until the first head
#: poll, all polls have read it.
REREAD_THROUGH = f"least(reread_through, {_READ_THROUGH})"
_GET_REREAD_THROUGH = text(f"""
SELECT {REREAD_THROUGH} FROM leadloop.watermarks
 WHERE campaign_id = :campaign AND stream = :stream
""")
# Only a window that adjoins the range that was read may make it longer. What the lookback is read
# from stays where it was, also if a person has set it back.
_ADVANCE = text(f"""
UPDATE leadloop.watermarks
   SET read_through = :through, reread_through = {REREAD_THROUGH},
       written_through = processed_through, updated_at = now()
 WHERE campaign_id = :campaign AND stream = :stream
   AND {_READ_THROUGH} >= :after AND {_READ_THROUGH} < :through
""")
_ADVANCE_REREAD = text(f"""
UPDATE leadloop.watermarks SET reread_through = :through, updated_at = now()
 WHERE campaign_id = :campaign AND stream = :stream
   AND {REREAD_THROUGH} >= :after AND {REREAD_THROUGH} < :through
""")
# A separate statement: what is owed must be read after a concurrent writer has committed.
_LOCK = text("""
SELECT FROM leadloop.watermarks WHERE campaign_id = :campaign AND stream = :stream
   FOR NO KEY UPDATE
""")
# Neither before the first range was read, nor while a watermark that was set back waits for a poll.
_FOLLOW = text("""
UPDATE leadloop.watermarks AS mark
   SET processed_through = least(mark.read_through, owed.first),
       written_through = least(mark.read_through, owed.first), updated_at = now()
  FROM (SELECT min(window_after) AS first FROM leadloop.owed_windows
         WHERE campaign_id = :campaign AND accepted_at IS NULL) AS owed
 WHERE mark.campaign_id = :campaign AND mark.stream = :stream
   AND mark.processed_through >= mark.written_through
   AND mark.processed_through < least(mark.read_through, owed.first)
""")
_WINDOW = text("""
INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before, status,
                                   claimed_count, stored_count, pages, closed_through,
                                   range_after, range_before)
VALUES (:campaign, :run, :after, :before, :status, :reported, :stored, :pages, :through,
        :range_after, :range_before)
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


def get_read_through(connection: Connection, campaign_id: str) -> datetime | None:
    """Return the time up to which everything is stored or owed; None before the first poll.

    If a person has set the watermark back, return the watermark: the next poll starts there.
    """
    parameters = {"campaign": campaign_id, "stream": OUTCOMES}
    moment: datetime | None = connection.scalar(_GET_READ_THROUGH, parameters)
    return moment


def get_reread_through(connection: Connection, campaign_id: str) -> datetime | None:
    """Return the time up to which polls that read the lookback have read; None before the first.

    It is never later than `get_read_through`.
    """
    parameters = {"campaign": campaign_id, "stream": OUTCOMES}
    moment: datetime | None = connection.scalar(_GET_REREAD_THROUGH, parameters)
    return moment


def select_polled(connection: Connection, campaign_ids: Sequence[str]) -> list[str]:
    """Return those of the campaigns that have a watermark."""
    return [id_ for id_ in campaign_ids if get_watermark(connection, id_) is not None]


def start_watermark(connection: Connection, campaign_id: str, at: datetime) -> None:
    """Set the first watermark; idempotent: an existing watermark stays."""
    connection.execute(_START, {"campaign": campaign_id, "stream": OUTCOMES, "at": at})


def advance_read_range(
    connection: Connection, campaign_id: str, *, after: datetime, through: datetime
) -> None:
    """Advance `read_through` over a range that is stored or owed, and then the watermark.

    Neither moves back, and neither moves if the range does not adjoin `read_through`.
    """
    connection.execute(
        _ADVANCE,
        {"campaign": campaign_id, "stream": OUTCOMES, "after": after, "through": through},
    )
    follow_read_range(connection, campaign_id)


def advance_reread_range(
    connection: Connection, campaign_id: str, *, after: datetime, through: datetime
) -> None:
    """Advance `reread_through` over a range that one run has read; first `advance_read_range`.

    It neither moves back, nor moves if the range does not adjoin it.

    Args:
        connection: a transaction.
        campaign_id: the campaign.
        after: the start of the range.
        through: its end, and at most the time when the run began. Then a result that shows later
            was processed behind `through` less the lookback, and the next such run reads it.
    """
    connection.execute(
        _ADVANCE_REREAD,
        {"campaign": campaign_id, "stream": OUTCOMES, "after": after, "through": through},
    )


def follow_read_range(connection: Connection, campaign_id: str) -> None:
    """Advance the watermark up to the first owed window that nobody has accepted."""
    parameters = {"campaign": campaign_id, "stream": OUTCOMES}
    for statement in (_LOCK, _FOLLOW):
        connection.execute(statement, parameters)


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
    rows = connection.execute(_RESUMABLE, parameters)
    return merge_windows(Window(after=row.window_after, before=row.window_before) for row in rows)


def get_database_time(connection: Connection) -> datetime:
    """Return the database's clock."""
    moment: datetime = connection.execute(_NOW).scalar_one()
    return moment
