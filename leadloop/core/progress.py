"""Progress reporting from jobs to an optional listener, such as the command line's bars."""

from contextvars import ContextVar
from typing import Protocol


class ProgressListener(Protocol):
    """A receiver of progress, from any thread. Labels are campaign ids and our own words."""

    def add_total(self, label: str, total: int) -> None:
        """Add to the amount of work expected under a label."""

    def advance(self, label: str, amount: int) -> None:
        """Add to the amount of work done under a label."""


class _NullListener:
    def add_total(self, label: str, total: int) -> None: ...

    def advance(self, label: str, amount: int) -> None: ...


_NULL_LISTENER = _NullListener()

#: Set by the command line during a run; the flows and tasks that it calls read it.
progress_listener: ContextVar[ProgressListener] = ContextVar(
    "progress_listener", default=_NULL_LISTENER
)


def has_no_listener() -> bool:
    """Return whether no listener is set."""
    return progress_listener.get() is _NULL_LISTENER
