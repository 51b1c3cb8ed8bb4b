"""`leadloop owed`: the windows that no poll could read, for people and as JSON."""

import shlex
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from db.owed_windows import OwedWindow
from leadloop.core.errors import UsageError
from leadloop.core.escaping import escape_unprintable
from leadloop.core.plurals import format_count
from tasks.owed import Acceptance


def require_owed_options(
    campaigns: Sequence[str] | None, accept: int | None, because: str | None, retry: int | None
) -> None:
    """Check that the options of `leadloop owed` belong together.

    Raises:
        UsageError: they do not; the message names the missing or the surplus one.
    """
    if accept is not None and retry is not None:
        raise UsageError("--accept or --retry: one of them at a time")
    if campaigns and (accept is not None or retry is not None):
        raise UsageError("--campaign is for the list: --accept and --retry take a window's number")
    if accept is not None and because is None:
        raise UsageError('--accept needs --because "why": the reason is kept with the window')
    if because is not None and accept is None:
        raise UsageError("--because belongs to --accept")


def owed_as_json(window: OwedWindow) -> dict[str, Any]:
    """Return an owed window as a JSON object; times are in UTC."""
    found: dict[str, Any] = {
        "owed_id": window.owed_id,
        "campaign_id": window.campaign_id,
        "after": window.window.after,
        "before": window.window.before,
    }
    for field in fields(window):
        if field.name not in (*found, "window", "is_due", "is_untried"):
            found[field.name] = getattr(window, field.name)
    return {
        key: value.astimezone(UTC) if isinstance(value, datetime) else value
        for key, value in found.items()
    }


def render_owed(windows: Sequence[OwedWindow]) -> RenderableType:
    """Render owed windows as a table of 80 columns; their texts are literal."""
    if not windows:
        return Text("Nothing is owed.", style="green")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("campaign", overflow="fold")
    table.add_column("processed from, to", no_wrap=True)
    table.add_column("why", overflow="fold")
    for window in windows:
        table.add_row(
            str(window.owed_id),
            _literal(window.campaign_id),
            Text(f"{_format_time(window.window.after)}\n{_format_time(window.window.before)}"),
            Text("\n").join(_describe_window(window)),
            style="dim" if window.accepted_at else "",
        )
    return table


def describe_acceptance(acceptance: Acceptance) -> list[str]:
    """Describe what an acceptance has changed, in lines for people."""
    window = acceptance.window
    if not acceptance.is_new:
        return [
            f"Nothing changed: window {window.owed_id} of campaign {_name(window)} is accepted"
            f" already, {_describe_acceptance(window)}"
        ]
    return [
        f"Accepted as unreadable: window {window.owed_id} of campaign {_name(window)},"
        f" {_format_window(window)}.",
        _describe_watermark(acceptance),
        "The window stays on the list, and polls try it once a day.",
    ]


def describe_retry(window: OwedWindow) -> str:
    """Describe that a window is due, with the command that reads it."""
    return (
        f"Window {window.owed_id} of campaign {_name(window)}, {_format_window(window)}, is due:"
        " the next poll reads it, or now:"
        f" leadloop poll --campaign {shlex.quote(_name(window))}"
    )


def _describe_window(window: OwedWindow) -> list[Text]:
    tries = format_count(window.tries, "try", "tries")
    due = "due now" if window.is_due else _format_time(window.next_try_at, "seconds")
    lines = [_literal(window.reason), Text(f"{tries}, next: {due}")]
    if window.accepted_at:
        lines.append(Text(f"accepted {_describe_acceptance(window)}"))
    return lines


def _describe_acceptance(window: OwedWindow) -> str:
    at = _format_time(window.accepted_at, "seconds") if window.accepted_at else ""
    return escape_unprintable(f"{at}, by {window.accepted_by}: {window.accepted_reason}")


def _describe_watermark(acceptance: Acceptance) -> str:
    before, after = acceptance.watermark_before, acceptance.watermark
    if before is None or after is None:
        return "The campaign has no watermark yet."
    if before == after:
        return f"The watermark stays at {_format_time(after)}: this window alone did not hold it."
    return f"The watermark moved from {_format_time(before)} to {_format_time(after)}."


def _format_window(window: OwedWindow) -> str:
    return f"{_format_time(window.window.after)} to {_format_time(window.window.before)}"


def _format_time(moment: datetime, precision: str = "milliseconds") -> str:
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision)}Z"


def _name(window: OwedWindow) -> str:
    return escape_unprintable(window.campaign_id)


def _literal(text: str) -> Text:
    return Text(escape_unprintable(text))
