"""The page's first line: is it healthy. Decided from what was seen, and from nothing else."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from db.monitor import Standing

#: A campaign's flows run every few minutes; by then something is wrong with what starts them.
STALE_AFTER = timedelta(minutes=30)

Level = Literal["critical", "warning", "stale", "ok", "empty"]


@dataclass(frozen=True, kw_only=True)
class Headline:
    """How it stands, in a word or two, and what to do where that is not said elsewhere."""

    level: Level
    said: str
    advice: str | None = None
    command: str | None = None


def headline(now: Standing) -> Headline:
    """The worst of what there is to say."""
    problems = now.problems
    if not now.campaign_ids:
        return Headline(
            level="empty",
            said="No campaign yet",
            advice="Nothing to show before the first leads are loaded.",
            command="leadloop load FILE.csv --campaign C",
        )
    if any(problem["severity"] == "critical" for problem in problems):
        return Headline(level="critical", said=f"Critical: {count(len(problems), 'problem')}")
    if problems:
        return Headline(level="warning", said=f"Warning: {count(len(problems), 'problem')}")
    return stale(now) or Headline(level="ok", said="All is well")


def stale(now: Standing) -> Headline | None:
    """What to say where nothing has run for so long that the figures are old; else None."""
    if not any(campaign["enabled"] for campaign in now.campaigns):
        return None
    if now.newest is None:
        return Headline(
            level="stale",
            said="Nothing has run yet",
            advice="Leads wait until a run takes them: is a worker there?",
            command="leadloop sync",
        )
    age = now.at - now.newest["started_at"]
    if age <= STALE_AFTER:
        return None
    return Headline(
        level="stale",
        said=f"Stale: nothing has run for {duration(age.total_seconds())}",
        advice="What you see is as old as that. Is a worker there?",
        command="leadloop doctor",
    )


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
