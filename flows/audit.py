"""`audit-leads`: compare the vendor's records with ours."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger

from flows.campaign_runner import run_campaigns
from flows.reporting import (
    campaign_resource,
    completed_state,
    make_artifact_key,
    make_run_name,
)
from flows.run_log import fail_in_one_line
from leadloop.core.audit_differences import DIFFERENCES, REMARKS
from leadloop.core.escaping import escape_markdown
from leadloop.core.summaries import Summary
from leadloop.core.summary_text import format_summary
from tasks.audit import AUDIT, AuditJob, add_samples
from tasks.blocks import RunSettings
from tasks.prefect_progress import log_prefect_errors

EVENT = "leadloop.audit.differences"
ARTIFACT = "leadloop-audit"
#: The most artifacts of one run.
_MAX_ARTIFACTS = 100
_MEANINGS: Mapping[str, str] = {
    "pages": "pages read",
    "seen": "leads that the vendor shows",
    **DIFFERENCES,
    **REMARKS,
}


@flow(name="audit-leads", flow_run_name=make_run_name, persist_result=False)
@fail_in_one_line
def audit_leads(
    campaigns: list[str] | None = None,
    repair: bool = False,
    settings: RunSettings | None = None,
) -> Summary:
    """List all leads that the vendor has, and compare them with Postgres in both directions.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        repair: repair in Postgres what is safe to repair; the counts are those from before.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `pages, seen`, a count a difference, `requests`, and under `campaigns` each one's own, with
        `samples`: the ids of a few leads for each difference.
    """
    audits: list[AuditJob] = []
    return completed_state(
        run_campaigns(
            replace(AUDIT, start=partial(AuditJob, repair=repair)),
            campaigns,
            settings,
            on_started=audits.extend,
            on_summary=partial(_complete_summary, audits),
            publish=_publish_by_campaign,
        )
    )


def _complete_summary(audits: Sequence[AuditJob], summary: Summary) -> None:
    """Add samples to the summary, and emit each campaign's differences."""
    add_samples(summary, audits)
    for campaign_id, counts in summary["campaigns"].items():
        found = {name: counts[name] for name in DIFFERENCES if counts[name]}
        if found:
            emit_event(EVENT, resource=campaign_resource(campaign_id), payload=found)


def _publish_by_campaign(summary: Summary) -> None:
    """Create an artifact for each campaign that was read; of many, for those that differ most."""
    read = {
        campaign_id: counts
        for campaign_id, counts in summary["campaigns"].items()
        if any(counts[name] for name in AUDIT.counts)
    }
    differences = {each: sum(read[each][name] for name in DIFFERENCES) for each in read}
    first = sorted(read, key=differences.__getitem__, reverse=True)
    if len(first) > _MAX_ARTIFACTS:
        get_run_logger().info(
            "%d of %d campaigns have an artifact, those with the most differences;"
            " leadloop.sync_runs has the counts of all",
            *(_MAX_ARTIFACTS, len(first)),
        )
    with log_prefect_errors():
        for campaign_id in first[:_MAX_ARTIFACTS]:
            create_table_artifact(
                key=make_artifact_key(ARTIFACT, campaign_id),
                table=_make_table(read[campaign_id]),
                description=_describe(campaign_id, read[campaign_id]),
            )


def _make_table(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an audit's table; those that are 0 come last."""
    return [
        {"count": name, "leads": counts[name], "which are": _MEANINGS[name]}
        for name in sorted(_MEANINGS, key=lambda name: counts[name] == 0)
    ]


def _describe(campaign_id: str, counts: Mapping[str, Any]) -> str:
    found = {name: counts[name] for name in DIFFERENCES}
    differences = format_summary(found) if any(found.values()) else "no difference"
    name = escape_markdown(campaign_id)
    return f"Campaign {name}: {differences}; leads at the vendor: {counts['seen']:,}"
