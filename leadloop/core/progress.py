"""How a run tells whoever watches how far it is; nobody has to."""

from contextvars import ContextVar
from typing import Protocol


class ProgressListener(Protocol):
    """Is told of progress, from any thread. Labels are campaign ids and words of ours."""

    def add_total(self, label: str, total: int) -> None:
        """So much is to be done under this label."""

    def advance(self, label: str, amount: int) -> None:
        """So much more is done."""


class _NullListener:
    def add_total(self, label: str, total: int) -> None: ...

    def advance(self, label: str, amount: int) -> None: ...


_NULL_LISTENER = _NullListener()

#: Set by the command line for the length of a run; flows and tasks that it calls see it.
progress_listener: ContextVar[ProgressListener] = ContextVar("watcher", default=_NULL_LISTENER)


def has_no_listener() -> bool:
    """Whether nobody has said that they do."""
    return progress_listener.get() is _NULL_LISTENER
