"""The laws of progress of reads and opt-outs: nothing bad stops anything good, at what price."""

from math import ceil, log2

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import sql
from tests.resilience.conftest import Soak
from tests.resilience.drawn_worlds import check_in_worlds
from tests.resilience.flawed_loop import TRIES, FlawedLoop, FlawedModel, Ran
from tests.resilience.flawed_world import MAX_AGE_S, World, draw_world

#: Runs of each job after the last noise, with the clock past every due retry.
_QUIET_RUNS = 2


@pytest.mark.usefixtures("environment", "quick_retries", "disabled_logging")
def test_nothing_bad_stops_anything_good(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    soak: Soak | None,
) -> None:
    """Every good outcome is stored and every good opt-out confirmed, whatever else fails."""

    def check(world: World) -> None:
        monkeypatch.setenv("LEADLOOP_CONCURRENCY", str(world.concurrency))
        _check_world(database, vendor, world)

    check_in_worlds(draw_world(), check, soak, share=0.22, counter="flawed worlds")


def _check_world(database: Database, vendor: SandboxHandle, world: World) -> None:
    """Run a world and its twin without poison and noise, and check each law."""
    twin, loop = (
        FlawedLoop(
            world=each,
            model=FlawedModel(database=database, vendor=vendor, redacted=each.redacted),
        )
        for each in (world.heal(), world)
    )
    _run_world(twin)
    expected = twin.fetch_good(world)
    _run_world(loop)
    assert loop.fetch_good(world) == expected, "the poison changes what becomes of the good"
    _check_unfinished_is_the_poison(loop)
    _check_requests(loop, twin)


def _run_world(loop: FlawedLoop) -> None:
    """Run the noisy runs, the quiet ones, and a last one in which nothing is due."""
    loop.create_world()
    loop.add_noise()
    for _ in range(loop.world.noisy_runs):
        loop.run_jobs()
    loop.end_noise()
    loop.process_later()
    for _ in range(_QUIET_RUNS):
        loop.reach_due_times()
        _check_quiet_run(loop)
    assert loop.find_unfinished() == set()
    idle = loop.run_poll()
    # Where most results that a poll meets are redacted, it fails.
    assert idle.is_done or loop.world.redacted, "a poll fails because of what other runs owe"


def _check_quiet_run(loop: FlawedLoop) -> None:
    """Check that a quiet run moves, and ends well only if nothing failed in it."""
    before = loop.find_unfinished()
    poll, disable = loop.run_poll(), loop.run_disable()
    after = loop.find_unfinished()
    assert after < before or not before, "a quiet run gets nothing done"
    world = loop.world
    if not world.owable_ages and not world.redacted:
        assert poll.is_done, "the vendor works, but the poll fails"
    if world.lost:
        assert not poll.is_done, "the poll has tried an owed window in vain, and says it is well"
    if not world.opt_out_poison:
        assert disable.is_done, "the vendor works, but the disable fails"


def _check_unfinished_is_the_poison(loop: FlawedLoop) -> None:
    """Check that exactly the poisoned items are left, each with its reason and its next try."""
    world, reach = loop.world, loop.world.reach_ms
    owed = loop.fetch_owed()
    ages = {key: world.ages[key] for key in world.lost}
    missing = {key: age for key, age in ages.items() if not any(_covers(row, age) for row in owed)}
    assert missing == {}, "not readable, and not owed"
    allowed = _merge_ranges([(age - reach, age + reach) for age in world.owable_ages])
    # A miscount need not be narrowed down where it is in both halves of a window.
    hidden = [world.ages[key] for key in world.hidden]
    readable = [
        (row["newest"], row["oldest"])
        for row in owed
        if not any(low <= row["newest"] and row["oldest"] <= high for low, high in allowed)
        and not any(_covers(row, age) for age in hidden)
    ]
    assert readable == [], f"owed, but readable; readable is all but {allowed}"
    assert all(row["reason"] and row["next_try_at"] > row["tried_at"] for row in owed)
    _check_poisoned_opt_outs(loop)


def _covers(row: dict[str, float], age: int) -> bool:
    return row["newest"] <= age <= row["oldest"]


def _merge_ranges(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1]:
            low, high = merged[-1][0], max(high, merged.pop()[1])
        merged.append((low, high))
    return merged


