"""Owed windows: ranges of `processed_at` that no read could complete, each tried ever more seldom.

A row's range shrinks by what later reads prove, and the row is deleted when nothing is left of it.
A range that a person accepted as unreadable no longer holds the watermark, and is still tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from db import watermarks
from leadloop.core.windows import Window

#: The pause before the second try of an owed window, seconds; each pause is twice the one before.
FIRST_PAUSE_S = 60
#: The longest pause, seconds; a range that a person accepted is tried at this pace.
LONGEST_PAUSE_S = 86_400

_COLUMNS = """
       owed_id, campaign_id, window_after, window_before, reason, tries, tries_as_is, found_at,
       tried_at, next_try_at, accepted_at, accepted_by, accepted_reason,
       next_try_at <= clock_timestamp() AS is_due,
       tried_at < clock_timestamp() - interval '1 day' AS is_untried
"""
_LIST = text(f"""
SELECT {_COLUMNS} FROM leadloop.owed_windows
 WHERE CAST(:campaigns AS text[]) IS NULL OR campaign_id = ANY(:campaigns)
 ORDER BY campaign_id, window_after, owed_id
""")
_LOCK = text(f"SELECT {_COLUMNS} FROM leadloop.owed_windows WHERE owed_id = :owed_id FOR UPDATE")
# Windows share their bounds with their neighbours: a row that only touches the range keeps its
# bounds. The first part of a row keeps its number, which a person may have seen, and its history.
# Each part has failed once as it is.
_SUBTRACT = text("""
WITH hit AS (
    SELECT owed_id, tstzmultirange(tstzrange(window_after, window_before, '()'))
                    - tstzmultirange(tstzrange(:after, :before, '()')) AS rest
      FROM leadloop.owed_windows
     WHERE campaign_id = :campaign
       AND (window_after < :before AND window_before > :after AND :after < :before
            OR window_after >= :after AND window_before <= :before)
       FOR UPDATE
), part AS (
    SELECT owed_id, lower(span) AS after, upper(span) AS before,
           row_number() OVER (PARTITION BY owed_id ORDER BY span) AS number
      FROM hit CROSS JOIN LATERAL unnest(rest) AS span
), deleted AS (
    DELETE FROM leadloop.owed_windows
     WHERE owed_id IN (SELECT owed_id FROM hit WHERE isempty(rest))
), shortened AS (
    UPDATE leadloop.owed_windows AS owed
       SET window_after = part.after, window_before = part.before, tries_as_is = 1
      FROM part WHERE part.owed_id = owed.owed_id AND part.number = 1
), added AS (
    INSERT INTO leadloop.owed_windows
           (campaign_id, window_after, window_before, reason, tries, found_at, tried_at,
            next_try_at, accepted_at, accepted_by, accepted_reason)
    SELECT campaign_id, part.after, part.before, reason, tries, found_at, tried_at, next_try_at,
           accepted_at, accepted_by, accepted_reason
      FROM part JOIN leadloop.owed_windows USING (owed_id) WHERE part.number = 2
)
SELECT count(*) FROM hit
""")
_MAKE_GOOD = text("""
UPDATE leadloop.poll_windows AS incomplete SET made_good_at = now()
 WHERE campaign_id = :campaign AND status = 'incomplete' AND made_good_at IS NULL
   AND NOT EXISTS (SELECT FROM leadloop.owed_windows AS owed
                    WHERE owed.campaign_id = :campaign
                      AND (owed.window_after < incomplete.window_before
                           AND owed.window_before > incomplete.window_after
                           OR owed.window_after >= incomplete.window_after
                           AND owed.window_before <= incomplete.window_before))
""")
# Several failures of one run are one try.
_NEW_TRIES = "CASE WHEN tried_at < :run_started THEN 1 ELSE 0 END"
_TRIES = f"tries + {_NEW_TRIES}"
_FAILED_AGAIN = f"""
       reason = :reason, tried_at = clock_timestamp(), tries = {_TRIES},
       tries_as_is = CASE WHEN window_after <= :after AND window_before >= :before
                          THEN tries_as_is + {_NEW_TRIES} ELSE 1 END,
       next_try_at = clock_timestamp() + make_interval(secs => CASE
           WHEN accepted_at IS NOT NULL THEN :longest_s
           ELSE least(:longest_s, :first_s * power(2, least(20, {_TRIES} - 1))) END)
"""
_TRY_LATER = text(f"""
UPDATE leadloop.owed_windows SET {_FAILED_AGAIN}
 WHERE campaign_id = :campaign AND window_after <= :after AND window_before >= :before
