"""Resolution of leads in doubt by lookups: found means created, a proven absence means `new`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from db import campaigns, leads
from db.leads import InDoubtLead, LookupRun
from leadloop.client.api import LookupResult
from leadloop.client.errors import ApiError, Retryable
from tasks.context import ApiContext, CampaignRun

_INCONCLUSIVE = LookupResult(result=None, absent=False)


@dataclass(frozen=True, kw_only=True)
class ResolvedLeads:
    """The result of a round of lookups.

    Attributes:
        found: ids of leads that the vendor has: they are `created`.
        absent: ids of leads that the vendor does not have: they are `new`.
        reached_limit: the round looked up as many leads as allowed; more may be due.
    """

    found: Sequence[str] = ()
    absent: Sequence[str] = ()
    reached_limit: bool = False

    @property
    def settled(self) -> frozenset[str]:
        """The ids of leads that are in doubt no longer."""
        return frozenset((*self.found, *self.absent))

    @property
    def has_more(self) -> bool:
        """Whether more leads may be due for a lookup, or are `new` and can be sent."""
        return self.reached_limit or bool(self.settled)


class InDoubtResolver:
    """A resolver of one campaign's leads that the vendor may or may not have created.

    The only evidence is a lookup (`GET ?lead_id=`). A lead that is found was created. One that is
    absent was not created, under two conditions: `SETTLE` has passed since its request, and the
    vendor is known to show leads that are created and not yet processed. A lookup of a probe lead
    shows that. If the vendor hides such leads, lookups prove nothing, and the outcomes that a poll
    stores resolve the leads in doubt.
    """

    def __init__(self, run: CampaignRun[ApiContext]) -> None:
        self._run = run
        self._campaign_id = run.campaign.campaign_id
        # Probe leads that turned out to be processed, and whether there may be others.
        self._processed_probes: set[str] = set()
        self._has_more_probes = True
        #: Whether the vendor has answered any lookup of this run.
        self.has_answer = False

    def resolve(self, limit: int, *, opted_out: bool = False) -> ResolvedLeads:
        """Look up the next leads in doubt, each at most once a run, and record what that proves.

        A lookup that the vendor rejects is inconclusive; the round goes on.

        Args:
            limit: the most leads to look up.
            opted_out: look up only leads with a waiting opt-out.

        Raises:
            Retryable: the vendor did not respond; the leads before that lookup are resolved.
        """
        if not opted_out and self._load_visibility().shows_unprocessed is False:
            return ResolvedLeads()
        campaign = self._run.campaign
        with self._run.context.database.transaction() as connection:
            leads.start_settle_time(connection, self._campaign_id)
            due = leads.list_due_lookups(
                connection,
                run=LookupRun(
                    campaign=self._campaign_id, run=self._run.run_id, settle_s=campaign.settle_s
                ),
                opted_out=opted_out,
                limit=limit,
            )
        found, absent = list[str](), list[str]()
        for lead in due:
            with self._run.context.database.transaction() as connection:
                leads.record_lookup(connection, self._campaign_id, lead.lead_id)
            lookup = self._look_up(lead.lead_id)
            if self._confirm_created(lead, lookup):
                found.append(lead.lead_id)
            elif self._confirm_absent(lead, lookup):
                absent.append(lead.lead_id)
        return ResolvedLeads(found=found, absent=absent, reached_limit=len(due) == limit)

    def _look_up(self, lead_id: str) -> LookupResult:
        try:
            result = self._run.context.api.look_up(self._campaign_id, lead_id)
        except Retryable:
            raise
        except ApiError as error:
            self._run.warn("a lookup failed: %s", error)
            return _INCONCLUSIVE
        self.has_answer = True
        return result

    def _confirm_created(self, lead: InDoubtLead, lookup: LookupResult) -> bool:
        if lookup.result is None:
            return False
        with self._run.context.database.transaction() as connection:
            if not _is_processed(lookup):
                campaigns.record_visibility(connection, self._campaign_id, shows=True)
            return leads.confirm_created(connection, self._campaign_id, lead.lead_id) > 0

    def _confirm_absent(self, lead: InDoubtLead, lookup: LookupResult) -> bool:
        if not (lookup.absent and lead.settled and self._is_absence_conclusive()):
            return False
        with self._run.context.database.transaction() as connection:
            return leads.confirm_absent(connection, self._campaign_id, lead) > 0

    def _is_absence_conclusive(self) -> bool:
        """Return whether the vendor shows unprocessed leads; try it on a probe lead and store it.

        A processed probe lead proves nothing about leads that are not processed.
        """
        known = self._load_visibility()
        if known.shows_unprocessed is not None:
            return known.shows_unprocessed
        for lead_id, settled in self._iter_probe_leads(known):
            lookup = self._look_up(lead_id)
            if _is_processed(lookup):
                self._processed_probes.add(lead_id)
                continue
            shows = lookup.result is not None
            if shows or (lookup.absent and settled):
                with self._run.context.database.transaction() as connection:
                    campaigns.record_visibility(connection, self._campaign_id, shows=shows)
            return shows
        return False

    def _iter_probe_leads(self, known: campaigns.Visibility) -> Iterator[tuple[str, bool]]:
        """Yield probe leads, and whether each is settled: the stored one first, then another."""
        if known.probe_lead is not None and known.probe_lead not in self._processed_probes:
            yield known.probe_lead, known.probe_settled
        if self._has_more_probes:
            with self._run.context.database.transaction() as connection:
                other = campaigns.find_probe_lead(
                    connection,
                    self._campaign_id,
                    self._processed_probes,
                    settle_s=self._run.campaign.settle_s,
                )
            self._has_more_probes = other is not None
            if other is not None:
                yield other, True

    def _load_visibility(self) -> campaigns.Visibility:
        with self._run.context.database.transaction() as connection:
            return campaigns.get_visibility(
                connection, self._campaign_id, settle_s=self._run.campaign.settle_s
            )


def _is_processed(lookup: LookupResult) -> bool:
    return lookup.result is not None and bool(lookup.result.get("processed_at"))
