"""A rate limiter in Postgres: a ring of slots, one row each (`leadloop.core.rate_ring`).

Each account has a separate ring, so that the requests of one take no slot of another. A request
reserves the slot that is free soonest, of those for its purpose, and occupies it from the moment of
use. So all processes together stay within the limit in any sliding period. A margin covers the
varying network latency to the vendor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from leadloop.core.rate_ring import (
    LEFT_TO_FIRST,
    Purpose,
    RateLimit,
    RingSlot,
    find_spare_waits,
    match_slots,
    resize_slots,
)

# Slot 0 serves no request: it holds the time until which all requests pause (Retry-After).
_ADD_PAUSE = text("""
INSERT INTO leadloop.rate_slots (account, slot, free_at, purposes, uses, occupied_s)
VALUES (:account, 0, '-infinity', '{}', 0, 0)
ON CONFLICT DO NOTHING
""")
_READ = text("""
SELECT purposes, uses, occupied_s, CAST(extract(epoch FROM free_at) AS float8) AS free_at
  FROM leadloop.rate_slots WHERE account = :account AND slot > 0 ORDER BY slot
""")
_CLOCK = text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")
_DELETE = text("DELETE FROM leadloop.rate_slots WHERE account = :account AND slot > 0")
_INSERT = text("""
INSERT INTO leadloop.rate_slots (account, slot, free_at, purposes, uses, occupied_s)
SELECT :account, slot, to_timestamp(free_at), CAST(purposes AS text[]), uses, occupied_s
  FROM unnest(CAST(:free_at AS float8[]), CAST(:purposes AS text[]), CAST(:uses AS integer[]),
              CAST(:occupied_s AS float8[]))
       WITH ORDINALITY AS resized (free_at, purposes, uses, occupied_s, slot)
""")
_LOCK = text("LOCK TABLE leadloop.rate_slots IN SHARE ROW EXCLUSIVE MODE")

# A request waits while another one locks the reserve's rows, as long as a statement takes; in their
# order, so that none waits for a row that waits for its own. Skipping the locks would give it a
# shared slot, which may be free only in a minute. The join leaves out shared slots that were
# reserved since the statement began: they are free only in a minute too.
# Among slots that are free now, the one with the fewest purposes is taken; but shared ones come
# before the part of the reserve that is left to first requests: else a run would leave shared slots
# to them, which a push takes.
# Asynchronous commit: a server that crashes loses at most some 0.2 s of reservations.
_RESERVE = text("""
WITH async_commit AS (SELECT set_config('synchronous_commit', 'off', true)),
     pause AS (SELECT free_at FROM leadloop.rate_slots WHERE account = :account AND slot = 0),
     reserve AS (
         SELECT slot, free_at, purposes FROM leadloop.rate_slots
          WHERE account = :account AND purposes = ARRAY[CAST(:purpose AS text)]
          ORDER BY slot
            FOR UPDATE),
     shared AS (
         SELECT slot, free_at, purposes FROM leadloop.rate_slots AS ring
           JOIN (SELECT account, slot, free_at FROM leadloop.rate_slots) AS seen
                USING (account, slot, free_at)
          WHERE account = :account
            AND CAST(:purpose AS text) = ANY (purposes) AND cardinality(purposes) > 1
          ORDER BY greatest(free_at, now()), cardinality(purposes), slot
          LIMIT 1 FOR UPDATE OF ring SKIP LOCKED),
     low AS (
         SELECT count(*) FILTER (WHERE free_at <= now()) * :of <= count(*) * :left AS is_low
           FROM reserve),
     soonest AS (
         SELECT slot
           FROM (SELECT * FROM reserve UNION ALL SELECT * FROM shared) AS either CROSS JOIN low
          ORDER BY greatest(free_at, now()), is_low AND cardinality(purposes) = 1,
                   cardinality(purposes) LIMIT 1)
UPDATE leadloop.rate_slots AS ring
   SET free_at = greatest(ring.free_at, pause.free_at, clock_timestamp())
                 + make_interval(secs => ring.occupied_s)
  FROM async_commit, pause, soonest
 WHERE ring.account = :account AND ring.slot = soonest.slot
RETURNING ring.slot, ring.free_at,
          extract(epoch FROM ring.free_at - clock_timestamp()) - ring.occupied_s AS wait_s
""")
_SHARED = text("""
SELECT slot, CAST(extract(epoch FROM free_at) AS float8) AS free_s,
       CAST(extract(epoch FROM
            (SELECT greatest(free_at, clock_timestamp()) FROM leadloop.rate_slots
              WHERE account = :account AND slot = 0))
            AS float8) AS start_s
  FROM leadloop.rate_slots
 WHERE account = :account
   AND CAST(:purpose AS text) = ANY (purposes) AND cardinality(purposes) > 1
 ORDER BY slot
