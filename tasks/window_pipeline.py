"""The windows of a poll side by side: first pages ahead, two reads at once, one store behind.

Every future of a poll is made here. The job takes windows in order, and each is stored before the
one behind it, so that the range that was read grows without gaps.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

from leadloop.core.windows import Window
from tasks.thread_pool import RequestThreads
from tasks.window_pages import ParsedPage, WindowRead
from tasks.window_reader import WindowReader

_READS_AT_ONCE = 2

#: Returns whether a window is short enough, by its first page, to be read as a whole.
IsReadable = Callable[[Window, ParsedPage], bool]
#: Returns whether a window is suspected to hold a result that cannot be read.
IsSuspect = Callable[[Window], bool]


class WindowPipeline:
    """Futures of first pages and whole windows, and the last window that is being stored.

    Args:
        reader: reads windows.
        pool: sends the requests.
        is_readable: windows for which it is false are never read as a whole.
        is_suspect: the first page of a suspect is not read in parts.
    """

    def __init__(
        self,
        reader: WindowReader,
        pool: RequestThreads,
        readers: ThreadPoolExecutor,
        keeper: ThreadPoolExecutor,
        is_readable: IsReadable,
        is_suspect: IsSuspect,
    ) -> None:
        self._reader = reader
        self._pool = pool
        self._readers = readers
        self._keeper = keeper
        self._is_readable = is_readable
        self._is_suspect = is_suspect
        self._firsts: dict[Window, Future[ParsedPage]] = {}
        self._whole: dict[Window, Future[WindowRead | None]] = {}
        self._stored: Future[None] | None = None

    @property
    def width(self) -> int:
        """The number of windows whose first pages are read at once."""
        return self._pool.size

    def put_first(self, window: Window, page: ParsedPage) -> None:
        """Use a page that was read already as the first page of a window."""
        self._firsts[window] = Future()
        self._firsts[window].set_result(page)

    def read_first(self, windows: Sequence[Window]) -> ParsedPage:
        """Return the first page of the first window, and begin to read those of the others.

        Raises:
            PageUnavailable, ApiError, RunError: see `WindowReader.read_first_page`.
        """
        for window in windows:
            if window not in self._firsts:
                self._firsts[window] = self._pool.submit(
                    self._reader.read_first_page, window, in_parts=not self._is_suspect(window)
                )
        return self._firsts[windows[0]].result()

    def first_if_read(self, window: Window) -> ParsedPage | None:
        """Return the first page of a window if it has been read already."""
        first = self._firsts.get(window)
        if first is None or not first.done() or first.exception():
            return None
        return first.result()

    def read_whole(self, windows: Sequence[Window]) -> WindowRead | None:
        """Read the first window, and begin with the next one, since verifying leaves threads idle.

        The pages of the next window queue behind those of this one, so that neither takes longer:
        the longer a read takes, the more rows move.

        Returns:
            The read; None if the window is not readable as a whole.

        Raises:
            PageUnavailable, ApiError, RunError: see `WindowReader.read_window`.
        """
        for window in windows[:_READS_AT_ONCE]:
            if window not in self._whole:
                first = self._firsts[window]
                self._whole[window] = self._readers.submit(self._read, window, first)
        window = windows[0]
        del self._firsts[window]
        return self._whole.pop(window).result()

    def read_rows_alone(self, window: Window) -> WindowRead:
        """Read a short window row by row; see `WindowReader.read_rows_alone`."""
        return self._reader.read_rows_alone(self._pool, window)

    def forget(self, window: Window) -> None:
        """Drop what was read of a window, which is replaced by parts of it or read again."""
        self._firsts.pop(window, None)
        self._whole.pop(window, None)

    def store(self, write: Callable[[], None]) -> None:
        """Store a window while the next one is read.

        It waits for the window before, so that at most three are in memory.
        """
        self.wait_until_stored()
        self._stored = self._keeper.submit(write)

    def wait_until_stored(self) -> None:
        """Wait until the last window is stored."""
        if self._stored is not None:
            stored, self._stored = self._stored, None
            stored.result()

    def _read(self, window: Window, first: Future[ParsedPage]) -> WindowRead | None:
        page = first.result()
        if not self._is_readable(window, page):
            return None
        return self._reader.read_window(self._pool, window, page)


@contextmanager
def open_pipeline(
    reader: WindowReader,
    threads: AbstractContextManager[RequestThreads],
    is_readable: IsReadable,
    is_suspect: IsSuspect,
) -> Iterator[WindowPipeline]:
    """Open a pipeline; at the end, wait for what is being stored, and drop unfinished reads.

    Args:
        reader: reads windows.
        threads: opens the threads that send the requests. They end first, because the end of the
            readers waits for pages that nobody needs any more.
        is_readable: see `WindowPipeline`.
        is_suspect: likewise.
    """
    with (
        ThreadPoolExecutor(_READS_AT_ONCE) as readers,
        ThreadPoolExecutor(1) as keeper,
        ExitStack() as last,
        threads as pool,
    ):
        pipeline = WindowPipeline(reader, pool, readers, keeper, is_readable, is_suspect)
        last.callback(pipeline.wait_until_stored)
        yield pipeline
