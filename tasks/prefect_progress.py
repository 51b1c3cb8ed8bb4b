"""Prefect progress artifacts: one progress bar for each label of a run's work.

Prefect's answer never decides about the work: `log_prefect_errors` logs failures to reach Prefect.
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

# Shorter work has no artifact: one request to Prefect takes as long as several batches.
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
    """A `ProgressListener` (leadloop.core.progress) that updates Prefect's progress artifacts.

    Create it in the flow's own thread: it copies that thread's context, so that updates from other
    threads belong to the flow's run.
    """

    _bars: dict[str, _ArtifactBar] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _context: Context = field(default_factory=copy_context)

    def add_total(self, label: str, total: int) -> None:
        """Add to the work that is planned under this label."""
        with self._lock:
            self._bars.setdefault(label, _ArtifactBar()).total += total

    def advance(self, label: str, amount: int) -> None:
        """Add to the work done; update the artifact every 10 s and at the end."""
        with self._lock:
            bar = self._bars.setdefault(label, _ArtifactBar())
            bar.done += amount
            if bar.is_due:
                bar.updated_at = time.monotonic()
                self._context.run(_update_artifact, label, bar)


@contextmanager
def log_prefect_errors() -> Iterator[None]:
    """Log an error of Prefect in the block as a warning: Postgres holds the state of the work."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning("Prefect was not updated: %s", type(error).__name__)


def _update_artifact(label: str, bar: _ArtifactBar) -> None:
    with log_prefect_errors():
        if bar.artifact is None:
            # The declared type includes a coroutine, which Prefect returns only in an event loop.
            made = create_progress_artifact(progress=bar.percent, description=label)
            bar.artifact = cast("UUID", made)
        else:
            update_progress_artifact(bar.artifact, progress=bar.percent)
