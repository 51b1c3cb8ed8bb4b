"""The steps of an audit: read all that the vendor holds, compare it with our tables, mend.

It shares the client and the budget with the poll, and nothing of its windows: what one of the two
gets wrong, the other one finds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from db import audit, audit_staging, campaigns, outcomes, watermarks
from db.audit import Assumptions, Finding
from db.bulk_copy import text_line
from db.database import Connection
from leadloop.client.errors import ApiError, Resend
from leadloop.core.audit import DESCRIPTIONS, calling_code, differing
from leadloop.core.errors import RunError
from leadloop.core.postgres_json import loads
from leadloop.core.results import read_result
from tasks.context import CampaignRun, Counters
from tasks.lead_listing import Listing
from tasks.retries import FruitlessAttempts, retry_later, step


@step("read-listing")
def read_listing(audit: "AuditJob") -> None:
    """Read what is left of the vendor's listing to the stage."""
    audit.read()


@step("compare-books")
def compare_books(audit: "AuditJob") -> None:
    """Compare what was staged with our tables."""
    audit.compare()


@step("repair-books")
def repair_books(audit: "AuditJob") -> None:
    """Mend in our tables what is safe to mend."""
    audit.repair()


class AuditJob:
    """One campaign's books, theirs and ours.

    Args:
        run: the campaign's run.
        will_repair: `repair` is going to be called, and needs whole results staged.
    """

    def __init__(self, run: CampaignRun, *, will_repair: bool) -> None:
        self.run = run
        self.findings: dict[str, Finding] = {}
        self.listing = Listing(run, self._stage, self._page_read, keep_results=will_repair)
        self._counters = Counters(
            "pages", "repaired_leads", "repaired_outcomes", "repaired_opt_outs"
        )
        self._attempts = FruitlessAttempts()

    @contextmanager
    def staged(self) -> Iterator[None]:
        """A connection for the block: the stage lives on it, through all that is tried again.

        Raises:
            DatabaseError: Postgres refused, or was not there.
        """
        with self.run.context.database.session() as self._connection:
            self._began = watermarks.now(self._connection)
            try:
                audit_staging.open_stage(self._connection)
                yield
            finally:
                # Not back to the pool: the stage ends with the connection.
                self._connection.invalidate()

    def read(self) -> None:
        """Read the vendor's listing, or what is left of it.

        Raises:
            TryLater: the vendor did not answer; what was read is staged.
            RunError: the vendor refuses us.
        """
        with self._asking():
            self.listing.read()

    def compare(self) -> None:
        """Find every difference.

        Raises:
            TryLater: the vendor did not answer.
            RunError: the vendor refuses us.
        """
        with self._asking():
            shows_unprocessed = self._shows_unprocessed()
        campaign = self.run.campaign
        assumptions = Assumptions(
            campaign_id=campaign.campaign_id,
            began=self._began,
            settled_by=self._began - campaign.settle,
            complete=self.listing.complete,
            shows_unprocessed=shows_unprocessed,
            ahead=self.listing.ahead,
        )
        with self._stage() as connection:
            self.findings = audit.compare(connection, assumptions) | self._described(connection)

    def repair(self) -> None:
        """Mend what is safe: opt-outs to be sent, leads that are there, outcomes not stored."""
        campaign_id = self.run.campaign.campaign_id
        with self._stage() as connection:
            opt_outs, held = audit.mend_opt_outs(connection, campaign_id)
            leads = held + audit.mend_leads(connection, campaign_id)
            self._counters.add(repaired_opt_outs=opt_outs, repaired_leads=leads)
            for results in audit.better_outcomes(connection, campaign_id):
                self._store(results)

    def counts(self) -> dict[str, int]:
        """The counts, under the names of `leadloop.core.audit`."""
        found = {name: finding.leads for name, finding in self.findings.items()}
        return {**self._counters.counts(), "seen": self.listing.seen, **found}

    def _shows_unprocessed(self) -> bool:
        """Whether a lead that is created, not processed and not in the listing is missing.

        The listing tells, where it holds such a lead. Where it holds none, and lookups are known to
        show them, one of those that it lacks is looked up: a lookup may show what a listing hides.
        """
        campaign = self.run.campaign
        with self._stage() as connection:
            if audit_staging.any_unprocessed(connection):
                return True
            known = campaigns.visibility(
                connection, campaign.campaign_id, settle_s=campaign.settle_s
            )
            if not known.shows:
                return False
            lead_id = audit.suspect(
                connection, campaign.campaign_id, settled_by=self._began - campaign.settle
            )
        return lead_id is None or self.run.context.api.find(campaign.campaign_id, lead_id).absent

    def _described(self, connection: Connection) -> dict[str, Finding]:
        """Where phone, name or state differ; SQL narrows it down, libphonenumber decides."""
        region = self.run.campaign.default_region
        found = {name: Finding(leads=0, samples=()) for name in DESCRIPTIONS}
        pairs = audit.unalike(connection, self.run.campaign.campaign_id, calling_code(region))
        for pair in pairs:
            for name in differing(pair.ours, pair.theirs, region):
                found[name] = found[name].with_one_more(pair.lead_id)
        return found

    def _store(self, results: Sequence[str]) -> None:
        """Store outcomes as a poll does."""
        campaign_id = self.run.campaign.campaign_id
        read = [read_result(loads(result.encode())) for result in results]
        lines = [text_line(each.outcome) for each in read if each.outcome]
        attempts = [text_line(attempt) for each in read for attempt in each.attempts]
        merged = self.run.context.database.insist(
            lambda c: outcomes.merge(c, campaign_id, outcomes=lines, attempts=attempts)
        )
        self._counters.add(repaired_outcomes=merged.inserted + merged.updated)

    def _page_read(self) -> None:
        self._counters.add(pages=1)
        self._attempts.reset()

    @contextmanager
    def _stage(self) -> Iterator[Connection]:
        """The stage's connection; what Postgres says is said plainly."""
        with self.run.context.database.plainly():
            yield self._connection

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Requests; where time may mend the answer, Prefect tries again."""
        try:
            yield
        except Resend as error:
            raise retry_later(self.run, self._attempts, error) from None
        except ApiError as error:
            raise RunError(str(error)) from None
