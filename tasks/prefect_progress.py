"""Progress of long work as Prefect shows it: one progress artifact a thing that is being done.

And what holds for whatever Prefect is told: the work does not depend on it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

# Work that is over sooner has no bar: to tell Prefect takes as long as many batches.
_UPDATE_INTERVAL_S = 10.0


@dataclass(kw_only=True)
class _ArtifactBar:
    total: int = 0
    done: int = 0
    artifact: UUID | None = None
    updated_at: float = field(default_factory=time.monotonic)

    @property
    def percent(self) -> float:
        return min(100.0, 100.0 * self.done / self.total) if self.total else 0.0

    @property
    def is_due(self) -> bool:
        ended = self.artifact is not None and self.done >= self.total
        return ended or time.monotonic() - self.updated_at >= _UPDATE_INTERVAL_S


@dataclass(kw_only=True)
class ProgressArtifacts:
    """A watcher (leadloop.core.progress) that keeps Prefect's progress artifacts up to date.

    Made in the flow's own thread: what other threads tell belongs to that flow's run too.
    """

    _bars: dict[str, _ArtifactBar] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _context: Context = field(default_factory=copy_context)

    def add_total(self, label: str, total: int) -> None:
        """So much more is to be done under this label."""
        with self._lock:
            self._bars.setdefault(label, _ArtifactBar()).total += total

    def advance(self, label: str, amount: int) -> None:
        """So much more is done; told to Prefect now and then, and when it is all."""
        with self._lock:
            bar = self._bars.setdefault(label, _ArtifactBar())
            bar.done += amount
            if bar.is_due:
                bar.updated_at = time.monotonic()
                self._context.run(_update_artifact, label, bar)


@contextmanager
def log_prefect_errors() -> Iterator[None]:
    """What Prefect cannot be told in this block ends no run: Postgres knows what was done."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning("Prefect could not be told: %s", type(error).__name__)


def _update_artifact(label: str, bar: _ArtifactBar) -> None:
    with log_prefect_errors():
        if bar.artifact is None:
            # Its type says that it may be a coroutine; outside of a loop it is none.
            made = create_progress_artifact(progress=bar.percent, description=label)
            bar.artifact = cast("UUID", made)
        else:
            update_progress_artifact(bar.artifact, progress=bar.percent)
