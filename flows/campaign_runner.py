"""Run a flow's jobs under Prefect: tasks, progress, artifacts, events, the summary."""

import ctypes
import gc
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from db import campaign_status
from db.database import DatabaseError
from flows.reporting import (
    emit_count_events,
    emit_problem_events,
    publish_artifact,
    report_progress,
)
from leadloop.core.summaries import Summary, report_summary
from leadloop.core.summary_text import format_names, select_counts
from tasks.blocks import RunSettings, resolve_settings
from tasks.context import C, DatabaseContext, RunHost, translate_unexpected
from tasks.jobs import JobRunner, JobSpec

T = TypeVar("T")

# mallopt's name for it in glibc's malloc.h.
_M_ARENA_MAX = -8


def run_campaigns(
    spec: JobSpec[C],
    ids: Sequence[str] | None,
    run_settings: RunSettings | None,
    *,
    on_started: Callable[[Sequence[Any]], None] = lambda _: None,
    on_summary: Callable[[Summary], None] = lambda _: None,
    publish: Callable[[Summary], None] | None = None,
) -> Summary:
    """Run a flow's job for each of its campaigns, each chunk as a Prefect task.

    Args:
        spec: how the flow makes and runs its jobs.
        ids: campaigns; none: all that the spec selects.
        run_settings: settings for this run alone.
        on_started: is called with all jobs before the first chunk.
        on_summary: may add to the summary, also where campaigns failed.
        publish: creates the run's artifacts; None: one with a table of the counts.

    Returns:
        The counts, and under `campaigns` each one's own.

    Raises:
        UsageError: settings are wrong, a campaign is unknown, or the schema has another version.
        CampaignsFailed: at least one campaign failed; the others were done.
        BaseException: the run was stopped (Ctrl-C, SIGTERM).
    """
    _tune_memory()
    settings = resolve_settings(run_settings)
    with report_progress(), spec.open_context(settings, prefect_host()) as context:
        runner = JobRunner(context, spec, ids)
        try:
            runner.run(on_started=on_started)
        finally:
            summary = runner.summary()
            on_summary(summary)
            report_summary(summary)
            if publish is None:
                publish_artifact(spec.flow, summary, page=settings.page_url)
            else:
                publish(summary)
            for campaign_id, counts in summary["campaigns"].items():
                # Counts alone: what `on_summary` adds may quote the vendor, and Prefect keeps it.
                emit_count_events(campaign_id, select_counts(counts))
            emit_problem_events(_list_problems(context, runner.campaign_ids))
    return summary


def prefect_host() -> RunHost:
    """Return the flow run of this thread as the host of jobs: each step is a Prefect task."""
    return RunHost(log=get_run_logger(), flow_run_id=flow_run.get_id(), run_step=_StepsAsTasks())


class _StepsAsTasks:
    """Runs each step as a Prefect task, named by the step, its campaigns and its turn."""

    def __init__(self) -> None:
        self._turns: Counter[str] = Counter()

    def __call__(self, name: str, campaign_ids: Sequence[str], step: Callable[[], T], /) -> T:
        """Run a step as a task that is never cached, and whose result is not stored.

        Prefect logs and stores the text of an exception, so an unexpected one is replaced before.
        """
        run_name = f"{name} {format_names(campaign_ids)}"
        self._turns[run_name] += 1
        if self._turns[run_name] > 1:
            run_name += f" ({self._turns[run_name]})"

        # A template would take braces in an id for a parameter.
        @task(
            name=name,
            task_run_name=lambda: run_name,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        def run_step() -> T:
            with translate_unexpected(get_run_logger()):
                return step()

        return run_step()


def _tune_memory() -> None:
    """Exclude imported modules from garbage collection, and limit the arenas of glibc's malloc.

    Scanning the modules again and again, and once more at exit, took a sixth of a run with nothing
    to do. With an arena for each thread, a poll of a million outcomes would take half as much again
    as one of ten thousand (docs/benchmarks.md). MALLOC_ARENA_MAX=1 does the same from the start of
    the process, but a work pool that sets it lets each run set its environment.
    """
    if not gc.get_freeze_count():
        gc.freeze()
    # No more arenas than there are by now. Other C libraries have neither arenas nor mallopt.
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _list_problems(context: DatabaseContext, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the open problems of campaigns after a run; none where they cannot be read."""
    if not ids:
        return []
    try:
        with context.database.transaction() as connection:
            return campaign_status.list_problems(connection, ids)
    except DatabaseError as error:
        context.log.warning("the problems of the campaigns cannot be read: %s", error)
        return []
