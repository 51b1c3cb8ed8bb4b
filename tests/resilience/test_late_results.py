"""The law of late results: which poll reads them, in whatever order polls of all kinds come."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import sql
from tests.jobs import backfill_outcomes, poll_heads, poll_outcomes
from tests.polled_campaigns import (
    LOOKBACK_S,
    SETTLE_S,
    pass_time,
    process_leads,
    push_campaign,
)
from tests.resilience.conftest import Soak
from tests.resilience.drawn_worlds import check_in_worlds
from tests.resilience.model import LoopModel

# Real time passes too, so no drawn time is nearer to a limit.
_MARGIN_S = 20
_BACKFILL = timedelta(seconds=400)


@dataclass(frozen=True, kw_only=True)
class LateWorld:
    """Results and polls; times in seconds since the push.

    Attributes:
        results: when each lead is processed, and how much later the vendor shows that.
        polls: the pause before each poll, and its kind.
    """

    results: tuple[tuple[int, int], ...]
    polls: tuple[tuple[int, str], ...]

    def find_shown(self, clock: int) -> Mapping[int, int]:
        """Return the lateness of each result that is shown, by its number."""
        return {
            number: late for number, (at, late) in enumerate(self.results) if at + late <= clock
        }


_LATENESS = (0, SETTLE_S - _MARGIN_S, 100, 500, LOOKBACK_S - _MARGIN_S, LOOKBACK_S - _MARGIN_S)
_WORLDS = st.builds(
    LateWorld,
    results=st.lists(
        st.tuples(st.integers(0, 300).map(lambda tens: 10 * tens), st.sampled_from(_LATENESS)),
        min_size=6,
        max_size=12,
    ).map(tuple),
    polls=st.lists(
        st.tuples(
            st.sampled_from((10, 60, 300, 600, 1200)),
            st.sampled_from(("head", "head", "head", "plain", "plain", "backfill")),
        ),
        min_size=6,
        max_size=10,
    ).map(tuple),
)


@pytest.mark.usefixtures("environment", "quick_retries", "disabled_logging")
def test_late_results_are_read(
    database: Database, vendor: SandboxHandle, soak: Soak | None
) -> None:
    """A plain poll stores what shows up to the lookback late, whatever polls came between.

    A head poll stores what shows within SETTLE.
    """

    def check(world: LateWorld) -> None:
        LoopModel(database=database, vendor=vendor).reset()
        _check_world(database, vendor, world)

    check_in_worlds(_WORLDS, check, soak, share=0.03, counter="worlds of late results")


def _check_world(database: Database, vendor: SandboxHandle, world: LateWorld) -> None:
    ids = push_campaign(database, len(world.results))
    clock = 0
    for pause_s, kind in world.polls:
        clock += pause_s
        pass_time(database, pause_s)
        shown = world.find_shown(clock)
        process_leads(vendor, {ids[number]: clock - world.results[number][0] for number in shown})
        limit = _run_poll(kind)
        due = {ids[number] for number, late in shown.items() if late < limit}
        assert due - set(sql.fetch_outcomes(database)) == set()


def _run_poll(kind: str) -> int:
    """Run a poll or a backfill; return how late a result may show that it has to store."""
    if kind == "plain":
        poll_outcomes()
        return LOOKBACK_S
    if kind == "head":
        poll_heads()
        return SETTLE_S
    now = datetime.now(UTC)
    backfill_outcomes(after=now - _BACKFILL, before=now)
    return 0
