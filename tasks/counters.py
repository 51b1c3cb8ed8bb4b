"""Counters of a job."""

import threading


class Counters:
    """Thread-safe counters by name."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(names, 0)

    def add(self, **amounts: int) -> None:
        """Add to some of the counters."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def counts(self) -> dict[str, int]:
        """Return a snapshot of all counters."""
        with self._lock:
            return dict(self._counts)
