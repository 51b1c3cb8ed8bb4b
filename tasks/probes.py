"""Probes: harmless requests that tell an outage from a request that fails alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from leadloop.client.api import LeadsApi
from leadloop.client.errors import Fatal, Rejected
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError
from leadloop.core.verdicts import UNREADABLE
from leadloop.core.windows import Window
from tasks.context import ApiContext, CampaignRun
from tasks.outages import OutageWatch
from tasks.retries import pause_before_retry

#: Failures of a probe that need a person, after which the run ends.
MAX_FAILURES = 3
_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
#: A window before all outcomes: a read of it depends on no lead. Not 1970, since a vendor may take
#: 0 for a bound that is not given.
EMPTY_WINDOW = Window(after=_LONG_AGO, before=_LONG_AGO + timedelta(seconds=1))


def watch_reads(run: CampaignRun[ApiContext]) -> OutageWatch:
    """Return the watch for an outage of reads. Its probe is a read of the campaign."""
    return watch_outages(run, lambda: read_campaign(run))


def watch_outages(run: CampaignRun[ApiContext], probe: Callable[[], object]) -> OutageWatch:
    """Return the watch for an outage of the requests that a probe stands for."""
    account = run.context.account
    return OutageWatch(
        probe,
        run.context.limiter.sleep,
        account.address,
        account.variable("api_url"),
        run.log_step,
    )


def read_campaign(run: CampaignRun[ApiContext]) -> bool:
    """Read a window of the campaign in which nothing was processed. See `send_probe`."""
    return send_probe(lambda: read_empty_window(run.context.api, run.campaign))


def read_empty_window(api: LeadsApi, campaign: Campaign) -> None:
    """Read a window of the campaign in which nothing was processed, as a probe.

    Raises:
        ApiError: the vendor does not answer, or rejects the request.
    """
    api.for_probes().list_processed(
        campaign.campaign_id, EMPTY_WINDOW, unit=campaign.epoch_unit, page=1, page_size=1
    )


def send_probe(request: Callable[[], object]) -> bool:
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
