"""Run summaries as text for people."""

from collections.abc import Mapping
from typing import Any


def format_summary(summary: Mapping[str, Any]) -> str:
    """Format a run's non-zero counts in one line; a run in stages has a part for each stage."""
    if parts := select_stages(summary):
        return "; ".join(f"{name}: {format_summary(part)}" for name, part in parts.items())
    counts = select_counts(summary).items()
    texts = [f"{name.replace('_', ' ')} {value:,}" for name, value in counts if value]
    return ", ".join(texts) or "nothing to do"


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


def has_counts(summary: Mapping[str, Any]) -> bool:
    """Return whether any count of any stage is above zero."""
    parts = [*select_stages(summary).values(), summary]
    return any(any(select_counts(part).values()) for part in parts)
