"""Windows that are read row by row; tests of polls drive the rest of the reader."""

from dataclasses import replace
from typing import Any

import pytest

from tasks.page_reader import PageUnavailable
from tasks.window_reader import WindowReader
from tests.quirky_api import Query, QuirkyApi, build_page
from tests.window_readers import (
    OpenedReader,
    build_rows,
    fail_on,
    read_rows_alone,
    show,
    sizes_of,
    window_of,
)


@pytest.fixture
def reader(opened_reader: OpenedReader) -> WindowReader:
    """The reader alone."""
    return opened_reader.reader


def test_rows_alone_are_read_beside_those_that_cannot_be_read(
    odd_results: QuirkyApi, reader: WindowReader
) -> None:
    """They are stored, and the window is owed for the missing ones."""
    show(odd_results, 6, fail_on({0, 3, 4}))
    reading = read_rows_alone(reader, window_of(0, 5))
    assert {lead_id for lead_id, _ in reading.seen} == {"L1", "L2", "L5"}
    assert (reading.missing, reading.failure) == ([0, 3, 4], "HTTP 500")
    assert reading.reported_count == 6
    assert not reading.complete
    assert not reading.may_be_split
    assert set(sizes_of(odd_results)) == {1}


def test_rows_alone_are_complete_if_all_of_them_can_be_read(
    odd_results: QuirkyApi, reader: WindowReader
) -> None:
    """What failed before may not fail any more."""
    odd_results.rows = build_rows(4)
    reading = read_rows_alone(reader, window_of(0, 3))
    assert reading.complete
    assert len(reading.outcomes) == 4
    assert sizes_of(odd_results) == [1, 1, 1, 1, 5]


def test_rows_that_move_while_they_are_read_alone(
    odd_results: QuirkyApi, reader: WindowReader
) -> None:
    """A row leaves and another comes: L1 is not shown, but by one answer to end with."""
    rows = build_rows(4)
    odd_results.rows = rows[:3]

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd_results.rows, query)
        odd_results.rows = rows[1:]
        return page

    odd_results.answer = answer
    reading = read_rows_alone(reader, window_of(0, 3))
    assert [lead_id for lead_id, _ in reading.seen] == ["L1", "L2", "L3"]
    assert reading.complete


@pytest.mark.parametrize("moves", [False, True])
def test_rows_alone_that_no_one_page_shows(
    odd_results: QuirkyApi, reader: WindowReader, moves: bool
) -> None:
    """They are verified as those of several pages are: nothing moved, so they are complete."""
    rows = build_rows(4)
    odd_results.rows = list(rows)

    def answer(query: Query) -> dict[str, Any] | int:
        if query.size > 1:
            if moves and odd_results.rows == rows:
                odd_results.rows.append(odd_results.rows.pop(0))
            return 500
        return build_page(odd_results.rows, query)

    odd_results.answer = answer
    reading = read_rows_alone(reader, window_of(0, 3))
    assert len(reading.outcomes) == 4
    assert reading.complete == (not moves)


def test_rows_alone_of_which_the_first_cannot_be_read(
    odd_results: QuirkyApi, reader: WindowReader
) -> None:
    """Ten rows alone show that none can be read; once many have failed in a poll, three do."""
    show(odd_results, 50, fail_on(set(range(50))))
    for tried in (10, 3):
        odd_results.queries.clear()
        with pytest.raises(PageUnavailable):
            read_rows_alone(reader, window_of(0, 49))
        assert len(sizes_of(odd_results)) == 3 * tried


def test_rows_alone_end_where_too_many_are_missing(
    odd_results: QuirkyApi, reader: WindowReader
) -> None:
    """Each costs three requests, and an instant may hold thousands."""
    show(odd_results, 100, fail_on(set(range(1, 100))))
    reading = read_rows_alone(reader, window_of(0, 99))
    assert len(reading.seen) == 1
    assert not reading.complete
    assert len(sizes_of(odd_results)) < 70


def test_rows_alone_end_at_the_count(odd_results: QuirkyApi, reader: WindowReader) -> None:
    """Where the last row cannot be read, no row behind it is asked for."""
    show(odd_results, 3, lambda query, _: 400 if query.page > 1 else None)
    reading = read_rows_alone(reader, window_of(0, 2))
    assert (len(reading.seen), reading.missing) == (1, [1, 2])
    assert len(sizes_of(odd_results)) == 1 + 2 * 3


def test_no_rows_are_read_of_a_window_that_is_empty_by_now(
    odd_results: QuirkyApi, reader: WindowReader
) -> None:
    """It failed by chance, and holds nothing: it is complete."""
    reading = read_rows_alone(reader, window_of(0, 3))
    assert reading.complete
    assert (reading.seen, reading.reported_count) == ({}, 0)


@pytest.mark.parametrize(("next_page", "complete"), [(None, True), ("http://x/", False)])
def test_a_vendor_that_shows_more_rows_than_one(
    odd_results: QuirkyApi, reader: WindowReader, next_page: str | None, complete: bool
) -> None:
    """All that it shows is kept; the window is complete only if that page holds it as a whole."""
    odd_results.rows = build_rows(3)

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd_results.rows, Query(**{**vars(query), "page": 1, "size": 3}))
        return {**page, "next": next_page}

    odd_results.answer = answer
    reading = read_rows_alone(reader, window_of(0, 2))
    assert len(reading.outcomes) == 3
    assert reading.complete == complete


def test_rows_alone_end_where_the_vendor_ignores_the_page(
    odd_results: QuirkyApi, opened_reader: OpenedReader
) -> None:
    """It shows the same row for each number, and names a next one indefinitely."""
    odd_results.rows = build_rows(1)
    odd_results.answer = lambda query: {
        **build_page(odd_results.rows, replace(query, page=1)),
        "next": "http://x/",
    }
    reading = read_rows_alone(opened_reader.reader, window_of(0, 2))
    assert (len(reading.seen), reading.complete) == (1, False)
    assert len(odd_results.queries) < 5
