"""The vendor's budget as a ring of slots: one row for each request that a period allows.

A request takes the slot that is free soonest and makes it busy for a whole period from the moment
it will be used. So no more than the allowed number can fall into any stretch of that length, over
all processes; the margin covers the way to the vendor, which is not equally long each time.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

_MARGIN_S = 0.5
_MARGIN_SHARE = 1 / 40
_MOST_SLOTS = 256
_LEAST_TO_SHARE = 10

# Slot 0 is none: it holds the time up to which the vendor wants nothing at all.
_GROW = text("""
INSERT INTO leadloop.rate_slots (slot, free_at)
SELECT slot, '-infinity' FROM generate_series(0, :slots) AS slot
ON CONFLICT DO NOTHING
""")
_COUNT = text("SELECT count(*) FROM leadloop.rate_slots WHERE slot > 0")
# The turns that were taken last are the ones that still count. They go to the highest numbers: the
# lowest are kept for disables.
_KEEP_LATEST = text("""
UPDATE leadloop.rate_slots AS ring SET free_at = latest.free_at
  FROM (SELECT :slots + 1 - row_number() OVER (ORDER BY free_at DESC) AS slot, free_at
          FROM leadloop.rate_slots WHERE slot > 0) AS latest
 WHERE ring.slot = latest.slot AND ring.slot > 0
""")
_SHRINK = text("DELETE FROM leadloop.rate_slots WHERE slot > :slots")
_LOCK = text("LOCK TABLE leadloop.rate_slots IN SHARE ROW EXCLUSIVE MODE")

# Not worth a wait for the disk: a server that crashes forgets some 0.2 s of turns at most.
_TAKE = text("""
WITH hurry AS (SELECT set_config('synchronous_commit', 'off', true))
UPDATE leadloop.rate_slots AS ring
   SET free_at = greatest(ring.free_at, pause.free_at, clock_timestamp())
                 + make_interval(secs => :busy_s)
  FROM hurry, (SELECT free_at FROM leadloop.rate_slots WHERE slot = 0) AS pause,
       (SELECT slot FROM leadloop.rate_slots WHERE slot > :kept
         ORDER BY free_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS soonest
 WHERE ring.slot = soonest.slot
RETURNING ring.slot, ring.free_at,
          extract(epoch FROM ring.free_at - clock_timestamp()) - :busy_s AS wait_s
""")
# Only a slot that is as we left it: somebody may have taken the turn after ours.
_GIVE_BACK = text("""
UPDATE leadloop.rate_slots SET free_at = free_at - make_interval(secs => :busy_s)
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
    """So many requests in any stretch of so many seconds."""

    requests: int
    period_s: float

    @property
    def slots(self) -> int:
        """Rows of the ring. Of a generous limit each row serves several requests a period."""
        return self.requests // -(-self.requests // _MOST_SLOTS)

    @property
    def uses_per_slot(self) -> int:
        """How often a slot may be used in a period: all of them together, at most `requests`."""
        return self.requests // self.slots

    @property
    def margin_s(self) -> float:
        """Seconds by which the way to the vendor may be longer for one request than for another."""
        return min(_MARGIN_S, self.period_s * _MARGIN_SHARE)

    @property
    def occupied_s(self) -> float:
        """Seconds that a slot stays taken: its share of the period with the margin."""
        return (self.period_s + self.margin_s) / self.uses_per_slot

    @property
    def reserved_for_disables(self) -> int:
        """Slots that only a disable may take: an opt-out does not wait behind a backlog."""
        return max(self.slots // 50, int(self.slots >= _LEAST_TO_SHARE))


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A slot of ours; the request may leave after `wait_s` seconds."""

    number: int
    wait_s: float
    free_at: datetime


def resize_ring(connection: Connection, limit: RateLimit) -> None:
    """Make the ring as large as the limit says."""
    if connection.scalar(_COUNT) == limit.slots:
        return
    connection.execute(_LOCK)
    connection.execute(_GROW, {"slots": limit.slots})
    connection.execute(_KEEP_LATEST, {"slots": limit.slots})
    connection.execute(_SHRINK, {"slots": limit.slots})


def reserve_slot(connection: Connection, limit: RateLimit, *, urgent: bool) -> Slot | None:
    """Take the slot that is free soonest; None where others hold them all at this very moment.

    Args:
        connection: commits each statement, so that nobody waits for our turn to come.
        limit: what the vendor allows.
        urgent: a disable, which may use the slots kept for it.
    """
    kept = 0 if urgent else limit.reserved_for_disables
    row = connection.execute(_TAKE, {"busy_s": limit.occupied_s, "kept": kept}).first()
    if row is None:
        return None
    return Slot(number=row.slot, wait_s=max(0.0, float(row.wait_s)), free_at=row.free_at)


def release_slot(connection: Connection, slot: Slot, limit: RateLimit) -> None:
    """Return a slot for which no request was sent."""
    parameters = {"slot": slot.number, "free_at": slot.free_at, "busy_s": limit.occupied_s}
    connection.execute(_GIVE_BACK, parameters)


def pause_requests(connection: Connection, pause_s: float) -> None:
    """Let the whole business send nothing for so many seconds."""
    connection.execute(_PAUSE, {"pause_s": pause_s})


def is_paused(connection: Connection) -> bool:
    """Whether the whole business is to send nothing at this moment."""
    return bool(connection.scalar(_PAUSED))
