"""Every request that arrived, and the limit on how many may."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from leadloop.sandbox.rules import Rules

Kind = Literal["create", "responses", "disable", "token", "revoke", "other"]


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request. `arrived` is seconds of `time.monotonic`; `status` 0 until it is answered.

    `bearer` tells whether an Authorization header came with it, never which; `fault` names the
    faults that were played on it; a request whose connection was dropped keeps status 0.
    """

    arrived: float
    method: str
    path: str
    query: str
    kind: Kind
    bearer: bool
    status: int = 0
    fault: str | None = None

    def shown(self) -> dict[str, Any]:
        """As the control route shows it."""
        return asdict(self)


class Traffic:
    """The log of requests, and the sliding window of those let through."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._passed: deque[float] = deque()

    def note(self, entry: Entry) -> None:
        """Keep a request as it arrives."""
        self.entries.append(entry)

    def wait_s(self, rules: Rules, now: float) -> float:
        """Seconds until the limit has room, counting this request in if it has room now (0)."""
        if rules.rate_limit is None:
            return 0.0
        requests, seconds = rules.rate_limit
        while self._passed and self._passed[0] <= now - seconds:
            self._passed.popleft()
        if len(self._passed) >= requests:
            return self._passed[len(self._passed) - requests] + seconds - now
        self._passed.append(now)
        return 0.0

    def busiest(self, seconds: float, kinds: Iterable[Kind] | None = None) -> int:
        """The greatest number of requests in any window of that many seconds."""
        wanted = None if kinds is None else set(kinds)
        return most_within(
            [e.arrived for e in list(self.entries) if wanted is None or e.kind in wanted], seconds
        )

    def reset(self) -> None:
        """Forget every request."""
        self.entries = []
        self._passed.clear()


def most_within(times: list[float], seconds: float) -> int:
    """The greatest number of the ascending times in any half-open window of that length."""
    most, start = 0, 0
    for end, at in enumerate(times):
        while times[start] <= at - seconds:
            start += 1
        most = max(most, end - start + 1)
    return most


def monotonic() -> float:
    """The clock of arrivals, seconds."""
    return time.monotonic()
