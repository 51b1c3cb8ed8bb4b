"""Owed windows: ranges of `processed_at` that no read could complete, each tried ever more seldom.

A row's range shrinks by what later reads prove, and the row is deleted when nothing is left of it.
A range that a person accepted as unreadable no longer holds the watermark, and is still tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from db import watermarks
from leadloop.core.windows import Window

#: The pause before the second try of an owed window, seconds; each pause is twice the one before.
FIRST_PAUSE_S = 600
#: The longest pause, seconds; a range that a person accepted is tried at this pace.
LONGEST_PAUSE_S = 86_400

_LIST = text("""
SELECT owed_id, campaign_id, window_after, window_before, reason, tries, found_at, tried_at,
       next_try_at, accepted_at, accepted_by, accepted_reason,
       next_try_at <= clock_timestamp() AS is_due
  FROM leadloop.owed_windows
 WHERE campaign_id = ANY(:campaigns) ORDER BY campaign_id, window_after, owed_id
""")
# What is left of a row keeps its history. Bounds are shared by neighbours, so ranges are open here.
_SUBTRACT = text("""
WITH proven AS (
    DELETE FROM leadloop.owed_windows
     WHERE campaign_id = :campaign
       AND (window_after < :before AND window_before > :after
            OR window_after >= :after AND window_before <= :before)
    RETURNING *
), kept AS (
    INSERT INTO leadloop.owed_windows
           (campaign_id, window_after, window_before, reason, tries, found_at, tried_at,
            next_try_at, accepted_at, accepted_by, accepted_reason)
    SELECT campaign_id, lower(part), upper(part), reason, tries, found_at, tried_at, next_try_at,
           accepted_at, accepted_by, accepted_reason
      FROM proven CROSS JOIN LATERAL unnest(
           tstzmultirange(tstzrange(window_after, window_before, '()'))
           - tstzmultirange(tstzrange(:after, :before, '()'))) AS part
)
SELECT count(*) FROM proven
""")
_MAKE_GOOD = text("""
UPDATE leadloop.poll_windows AS incomplete SET made_good_at = now()
 WHERE campaign_id = :campaign AND status = 'incomplete' AND made_good_at IS NULL
   AND NOT EXISTS (SELECT FROM leadloop.owed_windows AS owed
                    WHERE owed.campaign_id = :campaign
                      AND owed.window_after <= incomplete.window_before
                      AND owed.window_before >= incomplete.window_after)
""")
# One try a run: several parts of a row may fail in it. The pause is that of the new try.
_FAILED_AGAIN = text("""
UPDATE leadloop.owed_windows AS owed
   SET reason = :reason, tried_at = clock_timestamp(),
       tries = owed.tries + CASE WHEN owed.tried_at < :run_started THEN 1 ELSE 0 END,
       next_try_at = clock_timestamp() + make_interval(secs => CASE
           WHEN accepted_at IS NOT NULL THEN :longest_s
           ELSE least(:longest_s, :first_s * power(2, least(20, owed.tries))) END)
 WHERE campaign_id = :campaign AND window_after <= :after AND window_before >= :before
""")
# A range found in this run that it touches is made longer.
_EXTEND = text("""
UPDATE leadloop.owed_windows
   SET window_after = least(window_after, :after), window_before = greatest(window_before, :before)
 WHERE owed_id = (SELECT owed_id FROM leadloop.owed_windows
                   WHERE campaign_id = :campaign AND accepted_at IS NULL
                     AND found_at >= :run_started AND reason = :reason
                     AND window_after <= :before AND window_before >= :after
                   ORDER BY owed_id LIMIT 1)
""")
_INSERT = text("""
INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason, next_try_at)
VALUES (:campaign, :after, :before, :reason, clock_timestamp() + make_interval(secs => :first_s))
""")
_ACCEPT = text("""
UPDATE leadloop.owed_windows
   SET accepted_at = clock_timestamp(), accepted_by = session_user, accepted_reason = :reason,
       next_try_at = clock_timestamp() + make_interval(secs => :longest_s)
 WHERE owed_id = :owed_id
RETURNING campaign_id
""")


@dataclass(frozen=True, kw_only=True)
class OwedWindow:
    """A row of `leadloop.owed_windows`; `is_due`: its next try is due by the database's clock."""

    owed_id: int
    campaign_id: str
    window: Window
    reason: str
    tries: int
    found_at: datetime
    tried_at: datetime
    next_try_at: datetime
    accepted_at: datetime | None
    accepted_by: str | None
    accepted_reason: str | None
    is_due: bool


def list_owed_windows(connection: Connection, campaign_ids: Sequence[str]) -> list[OwedWindow]:
    """List the owed windows of campaigns, accepted ones included, by campaign and time."""
    rows = connection.execute(_LIST, {"campaigns": list(campaign_ids)}).mappings()
    return [
        OwedWindow(
            window=Window(after=row["window_after"], before=row["window_before"]),
            **{
                name: value
                for name, value in row.items()
                if name not in ("window_after", "window_before")
            },
        )
        for row in rows
    ]


def subtract_proven(connection: Connection, campaign_id: str, proven: Window) -> bool:
    """Remove a range that was read completely from what is owed; return whether any of it was.

    The caller moves the watermark afterwards (`watermarks.follow_read_range`).
    """
    parameters = {"campaign": campaign_id, "after": proven.after, "before": proven.before}
    had_owed = connection.execute(_SUBTRACT, parameters).scalar_one() > 0
    if had_owed:
        connection.execute(_MAKE_GOOD, parameters)
    return had_owed


def record_failed_read(
    connection: Connection, campaign_id: str, window: Window, *, reason: str, run_started: datetime
) -> None:
    """Record that a read of a window failed: owe it, or try what is owed of it again later.

    Args:
        connection: a transaction.
        campaign_id: the campaign.
        window: the narrowest range that failed.
        reason: how it failed, without personal data.
        run_started: the database's clock when the run began. Several failures of one run are one
            try, and ranges that they find side by side become one.
    """
    parameters = {
        "campaign": campaign_id,
        "after": window.after,
        "before": window.before,
        "reason": reason,
        "run_started": run_started,
        "first_s": FIRST_PAUSE_S,
        "longest_s": LONGEST_PAUSE_S,
    }
    for statement in (_FAILED_AGAIN, _EXTEND, _INSERT):
        if connection.execute(statement, parameters).rowcount:
            return


def accept_owed_window(connection: Connection, owed_id: int, reason: str) -> str | None:
    """Accept that an owed window cannot be read, and let the watermark pass it.

    It stays on the list, and is tried at the slowest pace.

    Args:
        connection: a transaction.
        owed_id: the window's number.
        reason: why, in the person's words; not empty.

    Returns:
        The campaign's id; None if no window has this number.
    """
    parameters = {"owed_id": owed_id, "reason": reason, "longest_s": LONGEST_PAUSE_S}
    campaign_id: str | None = connection.scalar(_ACCEPT, parameters)
    if campaign_id is not None:
        watermarks.follow_read_range(connection, campaign_id)
    return campaign_id
