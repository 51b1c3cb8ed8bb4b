"""The heads of a live run's campaigns: what looks have seen of each, and polls have stored."""

from leadloop.core.campaign_rules import Campaign
from tasks.context import ApiContext, CampaignRun
from tasks.head_look import FindStart, HeadLook, SeenHead, find_head_start, look_at_head
from tasks.poll import PollJob, plan_head_poll


class LiveHeads:
    """What is known of each campaign's head; looked at and polled by one thread.

    A result counts as known once a poll that began after the look has completed. So whatever stops
    a poll, the next look has news again.

    Args:
        find_start: see `look_at_head`.
    """

    def __init__(self, find_start: FindStart = find_head_start) -> None:
        self._find_start = find_start
        self._seen: dict[str, SeenHead] = {}
        self._looks: dict[str, HeadLook] = {}

    def has_news(self, context: ApiContext, campaign: Campaign) -> bool:
        """Look at a campaign's head; return whether a poll may have something to store.

        Raises:
            ApiError: see `look_at_head`.
        """
        campaign_id = campaign.campaign_id
        seen = self._seen.pop(campaign_id, SeenHead())
        look = look_at_head(context, campaign, seen, self._find_start)
        if look.has_news:
            self._looks[campaign_id] = look
        else:
            self._seen[campaign_id] = look.seen
        return look.has_news

    def plan_poll(self, run: CampaignRun[ApiContext]) -> PollJob | None:
        """Plan the head poll that follows a look with news; see `plan_head_poll`."""
        return plan_head_poll(run, look=self._looks.get(run.campaign.campaign_id))

    def record_poll(self, campaign_id: str, *, is_completed: bool) -> None:
        """Record that the poll that follows a look has ended."""
        look = self._looks.pop(campaign_id, None)
        seen = look.seen if look is not None else self._seen.get(campaign_id)
        self._seen.pop(campaign_id, None)
        if is_completed and seen is not None:
            self._seen[campaign_id] = seen.after_poll()

    def find_again(self, campaign_id: str) -> None:
        """Let the next look find the start of its range again, as a poll may have moved it.

        Any thread may do so: what is known stays known.
        """
        if (seen := self._seen.get(campaign_id)) is not None:
            self._seen[campaign_id] = seen.after_poll()
