"""`audit-leads`: compare the vendor's records with ours."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from flows.campaign_runner import run_campaigns
from flows.reporting import campaign_resource, completed_state, make_run_name
from leadloop.core.audit_differences import DIFFERENCES, REMARKS
from leadloop.core.summaries import Summary
from tasks.audit import AUDIT, AuditJob, add_samples
from tasks.blocks import RunSettings
from tasks.prefect_progress import log_prefect_errors

EVENT = "leadloop.audit.differences"


@flow(name="audit-leads", flow_run_name=make_run_name, persist_result=False)
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
            on_summary=partial(_publish, audits),
        )
    )


def _publish(audits: Sequence[AuditJob], summary: Summary) -> None:
    """Add samples to the summary; emit each campaign's differences, and list the sums."""
    add_samples(summary, audits)
    for campaign_id, counts in summary["campaigns"].items():
        found = {name: counts[name] for name in DIFFERENCES if counts[name]}
        if found:
            emit_event(EVENT, resource=campaign_resource(campaign_id), payload=found)
    meanings = {
        "pages": "pages read",
        "seen": "leads that the vendor shows",
        **DIFFERENCES,
        **REMARKS,
    }
    # Only sums, so that the table stays small for many campaigns.
    table = [
        {"count": name, "leads": summary[name], "which are": meanings[name]}
        for name in AUDIT.counts
    ]
    with log_prefect_errors():
        create_table_artifact(
            key="leadloop-audit",
            table=table,
            description="The vendor's records beside ours: leads that differ, by kind.",
        )
