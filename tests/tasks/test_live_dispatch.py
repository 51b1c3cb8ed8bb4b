"""What is due goes to its lane, at the vendor's pace."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from db.campaigns import find_campaigns
from db.database import Database
from db.due_work import DueWork, PolledCampaign, list_opt_out_sources
from leadloop.core.source_requirements import SourceError
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks import live_dispatch
from tasks.context import open_api_context
from tasks.live_dispatch import (
    BULK,
    LANES,
    OPT_OUT_SOURCES,
    OPT_OUTS,
    POLLS,
    REREADS,
    SLOW_OPT_OUTS,
    SLOW_SOURCES,
    URGENT,
    Dispatcher,
)
from tasks.live_lanes import EndedErrand, Lane
from tasks.live_vendor import VendorWatch
from tests import factories, sql
from tests.jobs import HOST, push_leads
from tests.odd_reads import OddReads
from tests.polled_campaigns import process_leads

pytestmark = pytest.mark.usefixtures("environment", "quick_retries")


class DispatchUnderTest:
    """A dispatcher with real lanes, and the errands that have ended."""

    def __init__(self, database: Database, lanes: dict[str, Lane]) -> None:
        self.lanes = lanes
        self.vendor = VendorWatch(logging.getLogger("leadloop.tests"), "https://vendor")
        self.dispatcher = Dispatcher(lanes, self.vendor, (100, 60.0), lambda _: None)
        self.ended: list[EndedErrand] = []
        self._changed = threading.Condition()
        self._database = database

    def record(self, ended: EndedErrand) -> None:
        """Note an errand whose campaign is free again."""
        with self._changed:
            self.ended.append(ended)
            self._changed.notify()

    def offer(self, *due: DueWork) -> None:
        """Hand over what is due, with the rows of the campaigns."""
        context = self.lanes[BULK].context
        campaigns = {each.campaign_id: each for each in context.select_campaigns(None)}
        self.dispatcher.offer_work(due, campaigns)

    def offer_polls(self, *ids: str, read_through: datetime | None = None) -> None:
        """Hand over the polls that are due of campaigns that are active."""
        now = datetime.now(UTC)
        ids = ids or ("C1",)
        polled = [
            PolledCampaign(
                campaign_id=each,
                read_through=read_through,
                last_active_at=now - timedelta(minutes=1),
            )
            for each in ids
        ]
        context = self.lanes[BULK].context
        campaigns = {each.campaign_id: each for each in context.select_campaigns(ids)}
        self.dispatcher.plan_polls(polled, campaigns, now=now)
        self.dispatcher.offer_polls()

    def wait(self, ended: int) -> set[str]:
        """Wait until so many errands have ended; return their lanes."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ended) >= ended, timeout=60)
        return {each.lane for each in self.ended}


@pytest.fixture
def dispatch(database: Database) -> Iterator[DispatchUnderTest]:
    """A dispatcher for one campaign."""
    factories.add_campaign(database)
    with open_api_context(Settings.load(), HOST) as context:
        lanes: dict[str, Lane] = {}
        tested = DispatchUnderTest(database, lanes)
        for name in LANES:
            lanes[name] = Lane(name, context, tested.dispatcher.record_end, tested.record)
            lanes[name].start()
        yield tested
        for lane in lanes.values():
            lane.stop()
        for lane in lanes.values():
            lane.join(60)


