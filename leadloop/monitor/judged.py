"""The page's first line: is it healthy. Decided from what was seen, and from nothing else."""

from dataclasses import dataclass
from typing import Literal

from db.monitor import StatusSnapshot

Level = Literal["critical", "warning", "stale", "ok", "empty"]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """How it stands, in a word or two, and what to do where that is not said elsewhere."""

    level: Level
    said: str
    advice: str | None = None
    command: str | None = None


def headline(now: StatusSnapshot, *, is_stale: bool) -> Headline:
    """The worst of what there is to say; of what could not be renewed, that."""
    problems = now.problems
    if is_stale:
        return Headline(
            level="stale",
            said="Stale",
            advice="what you see could not be renewed; “As of” is the time of it.",
        )
    if any(problem["severity"] == "critical" for problem in problems):
        return Headline(level="critical", said=f"Critical: {count(len(problems), 'problem')}")
    if problems:
        return Headline(level="warning", said=f"Warning: {count(len(problems), 'problem')}")
    if not now.campaign_ids:
        return Headline(
            level="empty",
            said="No campaign yet",
            advice="Nothing to show before the first leads are loaded.",
            command="leadloop load FILE.csv --campaign C",
        )
    return Headline(level="ok", said="All is well")


def duration(seconds: float) -> str:
    """As a person says it, in one unit: 45 s, 12 min, 3 h, 4 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"


def count(number: int, thing: str) -> str:
    """As a person says it: 1 problem, 2 problems."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
