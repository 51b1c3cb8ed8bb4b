"""Windows that are read row by row; tests of polls drive the rest of the reader."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from db.database import Database
from tasks.page_reader import PageUnavailable
from tasks.window_reader import WindowReader
from tests.quirky_api import Query, QuirkyApi, build_page
from tests.window_readers import (
    OpenedReader,
    build_rows,
    fail_on,
    open_reader,
    read_rows_alone,
    serve_results,
    show,
    sizes_of,
    window_of,
)


@pytest.fixture
def odd(
    environment: None, quick_retries: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QuirkyApi]:
    """An odd vendor in place of the sandbox."""
    with serve_results(monkeypatch, 0) as vendor:
        yield vendor


@pytest.fixture
def opened(odd: QuirkyApi, database: Database) -> Iterator[OpenedReader]:
    """A reader of that vendor's pages."""
    with open_reader(database) as reader:
        yield reader


@pytest.fixture
def reader(opened: OpenedReader) -> WindowReader:
    """The reader alone."""
    return opened.reader


def test_rows_alone_are_read_beside_those_that_cannot_be_read(
    odd: QuirkyApi, reader: WindowReader
) -> None:
    """They are stored, and the window is owed for the missing ones."""
    show(odd, 6, fail_on({0, 3, 4}))
    reading = read_rows_alone(reader, window_of(0, 5))
    assert {lead_id for lead_id, _ in reading.seen} == {"L1", "L2", "L5"}
    assert (reading.missing, reading.failure) == ([0, 3, 4], "HTTP 500")
    assert reading.reported_count == 6
    assert not reading.complete
    assert not reading.may_be_split
    assert set(sizes_of(odd)) == {1}


def test_rows_alone_are_complete_if_all_of_them_can_be_read(
    odd: QuirkyApi, reader: WindowReader
) -> None:
    """What failed before may not fail any more."""
    odd.rows = build_rows(4)
    reading = read_rows_alone(reader, window_of(0, 3))
    assert reading.complete
    assert len(reading.outcomes) == 4
    assert sizes_of(odd) == [1, 1, 1, 1, 5]


def test_rows_that_move_while_they_are_read_alone(odd: QuirkyApi, reader: WindowReader) -> None:
    """A row leaves and another comes: L1 is not shown, but by one answer to end with."""
    rows = build_rows(4)
    odd.rows = rows[:3]

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        odd.rows = rows[1:]
        return page

    odd.answer = answer
    reading = read_rows_alone(reader, window_of(0, 3))
    assert [lead_id for lead_id, _ in reading.seen] == ["L1", "L2", "L3"]
    assert reading.complete


@pytest.mark.parametrize("moves", [False, True])
def test_rows_alone_that_no_one_page_shows(
    odd: QuirkyApi, reader: WindowReader, moves: bool
) -> None:
    """They are verified as those of several pages are: nothing moved, so they are complete."""
    rows = build_rows(4)
    odd.rows = list(rows)

    def answer(query: Query) -> dict[str, Any] | int:
        if query.size > 1:
            if moves and odd.rows == rows:
                odd.rows.append(odd.rows.pop(0))
            return 500
        return build_page(odd.rows, query)

    odd.answer = answer
    reading = read_rows_alone(reader, window_of(0, 3))
    assert len(reading.outcomes) == 4
    assert reading.complete == (not moves)


def test_rows_alone_of_which_the_first_cannot_be_read(odd: QuirkyApi, reader: WindowReader) -> None:
    """Ten rows alone show that none can be read; once many have failed in a poll, three do."""
    show(odd, 50, fail_on(set(range(50))))
    for tried in (10, 3):
        odd.queries.clear()
        with pytest.raises(PageUnavailable):
            read_rows_alone(reader, window_of(0, 49))
        assert len(sizes_of(odd)) == 3 * tried


def test_rows_alone_end_where_too_many_are_missing(odd: QuirkyApi, reader: WindowReader) -> None:
    """Each costs three requests, and an instant may hold thousands."""
    show(odd, 100, fail_on(set(range(1, 100))))
    reading = read_rows_alone(reader, window_of(0, 99))
    assert len(reading.seen) == 1
    assert not reading.complete
    assert len(sizes_of(odd)) < 70


def test_rows_alone_end_at_the_count(odd: QuirkyApi, reader: WindowReader) -> None:
    """Where the last row cannot be read, no row behind it is asked for."""
    show(odd, 3, lambda query, _: 400 if query.page > 1 else None)
    reading = read_rows_alone(reader, window_of(0, 2))
    assert (len(reading.seen), reading.missing) == (1, [1, 2])
    assert len(sizes_of(odd)) == 1 + 2 * 3


def test_no_rows_are_read_of_a_window_that_is_empty_by_now(
    odd: QuirkyApi, reader: WindowReader
) -> None:
    """It failed by chance, and holds nothing: it is complete."""
    reading = read_rows_alone(reader, window_of(0, 3))
    assert reading.complete
    assert (reading.seen, reading.reported_count) == ({}, 0)


@pytest.mark.parametrize(("next_page", "complete"), [(None, True), ("http://x/", False)])
def test_a_vendor_that_shows_more_rows_than_one(
    odd: QuirkyApi, reader: WindowReader, next_page: str | None, complete: bool
) -> None:
    """All that it shows is kept; the window is complete only if that page holds it as a whole."""
    odd.rows = build_rows(3)

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, Query(**{**vars(query), "page": 1, "size": 3}))
        return {**page, "next": next_page}

    odd.answer = answer
    reading = read_rows_alone(reader, window_of(0, 2))
    assert len(reading.outcomes) == 3
    assert reading.complete == complete


def test_rows_alone_end_where_the_vendor_ignores_the_page(
    odd: QuirkyApi, opened: OpenedReader
) -> None:
    """It shows the same row for each number, and names a next one indefinitely."""
    odd.rows = build_rows(1)
    odd.answer = lambda query: {**build_page(odd.rows, replace(query, page=1)), "next": "http://x/"}
    reading = read_rows_alone(opened.reader, window_of(0, 2))
    assert (len(reading.seen), reading.complete) == (1, False)
    assert len(odd.queries) < 5