""")
# Those that no other request has reserved meanwhile. Each is occupied as if its request left as
# late as it may.
_RESERVE_AHEAD = text("""
WITH async_commit AS (SELECT set_config('synchronous_commit', 'off', true)),
     matched AS (
         SELECT slot, free_s, due_s
           FROM unnest(CAST(:slots AS integer[]), CAST(:free_s AS float8[]),
                       CAST(:due_s AS float8[])) AS matched (slot, free_s, due_s)),
     unchanged AS MATERIALIZED (
         SELECT slot, free_s, due_s
           FROM leadloop.rate_slots AS ring JOIN matched USING (slot)
          WHERE account = :account AND CAST(extract(epoch FROM ring.free_at) AS float8) = free_s
          ORDER BY slot
            FOR UPDATE OF ring SKIP LOCKED)
UPDATE leadloop.rate_slots AS ring
   SET free_at = to_timestamp(due_s) + make_interval(secs => :late_s + ring.occupied_s)
  FROM async_commit, unchanged
 WHERE ring.account = :account AND ring.slot = unchanged.slot
RETURNING ring.slot, ring.free_at, free_s, due_s,
          due_s - CAST(extract(epoch FROM clock_timestamp()) AS float8) AS wait_s
""")
# Only if the slot is unchanged: another request may have reserved it after ours.
_RELEASE = text("""
UPDATE leadloop.rate_slots SET free_at = free_at - make_interval(secs => occupied_s)
 WHERE account = :account AND slot = :slot AND free_at = :free_at
""")
# A row that another request has locked is being reserved: it is skipped, and nobody waits for it.
_RELEASE_AHEAD = text("""
WITH ours AS (
         SELECT slot, ours.free_s
           FROM unnest(CAST(:slots AS integer[]), CAST(:free_at AS timestamptz[]),
                       CAST(:free_s AS float8[])) AS ours (slot, free_at, free_s)
           JOIN leadloop.rate_slots AS ring USING (slot, free_at)
          WHERE account = :account
          ORDER BY slot
            FOR UPDATE OF ring SKIP LOCKED)
UPDATE leadloop.rate_slots AS ring SET free_at = to_timestamp(ours.free_s)
  FROM ours
 WHERE ring.account = :account AND ring.slot = ours.slot
""")
_WAITS = text("""
SELECT CAST(extract(epoch FROM free_at) AS float8)
       - CAST(extract(epoch FROM clock_timestamp()) AS float8) AS wait_s,
       cardinality(purposes) = 1 AS is_reserved
  FROM leadloop.rate_slots
 WHERE account = :account AND CAST(:purpose AS text) = ANY (purposes)
""")
_PAUSE = text("""
UPDATE leadloop.rate_slots
   SET free_at = greatest(free_at, clock_timestamp() + make_interval(secs => :pause_s))
 WHERE account = :account AND slot = 0
""")
_PAUSE_LEFT = text("""
SELECT greatest(0, CAST(extract(epoch FROM free_at - clock_timestamp()) AS float8))
  FROM leadloop.rate_slots WHERE account = :account AND slot = 0 AND isfinite(free_at)
""")
_HAS_RING = text("""
SELECT EXISTS (SELECT FROM leadloop.rate_slots WHERE account = :account AND slot > 0)
""")
_PAUSED_ACCOUNTS = text("""
SELECT account FROM leadloop.rate_slots WHERE slot = 0 AND free_at > clock_timestamp()
""")


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A reserved slot; the request may leave after `wait_s` seconds."""

    number: int
    wait_s: float
    free_at: datetime


@dataclass(frozen=True, kw_only=True)
class AheadSlot(Slot):
    """A slot that was reserved ahead; `wait_s` is negative if its request is late already.

    Attributes:
        free_s: when it was free before, seconds since the epoch by Postgres's clock.
        due_s: when its request may leave, by the same clock.
    """

    free_s: float
    due_s: float


def resize_ring(connection: Connection, limit: RateLimit, *, account: str) -> None:
    """Resize an account's ring to the limit's slots, which stay occupied by earlier requests."""
    planned = limit.plan_slots()
    if _is_planned(_read_slots(connection, account), planned):
        return
    connection.execute(_LOCK)
    stored = _read_slots(connection, account)
    if not _is_planned(stored, planned):
        now = connection.execute(_CLOCK).scalar_one()
        _replace_slots(connection, account, resize_slots(stored, planned, now))


def _replace_slots(connection: Connection, account: str, resized: Sequence[RingSlot]) -> None:
    connection.execute(_DELETE, {"account": account})
    connection.execute(_ADD_PAUSE, {"account": account})
    columns = {
        "account": account,
        "free_at": [slot.free_at for slot in resized],
        "purposes": [f"{{{','.join(slot.purposes)}}}" for slot in resized],
        "uses": [slot.uses for slot in resized],
        "occupied_s": [slot.occupied_s for slot in resized],
    }
    connection.execute(_INSERT, columns)


