"""Run summaries as text for people."""

from collections.abc import Mapping, Sequence
from typing import Any

# Campaigns that are named in a line.
_MAX_NAMED = 3

# Counts that are parts of another one, and their names.
_PARTS: Mapping[str, Mapping[str, str]] = {
    "in_doubt": {"not_looked_up": "not looked up yet", "settling": "wait for SETTLE"},
}
_MAX_NAMED = 3
_MAX_LINES = 10


def format_summary(summary: Mapping[str, Any]) -> str:
    """Format a run's non-zero counts in one line; a run in stages has a part for each stage."""
    if parts := select_stages(summary):
        return "; ".join(f"{name}: {format_summary(part)}" for name, part in parts.items())
    counts = select_counts(summary)
    parts_of_others = {part for parts in _PARTS.values() for part in parts}
    texts = [
        f"{name.replace('_', ' ')} {value:,}{_format_parts(name, counts)}"
        for name, value in counts.items()
        if value and name not in parts_of_others
    ]
    return ", ".join(texts) or "nothing to do"


def _format_parts(name: str, counts: Mapping[str, int]) -> str:
    """Return the parts of a count, to follow it."""
    parts = _PARTS.get(name, {})
    texts = [f"{counts[part]:,} {text}" for part, text in parts.items() if counts.get(part)]
    return f", of which {', '.join(texts)}" if texts else ""


def select_stages(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the summaries of a run's stages by name; empty for a run without stages."""
    return {
        name: part
        for name, part in summary.items()
        if isinstance(part, Mapping) and "campaigns" in part
    }


def select_counts(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of a summary, summed over its campaigns."""
    return {name: value for name, value in summary.items() if isinstance(value, int)}


def format_names(names: Sequence[str]) -> str:
    """Format the first three names, and how many more there are."""
    named, more = ", ".join(names[:_MAX_NAMED]), len(names) - _MAX_NAMED
    return f"{named} and {more:,} more" if more > 0 else named


def name_campaigns(ids: Sequence[str]) -> str:
    """Format campaigns for a sentence: `campaign 1`, or `campaigns 1, 2, 3 and 5 more`."""
    return f"campaign{'s' if len(ids) > 1 else ''} {format_names(ids)}"


def shorten_lines(lines: Sequence[str], limit: int = _MAX_LINES) -> list[str]:
    """Return the first lines up to a limit, and how many more there are."""
    more = len(lines) - limit
    return [*lines[:limit], *([f"and {more:,} more"] if more > 0 else [])]


def has_counts(summary: Mapping[str, Any]) -> bool:
    """Return whether any count of any stage is above zero."""
    parts = [*select_stages(summary).values(), summary]
    return any(any(select_counts(part).values()) for part in parts)