def _check_poisoned_opt_outs(loop: FlawedLoop) -> None:
    rows = sql.fetch_rows(
        loop.model.database,
        "SELECT lead_id, status, last_error, next_try_at > tried_at AS is_planned"
        " FROM leadloop.disable_requests WHERE status <> 'disabled'",
    )
    assert {row["lead_id"] for row in rows} == set(loop.world.opt_out_poison)
    if loop.world.good_opt_outs:
        # Where all opt-outs fail, none of them is accused.
        assert all(row["status"] == "failed" and row["is_planned"] for row in rows)
        assert all(row["last_error"] for row in rows)


# The price.


def _check_requests(loop: FlawedLoop, twin: FlawedLoop) -> None:
    """Check the bounds of PROGRESS.md: what noise has not failed is bounded without any luck."""
    polls, calm_polls = _select(loop, "poll"), _select(twin, "poll")
    if not any(ran.repeated_noise for ran in polls):
        useful = sum(ran.requests - ran.noise for ran in polls)
        assert useful <= _bound_polls(loop.world, polls, calm_polls)
    disables, calm_disables = _select(loop, "disable"), _select(twin, "disable")
    useful = sum(ran.requests - ran.noise for ran in disables)
    assert useful <= _bound_disables(loop.world, disables, calm_disables)
    # Where a poll reads a range again, owed windows cut that range. A campaign without an outcome
    # is read from its first lead on each time, as the twin's first poll was.
    has_outcomes = bool(sql.fetch_outcomes(loop.model.database))
    starts_behind = loop.world.campaign["lookback_s"] or not has_outcomes
    cut = 3 * (_count_splits(loop.world) if loop.world.is_halved else 1)
    extra = cut * len(loop.fetch_owed()) if starts_behind else 0
    calm = calm_polls[-1 if has_outcomes else 0].requests
    if loop.world.is_halved:
        # The twin's windows lie elsewhere, by some milliseconds, and so do those of its next poll:
        # where each costs a hundred requests, one or two differ.
        calm = max(ran.requests for ran in calm_polls[1:])
        extra += calm // 10
    assert polls[-1].requests <= calm + extra, "an idle poll pays for the owed"


def _select(loop: FlawedLoop, job: str) -> list[Ran]:
    return [ran for ran in loop.runs if ran.job == job]


def _bound_polls(world: World, polls: list[Ran], calm: list[Ran]) -> int:
    """Return calm + isolation of each lost outcome + what failed runs read again.

    The twin's windows lie elsewhere, by some milliseconds: calm may differ by a quarter.
    """
    splits = _count_splits(world)
    sizes = ceil(log2(world.campaign["page_size"])) + 2
    pages = ceil((len(world.lead_ids) + len(world.doubled)) / world.page_rows)
    # The bounds of a request are wider than its window, so the windows beside a lost outcome fail
    # too, first as a page and then as pages of one.
    ticks = 2 * world.reach_ms // world.tick_ms
    rows = max((world.count_rows(age) for age in world.owable_ages), default=0)
    if rows > world.page_depth:
        # Of the rows alone that lie too deep, three are tried.
        rows = int(world.page_depth) + TRIES * TRIES
    neighbours = ticks // 2 * (2 * TRIES + rows)
    # Half of the reads of an isolation fail, each TRIES times. An owed window is tried likewise.
    isolation = (1 + TRIES) * (splits + sizes) + pages * splits + neighbours
    retry = (1 + TRIES) * (ceil(log2(ticks)) + sizes) + pages * ceil(log2(ticks)) + neighbours
    failed = sum(not ran.is_done for ran in polls)
    return int(
        10
        + 1.25 * sum(ran.requests for ran in calm)
        + len(world.owable_ages) * (isolation + retry * (len(polls) - 1))
        + failed * (pages + 2)
        + len(polls)
    )


def _count_splits(world: World) -> int:
    """Return how often the time of a world is halved until an instant is left."""
    return ceil(log2((MAX_AGE_S + 3600) * 1000 / world.tick_ms))


def _bound_disables(world: World, disables: list[Ran], calm: list[Ran]) -> int:
    """Return calm + isolation of the poisoned opt-outs, first in lists and then alone."""
    culprits, batch = len(world.opt_out_poison), int(world.campaign["batch_size"])
    isolation = TRIES * culprits * min(2 * batch - 1, 2 * ceil(log2(batch)) + 1)
    # Those set aside are tried again, and the vendor is probed with another request.
    retry = (1 + TRIES) * culprits + TRIES
    noise = sum(ran.noise for ran in disables)
    failed = sum(not ran.is_done for ran in disables)
    # A list that noise halves costs two more. A run that fails begins an isolation again.
    return (
        sum(ran.requests for ran in calm)
        + isolation * (1 + failed)
        + retry * len(disables)
        + 2 * (noise // TRIES)
    )
