"""A run's counts as a person reads them."""

from collections.abc import Mapping
from typing import Any


def in_words(summary: Mapping[str, Any]) -> str:
    """A run's counts in one line, without the noughts; of a run in stages, each of them."""
    stages = {name: part for name, part in summary.items() if "campaigns" in _mapping(part)}
    if stages:
        return "; ".join(f"{name}: {in_words(part)}" for name, part in stages.items())
    said = [f"{name.replace('_', ' ')} {value:,}" for name, value in sums(summary).items() if value]
    return ", ".join(said) or "nothing to do"


def sums(summary: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a summary over all its campaigns."""
    return {name: value for name, value in summary.items() if isinstance(value, int)}


def _mapping(part: object) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else {}
