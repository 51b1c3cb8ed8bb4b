import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from random import Random

import pytest
from sqlalchemy import Connection, text

from db import rate_limit
from db.database import Database, DatabaseError
from db.rate_limit import AheadSlot, Slot
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.rate_ring import Purpose, RateLimit
from tests import sql

LIMIT = RateLimit(requests=100, period_s=60.0)
OPT_OUTS, URGENT, BULK, POLLS = Purpose


def laid_out(database: Database, limit: RateLimit = LIMIT) -> RateLimit:
    """The limit, its ring being there."""
    with database.transaction() as connection:
        rate_limit.resize_ring(connection, limit, account=DEFAULT_ACCOUNT)
    return limit


def take(database: Database, purpose: Purpose = BULK) -> Slot:
    """A turn."""
    with database.autocommit() as connection:
        slot = rate_limit.reserve_slot(connection, purpose, account=DEFAULT_ACCOUNT)
    assert slot is not None
    return slot


def turn(connection: Connection, purpose: Purpose = BULK) -> datetime | None:
    """Take a slot; by Postgres's clock, the moment at which its request may leave."""
    slot = rate_limit.reserve_slot(connection, purpose, account=DEFAULT_ACCOUNT)
    if slot is None:
        return None
    query = text("SELECT occupied_s FROM leadloop.rate_slots WHERE slot = :slot")
    occupied_s: float = connection.execute(query, {"slot": slot.number}).scalar_one()
    return slot.free_at - timedelta(seconds=occupied_s)


def turns_ahead(connection: Connection, draw: Random) -> list[datetime]:
    """Take several slots at once and return some; when the other requests leave.

    Each leaves as late as it may, or earlier.
    """
    late_s = draw.uniform(0, 0.05)
    slots = rate_limit.reserve_slots_ahead(
        connection,
        POLLS,
        draw.randint(1, 6),
        distance_s=draw.uniform(0, 0.05),
        late_s=late_s,
        account=DEFAULT_ACCOUNT,
    )
    returned = [slot for slot in slots if draw.random() < 0.3]
    rate_limit.release_slots_ahead(connection, returned, account=DEFAULT_ACCOUNT)
    query = text("SELECT occupied_s FROM leadloop.rate_slots WHERE slot = :slot")
    return [
        slot.free_at
        - timedelta(seconds=occupied_s + late_s)
        + timedelta(seconds=draw.choice((0, late_s)))
        for slot in slots
        if slot not in returned
        for occupied_s in [connection.execute(query, {"slot": slot.number}).scalar_one()]
    ]


def count_busiest(moments: list[datetime], period_s: float) -> int:
    """The most requests in any sliding period."""
    moments, first, busiest = sorted(moments), 0, 0
    for last, moment in enumerate(moments):
        while moment - moments[first] > timedelta(seconds=period_s):
            first += 1
        busiest = max(busiest, last - first + 1)
    return busiest


@pytest.mark.parametrize(
    "limit",
    [
        RateLimit(requests=300, period_s=60.0),
        RateLimit(requests=20, period_s=60.0),
        RateLimit(requests=7, period_s=0.2),
        RateLimit(requests=1, period_s=5.0),
    ],
)
def test_no_stretch_of_a_period_holds_more_than_is_allowed(
    database: Database, limit: RateLimit
) -> None:
    """Whichever stretch, for whatever purposes, and however many take turns at once."""
    laid_out(database, limit)

    def take_some(seed: int) -> list[datetime]:
        draw, turns = Random(seed), list[datetime]()
        while len(turns) < 100:
            with database.transaction() as connection:
                if draw.random() < 0.2:
                    turns += turns_ahead(connection, draw)
                    continue
                moment = turn(connection, draw.choice(list(Purpose)))
            turns += [moment] if moment else []
        return turns

    with ThreadPoolExecutor(6) as pool:
        moments = [moment for turns in pool.map(take_some, range(6)) for moment in turns]
    assert count_busiest(moments, limit.period_s) <= limit.requests


def test_no_stretch_holds_more_while_others_resize_the_ring(database: Database) -> None:
    """Processes with different settings start and stop: the largest limit holds throughout."""
    limits = [RateLimit(requests=requests, period_s=60.0) for requests in (9, 20, 100, 257)]
    laid_out(database)

    def work(seed: int) -> list[datetime]:
        draw, turns = Random(seed), list[datetime]()
        while len(turns) < 60:
            if draw.random() < 0.1:
                laid_out(database, draw.choice(limits))
            with database.transaction() as connection:
                moment = turn(connection, draw.choice(list(Purpose)))
            turns += [moment] if moment else []
        return turns

    with ThreadPoolExecutor(6) as pool:
        moments = [moment for turns in pool.map(work, range(6)) for moment in turns]
    assert count_busiest(moments, 60.0) <= 257