def _read_slots(connection: Connection, account: str) -> list[RingSlot]:
    return [
        RingSlot(
            purposes=tuple(Purpose(purpose) for purpose in row.purposes),
            uses=row.uses,
            occupied_s=row.occupied_s,
            free_at=row.free_at,
        )
        for row in connection.execute(_READ, {"account": account})
    ]


def _is_planned(stored: Sequence[RingSlot], planned: Sequence[RingSlot]) -> bool:
    """Return whether slots are those of the plan, apart from dropped ones and free times."""
    used = [slot for slot in stored if slot.purposes]
    return [(s.purposes, s.uses, s.occupied_s) for s in used] == [
        (s.purposes, s.uses, s.occupied_s) for s in planned
    ]


def reserve_slot(connection: Connection, purpose: Purpose, *, account: str) -> Slot | None:
    """Reserve the slot that is free soonest; None if other transactions lock all slots.

    Args:
        connection: in autocommit mode, so that no other request waits for our lock.
        purpose: decides which slots the request may use.
        account: the account whose request it is.
    """
    left, of = LEFT_TO_FIRST
    parameters = {"account": account, "purpose": purpose.value, "left": left, "of": of}
    row = connection.execute(_RESERVE, parameters).first()
    if row is None:
        return None
    return Slot(number=row.slot, wait_s=max(0.0, float(row.wait_s)), free_at=row.free_at)


def has_ring(connection: Connection, *, account: str) -> bool:
    """Return whether an account has slots."""
    return bool(connection.scalar(_HAS_RING, {"account": account}))


def reserve_slots_ahead(
    connection: Connection,
    purpose: Purpose,
    amount: int,
    *,
    distance_s: float,
    late_s: float,
    account: str,
) -> list[AheadSlot]:
    """Reserve shared slots for requests at even distances (`match_slots`); the soonest first.

    Args:
        connection: in a short transaction, so that no other request waits for our locks.
        purpose: decides which slots the requests may use.
        amount: the most slots; fewer are reserved if there are fewer, or others reserve them.
        distance_s: the least time between two requests, seconds.
        late_s: how much later than `wait_s` each request may leave, seconds.
        account: the account whose requests they are.
    """
    shared = connection.execute(_SHARED, {"account": account, "purpose": purpose.value}).all()
    if not shared:
        return []
    free_s = [row.free_s for row in shared]
    matched = match_slots(free_s, shared[0].start_s, amount, distance_s=distance_s)
    rows = connection.execute(
        _RESERVE_AHEAD,
        {
            "account": account,
            "slots": [shared[index].slot for index, _ in matched],
            "free_s": [free_s[index] for index, _ in matched],
            "due_s": [due_s for _, due_s in matched],
            "late_s": late_s,
        },
    )
    slots = [
        AheadSlot(
            number=row.slot,
            wait_s=row.wait_s,
            free_at=row.free_at,
            free_s=row.free_s,
            due_s=row.due_s,
        )
        for row in rows
    ]
    return sorted(slots, key=lambda slot: slot.due_s)


def release_slots_ahead(
    connection: Connection, slots: Sequence[AheadSlot], *, account: str
) -> None:
    """Release slots that were reserved ahead, and whose requests were not sent.

    Each is free from when it was before, unless another request has reserved it after ours.
    """
    connection.execute(
        _RELEASE_AHEAD,
        {
            "account": account,
            "slots": [slot.number for slot in slots],
            "free_at": [slot.free_at for slot in slots],
            "free_s": [slot.free_s for slot in slots],
        },
    )


def release_slot(connection: Connection, slot: Slot, *, account: str) -> None:
    """Release a slot whose request was not sent."""
    connection.execute(_RELEASE, {"account": account, "slot": slot.number, "free_at": slot.free_at})


def list_waits(connection: Connection, purpose: Purpose, *, account: str) -> list[float]:
    """Return the seconds until each slot for a purpose is free; negative where it is."""
    return list(connection.scalars(_WAITS, {"account": account, "purpose": purpose.value}))


def list_spare_waits(connection: Connection, purpose: Purpose, *, account: str) -> list[float]:
    """Return the waits of `list_waits` but for the slots that are left to others' first requests.

    The ring's own slots count, not those of this process's limit: another may have resized it.
    """
    rows = connection.execute(_WAITS, {"account": account, "purpose": purpose.value}).all()
    reserved = sum(row.is_reserved for row in rows)
    return find_spare_waits([row.wait_s for row in rows], reserved)


def pause_requests(connection: Connection, pause_s: float, *, account: str) -> None:
    """Pause every process that uses this vendor account for `pause_s` seconds."""
    connection.execute(_PAUSE, {"account": account, "pause_s": pause_s})


def get_pause_s(connection: Connection, *, account: str) -> float:
    """Return for how many more seconds all requests of an account are paused; 0: they are not."""
    return float(connection.scalar(_PAUSE_LEFT, {"account": account}) or 0)


def list_paused_accounts(connection: Connection) -> list[str]:
    """Return the accounts all of whose requests are paused now."""
    return list(connection.scalars(_PAUSED_ACCOUNTS))
