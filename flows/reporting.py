"""What Prefect shows of a run: its name, final state, artifacts and events.

All of it is ids and counts: access to Prefect gives no access to personal data.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.exceptions import FailedRun, MissingResult
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from leadloop.core.errors import RunError
from leadloop.core.escaping import escape_markdown
from leadloop.core.progress import has_no_listener, progress_listener
from leadloop.core.summaries import Summary
from leadloop.core.summary_text import (
    format_names,
    format_summary,
    has_counts,
    select_counts,
    select_stages,
    shorten_lines,
)
from leadloop.core.windows import Window
from tasks.prefect_progress import ProgressArtifacts, log_prefect_errors

#: Counts of a run that are emitted as an event of their campaign, unless they are 0. Problems that
#: are open after the run have separate events: `emit_problem_events`.
EVENTS: Mapping[str, str] = {
    "rejected": "leadloop.leads.rejected",
    "late": "leadloop.outcomes.late",
    "failed": "leadloop.opt-outs.failed",
}
_MAX_ROWS = 100
_NO_KEY = re.compile("[^a-z0-9]+")
_KEY_LENGTH = 40

# Whether the flow run of this thread is a stage of another one, whose artifact shows it.
_is_stage: ContextVar[bool] = ContextVar("is_stage", default=False)


def make_run_name() -> str:
    """Return a run's name: its flow, its campaigns, and the requested limit or range."""
    parameters = flow_run.parameters
    ids = [str(campaign) for campaign in parameters.get("campaigns") or ["every campaign"]]
    moments = [
        _format_bound(word, value)
        for word in ("limit", "since", "after", "before")
        if (value := parameters.get(word))
    ]
    return " ".join([str(flow_run.flow_name), format_names(ids), *moments])


def append_range_to_run_name(windows: Sequence[Window]) -> None:
    """Append to the run's name the range of the windows that it reads; nothing without windows."""
    if not windows:
        return
    after = _format_bound("after", min(window.after for window in windows))
    before = _format_bound("before", max(window.before for window in windows))
    name = f"{make_run_name()} {after} {before}"
    with log_prefect_errors(), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(flow_run.get_id()), name=name)


def completed_state(summary: Summary, failures: Sequence[str] = ()) -> Summary:
    """Return a summary as the run's final state, whose message has its counts, and failures.

    Prefect hands the caller of a flow the data of its state, so the caller gets the summary.
    """
    message = "; ".join([format_summary(summary), *shorten_lines(failures)])
    return cast("Summary", Completed(message=message, data=summary))


def cancelled_state(summary: Summary, failures: Sequence[str] = ()) -> Summary:
    """Return the final state of a run that somebody has cancelled; its message is the same."""
    message = "; ".join([format_summary(summary), *shorten_lines(failures)])
    return cast("Summary", Cancelled(message=message, data=summary))


def call_flow(flow: Callable[..., object], **parameters: Any) -> None:
    """Run a flow in this process; `collect_summary` has its summary.

    When the response to a final state is lost, Prefect's client sends the state again. The server
    then answers with its own copy, which has no data: the flow has ended like that all the same.

    Raises:
        LeadloopError: the flow has failed.
    """
    try:
        with suppress(MissingResult):
            flow(**parameters)
    except FailedRun as failure:
        raise RunError(str(failure)) from None


@contextmanager
def run_as_stage() -> Iterator[None]:
    """Have the flows in the block leave no artifact: that of the whole run shows them too."""
    token = _is_stage.set(True)
    try:
        yield
    finally:
        _is_stage.reset(token)


