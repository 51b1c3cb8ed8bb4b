"""The accounts of a live run: each has separate lanes, permits and a watch for outages.

So whatever the vendor does to one account, it delays no other.
"""

from collections.abc import Callable, Mapping

from leadloop.core.campaign_rules import Campaign
from leadloop.settings import Account
from tasks.context import ApiContext, Logger
from tasks.live_dispatch import SENDS_OPT_OUTS, Dispatcher
from tasks.live_lanes import EndedErrand, Lane
from tasks.live_vendor import VendorWatch

# The least time between two disables, as a part of the vendor's period.
_OPT_OUT_GAP = 1 / 20


class LiveAccount:
    """An account in a live run.

    Attributes:
        account: its address, login and rate limit.
        vendor: whether the vendor answers it.
        lanes: its lanes by name; empty until they are opened.
        dispatcher: decides what its lanes do.

    Args:
        account: the account.
        log: where an outage is logged.
        on_ended: is called with each errand that has ended, in the thread of its lane.
    """

    def __init__(
        self, account: Account, log: Logger, on_ended: Callable[[EndedErrand], None]
    ) -> None:
        self.account = account
        self.vendor = VendorWatch(log, account.address)
        self.lanes: dict[str, Lane] = {}
        self.dispatcher = Dispatcher(self.lanes, self.vendor, account.parse_rate(), on_ended)

    @property
    def name(self) -> str:
        """The name of the account."""
        return self.account.name

    def open_lanes(
        self, contexts: Mapping[str, ApiContext], on_free: Callable[[EndedErrand], None]
    ) -> None:
        """Start a lane in each context, by its name; `on_free`: see `Lane`."""
        _, period_s = self.account.parse_rate()
        for name, context in contexts.items():
            gap_s = period_s * _OPT_OUT_GAP if name in SENDS_OPT_OUTS else 0.0
            lane = Lane(name, context, self.dispatcher.record_end, on_free, gap_s=gap_s)
            self.lanes[name] = lane
            lane.start()

    def keep_own(self, campaigns: Mapping[str, Campaign]) -> dict[str, Campaign]:
        """Return the campaigns that belong to the account, by id."""
        return {key: each for key, each in campaigns.items() if each.account == self.name}
