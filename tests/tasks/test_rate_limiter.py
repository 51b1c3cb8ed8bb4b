"""The rate limiter of all processes: permits, pauses that the vendor asks for, a stop."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from db.database import Database
from db.rate_limit import Slot
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.errors import RunError
from leadloop.core.rate_ring import Purpose, RateLimit
from leadloop.core.verdicts import ApiCall
from tasks import rate_limiter
from tasks.rate_limiter import RateLimiter
from tests import sql

_HOURLY = RateLimit(requests=10, period_s=3600.0)
_SINGLE = RateLimit(requests=1, period_s=3600.0)
_QUICK = RateLimit(requests=100, period_s=2.0)

_PAUSE_S = """SELECT extract(epoch FROM free_at - clock_timestamp())::float
                FROM leadloop.rate_slots WHERE slot = 0"""


@pytest.fixture
def warnings() -> list[str]:
    """What the limiter warns of."""
    return []


def limit(database: Database, rate: RateLimit, warnings: list[str] | None = None) -> RateLimiter:
    """A limiter whose ring is there."""
    said: list[str] = [] if warnings is None else warnings
    limiter = RateLimiter(database, rate, said.append, account=DEFAULT_ACCOUNT)
    limiter.resize_ring()
    return limiter


def make_limiter(
    database: Database, rate: RateLimit, purpose: Purpose = Purpose.BULK, *, is_paced: bool = False
) -> RateLimiter:
    """A limiter for requests of a purpose."""
    warnings: list[str] = []
    limiter = RateLimiter(
        database, rate, warnings.append, account=DEFAULT_ACCOUNT, purpose=purpose, is_paced=is_paced
    )
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


def test_a_long_wait_is_reported_every_ten_minutes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason; a short one is not."""
    now, waits = 100.0, list[str]()
    limiter = RateLimiter(database, _HOURLY, print, account=DEFAULT_ACCOUNT, on_wait=waits.append)
    monkeypatch.setattr(rate_limiter, "read_boot_clock", lambda: now)
    monkeypatch.setattr(limiter, "sleep", lambda _: None)
    for wait_s in (4.0, 30.4, 31.0):
        limiter.wait_until_due(Slot(number=0, wait_s=wait_s, free_at=datetime.now(UTC)))
    now += 601
    limiter.wait_until_due(Slot(number=0, wait_s=32.0, free_at=datetime.now(UTC)))
    reason = "for the rate limit, which all runs share: 10 requests in 3600 s"
    assert waits == [f"waiting 30 s {reason}", f"waiting 32 s {reason}"]


@pytest.mark.parametrize("call", [ApiCall.DISABLE, ApiCall.LOGIN])
def test_opt_outs_and_logins_do_not_queue_behind_a_backlog(
    database: Database, call: ApiCall
) -> None:
    """A share of the budget is theirs alone."""
    limiter = limit(database, _HOURLY)
    for _ in range(7):
        assert limiter.reserve_slot(ApiCall.CREATE).wait_s == 0
    assert limiter.reserve_slot(ApiCall.CREATE).wait_s > 3000
    assert limiter.reserve_slot(call).wait_s == 0


def test_each_purpose_has_its_share(database: Database) -> None:
    """Polls leave slots to creates; urgent creates, and the reads of a disable, have their own."""
    polls, bulk, urgent, opt_outs = (
        make_limiter(database, _HOURLY, purpose)
        for purpose in (Purpose.POLLS, Purpose.BULK, Purpose.URGENT, Purpose.OPT_OUTS)
    )
    for _ in range(5):
        assert polls.reserve_slot(ApiCall.READ).wait_s == 0
    assert polls.reserve_slot(ApiCall.READ).wait_s > 3000
    for _ in range(2):
        assert bulk.reserve_slot(ApiCall.CREATE).wait_s == 0
    assert bulk.reserve_slot(ApiCall.READ).wait_s > 3000
    assert urgent.reserve_slot(ApiCall.CREATE).wait_s == 0
    assert opt_outs.reserve_slot(ApiCall.READ).wait_s == 0