def publish_artifact(
    flow: str, summary: Summary, *, page: str | None, failures: Sequence[str] = ()
) -> None:
    """Create the artifact of a run, a table of its counts; none if all are 0, or for a stage.

    Args:
        flow: the flow's name, by which its artifacts are found.
        summary: counts, and under `campaigns` each one's own, where it has any; or a summary for
            each stage.
        page: the address of the page that shows the rest.
        failures: what failed, a line each, to follow the counts.
    """
    if _is_stage.get() or not (has_counts(summary) or failures):
        return
    parts = select_stages(summary) or {flow: summary}
    tables = [_make_table(name, part) for name, part in parts.items() if has_counts(part)]
    link = [f"[How the campaigns stand]({page})"] if page else []
    lines = [f"- {escape_markdown(line)}" for line in shorten_lines(failures, _MAX_ROWS)]
    failed = ["\n".join(["### failed", "", *lines])] if lines else []
    with log_prefect_errors():
        create_markdown_artifact(
            key=flow,
            markdown="\n\n".join([*tables, *failed, *link]),
            description=format_summary(summary),
        )


def make_artifact_key(prefix: str, campaign_id: str) -> str:
    """Return the key of a campaign's artifacts: lowercase letters, digits and dashes.

    An id with other characters, or a long one, is shortened and followed by a part of its hash, so
    that no two campaigns have one key.
    """
    slug = _NO_KEY.sub("-", campaign_id.lower()).strip("-")[:_KEY_LENGTH]
    if slug != campaign_id:
        slug = f"{slug}-{hashlib.sha256(campaign_id.encode()).hexdigest()[:8]}".lstrip("-")
    return f"{prefix}-{slug}"


def emit_count_events(campaign_id: str, counts: Mapping[str, int]) -> None:
    """Emit the events of what a campaign's run counted."""
    for name, event in EVENTS.items():
        if counts.get(name):
            emit_event(event, resource=campaign_resource(campaign_id), payload=dict(counts))


def emit_problem_events(problems: Sequence[Mapping[str, Any]]) -> None:
    """Emit an event for each open problem of a campaign: `leadloop.problem.…`.

    Args:
        problems: rows of the view `leadloop_monitor.problems`, which defines what a problem is. The
            event has severity, amount, start and the command that deals with it. It leaves out
            `said`, which may quote the vendor.
    """
    for problem in problems:
        name = str(problem["problem"])
        emit_event(
            f"leadloop.problem.{name.replace('_', '-')}",
            resource={**campaign_resource(problem["campaign_id"]), "leadloop.problem": name},
            payload={key: problem[key] for key in ("severity", "amount", "command")}
            | {"since": problem["since"].isoformat()},
        )


def campaign_resource(campaign_id: str) -> dict[str, str]:
    """Return a campaign as the resource of Prefect's events."""
    return {
        "prefect.resource.id": f"leadloop.campaign.{campaign_id}",
        "prefect.resource.name": campaign_id,
    }


@contextmanager
def report_progress() -> Iterator[None]:
    """Show the progress of long work in Prefect for the block, unless it has a listener already."""
    if not has_no_listener():
        yield
        return
    bar = ProgressArtifacts()
    token = progress_listener.set(bar)
    try:
        yield
    finally:
        progress_listener.reset(token)
        bar.remove()


def _format_bound(word: str, value: object) -> str:
    return f"{word} {value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else f"{word} {value}"


def _make_table(name: str, summary: Mapping[str, Any]) -> str:
    names = list(select_counts(summary))
    each: Mapping[str, Mapping[str, Any]] = summary.get("campaigns", {})
    rows = [
        [escape_markdown(campaign_id), *_format_counts(counts, names)]
        for campaign_id, counts in each.items()
    ]
    left = len(rows) - _MAX_ROWS
    lines = [
        f"### {name}: {format_summary(summary)}",
        "",
        _make_row(["campaign", *(column.replace("_", " ") for column in names)]),
        _make_row(["---"] * (len(names) + 1)),
        *map(_make_row, rows[:_MAX_ROWS]),
        *([_make_row([f"and {left} more", *[""] * len(names)])] if left > 0 else []),
        _make_row(["**all**", *_format_counts(summary, names)]),
    ]
    return "\n".join(lines)


def _format_counts(counts: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{counts.get(name, 0):,}" for name in names]


def _make_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
