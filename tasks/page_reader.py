"""Reading one page of a window, where necessary in smaller pages, down to single rows.

A page that fails although the vendor answers other requests is read in smaller pages. Rows that
cannot be read are `missing`, by their offset in the window. Where they are found to be is only a
hint where to cut the window: its parts are read and proven by themselves.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from leadloop.client.api import LeadsApi
from leadloop.client.errors import ApiError, RateLimited, Rejected, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.timestamps import OTHER_UNIT
from leadloop.core.verdicts import ApiCall, TransportFailure, may_blame_content
from leadloop.core.windows import Window, halve_window
from tasks.context import ApiContext, CampaignRun
from tasks.counters import Counters
from tasks.outages import OutageWatch
from tasks.page_limits import PageLimits, smallest_divisor
from tasks.probes import EMPTY_WINDOW
from tasks.thread_pool import FifoSemaphore
from tasks.window_pages import (
    ParsedPage,
    ParseResult,
    WindowRead,
    parse_key,
    parse_page,
    parse_row,
)

#: Failures of a page, beside other requests that succeed, after which the page is the cause.
MAX_FAILURES = 3


class DatabaseClock:
    """An estimate of the database's clock from one reading and the time that passed since."""

    def __init__(self, now: datetime) -> None:
        self._began, self._read_at = now, read_boot_clock()

    def now(self) -> datetime:
        """Return the estimated time of the database's clock."""
        return self._began + timedelta(seconds=read_boot_clock() - self._read_at)


class PageUnavailable(Exception):
    """A page that cannot be read, although the vendor answers other requests.

    Attributes:
        number: the page's number, from 1.
        reason: how it failed last, without personal data.
        partial: the read of the pages before it, if any.
    """

    def __init__(self, number: int, error: ApiError) -> None:
        super().__init__(str(error))
        self.number = number
        self.reason = str(error.response)
        self.is_refused = isinstance(error, Rejected)
        self.partial: WindowRead | None = None


class PageSizeChanged(Exception):
    """A smaller page size was learned during the read of a window: read the window again."""


