"""The threads that send a campaign's requests side by side."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
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


def run_elastic(
    pool: RequestThreads, step: Callable[[], bool], get_limit: Callable[[], int]
) -> list[BaseException]:
    """Repeat a step in as many threads as a limit allows, which may change meanwhile.

    Before each step, a thread starts the threads that are missing, or ends if there are too many.
    Once a step has returned False or failed, no thread is started any more.

    Args:
        pool: has room for the greatest limit.
        step: does a piece of the work, and returns whether there may be another one.
        get_limit: returns the limit now, at least 1; thread-safe.

    Returns:
        The errors of the threads, when all have ended.
    """
    lock = Lock()
    threads: list[Future[None]] = []
    running, has_more = 0, True

    def adjust() -> bool:
        nonlocal running
        with lock:
            limit = get_limit()
            if has_more and running > limit:
                running -= 1
                return False
            while has_more and running < limit:
                running += 1
                threads.append(pool.submit(repeat))
            return True

    def repeat() -> None:
        nonlocal has_more
        try:
            while adjust():
                if not step():
                    has_more = False
                    return
        except BaseException:
            has_more = False
            raise

    adjust()
    # Threads add others to the list until they end.
    for thread in threads:
        wait([thread])
    return [error for thread in threads if (error := thread.exception())]


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
