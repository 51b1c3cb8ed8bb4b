"""No window is proven that hides a row, and no vendor keeps a poll busy without an end."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from db.database import Database
from leadloop.core.timestamps import to_epoch_ms
from tasks.jobs import CampaignsFailed
from tests import sql
from tests.jobs import backfill_outcomes, poll_outcomes
from tests.quirky_api import Query, QuirkyApi, build_page
from tests.tasks.test_poll_progress import add_results, fail_on, make_due
from tests.tasks.test_poll_quirky_api import MINUTE, now, result

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

Reply = dict[str, Any] | bytes | int

_OWED = "SELECT count(*) FROM leadloop.owed_windows"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for ten rows a page, one page at a time."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "10")
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")


def count_page(rows: list[dict[str, Any]], query: Query) -> Reply:
    """Answer as a vendor whose count is that of the page; 404 beyond the last page."""
    page = build_page(rows, query)
    if not page["results"] and query.page > 1:
        return 404
    has_more = page["count"] > query.page * query.size
    count = len(page["results"])
    return {"count": count, "results": page["results"], "next": "http://x/" if has_more else None}


def backfill(minutes_ago: float = 1 / 6) -> None:
    """Backfill the half hour before some minutes ago, as far as it can be read."""
    with suppress(CampaignsFailed):
        backfill_outcomes(after=now() - 30 * MINUTE, before=now() - minutes_ago * MINUTE)


# Rows that move.


def test_a_row_that_leaves_before_the_second_page(odd: QuirkyApi, database: Database) -> None:
    """It pulls the only row of page 2 to page 1, which was read before."""
    add_results(odd, 11, minutes=20)

    def answer(query: Query) -> Reply:
        if query.page == 2 and odd.rows[3]["lead_id"] == "L3":
            odd.rows.append({**odd.rows.pop(3), "processed_at": to_epoch_ms(now())})
        return count_page(odd.rows, query)

    odd.answer = answer
    backfill()
    assert "L10" in sql.fetch_outcomes(database)


def test_a_stray_404_is_no_end(odd: QuirkyApi, database: Database) -> None:
    """The first page names a next one, so one look at it is not enough."""
    add_results(odd, 25, minutes=20)
    failed: list[Query] = []

    def answer(query: Query) -> Reply:
        if query.page == 2 and not failed:
            failed.append(query)
            return 404
        return count_page(odd.rows, query)

    odd.answer = answer
    backfill()
    assert len(sql.fetch_outcomes(database)) == 25


@pytest.mark.parametrize(("date_ahead_s", "processed_ahead_s"), [(0, 0), (600, 0), (0, 30)])
def test_a_row_that_leaves_as_another_comes(
    odd: QuirkyApi, database: Database, date_ahead_s: int, processed_ahead_s: int
) -> None:
    """The count stays, so only the lead's new time shows it: whichever clock is ahead."""
    odd.ahead_s = date_ahead_s
    add_results(odd, 40, minutes=20)
    before = now() - MINUTE / 6

    def answer(query: Query) -> Reply:
        if query.page == 3 and odd.rows[15]["lead_id"] == "L15":
            odd.rows.append(result("N", before - timedelta(seconds=1)))
            at = now() + timedelta(seconds=processed_ahead_s)
            odd.rows.append({**odd.rows.pop(15), "processed_at": to_epoch_ms(at)})
        return build_page(odd.rows, query)

    odd.answer = answer
    with suppress(CampaignsFailed):
        backfill_outcomes(after=now() - 30 * MINUTE, before=before)
    assert "L20" in sql.fetch_outcomes(database)


# Vendors that never end.


def until(odd: QuirkyApi, limit: int, answer: Callable[[Query], Reply]) -> None:
    """Answer so until a number of requests, and then as a vendor should, so that a test ends."""
    odd.answer = lambda query: (
        answer(query) if len(odd.queries) <= limit else build_page(odd.rows, query)
    )


