"""The steps of an audit: read all that the vendor holds, compare it with our tables, mend.

It shares the client and the budget with the poll, and nothing of its windows: what one of the two
gets wrong, the other one finds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from db import audit, audit_staging, campaigns, outcomes, watermarks
from db.audit import AuditFinding, AuditScope
from db.bulk_copy import format_text_row
from db.database import Connection
from leadloop.client.errors import ApiError, Retryable
from leadloop.core.audit_differences import PERSON_DIFFERENCES, compare_person
from leadloop.core.errors import RunError
from leadloop.core.phones import find_calling_code
from leadloop.core.postgres_json import parse_json
from leadloop.core.results import parse_result
from tasks.context import CampaignRun, Counters
from tasks.lead_listing import LeadListing
from tasks.retries import FruitlessAttempts, retry_later, step


@step("read-listing")
def read_listing(audit: "AuditJob") -> None:
    """Read what is left of the vendor's listing to the stage."""
    audit.read_listing()


@step("compare-records")
def compare_records(audit: "AuditJob") -> None:
    """Compare what was staged with our tables."""
    audit.compare_records()


@step("repair-records")
def repair_records(audit: "AuditJob") -> None:
    """Mend in our tables what is safe to mend."""
    audit.repair_records()


class AuditJob:
    """One campaign's books, theirs and ours.

    Args:
        run: the campaign's run.
        will_repair: `repair` is going to be called, and needs whole results staged.
    """

    def __init__(self, run: CampaignRun, *, will_repair: bool) -> None:
        self.run = run
        self.findings: dict[str, AuditFinding] = {}
        self.listing = LeadListing(
            run, self._use_staging, self._count_page, keep_results=will_repair
        )
        self._counters = Counters(
            "pages", "repaired_leads", "repaired_outcomes", "repaired_opt_outs"
        )
        self._attempts = FruitlessAttempts()

    @contextmanager
    def open_staging(self) -> Iterator[None]:
        """A connection for the block: the stage lives on it, through all that is tried again.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self.run.context.database.autocommit() as self._connection:
            self._started_at = watermarks.get_database_time(self._connection)
            try:
                audit_staging.create_listing_table(self._connection)
                yield
            finally:
                # Not back to the pool: the stage ends with the connection.
                self._connection.invalidate()

    def read_listing(self) -> None:
        """Read the vendor's listing, or what is left of it.

        Raises:
            RetryLater: the vendor did not answer; what was read is staged.
            RunError: the vendor refuses us.
        """
        with self._translate_api_errors():
            self.listing.read_all()

    def compare_records(self) -> None:
        """Find every difference.

        Raises:
            RetryLater: the vendor did not answer.
            RunError: the vendor refuses us.
        """
        with self._translate_api_errors():
            shows_unprocessed = self._unprocessed_are_shown()
        campaign = self.run.campaign
        assumptions = AuditScope(
            campaign_id=campaign.campaign_id,
            started_at=self._started_at,
            settled_by=self._started_at - campaign.settle,
            is_complete=self.listing.complete,
            shows_unprocessed=shows_unprocessed,
            clock_skew=self.listing.clock_ahead,
        )
        with self._use_staging() as connection:
            self.findings = audit.compare_listing(connection, assumptions) | self._find_mismatches(
                connection
            )

    def repair_records(self) -> None:
        """Mend what is safe: opt-outs to be sent, leads that are there, outcomes not stored."""
        campaign_id = self.run.campaign.campaign_id
        with self._use_staging() as connection:
            opt_outs, held = audit.repair_opt_outs(connection, campaign_id)
            leads = held + audit.repair_leads(connection, campaign_id)
            self._counters.add(repaired_opt_outs=opt_outs, repaired_leads=leads)
            for results in audit.iter_newer_outcomes(connection, campaign_id):
                self._store_outcomes(results)

    def counts(self) -> dict[str, int]:
        """The counts, under the names of `leadloop.core.audit_differences`."""
        found = {name: finding.leads for name, finding in self.findings.items()}
        return {**self._counters.counts(), "seen": self.listing.seen, **found}

    def _unprocessed_are_shown(self) -> bool:
        """Whether a lead that is created, not processed and not in the listing is missing.

        The listing tells, where it holds such a lead. Where it holds none, and lookups are known to
        show them, one of those that it lacks is looked up: a lookup may show what a listing hides.
        """
        campaign = self.run.campaign
        with self._use_staging() as connection:
            if audit_staging.has_unprocessed_leads(connection):
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

    def _find_mismatches(self, connection: Connection) -> dict[str, AuditFinding]:
        """Where phone, name or state differ; SQL narrows it down, libphonenumber decides."""
        region = self.run.campaign.default_region
        found = {name: AuditFinding(leads=0, samples=()) for name in PERSON_DIFFERENCES}
        pairs = audit.iter_field_mismatches(
            connection, self.run.campaign.campaign_id, find_calling_code(region)
        )
        for pair in pairs:
            for name in compare_person(pair.ours, pair.theirs, region):
                found[name] = found[name].with_lead(pair.lead_id)
        return found

    def _store_outcomes(self, results: Sequence[str]) -> None:
        """Store outcomes as a poll does."""
        campaign_id = self.run.campaign.campaign_id
        read = [parse_result(parse_json(result.encode())) for result in results]
        lines = [format_text_row(each.outcome) for each in read if each.outcome]
        attempts = [format_text_row(attempt) for each in read for attempt in each.attempts]
        merged = self.run.context.database.retry(
            lambda c: outcomes.merge_outcomes(c, campaign_id, outcomes=lines, attempts=attempts)
        )
        self._counters.add(repaired_outcomes=merged.inserted + merged.updated)

    def _count_page(self) -> None:
        self._counters.add(pages=1)
        self._attempts.reset()

    @contextmanager
    def _use_staging(self) -> Iterator[Connection]:
        """The stage's connection; what Postgres says is said plainly."""
        with self.run.context.database.translate_errors():
            yield self._connection

    @contextmanager
    def _translate_api_errors(self) -> Iterator[None]:
        """Requests; where time may mend the answer, Prefect tries again."""
        try:
            yield
        except Retryable as error:
            raise retry_later(self.run, self._attempts, error) from None
        except ApiError as error:
            raise RunError(str(error)) from None
