"""Permits of looks: many by one transaction, and none that others need."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from db.database import Database
from db.rate_limit import Slot
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.errors import RunError
from leadloop.core.rate_ring import Purpose, RateLimit
from leadloop.core.verdicts import ApiCall
from tasks.look_permits import MAX_AHEAD, LookPermits
from tasks.rate_limiter import RateLimiter
from tests import sql

_IN_USE = "SELECT count(*) FROM leadloop.rate_slots WHERE free_at > clock_timestamp() + :seconds"


def make_limiter(database: Database, purpose: Purpose, requests: int = 100) -> RateLimiter:
    """A rate limiter for a purpose; its slots are not freed again within a test."""
    limit = RateLimit(requests=requests, period_s=3600.0)
    warnings: list[str] = []
    limiter = RateLimiter(
        database, limit, warnings.append, account=DEFAULT_ACCOUNT, purpose=purpose
    )
    limiter.resize_ring()
    return limiter


def make_permits(database: Database, requests: int = 100) -> tuple[LookPermits, RateLimiter]:
    """Permits for looks, and the limiter behind them."""
    limiter = make_limiter(database, Purpose.POLLS, requests)
    return LookPermits(database, limiter, Purpose.POLLS), limiter


def count_in_use(database: Database) -> int:
    """Count the slots that a request occupies, and not only for the time until it may leave."""
    return int(sql.fetch_value(database, _IN_USE, seconds="1800 s"))


def test_one_transaction_serves_many_looks(database: Database) -> None:
    """What is reserved ahead is used up before any more is."""
    permits, _ = make_permits(database)
    permits.set_pace(0.3, is_ahead=True)
    for _ in range(MAX_AHEAD):
        permits.wait_for_permit(ApiCall.READ)
        assert count_in_use(database) == MAX_AHEAD


def test_looks_reserved_ahead_leave_in_no_pause(database: Database) -> None:
    """Another sender of the process got the 429, after they were reserved."""
    permits, limiter = make_permits(database)
    permits.set_pace(0.01, is_ahead=True)
    permits.wait_for_permit(ApiCall.READ)
    limiter.pause(3.0)
    permits.wait_for_permit(ApiCall.READ)
    assert not limiter.is_paused()


def test_looks_that_others_run_beside_reserve_one_by_one(database: Database) -> None:
    """And what was reserved ahead is free for others."""
    permits, _ = make_permits(database)
    permits.set_pace(30.0 / MAX_AHEAD, is_ahead=True)
    permits.wait_for_permit(ApiCall.READ)
    assert count_in_use(database) == MAX_AHEAD
    permits.set_pace(30.0 / MAX_AHEAD, is_ahead=False)
    assert count_in_use(database) == 1
    permits.wait_for_permit(ApiCall.READ)
    assert count_in_use(database) == 2


def test_a_look_that_waits_beside_runs_occupies_one_slot(database: Database) -> None:
    """However often the loop sets the pace: slots that are left unused would be missing."""
    permits, limiter = make_permits(database)
    permits.set_pace(1.0, is_ahead=False)
    limiter.pause(0.5)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(permits.wait_for_permit, ApiCall.READ)
        while not waiting.done():
            permits.set_pace(1.0, is_ahead=False)
    waiting.result()
    assert count_in_use(database) == 1


def test_a_look_that_comes_too_late_for_its_slot_releases_it(database: Database) -> None:
    """And takes another one."""
    permits, _ = make_permits(database)
    permits.set_pace(0.01, is_ahead=True)
    permits.wait_for_permit(ApiCall.READ)
    time.sleep(0.5)
    permits.set_pace(0.01, is_ahead=False)
    permits.wait_for_permit(ApiCall.READ)
    assert count_in_use(database) == 2


def test_what_is_released_is_used_by_no_look(database: Database) -> None:
    """The vendor has asked for a pause, and the look that waits reserves anew, behind it."""
    permits, limiter = make_permits(database)
    permits.set_pace(1.0, is_ahead=True)
    permits.wait_for_permit(ApiCall.READ)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(permits.wait_for_permit, ApiCall.READ)
        limiter.pause(600.0)
        permits.release()
        with suppress(TimeoutError):
            waiting.result(timeout=1.5)
        assert not waiting.done()
        limiter.stop()
        with pytest.raises(RunError, match="stopped"):
            waiting.result(timeout=60)


def test_a_full_ring_is_waited_for(database: Database) -> None:
    """A look is never sent beyond the limit."""
    permits, limiter = make_permits(database, requests=1)
    limiter.wait_for_permit(ApiCall.READ)
    permits.set_pace(0.01, is_ahead=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(permits.wait_for_permit, ApiCall.READ)
        with suppress(TimeoutError):
            waiting.result(timeout=0.2)
        assert not waiting.done()
        limiter.stop()
        with pytest.raises(RunError, match="stopped"):
            waiting.result(timeout=60)


def test_a_request_that_would_wait_takes_the_last_look_slot(database: Database) -> None:
    """The next looks keep theirs; half of them in any case."""
    permits, _ = make_permits(database, requests=100)
    permits.set_pace(1.5, is_ahead=True)
    permits.wait_for_permit(ApiCall.READ)
    urgent = make_limiter(database, Purpose.URGENT)
    urgent.borrow_slots(permits.yield_slot)
    in_time = [urgent.reserve_slot(ApiCall.CREATE).wait_s == 0 for _ in range(70)]
    # One slot of the reserve, 50 shared ones of which looks hold 20, and 20 that looks cannot use.
    assert in_time.count(True) == 1 + 70 - 20 + 10
    assert in_time.index(False) == 61
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(permits.wait_for_permit, ApiCall.READ)
        waiting.result(timeout=60)


def test_looks_yield_no_slot_that_is_free_too_late(database: Database) -> None:
    """Such a slot would not help."""
    permits, limiter = make_permits(database)
    for _ in range(50):
        limiter.wait_for_permit(ApiCall.READ)
    permits.set_pace(1.5, is_ahead=True)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(permits.wait_for_permit, ApiCall.READ)
        while count_in_use(database) < 50:
            time.sleep(0.01)
        assert not permits.yield_slot(within_s=600.0)
        limiter.stop()
        with pytest.raises(RunError, match="stopped"):
            waiting.result(timeout=60)


def test_a_request_does_not_wait_for_a_look_that_reserves(database: Database) -> None:
    """While the looks' thread waits for Postgres, a lead waits for its own slot and no longer."""
    permits, _ = make_permits(database)
    permits.set_pace(1.5, is_ahead=True)
    permits.wait_for_permit(ApiCall.READ)
    with ThreadPoolExecutor(1) as pool, database.transaction() as connection:
        permits.set_pace(1.5, is_ahead=False)
        connection.execute(text("LOCK TABLE leadloop.rate_slots IN SHARE ROW EXCLUSIVE MODE"))
        looking = pool.submit(permits.wait_for_permit, ApiCall.READ)
        sql.wait_until_blocked(database)
        assert not permits.yield_slot(within_s=600.0)
        connection.rollback()
        looking.result(timeout=60)


