"""A cache that bounds the page's load on the database, independent of the number of viewers."""

import time
from collections.abc import Callable, Hashable
from functools import partial
from threading import Lock
from typing import Generic, NoReturn, ParamSpec, TypeVar

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
        self._entries: dict[Hashable, tuple[float, Callable[[], T]]] = {}
        self._lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result, or raise the error, of a fresh or a cached load."""
        key = (args, tuple(kwargs.items()))
        with self._lock:
            expires_at, get_result = self._entries.pop(key, (0.0, None))
            if get_result is None or time.monotonic() >= expires_at:
                expires_at, get_result = self._refresh(*args, **kwargs)
            # The most recently used entry is the last to be evicted.
            self._entries[key] = expires_at, get_result
            if len(self._entries) > _MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
        return get_result()

    def _refresh(self, *args: P.args, **kwargs: P.kwargs) -> tuple[float, Callable[[], T]]:
        started = time.monotonic()
        try:
            result = self._load(*args, **kwargs)
        except LeadloopError as error:
            return _expiry_time(started, 1), partial(_raise_cached, error)
        return _expiry_time(started, _TTL_FACTOR), lambda: result


def _expiry_time(started: float, factor: int) -> float:
    now = time.monotonic()
    return now + factor * (now - started)


def _raise_cached(error: LeadloopError) -> NoReturn:
    # Each raise of the same exception would extend its traceback.
    raise error.with_traceback(None)
