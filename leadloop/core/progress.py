"""How a run tells whoever watches how far it is; nobody has to."""

from contextvars import ContextVar
from typing import Protocol


class Watcher(Protocol):
    """Is told of progress, from any thread. Labels are campaign ids and words of ours."""

    def planned(self, label: str, total: int) -> None:
        """So much is to be done under this label."""

    def done(self, label: str, amount: int) -> None:
        """So much more is done."""


class _Nobody:
    def planned(self, label: str, total: int) -> None: ...

    def done(self, label: str, amount: int) -> None: ...


_NOBODY = _Nobody()

#: Set by the command line for the length of a run; flows and tasks that it calls see it.
watcher: ContextVar[Watcher] = ContextVar("watcher", default=_NOBODY)


def nobody_watches() -> bool:
    """Whether nobody has said that they do."""
    return watcher.get() is _NOBODY
