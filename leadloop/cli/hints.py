"""Hints on stderr after a run, one line each: what is left to do, what was ignored."""

from collections.abc import Iterator, Mapping
from typing import Any

_STUCK_GUIDE = "docs/how-to/handle-stuck-leads.md"
_STAGES = ("disable", "push", "poll")


def leftover_hints(summary: Mapping[str, Any]) -> list[str]:
    """List what a run leaves for the next run or for a person."""
    counts = {key: value for stage in _iter_stages(summary) for key, value in stage.items()}
    hints = []
    if counts.get("rejected"):
        hints.append(
            f"leads rejected: {counts['rejected']:,}; none of them is sent: correct them by their"
            f" reasons, then leadloop requeue --rejected ({_STUCK_GUIDE}#rejected-leads)"
        )
    if counts.get("in_doubt"):
        hints.append(
            f"leads in doubt: {counts['in_doubt']:,}; the vendor may have them, so none is sent"
            f" again before a lookup: leadloop push looks them up ({_STUCK_GUIDE}#leads-in-doubt)"
        )
    if counts.get("held_back"):
        hints.append(
            f"leads held back: {counts['held_back']:,}; they stay new while their campaign is"
            " paused, not enabled or held: leadloop resume ends a pause, leadloop.campaigns has"
            " enabled, leadloop status shows a hold"
        )
    return hints + opt_out_hints(failed=counts.get("failed", 0), requested=0)


def empty_poll_hints(summary: Mapping[str, Any]) -> list[str]:
    """Explain for each campaign why a successful poll sent no request."""
    return [
        f"campaign {campaign_id}: no lead was sent yet, so no outcome was requested: leadloop push"
        " sends leads (to poll all the same: leadloop poll --since T)"
        for stage in _iter_stages(summary)
        for campaign_id, counts in stage.get("campaigns", {}).items()
        if counts.get("windows") == 0 and counts.get("requests") == 0
    ]


def opt_out_hints(*, requested: int, failed: int) -> list[str]:
    """List opt-outs that are not carried out."""
    hints = []
    if requested:
        hints.append(
            f"opt-outs waiting: {requested:,}; the vendor has not confirmed them: leadloop disable"
            " sends them"
        )
    if failed:
        hints.append(
            f"opt-outs that failed: {failed:,}; these people may still be called, and each is"
            f" retried at least daily: see {_STUCK_GUIDE}#failed-opt-outs"
        )
    return hints


def ignored_since_hint(campaign_id: str) -> str:
    """Explain that a campaign that was polled before ignores `--since`."""
    return (
        f"campaign {campaign_id} was polled before: a poll goes on where the last one ended, and"
        " --since does not count: leadloop backfill reads a range again"
    )


def _iter_stages(summary: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the summary of each stage of a sync, or the summary of a single flow."""
    stages = [summary[name] for name in _STAGES if name in summary]
    yield from stages or [summary]