# What a process of the version before the purposes does.
_RESERVE_BEFORE = text("""
UPDATE leadloop.rate_slots AS ring
   SET free_at = greatest(ring.free_at, pause.free_at, clock_timestamp())
                 + make_interval(secs => 60.5)
  FROM (SELECT free_at FROM leadloop.rate_slots WHERE slot = 0) AS pause,
       (SELECT slot FROM leadloop.rate_slots WHERE slot > :reserved
         ORDER BY free_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS soonest
 WHERE ring.slot = soonest.slot
RETURNING ring.free_at - make_interval(secs => 60.5)
""")


def test_a_process_that_outlives_an_upgrade_keeps_to_the_limit(database: Database) -> None:
    """It has started before, and shares the new ring; one that starts now is refused."""
    laid_out(database)
    moments: list[datetime] = []
    for number in range(300):
        with database.transaction() as connection:
            if number % 3:
                moment = turn(connection, list(Purpose)[number % 4])
                assert moment is not None
            else:
                reserved = {"reserved": number % 2 * 2}
                moment = connection.execute(_RESERVE_BEFORE, reserved).scalar_one()
            moments.append(moment)
    assert count_busiest(moments, 60.0) <= 100
    with pytest.raises(DatabaseError, match="NotNullViolation"):
        sql.execute(
            database,
            """INSERT INTO leadloop.rate_slots (slot, free_at)
               SELECT slot, '-infinity' FROM generate_series(0, 100) AS slot
               ON CONFLICT DO NOTHING""",
        )


def test_a_push_leaves_the_reserves_to_opt_outs_and_urgent_leads(database: Database) -> None:
    """70 of 100 leave at once; then a create waits a period, but no disable or urgent lead.

    The disables of 20 campaigns leave together; urgent leads at even distances.
    """
    laid_out(database)
    began = time.monotonic()
    assert [take(database).wait_s for _ in range(70)] == [0.0] * 70
    assert take(database).wait_s > 60 - (time.monotonic() - began)
    assert take(database, POLLS).wait_s > 50
    assert [take(database, OPT_OUTS).wait_s for _ in range(20)] == [0.0] * 20
    assert take(database, OPT_OUTS).wait_s > 60 - (time.monotonic() - began)
    assert take(database, URGENT).wait_s == 0.0
    assert 0 < take(database, URGENT).wait_s < 6.06


def test_a_poll_leaves_a_fifth_to_creates(database: Database) -> None:
    """After 50 reads a poll waits, and 20 creates leave at once beside the reserves."""
    laid_out(database)
    assert [take(database, POLLS).wait_s for _ in range(50)] == [0.0] * 50
    assert take(database, POLLS).wait_s > 50
    assert [take(database, BULK).wait_s for _ in range(20)] == [0.0] * 20


def test_slots_that_others_cannot_use_are_used_first(database: Database) -> None:
    """So an idle loop's opt-outs and creates cost a poll nothing."""
    laid_out(database)
    for purpose in (OPT_OUTS, URGENT, *[BULK] * 20):
        assert take(database, purpose).wait_s == 0
    assert [take(database, POLLS).wait_s for _ in range(50)] == [0.0] * 50


def test_requests_at_the_same_moment_all_get_a_slot_that_is_free(database: Database) -> None:
    """None of them waits for a minute behind another one that was quicker."""
    laid_out(database)
    for _ in range(5):
        sql.execute(database, "UPDATE leadloop.rate_slots SET free_at = '-infinity'")
        with ThreadPoolExecutor(6) as pool:
            waits_s = list(pool.map(lambda _: take_unlocked(database), range(66)))
        assert max(waits_s) < 1


def take_unlocked(database: Database) -> float:
    """The wait for a turn, taken once not all slots are locked."""
    while True:
        with database.autocommit() as connection:
            slot = rate_limit.reserve_slot(connection, BULK, account=DEFAULT_ACCOUNT)
        if slot is not None:
            return slot.wait_s


def test_opt_outs_at_the_same_moment_all_get_the_reserve(database: Database) -> None:
    """However they meet in the locks of its rows, none gets a shared slot, and none fails."""
    laid_out(database)
    for _ in range(5):
        sql.execute(
            database,
            """UPDATE leadloop.rate_slots SET free_at =
                      CASE WHEN 'bulk' = ANY (purposes) THEN now() + interval '1 hour'
                           ELSE '-infinity' END""",
        )
        with ThreadPoolExecutor(6) as pool:
            waits_s = list(pool.map(lambda _: take(database, OPT_OUTS).wait_s, range(20)))
        assert waits_s == [0.0] * 20


