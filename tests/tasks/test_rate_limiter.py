"""The rate limiter of all processes: permits, pauses that the vendor asks for, a stop."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import text

from db.database import Database
from db.rate_limit import RateLimit
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall
from tasks import rate_limiter
from tasks.rate_limiter import RateLimiter
from tests import sql

_HOURLY = RateLimit(requests=10, period_s=3600.0)
_SINGLE = RateLimit(requests=1, period_s=3600.0)

_PAUSE_S = """SELECT extract(epoch FROM free_at - clock_timestamp())::float
                FROM leadloop.rate_slots WHERE slot = 0"""


@pytest.fixture
def warnings() -> list[str]:
    """What the limiter warns of."""
    return []


def limit(database: Database, rate: RateLimit, warnings: list[str] | None = None) -> RateLimiter:
    """A limiter whose ring is there."""
    said: list[str] = [] if warnings is None else warnings
    limiter = RateLimiter(database, rate, said.append)
    limiter.resize_ring()
    return limiter


def test_a_full_budget_is_waited_for_until_the_run_is_stopped(database: Database) -> None:
    """The wait of an hour ends with an error, so that nothing more is sent."""
    limiter = limit(database, _SINGLE)
    limiter.wait_for_permit(ApiCall.READ)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(limiter.wait_for_permit, ApiCall.READ)
        with suppress(TimeoutError):
            waiting.result(timeout=0.2)
        assert not waiting.done()
        limiter.stop()
        with pytest.raises(RunError, match=r"^the run was stopped$"):
            waiting.result(timeout=60)


@pytest.mark.parametrize("call", [ApiCall.DISABLE, ApiCall.LOGIN])
def test_opt_outs_and_logins_do_not_queue_behind_a_backlog(
    database: Database, call: ApiCall
) -> None:
    """A share of the budget is theirs alone."""
    limiter = limit(database, _HOURLY)
    for _ in range(9):
        assert limiter.reserve_slot(ApiCall.CREATE).wait_s == 0
    assert limiter.reserve_slot(ApiCall.CREATE).wait_s > 3000
    assert limiter.reserve_slot(call).wait_s == 0


@pytest.mark.parametrize(
    ("retry_after_s", "pause_s"), [(None, 5), (0.0, 0), (120.0, 120), (1e6, 3600)]
)
def test_a_pause_is_as_long_as_the_vendor_asks(
    database: Database, warnings: list[str], retry_after_s: float | None, pause_s: int
) -> None:
    """5 s where it names no time, and an hour at most; the log states it."""
    limiter = limit(database, _HOURLY, warnings)
    limiter.pause(retry_after_s)
    assert warnings == [f"the vendor asked for a pause: no request is sent for {pause_s} s"]
    assert pause_s - 30 < sql.fetch_value(database, _PAUSE_S) <= pause_s


def test_a_pause_concerns_every_process(database: Database) -> None:
    """A limiter that has heard nothing of it waits as long."""
    limit(database, _HOURLY).pause(120.0)
    assert limit(database, _HOURLY).reserve_slot(ApiCall.DISABLE).wait_s > 60


def test_a_pause_during_a_wait_costs_the_turn(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot was reserved before the pause; its request does not leave in it."""
    monkeypatch.setattr(rate_limiter, "_RECHECK_AFTER_S", 0.1)
    limiter = limit(database, RateLimit(requests=1, period_s=0.3))
    limiter.wait_for_permit(ApiCall.READ)
    slot = limiter.reserve_slot(ApiCall.READ)
    assert slot.wait_s > 0.1
    limiter.pause(120.0)
    assert limiter.wait_until_due(slot) is None


def test_a_slot_that_is_released_is_free_for_others(database: Database) -> None:
    """Nobody waits an hour because a process had nothing to send."""
    limiter = limit(database, _SINGLE)
    limiter.release_slot(limiter.reserve_slot(ApiCall.CREATE))
    assert limit(database, _SINGLE).reserve_slot(ApiCall.CREATE).wait_s == 0


def test_a_ring_that_others_lock_is_waited_for(database: Database) -> None:
    """Two processes that reserve at the same moment both get a slot."""
    limiter = limit(database, _SINGLE)
    with ThreadPoolExecutor(1) as pool, database.transaction() as other:
        other.execute(text("SELECT FROM leadloop.rate_slots FOR UPDATE"))
        reserving = pool.submit(limiter.reserve_slot, ApiCall.CREATE)
        with suppress(TimeoutError):
            reserving.result(timeout=0.2)
        assert not reserving.done()
        other.rollback()
        assert reserving.result(timeout=60).wait_s == 0


@pytest.mark.parametrize(
    ("rate", "valid_s"), [(RateLimit(requests=10, period_s=0.1), 0.1), (_HOURLY, 0.25)]
)
def test_a_permit_that_is_used_late_has_expired(
    database: Database, monkeypatch: pytest.MonkeyPatch, rate: RateLimit, valid_s: float
) -> None:
    """A process that stood still since then would send beyond the budget of its period."""
    now = [1000.0]
    monkeypatch.setattr(rate_limiter, "read_boot_clock", lambda: now[0])
    permit = limit(database, rate).acquire_permit(ApiCall.CREATE)
    assert permit.valid_until == pytest.approx(1000.0 + valid_s)
    now[0] = permit.valid_until
    assert not permit.is_expired
    now[0] += 0.001
    assert permit.is_expired
