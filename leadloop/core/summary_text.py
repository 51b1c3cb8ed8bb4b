"""A run's counts as a person reads them."""

from collections.abc import Mapping
from typing import Any


def format_summary(summary: Mapping[str, Any]) -> str:
    """A run's counts in one line, without the noughts; of a run in stages, each of them."""
    if parts := select_stages(summary):
        return "; ".join(f"{name}: {format_summary(part)}" for name, part in parts.items())
    said = [
        f"{name.replace('_', ' ')} {value:,}"
        for name, value in select_counts(summary).items()
        if value
    ]
    return ", ".join(said) or "nothing to do"


def select_stages(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The summaries in the summary of a run in stages; none of any other run."""
    return {name: part for name, part in summary.items() if "campaigns" in _mapping(part)}


def select_counts(summary: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a summary over all its campaigns."""
    return {name: value for name, value in summary.items() if isinstance(value, int)}


def has_counts(summary: Mapping[str, Any]) -> bool:
    """Whether any count, of any stage, is not nought."""
    parts = [*select_stages(summary).values(), summary]
    return any(any(select_counts(part).values()) for part in parts)


def _mapping(part: object) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else {}
