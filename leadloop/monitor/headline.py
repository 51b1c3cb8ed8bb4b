"""The page's first line, decided from a status snapshot; durations and counts as text."""

from dataclasses import dataclass
from typing import Literal

from db.monitor import StatusSnapshot
from leadloop.core.plurals import format_count

Level = Literal["critical", "warning", "stale", "ok", "empty"]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The overall state in a word or two; advice and command where no other section has them."""

    level: Level
    text: str
    advice: str | None = None
    command: str | None = None


def choose_headline(status: StatusSnapshot, *, is_stale: bool) -> Headline:
    """Return the most severe state; staleness takes precedence over any problem."""
    problems = status.problems
    if is_stale:
        return Headline(
            level="stale",
            text="Stale",
            advice="the refresh failed; the data below dates from the time after “As of”.",
        )
    total = format_count(len(problems), "problem")
    if any(problem["severity"] == "critical" for problem in problems):
        return Headline(level="critical", text=f"Critical: {total}")
    if problems:
        return Headline(level="warning", text=f"Warning: {total}")
    if not status.campaign_ids:
        return Headline(
            level="empty",
            text="No campaign yet",
            advice="Load the first leads:",
            command="leadloop load FILE.csv --campaign C",
        )
    return Headline(level="ok", text="All is well")


def format_rough_duration(seconds: float) -> str:
    """Format a duration in its largest suitable unit: 45 s, 12 min, 3 h, 4 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"