def test_two_opt_outs_at_the_same_moment_both_get_the_reserve(database: Database) -> None:
    """The second one waits a moment for the first one, not a minute for a shared slot."""
    laid_out(database)
    for _ in range(70):
        take(database)
    with ThreadPoolExecutor(1) as pool, database.transaction() as first:
        assert turn(first, OPT_OUTS) is not None
        second = pool.submit(take, database, OPT_OUTS)
        time.sleep(0.2)
        assert not second.done()
        first.commit()
        assert second.result(timeout=60).wait_s < 3.1


def test_a_small_budget_keeps_nothing_back(database: Database) -> None:
    """Or else with a limit of one request nothing could ever be sent."""
    laid_out(database, RateLimit(requests=1, period_s=60.0))
    assert take(database).wait_s == 0


def test_a_turn_that_was_not_used_is_given_back(database: Database) -> None:
    """It is there for the next one, and no more than once."""
    laid_out(database, RateLimit(requests=1, period_s=60.0))
    slot = take(database)
    with database.transaction() as connection:
        rate_limit.release_slot(connection, slot, account=DEFAULT_ACCOUNT)
    began = time.monotonic()
    assert take(database).wait_s == 0
    assert take(database).wait_s > 60 - (time.monotonic() - began)


def test_a_turn_that_somebody_waits_behind_is_not_given_back(database: Database) -> None:
    """Or the next one would leave at the same moment as that one."""
    laid_out(database, RateLimit(requests=1, period_s=60.0))
    began = time.monotonic()
    mine, theirs = take(database), take(database)
    with database.transaction() as connection:
        rate_limit.release_slot(connection, mine, account=DEFAULT_ACCOUNT)
    waits_s = take(database).wait_s + (time.monotonic() - began)
    assert waits_s > theirs.wait_s + 60


def reserve_ahead(database: Database, amount: int, *, distance_s: float = 1.0) -> list[AheadSlot]:
    """Slots for looks, of which each may leave half a second late."""
    with database.autocommit() as connection:
        return rate_limit.reserve_slots_ahead(
            connection, POLLS, amount, distance_s=distance_s, late_s=0.5, account=DEFAULT_ACCOUNT
        )


def test_slots_reserved_ahead_keep_their_distances(database: Database) -> None:
    """The next ones come behind; others find the slots that are left."""
    laid_out(database)
    first, then = reserve_ahead(database, 20), reserve_ahead(database, 20)
    assert len({slot.number for slot in [*first, *then]}) == 40
    for slots in (first, then):
        gaps = {later.free_at - earlier.free_at for earlier, later in itertools.pairwise(slots)}
        assert gaps == {timedelta(seconds=1)}
    assert take(database, POLLS).wait_s == 0
    last = reserve_ahead(database, 50)
    assert [slot.due_s - last[0].due_s for slot in last[:9]] == pytest.approx(range(9), abs=1e-5)
    assert last[0].wait_s <= 0


def test_slots_reserved_ahead_wait_until_they_are_free(database: Database) -> None:
    """Behind a burst of others, and with no more in a period than there are."""
    laid_out(database)
    for _ in range(50):
        take(database, POLLS)
    began = time.monotonic()
    slots = reserve_ahead(database, 60)
    assert len(slots) == 50
    assert slots[0].wait_s > 60 - (time.monotonic() - began)


def test_slots_reserved_ahead_are_given_back(database: Database) -> None:
    """But not those that somebody waits behind."""
    laid_out(database)
    slots = reserve_ahead(database, 50, distance_s=0.001)
    theirs = take(database, POLLS)
    with database.autocommit() as connection:
        rate_limit.release_slots_ahead(connection, slots, account=DEFAULT_ACCOUNT)
    free = [take(database, POLLS).wait_s for _ in range(50)]
    assert sum(wait_s < 1 for wait_s in free) == 49
    assert max(free) > 60
    assert theirs.wait_s > 60


def test_slots_reserved_ahead_are_those_that_nobody_needs_sooner(database: Database) -> None:
    """Reserved ahead are slots that are freed by then; those that are free stay free for others."""
    laid_out(database)
    for _ in range(10):
        take(database, POLLS)
    sql.execute(database, "UPDATE leadloop.rate_slots SET free_at = free_at - interval '55 s'")
    slots = reserve_ahead(database, 12, distance_s=4.0)
    assert sum(math.isfinite(slot.free_s) for slot in slots) == 10
    free = [take(database, POLLS).wait_s for _ in range(38)]
    assert max(free) == 0


