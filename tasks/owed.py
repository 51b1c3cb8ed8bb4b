"""Listing, accepting and retrying of owed windows, for `leadloop owed`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from db import campaigns, owed_windows, watermarks
from db.database import Connection, Database
from db.owed_windows import OwedWindow
from leadloop.core.errors import UsageError
from leadloop.core.timestamps import EpochUnit
from leadloop.core.windows import is_narrow
from leadloop.settings import Settings

#: After this number of tries, polls have not narrowed a window, and will not.
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


def accept_owed(database: Database, settings: Settings, owed_id: int, reason: str) -> Acceptance:
    """Accept an owed window as unreadable, in one transaction with the watermark that passes it.

    Accepting twice changes nothing. Control and invisible characters of the reason become blanks.
    A window that no poll has tried for a day is accepted however long it is: the vendor may refuse
    its campaign altogether, or the campaign may be gone.

    Raises:
        UsageError: no window has this number, the reason is empty, or polls may still narrow it
            down: then more would be given up than cannot be read.
    """
    words = "".join(c if c.isprintable() else " " for c in reason).split()
    if not words:
        raise UsageError("the reason is empty: write why the window is accepted")

    def accept(connection: Connection) -> Acceptance:
        found = _require_window(owed_windows.lock_owed_window(connection, owed_id), owed_id)
        if not (found.accepted_at or found.is_untried):
            _require_narrow(found, _get_epoch_unit(connection, settings, found.campaign_id))
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


def _get_epoch_unit(connection: Connection, settings: Settings, campaign_id: str) -> EpochUnit:
    """Return the epoch unit of a campaign; of one that was deleted, that of the settings."""
    rules = settings.campaign_rules()
    found = campaigns.find_campaigns(connection, [campaign_id], rules)
    return found[0].epoch_unit if found else rules.epoch_unit


def _require_narrow(owed: OwedWindow, unit: EpochUnit) -> None:
    if not is_narrow(owed.window, unit) and owed.tries_as_is < _TRIES_TO_NARROW:
        raise UsageError(
            f"window {owed.owed_id} was tried {owed.tries_as_is} of {_TRIES_TO_NARROW} times as it"
            " is, and polls may still narrow it down: nothing was changed; `leadloop owed --retry"
            f" {owed.owed_id}`, then `leadloop poll --campaign {owed.campaign_id}`"
        )


def _require_window(window: OwedWindow | None, owed_id: int) -> OwedWindow:
    if window is None:
        raise UsageError(
            f"no owed window has the number {owed_id}, and nothing was changed; a poll may have"
            " read it meanwhile: `leadloop owed` lists those that are left"
        )
    return window