@pytest.mark.parametrize("counts_page", [False, True])
def test_a_vendor_that_shows_its_last_page_again_and_again(
    odd: QuirkyApi, counts_page: bool
) -> None:
    """Beyond it, each page names a next one: neither a read nor its verification follows."""
    add_results(odd, 25, minutes=20)
    odd.rows.append(result("fresh", now() + timedelta(seconds=1)))

    def answer(query: Query) -> Reply:
        last = max(1, -(-build_page(odd.rows, query)["count"] // query.size))
        page = build_page(odd.rows, replace(query, page=min(query.page, last)))
        count = len(page["results"]) if counts_page else page["count"]
        return {**page, "count": count, "next": "http://x/"}

    until(odd, 400, answer)
    backfill()
    assert len(odd.queries) < 100


@pytest.mark.parametrize("beyond", [404, 200])
def test_a_count_that_is_too_high_everywhere(odd: QuirkyApi, beyond: int) -> None:
    """It adds up nowhere, whatever the vendor answers beyond the last page."""
    add_results(odd, 60)

    def answer(query: Query) -> Reply:
        page = build_page(odd.rows, query)
        if query.page > 1 and not page["results"] and beyond == 404:
            return 404
        return {**page, "count": page["count"] + 1}

    until(odd, 1500, answer)
    with suppress(CampaignsFailed):
        poll_outcomes()
    assert len(odd.queries) < 200


def test_a_count_that_is_far_too_high_at_an_instant(odd: QuirkyApi, database: Database) -> None:
    """No page is requested behind an empty one, whatever the count."""
    add_results(odd, 20)
    at = odd.rows[9]["processed_at"]

    def answer(query: Query) -> Reply:
        page = build_page(odd.rows, query)
        return {**page, "count": page["count"] + 3000 * (query.after <= at <= query.before)}

    until(odd, 2500, answer)
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    assert len(odd.queries) < 1000
    assert len(sql.fetch_outcomes(database)) >= 19


def test_single_rows_that_are_repeated(odd: QuirkyApi) -> None:
    """The vendor ignores `page` and counts too many, at an instant that fails as a page."""
    add_results(odd, 20)
    at = odd.rows[9]["processed_at"]

    def answer(query: Query) -> Reply:
        page = build_page(odd.rows, replace(query, page=1))
        if query.after <= at <= query.before:
            if query.size > 1:
                return 500
            page["count"] += 400
        return page

    until(odd, 900, answer)
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    assert len(odd.queries) < 300


def test_rows_that_change_with_each_request(odd: QuirkyApi) -> None:
    """An instant whose pages always bring new rows is owed in the end."""
    add_results(odd, 20)
    at = odd.rows[9]["processed_at"]

    def answer(query: Query) -> Reply:
        page = build_page(odd.rows, replace(query, page=1))
        page["results"] = [
            {"trace": len(odd.queries)} if row["processed_at"] == at else row
            for row in page["results"]
        ]
        return {**page, "next": "http://x/"}

    until(odd, 6000, answer)
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    assert len(odd.queries) < 6000


# What is owed.


def test_an_owed_window_of_a_campaign_that_sent_nothing(odd: QuirkyApi, database: Database) -> None:
    """A backfill owes it, and polls try it, although they have nothing else to read."""
    sql.execute(database, "DELETE FROM leadloop.leads")
    add_results(odd, 40)
    odd.answer = fail_on(odd, "L7")
    with pytest.raises(CampaignsFailed):
        backfill_outcomes(after=now() - 150 * MINUTE, before=now())
    assert sql.fetch_value(database, _OWED) > 0
    poll_outcomes()
    assert sql.fetch_value(database, _OWED) > 0, "it was not due"
    make_due(database)
    odd.answer = lambda query: build_page(odd.rows, query)
    poll_outcomes()
    assert sql.fetch_value(database, _OWED) == 0
    assert len(sql.fetch_outcomes(database)) == 40
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.watermarks") == 0


def test_pages_before_a_refused_depth_are_kept(odd: QuirkyApi, database: Database) -> None:
    """An instant holds more pages than the vendor shows: what it shows is stored."""
    at = to_epoch_ms(now() - 30 * MINUTE)
    odd.rows += [{"lead_id": f"L{number}", "processed_at": at} for number in range(50)]
    odd.answer = lambda query: 400 if query.page > 3 else build_page(odd.rows, query)
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 30
    assert sql.fetch_value(database, _OWED) == 1


def test_a_repeated_row_on_a_page_that_is_read_in_parts(odd: QuirkyApi, database: Database) -> None:
    """The window is split, also if it is one page, made of several answers."""
    at = to_epoch_ms(now() - 30 * MINUTE)
    twin = {"lead_id": "twin", "processed_at": at}
    odd.rows += [twin, twin, {"lead_id": "L1", "processed_at": at - 240}]

    def answer(query: Query) -> Reply:
        page = build_page(odd.rows, query)
        if query.page > 3:
            return 400
        return 413 if len(page["results"]) > 1 else page

    until(odd, 2000, answer)
    with suppress(CampaignsFailed):
        poll_outcomes()
    assert len(odd.queries) < 1000
    assert set(sql.fetch_outcomes(database)) == {"twin", "L1"}


@pytest.mark.parametrize("refused", [413, 502])
def test_a_vendor_that_shows_one_row_in_an_answer(
    odd: QuirkyApi, database: Database, refused: int
) -> None:
    """Whatever page size is asked for: rows of one instant are proven, and the size is learned."""
    at = to_epoch_ms(now() - 10 * MINUTE)
    ages = [20, 36, 17, 36, 0, 23, 26, 10, 33, 3]
    odd.rows += [
        {"lead_id": f"L{number}", "processed_at": at - age * 1000}
        for number, age in enumerate(ages)
    ]

    def answer(query: Query) -> Reply:
        page = build_page(odd.rows, query)
        return refused if len(page["results"]) > 1 else page

    odd.answer = answer
    poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == len(ages)
    assert len(odd.queries) < 80
    odd.queries.clear()
    poll_outcomes()
    assert len(odd.queries) < 20
    assert sql.fetch_value(database, _OWED) == 0
