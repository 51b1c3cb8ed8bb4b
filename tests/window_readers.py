"""A window reader on a fake API over real HTTP, as a poll opens it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.database import Database
from leadloop.core.windows import Window
from leadloop.settings import Settings
from tasks.context import ApiContext, CampaignRun, open_api_context, start_run
from tasks.counters import Counters
from tasks.outages import OutageWatch
from tasks.page_limits import PageLimits
from tasks.page_reader import DatabaseClock, PageReader
from tasks.window_pages import ParsedPage, WindowRead
from tasks.window_reader import WindowReader
from tests import factories
from tests.jobs import HOST
from tests.quirky_api import Query, QuirkyApi, build_page, run_quirky_api

#: When the first result was processed.
START = datetime(2026, 3, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True)
class OpenedReader:
    """A reader, and what it works with."""

    reader: WindowReader
    pages: PageReader
    run: CampaignRun[ApiContext]
    limits: PageLimits
    counters: Counters
    watch: OutageWatch


@contextmanager
def serve_results(monkeypatch: pytest.MonkeyPatch, amount: int) -> Iterator[QuirkyApi]:
    """Serve the first results, at the address that the environment then names."""
    with run_quirky_api() as vendor:
        monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
        vendor.rows = build_rows(amount)
        yield vendor


@contextmanager
def open_reader(database: Database, *, page_size: int = 100) -> Iterator[OpenedReader]:
    """Open a reader for a new campaign, at the address in the environment."""
    factories.add_campaign(database)
    with open_api_context(Settings.load(), HOST) as context:
        (campaign,) = context.select_campaigns(None)
        run = start_run(context, "poll-outcomes", campaign)
        limits = PageLimits(page_size, {})
        counters = Counters("pages")
        watch = OutageWatch(
            lambda: context.api.list_all(campaign.campaign_id, page=1, page_size=1),
            context.limiter.sleep,
            context.settings.api_url,
            "LEADLOOP_API_URL",
        )
        clock = DatabaseClock(datetime.now(UTC))
        pages = PageReader(
            context.api,
            run,
            clock,
            counters,
            watch=watch,
            limits=limits,
            concurrency=context.settings.read_concurrency,
        )
        reader = WindowReader(pages, run, clock, limits)
        yield OpenedReader(
            reader=reader, pages=pages, run=run, limits=limits, counters=counters, watch=watch
        )


def read_rows_alone(reader: WindowReader, window: Window) -> WindowRead:
    """Read a window row by row, with a pool of its own."""
    with ThreadPoolExecutor(1) as pool:
        return reader.read_rows_alone(pool, window)


def build_rows(amount: int, *, first: int = 0) -> list[dict[str, Any]]:
    """Return results of leads L0, L1, …, a second apart from START on."""
    start = round(START.timestamp() * 1000)
    return [
        {"lead_id": f"L{number}", "processed_at": start + number * 1000}
        for number in range(first, first + amount)
    ]


def window_of(first: int, last: int) -> Window:
    """Return the window from one of these results to another; its bounds show no others."""
    second = timedelta(seconds=1)
    return Window(after=START + first * second - _MS, before=START + last * second + _MS)


def answer_pages(
    rows: list[dict[str, Any]], fails: Callable[[Query, set[int]], int | None]
) -> Callable[[Query], dict[str, Any] | int]:
    """Return an answer that links pages, and fails with a status where `fails` returns one.

    Args:
        rows: the results.
        fails: is given the query and the numbers of the page's leads. Listings of the whole
            campaign never fail.
    """

    def answer(query: Query) -> dict[str, Any] | int:
        if query.before == 0:
            return build_page(rows, query)
        page = build_page(rows, query)
        status = fails(query, {int(row["lead_id"][1:]) for row in page["results"]})
        more = page["count"] > query.page * query.size
        return status or {**page, "next": "http://x/" if more else None}

    return answer


def numbers_of(page: ParsedPage) -> list[int]:
    """Return the numbers of the leads on a page, in order."""
    return [int(row.key[0][1:]) for row in page.rows]


def sizes_of(odd: QuirkyApi) -> list[int]:
    """Return the page sizes of the requests so far, without those of the whole campaign."""
    return [query.size for query in odd.queries if query.before]


def show(odd: QuirkyApi, amount: int, fails: Callable[[Query, set[int]], int | None]) -> None:
    """Let the vendor have so many results, and fail on pages."""
    odd.rows = build_rows(amount)
    odd.answer = answer_pages(odd.rows, fails)


def fail_on(bad: set[int], status: int = 500) -> Callable[[Query, set[int]], int | None]:
    """Fail on pages that would show one of these results."""
    return lambda _, shown: status if bad & shown else None


def fail_first(statuses: list[int]) -> Callable[[Query, set[int]], int | None]:
    """Fail on the first requests."""
    left = iter(statuses)
    return lambda *_: next(left, None)
