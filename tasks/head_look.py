"""A look at the head of a campaign's outcomes: one request that shows whether a poll has work.

A program that stays up looks often, and polls where a look shows something new. A look writes
nothing and opens no run; where nothing is new, it does not even read Postgres. A page that holds
the whole head is handed to the poll, which then stores it without another request.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from db import leads, learned_limits, outcomes, watermarks
from db.database import Connection
from leadloop.core.campaign_rules import Campaign
from leadloop.core.postgres_json import dump_json
from leadloop.core.windows import Window, subtract_to_epoch
from tasks.context import ApiContext
from tasks.page_limits import PageLimits
from tasks.page_reader import DatabaseClock
from tasks.window_pages import ParsedPage, parse_page

# The vendor's clock may be ahead of the database's, but hardly by more.
_FAR_AHEAD = timedelta(days=1)
_DIGEST_BYTES = 16

#: Finds the start of the range that looks read, from the database's time; None if the campaign was
#: never polled.
FindStart = Callable[[Connection, Campaign, datetime], datetime | None]


@dataclass(frozen=True, kw_only=True)
class HeadRange:
    """Where a head begins: the end of the last poll, minus a short overlap.

    Attributes:
        start: the start of the range.
        page_size: the results that are asked for.
        clock: the database's clock.
    """

    start: datetime
    page_size: int
    clock: DatabaseClock


@dataclass(frozen=True, kw_only=True)
class SeenHead:
    """What is known of a campaign's head: the state between two looks, without personal data.

    Attributes:
        stored: digests of results that a look has shown and a poll has stored.
        range: where the head begins; None: to be read from Postgres.
    """

    stored: frozenset[bytes] = frozenset()
    range: HeadRange | None = None

    def after_poll(self) -> "SeenHead":
        """Return the state after a poll, which has moved the head."""
        return replace(self, range=None)


@dataclass(frozen=True, kw_only=True)
class HeadLook:
    """The result of a look.

    Attributes:
        has_news: whether a poll may have something to store.
        seen: the state for the next look if there is no poll; after a poll that has completed,
            `seen.after_poll()`. After a poll that failed, the next look begins with `SeenHead()`.
        window: the range that `page` holds as a whole.
        page: the answer; None if it does not hold the whole head.
    """

    has_news: bool
    seen: SeenHead
    window: Window | None = None
    page: ParsedPage | None = field(default=None, repr=False)


def look_at_head(
    context: ApiContext, campaign: Campaign, seen: SeenHead, find_start: FindStart
) -> HeadLook:
    """Read the first page of a campaign's head, and compare it with what is known.

    A campaign that was never polled has news, without a request, once a lead was sent.

    Args:
        context: the vendor's API, and the database for a first look.
        campaign: the campaign.
        seen: the state that the last look has left.
        find_start: `find_head_start`, or `find_lookback_start` for a look at all of the lookback.

    Raises:
        ApiError: the page could not be read; a poll finds out why, and reads around it.
    """
    head = seen.range
    if head is None:
        with context.database.transaction() as connection:
            head = _find_range(connection, campaign, find_start)
            if head is None:
                is_sent = leads.get_first_sent_at(connection, campaign.campaign_id) is not None
                return HeadLook(has_news=is_sent, seen=seen)
    now = head.clock.now()
    page = context.api.for_probes().list_processed(
        campaign.campaign_id,
        Window(after=head.start, before=now + _FAR_AHEAD),
        unit=campaign.epoch_unit,
        page=1,
        page_size=head.page_size,
    )
    return compare_head(
        replace(seen, range=head),
        Window(after=head.start, before=now),
        parse_page(page, size=head.page_size, database_now=now),
        _make_digests(page.results),
    )


def compare_head(
    seen: SeenHead, window: Window, page: ParsedPage, digests: frozenset[bytes]
) -> HeadLook:
    """Decide whether the first page of a head shows anything new. Pure.

    A page that does not hold the whole head always counts as news: only a poll reads the rest.

    Args:
        seen: what is known.
        window: the range up to the database's clock; the page also shows what lies ahead of it.
        page: the page.
        digests: the digests of its results.
    """
    if not page.holds_whole_window:
        return HeadLook(has_news=True, seen=replace(seen, stored=frozenset()))
    return HeadLook(
        has_news=not digests <= seen.stored,
        seen=replace(seen, stored=digests),
        window=window,
        page=page,
    )


def find_head_start(connection: Connection, campaign: Campaign, now: datetime) -> datetime | None:
    """Return where the head of a campaign begins; None if the campaign was never polled.

    A campaign without any outcome is polled from its first lead on, so its head begins there.
    """
    read_through = watermarks.get_read_through(connection, campaign.campaign_id)
    if read_through is None:
        return None
    return _subtract_overlap(connection, campaign, min(read_through, now), campaign.head_overlap)


def find_lookback_start(
    connection: Connection, campaign: Campaign, now: datetime
) -> datetime | None:
    """Return where the next poll that reads the lookback begins; None if there was none yet."""
    reread_through = watermarks.get_reread_through(connection, campaign.campaign_id)
    if reread_through is None:
        return None
    return _subtract_overlap(connection, campaign, min(reread_through, now), campaign.lookback)


def _subtract_overlap(
    connection: Connection, campaign: Campaign, read_through: datetime, overlap: timedelta
) -> datetime:
    awaited = outcomes.get_waiting_since(connection, campaign.campaign_id)
    return subtract_to_epoch(min(read_through, awaited or read_through), overlap)


def _find_range(
    connection: Connection, campaign: Campaign, find_start: FindStart
) -> HeadRange | None:
    now = watermarks.get_database_time(connection)
    if (start := find_start(connection, campaign, now)) is None:
        return None
    limits = learned_limits.get_learned_limits(connection, campaign.campaign_id)
    page_size = PageLimits(campaign.page_size, limits).page_size
    return HeadRange(start=start, page_size=page_size, clock=DatabaseClock(now))


def _make_digests(results: Iterable[Any]) -> frozenset[bytes]:
    texts = (dump_json(result).encode() for result in results)
    return frozenset(hashlib.blake2b(each, digest_size=_DIGEST_BYTES).digest() for each in texts)
