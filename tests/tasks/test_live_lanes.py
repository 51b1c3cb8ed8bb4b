"""Lanes: errands side by side and in turns."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from db.database import Database
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.source_requirements import SourceError
from leadloop.settings import Settings
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec
from tasks.live_lanes import EndedErrand, Errand, Lane
from tests import factories, sql
from tests.jobs import HOST

pytestmark = pytest.mark.usefixtures("environment")


@dataclass
class CountingJob:
    """A job of some chunks, of which each notes its campaign."""

    campaign_id: str
    chunks: int
    done: list[str]
    fails: bool = False
    gate: threading.Event = field(default_factory=threading.Event)

    def run_chunk(self, limit: int) -> ChunkResult:
        """Do a chunk."""
        if self.fails:
            raise RunError("it fails")
        self.done.append(self.campaign_id)
        self.chunks -= 1
        return MORE if self.chunks else DONE

    def finish(self) -> None:
        """Find nothing wrong."""

    def counts(self) -> dict[str, int]:
        """A count that shows progress."""
        return {"created": 1}


class LaneUnderTest:
    """A lane, what its jobs have done, and how its errands have ended."""

    def __init__(self, context: ApiContext, gap_s: float) -> None:
        self.done: list[str] = []
        self.ended: list[EndedErrand] = []
        self._all_ended = threading.Condition()
        self.busy_at_end: list[bool] = []
        self.lane = Lane("bulk", context, self._note_busy, self._record, gap_s=gap_s)
        self._context = context

    def _note_busy(self, ended: EndedErrand) -> None:
        self.busy_at_end.append(ended.errand.campaign.campaign_id in self.lane.busy_with)

    def _record(self, ended: EndedErrand) -> None:
        with self._all_ended:
            self.ended.append(ended)
            self._all_ended.notify()

    def offer(self, campaign_id: str, chunks: int = 1, **options: Any) -> bool:
        """Offer a job of so many chunks."""
        look = options.pop("look", None)

        def start(run: CampaignRun[ApiContext]) -> CountingJob:
            return CountingJob(run.campaign.campaign_id, chunks, self.done, **options)

        spec = JobSpec(
            flow="push-leads",
            task="push",
            counts=("created",),
            open_context=open_api_context,
            start=start,
        )
        (campaign,) = self._context.select_campaigns([campaign_id])
        return self.lane.offer(Errand(campaign=campaign, spec=spec, look=look))

    def wait(self, ended: int) -> None:
        """Wait until so many errands have ended."""
        with self._all_ended:
            assert self._all_ended.wait_for(lambda: len(self.ended) >= ended, timeout=60)


@contextmanager
def run_lane(gap_s: float = 0.0) -> Iterator[LaneUnderTest]:
    """Run a lane for the block; it is not started yet."""
    with open_api_context(Settings.load(), HOST) as context:
        tested = LaneUnderTest(context, gap_s)
        try:
            yield tested
        finally:
            tested.lane.stop()
            if tested.lane.is_alive:
                tested.lane.join(60)


@pytest.fixture(autouse=True)
def campaigns(database: Database) -> None:
    """Three campaigns."""
    for name in "ABC":
        factories.add_campaign(database, name)


def states(database: Database) -> list[tuple[str, str]]:
    """The runs, in order."""
    rows = sql.fetch_rows(
        database, "SELECT campaign_id, state FROM leadloop.sync_runs ORDER BY run_id"
    )
    return [(row["campaign_id"], row["state"]) for row in rows]


def test_campaigns_take_turns(database: Database) -> None:
    """A chunk each; each errand is a run with its row."""
    with run_lane() as tested:
        for name, chunks in (("A", 9), ("B", 1), ("C", 2)):
            assert tested.offer(name, chunks)
        tested.lane.start()
        tested.wait(3)
    assert sorted(tested.done) == list("AAAAAAAAABCC")
    assert tested.done[-3:] == list("AAA"), "no campaign waits for all of another"
    assert sorted(states(database)) == [(name, "completed") for name in "ABC"]
    assert all(ended.has_progress and ended.error is None for ended in tested.ended)


def test_one_errand_a_campaign(database: Database) -> None:
    """A second one is refused until the first has ended."""
    with run_lane() as tested:
        assert tested.offer("A")
        assert not tested.offer("A")
        assert tested.lane.busy_with == ["A"]
        tested.lane.start()
        tested.wait(1)
        assert tested.lane.busy_with == []
        assert tested.offer("A")
        tested.wait(2)
    assert states(database) == [("A", "completed")] * 2


def test_a_failure_is_reported_and_stops_no_other(database: Database) -> None:
    """It has no progress, whatever it counts."""
    with run_lane() as tested:
        tested.offer("A", fails=True)
        tested.offer("B")
        tested.lane.start()
        tested.wait(2)
    by_campaign = {ended.errand.campaign.campaign_id: ended for ended in tested.ended}
    assert str(by_campaign["A"].error) == "it fails"
    assert not by_campaign["A"].has_progress
    assert by_campaign["B"].has_progress
    assert sorted(states(database)) == [("A", "failed"), ("B", "completed")]


def test_a_look_that_sees_nothing_writes_nothing(database: Database) -> None:
    """Nor does one that fails."""

    def fail() -> bool:
        raise RunError("no answer")

    with run_lane() as tested:
        tested.offer("A", look=lambda: False)
        tested.offer("B", look=fail)
        tested.offer("C", look=lambda: True)
        tested.lane.start()
        tested.wait(3)
    assert states(database) == [("C", "completed")]
    assert [str(ended.error) for ended in tested.ended if ended.error] == ["no answer"]


def test_a_look_at_a_source_that_fails_is_a_run(database: Database) -> None:
    """Nobody reads a log all the time: what is broken shows in the run's row."""

    def fail() -> bool:
        raise SourceError("it was renamed")

    with run_lane() as tested:
        tested.offer("A", look=fail, fails=True)
        tested.lane.start()
        tested.wait(1)
    assert states(database) == [("A", "failed")]


def test_starts_of_a_campaign_are_spaced(database: Database) -> None:
    """So that what comes in meanwhile goes with the next one; other campaigns do not wait.

    The second one of two may start at once: it is seldom followed by a third.
    """
    with run_lane(gap_s=0.5) as tested:
        began = read_boot_clock()
        tested.lane.start()
        for number in (1, 2):
            tested.offer("A")
            tested.wait(number)
        for name in "AB":
            tested.offer(name)
        tested.wait(4)
        assert read_boot_clock() >= began + 0.5
    assert [ended.errand.campaign.campaign_id for ended in tested.ended] == ["A", "A", "B", "A"]


def test_a_campaign_is_busy_until_its_end_is_recorded(database: Database) -> None:
    """Otherwise it might be offered again before its pause is known."""
    with run_lane() as tested:
        tested.lane.start()
        tested.offer("A")
        tested.wait(1)
        assert tested.busy_at_end == [True]
        assert tested.lane.busy_with == []


def test_a_lane_that_ends_hands_over(database: Database) -> None:
    """Its open runs end in good order, as they stand; nothing new begins."""
    with run_lane() as tested:
        tested.offer("A", 10**9)
        tested.lane.start()
        while len(tested.done) < 3:
            pass
        tested.lane.end()
        tested.lane.join(60)
        assert not tested.lane.is_alive
        assert not tested.offer("B")
    assert states(database) == [("A", "completed")]
    assert [ended.error for ended in tested.ended] == [None]
