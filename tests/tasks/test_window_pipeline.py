"""Windows of a poll side by side: read ahead, read as a whole in order, stored one at a time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from db.database import Database
from leadloop.core.timestamps import to_epoch_ms
from leadloop.core.windows import Window
from tasks.page_reader import PageUnavailable
from tasks.window_pipeline import IsReadable, IsSuspect, WindowPipeline, open_pipeline
from tests.quirky_api import Query, QuirkyApi, build_page
from tests.waiting import wait_until
from tests.window_readers import (
    OpenedReader,
    answer_pages,
    open_reader,
    window_of,
)

#: Four windows of ten results each.
WINDOWS = [window_of(first, first + 9) for first in range(0, 40, 10)]


@pytest.fixture
def result_count() -> int:
    """Count the vendor's results."""
    return 40


@pytest.fixture
def opened(odd_results: QuirkyApi, database: Database) -> Iterator[OpenedReader]:
    """A reader of that vendor's pages, four rows each."""
    with open_reader(database, page_size=4) as reader:
        yield reader


@contextmanager
def pipeline_of(
    opened: OpenedReader,
    *,
    is_readable: IsReadable = lambda *_: True,
    is_suspect: IsSuspect = lambda _: False,
) -> Iterator[WindowPipeline]:
    """Open a pipeline as a poll does."""
    threads = opened.run.context.open_threads()
    with open_pipeline(opened.reader, threads, is_readable, is_suspect) as pipeline:
        yield pipeline


def pages_of(odd_results: QuirkyApi, window: Window) -> list[int]:
    """Return the numbers of the pages that were requested of a window, in order."""
    return [
        query.page for query in odd_results.queries if query.after == to_epoch_ms(window.after) - 1
    ]


def test_first_pages_are_read_ahead_and_once(opened: OpenedReader, odd_results: QuirkyApi) -> None:
    """Reading the first window begins with the others; asking again sends nothing."""
    with pipeline_of(opened) as pipeline:
        first = pipeline.read_first(WINDOWS)
        assert (first.count, len(first.rows)) == (10, 4)
        wait_until(lambda: all(map(pipeline.first_if_read, WINDOWS)), "a first page is not read")
        assert pipeline.read_first(WINDOWS) is first
        assert pipeline.read_first(WINDOWS[2:]) is pipeline.first_if_read(WINDOWS[2])
        assert [pages_of(odd_results, each) for each in WINDOWS] == [[1]] * 4


def test_a_first_page_that_was_not_read_is_none(
    opened: OpenedReader, odd_results: QuirkyApi
) -> None:
    """Neither one that nobody asked for, nor one that failed."""
    odd_results.answer = answer_pages(odd_results.rows, lambda *_: 500)
    with pipeline_of(opened) as pipeline:
        assert pipeline.first_if_read(WINDOWS[0]) is None
        with pytest.raises(PageUnavailable):
            pipeline.read_first(WINDOWS[:1])
        assert pipeline.first_if_read(WINDOWS[0]) is None


def test_a_suspect_is_not_read_in_parts(opened: OpenedReader, odd_results: QuirkyApi) -> None:
    """It is narrowed by time instead; of another window the rows that can be read are stored."""
    odd_results.answer = answer_pages(
        odd_results.rows, lambda _, shown: 500 if {2, 12} & shown else None
    )
    with pipeline_of(opened, is_suspect=lambda each: each == WINDOWS[0]) as pipeline:
        with pytest.raises(PageUnavailable):
            pipeline.read_first(WINDOWS[:1])
        assert {query.size for query in odd_results.queries if query.before} == {4}
        assert pipeline.read_first(WINDOWS[1:2]).missing == [2]


def test_windows_are_read_whole_two_at_once(opened: OpenedReader, odd_results: QuirkyApi) -> None:
    """The next window is begun with the first one, and its pages are read once."""
    with pipeline_of(opened) as pipeline:
        pipeline.read_first(WINDOWS)
        wait_until(lambda: all(map(pipeline.first_if_read, WINDOWS)), "a first page is not read")
        first = pipeline.read_whole(WINDOWS)
        wait_until(lambda: len(pages_of(odd_results, WINDOWS[1])) == 4, "pages are not read")
        assert [pages_of(odd_results, each) for each in WINDOWS[2:]] == [[1], [1]]
        second = pipeline.read_whole(WINDOWS[1:2])
        assert sorted(pages_of(odd_results, WINDOWS[1])) == [1, 1, 2, 3], "the first one verifies"
    for number, reading in enumerate((first, second)):
        assert reading is not None
        assert reading.window == WINDOWS[number]
        assert reading.complete
        leads = {lead_id for lead_id, _ in reading.seen}
        assert leads == {f"L{each}" for each in range(10 * number, 10 * number + 10)}


