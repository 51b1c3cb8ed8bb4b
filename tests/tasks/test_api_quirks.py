"""What a poll checks once of the vendor: clocks, bounds and their unit."""

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from leadloop.core.errors import RunError
from leadloop.core.timestamps import to_epoch_ms
from leadloop.core.windows import split_window
from tasks.api_quirks import ApiQuirks
from tests.quirky_api import Query, QuirkyApi, build_page
from tests.window_readers import (
    START,
    OpenedReader,
    read_rows_alone,
    window_of,
)

_HOUR = timedelta(hours=1)
WHOLE = window_of(0, 19)


@pytest.fixture
def result_count() -> int:
    """Count the vendor's results."""
    return 20


def quirks_of(opened_reader: OpenedReader, *, is_silent: bool = False) -> ApiQuirks:
    """Return the checks of a poll; a silent campaign has had leads for long, and no outcome."""
    since = START - timedelta(days=3) if is_silent else None
    return ApiQuirks(
        opened_reader.run, opened_reader.pages, now=START + _HOUR, no_outcome_since=since
    )


def ignore_bounds(odd_results: QuirkyApi) -> None:
    """Let the vendor show all that it has, whatever the bounds."""

    def answer(query: Query) -> dict[str, Any]:
        return build_page(odd_results.rows, replace(query, after=0, before=2**60))

    odd_results.answer = answer


def use_seconds(odd_results: QuirkyApi) -> None:
    """Let the vendor take bounds for seconds."""

    def answer(query: Query) -> dict[str, Any]:
        seconds = replace(query, after=query.after * 1000, before=query.before * 1000)
        return build_page(odd_results.rows, seconds)

    odd_results.answer = answer


def test_clocks_are_compared_once(
    opened_reader: OpenedReader, odd_results: QuirkyApi, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names both clocks, and a watermark that is ahead of them is kept as an error."""
    odd_results.ahead_s = -3600
    first = opened_reader.reader.read_first_page(WHOLE)
    quirks = quirks_of(opened_reader)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            quirks.compare_clocks(first, first.database_now)
    (warning,) = caplog.messages
    assert "the vendor's clock is at" in warning
    assert "C1" in warning
    assert quirks.watermark_ahead is not None
    assert "ahead of now" in quirks.watermark_ahead


def test_clocks_that_agree_are_not_mentioned(
    opened_reader: OpenedReader, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor a watermark that both have passed; without one there is nothing to compare."""
    first = opened_reader.reader.read_first_page(WHOLE)
    for watermark in (first.database_now - _HOUR, None):
        quirks = quirks_of(opened_reader)
        quirks.compare_clocks(first, watermark)
        assert quirks.watermark_ahead is None
    assert caplog.messages == []


def test_a_part_that_counts_as_much_as_the_whole_is_doubtful(
    opened_reader: OpenedReader, odd_results: QuirkyApi
) -> None:
    """The bounds may be ignored; a part that counts less, or has no parent, is as it should be."""
    quirks = quirks_of(opened_reader)
    parts = split_window(WHOLE, 2)
    first = opened_reader.reader.read_first_page(parts[0])
    assert not quirks.is_count_doubtful(parts[0], first)
    quirks.remember_parent(parts, 20)
    assert not quirks.is_count_doubtful(parts[0], first)
    whole = opened_reader.reader.read_first_page(WHOLE)
    assert quirks.is_count_doubtful(parts[0], whole)
    assert not quirks.is_count_doubtful(WHOLE, whole)


def test_a_vendor_that_ignores_the_bounds_ends_the_poll(
    opened_reader: OpenedReader, odd_results: QuirkyApi
) -> None:
    """No window of such a vendor can be verified."""
    ignore_bounds(odd_results)
    quirks = quirks_of(opened_reader)
    parts = split_window(WHOLE, 2)
    quirks.remember_parent(parts, 20)
    first = opened_reader.reader.read_first_page(parts[0])
    with pytest.raises(RunError, match=r"count \(20\) ignores processed_after"):
        quirks.require_bounds(parts[0], first)


@pytest.mark.parametrize("long_ago", ["empty", "refused", "0 is not given"])
def test_bounds_that_are_respected_are_checked_once(
    opened_reader: OpenedReader, odd_results: QuirkyApi, long_ago: str
) -> None:
    """All results may lie in one part. A vendor that refuses bounds of long ago reads them."""

    def answer(query: Query) -> dict[str, Any] | int:
        if long_ago == "refused" and query.before < to_epoch_ms(START) // 2:
            return 400
        if long_ago == "0 is not given" and not query.after:
            return build_page(odd_results.rows, replace(query, before=10**15))
        return build_page(odd_results.rows, query)

    odd_results.answer = answer
    parts = [replace(WHOLE, after=WHOLE.after - _HOUR, before=WHOLE.after), WHOLE]
    quirks = quirks_of(opened_reader)
    quirks.remember_parent(parts, 20)
    first = opened_reader.reader.read_first_page(WHOLE)
    quirks.require_bounds(WHOLE, first)
    asked = len(odd_results.queries)
    assert asked > 1
    quirks.require_bounds(WHOLE, first)
    assert not quirks.is_count_doubtful(WHOLE, first)
    assert len(odd_results.queries) == asked


def test_the_wrong_unit_of_the_bounds_ends_the_poll(
    opened_reader: OpenedReader, odd_results: QuirkyApi
) -> None:
    """The campaign has no outcome, and with the other unit the vendor counts some."""
    use_seconds(odd_results)
    reading = read_rows_alone(opened_reader.reader, WHOLE)
    with pytest.raises(RunError, match=r"counts 20 if the bounds are sent in s .* to s[,;]"):
        quirks_of(opened_reader, is_silent=True).require_unit(reading)


@pytest.mark.parametrize("refused", [None, 400, 500])
def test_a_campaign_without_outcomes_is_checked_once(
    opened_reader: OpenedReader, odd_results: QuirkyApi, refused: int | None
) -> None:
    """The other unit is thousands of years off: a vendor that refuses it has the right one."""
    odd_results.rows.clear()
    reading = read_rows_alone(opened_reader.reader, WHOLE)
    odd_results.answer = lambda query: refused or build_page(odd_results.rows, query)
    quirks = quirks_of(opened_reader, is_silent=True)
    asked = len(odd_results.queries)
    quirks.require_unit(reading)
    assert len(odd_results.queries) > asked
    asked = len(odd_results.queries)
    quirks.require_unit(reading)
    assert len(odd_results.queries) == asked


def test_the_unit_is_not_doubted_where_outcomes_come(
    opened_reader: OpenedReader, odd_results: QuirkyApi
) -> None:
    """Neither in a read that brought some, nor in a campaign that has had some or is new."""
    use_seconds(odd_results)
    empty = read_rows_alone(opened_reader.reader, WHOLE)
    odd_results.answer = lambda query: build_page(odd_results.rows, query)
    full = read_rows_alone(opened_reader.reader, WHOLE)
    use_seconds(odd_results)
    asked = len(odd_results.queries)
    quirks_of(opened_reader, is_silent=True).require_unit(full)
    quirks_of(opened_reader).require_unit(empty)
    assert len(odd_results.queries) == asked