""")
# A range within the window is owed for the same results; one that this run has found and that the
# window touches, for the same reason. An accepted range is never made longer.
_EXTEND = text(f"""
UPDATE leadloop.owed_windows
   SET window_after = least(window_after, :after), window_before = greatest(window_before, :before),
       {_FAILED_AGAIN}
 WHERE owed_id = (SELECT owed_id FROM leadloop.owed_windows
                   WHERE campaign_id = :campaign AND accepted_at IS NULL
                     AND (window_after >= :after AND window_before <= :before
                          OR found_at >= :run_started AND reason = :reason
                             AND window_after <= :before AND window_before >= :after)
                   ORDER BY owed_id LIMIT 1)
""")
_INSERT = text("""
INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason, found_at,
                                   tried_at, next_try_at)
VALUES (:campaign, :after, :before, :reason, clock_timestamp(), clock_timestamp(),
        clock_timestamp() + make_interval(secs => :first_s))
""")
_ACCEPT = text("""
UPDATE leadloop.owed_windows
   SET accepted_at = clock_timestamp(), accepted_by = session_user, accepted_reason = :reason,
       next_try_at = clock_timestamp() + make_interval(secs => :longest_s)
 WHERE owed_id = :owed_id AND accepted_at IS NULL
RETURNING campaign_id
""")
_MAKE_DUE = text(f"""
UPDATE leadloop.owed_windows SET next_try_at = clock_timestamp()
 WHERE owed_id = :owed_id RETURNING {_COLUMNS}
""")


@dataclass(frozen=True, kw_only=True)
class OwedWindow:
    """A row of `leadloop.owed_windows`.

    By the database's clock, `is_due`: its next try is due; `is_untried`: no poll has tried it for
    a day.
    """

    owed_id: int
    campaign_id: str
    window: Window
    reason: str
    tries: int
    tries_as_is: int
    found_at: datetime
    tried_at: datetime
    next_try_at: datetime
    accepted_at: datetime | None
    accepted_by: str | None
    accepted_reason: str | None
    is_due: bool
    is_untried: bool


def list_owed_windows(
    connection: Connection, campaign_ids: Sequence[str] | None
) -> list[OwedWindow]:
    """List the owed windows of campaigns, accepted ones included, by campaign and time.

    Without a list of campaigns: of all, also of those that `leadloop.campaigns` lacks.
    """
    campaigns = None if campaign_ids is None else list(campaign_ids)
    return [_to_owed_window(row) for row in connection.execute(_LIST, {"campaigns": campaigns})]


def lock_owed_window(connection: Connection, owed_id: int) -> OwedWindow | None:
    """Return an owed window, and lock its row until the transaction ends; None: no such number."""
    row = connection.execute(_LOCK, {"owed_id": owed_id}).one_or_none()
    return None if row is None else _to_owed_window(row)


def _to_owed_window(row: Row[Any]) -> OwedWindow:
    columns = dict(row._mapping)
    window = Window(after=columns.pop("window_after"), before=columns.pop("window_before"))
    return OwedWindow(window=window, **columns)


def subtract_proven(connection: Connection, campaign_id: str, proven: Window) -> bool:
    """Remove a range that was read completely from what is owed; return whether any of it was.

    The caller moves the watermark afterwards (`watermarks.follow_read_range`).
    """
    parameters = {"campaign": campaign_id, "after": proven.after, "before": proven.before}
    had_owed: bool = connection.execute(_SUBTRACT, parameters).scalar_one() > 0
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
    for statement in (_TRY_LATER, _EXTEND, _INSERT):
        if connection.execute(statement, parameters).rowcount:
            return


def accept_owed_window(connection: Connection, owed_id: int, reason: str) -> str | None:
    """Accept that an owed window cannot be read, and let the watermark pass it.

    It stays on the list, and is tried at the slowest pace. An earlier acceptance stays as it is.

    Args:
        connection: a transaction.
        owed_id: the window's number.
        reason: why, in the person's words; not empty.

    Returns:
        The campaign's id; None if no window of this number waits to be accepted.
    """
    parameters = {"owed_id": owed_id, "reason": reason, "longest_s": LONGEST_PAUSE_S}
    campaign_id: str | None = connection.scalar(_ACCEPT, parameters)
    if campaign_id is not None:
        watermarks.follow_read_range(connection, campaign_id)
    return campaign_id


def make_due(connection: Connection, owed_id: int) -> OwedWindow | None:
    """Let the next poll read an owed window again; return it, or None: no such number."""
    row = connection.execute(_MAKE_DUE, {"owed_id": owed_id}).one_or_none()
    return None if row is None else _to_owed_window(row)
