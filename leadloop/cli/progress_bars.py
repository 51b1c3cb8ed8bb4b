"""Progress bars on stderr, one for each step of a run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from leadloop.core.progress import ProgressListener


class ProgressBars:
    """A progress listener with one bar a label, created at its first use."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._bars: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}

    def add_total(self, label: str, total: int) -> None:
        """Increase the total of a label's bar."""
        with self._lock:
            self._totals[label] = self._totals.get(label, 0) + total
            self._progress.update(self._find_or_add_bar(label), total=self._totals[label])

    def advance(self, label: str, amount: int) -> None:
        """Advance a label's bar."""
        if amount:
            with self._lock:
                self._progress.advance(self._find_or_add_bar(label), amount)

    def finish(self) -> None:
        """Complete the bars without a total."""
        for task in self._progress.tasks:
            if task.total is None:
                self._progress.update(task.id, total=task.completed)

    def _find_or_add_bar(self, label: str) -> TaskID:
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=self._totals.get(label))
        return self._bars[label]


@contextmanager
def show_progress_bars(console: Console) -> Iterator[ProgressListener]:
    """Show progress bars for the block; without a terminal, print only their last state."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=console.is_terminal,
    ) as progress:
        bars = ProgressBars(progress)
        yield bars
        bars.finish()
