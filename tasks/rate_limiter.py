"""A rate limiter over every process that uses this vendor account: a ring of slots in Postgres."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event, Lock

from db import rate_limit
from db.database import Database
from db.rate_limit import Slot
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.plurals import format_count
from leadloop.core.rate_ring import Purpose, RateLimit, find_paced_delay
from leadloop.core.verdicts import ApiCall

_FULL_RING_WAIT_S = 0.02
# The least time between the permit and its request in which the permit stays valid.
_MIN_VALID_S = 0.1
# During a shorter wait the vendor can hardly ask for a pause, so no query checks for one.
_RECHECK_AFTER_S = 0.5
# The share of the slots that a paced process leaves free in a burst. Looks at outcomes use most of
# what creates leave: single leads must not wait for half of the slots.
_KEPT_SHARES = dict.fromkeys(Purpose, 0.5) | {Purpose.BULK: 1 / 16}
# A request asks looks for a slot of theirs before it waits longer for its own.
_BORROW_AFTER_S = 0.25
# For a 429 without a Retry-After.
_DEFAULT_PAUSE_S = 5.0
# A shorter wait is not reported, seconds, and no second one within the period.
_LONG_WAIT_S = 5.0
_REPORT_PERIOD_S = 600.0
# A longer Retry-After is taken for the vendor's mistake: all processes would stand still.
MAX_PAUSE_S = 3600.0
#: A run of several accounts waits no longer for one's pause, seconds: the others' next run would
#: not begin before this one's end.
PATIENCE_S = 60.0


class AccountPaused(RunError):
    """The vendor has asked for a pause that is longer than the run waits for its end."""

    def __init__(self, account: str, pause_s: float) -> None:
        super().__init__(
            f"the vendor has asked for a pause: no request of account {account} is sent for"
            f" {pause_s:.0f} s; a later run goes on"
        )


@dataclass(frozen=True, kw_only=True)
class Permit:
    """The right to send one request before `valid_until` (seconds of the boot clock).

    `has_pause_begun` is set once the vendor has asked the process for a pause.
    """

    slot: Slot
    valid_until: float
    has_pause_begun: Event

    @property
    def is_expired(self) -> bool:
        """Whether the request would leave in a pause, or so late that it could exceed the limit."""
        return self.has_pause_begun.is_set() or read_boot_clock() > self.valid_until


class PauseNotice:
    """Announces the pauses of an account to all of its limiters in a process; thread-safe.

    Each request of another process learns of a pause from the ring.
    """

    def __init__(self) -> None:
        self._begun = Event()
        self._until = -math.inf

    @property
    def next_begun(self) -> Event:
        """The event that is set when the next pause begins; it is set while one is recorded."""
        return self._begun

    @property
    def may_last(self) -> bool:
        """Whether a pause that was announced has not ended, unless the ring was changed since."""
        return read_boot_clock() < self._until

    @contextmanager
    def announce(self, pause_s: float) -> Iterator[None]:
        """Announce a pause, which the block records in the ring."""
        self._until = max(self._until, read_boot_clock() + pause_s)
        self._begun.set()
        try:
            yield
        finally:
            self._begun = Event()


class RateLimiter:
    """A rate limiter that reserves slots in the ring that all processes share.

    Args:
        database: the database that holds the ring.
        limit: the vendor's rate limit.
        warn: called with a message when the vendor asks for a pause.
        purpose: decides which slots the requests may use, apart from disables and logins.
        is_paced: whether the requests keep distances once half of the slots are in use, so that
            they never use up all slots in a burst.
        account: the account whose ring it is.
        on_wait: called with a message before a wait of some seconds, at most every ten minutes.
        pauses: shared with other limiters of the account in this process; None: there are none.
        patience_s: the longest pause whose end is waited for, seconds.
    """

    def __init__(
        self,
        database: Database,
        limit: RateLimit,
        warn: Callable[[str], None],
        *,
        account: str,
        purpose: Purpose = Purpose.BULK,
        is_paced: bool = False,
        on_wait: Callable[[str], None] = lambda _: None,
        pauses: PauseNotice | None = None,
        patience_s: float = math.inf,
    ) -> None:
        self.account = account
        self._patience_s = patience_s
        self._database = database
        self._limit = limit
        self._warn = warn
        self._purpose = purpose
        self._is_paced = is_paced
        self._on_wait = on_wait
        self._next_report_at = 0.0
        self._yield_slot: Callable[[float], bool] | None = None
        self._pace_lock = Lock()
        # When the last paced request leaves. The first one keeps its distance from the start.
        self._paced_at = read_boot_clock()
        # The other half of the ring's margin covers the network.
        self._valid_for_s = max(_MIN_VALID_S, limit.margin_s / 2)
        self._stopped = Event()
        self.pauses = pauses or PauseNotice()

    @property
    def rate_per_s(self) -> float:
        """The requests a second that the limit allows for this purpose."""
        return self._limit.rate_of(self._purpose)

    @property
    def period_s(self) -> float:
        """The period of the limit, seconds."""
        return self._limit.period_s

    def resize_ring(self) -> None:
        """Resize the ring of slots to the rate limit."""
        with self._database.transaction() as connection:
            rate_limit.resize_ring(connection, self._limit, account=self.account)

    def stop(self) -> None:
        """End all waits with an error, so that the run sends nothing more."""
        self._stopped.set()

    def wait_for_permit(self, call: ApiCall) -> None:
        """Block until one request may leave.

        Raises:
            RunError: the run is being stopped.
        """
        self.acquire_permit(call)

    def acquire_permit(self, call: ApiCall) -> Permit:
        """Reserve a slot, wait until it is due, and return the permit.

        Raises:
            AccountPaused: the vendor's pause is longer than the run waits.
            RunError: the run is being stopped.
        """
        while True:
            permit = self.wait_until_due(self.reserve_slot(call))
            if permit is not None:
                return permit

    def reserve_slot(self, call: ApiCall) -> Slot:
        """Reserve the next free slot, which may be due only later; keep the pace before.

        Raises:
            RunError: the run is being stopped.
        """
        if call in (ApiCall.DISABLE, ApiCall.LOGIN):
            return self._reserve_or_borrow(Purpose.OPT_OUTS)
        if not self._is_paced:
            return self._reserve_or_borrow(self._purpose)
        with self._pace_lock:
            self._wait_for_pace()
            slot = self._reserve_slot(self._purpose)
            self._paced_at = read_boot_clock() + slot.wait_s
            return slot

    def borrow_slots(self, yield_slot: Callable[[float], bool]) -> None:
        """Have slots that were reserved ahead given up before a request waits for its own.

        Args:
            yield_slot: releases a slot that is free within the given seconds; returns whether there
                was one.
        """
        self._yield_slot = yield_slot

    def _reserve_or_borrow(self, purpose: Purpose) -> Slot:
        """Reserve a slot; where it is due only later, reserve again once looks yield one.

        The wait counts from the return on: whatever took time after the reservation is subtracted,
        and a slot that was due meanwhile is not used.
        """
        slot = self._reserve_slot(purpose)
        reserved_at = read_boot_clock()
        sooner_s = slot.wait_s - _BORROW_AFTER_S
        if sooner_s <= 0 or self._yield_slot is None:
            return slot
        if not self._yield_slot(sooner_s):
            left_s = slot.wait_s - (read_boot_clock() - reserved_at)
            if left_s > 0:
                return replace(slot, wait_s=left_s)
        self.release_slot(slot)
        return self._reserve_slot(purpose)

    def list_spare_waits(self) -> list[float]:
        """Return the seconds until slots are free, but for those left to others' first requests.

        The soonest comes first; negative: it is free. A run that disables asks before each request
        but its first: one that halves a list, or looks many leads up, holds up no other opt-out.
        """
        with self._database.autocommit() as connection:
            return rate_limit.list_spare_waits(connection, self._purpose, account=self.account)

    def _wait_for_pace(self) -> None:
        with self._database.autocommit() as connection:
            waits_s = rate_limit.list_waits(connection, self._purpose, account=self.account)
        last_s = self._paced_at - read_boot_clock()
        kept_share = _KEPT_SHARES[self._purpose]
        delay_s = find_paced_delay(waits_s, last_s, kept_share=kept_share)
        self._require_patience(delay_s)
        self.sleep(delay_s)

    def _require_patience(self, wait_s: float) -> None:
        """Check that a wait is not for the end of a pause that is too long for this run.

        Raises:
            AccountPaused: it is.
        """
        if wait_s > self._patience_s and (pause_s := self.find_pause_s()) > self._patience_s:
            raise AccountPaused(self.account, pause_s)

    def _reserve_slot(self, purpose: Purpose) -> Slot:
        while True:
            with self._database.autocommit() as connection:
                slot = rate_limit.reserve_slot(connection, purpose, account=self.account)
                if slot is not None:
                    return slot
                if not rate_limit.has_ring(connection, account=self.account):
                    raise RunError(
                        f"account {self.account} has no rate limit any more: it was renamed, or its"
                        " rows of leadloop.rate_slots were deleted; the next run goes on"
                    )
            self.sleep(_FULL_RING_WAIT_S)

    def wait_until_due(self, slot: Slot) -> Permit | None:
        """Wait until a slot is due and return its permit; release it, and return None, in a pause.

        Raises:
            AccountPaused: the vendor's pause is longer than the run waits.
            RunError: the run is being stopped.
        """
        try:
            self._require_patience(slot.wait_s)
        except AccountPaused:
            self.release_slot(slot)
            raise
        self._report_wait(slot.wait_s)
        self.sleep(slot.wait_s)
        has_pause_begun = self.pauses.next_begun
        if (slot.wait_s > _RECHECK_AFTER_S or self.pauses.may_last) and self.find_pause_s() > 0:
            self.release_slot(slot)
            return None
        return Permit(
            slot=slot,
            valid_until=read_boot_clock() + self._valid_for_s,
            has_pause_begun=has_pause_begun,
        )

    def _report_wait(self, wait_s: float) -> None:
        now = read_boot_clock()
        if wait_s < _LONG_WAIT_S or now < self._next_report_at:
            return
        self._next_report_at = now + _REPORT_PERIOD_S
        self._on_wait(
            f"waiting {wait_s:.0f} s for the rate limit, which all runs share:"
            f" {format_count(self._limit.requests, 'request')} in {self._limit.period_s:g} s"
        )

    def is_paused(self) -> bool:
        """Return whether a pause that this process knows of lasts; others' a request learns of."""
        return self.pauses.may_last and self.find_pause_s() > 0

    def find_pause_s(self) -> float:
        """Return for how many more seconds the vendor takes no request (Retry-After), or 0."""
        return self._database.retry(
            lambda connection: rate_limit.get_pause_s(connection, account=self.account),
            single_statement=True,
        )

    def release_slot(self, slot: Slot) -> None:
        """Release a slot without a request, so that another process can use it."""
        with self._database.autocommit() as connection:
            rate_limit.release_slot(connection, slot, account=self.account)

    def pause(self, retry_after_s: float | None) -> None:
        """Pause every process that uses this vendor account, as the vendor asked (429).

        Args:
            retry_after_s: the vendor's Retry-After in seconds; None without one.
        """
        pause_s = min(_DEFAULT_PAUSE_S if retry_after_s is None else retry_after_s, MAX_PAUSE_S)
        # Other threads may hold permits, or slots that are due.
        with self.pauses.announce(pause_s), self._database.autocommit() as connection:
            rate_limit.pause_requests(connection, pause_s, account=self.account)
        of_account = "" if self.account == DEFAULT_ACCOUNT else f" of account {self.account}"
        self._warn(
            f"the vendor asked for a pause: no request{of_account} is sent for {pause_s:.0f} s"
        )

    def sleep(self, seconds: float) -> None:
        """Sleep for some seconds.

        Raises:
            RunError: the run is being stopped.
        """
        if self._stopped.wait(seconds):
            raise RunError("the run was stopped")