def find_start(database: Database, slot: Slot) -> float:
    """How many seconds ago the use of a slot began; negative: it is still to come."""
    query = (
        "SELECT CAST(extract(epoch FROM clock_timestamp() - free_at) AS float8) + occupied_s"
        " FROM leadloop.rate_slots WHERE slot = :slot"
    )
    return float(sql.fetch_value(database, query, slot=slot.number))


def test_a_request_that_asks_for_long_leaves_in_no_slot_of_the_past(database: Database) -> None:
    """Or there would be more requests in a period than the vendor allows."""
    limiter = RateLimiter(
        database, RateLimit(requests=1, period_s=1.0), lambda _: None, account=DEFAULT_ACCOUNT
    )
    limiter.resize_ring()

    def find_none(_: float) -> bool:
        time.sleep(2.5)
        return False

    limiter.borrow_slots(find_none)
    limiter.wait_for_permit(ApiCall.READ)
    permit = limiter.acquire_permit(ApiCall.READ)
    assert find_start(database, permit.slot) < 1.0


def test_a_look_leaves_in_no_slot_of_the_past(database: Database) -> None:
    """Whatever holds it up between the choice of its slot and the reservation."""
    permits, _ = make_permits(database)
    permits.set_pace(0.01, is_ahead=True)
    stalls = [2.5]

    def stall(*arguments: Any) -> None:
        if stalls and "WITH async_commit" in arguments[2]:
            time.sleep(stalls.pop())

    event.listen(Engine, "before_cursor_execute", stall)
    try:
        permits.wait_for_permit(ApiCall.READ)
    finally:
        event.remove(Engine, "before_cursor_execute", stall)
    assert not stalls
    newest = (
        "SELECT CAST(extract(epoch FROM clock_timestamp() - max(free_at - occupied_s"
        " * interval '1 s')) AS float8) FROM leadloop.rate_slots WHERE slot > 0"
    )
    assert float(sql.fetch_value(database, newest)) < 1.0
