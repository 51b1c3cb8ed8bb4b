"""Hands what is due to the lanes of a live run: opt-outs, urgent leads, other leads, polls."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from threading import Lock
from typing import Any

from db.due_work import DueWork, PolledCampaign
from leadloop.client.errors import ApiError, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.calling_hours import CallingHours
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError
from leadloop.core.live_schedule import (
    CLOSED_LOOK_INTERVAL_S,
    OPT_OUT_TRIAL_S,
    QUIET_LOOK_INTERVAL_S,
    REREAD_INTERVAL_S,
    TRIAL_S,
    LookPace,
    Pauses,
    Trials,
    expects_outcomes,
    is_behind,
    plan_looks,
)
from leadloop.core.opt_out_looks import OptOutLooks
from leadloop.core.rate_ring import Purpose
from leadloop.core.source_looks import SourceLooks
from tasks.context import ApiContext
from tasks.disable import DISABLE, READ_OPT_OUTS, DisableJob
from tasks.head_look import find_lookback_start
from tasks.jobs import JobSpec
from tasks.live_heads import LiveHeads
from tasks.live_lanes import EndedErrand, Errand, Lane
from tasks.live_vendor import VendorWatch
from tasks.look_permits import LookPermits
from tasks.opt_out_sync import has_new_opt_outs
from tasks.poll import HEAD_POLL, POLL
from tasks.probes import read_empty_window
from tasks.push import FEW_PUSH, PUSH, URGENT_PUSH
from tasks.source_sync import differs_from_source

#: The lanes, and the purposes of their requests. Slow are the opt-outs of campaigns whose last
#: disable has failed: it may take minutes, in which others must not wait. So may a look at an
#: opt-out source that has not proved quick; looks send nothing to the vendor.
LANES = {
    "opt-out sources": Purpose.OPT_OUTS,
    "slow opt-out sources": Purpose.OPT_OUTS,
    "opt-outs": Purpose.OPT_OUTS,
    "slow opt-outs": Purpose.OPT_OUTS,
    "urgent": Purpose.URGENT,
    "bulk": Purpose.BULK,
    "polls": Purpose.POLLS,
    "rereads": Purpose.POLLS,
}
OPT_OUT_SOURCES, SLOW_SOURCES, OPT_OUTS, SLOW_OPT_OUTS, URGENT, BULK, POLLS, REREADS = LANES
#: The lanes whose jobs send opt-outs to the vendor.
SENDS_OPT_OUTS = (OPT_OUTS, SLOW_OPT_OUTS)
_USUAL_LANE = {SLOW_OPT_OUTS: OPT_OUTS, SLOW_SOURCES: OPT_OUT_SOURCES}

# Runs with this many requests or fewer leave enough slots to looks.
_FEW_REQUESTS = 5
# Chunks are short, so that another campaign's lead, or opt-out, waits for few requests.
_BULK_PUSH = replace(PUSH, min_chunk=4)
# New opt-outs come from their source in separate lanes.
_SHORT_DISABLE = replace(DISABLE, min_chunk=2, start=DisableJob)


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
        # With the seconds between two looks; None: as often as the requests allow.
        self._polled: list[tuple[Campaign, float | None]] = []
        self._on_ended = on_ended
        self._lock = Lock()
        self._pauses = Pauses()
        self._heads = LiveHeads()
        self._lookbacks = LiveHeads(find_lookback_start)
        self._head_poll = replace(HEAD_POLL, start=self._heads.plan_poll)
        # When each campaign's head was looked at, and when its lookback is due.
        self._looked_at: dict[str, float] = {}
        self._reread_due_at: dict[str, float] = {}
        # Campaigns whose lookback is to be read by a poll, whatever a look would show.
        self._behind: set[str] = set()
        self._next_look_at = self._has_runs_until = -math.inf
        # The newest opt-out or lead when a job was offered last, and the jobs that have failed.
        self._newest: dict[tuple[str, str], Any] = {}
        self._failed: set[tuple[str, str]] = set()
        # The campaigns that probes may ask for, by id, and which one's turn it is.
        self._probed: dict[str, Campaign] = {}
        self._probes = 0
        # While the vendor answers no read: the lanes that have got something done all the same, and
        # when other jobs may try.
        self._working_lanes: set[str] = set()
        self._trials = Trials()
        self._source_looks = SourceLooks()
        # The campaigns with an opt-out source, whose looks the lanes share with the pushes.
        self._with_opt_out_source: list[Campaign] = []

    def offer_work(self, due: Sequence[DueWork], campaigns: Mapping[str, Campaign]) -> None:
        """Hand over opt-outs, leads and owed windows; `campaigns` are their rows, by id.

        While no campaign has many leads, urgent ones leave requests over, and all leads may use
        them.
        """
        are_few = all(work.are_few for work in due if work.has_leads)
        for work in due:
            if (campaign := campaigns.get(work.campaign_id)) is None:
                continue
            self._note_probed(campaign)
            if work.has_opt_outs:
                has_failed = (OPT_OUTS, campaign.campaign_id) in self._failed
                lane = SLOW_OPT_OUTS if has_failed else OPT_OUTS
                self._offer(lane, campaign, _SHORT_DISABLE, newest=work.newest_opt_out)
            may_push = campaign.enabled and self._may_push(campaign)
            if may_push and work.has_urgent:
                self._offer(URGENT, campaign, URGENT_PUSH)
            if may_push and work.has_leads:
                # Those of a source follow it first.
                is_few = are_few and campaign.source is None
                lane, push = (URGENT, FEW_PUSH) if is_few else (BULK, _BULK_PUSH)
                self._offer(lane, campaign, push, newest=work.newest_lead)
            if campaign.enabled and work.has_owed_windows:
                self._offer(REREADS, campaign, POLL)

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
        self._behind |= {each.campaign_id for each in polled if is_behind(each.read_through, now)}
        self._polled = [
            (campaign, self._find_slow_interval_s(campaign, each.last_active_at, now))
            for each in polled
            if (campaign := campaigns.get(each.campaign_id)) is not None
        ]
        # Rereads are spread, so that looks at heads have no long gap; whose polls are behind waits
        # for none.
        began = read_boot_clock()
        for number, (campaign, _) in enumerate(self._polled):
            self._note_probed(campaign)
            is_late = campaign.campaign_id in self._behind
            due_at = began + REREAD_INTERVAL_S * number / len(self._polled)
            self._reread_due_at.setdefault(campaign.campaign_id, began if is_late else due_at)

    @property
    def next_due_at(self) -> float:
        """When `offer_polls` has something to do, seconds of the boot clock; infinity: never."""
        next_look_at = self._next_look_at if self._polled else math.inf
        now = read_boot_clock()
        next_source_at = self._source_looks.find_next_due(now)
        next_opt_outs_at = self._opt_out_looks.find_next_due(now)
        return min(next_look_at, next_source_at, next_opt_outs_at, self._vendor.next_probe_at)

    def find_next_retry(self) -> float:
        """Return when the next job that failed may be offered again; infinity without one."""
        with self._lock:
            return self._pauses.find_next_end(read_boot_clock())

    def announce_sources(self) -> None:
        """Have sources looked at as soon as the share of the time that looks may take allows."""
        self._source_looks.announce(
            campaign.campaign_id for campaign, _ in self._polled if campaign.source is not None
        )
        self._opt_out_looks.announce(self._with_opt_out_source)

    def plan_opt_out_looks(self, with_source: Sequence[Campaign]) -> None:
        """Note the campaigns that have an opt-out source."""
        self._with_opt_out_source = list(with_source)

    def offer_opt_out_looks(self) -> None:
        """Hand over the looks at opt-out sources that are due, also while the vendor is out."""
        now = read_boot_clock()
        busy = {*self._lanes[OPT_OUT_SOURCES].busy_with, *self._lanes[SLOW_SOURCES].busy_with}
        for campaign in self._with_opt_out_source:
            with self._lock:
                has_paused = self._pauses.is_due((OPT_OUT_SOURCES, campaign.campaign_id), now)
            if (
                has_paused
                and campaign.campaign_id not in busy
                and self._opt_out_looks.is_due(campaign, now)
            ):
                is_slow = self._opt_out_looks.is_slow(campaign)
                lane = self._lanes[SLOW_SOURCES if is_slow else OPT_OUT_SOURCES]
                look = partial(has_new_opt_outs, lane.context, campaign)
                lane.offer(Errand(campaign=campaign, spec=READ_OPT_OUTS, look=look))

    def offer_polls(self) -> None:
        """Hand over the look that is due, rereads, and pushes where a source has changed.

        While the vendor answers nothing, a probe instead, where that is due.
        """
        now = read_boot_clock()
        pace = self._set_pace()
        self._next_look_at = min(self._next_look_at, now + pace.distance_s)
        busy = set(self._lanes[POLLS].busy_with)
        for campaign, _ in self._polled:
            if campaign.campaign_id not in busy:
                self._offer_reread(campaign, now)
            if campaign.source is not None:
                self._offer_source(campaign)
        if now >= self._next_look_at:
            self._offer_look(pace, now)
            # Looks that are late a little keep their rhythm.
            self._next_look_at += pace.distance_s
            if self._next_look_at < now:
                self._next_look_at = now + pace.distance_s
        if self._vendor.next_probe_at <= now and (probed := self._choose_probed()) is not None:
            self.offer_probe(probed)

    def release_permits(self) -> None:
        """Release the permits of looks that are reserved: the vendor has asked for a pause."""
        self._look_permits.release()

    @cached_property
    def _opt_out_looks(self) -> OptOutLooks:
        return self._lanes[OPT_OUT_SOURCES].context.opt_out_looks

    def _may_push(self, campaign: Campaign) -> bool:
        """Return whether the opt-outs of the campaign's own table, if it has one, are on record."""
        return (
            campaign.opt_out_source is None
            or not self._opt_out_looks.by_others
            or self._opt_out_looks.is_fresh(campaign, read_boot_clock())
        )

    @cached_property
    def _look_permits(self) -> LookPermits:
        context = self._lanes[POLLS].context
        permits = LookPermits(context.database, context.limiter, LANES[POLLS])
        for lane in (OPT_OUTS, SLOW_OPT_OUTS, URGENT):
            self._lanes[lane].context.limiter.borrow_slots(permits.yield_slot)
        return permits

    def _set_pace(self) -> LookPace:
        """Return the pace of looks; reserve their permits ahead only while no run needs slots.

        A run with many requests needs slots for as long as the vendor counts them.
        """
        requests, period_s = self._rate
        slow_s = [each for _, each in self._polled if each is not None]
        if self._lanes[BULK].has_runs:
            self._record_runs()
        has_runs = read_boot_clock() < self._has_runs_until
        pace = plan_looks(
            len(self._polled) - len(slow_s),
            slow_s,
            requests=requests,
            period_s=period_s,
            has_runs=has_runs,
        )
        self._look_permits.set_pace(pace.distance_s, is_ahead=not has_runs)
        return pace

    def offer_probe(self, campaign: Campaign) -> None:
        """Ask whether the vendor answers again."""
        look = partial(self._probe_again, campaign)
        self._lanes[POLLS].offer(Errand(campaign=campaign, spec=POLL, look=look))

    def record_end(self, ended: EndedErrand) -> None:
        """Record how an errand ended: after a failure, find out whether the vendor answers."""
        key = _find_key(ended.lane, ended.errand.campaign)
        if ended.counts:
            self._record_poll(ended)
        if ended.lane in (BULK, POLLS, REREADS) and ended.counts.get("requests", 0) > _FEW_REQUESTS:
            self._record_runs()
        if ended.error is not None and ended.lane not in (OPT_OUT_SOURCES, SLOW_SOURCES):
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
        key = _find_key(lane, campaign)
        with self._lock:
            if not self._is_due(key, newest, now):
                return False
            is_trial = self._vendor.is_out and lane not in self._working_lanes
            is_read = lane in (POLLS, REREADS)
            if is_trial and (is_read or not self._trials.is_due(lane, campaign_id, now)):
                return False
        if not self._lanes[lane].offer(Errand(campaign=campaign, spec=spec, look=look)):
            return False
        with self._lock:
            if newest is not None:
                self._newest[key] = newest
            if is_trial:
                is_opt_out = LANES[lane] is Purpose.OPT_OUTS
                interval_s = OPT_OUT_TRIAL_S if is_opt_out else TRIAL_S
                self._trials.record(lane, campaign_id, now, interval_s=interval_s)
        return True

    def _is_due(self, key: tuple[str, str], newest: Any, now: float) -> bool:
        """Return whether a job's pause is over.

        What came in since ends a pause after a job that did not fail: one that had nothing to do
        but what must wait, such as leads in doubt.
        """
        is_newer = newest is not None and key in self._newest and newest > self._newest[key]
        return self._pauses.is_due(key, now) or (is_newer and key not in self._failed)

    def _find_slow_interval_s(
        self, campaign: Campaign, last_active_at: datetime | None, now: datetime
    ) -> float | None:
        """Return the seconds between two looks at a campaign without outcomes soon, else None.

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
            return CLOSED_LOOK_INTERVAL_S
        return None if expects_outcomes(last_active_at, now) else QUIET_LOOK_INTERVAL_S

    def _record_runs(self) -> None:
        _, period_s = self._rate
        self._has_runs_until = read_boot_clock() + period_s

    def _record_poll(self, ended: EndedErrand) -> None:
        campaign_id, is_completed = ended.errand.campaign.campaign_id, ended.error is None
        if ended.lane == POLLS:
            self._heads.record_poll(campaign_id, is_completed=is_completed)
        elif ended.lane == REREADS:
            self._lookbacks.record_poll(campaign_id, is_completed=is_completed)
            self._heads.find_again(campaign_id)
            self._behind.discard(campaign_id)

    def _offer_look(self, pace: LookPace, now: float) -> None:
        """Hand over the look at a head that is most overdue."""

        def find_due(polled: tuple[Campaign, float | None]) -> float:
            campaign, slow_s = polled
            looked_at = self._looked_at.get(campaign.campaign_id, -math.inf)
            return looked_at + (pace.active_s if slow_s is None else slow_s * pace.slow_factor)

        for polled in sorted(self._polled, key=find_due):
            # Looks are due one by one: a little early is in time.
            if find_due(polled) > now + pace.distance_s / 2:
                return
            campaign, _ = polled
            if self._offer(POLLS, campaign, self._head_poll, partial(self._look_at_head, campaign)):
                self._looked_at[campaign.campaign_id] = now
                return

    def _offer_reread(self, campaign: Campaign, now: float) -> None:
        """Hand over the reread that is due: a look at the lookback, or a poll of it.

        The head comes first: when a live run begins, what is new there shall not wait.
        """
        campaign_id = campaign.campaign_id
        if campaign_id not in self._looked_at or now < self._reread_due_at[campaign_id]:
            return
        is_read_anyway = campaign_id in self._behind
        look = None if is_read_anyway else partial(self._look_at_lookback, campaign)
        if self._offer(REREADS, campaign, POLL, look):
            self._reread_due_at[campaign_id] = now + REREAD_INTERVAL_S

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
        return self._look(self._heads, self._lanes[POLLS], campaign)

    def _look_at_lookback(self, campaign: Campaign) -> bool:
        """Return whether the lookback shows anything new; begin both ranges where polls are now."""
        self._lookbacks.find_again(campaign.campaign_id)
        self._heads.find_again(campaign.campaign_id)
        return self._look(self._lookbacks, self._lanes[REREADS], campaign)

    def _look(self, heads: LiveHeads, lane: Lane, campaign: Campaign) -> bool:
        session = lane.context.session
        api = session.api.with_permits(self._look_permits.wait_for_permit)
        context = replace(lane.context, session=replace(session, api=api))
        try:
            return heads.has_news(context, campaign)
        except ApiError as error:
            # The next one is a poll, which reads around what cannot be read.
            self._look_permits.release()
            self._behind.add(campaign.campaign_id)
            self._reread_due_at[campaign.campaign_id] = read_boot_clock()
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


def _find_key(lane: str, campaign: Campaign) -> tuple[str, str]:
    """Return the key of a campaign's job: of two lanes for one kind, that of the usual one."""
    return _USUAL_LANE.get(lane, lane), campaign.campaign_id
