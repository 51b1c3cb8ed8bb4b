"""Summaries: what a run has done, and how its caller gets them also from a run that fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

#: Counts by name, and under `campaigns` each campaign's own; or a summary for each stage.
Summary = dict[str, Any]


class SummaryCollector:
    """Holds the summary of the run that is called in a block of `collect_summary`."""

    def __init__(self) -> None:
        self.summary: Summary = {}


_collector: ContextVar[SummaryCollector | None] = ContextVar("summary_collector", default=None)


@contextmanager
def collect_summary() -> Iterator[SummaryCollector]:
    """Collect the summary of the run in the block, whether it succeeds, fails or is stopped."""
    collector = SummaryCollector()
    token = _collector.set(collector)
    try:
        yield collector
    finally:
        _collector.reset(token)


def report_summary(summary: Summary) -> None:
    """Hand a summary to the caller that collects it, if there is one."""
    if (collector := _collector.get()) is not None:
        collector.summary = summary
