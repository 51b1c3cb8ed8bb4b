"""Hands what is due to the lanes of a live run: opt-outs, urgent leads, other leads, polls."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from threading import Lock
from typing import Any

from db.due_work import DueWork, PolledCampaign
from leadloop.client.errors import ApiError, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.calling_hours import CallingHours
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError
from leadloop.core.live_schedule import (
    CLOSED_POLL_INTERVAL_S,
    OPT_OUT_TRIAL_S,
    QUIET_POLL_INTERVAL_S,
    REREAD_INTERVAL_S,
    TRIAL_S,
    Pauses,
    Trials,
    expects_outcomes,
    poll_interval_s,
)
from leadloop.core.rate_ring import Purpose
from leadloop.core.source_looks import SourceLooks
from tasks.context import ApiContext
from tasks.disable import DISABLE
from tasks.jobs import JobSpec
from tasks.live_heads import LiveHeads
from tasks.live_lanes import EndedErrand, Errand, Lane
from tasks.live_vendor import VendorWatch
from tasks.poll import HEAD_POLL, POLL
from tasks.probes import read_empty_window
from tasks.push import PUSH, URGENT_PUSH
from tasks.source_sync import differs_from_source

#: The lanes, and the purposes of their requests. Slow are the opt-outs of campaigns whose last
#: disable has failed: it may take minutes, in which others must not wait.
LANES = {
    "opt-outs": Purpose.OPT_OUTS,
    "slow opt-outs": Purpose.OPT_OUTS,
    "urgent": Purpose.URGENT,
    "bulk": Purpose.BULK,
    "polls": Purpose.POLLS,
}
OPT_OUTS, SLOW_OPT_OUTS, URGENT, BULK, POLLS = LANES

# Chunks are short, so that another campaign's lead, or opt-out, waits for few requests.
_BULK_PUSH, _SHORT_DISABLE = replace(PUSH, min_chunk=4), replace(DISABLE, min_chunk=2)


class Dispatcher:
    """Decides what the lanes do; what has failed, or came to nothing, is due after a pause.

    Args:
        lanes: the lanes, by name.
        vendor: whether the vendor answers.
        rate: the vendor's rate limit: requests a period, and the period, seconds.
        on_ended: is called with each errand that has ended, in the thread of its lane.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        vendor: VendorWatch,
        rate: tuple[int, float],
        on_ended: Callable[[EndedErrand], None],
    ) -> None:
        self._lanes = lanes
        self._vendor = vendor
        self._rate = rate
        # With the seconds between two polls; None: as often as the requests allow.
        self._polled: list[tuple[Campaign, float | None]] = []
        self._on_ended = on_ended
        self._lock = Lock()
        self._pauses = Pauses()
        self._heads = LiveHeads()
        self._head_poll = replace(HEAD_POLL, start=self._heads.plan_poll)
        self._polled_at: dict[str, float] = {}
        self._reread_at: dict[str, float] = {}
        # The newest opt-out or lead when a job was offered last, and the jobs that have failed.
        self._newest: dict[tuple[Purpose, str], Any] = {}
        self._failed: set[tuple[Purpose, str]] = set()
        # The campaigns that probes may ask for, by id, and which one's turn it is.
        self._probed: dict[str, Campaign] = {}
        self._probes = 0
        # While the vendor answers no read: the lanes that have got something done all the same, and
        # when other jobs may try.
        self._working_lanes: set[str] = set()
        self._trials = Trials()
        self._source_looks = SourceLooks()

    def offer_work(self, due: Sequence[DueWork], campaigns: Mapping[str, Campaign]) -> None:
        """Hand over opt-outs, leads and owed windows; `campaigns` are their rows, by id."""
        for work in due:
            if (campaign := campaigns.get(work.campaign_id)) is None:
                continue
            self._note_probed(campaign)
            if work.has_opt_outs:
                has_failed = (Purpose.OPT_OUTS, campaign.campaign_id) in self._failed
                lane = SLOW_OPT_OUTS if has_failed else OPT_OUTS
                self._offer(lane, campaign, _SHORT_DISABLE, newest=work.newest_opt_out)
            if campaign.enabled and work.has_urgent:
                self._offer(URGENT, campaign, URGENT_PUSH)
            if campaign.enabled and work.has_leads:
                self._offer(BULK, campaign, _BULK_PUSH, newest=work.newest_lead)
            if campaign.enabled and work.has_owed_windows:
                self._offer(POLLS, campaign, POLL)

    def plan_polls(
        self,
        polled: Sequence[PolledCampaign],
        campaigns: Mapping[str, Campaign],
        *,
        now: datetime,
    ) -> None:
        """Note the campaigns to poll, and how often.

        Args:
            polled: the campaigns.
            campaigns: their rows, by id.
            now: the database's clock.
        """
        self._polled = [
            (campaign, self._find_slow_interval_s(campaign, each.last_active_at, now))
            for each in polled
            if (campaign := campaigns.get(each.campaign_id)) is not None
        ]
        for campaign, _ in self._polled:
            self._note_probed(campaign)

    def announce_sources(self) -> None:
        """Have sources looked at as soon as the share of the time that looks may take allows."""
        self._source_looks.announce(
            campaign.campaign_id for campaign, _ in self._polled if campaign.source is not None
        )

    def offer_polls(self) -> None:
        """Hand over the polls that are due, and the pushes of campaigns whose source has changed.

        While the vendor answers nothing, a probe instead, where that is due.
        """
        requests, period_s = self._rate
        interval_s = poll_interval_s(
            sum(slow_interval_s is None for _, slow_interval_s in self._polled),
            requests=requests,
            period_s=period_s,
            is_pushing=bool(self._lanes[BULK].busy_with),
        )
        for campaign, slow_interval_s in self._polled:
            self._offer_poll(campaign, slow_interval_s or interval_s)
            if campaign.source is not None:
                self._offer_source(campaign)
        if self._vendor.is_probe_due() and (probed := self._choose_probed()) is not None:
            self.offer_probe(probed)

    def offer_probe(self, campaign: Campaign) -> None:
        """Ask whether the vendor answers again."""
        look = partial(self._probe_again, campaign)
        self._lanes[POLLS].offer(Errand(campaign=campaign, spec=POLL, look=look))

    def record_end(self, ended: EndedErrand) -> None:
        """Record how an errand ended: after a failure, find out whether the vendor answers."""
        campaign_id = ended.errand.campaign.campaign_id
        key = LANES[ended.lane], campaign_id
        if ended.lane == POLLS and ended.counts:
            self._heads.record_poll(campaign_id, is_completed=ended.error is None)
        if ended.error is not None:
            self._probe(ended.lane, ended.errand.campaign)
        with self._lock:
            self._pauses.record(key, read_boot_clock(), has_progress=ended.has_progress)
            if ended.error is not None:
                self._failed.add(key)
            elif ended.counts:
                self._failed.discard(key)
            if ended.counts and ended.has_progress:
                self._working_lanes.add(ended.lane)
        self._on_ended(ended)

    def _offer(
        self,
        lane: str,
        campaign: Campaign,
        spec: JobSpec[ApiContext],
        look: Callable[[], bool] | None = None,
        *,
        newest: Any = None,
    ) -> bool:
        """Hand over a job, unless its pause or the vendor's outage keeps it; return whether."""
        campaign_id, now = campaign.campaign_id, read_boot_clock()
        with self._lock:
            if not self._is_due((LANES[lane], campaign_id), newest, now):
                return False
            is_trial = self._vendor.is_out and lane not in self._working_lanes
            if is_trial and (lane == POLLS or not self._trials.is_due(lane, campaign_id, now)):
                return False
        if not self._lanes[lane].offer(Errand(campaign=campaign, spec=spec, look=look)):
            return False
        with self._lock:
            if newest is not None:
                self._newest[LANES[lane], campaign_id] = newest
            if is_trial:
                is_opt_out = LANES[lane] is Purpose.OPT_OUTS
                interval_s = OPT_OUT_TRIAL_S if is_opt_out else TRIAL_S
                self._trials.record(lane, campaign_id, now, interval_s=interval_s)
        return True

    def _is_due(self, key: tuple[Purpose, str], newest: Any, now: float) -> bool:
        """Return whether a job's pause is over.

        What came in since ends a pause after a job that did not fail: one that had nothing to do
        but what must wait, such as leads in doubt.
        """
        is_newer = newest is not None and key in self._newest and newest > self._newest[key]
        return self._pauses.is_due(key, now) or (is_newer and key not in self._failed)

    def _find_slow_interval_s(
        self, campaign: Campaign, last_active_at: datetime | None, now: datetime
    ) -> float | None:
        """Return the seconds between two polls of a campaign without outcomes soon, else None.

        Hours that cannot be read slow nothing down.
        """
        try:
            hours = campaign.calling_hours and CallingHours.parse(campaign.calling_hours)
        except ValueError as error:
            hours = None
            self._lanes[POLLS].context.log.warning(
                "campaign %s: calling_hours %s. Until this is corrected, the campaign is polled at"
                " all hours",
                *(campaign.campaign_id, error),
            )
        if hours and not hours.brings_outcomes(now):
            return CLOSED_POLL_INTERVAL_S
        return None if expects_outcomes(last_active_at, now) else QUIET_POLL_INTERVAL_S

    def _offer_poll(self, campaign: Campaign, interval_s: float) -> None:
        """Hand over the poll that is due: one that reads the lookback again, or a look."""
        campaign_id, now = campaign.campaign_id, read_boot_clock()
        if now < self._polled_at.get(campaign_id, -math.inf) + interval_s:
            return
        if now >= self._reread_at.get(campaign_id, -math.inf) + REREAD_INTERVAL_S:
            if self._offer(POLLS, campaign, POLL):
                self._reread_at[campaign_id] = self._polled_at[campaign_id] = now
        elif self._offer(POLLS, campaign, self._head_poll, partial(self._look_at_head, campaign)):
            self._polled_at[campaign_id] = now

    def _offer_source(self, campaign: Campaign) -> None:
        """Hand over a push that follows the team's own table, if that has changed."""
        if self._source_looks.is_due(campaign.campaign_id, read_boot_clock()):
            self._offer(BULK, campaign, _BULK_PUSH, partial(self._look_at_source, campaign))

    def _look_at_source(self, campaign: Campaign) -> bool:
        """Return whether the team's own table has changed; it is read all the time but little."""
        began = read_boot_clock()
        self._source_looks.begin(campaign.campaign_id)
        try:
            return differs_from_source(self._lanes[BULK].context, campaign)
        finally:
            self._source_looks.end(campaign.campaign_id, began, read_boot_clock())

    def _look_at_head(self, campaign: Campaign) -> bool:
        """Return whether the newest outcomes show anything new."""
        try:
            return self._heads.has_news(self._lanes[POLLS].context, campaign)
        except ApiError as error:
            # The next one is a poll, which reads around what cannot be read.
            self._reread_at.pop(campaign.campaign_id, None)
            raise RunError(str(error)) from None

    def _probe_again(self, campaign: Campaign) -> bool:
        self._probe(POLLS, campaign)
        return False

    def _note_probed(self, campaign: Campaign) -> None:
        with self._lock:
            self._probed[campaign.campaign_id] = campaign

    def _choose_probed(self, other_than: str | None = None) -> Campaign | None:
        """Return the campaign whose turn it is to be asked for; None if there is no other one."""
        with self._lock:
            found = [each for key, each in self._probed.items() if key != other_than]
            self._probes += 1
            return found[self._probes % len(found)] if found else None

    def _probe(self, lane: str, campaign: Campaign) -> bool:
        """Return whether the vendor answers; once it does again, nothing waits any longer.

        Before it counts as out, another campaign is asked for: one alone may be broken.
        """
        was_out = self._vendor.is_out
        api = self._lanes[lane].context.api
        other = None if was_out else self._choose_probed(campaign.campaign_id)

        def read() -> None:
            try:
                read_empty_window(api, campaign)
            except Retryable:
                if other is None:
                    raise
                read_empty_window(api, other)

        answers = self._vendor.probe(read)
        with self._lock:
            if was_out and answers:
                self._pauses.end_all()
            elif not was_out and not answers:
                self._working_lanes.clear()
                self._trials.begin()
        return answers
