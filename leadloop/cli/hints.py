"""What a person should know about the counts of a run, in one line each."""

from collections.abc import Iterator, Mapping
from typing import Any

_STUCK_GUIDE = "docs/how-to/handle-stuck-leads.md"
_STAGES = ("disable", "push", "poll")


def leftover_hints(summary: Mapping[str, Any]) -> list[str]:
    """What a run leaves for later, or for a person."""
    counts = {key: value for part in _iter_stages(summary) for key, value in part.items()}
    found = []
    if counts.get("in_doubt"):
        found.append(
            f"leads in doubt: {counts['in_doubt']:,}; the next push looks them up ({_STUCK_GUIDE})"
        )
    if counts.get("held_back"):
        found.append(
            f"leads held back: {counts['held_back']:,}; their campaign is paused or not enabled"
            " (leadloop resume lets it create again)"
        )
    return found + opt_out_hints(failed=counts.get("failed", 0), requested=0)


def empty_poll_hints(summary: Mapping[str, Any]) -> list[str]:
    """Why a run that went well has read nothing at all."""
    return [
        f"campaign {name}: nothing was sent yet, so nothing can have come back"
        " (poll --since T reads all the same)"
        for part in _iter_stages(summary)
        for name, counts in part.get("campaigns", {}).items()
        if counts.get("windows") == 0 and counts.get("requests") == 0
    ]


def opt_out_hints(*, requested: int, failed: int) -> list[str]:
    """About opt-outs that are not carried out."""
    found = []
    if requested:
        found.append(f"opt-outs waiting: {requested:,}; leadloop disable sends them")
    if failed:
        found.append(
            f"opt-outs that failed: {failed:,}; these people may still be called ({_STUCK_GUIDE})"
        )
    return found


def ignored_since_hint(campaign_id: str) -> str:
    """About a `--since` that has no meaning."""
    return (
        f"campaign {campaign_id} was polled before: it goes on at its watermark, and --since does"
        " not count (leadloop backfill reads a range again)"
    )


def _iter_stages(summary: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The summaries of the stages, or the only one."""
    stages = [summary[name] for name in _STAGES if name in summary]
    yield from stages or [summary]
