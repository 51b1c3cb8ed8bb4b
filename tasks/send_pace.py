"""How many creates of a campaign are sent at once, by what each of them takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.concurrency import ConcurrencyLimit


class SendPace:
    """Measures requests and this process's work, and limits the requests at once; thread-safe.

    Args:
        limit: decides.
    """

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self._limit = limit
        self._lock = Lock()
        self.start_chunk()

    @property
    def limit(self) -> int:
        """The most requests at once now."""
        return self._limit.limit

    def start_chunk(self) -> None:
        """Measure the process's work from now on: between chunks it works for other campaigns."""
        self._work_began_s = time.process_time()
        self._accepted = 0

    @contextmanager
    def time_request(self) -> Iterator[None]:
        """Measure the request of the block, if the vendor accepts it."""
        began_s = read_boot_clock()
        yield
        time_s = read_boot_clock() - began_s
        with self._lock:
            self._accepted += 1
            work_s = (time.process_time() - self._work_began_s) / self._accepted
            self._limit.record_accepted(time_s, work_s)

    def record_failure(self) -> None:
        """Retreat after a request that failed, or that the vendor asked to send later."""
        with self._lock:
            self._limit.record_failure()