def test_a_run_with_many_opt_outs_leaves_slots_that_no_push_takes(database: Database) -> None:
    """While nothing else is sent, it uses shared slots too; eight of the reserve are left."""
    rate = RateLimit(requests=100, period_s=3600.0)
    opt_outs = make_limiter(database, rate, Purpose.OPT_OUTS)
    while opt_outs.list_spare_waits()[0] <= 0:
        opt_outs.reserve_slot(ApiCall.DISABLE)
    bulk = make_limiter(database, rate)
    while bulk.reserve_slot(ApiCall.CREATE).wait_s == 0:
        pass
    assert [opt_outs.reserve_slot(ApiCall.DISABLE).wait_s for _ in range(8)] == [0.0] * 8


@pytest.mark.parametrize("requests", [1, 9, 10, 14])
def test_the_spare_slots_are_those_of_the_ring(database: Database, requests: int) -> None:
    """Another process has resized it, so that it is too small for slots to be left to others."""
    opt_outs = make_limiter(database, RateLimit(requests=100, period_s=60.0), Purpose.OPT_OUTS)
    make_limiter(database, RateLimit(requests=requests, period_s=60.0))
    assert set(opt_outs.list_spare_waits()) == {0.0}


def test_a_paced_process_leaves_slots_to_others(database: Database) -> None:
    """Whenever another one comes while it sends more than the ring holds, from several threads."""
    paced = make_limiter(database, _QUICK, is_paced=True)
    other = make_limiter(database, _QUICK)
    waits_s = []
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(paced.wait_for_permit, ApiCall.CREATE) for _ in range(80)]
        while not all(each.done() for each in sent):
            slot = other.reserve_slot(ApiCall.CREATE)
            other.release_slot(slot)
            waits_s.append(slot.wait_s)
            time.sleep(0.02)
    assert [each.result() for each in sent] == [None] * 80
    assert max(waits_s) < 0.5


def test_a_login_of_a_paced_process_does_not_wait(database: Database) -> None:
    """It is a request for opt-outs, and other requests wait for it."""
    paced = make_limiter(database, _HOURLY, is_paced=True)
    for _ in range(4):
        paced.wait_for_permit(ApiCall.CREATE)
    began = time.monotonic()
    paced.wait_for_permit(ApiCall.LOGIN)
    assert time.monotonic() - began < 60


def test_a_stop_ends_the_wait_for_the_pace(database: Database) -> None:
    """Else a service that is to end would wait for as long as the vendor's period is."""
    paced = make_limiter(database, _HOURLY, is_paced=True)
    for _ in range(7):
        paced.wait_for_permit(ApiCall.CREATE)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(paced.wait_for_permit, ApiCall.CREATE) for _ in range(2)]
        with suppress(TimeoutError):
            waiting[0].result(timeout=0.2)
        assert not waiting[0].done()
        paced.stop()
        for each in waiting:
            with pytest.raises(RunError, match=r"^the run was stopped$"):
                each.result(timeout=60)


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


def test_a_ring_that_goes_meanwhile_ends_the_run(database: Database) -> None:
    """Its account was renamed: else the run would ask for ever, and no later one begin."""
    limiter = limit(database, _HOURLY)
    assert limiter.reserve_slot(ApiCall.CREATE).wait_s == 0
    sql.execute(database, "UPDATE leadloop.rate_slots SET account = 'europe'")
    with pytest.raises(RunError, match="default has no rate limit any more"):
        limiter.acquire_permit(ApiCall.CREATE)


def test_a_pause_expires_permits_and_slots_that_are_due(database: Database) -> None:
    """Of several senders, one gets the 429: what the others hold must not leave in the pause.

    Their slots are free again, as no request has used them.
    """
    limiter = limit(database, _HOURLY)
    other = RateLimiter(database, _HOURLY, print, account=DEFAULT_ACCOUNT, pauses=limiter.pauses)
    permit, slot = other.acquire_permit(ApiCall.CREATE), other.reserve_slot(ApiCall.CREATE)
    assert not permit.is_expired
    limiter.pause(600.0)
    assert permit.is_expired
    assert slot.wait_s == 0
    assert other.wait_until_due(slot) is None
    sql.execute(database, "UPDATE leadloop.rate_slots SET free_at = '-infinity' WHERE slot = 0")
    assert not other.acquire_permit(ApiCall.CREATE).is_expired
    query = "SELECT count(*) FROM leadloop.rate_slots WHERE 'bulk' = ANY (purposes)"
    waits_s = [other.reserve_slot(ApiCall.CREATE).wait_s for _ in range(10)]
    assert waits_s.count(0) == sql.fetch_value(database, query) - 2, "two permits"