class PageReader:
    """A reader of the pages of one campaign's windows; thread-safe.

    Args:
        api: the vendor's API.
        run: the campaign's run; a setting that changes counts from the next request on.
        clock: the database's clock.
        counters: counts `pages`, the pages read.
        watch: distinguishes a page that fails alone from an outage.
        limits: what the vendor refuses of pages.
        concurrency: the most requests in flight.
    """

    def __init__(
        self,
        api: LeadsApi,
        run: CampaignRun[ApiContext],
        clock: DatabaseClock,
        counters: Counters,
        *,
        watch: OutageWatch,
        limits: PageLimits,
        concurrency: int,
    ) -> None:
        self._api = api
        self._run = run
        self._clock = clock
        self._counters = counters
        self._watch = watch
        self._limits = limits
        self._in_flight = FifoSemaphore(concurrency)

    def read_page(
        self,
        window: Window,
        number: int,
        size: int,
        *,
        parse: ParseResult = parse_row,
        in_parts: bool = True,
    ) -> ParsedPage:
        """Read a page of a window, where necessary in parts, down to single rows.

        Raises:
            PageUnavailable: none of its rows can be read, or the vendor ignores `page_size`.
            PageSizeChanged: pages of this size have been given up meanwhile.
            RateLimited, Fatal, RunError: see `fetch_page`.
        """
        if size > self._limits.page_size:
            raise PageSizeChanged
        try:
            page = self.fetch_page(window, number, size, parse=parse)
        except PageUnavailable as failure:
            if not in_parts:
                raise
            try:
                page = self._read_parts(window, number, size, parse, failure)
            except PageUnavailable:
                # A part's number is of smaller pages.
                raise failure from None
            if page.missing and not page.rows:
                raise failure from None
            return page
        if len(page.rows) == size:
            self._limits.record_success(size=size, number=number)
        return page

    def fetch_page(
        self, window: Window, number: int, size: int, *, parse: ParseResult = parse_row
    ) -> ParsedPage:
        """Read a page in one request; repeat the request until the page itself must be the cause.

        Failures during an outage do not count.

        Raises:
            PageUnavailable: the request failed MAX_FAILURES times, although the vendor answers
                other requests.
            RateLimited: the vendor asks for pauses, whatever is requested.
            Fatal: see leadloop.client.errors.
            RunError: the vendor answers nothing, or the run is being stopped.
        """
        failures = inconclusive = 0
        while True:
            try:
                page = self._request_page(window, number, size, parse)
            except ApiError as error:
                if not _may_pass_or_be_the_page(error):
                    raise
                failures += error.attempts
                fails_alone = self._watch.probe_after_failure(error)
                if not fails_alone and isinstance(error, RateLimited):
                    raise
                if not fails_alone and inconclusive < MAX_FAILURES:
                    # Not without end: the request itself may put the vendor out for a moment.
                    inconclusive += 1
                    failures = 0
                elif error.response.failure is TransportFailure.NOT_SENT:
                    # No page can be the reason.
                    if failures > 3 * MAX_FAILURES:
                        raise
                elif failures >= MAX_FAILURES:
                    raise PageUnavailable(number, error) from None
            else:
                self._watch.record_success()
                self._counters.add(pages=1)
                return page

    def _request_page(
        self, window: Window, number: int, size: int, parse: ParseResult
    ) -> ParsedPage:
        campaign = self._run.campaign
        with self._in_flight.acquire():
            database_now = self._clock.now()
            page = self._api.list_processed(
                campaign.campaign_id,
                window,
                unit=campaign.epoch_unit,
                page=number,
                page_size=size,
            )
        return parse_page(page, size=size, database_now=database_now, parse=parse)

    def _read_parts(
        self, window: Window, number: int, size: int, parse: ParseResult, cause: PageUnavailable
    ) -> ParsedPage:
        """Read the rows of a page in smaller pages, after the page itself failed.

        All parts of one size are requested first. Then each part that failed is divided in the same
        way, down to single rows. Single rows that fail are `missing` in the result.

        Args:
            window: the window.
            number: the number of the page that failed.
            size: its size.
            parse: parses each result.
            cause: how the page failed.

        Raises:
            PageUnavailable: no row of the page, or of a part, can be read; the vendor ignores the
                smaller size; or the parts have different counts because rows moved.
        """
        parts = smallest_divisor(size)
        if parts is None:
            raise cause
        smaller = size // parts
        numbers = range((number - 1) * parts + 1, number * parts + 1)
        pieces, failures = self._fetch_parts(window, numbers, smaller, parse)
        if number == 1 and 1 in pieces and pieces[1].is_empty:
            # One answer shows that the window has no rows.
            return self._learn_from(replace(pieces[1], size=size), window, number, parse, cause)
        if number == 1 and not pieces and smaller > 1:
            # The vendor may refuse pages of the smaller size too. Beyond page 1, it is the depth.
            pieces[1] = self._read_parts(window, 1, smaller, parse, failures.pop(1))
        if not _divide_as_asked(pieces, smaller, parts=parts):
            raise cause
        counted = max((piece.count for piece in pieces.values() if piece.rows), default=0)
        if counted:
            # A part behind the last row is not needed, however it failed.
            failures = {at: each for at, each in failures.items() if (at - 1) * smaller < counted}
        missing = [part - 1 for part in failures] if smaller == 1 else []
        answers = len(missing)
        if smaller > 1:
            for part, reason in failures.items():
                pieces[part] = self._read_parts(window, part, smaller, parse, reason)
        for piece in pieces.values():
            missing += piece.missing
            answers += piece.answers
        # A page that shows no row may have no count: the vendor answers 404 beyond the last one.
        shown = [pieces[part] for part in numbers if part in pieces and pieces[part].rows]
        if len({piece.count for piece in shown}) > 1:
            raise cause
        first = shown[0] if shown else next(iter(pieces.values()))
        last = pieces.get(numbers[-1])
        page = ParsedPage(
            count=first.count,
            rows=[row for piece in shown for row in piece.rows],
            has_next=first.count > number * size if last is None else last.has_next,
            vendor_now=first.vendor_now,
            database_now=first.database_now,
            size=size,
            missing=sorted(missing),
            failure=cause.reason if missing else "",
            answers=answers,
            answer_size=max(piece.answer_size for piece in shown or pieces.values()),
        )
        return page if missing else self._learn_from(page, window, number, parse, cause)

    def _fetch_parts(
        self, window: Window, numbers: Iterable[int], size: int, parse: ParseResult
    ) -> tuple[dict[int, ParsedPage], dict[int, PageUnavailable]]:
        """Request pages; return, by their numbers, those that can be read and how others fail.

        Single rows of a window that can be halved only show where to cut it: after MAX_FAILURES
        that fail in a row, the others count as failed. Perhaps the vendor shows no page so deep.
        """
        pieces: dict[int, ParsedPage] = {}
        failures: dict[int, PageUnavailable] = {}
        most_in_a_row = math.inf
        if size == 1 and halve_window(window, self._run.campaign.epoch_unit):
            most_in_a_row = MAX_FAILURES
        in_a_row = 0
        for number in numbers:
            if in_a_row >= most_in_a_row:
                failures[number] = failures[number - 1]
                continue
            try:
                pieces[number] = self.fetch_page(window, number, size, parse=parse)
                in_a_row = 0
            except PageUnavailable as failure:
                failures[number] = failure
                in_a_row += 1
        return pieces, failures

    def _learn_from(
        self,
        page: ParsedPage,
        window: Window,
        number: int,
        parse: ParseResult,
        cause: PageUnavailable,
    ) -> ParsedPage:
        """Record that a page failed whose rows were all read in smaller pages, and return it.

        After several such contrasts, the page is requested as a whole once more.
        """
        if not self._limits.record_contrast(page.size, page.answer_size, refused=cause.is_refused):
            return page
        try:
            whole = self.fetch_page(window, number, page.size, parse=parse)
        except PageUnavailable:
            self._limits.give_up_size()
            return page
        self._limits.record_success(size=page.size, number=number)
        return whole

    def respects_bounds(self) -> bool:
        """Return whether the API's `count` respects the bounds: nothing was processed in 2001."""
        try:
            page = self._request_page(EMPTY_WINDOW, 1, self._limits.page_size, parse_key)
        except Rejected:
            # The vendor parses the bounds.
            return True
        self._counters.add(pages=1)
        return page.count == 0

    def count_in_other_unit(self, window: Window) -> int:
        """Return the API's count for bounds sent in the other unit (`ms` or `s`)."""
        campaign = self._run.campaign
        unit = OTHER_UNIT[campaign.epoch_unit]
        try:
            page = self._api.list_processed(
                campaign.campaign_id, window, unit=unit, page=1, page_size=self._limits.page_size
            )
        except ApiError:
            # In the configured unit, such a time is thousands of years ahead: an error is normal.
            return 0
        self._counters.add(pages=1)
        return page.count


def _divide_as_asked(pieces: Mapping[int, ParsedPage], size: int, *, parts: int) -> bool:
    """Return whether the parts of a page show that the vendor divides pages as it was asked to.

    Args:
        pieces: the parts that were read, by number.
        size: the size that was asked for.
        parts: the number of parts. If all were read and none has a row, the page was elsewhere.
    """
    shown = [number for number, piece in pieces.items() if piece.rows]
    if not shown:
        return 0 < len(pieces) < parts
    full = all(len(pieces[number].rows) == size for number in shown if number < max(shown))
    counts_per_page = any(pieces[number].counts_per_page for number in shown)
    # Otherwise the vendor ignores the page's number.
    differs = len(shown) == 1 or len({pieces[number].keys for number in shown}) > 1
    return full and len(pieces[max(shown)].rows) <= size and not counts_per_page and differs


def _may_pass_or_be_the_page(error: ApiError) -> bool:
    """Return whether a read may succeed if it is repeated, or may have failed because of its page.

    False for a login that is rate limited, and for an error that needs a person.
    """
    if isinstance(error, RateLimited):
        return error.call is ApiCall.READ
    return isinstance(error, Retryable | Rejected) or may_blame_content(error.response)