def test_slots_that_are_returned_are_free_since_they_were(database: Database) -> None:
    """At once, and not only when the request would have left."""
    laid_out(database)
    with database.autocommit() as connection:
        rate_limit.release_slots_ahead(
            connection, reserve_ahead(database, 50), account=DEFAULT_ACCOUNT
        )
    assert max(take(database, POLLS).wait_s for _ in range(50)) == 0


def test_a_pause_holds_back_what_is_reserved_ahead(database: Database) -> None:
    """As it holds back others."""
    laid_out(database)
    with database.transaction() as connection:
        rate_limit.pause_requests(connection, 500.0, account=DEFAULT_ACCOUNT)
    assert all(slot.wait_s > 490 for slot in reserve_ahead(database, 3))


def test_a_pause_holds_everybody_back(database: Database) -> None:
    """Creates and disables alike; a shorter pause does not cut a longer one."""
    laid_out(database)
    with database.transaction() as connection:
        rate_limit.pause_requests(connection, 500.0, account=DEFAULT_ACCOUNT)
        rate_limit.pause_requests(connection, 5.0, account=DEFAULT_ACCOUNT)
    assert take(database).wait_s > 490
    assert take(database, OPT_OUTS).wait_s > 490


def test_whoever_holds_a_slot_is_not_waited_for(database: Database) -> None:
    """The next free slot is reserved; if all are locked, the caller gets None."""
    laid_out(database, RateLimit(requests=2, period_s=60.0))
    with (
        database.transaction() as first,
        database.transaction() as second,
        database.transaction() as third,
    ):
        numbers = {turn_of(first), turn_of(second)}
        assert numbers == {1, 2}
        assert turn_of(third) is None


def turn_of(connection: Connection) -> int | None:
    """The number of the slot that is taken."""
    slot = rate_limit.reserve_slot(connection, BULK, account=DEFAULT_ACCOUNT)
    return None if slot is None else slot.number


@pytest.mark.parametrize(("before", "after"), [(100, 30), (30, 100)])
def test_a_changed_limit_changes_the_ring(database: Database, before: int, after: int) -> None:
    """Up or down, at the next run, and turns that were taken stay taken."""
    laid_out(database, RateLimit(requests=before, period_s=60.0))
    for _ in range(10):
        take(database)
    laid_out(database, RateLimit(requests=after, period_s=60.0))
    assert sql.fetch_value(database, "SELECT sum(uses) FROM leadloop.rate_slots") == after
    busy = "SELECT count(*) FROM leadloop.rate_slots WHERE slot > 0 AND free_at > clock_timestamp()"
    assert sql.fetch_value(database, busy) == 10


def test_two_runs_lay_the_same_ring(database: Database) -> None:
    """At the same moment, too."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: laid_out(database), range(4)))
    assert sql.fetch_value(database, "SELECT sum(uses) FROM leadloop.rate_slots") == 100


def test_a_run_that_starts_changes_nothing_of_a_ring_in_use(database: Database) -> None:
    """Also not the order in which slots are free again."""
    laid_out(database)
    for purpose in [OPT_OUTS, POLLS, BULK] * 5:
        take(database, purpose)
    ring = "SELECT * FROM leadloop.rate_slots ORDER BY slot"
    before = sql.fetch_rows(database, ring)
    laid_out(database)
    assert sql.fetch_rows(database, ring) == before


def test_the_ring_of_the_version_before_is_taken_over(database: Database) -> None:
    """`leadloop init` leaves its slots without a purpose; what they have sent still counts."""
    sql.execute(
        database,
        """INSERT INTO leadloop.rate_slots (slot, free_at, purposes, uses, occupied_s)
           SELECT slot, CASE WHEN slot BETWEEN 1 AND 60 THEN now() + interval '40 seconds'
                             ELSE '-infinity' END, '{}', 1, 0
             FROM generate_series(0, 100) AS slot""",
    )
    laid_out(database)
    waits_s = [take(database).wait_s for _ in range(70)]
    assert sum(wait_s > 30 for wait_s in waits_s) == 60
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.rate_slots") == 92


def test_the_waits_for_the_slots_of_a_purpose(database: Database) -> None:
    """What a paced process decides by: free ones are negative."""
    laid_out(database)
    take(database, POLLS)
    with database.autocommit() as connection:
        waits_s = sorted(rate_limit.list_waits(connection, POLLS, account=DEFAULT_ACCOUNT))
    assert len(waits_s) == 50
    assert waits_s[-2] < 0
    assert 59 < waits_s[-1] <= 60.5
