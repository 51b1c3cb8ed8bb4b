"""Looks at the database that viewers share, and that never keep it busy, however many look."""

import time
from collections.abc import Callable, Hashable
from functools import partial
from threading import Lock
from typing import Generic, NoReturn, ParamSpec, TypeVar

from leadloop.core.errors import LeadloopError

P = ParamSpec("P")
T = TypeVar("T")

#: What was seen holds for so many times as long as the look took: a twentieth of the time is work.
_TTL_FACTOR = 19
_MAX_ENTRIES = 50


class ThrottledCache(Generic[P, T]):
    """One look after the other; whoever asks the same before it is time gets what was seen.

    A failure holds for as long as it took, so that a database in trouble has as much time for
    itself.
    """

    def __init__(self, load: Callable[P, T]) -> None:
        self._load = load
        self._entries: dict[Hashable, tuple[float, Callable[[], T]]] = {}
        self._lock = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the look returns, or raises."""
        asked = (args, tuple(kwargs.items()))
        with self._lock:
            until, tell = self._entries.pop(asked, (0.0, None))
            if tell is None or time.monotonic() >= until:
                until, tell = self._refresh(*args, **kwargs)
            # The one that was asked for last is the last one to go.
            self._entries[asked] = until, tell
            if len(self._entries) > _MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
        return tell()

    def _refresh(self, *args: P.args, **kwargs: P.kwargs) -> tuple[float, Callable[[], T]]:
        began = time.monotonic()
        try:
            seen = self._load(*args, **kwargs)
        except LeadloopError as error:
            return _until(began, 1), partial(_fail, error)
        return _until(began, _TTL_FACTOR), lambda: seen


def _until(began: float, times: int) -> float:
    now = time.monotonic()
    return now + times * (now - began)


def _fail(error: LeadloopError) -> NoReturn:
    # Each raise of the same one would make its traceback longer.
    raise error.with_traceback(None)
