"""The flows' jobs, run in this process without Prefect: the same work, by the same names.

Tests of what happens in Postgres and at the vendor call these functions. Those in tests/flows call
the flows, for what happens in Prefect.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from leadloop.core.summaries import Summary, collect_summary, report_summary
from leadloop.core.windows import Window
from leadloop.settings import Settings
from tasks.audit import AUDIT, AuditJob, add_samples
from tasks.context import C, RunHost
from tasks.disable import DISABLE
from tasks.housekeeping import HOUSEKEEPING
from tasks.jobs import CampaignsFailed, JobRunner, JobSpec
from tasks.poll import HEAD_POLL, POLL, plan_backfill, plan_poll
from tasks.push import PUSH, PushJob, add_rejections, limit_push

#: Runs each chunk as a plain call.
HOST = RunHost(log=logging.getLogger("leadloop.tests"))


def run_jobs(
    spec: JobSpec[C],
    campaigns: Sequence[str] | None,
    *,
    on_started: Callable[[Sequence[Any]], None] = lambda _: None,
    on_summary: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """Run a spec's jobs, and report their summary also where they fail or are stopped."""
    with spec.open_context(Settings.load(), HOST) as context:
        runner = JobRunner(context, spec, campaigns)
        try:
            runner.run(on_started=on_started)
        finally:
            summary = runner.summary()
            on_summary(summary)
            report_summary(summary)
    return summary


def push_leads(campaigns: Sequence[str] | None = None, limit: int | None = None) -> Summary:
    """Push, as the flow `push-leads` does; a campaign's `rejections` are added likewise."""
    jobs: list[PushJob] = []
    return run_jobs(
        PUSH if limit is None else limit_push(limit),
        campaigns,
        on_started=jobs.extend,
        on_summary=partial(add_rejections, jobs=jobs),
    )


def disable_leads(campaigns: Sequence[str] | None = None) -> Summary:
    """Send opt-outs, as the flow `disable-leads` does."""
    return run_jobs(DISABLE, campaigns)


def poll_outcomes(campaigns: Sequence[str] | None = None, since: datetime | None = None) -> Summary:
    """Poll, as the flow `poll-outcomes` does."""
    if since is None:
        return run_jobs(POLL, campaigns)
    start = partial(plan_poll, since=since)
    return run_jobs(replace(POLL, start=start, find_due=None), campaigns)


def poll_heads(campaigns: Sequence[str] | None = None) -> Summary:
    """Poll the heads alone, as a program does that stays up."""
    return run_jobs(HEAD_POLL, campaigns)


def backfill_outcomes(
    after: datetime, before: datetime, campaigns: Sequence[str] | None = None
) -> Summary:
    """Backfill, as the flow `backfill-outcomes` does."""
    start = partial(plan_backfill, wanted=Window(after=after, before=before))
    return run_jobs(replace(POLL, flow="backfill-outcomes", start=start, find_due=None), campaigns)


def audit_leads(campaigns: Sequence[str] | None = None, repair: bool = False) -> Summary:
    """Audit, as the flow `audit-leads` does; a campaign's `samples` are added likewise."""
    audits: list[AuditJob] = []
    return run_jobs(
        replace(AUDIT, start=partial(AuditJob, repair=repair)),
        campaigns,
        on_started=audits.extend,
        on_summary=lambda summary: add_samples(summary, audits),
    )


def run_housekeeping(campaigns: Sequence[str] | None = None) -> Summary:
    """Purge, as the flow `housekeeping` does."""
    return run_jobs(HOUSEKEEPING, campaigns)


def sync_leads(campaigns: Sequence[str] | None = None) -> Summary:
    """Disable, push and poll as the flow `sync-leads` does, except for its own row of the run."""
    summary: Summary = {}
    reasons: list[str] = []
    for name, run in (("disable", disable_leads), ("push", push_leads), ("poll", poll_outcomes)):
        with collect_summary() as collected:
            try:
                run(campaigns)
            except CampaignsFailed as error:
                reasons += error.reasons
        summary[name] = collected.summary
    report_summary(summary)
    if reasons:
        raise CampaignsFailed(reasons, summary)
    return summary


JOBS: Mapping[str, Callable[[], Summary]] = {
    "disable": disable_leads,
    "push": push_leads,
    "poll": poll_outcomes,
    "sync": sync_leads,
}
