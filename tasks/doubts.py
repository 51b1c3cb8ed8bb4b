"""Leads in doubt: looked up, and settled by what the vendor shows or can be trusted not to hide."""

from collections.abc import Sequence
from dataclasses import dataclass

from db import campaigns, leads
from db.leads import Doubt
from tasks.workplace import Run


@dataclass(frozen=True, kw_only=True)
class LookedUp:
    """What a round of lookups came to."""

    looked_up: int
    found: int


class Doubts:
    """The leads of one campaign that the vendor may or may not have.

    `GET ?lead_id=` is the only way to find out. Found means created. Absent means not created only
    once the vendor has had `SETTLE` to show it, and only where the vendor has been seen to show a
    lead that is created and not yet processed.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last: Doubt | None = None

    def resolve_some(self, most: int) -> LookedUp:
        """Look up the next leads in doubt, each once a run.

        Raises:
            ApiError: a lookup failed; those before it are settled, it and the rest come next time.
        """
        with self._run.place.database.begin() as connection:
            waiting = leads.in_doubt(
                connection,
                campaign_id=self._run.campaign.campaign_id,
                settle_s=self._run.campaign.settle_s,
                after=self._last,
                most=most,
            )
        found = 0
        for doubt in waiting:
            found += self._resolve(doubt)
            self._last = doubt
        return LookedUp(looked_up=len(waiting), found=found)

    def resolve(self, doubts: Sequence[Doubt]) -> None:
        """Look up these.

        Raises:
            ApiError: a lookup failed.
        """
        for doubt in doubts:
            self._resolve(doubt)

    def _resolve(self, doubt: Doubt) -> bool:
        """Look up one lead. Returns whether the vendor has it."""
        campaign_id = self._run.campaign.campaign_id
        seen = self._run.place.api.find(campaign_id, doubt.lead_id)
        if seen.result is not None:
            with self._run.place.database.begin() as connection:
                leads.settle_found(connection, campaign_id, doubt.lead_id)
                if not seen.result.get("processed_at"):
                    campaigns.learn_visibility(connection, campaign_id, shows=True)
            return True
        if seen.absent and doubt.settled and self._absence_counts():
            with self._run.place.database.begin() as connection:
                leads.settle_absent(connection, campaign_id, doubt)
        return False

    def _absence_counts(self) -> bool:
        """Whether the vendor shows created, unprocessed leads: tried on one, and remembered."""
        place, campaign = self._run.place, self._run.campaign
        with place.database.begin() as connection:
            known = campaigns.shows_unprocessed(connection, campaign.campaign_id)
            specimen = leads.an_unprocessed(
                connection, campaign_id=campaign.campaign_id, settle_s=campaign.settle_s
            )
        if known is not None:
            return known
        if specimen is None:
            return False
        lead_id, settled = specimen
        seen = place.api.find(campaign.campaign_id, lead_id)
        shows = seen.result is not None
        if shows or (seen.absent and settled):
            with place.database.begin() as connection:
                campaigns.learn_visibility(connection, campaign.campaign_id, shows=shows)
        return shows
