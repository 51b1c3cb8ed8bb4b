"""Probes of a disable: requests that tell an outage from an opt-out on which the vendor fails."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from db import opt_outs
from leadloop.client.errors import ApiError, Fatal, Rejected
from leadloop.core.addresses import hide_credentials
from leadloop.core.disable_bisection import MAX_FAILURES
from leadloop.core.errors import RunError
from leadloop.core.verdicts import UNREADABLE
from leadloop.core.windows import Window
from tasks.context import ApiContext, CampaignRun
from tasks.outages import OutageWatch
from tasks.retries import pause_before_retry

# A window before all outcomes: a read of it depends on no lead.
_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
_EMPTY_WINDOW = Window(after=_LONG_AGO, before=_LONG_AGO + timedelta(seconds=1))


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
        sleep = run.context.limiter.sleep
        address = hide_credentials(run.context.settings.api_url)
        self.disables = OutageWatch(self._repeat_disable, sleep, address)
        self.reads = OutageWatch(self._read_campaign, sleep, address)

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
            self._run.context.api.disable(self._campaign_id, [confirmed])
        except ApiError:
            return False
        return True

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
            self._read_campaign()
            return
        api = self._run.context.api
        if self._send_probe(lambda: api.disable(self._campaign_id, [confirmed])):
            self.has_repeated = True

    def _read_campaign(self) -> None:
        api, unit = self._run.context.api, self._run.campaign.epoch_unit
        self._send_probe(
            lambda: api.list_processed(
                self._campaign_id, _EMPTY_WINDOW, unit=unit, page=1, page_size=1
            )
        )

    def _send_probe(self, request: Callable[[], object]) -> bool:
        """Send a request that should succeed, and return once the vendor answers it in any way.

        Returns:
            Whether the vendor accepted it.

        Raises:
            Retryable: the vendor did not respond.
            RunError: the login may not do this, or the address is wrong, MAX_FAILURES times.
        """
        failures = 0
        while True:
            try:
                request()
            except Rejected:
                return False
            except Fatal as error:
                if error.response.status == 404 and error.response.body is not UNREADABLE:
                    return False
                # A read has been retried by itself.
                failures += error.attempts
                if failures >= MAX_FAILURES:
                    raise RunError(str(error)) from None
                pause_before_retry(failures)
            else:
                return True