def test_each_kind_of_work_has_its_lane(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """Urgent leads go beside the others, in a lane with its own share of requests."""
    factories.add_leads(database, "a", factories.build_lead("b", priority=1))
    dispatch.offer(DueWork(campaign_id="C1", has_leads=True, has_urgent=True))
    assert dispatch.wait(2) == {URGENT, BULK}
    factories.add_opt_outs(database, "a")
    dispatch.offer(DueWork(campaign_id="C1", has_opt_outs=True))
    assert dispatch.wait(3) == {URGENT, BULK, OPT_OUTS}
    assert vendor.store.creations("C1") == {"a": 1, "b": 1}
    assert set(vendor.store.disabled("C1")) == {"a"}


def test_few_leads_use_what_urgent_ones_leave(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """But none of them while a campaign has many: urgent ones need their share then."""
    factories.add_campaign(database, "C2")
    for campaign in ("C1", "C2"):
        factories.add_leads(database, "a", campaign=campaign)
    few = DueWork(campaign_id="C1", has_leads=True, are_few=True)
    dispatch.offer(few)
    assert dispatch.wait(1) == {URGENT}
    factories.add_leads(database, "b")
    dispatch.offer(few, DueWork(campaign_id="C2", has_leads=True))
    dispatch.wait(3)
    assert [each.lane for each in dispatch.ended] == [URGENT, BULK, BULK]
    assert vendor.store.creations("C1") == {"a": 1, "b": 1}


def test_a_deleted_campaign_has_no_work(dispatch: DispatchUnderTest, database: Database) -> None:
    """Its row was there when the loop looked, and is not any more."""
    dispatch.dispatcher.offer_work([DueWork(campaign_id="gone", has_leads=True)], {})
    assert all(lane.busy_with == [] for lane in dispatch.lanes.values())


def test_what_fails_is_not_offered_again_at_once(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """But after a pause; the vendor answers, so nothing else waits."""
    factories.add_leads(database, "a")
    vendor.add_fault(route="create", kind="status", status=403)
    due = DueWork(campaign_id="C1", has_leads=True)
    dispatch.offer(due)
    dispatch.wait(1)
    assert dispatch.ended[0].error is not None
    assert not dispatch.vendor.is_out
    dispatch.offer(due)
    assert dispatch.lanes[BULK].busy_with == []
    vendor.clear_faults()
    while len(dispatch.ended) < 2:
        dispatch.offer(due)
    dispatch.wait(2)
    assert sql.fetch_statuses(database) == {"a": "created"}


def test_nothing_but_probes_and_trials_while_the_vendor_is_away(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """An opt-out is tried all the same: where only reads fail, it goes on."""
    factories.add_leads(database, "a", "b")
    push = DueWork(campaign_id="C1", has_leads=True)
    dispatch.offer(push)
    dispatch.wait(1)
    vendor.add_fault(route="responses", kind="status", status=503)
    dispatch.offer_polls()
    dispatch.wait(2)
    assert dispatch.vendor.is_out
    factories.add_opt_outs(database, "a")
    opt_out = DueWork(campaign_id="C1", has_opt_outs=True)
    dispatch.offer(opt_out, push)
    dispatch.wait(4)
    assert sql.fetch_opt_outs(database) == {"a": "disabled"}
    factories.add_opt_outs(database, "b")
    factories.add_leads(database, "c")
    dispatch.offer(opt_out, replace(push, newest_lead=3))
    assert dispatch.lanes[BULK].busy_with == [], "one trial of a lane at a time"
    dispatch.wait(5)
    assert sql.fetch_opt_outs(database) == {"a": "disabled", "b": "disabled"}
    dispatch.offer_polls()
    assert dispatch.lanes[POLLS].busy_with == []


def test_one_campaign_whose_reads_fail_is_no_outage(
    odd_reads: OddReads, dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """Another one is asked for before the vendor counts as out."""
    factories.add_campaign(database, "C2")
    factories.add_leads(database, "a")
    vendor.add_fault(route="create", kind="status", status=403, lead_id="a")
    work = [DueWork(campaign_id=name, has_leads=True) for name in ("C2", "C1")]
    odd_reads.failing_campaign = "C1"
    dispatch.offer(*work)
    dispatch.wait(2)
    assert {each.errand.campaign.campaign_id for each in dispatch.ended if each.error} == {"C1"}
    assert not dispatch.vendor.is_out


def test_what_came_in_since_ends_a_pause(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """After a job that had nothing to do but what must wait; not after one that failed."""
    factories.add_campaign(database, "C2")

    def offer(campaign_id: str, newest_lead: int) -> list[str]:
        work = DueWork(campaign_id=campaign_id, has_leads=True, newest_lead=newest_lead)
        dispatch.offer(work)
        return dispatch.lanes[BULK].busy_with

    assert offer("C1", 1) == ["C1"]
    dispatch.wait(1)
    assert offer("C1", 1) == []
    assert offer("C1", 2) == ["C1"]
    dispatch.wait(2)
    factories.add_leads(database, "a", campaign="C2")
    vendor.add_fault(route="create", kind="status", status=403)
    assert offer("C2", 1) == ["C2"]
    dispatch.wait(3)
    assert offer("C2", 2) == []


def test_opt_outs_that_fail_go_to_a_lane_for_themselves(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """Until they succeed again: they may take minutes, for which others do not wait."""
    factories.add_leads(database, "a", "b")
    due = DueWork(campaign_id="C1", has_leads=True)
    dispatch.offer(due)
    dispatch.wait(1)
    vendor.add_fault(route="disable", kind="status", status=500)
    factories.add_opt_outs(database, "a")
    opt_out = DueWork(campaign_id="C1", has_opt_outs=True)
    dispatch.offer(opt_out)
    dispatch.wait(2)
    assert dispatch.ended[1].error is not None
    vendor.clear_faults()
    sql.execute(database, "UPDATE leadloop.disable_requests SET next_try_at = now()")
    while len(dispatch.ended) < 3:
        dispatch.offer(opt_out)
    assert dispatch.wait(3) == {BULK, OPT_OUTS, SLOW_OPT_OUTS}
    assert sql.fetch_opt_outs(database) == {"a": "disabled"}
    factories.add_opt_outs(database, "b")
    while len(dispatch.ended) < 4:
        dispatch.offer(opt_out)
    assert [each.lane for each in dispatch.ended][-2:] == [SLOW_OPT_OUTS, OPT_OUTS]


def test_the_end_of_an_outage_ends_all_pauses(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """What waits goes at once."""
    vendor.add_fault(route="any", kind="status", status=503)
    factories.add_leads(database, "a")
    due = DueWork(campaign_id="C1", has_leads=True)
    dispatch.offer(due)
    dispatch.wait(1)
    assert dispatch.vendor.is_out
    vendor.clear_faults()
    campaign = dispatch.ended[0].errand.campaign
    while dispatch.vendor.is_out:
        dispatch.dispatcher.offer_probe(campaign)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'new' WHERE status = 'in_doubt'")
    dispatch.offer(due)
    assert dispatch.lanes[BULK].busy_with == ["C1"]


def test_a_look_at_the_head_is_followed_by_a_poll_where_something_is_new(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """And a look that fails by a poll that reads around what cannot be read."""
    factories.add_leads(database, "a", "b", "c")
    push_leads()
    # The first one comes after a look at the head.
    poll_next(dispatch, REREADS)
    process_leads(vendor, {"a": 0})
    assert poll_next(dispatch, POLLS).counts["inserted"] == 1
    assert poll_next(dispatch, POLLS).counts == {}
    process_leads(vendor, {"b": 0, "c": 5})
    vendor.add_fault(route="responses", kind="status", status=500, lead_id="b")
    assert poll_next(dispatch, REREADS).errand.look is None
    assert any(each.lane == POLLS and each.error is not None for each in dispatch.ended)
    assert set(sql.fetch_outcomes(database)) == {"a", "c"}


def test_the_lookback_is_read_by_a_poll_where_a_look_shows_anything_new(
    dispatch: DispatchUnderTest,
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outcome that comes too late for the head; and where nothing is new, no run is opened."""
    monkeypatch.setattr(live_dispatch, "REREAD_INTERVAL_S", 0.1)
    factories.add_leads(database, "a", "b")
    push_leads()
    poll_next(dispatch, POLLS)
    process_leads(vendor, {"a": 0})
    while poll_next(dispatch, REREADS).counts:
        pass
    assert poll_next(dispatch, REREADS).counts == {}
    process_leads(vendor, {"b": 100})
    assert poll_next(dispatch, REREADS).counts["inserted"] == 1
    assert set(sql.fetch_outcomes(database)) == {"a", "b"}
    assert poll_next(dispatch, REREADS).counts == {}


def test_a_campaign_in_which_nothing_happens_is_polled_before_it_counts_as_behind(
    dispatch: DispatchUnderTest,
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look would show nothing new, and the watermark would stay where it is."""
    monkeypatch.setattr(live_dispatch, "REREAD_INTERVAL_S", 0.1)
    factories.add_leads(database, "a")
    push_leads()
    poll_next(dispatch, POLLS)
    assert poll_next(dispatch, REREADS).counts == {}
    dispatch.offer_polls(read_through=datetime.now(UTC) - timedelta(minutes=45))
    while not poll_next(dispatch, REREADS).counts:
        pass
    assert poll_next(dispatch, REREADS).counts == {}


def test_rereads_of_campaigns_are_spread(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """Due together, they would keep looks at heads waiting; whose polls are behind waits for none.

    The first campaign's is due at once, and the others' within the quarter of an hour.
    """
    for campaign in ("C2", "C3"):
        factories.add_campaign(database, campaign)
    ids = ("C1", "C2", "C3")
    for campaign in ids:
        factories.add_leads(database, f"{campaign}-a", campaign=campaign)
        push_leads([campaign])
    for _ in range(2 * len(ids)):
        poll_next(dispatch, POLLS, *ids)
    reread = [each for each in dispatch.ended if each.lane == REREADS]
    assert {each.errand.campaign.campaign_id for each in reread} == {"C1"}


def test_looks_go_round_at_even_distances(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """Each campaign has its turn before any has another one."""
    factories.add_leads(database, "a")
    push_leads()
    for campaign in ("C2", "C3"):
        factories.add_campaign(database, campaign)
    looked: list[str] = []
    while len(looked) < 6:
        looked.append(poll_next(dispatch, POLLS, "C1", "C2", "C3").errand.campaign.campaign_id)
    assert looked == ["C1", "C2", "C3"] * 2


def test_a_source_is_followed_once_its_change_is_announced(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """And not looked at in between, as long as it is not due."""
    sql.execute(
        database,
        "CREATE TABLE public.customers (lead_id text, phone_number text, contact_name text,"
        " state_code text); UPDATE leadloop.campaigns SET source = 'public.customers'",
    )
    dispatch.offer_polls()
    dispatch.wait(2)
    assert [each.counts for each in dispatch.ended if each.lane == BULK] == [{}]
    dispatch.offer_polls()
    assert dispatch.lanes[BULK].busy_with == []
    sql.execute(
        database,
        "INSERT INTO public.customers VALUES (:lead_id, :phone_number, :contact_name, :state_code)",
        **factories.build_lead("a"),
    )
    dispatch.dispatcher.announce_sources()
    while sum(each.lane == BULK for each in dispatch.ended) < 2:
        dispatch.offer_polls()
        time.sleep(0.01)
    assert vendor.store.creations("C1") == {"a": 1}


def test_a_table_of_opt_outs_is_looked_at_in_a_lane_of_its_own(
    dispatch: DispatchUnderTest, database: Database, vendor: SandboxHandle
) -> None:
    """Nothing new opens no run; one that fails goes to the lane of slow ones, also in an outage.

    So does the first look, of which nobody knows how long it will take.
    """
    sql.execute(
        database,
        "CREATE TABLE public.out (lead_id text);"
        " UPDATE leadloop.campaigns SET opt_out_source = 'public.out', enabled = false",
    )
    factories.add_leads(database, "a")

    def look() -> EndedErrand:
        seen = len(dispatch.ended)
        rules = Settings.load().campaign_rules()
        rows = database.run(find_campaigns, database.run(list_opt_out_sources, range(16)), rules)
        dispatch.dispatcher.plan_opt_out_looks(rows)
        while len(dispatch.ended) == seen:
            dispatch.dispatcher.offer_opt_out_looks()
            time.sleep(0.01)
        return dispatch.ended[-1]

    first = look()
    assert (first.lane, first.counts["from_opt_out_source"]) == (SLOW_SOURCES, 0)
    dispatch.dispatcher.offer_opt_out_looks()
    for lane in (OPT_OUT_SOURCES, SLOW_SOURCES):
        assert dispatch.lanes[lane].busy_with == [], "it is not due"
    dispatch.dispatcher.announce_sources()
    second = look()
    assert (second.lane, second.counts) == (OPT_OUT_SOURCES, {})
    sql.execute(database, "INSERT INTO public.out VALUES ('a')")
    dispatch.dispatcher.announce_sources()
    assert look().counts["from_opt_out_source"] == 1
    sql.execute(database, "ALTER TABLE public.out RENAME TO gone")
    dispatch.dispatcher.announce_sources()
    failed = look()
    assert (failed.lane, type(failed.error)) == (OPT_OUT_SOURCES, SourceError)
    assert vendor.requests == []
    dispatch.dispatcher.announce_sources()
    assert look().lane == SLOW_SOURCES


@pytest.mark.parametrize(
    ("opens_h", "closes_h", "looks"), [(5, 6, 1), (-1, 6, 3), (-6, -0.5, 3), (-6, -2, 1)]
)
def test_looks_are_seldom_while_the_vendor_does_not_call(
    dispatch: DispatchUnderTest, database: Database, opens_h: float, closes_h: float, looks: int
) -> None:
    """But for an hour after its end; another campaign is looked at all the time."""
    now = datetime.now(UTC)
    opens, closes = (f"{now + timedelta(hours=hours):%H:%M}" for hours in (opens_h, closes_h))
    factories.add_campaign(database, "C2", calling_hours=f"{opens}-{closes} UTC")
    count_polls(dispatch, until=("C1", 3))
    assert count_polls(dispatch, until=("C2", looks))["C2"] == looks


def test_hours_that_cannot_be_read_hold_nothing_up(
    dispatch: DispatchUnderTest, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A line names the campaign and what is wrong."""
    factories.add_campaign(database, "C2", calling_hours="08:00-21:00 Mars/Base")
    count_polls(dispatch, until=("C2", 2))
    assert "campaign C2: calling_hours '08:00-21:00 Mars/Base' has an unknown" in caplog.text
    assert len({record.getMessage() for record in caplog.records}) == 1


def count_polls(dispatch: DispatchUnderTest, until: tuple[str, int]) -> Counter[str]:
    """Hand over looks at C1 and C2 until one has had so many; return how many each has had."""
    now = datetime.now(UTC)
    context = dispatch.lanes[BULK].context
    campaigns = {each.campaign_id: each for each in context.select_campaigns(["C1", "C2"])}
    polled = [
        PolledCampaign(campaign_id=each, read_through=None, last_active_at=now)
        for each in campaigns
    ]
    while True:
        counts = Counter(
            each.errand.campaign.campaign_id for each in dispatch.ended if each.lane == POLLS
        )
        if counts[until[0]] >= until[1]:
            return counts
        dispatch.dispatcher.plan_polls(polled, campaigns, now=now)
        dispatch.dispatcher.offer_polls()
        time.sleep(0.01)


def poll_next(dispatch: DispatchUnderTest, lane: str, *campaigns: str) -> EndedErrand:
    """Hand over the next poll of a lane once it is due, and return how it ended."""
    count = len(dispatch.ended)
    while True:
        for ended in dispatch.ended[count:]:
            if ended.lane == lane:
                return ended
        dispatch.offer_polls(*campaigns)
        time.sleep(0.01)
