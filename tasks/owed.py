"""Listing, accepting and retrying of owed windows, for `leadloop owed`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from db import campaigns, owed_windows, watermarks
from db.database import Connection, Database
from db.owed_windows import OwedWindow
from leadloop.core.errors import UsageError
from leadloop.settings import Settings

#: A window that is no longer than this is as narrow as polls make one, whatever the epoch's unit.
_NARROW = timedelta(seconds=10)
#: After this number of tries, polls have not narrowed a longer one, and will not.
_TRIES_TO_NARROW = 3


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """An accepted window, and the campaign's watermark before and after.

    `is_new`: this acceptance is the first; otherwise nothing has changed.
    """

    window: OwedWindow
    is_new: bool
    watermark_before: datetime | None
    watermark: datetime | None


def list_owed(
    database: Database, settings: Settings, campaign_ids: Sequence[str]
) -> list[OwedWindow]:
    """List the owed windows of campaigns, accepted ones included; no ids: of all campaigns.

    Raises:
        UsageError: an unknown campaign.
    """

    def select(connection: Connection) -> list[OwedWindow]:
        if campaign_ids:
            campaigns.list_campaigns(connection, campaign_ids, settings.campaign_rules())
        return owed_windows.list_owed_windows(connection, campaign_ids or None)

    return database.run(select)


def accept_owed(database: Database, owed_id: int, reason: str) -> Acceptance:
    """Accept an owed window as unreadable, in one transaction with the watermark that passes it.

    Accepting twice changes nothing. Control and invisible characters of the reason become blanks.

    Raises:
        UsageError: no window has this number, the reason is empty, or polls may still narrow it
            down: then more would be given up than cannot be read.
    """
    words = "".join(c if c.isprintable() else " " for c in reason).split()
    if not words:
        raise UsageError("the reason is empty: write why the window is accepted")

    def accept(connection: Connection) -> Acceptance:
        found = _require_window(owed_windows.lock_owed_window(connection, owed_id), owed_id)
        _require_narrow(found)
        before = watermarks.get_watermark(connection, found.campaign_id)
        owed_windows.accept_owed_window(connection, owed_id, " ".join(words))
        return Acceptance(
            window=_require_window(owed_windows.lock_owed_window(connection, owed_id), owed_id),
            is_new=found.accepted_at is None,
            watermark_before=before,
            watermark=watermarks.get_watermark(connection, found.campaign_id),
        )

    return database.run(accept)


def retry_owed(database: Database, owed_id: int) -> OwedWindow:
    """Let the next poll read an owed window again, whenever its next try was due.

    Raises:
        UsageError: no window has this number.
    """
    return _require_window(database.run(owed_windows.make_due, owed_id), owed_id)


def _require_narrow(owed: OwedWindow) -> None:
    if owed.window.length > _NARROW and owed.tries < _TRIES_TO_NARROW:
        raise UsageError(
            f"window {owed.owed_id} was tried {owed.tries} of {_TRIES_TO_NARROW} times, and polls"
            " may still narrow it down, so nothing was changed: `leadloop owed --retry"
            f" {owed.owed_id}`, then `leadloop poll`"
        )


def _require_window(window: OwedWindow | None, owed_id: int) -> OwedWindow:
    if window is None:
        raise UsageError(
            f"no owed window has the number {owed_id}, and nothing was changed; a poll may have"
            " read it meanwhile: `leadloop owed` lists those that are left"
        )
    return window
