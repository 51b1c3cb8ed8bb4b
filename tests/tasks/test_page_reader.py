"""Pages of a window: retried, divided, learned from."""

from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from db.database import Database
from leadloop.client.errors import Fatal, RateLimited, Retryable
from leadloop.core.errors import RunError
from tasks import outages
from tasks.page_reader import PageReader, PageSizeChanged, PageUnavailable
from tests.quirky_api import Query, QuirkyApi, build_page, run_quirky_api
from tests.window_readers import (
    OpenedReader,
    build_rows,
    fail_first,
    fail_on,
    numbers_of,
    open_reader,
    show,
    sizes_of,
    window_of,
)


@pytest.fixture
def pages(opened_reader: OpenedReader) -> PageReader:
    """The reader of pages alone."""
    return opened_reader.pages


@pytest.mark.parametrize("statuses", [[500, 500], [503, 502], [400, 400]])
def test_noise_is_no_fault_of_a_page(
    odd_results: QuirkyApi, opened_reader: OpenedReader, statuses: list[int]
) -> None:
    """A page that fails twice and then does not is read, as one request."""
    show(odd_results, 3, fail_first(statuses))
    page = opened_reader.pages.fetch_page(window_of(0, 2), 1, 10)
    assert (numbers_of(page), page.count, page.missing, page.answers) == ([0, 1, 2], 3, (), 1)
    assert sizes_of(odd_results) == [10] * 3
    assert opened_reader.counters.counts() == {"pages": 1}


@pytest.mark.parametrize(
    ("status", "is_refused"), [(500, False), (502, False), (403, False), (400, True), (413, True)]
)
def test_a_page_that_fails_although_others_do_not(
    odd_results: QuirkyApi, opened_reader: OpenedReader, status: int, is_refused: bool
) -> None:
    """It cannot be read: three failures, and an answer to another request, show it."""
    show(odd_results, 30, fail_on({12}, status))
    with pytest.raises(PageUnavailable) as failure:
        opened_reader.pages.fetch_page(window_of(0, 29), 2, 10)
    error = failure.value
    assert (error.number, error.reason, error.is_refused) == (2, f"HTTP {status}", is_refused)
    assert sizes_of(odd_results) == [10] * 3
    assert len(odd_results.queries) == 4, (
        "one listing of the campaign, which showed that others succeed"
    )
    opened_reader.pages.fetch_page(window_of(0, 29), 1, 10)
    assert opened_reader.counters.counts() == {"pages": 1}


def test_an_outage_makes_no_page_unavailable(odd_results: QuirkyApi, pages: PageReader) -> None:
    """What failed in an outage is read once it is over, however often it failed."""
    odd_results.rows = build_rows(3)
    requests = count()
    odd_results.answer = lambda query: (
        500 if next(requests) < 11 else build_page(odd_results.rows, query)
    )
    assert numbers_of(pages.fetch_page(window_of(0, 2), 1, 10)) == [0, 1, 2]


