"""The threads that send a campaign's requests side by side."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


class RequestThreads(ThreadPoolExecutor):
    """A thread pool that knows its size."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


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
