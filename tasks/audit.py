"""The audit job: list all leads of a campaign at the vendor, compare with our tables, repair.

It shares the client and the rate limiter with the poll, but no windows: an error in one of the two
is found by the other.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from db import audit, audit_staging, campaigns, counts, create_holds, outcomes, watermarks
from db.audit import AuditFinding, AuditScope
from db.bulk_copy import format_text_row
from db.create_holds import CreateHold
from db.database import Connection
from db.schema import UPGRADE_INCOMPLETE, are_counts_filled
from leadloop.core.audit_differences import (
    ABSENCES,
    DIFFERENCES,
    PERSON_DIFFERENCES,
    REMARKS,
    compare_person,
)
from leadloop.core.errors import RunError
from leadloop.core.phones import find_calling_code
from leadloop.core.plurals import format_count
from leadloop.core.postgres_json import parse_json
from leadloop.core.rate_ring import Purpose
from leadloop.core.results import parse_result
from leadloop.core.summaries import Summary
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.counters import Counters
from tasks.held_creates import (
    audit_command,
    find_release_wait,
    format_utc,
    release_command,
)
from tasks.jobs import DONE, ChunkResult, JobSpec
from tasks.lead_listing import MAX_LISTING_READS, LeadListing
from tasks.retries import FruitlessAttempts, retry_request


class AuditJob:
    """The audit of one campaign: the vendor's records beside ours.

    Args:
        run: the campaign's run.
        repair: also repair in our tables what is safe to repair.
    """

    def __init__(self, run: CampaignRun[ApiContext], *, repair: bool = False) -> None:
        self.run = run
        self.findings: dict[str, AuditFinding] = {}
        self._listing = LeadListing(
            run, self._use_staging, self._count_page, keep_results=repair, label="audit"
        )
        self._repair = repair
        self._counters = Counters(
            "pages", "repaired_leads", "repaired_outcomes", "repaired_opt_outs"
        )
        self._attempts = FruitlessAttempts()

    def run_chunk(self, limit: int) -> ChunkResult:
        """Audit the whole campaign at once: its staging table lives on one connection.

        Raises:
            RunError: the vendor rejects the login, or fails repeatedly.
            DatabaseError: Postgres refused, or cannot be reached.
        """
        with self.run.context.database.autocommit() as self._connection:
            self._started_at = watermarks.get_database_time(self._connection)
            try:
                audit_staging.create_listing_table(self._connection)
                self.run.log_step("reading all leads at the vendor")
                retry_request(self.run, self._attempts, self._listing.read_all)
                self.run.log_step(
                    "%d leads read, %d counted by the vendor; comparing them with Postgres",
                    *(self._listing.seen, self._listing.reported_count),
                )
                self._compare_records()
                if self._relies_on_absence():
                    self.run.log_step("leads seem to be missing: reading the listing again")
                    retry_request(self.run, self._attempts, self._prove_whole)
                    self._compare_records()
                if self._repair:
                    self._repair_records()
                self._release_creates()
            finally:
                # Not back to the pool: the staging table ends with the connection.
                self._connection.invalidate()
        return DONE

    def finish(self) -> None:
        """Check that the listing was read completely.

        Raises:
            RunError: the vendor's listing changed during each read.
        """
        listing = self._listing
        if not listing.complete:
            raise RunError(
                f"the vendor's listing changed during all {listing.reads} reads:"
                f" {format_count(listing.seen, 'lead')} read, {listing.reported_count:,} counted;"
                " the differences are reported, but no lead counts as missing: run `leadloop"
                " audit` again at a quieter time"
            )

    def counts(self) -> dict[str, int]:
        """Return the counts, under the names of `leadloop.core.audit_differences`."""
        found = {name: finding.leads for name, finding in self.findings.items()}
        return {**self._counters.counts(), "seen": self._listing.seen, **found}

    def _compare_records(self) -> None:
        """Find every difference between the listing and our tables."""
        shows_unprocessed = retry_request(self.run, self._attempts, self._unprocessed_are_shown)
        campaign = self.run.campaign
        scope = AuditScope(
            campaign_id=campaign.campaign_id,
            started_at=self._started_at,
            settled_by=self._started_at - campaign.settle,
            is_complete=self._listing.complete and not self._has_nameless_rows(),
            shows_unprocessed=shows_unprocessed,
            clock_skew=self._listing.clock_ahead,
        )
        with self._use_staging() as connection:
            self.findings = audit.compare_listing(connection, scope)
            # SQL preselects leads whose phone, name or state differs, and libphonenumber decides.
            pairs = audit.iter_field_mismatches(
                connection, campaign.campaign_id, find_calling_code(campaign.default_region)
            )
            found = {name: AuditFinding(leads=0, samples=()) for name in PERSON_DIFFERENCES}
            for pair in pairs:
                for name in compare_person(pair.ours, pair.theirs, campaign.default_region):
                    found[name] = found[name].with_lead(pair.lead_id)
            # Known to be incomplete, they are no finding; a recount would wait for that of `init`.
            is_counted = are_counts_filled(connection)
            drift = counts.count_drift(connection, campaign.campaign_id) if is_counted else 0
            found["counts_differ"] = AuditFinding(leads=drift, samples=())
            self.findings |= found
        if not is_counted:
            self.run.warn("the sums of views are not compared: %s", UPGRADE_INCOMPLETE)

    def _relies_on_absence(self) -> bool:
        """Return whether a lead is missing in the listing, or a hold waits for its proof."""
        with self._use_staging() as connection:
            hold = create_holds.find_hold(connection, self.run.campaign.campaign_id)
        return hold is not None or any(self.findings[name].leads for name in ABSENCES)

    def _prove_whole(self) -> None:
        self._listing.prove_whole(2 * MAX_LISTING_READS)

    def _repair_records(self) -> None:
        """Repair what is safe: unsent opt-outs, leads that exist, outcomes not stored, counts."""
        campaign_id = self.run.campaign.campaign_id
        with self._use_staging() as connection:
            opt_outs, held = audit.repair_opt_outs(connection, campaign_id)
            leads = held + audit.repair_leads(connection, campaign_id)
            self._counters.add(repaired_opt_outs=opt_outs, repaired_leads=leads)
            for results in audit.iter_newer_outcomes(connection, campaign_id):
                # Stored in the same way as by a poll.
                read = [parse_result(parse_json(result.encode())) for result in results]
                lines = [format_text_row(each.outcome) for each in read if each.outcome]
                attempts = [format_text_row(attempt) for each in read for attempt in each.attempts]
                merged = self.run.write(
                    outcomes.merge_outcomes,
                    campaign_id,
                    outcomes=lines,
                    attempts=attempts,
                    is_backfill=True,
                )
                self._counters.add(repaired_outcomes=merged.inserted + merged.updated)
        if self.findings["counts_differ"].leads:
            self.run.write(counts.recount, campaign_id)

    def _release_creates(self) -> None:
        """Release held creates if no push can create a listed lead again; log what hinders it.

        No row is inserted during the transaction: what the listing shows is compared with all rows.
        """
        campaign_id = self.run.campaign.campaign_id
        with self._use_staging() as connection:
            hold = create_holds.find_hold(connection, campaign_id)
            if hold is None:
                return
            with audit_staging.open_transaction(connection):
                audit.wait_for_inserts(connection)
                if self._repair:
                    repaired = audit.repair_forgotten(connection, campaign_id)
                    self._counters.add(repaired_leads=repaired)
                obstacle = self._find_obstacle(connection, hold)
                if obstacle is None:
                    listed = format_count(self._listing.seen, "listed lead")
                    reason = f"audit: {listed}, none can be created again"
                    create_holds.release_creates(connection, [campaign_id], reason)
        if obstacle is None:
            self.run.warn("creates are released: no push can create a listed lead again")
        else:
            self.run.warn("creates stay held: %s", obstacle)

    def _find_obstacle(self, connection: Connection, hold: CreateHold) -> str | None:
        """Return why the listing does not prove that no lead can be created again, or None."""
        campaign_id = self.run.campaign.campaign_id
        again = f"`{audit_command(campaign_id)}`"
        if not self._listing.complete:
            return f"the listing could not be read completely: run {again} at a quieter time"
        if audit_staging.has_nameless_rows(connection):
            return (
                "the listing holds rows that name no lead: ask the vendor which leads they are; if"
                f" you know that none was lost: `{release_command(campaign_id)}`"
            )
        if not audit_staging.has_unprocessed_leads(connection, campaign_id):
            return (
                "the listing shows no lead that is created and not processed, so it may hide such"
                " leads; if you know that none was lost:"
                f" `{release_command(campaign_id)}`"
            )
        due_at = hold.held_at + find_release_wait(self.run)
        if self._started_at < due_at:
            return (
                "leads that were sent before the hold may not show yet: run"
                f" {again} after {format_utc(due_at)}"
            )
        if repeatable := audit.count_repeatable(connection, campaign_id):
            return (
                f"a push could create {format_count(repeatable, 'listed lead')} again: run {again}"
            )
        if alike := audit.count_listed_loosely(connection, campaign_id):
            return (
                f"the listing shows {format_count(alike, 'lead')} only with other case, blanks or"
                " zeros in their ids: compare them; if these are other leads:"
                f" `{release_command(campaign_id)}`"
            )
        return None

    def _unprocessed_are_shown(self) -> bool:
        """Return whether the listing shows created, unprocessed leads, so that an absence counts.

        If the listing holds such a lead, it does. If not, and lookups are known to show such leads,
        one lead that is not listed is looked up: a lookup may show what a listing hides.
        """
        campaign = self.run.campaign
        with self._use_staging() as connection:
            if audit_staging.has_unprocessed_leads(connection, campaign.campaign_id):
                return True
            known = campaigns.get_visibility(
                connection, campaign.campaign_id, settle_s=campaign.settle_s
            )
            if not known.shows_unprocessed:
                return False
            lead_id = audit.find_unlisted_lead(
                connection, campaign.campaign_id, settled_by=self._started_at - campaign.settle
            )
        return lead_id is None or self.run.context.api.look_up(campaign.campaign_id, lead_id).absent

    def _has_nameless_rows(self) -> bool:
        with self._use_staging() as connection:
            return audit_staging.has_nameless_rows(connection)

    def _count_page(self) -> None:
        self._counters.add(pages=1)
        self._attempts.reset()
        self.run.log_progress(self._counters.counts())

    @contextmanager
    def _use_staging(self) -> Iterator[Connection]:
        """Yield the connection of the staging table; translate errors of Postgres."""
        with self.run.context.database.translate_errors():
            yield self._connection


def add_samples(summary: Summary, audits: Iterable[AuditJob]) -> None:
    """Add to each campaign's counts its `samples`: the ids of a few leads for each difference."""
    for job in audits:
        campaign = summary["campaigns"][job.run.campaign.campaign_id]
        campaign["samples"] = {
            name: list(finding.samples) for name, finding in job.findings.items() if finding.leads
        }


AUDIT = JobSpec(
    flow="audit-leads",
    task="audit-campaign",
    counts=("pages", "seen", *DIFFERENCES, *REMARKS),
    open_context=partial(open_api_context, purpose=Purpose.POLLS),
    start=AuditJob,
)
