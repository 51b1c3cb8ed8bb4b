"""The heads of a live run's campaigns: what looks have seen of each, and polls have stored."""

from leadloop.core.campaign_rules import Campaign
from tasks.context import ApiContext, CampaignRun
from tasks.head_look import HeadLook, SeenHead, look_at_head
from tasks.poll import PollJob, plan_head_poll


class LiveHeads:
    """What is known of each campaign's head; used by one thread.

    A result counts as known once a poll that began after the look has completed. So whatever stops
    a poll, the next look has news again.
    """

    def __init__(self) -> None:
        self._seen: dict[str, SeenHead] = {}
        self._looks: dict[str, HeadLook] = {}

    def has_news(self, context: ApiContext, campaign: Campaign) -> bool:
        """Look at a campaign's head; return whether a poll may have something to store.

        Raises:
            ApiError: see `look_at_head`.
        """
        campaign_id = campaign.campaign_id
        look = look_at_head(context, campaign, self._seen.pop(campaign_id, SeenHead()))
        if look.has_news:
            self._looks[campaign_id] = look
        else:
            self._seen[campaign_id] = look.seen
        return look.has_news

    def plan_poll(self, run: CampaignRun[ApiContext]) -> PollJob | None:
        """Plan the head poll that follows a look with news; see `plan_head_poll`."""
        return plan_head_poll(run, look=self._looks.get(run.campaign.campaign_id))

    def record_poll(self, campaign_id: str, *, is_completed: bool) -> None:
        """Record that a poll of a campaign has ended, whether it read the lookback or not."""
        look = self._looks.pop(campaign_id, None)
        seen = look.seen if look is not None else self._seen.get(campaign_id)
        self._seen.pop(campaign_id, None)
        if is_completed and seen is not None:
            self._seen[campaign_id] = seen.after_poll()