def test_an_outage_that_goes_on_ends_the_read(
    odd_results: QuirkyApi, pages: PageReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the vendor's address, and with no page accused."""
    monkeypatch.setattr(outages, "OUTAGE_S", 0.05)
    odd_results.answer = lambda _: 500
    with pytest.raises(RunError, match=f"{odd_results.url} has answered no request"):
        pages.fetch_page(window_of(0, 2), 1, 10)


@pytest.mark.parametrize("status", [429, 503])
def test_a_page_that_asks_for_a_pause_although_others_do_not(
    odd_results: QuirkyApi, opened_reader: OpenedReader, status: int
) -> None:
    """It cannot be read either; an answer after the pauses, and not one before them, shows it."""
    odd_results.retry_after_s = 0
    show(odd_results, 30, fail_on({12}, status))
    opened_reader.watch.record_success()
    with pytest.raises(PageUnavailable, match=f"HTTP {status}"):
        opened_reader.pages.fetch_page(window_of(0, 29), 2, 10)
    assert [query.before for query in odd_results.queries].count(0) == 1


@pytest.mark.parametrize("retry_after_s", [None, 0])
def test_a_vendor_that_only_asks_for_pauses_makes_no_page_unavailable(
    odd_results: QuirkyApi, opened_reader: OpenedReader, retry_after_s: int | None
) -> None:
    """The rate limit is raised as it is, though the vendor has answered of late."""
    odd_results.retry_after_s = retry_after_s
    odd_results.answer = lambda _: 429
    opened_reader.watch.record_success()
    with pytest.raises(RateLimited):
        opened_reader.pages.read_page(window_of(0, 2), 1, 10)


def test_a_failure_that_no_page_can_be_the_reason_of(
    odd_results: QuirkyApi, pages: PageReader
) -> None:
    """A login that is not accepted is raised as it is."""
    show(odd_results, 3, lambda *_: 401)
    with pytest.raises(Fatal):
        pages.read_page(window_of(0, 2), 1, 10)
    assert set(sizes_of(odd_results)) == {10}


def test_a_vendor_that_is_gone_makes_no_page_unavailable(
    environment: None,
    quick_retries: None,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a connection nothing was sent, though the vendor has answered of late."""
    with run_quirky_api() as gone:
        monkeypatch.setenv("LEADLOOP_API_URL", gone.url)
    with open_reader(database) as opened:
        opened.watch.record_success()
        with pytest.raises(Retryable, match="no connection"):
            opened.pages.read_page(window_of(0, 2), 1, 10)


_HTTP = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_HTTP
# The last row: it shows no count, and its part of the page holds no other row.
@example(size=4, amount=3, number=1, bad=2, status=500)
# The last row of a page that has a next one.
@example(size=2, amount=6, number=1, bad=1, status=500)
@given(
    size=st.sampled_from([2, 3, 4, 6, 8, 12]),
    amount=st.integers(1, 30),
    number=st.integers(1, 5),
    bad=st.integers(0, 29),
    status=st.sampled_from([500, 400]),
)
def test_a_page_is_read_in_parts_but_for_the_row_that_cannot_be_read(
    odd_results: QuirkyApi,
    opened_reader: OpenedReader,
    size: int,
    amount: int,
    number: int,
    bad: int,
    status: int,
) -> None:
    """All other rows in their order, and the offset of the missing one in the whole window."""
    show(odd_results, amount, fail_on({bad}, status))
    odd_results.queries.clear()
    offsets = range((number - 1) * size, min(number * size, amount))
    assume(list(offsets) != [bad])
    page = opened_reader.pages.read_page(window_of(0, amount - 1), number, size)
    assert numbers_of(page) == [at for at in offsets if at != bad]
    assert list(page.missing) == [at for at in offsets if at == bad]
    assert page.failure == (f"HTTP {status}" if page.missing else "")
    assert page.has_next == (amount > number * size)
    assert page.row_count == len(offsets)
    # A row that cannot be read is no contrast: pages stay as they are.
    assert opened_reader.limits.page_size == 100
    assert opened_reader.limits.take_changes() == {}
    assert (page.answers == 1) == (bad not in offsets)


def test_a_page_of_a_large_prime_size_is_not_divided(
    odd_results: QuirkyApi, pages: PageReader
) -> None:
    """Its parts would have to be single rows, each a request."""
    show(odd_results, 20, fail_on({3}))
    with pytest.raises(PageUnavailable):
        pages.read_page(window_of(0, 19), 1, 17)
    assert set(sizes_of(odd_results)) == {17}


def test_a_page_of_which_no_part_can_be_read(odd_results: QuirkyApi, pages: PageReader) -> None:
    """It costs its parts once, and no more."""
    show(odd_results, 20, fail_on(set(range(20))))
    with pytest.raises(PageUnavailable) as failure:
        pages.read_page(window_of(0, 19), 2, 8)
    assert failure.value.number == 2
    assert sizes_of(odd_results) == [8] * 3 + [4] * 6


@pytest.mark.parametrize(("last", "singles"), [(9, 4), (0, 5)])
def test_rows_that_fail_in_a_row_only_show_where_to_cut_a_window(
    odd_results: QuirkyApi, pages: PageReader, last: int, singles: int
) -> None:
    """After three, the others count as missing, unless the window is too short to be cut."""
    first, *_ = rows = build_rows(5)
    odd_results.rows = [{**row, "processed_at": first["processed_at"]} for row in rows]
    odd_results.answer = lambda query: (
        500 if query.size > 1 or query.page > 1 else build_page(odd_results.rows, query)
    )
    page = pages.read_page(window_of(0, last), 1, 5)
    assert (numbers_of(page), list(page.missing)) == ([0], [1, 2, 3, 4])
    assert len({query.page for query in odd_results.queries if query.size == 1}) == singles


def test_a_vendor_that_ignores_the_size_is_not_read_in_parts(
    odd_results: QuirkyApi, pages: PageReader
) -> None:
    """Parts that are larger than asked for would show rows twice, or none where some are."""
    odd_results.rows = build_rows(8)

    def answer(query: Query) -> dict[str, Any] | int:
        return (
            500
            if query.size == 8
            else build_page(odd_results.rows, Query(**{**vars(query), "size": 8}))
        )

    odd_results.answer = answer
    with pytest.raises(PageUnavailable):
        pages.read_page(window_of(0, 7), 1, 8)
    assert set(sizes_of(odd_results)) == {8, 4}


def test_rows_that_move_between_the_parts_make_no_page(
    odd_results: QuirkyApi, pages: PageReader
) -> None:
    """Parts with different counts show different moments."""

    def answer(query: Query) -> dict[str, Any] | int:
        page = build_page(odd_results.rows, query)
        return 500 if query.size == 8 else {**page, "count": page["count"] + query.page}

    odd_results.rows, odd_results.answer = build_rows(8), answer
    with pytest.raises(PageUnavailable):
        pages.read_page(window_of(0, 7), 1, 8)


def test_a_size_is_given_up_after_three_contrasts(
    odd_results: QuirkyApi, opened_reader: OpenedReader
) -> None:
    """Each such page is read whole; pages of that size are not asked for any more."""
    show(odd_results, 40, lambda query, _: 500 if query.size == 8 else None)
    for number in (1, 2, 3):
        assert opened_reader.limits.page_size == 100
        opened_reader.limits.apply_page_size(8)
        page = opened_reader.pages.read_page(window_of(0, 39), number, 8)
        assert numbers_of(page) == list(range((number - 1) * 8, number * 8))
        assert page.missing == []
        opened_reader.limits.apply_page_size(100)
    assert opened_reader.limits.page_size == 4
    assert opened_reader.limits.take_changes() == {"page_contrasts": None, "page_size": 4}
    asked = len(odd_results.queries)
    with pytest.raises(PageSizeChanged):
        opened_reader.pages.read_page(window_of(0, 39), 4, 8)
    assert len(odd_results.queries) == asked


def test_a_size_that_succeeds_at_last_is_kept(
    odd_results: QuirkyApi, opened_reader: OpenedReader
) -> None:
    """Three contrasts by chance: the last page is tried once more before its size is given up."""
    chance = fail_first([500] * 9)
    show(odd_results, 40, lambda query, shown: chance(query, shown) if query.size == 8 else None)
    opened_reader.limits.apply_page_size(8)
    for number in (1, 2, 3):
        page = opened_reader.pages.read_page(window_of(0, 39), number, 8)
        assert numbers_of(page) == list(range((number - 1) * 8, number * 8))
    assert opened_reader.limits.page_size == 8
    assert opened_reader.limits.take_changes() == {"page_contrasts": None}


def test_an_empty_page_that_fails_by_chance(odd_results: QuirkyApi, pages: PageReader) -> None:
    """One smaller answer shows that there is nothing to read."""
    chance = fail_first([500] * 3)
    show(odd_results, 4, lambda query, shown: chance(query, shown) if query.size == 8 else None)
    page = pages.read_page(window_of(20, 30), 1, 8)
    assert page.is_empty
    assert not page.has_next


def test_a_page_of_one_row_that_cannot_be_read(odd_results: QuirkyApi, pages: PageReader) -> None:
    """Nothing of it is shown, not even how many rows there are."""
    show(odd_results, 9, fail_on({8}))
    with pytest.raises(PageUnavailable) as failure:
        pages.read_page(window_of(0, 8), 3, 4)
    assert failure.value.number == 3


def test_a_failure_by_chance_within_a_page_that_is_refused(
    odd_results: QuirkyApi, opened_reader: OpenedReader
) -> None:
    """The size that is refused is given up, and none below it for a failure that is no refusal."""
    chance = fail_first([500] * 3)

    def fails(query: Query, shown: set[int]) -> int | None:
        if query.size == 8:
            return 413
        return chance(query, shown) if query.page == 2 else None

    show(odd_results, 8, fails)
    opened_reader.limits.apply_page_size(8)
    page = opened_reader.pages.read_page(window_of(0, 7), 1, 8)
    assert numbers_of(page) == list(range(8))
    assert opened_reader.limits.page_size == 4
