"""The threads that send a campaign's requests side by side."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

#: Calls submitted, or with a result that waits to be taken, for each thread.
_CALLS_AHEAD = 2

T = TypeVar("T")
A = TypeVar("A")


class RequestThreads(ThreadPoolExecutor):
    """A thread pool that knows its size."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size

    def map_in_order(self, function: Callable[[A], T], items: Iterable[A]) -> Iterator[T]:
        """Map a function over items, in order, with a bounded number of calls ahead."""
        begun: deque[Future[T]] = deque()
        for item in items:
            begun.append(self.submit(function, item))
            if len(begun) >= self.size * _CALLS_AHEAD:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


@contextmanager
def open_threads(size: int, *, on_stop: Callable[[], None]) -> Iterator[RequestThreads]:
    """Open a thread pool for a block, and wait for its threads at the end.

    Args:
        size: the number of threads.
        on_stop: is called where the run is stopped (Ctrl-C, SIGTERM); it must end the waits of the
            threads, for which the end of the block waits.
    """
    pool = RequestThreads(size)
    try:
        yield pool
    except Exception:
        raise
    except BaseException:
        on_stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class FifoSemaphore:
    """A semaphore that admits threads in the order in which they asked (FIFO).

    A `threading.Semaphore` has no order. With one, threads that ask repeatedly starved the thread
    that verified a window until all pages of the next window were read.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[Lock] = deque()
        self._lock = Lock()

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Wait for a free place and hold it for the block."""
        gate = Lock()
        gate.acquire()
        with self._lock:
            if self._free:
                self._free -= 1
                gate.release()
            else:
                self._waiting.append(gate)
        gate.acquire()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().release()
                else:
                    self._free += 1
