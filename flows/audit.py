"""`audit-leads`: do the vendor's books and ours agree?"""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from flows.campaign_runner import CampaignsFailed, run_campaigns
from flows.reporting import Summary, campaign_resource, completed_state, make_run_name
from leadloop.core.audit_differences import DIFFERENCES, REMARKS
from leadloop.core.errors import RunError
from tasks.audit import AuditJob, compare_records, read_listing, repair_records
from tasks.blocks import RunSettings
from tasks.context import CampaignRun
from tasks.lead_listing import MAX_LISTING_READS
from tasks.prefect_progress import log_prefect_errors

COUNTS = ("pages", "seen", *DIFFERENCES, *REMARKS)
EVENT = "leadloop.audit.differences"


@flow(name="audit-leads", flow_run_name=make_run_name, persist_result=False)
def audit_leads(
    campaigns: list[str] | None = None,
    repair: bool = False,
    settings: RunSettings | None = None,
) -> Summary:
    """Read all that the vendor holds, and compare it with Postgres both ways.

    Args:
        campaigns: ids of the campaigns; none: every enabled one.
        repair: mend in Postgres what is safe to mend; the counts say what was found before.
        settings: settings for this run alone, and the name of the blocks that hold others.

    Returns:
        `pages, seen`, a count a difference, `requests`, and under `campaigns` each one's own, with
        `samples`: the ids of a few leads for each difference.
    """
    steps: list[Callable[[AuditJob], None]] = [read_listing, compare_records]
    if repair:
        steps.append(repair_records)
    audits: list[AuditJob] = []

    def start(run: CampaignRun) -> AuditJob:
        audits.append(AuditJob(run, will_repair=repair))
        return audits[-1]

    def step(audit: AuditJob, _most: int) -> bool:
        # All of it at once: each campaign's stage takes a connection for as long as it is needed.
        with audit.open_staging():
            for do in steps:
                do(audit)
        return False

    try:
        summary = run_campaigns(
            "audit-leads",
            campaigns,
            settings,
            counts=COUNTS,
            start=start,
            step=step,
            finish=_check_listing_complete,
        )
    except CampaignsFailed as error:
        _publish(error.summary, audits)
        raise
    _publish(summary, audits)
    return completed_state(summary)


def _check_listing_complete(audit: AuditJob) -> None:
    listing = audit.listing
    if not listing.complete:
        raise RunError(
            f"the vendor's listing never stood still: {MAX_LISTING_READS} readings found"
            f" {listing.seen} leads where it counts {listing.reported_count}; what was found is told, but"
            " no lead can be called missing: audit again at a quieter time"
        )


def _publish(summary: Summary, audits: Sequence[AuditJob]) -> None:
    """Add the samples, and tell Prefect: the sums as an artifact, differences as events."""
    for audit in audits:
        campaign_id = audit.run.campaign.campaign_id
        summary["campaigns"][campaign_id]["samples"] = {
            name: list(finding.samples) for name, finding in audit.findings.items() if finding.leads
        }
        _emit(campaign_id, summary["campaigns"][campaign_id])
    with log_prefect_errors():
        create_table_artifact(
            key="leadloop-audit",
            table=_rows(summary),
            description="The vendor's books beside ours: leads that differ, by kind.",
        )


def _emit(campaign_id: str, counted: Summary) -> None:
    found = {name: counted[name] for name in DIFFERENCES if counted[name]}
    if found:
        emit_event(EVENT, resource=campaign_resource(campaign_id), payload=found)


def _rows(summary: Summary) -> list[dict[str, Any]]:
    """A row a count; sums alone, so that it stays as small for a hundred campaigns."""
    said = {"pages": "pages read", "seen": "leads that the vendor shows", **DIFFERENCES, **REMARKS}
    return [{"count": name, "leads": summary[name], "which are": said[name]} for name in COUNTS]
