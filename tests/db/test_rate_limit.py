import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import rate_limit
from db.database import Database
from db.rate_limit import RateLimit, Slot
from tests import sql

LIMIT = RateLimit(requests=100, period_s=60.0)


def laid_out(database: Database, limit: RateLimit = LIMIT) -> RateLimit:
    """The limit, its ring being there."""
    with database.transaction() as connection:
        rate_limit.resize_ring(connection, limit)
    return limit


def take(database: Database, limit: RateLimit = LIMIT, *, urgent: bool = False) -> Slot:
    """A turn."""
    with database.autocommit() as connection:
        slot = rate_limit.reserve_slot(connection, limit, urgent=urgent)
    assert slot is not None
    return slot


def turn(connection: Connection, limit: RateLimit) -> datetime | None:
    """Take a slot; by Postgres's clock, the moment at which its request may leave."""
    slot = rate_limit.reserve_slot(connection, limit, urgent=False)
    if slot is None:
        return None
    query = text("SELECT free_at FROM leadloop.rate_slots WHERE slot = :slot")
    free_at: datetime = connection.execute(query, {"slot": slot.number}).scalar_one()
    return free_at - timedelta(seconds=limit.occupied_s)


@pytest.mark.parametrize(
    "limit",
    [
        RateLimit(requests=20, period_s=60.0),
        RateLimit(requests=7, period_s=0.2),
        RateLimit(requests=1, period_s=5.0),
    ],
)
def test_no_stretch_of_a_period_holds_more_than_is_allowed(
    database: Database, limit: RateLimit
) -> None:
    """Whichever stretch, and however many take turns at once."""
    laid_out(database, limit)

    def take_some(_: int) -> list[datetime]:
        turns: list[datetime] = []
        while len(turns) < 25:
            with database.transaction() as connection:
                moment = turn(connection, limit)
            turns += [moment] if moment else []
        return turns

    with ThreadPoolExecutor(6) as pool:
        moments = sorted(moment for turns in pool.map(take_some, range(6)) for moment in turns)
    period = timedelta(seconds=limit.period_s)
    for first, beyond in zip(moments, moments[limit.requests :], strict=False):
        assert beyond - first > period


@given(requests=st.integers(1, 100_000), period_s=st.floats(0.001, 86_400))
def test_a_ring_allows_what_the_limit_does_and_hardly_less(requests: int, period_s: float) -> None:
    """All slots together serve no more than `requests` a period, and 99 % of them at least."""
    limit = RateLimit(requests=requests, period_s=period_s)
    assert limit.slots * limit.uses_per_slot <= requests
    assert limit.slots * limit.uses_per_slot >= 0.98 * requests
    assert limit.uses_per_slot * limit.occupied_s >= limit.period_s + 0.99 * limit.margin_s


def test_the_whole_budget_can_be_used_but_for_the_share_of_disables(database: Database) -> None:
    """98 of 100 leave at once; then a create waits a period, and a disable does not."""
    laid_out(database)
    began = time.monotonic()
    assert [take(database).wait_s for _ in range(98)] == [0.0] * 98
    assert take(database).wait_s > 60 - (time.monotonic() - began)
    assert [take(database, urgent=True).wait_s for _ in range(2)] == [0.0] * 2
    assert take(database, urgent=True).wait_s > 60 - (time.monotonic() - began)


def test_a_small_budget_keeps_nothing_back(database: Database) -> None:
    """Or else with a limit of one request nothing could ever be sent."""
    limit = laid_out(database, RateLimit(requests=1, period_s=60.0))
    assert take(database, limit).wait_s == 0


def test_a_turn_that_was_not_used_is_given_back(database: Database) -> None:
    """It is there for the next one, and no more than once."""
    limit = laid_out(database, RateLimit(requests=1, period_s=60.0))
    slot = take(database, limit)
    with database.transaction() as connection:
        rate_limit.release_slot(connection, slot, limit)
    began = time.monotonic()
    assert take(database, limit).wait_s == 0
    assert take(database, limit).wait_s > 60 - (time.monotonic() - began)


def test_a_turn_that_somebody_waits_behind_is_not_given_back(database: Database) -> None:
    """Or the next one would leave at the same moment as that one."""
    limit = laid_out(database, RateLimit(requests=1, period_s=60.0))
    began = time.monotonic()
    mine, theirs = take(database, limit), take(database, limit)
    with database.transaction() as connection:
        rate_limit.release_slot(connection, mine, limit)
    waits_s = take(database, limit).wait_s + (time.monotonic() - began)
    assert waits_s > theirs.wait_s + 60


def test_a_pause_holds_everybody_back(database: Database) -> None:
    """Creates and disables alike; a shorter pause does not cut a longer one."""
    laid_out(database)
    with database.transaction() as connection:
        rate_limit.pause_requests(connection, 500.0)
        rate_limit.pause_requests(connection, 5.0)
    assert take(database).wait_s > 490
    assert take(database, urgent=True).wait_s > 490


def test_whoever_holds_a_slot_is_not_waited_for(database: Database) -> None:
    """The next free slot is reserved; if all are locked, the caller gets None."""
    limit = laid_out(database, RateLimit(requests=2, period_s=60.0))
    with (
        database.transaction() as first,
        database.transaction() as second,
        database.transaction() as third,
    ):
        numbers = {turn_of(first, limit), turn_of(second, limit)}
        assert numbers == {1, 2}
        assert turn_of(third, limit) is None


def turn_of(connection: Connection, limit: RateLimit) -> int | None:
    """The number of the slot that is taken."""
    slot = rate_limit.reserve_slot(connection, limit, urgent=False)
    return None if slot is None else slot.number


@pytest.mark.parametrize(("before", "after"), [(100, 30), (30, 100)])
def test_a_changed_limit_changes_the_ring(database: Database, before: int, after: int) -> None:
    """Up or down, at the next run, and turns that were taken stay taken."""
    old = laid_out(database, RateLimit(requests=before, period_s=60.0))
    for _ in range(10):
        take(database, old)
    laid_out(database, RateLimit(requests=after, period_s=60.0))
    assert (
        sql.fetch_value(database, "SELECT count(*) FROM leadloop.rate_slots WHERE slot > 0")
        == after
    )
    busy = "SELECT count(*) FROM leadloop.rate_slots WHERE slot > 0 AND free_at > clock_timestamp()"
    assert sql.fetch_value(database, busy) == 10


def test_two_runs_lay_the_same_ring(database: Database) -> None:
    """At the same moment, too."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: laid_out(database), range(4)))
    assert (
        sql.fetch_value(database, "SELECT count(*) FROM leadloop.rate_slots WHERE slot > 0") == 100
    )


@pytest.mark.parametrize("requests", [1, 100, 999, 1000, 1001, 10_000, 1_000_000])
def test_a_generous_limit_is_kept_in_shares(requests: int) -> None:
    """As many requests a second, never more, by a ring that stays small."""
    limit = RateLimit(requests=requests, period_s=60.0)
    assert limit.slots <= 1000
    assert limit.slots / limit.occupied_s <= requests / 60.0
    assert limit.slots / limit.occupied_s >= 0.97 * requests / 60.0 or requests > 1000
