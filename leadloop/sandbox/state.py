"""Everything that one sandbox holds."""

import time
from collections.abc import Callable

from leadloop.sandbox.auth import TokenRegistry
from leadloop.sandbox.faults import FaultInjector
from leadloop.sandbox.rate_limiting import SlidingWindowLimiter
from leadloop.sandbox.request_log import RequestLog
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.store import LeadStore


class VendorClock:
    """The vendor's own clock: the real one plus the offset that the rules set."""

    def __init__(self, rules: Callable[[], Rules]) -> None:
        self._rules = rules

    def now(self) -> int:
        """Return the vendor's time in epoch ms."""
        return int((time.time() + self._rules().clock_offset) * 1000)


class SandboxState:
    """The rules in force, and the parts that follow the rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.clock = VendorClock(lambda: self.rules)
        self.store = LeadStore(lambda: self.rules, self.clock.now)
        self.tokens = TokenRegistry()
        self.request_log = RequestLog()
        self.rate_limiter = SlidingWindowLimiter()
        self.faults = FaultInjector()

    def reset(self) -> None:
        """Delete leads, requests, tokens and faults; keep the rules."""
        self.store.reset()
        self.tokens.reset()
        self.request_log.reset()
        self.rate_limiter.reset()
        self.faults.clear()