def test_a_window_that_is_not_readable_is_not_read(
    opened: OpenedReader, odd_results: QuirkyApi
) -> None:
    """The decision is made by its first page; no other one is requested."""
    with pipeline_of(opened, is_readable=lambda _, first: first.count < 10) as pipeline:
        pipeline.read_first(WINDOWS)
        wait_until(lambda: all(map(pipeline.first_if_read, WINDOWS)), "a first page is not read")
        assert pipeline.read_whole(WINDOWS) is None
    assert [pages_of(odd_results, each) for each in WINDOWS] == [[1]] * 4


def test_what_is_forgotten_is_read_again(opened: OpenedReader, odd_results: QuirkyApi) -> None:
    """A window that was never read may be forgotten, too."""
    with pipeline_of(opened) as pipeline:
        for _ in range(2):
            pipeline.read_first(WINDOWS[:1])
            pipeline.forget(WINDOWS[0])
            pipeline.forget(WINDOWS[3])
    assert pages_of(odd_results, WINDOWS[0]) == [1, 1]


def test_windows_are_stored_one_after_the_other(opened: OpenedReader) -> None:
    """The caller goes on while one is stored, and waits for it before the next one."""
    stored: list[str] = []
    may_end = threading.Event()

    def store_slowly() -> None:
        may_end.wait(30)
        stored.append("first")

    with pipeline_of(opened) as pipeline:
        pipeline.store(store_slowly)
        assert stored == []
        may_end.set()
        pipeline.store(lambda: stored.append("second"))
        assert stored[0] == "first"
        pipeline.wait_until_stored()
        assert stored == ["first", "second"]
        pipeline.store(lambda: stored.append("third"))
    assert stored == ["first", "second", "third"]


def refuse() -> None:
    """Fail to store a window."""
    raise ValueError("refused")


def store_another(pipeline: WindowPipeline) -> None:
    """Store a window behind the one that fails."""
    pipeline.store(lambda: None)


@pytest.mark.parametrize("then", [store_another, WindowPipeline.wait_until_stored, lambda _: None])
def test_a_window_that_was_not_stored_ends_the_poll(
    opened: OpenedReader, then: Callable[[WindowPipeline], Any]
) -> None:
    """Before the next one is stored, or at the end, so that the watermark leaves no gap."""

    def poll() -> None:
        with pipeline_of(opened) as pipeline:
            pipeline.store(refuse)
            then(pipeline)

    with pytest.raises(ValueError, match="refused"):
        poll()


def test_a_window_is_stored_though_the_next_one_fails(opened: OpenedReader) -> None:
    """What was read is kept."""
    stored: list[str] = []
    may_end = threading.Event()

    def store_slowly() -> None:
        may_end.wait(0.2)
        stored.append("first")

    def poll() -> None:
        with pipeline_of(opened) as pipeline:
            pipeline.store(store_slowly)
            raise KeyError

    with pytest.raises(KeyError):
        poll()
    assert stored == ["first"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_a_read_that_is_not_wanted_any_more_is_dropped(
    opened: OpenedReader, odd_results: QuirkyApi, error: BaseException
) -> None:
    """The end of a poll sends no more than what is under way, and waits for no pause."""
    may_answer = threading.Event()

    def answer(query: Query) -> dict[str, Any]:
        if query.page > 1:
            may_answer.wait(30)
        return build_page(odd_results.rows, query)

    odd_results.answer = answer
    empty, everything = window_of(50, 50), window_of(0, 39)

    def poll() -> None:
        with pipeline_of(opened) as pipeline:
            pipeline.read_first([empty, everything])
            pipeline.read_whole([empty, everything])
            wait_until(lambda: len(pages_of(odd_results, everything)) == 5, "pages are not read")
            threading.Timer(0.3, may_answer.set).start()
            raise error

    with pytest.raises(type(error)):
        poll()
    assert len(pages_of(odd_results, everything)) == 5


def test_a_stopped_poll_waits_for_no_pause_of_the_vendor(
    opened: OpenedReader, odd_results: QuirkyApi
) -> None:
    """Ctrl-C ends a run while the next request has to wait for an hour."""
    empty, everything = window_of(50, 50), window_of(0, 39)

    def poll() -> None:
        with pipeline_of(opened) as pipeline:
            pipeline.read_first([empty, everything])
            pipeline.read_first([everything])
            opened.run.context.limiter.pause(3600)
            pipeline.read_whole([empty, everything])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        poll()
    assert len(pages_of(odd_results, everything)) <= 5
