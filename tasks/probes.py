"""Probes: harmless requests that tell an outage from a request that fails alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from leadloop.client.errors import Fatal, Rejected
from leadloop.core.addresses import hide_credentials
from leadloop.core.errors import RunError
from leadloop.core.verdicts import UNREADABLE
from leadloop.core.windows import Window
from tasks.context import ApiContext, CampaignRun
from tasks.outages import OutageWatch
from tasks.retries import pause_before_retry

#: Failures of a probe that need a person, after which the run ends.
MAX_FAILURES = 3
# A window before all outcomes: a read of it depends on no lead.
_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
_EMPTY_WINDOW = Window(after=_LONG_AGO, before=_LONG_AGO + timedelta(seconds=1))


def watch_reads(run: CampaignRun[ApiContext]) -> OutageWatch:
    """Return the watch for an outage of reads. Its probe is a read of the campaign."""
    return watch_outages(run, lambda: read_campaign(run))


def watch_outages(run: CampaignRun[ApiContext], probe: Callable[[], object]) -> OutageWatch:
    """Return the watch for an outage of the requests that a probe stands for."""
    address = hide_credentials(run.context.settings.api_url)
    return OutageWatch(probe, run.context.limiter.sleep, address)


def read_campaign(run: CampaignRun[ApiContext]) -> bool:
    """Read a window of the campaign in which nothing was processed. See `send_probe`."""
    api, campaign = run.context.api, run.campaign
    return send_probe(
        lambda: api.list_processed(
            campaign.campaign_id, _EMPTY_WINDOW, unit=campaign.epoch_unit, page=1, page_size=1
        )
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
