"""A cache that bounds the page's load on the database, independent of viewers and selections."""

import time
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, ParamSpec, TypeVar

from db.database import DatabaseError
from leadloop.core.errors import LeadloopError

P = ParamSpec("P")
T = TypeVar("T")

#: A result's lifetime in durations of its load, so that loads take a twentieth of the time.
_TTL_FACTOR = 19
#: Seconds of loads that may be in advance of that twentieth: several viewers look at different
#: selections, and each wants the first load at once.
MAX_CREDIT_S = 60.0
_MAX_ENTRIES = 50


class PageBusy(LeadloopError):
    """The loads of a cache have taken their share of the time: no load for another selection."""


class ThrottledCache(Generic[P, T]):
    """A thread-safe LRU cache whose loads share one time budget, over all keys.

    Loads run one at a time. A result lives for 19 times the duration of its load, and all loads
    together take at most a twentieth of the time, after the first minute of loads. Without credit,
    an older result is returned. A failure to load counts for all keys, for as long as the failed
    load took, which leaves an overloaded database the same time to recover; and while there is no
    credit, for keys without an older result. A load that did not reach the database costs none.
    """

    def __init__(self, load: Callable[P, T]) -> None:
        self._load = load
        self._entries: dict[Hashable, tuple[float, T]] = {}
        self._failure: tuple[float, LeadloopError] | None = None
        self._credit_s, self._credited_at = MAX_CREDIT_S, time.monotonic()
        self._lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of a fresh or a cached load.

        Raises:
            LeadloopError: the load failed, or a recent one did.
            PageBusy: there is no result for these arguments, and no credit to load one.
        """
        key = (args, tuple(kwargs.items()))
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or time.monotonic() >= entry[0]:
                entry = self._refresh(key, entry, *args, **kwargs)
            # The most recently used entry is the last to be evicted.
            self._entries.pop(key, None)
            self._entries[key] = entry
            if len(self._entries) > _MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
        return entry[1]

    def _refresh(
        self, key: Hashable, entry: tuple[float, T] | None, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[float, T]:
        """Return the result of a load after the time at which it expires, or the older entry."""
        started = time.monotonic()
        self._credit_s += (started - self._credited_at) / (_TTL_FACTOR + 1)
        self._credit_s, self._credited_at = min(self._credit_s, MAX_CREDIT_S), started
        has_credit = self._credit_s > 0
        if entry is not None and not has_credit:
            return entry
        if self._failure is not None and (started < self._failure[0] or not has_credit):
            # Each raise of the same exception would extend its traceback.
            raise self._failure[1].with_traceback(None)
        if not has_credit:
            raise PageBusy(
                "the page reads other selections, and has used its share of the database's time"
            )
        try:
            result = self._load(*args, **kwargs)
        except LeadloopError as error:
            now = time.monotonic()
            self._failure = now + (now - started), error
            if not (isinstance(error, DatabaseError) and error.disconnected):
                self._credit_s -= now - started
            raise
        now = time.monotonic()
        self._failure = None
        self._credit_s -= now - started
        return now + _TTL_FACTOR * (now - started), result
