"""A rate limiter in Postgres: a ring of slots, one row for each request that a period allows.

A request reserves the slot that is free soonest and occupies it for one period from the moment of
use. So all processes together stay within the limit in any sliding period. A margin covers the
varying network latency to the vendor.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

_MARGIN_S = 0.5
_MARGIN_SHARE = 1 / 40
_MAX_SLOTS = 256
_MIN_SLOTS_TO_RESERVE = 10

# Slot 0 serves no request: it holds the time until which all requests pause (Retry-After).
_GROW = text("""
INSERT INTO leadloop.rate_slots (slot, free_at)
SELECT slot, '-infinity' FROM generate_series(0, :slots) AS slot
ON CONFLICT DO NOTHING
""")
_COUNT = text("SELECT count(*) FROM leadloop.rate_slots WHERE slot > 0")
# The reservations made last are the ones that still count. They move to the highest numbers: the
# lowest are reserved for disables and logins.
_KEEP_LATEST = text("""
UPDATE leadloop.rate_slots AS ring SET free_at = latest.free_at
  FROM (SELECT :slots + 1 - row_number() OVER (ORDER BY free_at DESC) AS slot, free_at
          FROM leadloop.rate_slots WHERE slot > 0) AS latest
 WHERE ring.slot = latest.slot AND ring.slot > 0
""")
_SHRINK = text("DELETE FROM leadloop.rate_slots WHERE slot > :slots")
_LOCK = text("LOCK TABLE leadloop.rate_slots IN SHARE ROW EXCLUSIVE MODE")

# Asynchronous commit: a server that crashes loses at most some 0.2 s of reservations.
_RESERVE = text("""
WITH async_commit AS (SELECT set_config('synchronous_commit', 'off', true))
UPDATE leadloop.rate_slots AS ring
   SET free_at = greatest(ring.free_at, pause.free_at, clock_timestamp())
                 + make_interval(secs => :occupied_s)
  FROM async_commit, (SELECT free_at FROM leadloop.rate_slots WHERE slot = 0) AS pause,
       (SELECT slot FROM leadloop.rate_slots WHERE slot > :reserved
         ORDER BY free_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS soonest
 WHERE ring.slot = soonest.slot
RETURNING ring.slot, ring.free_at,
          extract(epoch FROM ring.free_at - clock_timestamp()) - :occupied_s AS wait_s
""")
# Only if the slot is unchanged: another request may have reserved it after ours.
_RELEASE = text("""
UPDATE leadloop.rate_slots SET free_at = free_at - make_interval(secs => :occupied_s)
 WHERE slot = :slot AND free_at = :free_at
""")
_PAUSE = text("""
UPDATE leadloop.rate_slots
   SET free_at = greatest(free_at, clock_timestamp() + make_interval(secs => :pause_s))
 WHERE slot = 0
""")
_PAUSED = text("""
SELECT free_at > clock_timestamp() FROM leadloop.rate_slots WHERE slot = 0
""")


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """At most `requests` requests in any period of `period_s` seconds."""

    requests: int
    period_s: float

    @property
    def slots(self) -> int:
        """Rows of the ring: at most 256; under a larger limit each row serves several requests."""
        return self.requests // -(-self.requests // _MAX_SLOTS)

    @property
    def uses_per_slot(self) -> int:
        """Uses of one slot in a period; all slots together allow at most `requests`."""
        return self.requests // self.slots

    @property
    def margin_s(self) -> float:
        """Seconds by which the latency of two requests may differ."""
        return min(_MARGIN_S, self.period_s * _MARGIN_SHARE)

    @property
    def occupied_s(self) -> float:
        """Seconds that one request occupies a slot: its share of the period plus the margin."""
        return (self.period_s + self.margin_s) / self.uses_per_slot

    @property
    def reserved_for_disables(self) -> int:
        """Slots that only disables and logins may use: no opt-out queues behind a backlog."""
        return max(self.slots // 50, int(self.slots >= _MIN_SLOTS_TO_RESERVE))


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A reserved slot; the request may leave after `wait_s` seconds."""

    number: int
    wait_s: float
    free_at: datetime


def resize_ring(connection: Connection, limit: RateLimit) -> None:
    """Resize the ring to the limit's number of slots."""
    if connection.scalar(_COUNT) == limit.slots:
        return
    connection.execute(_LOCK)
    connection.execute(_GROW, {"slots": limit.slots})
    connection.execute(_KEEP_LATEST, {"slots": limit.slots})
    connection.execute(_SHRINK, {"slots": limit.slots})


def reserve_slot(connection: Connection, limit: RateLimit, *, urgent: bool) -> Slot | None:
    """Reserve the slot that is free soonest; None if other transactions lock all slots.

    Args:
        connection: in autocommit mode, so that no other request waits for our lock.
        limit: the vendor's rate limit.
        urgent: true for a disable or a login, which may use the reserved slots.
    """
    reserved = 0 if urgent else limit.reserved_for_disables
    row = connection.execute(
        _RESERVE, {"occupied_s": limit.occupied_s, "reserved": reserved}
    ).first()
    if row is None:
        return None
    return Slot(number=row.slot, wait_s=max(0.0, float(row.wait_s)), free_at=row.free_at)


def release_slot(connection: Connection, slot: Slot, limit: RateLimit) -> None:
    """Release a slot whose request was not sent."""
    parameters = {"slot": slot.number, "free_at": slot.free_at, "occupied_s": limit.occupied_s}
    connection.execute(_RELEASE, parameters)


def pause_requests(connection: Connection, pause_s: float) -> None:
    """Pause every process that uses this vendor account for `pause_s` seconds."""
    connection.execute(_PAUSE, {"pause_s": pause_s})


def is_paused(connection: Connection) -> bool:
    """Return whether all requests are paused now."""
    return bool(connection.scalar(_PAUSED))
