"""Resolution of leads in doubt: found means created, a proven absence means `new`.

Any response that shows a lead proves that it was created. A lead is proven absent by an empty
lookup, or by the campaign's complete listing, begun after its settle time; and only if the same
round has shown a lead that is created and not processed. If the vendor hides such leads,
nothing proves absence, and the outcomes that a poll stores resolve the leads in doubt.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from db import campaigns, in_doubt
from db.in_doubt import DueLookups, InDoubtLead
from leadloop.client.api import LookupResult
from leadloop.client.errors import ApiError, Retryable
from leadloop.core.errors import RunError
from leadloop.core.plurals import format_count
from leadloop.core.results import is_unprocessed
from leadloop.core.verdicts import may_blame_content
from tasks.context import ApiContext, CampaignRun
from tasks.in_doubt_listing import InDoubtListing
from tasks.lead_lookups import LeadLookups

#: With fewer leads in doubt, a listing is not considered.
_MIN_LISTED = 10
#: The most requests of a listing for fewer leads, if lookups of these leads settle nothing.
_MAX_LISTING_REQUESTS = 100


@dataclass(frozen=True, kw_only=True)
class ResolvedLeads:
    """The result of a round.

    Attributes:
        found: ids of leads that the vendor has: they are `created`.
        absent: ids of leads that the vendor does not have: they are `new`.
        rejected: ids of absent leads that have failed alone too often: they are `rejected`.
        kept: ids of absent leads that were created before a repeated create: they are `created`.
        reached_limit: the round looked up as many leads as allowed, and more may be due; or only
            the listing can settle them.
    """

    found: Sequence[str] = ()
    absent: Sequence[str] = ()
    rejected: Sequence[str] = ()
    kept: Sequence[str] = ()
    reached_limit: bool = False

    @property
    def settled(self) -> frozenset[str]:
        """The ids of leads that are in doubt no longer."""
        return frozenset((*self.found, *self.absent, *self.rejected, *self.kept))

    @property
    def has_more(self) -> bool:
        """Whether more leads may be due for a lookup, or are `new` and can be sent."""
        return self.reached_limit or bool(self.settled)


class InDoubtResolver:
    """A resolver of one campaign's leads that the vendor may or may not have created."""

    def __init__(self, run: CampaignRun[ApiContext]) -> None:
        self._run = run
        self._campaign_id = run.campaign.campaign_id
        self._lookups = LeadLookups(run, self._find_probe_lead)
        # Probe leads that turned out to be processed, and whether there may be others.
        self._processed_probes: set[str] = set()
        self._has_more_probes = True
        # For fewer leads, lookups cost less than the listing; but they may settle nothing.
        self._min_listed = _MIN_LISTED
        self._needs_listing = False

    @property
    def has_answer(self) -> bool:
        """Whether the vendor has answered any lookup of this run, or its listing."""
        return self._lookups.has_answer

    def resolve(
        self, limit: int, *, opted_out: bool = False, may_list: bool = False
    ) -> ResolvedLeads:
        """Look up the next leads in doubt side by side, and record what that proves.

        A lookup that fails is inconclusive, and stops no other.

        Args:
            limit: the most leads to look up.
            opted_out: look up only leads with a waiting opt-out.
            may_list: read the campaign's listing instead where that costs fewer requests, whatever
                the limit.

        Raises:
            Retryable: the vendor answered none of the lookups.
        """
        if not opted_out and self._load_visibility().shows_unprocessed is False:
            return ResolvedLeads()
        due = self._select_due(opted_out=opted_out, exclude=self._lookups.list_recently_failed())
        self._run.write(in_doubt.start_settle_time, self._campaign_id)
        if may_list and (resolved := self._resolve_by_listing(due)):
            return resolved
        if self._lookups.are_refused:
            return ResolvedLeads()
        needed_listing = self._needs_listing
        resolved = self._resolve_by_lookups(self._run.write(due.list, limit), limit)
        if self._needs_listing and not needed_listing and not opted_out:
            return replace(resolved, reached_limit=True)
        return resolved

    def count_due(self, *, opted_out: bool = False) -> int:
        """Return how many leads are due for a lookup; see `resolve`."""
        due = self._select_due(opted_out=opted_out, exclude=self._lookups.list_recently_failed())
        return self._run.write(due.count)

    def are_shown(self, lead_ids: Sequence[str]) -> bool:
        """Return whether lookups show all of these leads; failures and late leads are a no."""
        lookups = map(self._lookups.look_up, lead_ids)
        return not any(isinstance(each, ApiError) or each.result is None for each in lookups)

    def require_answer(self) -> None:
        """Check that the vendor answered any lookup or the listing, if leads are due for one.

        Raises:
            RunError: it answered none.
        """
        if self.has_answer or self._lookups.last_failure is None:
            return
        if amount := self._run.write(self._select_due().count):
            url_variable = self._run.context.account.variable("api_url")
            raise RunError(
                f"{format_count(amount, 'lead in doubt', 'leads in doubt')} could not be looked up:"
                f" the vendor answered no lookup ({self._lookups.last_failure}); what is in doubt"
                " stays so, and the next push looks it up again: check the login,"
                f" {url_variable} and the vendor's status"
            )

    def _select_due(self, *, opted_out: bool = False, exclude: Sequence[str] = ()) -> DueLookups:
        return DueLookups(
            campaign=self._campaign_id,
            run=self._run.run_id,
            settle_s=self._run.campaign.settle_s,
            opted_out=opted_out,
            exclude=exclude,
        )

    def _resolve_by_listing(self, due: DueLookups) -> ResolvedLeads | None:
        """Resolve all leads in doubt by the campaign's listing; None if lookups cost less.

        A listing that has settled nothing is not read again for an hour.

        Raises:
            Retryable: the vendor does not answer its first page. The next round looks leads up.
        """
        amount = self._run.write(due.count)
        if self._needs_listing:
            self._needs_listing = False
            amount = max(amount, _MAX_LISTING_REQUESTS)
        if amount < self._min_listed or not self._run.write(
            in_doubt.is_listing_due, self._campaign_id
        ):
            return None
        listing = InDoubtListing(self._run)
        try:
            self._min_listed = listing.count_requests() + 1
        except ApiError as error:
            self._min_listed = sys.maxsize
            if isinstance(error, Retryable):
                raise
            self._lookups.record_failure(error)
            self._run.warn("the campaign cannot be listed: %s", error)
        if amount < self._min_listed:
            return None
        found, absent = listing.resolve()
        self._lookups.has_answer = True
        if absent is None:
            # It proved presence alone, so those that are left are looked up.
            self._run.write(in_doubt.record_listing_failure, self._campaign_id)
            return ResolvedLeads(found=found, reached_limit=True)
        self._run.write(campaigns.record_visibility, self._campaign_id, shows=True)
        self._run.write(in_doubt.record_all_lookups, self._campaign_id)
        resolved = ResolvedLeads(
            found=found, absent=absent.new, rejected=absent.rejected, kept=absent.kept
        )
        if not resolved.settled:
            self._run.write(in_doubt.record_listing_failure, self._campaign_id)
        return resolved

    def _resolve_by_lookups(self, due: Sequence[InDoubtLead], limit: int) -> ResolvedLeads:
        results = self._lookups.look_up_all([lead.lead_id for lead in due])
        lookups = {key: each for key, each in results.items() if isinstance(each, LookupResult)}
        found = [lead_id for lead_id, lookup in lookups.items() if lookup.result is not None]
        created = self._run.write(in_doubt.confirm_created, self._campaign_id, found)
        unseen = [
            lead
            for lead in due
            if lead.settled and (lookup := lookups.get(lead.lead_id)) and lookup.absent
        ]
        self._needs_listing |= any(
            lead.settled and _may_need_listing(results[lead.lead_id]) for lead in due
        )
        unprocessed = [lead_id for lead_id, lookup in lookups.items() if _is_unprocessed(lookup)]
        # The vendor may show a lead because it is disabled, and hide the others.
        shows_unprocessed: bool | None = not self._run.write(
            in_doubt.are_opted_out, self._campaign_id, unprocessed
        )
        if shows_unprocessed:
            self._run.write(campaigns.record_visibility, self._campaign_id, shows=True)
        elif unseen:
            shows_unprocessed = self._find_unprocessed()
        absent = in_doubt.AbsentLeads()
        if shows_unprocessed:
            absent = self._run.write(in_doubt.confirm_absent, self._campaign_id, unseen)
        # Without an answer about the probe lead, the next run looks these leads up again.
        open_ids = {lead.lead_id for lead in unseen} if shows_unprocessed is None else set()
        answered = [lead_id for lead_id in lookups if lead_id not in open_ids]
        self._run.write(in_doubt.record_lookups, self._campaign_id, answered)
        return ResolvedLeads(
            found=created,
            absent=absent.new,
            rejected=absent.rejected,
            kept=absent.kept,
            reached_limit=len(due) == limit,
        )

    def _find_unprocessed(self) -> bool | None:
        """Return whether the vendor shows a probe lead: one that is created and not processed.

        A processed one proves nothing about leads that are not. That an earlier round has seen one
        proves nothing either: the vendor may have changed. None: the vendor did not answer.
        """
        for lead_id, settled in self._iter_probe_leads():
            lookup = self._lookups.look_up(lead_id)
            if isinstance(lookup, ApiError):
                self._run.warn("the lookup of the probe lead failed: %s", lookup)
                return None
            if lookup.result is not None and not _is_unprocessed(lookup):
                self._processed_probes.add(lead_id)
                continue
            shows = _is_unprocessed(lookup)
            if shows or (lookup.absent and settled):
                self._run.write(campaigns.record_visibility, self._campaign_id, shows=shows)
            return shows
        return False

    def _find_probe_lead(self) -> str | None:
        return next((lead_id for lead_id, _ in self._iter_probe_leads()), None)

    def _iter_probe_leads(self) -> Iterator[tuple[str, bool]]:
        """Yield probe leads, and whether each is settled: the stored one first, then another."""
        known = self._load_visibility()
        if known.probe_lead is not None and known.probe_lead not in self._processed_probes:
            yield known.probe_lead, known.probe_settled
        if self._has_more_probes:
            other = self._run.write(
                campaigns.find_probe_lead,
                self._campaign_id,
                self._processed_probes,
                settle_s=self._run.campaign.settle_s,
            )
            self._has_more_probes = other is not None
            if other is not None:
                yield other, True

    def _load_visibility(self) -> campaigns.Visibility:
        return self._run.write(
            campaigns.get_visibility, self._campaign_id, settle_s=self._run.campaign.settle_s
        )


def _may_need_listing(lookup: LookupResult | ApiError) -> bool:
    """Return whether a lookup proves nothing, and the listing may: the vendor refuses lookups."""
    if isinstance(lookup, LookupResult):
        return lookup.is_inconclusive
    return not isinstance(lookup, Retryable) and may_blame_content(lookup.response)


def _is_unprocessed(lookup: LookupResult) -> bool:
    return lookup.result is not None and is_unprocessed(lookup.result)
