"""Probes of a disable: requests that tell an outage from an opt-out on which the vendor fails."""

from db import opt_outs
from leadloop.client.api import LeadsApi
from leadloop.client.errors import ApiError
from leadloop.core.verdicts import UNREADABLE
from tasks.context import ApiContext, CampaignRun
from tasks.probes import MAX_FAILURES, read_campaign, send_probe, watch_outages, watch_reads
from tasks.retries import pause_before_retry


class CampaignUnknown(Exception):
    """The vendor answers 404 to a read of the campaign."""


class DisableProbes:
    """The probes of one campaign's disable.

    Attributes:
        disables: detects an outage of disables. Its probe is a disable that the vendor has
            confirmed; without one, it is a read of the campaign.
        reads: detects an outage of reads, for lookups.
        has_answered: whether the vendor has accepted or rejected a due opt-out in this run.
        has_repeated: whether it has accepted a repeated disable of a confirmed opt-out.
    """

    def __init__(self, run: CampaignRun[ApiContext]) -> None:
        self._run = run
        self._campaign_id = run.campaign.campaign_id
        self._campaign_exists = False
        self.has_answered = False
        self.has_repeated = False
        self.disables = watch_outages(run, self._repeat_disable)
        self.reads = watch_reads(run)

    def record_answer(self) -> None:
        """Record that the vendor accepted or rejected a disable."""
        self.has_answered = True
        self.disables.record_success()

    def find_confirmed(self) -> str | None:
        """Return the lead whose opt-out the vendor confirmed last, or None."""
        with self._run.context.database.transaction() as connection:
            return opt_outs.find_last_confirmed(connection, self._campaign_id)

    def takes_confirmed(self) -> bool:
        """Return whether the vendor accepts a disable again that it has confirmed."""
        confirmed = self.find_confirmed()
        if confirmed is None:
            return False
        try:
            self._disable_again(self._run.context.api, confirmed)
        except ApiError:
            return False
        return True

    def _disable_again(self, api: LeadsApi, confirmed: str) -> None:
        numeric = self._run.campaign.numeric_lead_ids
        api.disable(self._campaign_id, [confirmed], numeric_ids=numeric)

    def check_campaign_exists(self) -> None:
        """Check once a run whether a 404 is about a lead or about the campaign.

        Raises:
            CampaignUnknown: the vendor also answers 404 to a read of the campaign.
        """
        if self._campaign_exists:
            return
        # The client does not repeat a read that is answered 404, which may be noise.
        for failures in range(1, MAX_FAILURES + 1):
            try:
                self._run.context.api.list_all(self._campaign_id, page=1, page_size=1)
            except ApiError as error:
                # An HTML page may come from any server, behind a wrong address.
                if error.response.status != 404 or error.response.body is UNREADABLE:
                    return
                pause_before_retry(failures)
            else:
                self._campaign_exists = True
                return
        raise CampaignUnknown

    def _repeat_disable(self) -> None:
        confirmed = self.find_confirmed()
        if confirmed is None:
            read_campaign(self._run)
            return
        api = self._run.context.api
        if send_probe(lambda: self._disable_again(api, confirmed)):
            self.has_repeated = True
