"""Prefect's progress artifact: one bar in a run's page while the run is at work.

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
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger

from leadloop.core.summary_text import format_names

# Shorter work has no artifact: one request to Prefect takes as long as several batches.
_UPDATE_INTERVAL_S = 10.0


@dataclass(kw_only=True)
class ProgressArtifacts:
    """A `ProgressListener` (leadloop.core.progress) that shows one bar while a run is at work.

    Create it in the flow's own thread: it copies that thread's context, so that updates from other
    threads belong to the flow's run.
    """

    _labels: list[str] = field(default_factory=list)
    _total: int = 0
    _done: int = 0
    _artifact: UUID | None = None
    _updated_at: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _context: Context = field(default_factory=copy_context)

    def add_total(self, label: str, total: int) -> None:
        """Add to the work that is planned, which this label is a part of."""
        with self._lock:
            if label not in self._labels:
                self._labels.append(label)
            self._total += total

    def advance(self, label: str, amount: int) -> None:
        """Add to the work done; update the artifact every 10 s and at the end."""
        with self._lock:
            if label not in self._labels:
                self._labels.append(label)
            self._done += amount
            if self._is_due():
                self._updated_at = time.monotonic()
                self._context.run(self._update)

    def remove(self) -> None:
        """Remove the bar: the run's artifact shows what was done."""
        with self._lock:
            artifact, self._artifact = self._artifact, None
            if artifact is not None:
                with log_prefect_errors(), get_client(sync_client=True) as client:
                    client.delete_artifact(artifact)

    def _is_due(self) -> bool:
        ended = self._artifact is not None and self._done >= self._total
        return ended or time.monotonic() - self._updated_at >= _UPDATE_INTERVAL_S

    def _update(self) -> None:
        percent = min(100.0, 100.0 * self._done / self._total) if self._total else 0.0
        names = format_names(self._labels)
        with log_prefect_errors():
            if self._artifact is None:
                # The declared type includes a coroutine, which Prefect returns only in an event
                # loop.
                made = create_progress_artifact(progress=percent, description=names)
                self._artifact = cast("UUID", made)
            else:
                update_progress_artifact(self._artifact, progress=percent, description=names)


@contextmanager
def log_prefect_errors() -> Iterator[None]:
    """Log an error of Prefect in the block as a warning: Postgres holds the state of the work."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning("Prefect was not updated: %s", type(error).__name__)
