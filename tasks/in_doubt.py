"""Leads in doubt: looked up, and settled by what the vendor shows or can be trusted not to hide."""

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
    """What a round of lookups came to: who was found, and who is to be sent again.

    `full`: it came to as many as it was allowed; there may be more that are due.
    """

    found: Sequence[str] = ()
    absent: Sequence[str] = ()
    reached_limit: bool = False

    @property
    def settled(self) -> frozenset[str]:
        """Who is in doubt no longer."""
        return frozenset((*self.found, *self.absent))

    @property
    def has_more(self) -> bool:
        """Whether another round may have something to do, or a send has."""
        return self.reached_limit or bool(self.settled)


class InDoubtResolver:
    """The leads of one campaign that the vendor may or may not have.

    `GET ?lead_id=` is the only way to find out. Found means created. Absent means not created only
    once the vendor has had `SETTLE` to show it, and only where the vendor has been seen to show a
    lead that is created and not yet processed. Where it is known not to, lookups tell nothing: the
    outcomes that the poll brings settle those leads.
    """

    def __init__(self, run: CampaignRun[ApiContext]) -> None:
        self._run = run
        self._campaign_id = run.campaign.campaign_id
        # Of this run's trials: leads on which nothing can be seen, and whether others are left.
        self._processed: set[str] = set()
        self._has_others = True

    def resolve(self, limit: int, *, opted_out: bool = False) -> ResolvedLeads:
        """Look up the next leads in doubt; those that stay in doubt, once a run.

        A lookup that the vendor refuses tells nothing, and holds up neither the others nor anything
        else.

        Args:
            most: how many at the most.
            opted_out: only those whose opt-out waits.

        Raises:
            Retryable: the vendor did not answer; those before it are settled.
        """
        if not opted_out and self._visibility().shows_unprocessed is False:
            return ResolvedLeads()
        doubts = self._due(limit, opted_out)
        return self._resolve(doubts, full=len(doubts) == limit)

    def _due(self, most: int, opted_out: bool) -> Sequence[InDoubtLead]:
        campaign = self._run.campaign
        with self._run.context.database.transaction() as connection:
            leads.start_settle_time(connection, self._campaign_id)
            return leads.list_due_lookups(
                connection,
                run=LookupRun(
                    campaign=self._campaign_id, run=self._run.run_id, settle_s=campaign.settle_s
                ),
                opted_out=opted_out,
                limit=most,
            )

    def _resolve(self, doubts: Sequence[InDoubtLead], *, full: bool) -> ResolvedLeads:
        found, absent = list[str](), list[str]()
        for doubt in doubts:
            with self._run.context.database.transaction() as connection:
                leads.record_lookup(connection, self._campaign_id, doubt.lead_id)
            seen = self._find(doubt.lead_id)
            if self._settle_found(doubt, seen):
                found.append(doubt.lead_id)
            elif self._settle_absent(doubt, seen):
                absent.append(doubt.lead_id)
        return ResolvedLeads(found=found, absent=absent, reached_limit=full)

    def _find(self, lead_id: str) -> LookupResult:
        try:
            return self._run.context.api.look_up(self._campaign_id, lead_id)
        except Retryable:
            raise
        except ApiError as error:
            log = self._run.context.log
            log.warning("campaign %s: a lookup failed: %s", self._campaign_id, error)
            return _INCONCLUSIVE

    def _settle_found(self, doubt: InDoubtLead, seen: LookupResult) -> bool:
        if seen.result is None:
            return False
        with self._run.context.database.transaction() as connection:
            if not _is_processed(seen):
                campaigns.record_visibility(connection, self._campaign_id, shows=True)
            return leads.confirm_created(connection, self._campaign_id, doubt.lead_id) > 0

    def _settle_absent(self, doubt: InDoubtLead, seen: LookupResult) -> bool:
        if not (seen.absent and doubt.settled and self._absence_counts()):
            return False
        with self._run.context.database.transaction() as connection:
            return leads.confirm_absent(connection, self._campaign_id, doubt) > 0

    def _absence_counts(self) -> bool:
        """Check whether the vendor shows created, unprocessed leads: tried on one, and remembered.

        A lead that is processed proves nothing: that it shows says nothing of those that are not.
        """
        known = self._visibility()
        if known.shows_unprocessed is not None:
            return known.shows_unprocessed
        for lead_id, settled in self._specimens(known):
            seen = self._find(lead_id)
            if _is_processed(seen):
                self._processed.add(lead_id)
                continue
            shows = seen.result is not None
            if shows or (seen.absent and settled):
                with self._run.context.database.transaction() as connection:
                    campaigns.record_visibility(connection, self._campaign_id, shows=shows)
            return shows
        return False

    def _specimens(self, known: campaigns.Visibility) -> Iterator[tuple[str, bool]]:
        """Yield leads to try it on, and whether they had time to show: the remembered, another."""
        if known.probe_lead is not None and known.probe_lead not in self._processed:
            yield known.probe_lead, known.probe_settled
        if self._has_others:
            with self._run.context.database.transaction() as connection:
                other = campaigns.find_probe_lead(
                    connection,
                    self._campaign_id,
                    self._processed,
                    settle_s=self._run.campaign.settle_s,
                )
            self._has_others = other is not None
            if other is not None:
                yield other, True

    def _visibility(self) -> campaigns.Visibility:
        with self._run.context.database.transaction() as connection:
            return campaigns.get_visibility(
                connection, self._campaign_id, settle_s=self._run.campaign.settle_s
            )


def _is_processed(seen: LookupResult) -> bool:
    return seen.result is not None and bool(seen.result.get("processed_at"))
