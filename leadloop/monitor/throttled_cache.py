"""A cache that bounds the page's load on the database, independent of the number of viewers."""

import time
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, ParamSpec, TypeVar

from leadloop.core.errors import LeadloopError

P = ParamSpec("P")
T = TypeVar("T")

#: A result's lifetime in durations of its load, so that loads take a twentieth of the time.
_TTL_FACTOR = 19
_MAX_ENTRIES = 50


class ThrottledCache(Generic[P, T]):
    """A thread-safe LRU cache whose time-to-live grows with the duration of the load.

    Loads run one at a time. An error is cached for as long as the failed load took, which leaves an
    overloaded database the same time to recover.
    """

    def __init__(self, load: Callable[P, T]) -> None:
        self._load = load
        self._entries: dict[Hashable, tuple[float, T | LeadloopError]] = {}
        self._lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result, or raise the error, of a fresh or a cached load."""
        key = (args, tuple(kwargs.items()))
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None or time.monotonic() >= entry[0]:
                entry = self._refresh(*args, **kwargs)
            # The most recently used entry is the last to be evicted.
            self._entries[key] = entry
            if len(self._entries) > _MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
        _, result = entry
        if isinstance(result, LeadloopError):
            # Each raise of the same exception would extend its traceback.
            raise result.with_traceback(None)
        return result

    def _refresh(self, *args: P.args, **kwargs: P.kwargs) -> tuple[float, T | LeadloopError]:
        """Return the result or the error of a load, after the time at which it expires."""
        started = time.monotonic()
        result: T | LeadloopError
        try:
            result, factor = self._load(*args, **kwargs), _TTL_FACTOR
        except LeadloopError as error:
            result, factor = error, 1
        now = time.monotonic()
        return now + factor * (now - started), result
