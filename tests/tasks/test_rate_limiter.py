"""Permits of this process; tests/db/test_rate_limit.py is about the ring that processes share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from db.database import Database
from db.rate_limit import RateLimit, Slot
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall
from tasks.rate_limiter import Permit, RateLimiter


@pytest.fixture
def warnings() -> list[str]:
    """The warnings about pauses."""
    return []


@pytest.fixture
def limiter(database: Database, warnings: list[str]) -> Iterator[RateLimiter]:
    """A limiter of two requests a minute."""
    limiter = RateLimiter(database, RateLimit(requests=2, period_s=60.0), warnings.append)
    limiter.resize_ring()
    yield limiter
    limiter.stop()


def test_a_released_slot_is_used_again(limiter: RateLimiter) -> None:
    """A batch without leads costs no share of the rate limit."""
    for _ in range(5):
        permit = limiter.acquire_permit(ApiCall.CREATE)
        assert not permit.is_expired
        limiter.release_slot(permit.slot)


@pytest.mark.timeout(30)
def test_a_stopped_run_waits_for_no_permit(limiter: RateLimiter) -> None:
    """A Ctrl-C ends the wait for a slot that is due in a minute."""
    for _ in range(2):
        limiter.acquire_permit(ApiCall.CREATE)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(limiter.acquire_permit, ApiCall.CREATE)
        limiter.stop()
        with pytest.raises(RunError, match="the run was stopped"):
            waiting.result()


@pytest.mark.parametrize(("asked_s", "paused_s"), [(7.0, 7), (None, 5), (1e9, 3600)])
def test_a_pause_is_as_long_as_the_vendor_asks_up_to_an_hour(
    limiter: RateLimiter, warnings: list[str], asked_s: float | None, paused_s: int
) -> None:
    """All requests wait; one mistaken Retry-After does not stop the business for days."""
    limiter.pause(asked_s)
    assert warnings == [f"the vendor asked for a pause: no request is sent for {paused_s} s"]
    assert paused_s - 1 < limiter.reserve_slot(ApiCall.CREATE).wait_s < paused_s + 1


def test_a_permit_expires() -> None:
    """A process that was suspended must not send with the permit that it had before."""
    slot = Slot(number=0, wait_s=0.0, free_at=datetime.now(UTC))
    assert not Permit(slot=slot, valid_until=read_boot_clock() + 60).is_expired
    assert Permit(slot=slot, valid_until=read_boot_clock() - 1).is_expired
