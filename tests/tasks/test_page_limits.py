"""What a poll learns of the vendor's pages: from contrasts, and never from one failure."""

from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.learned_limits import LearnedLimit
from leadloop.core.timestamps import EPOCH
from leadloop.core.windows import MAX_PAGES, Window, split_window
from tasks.page_limits import PageLimits

HALVES = split_window(Window(after=EPOCH, before=EPOCH + timedelta(hours=1)), 2)


class Event(NamedTuple):
    """A full page that was read; or a page that failed, whose parts were read."""

    kind: str
    size: int
    smaller: int = 1


_SIZES = st.sampled_from([100, 50, 25, 5])
_SUCCESSES = st.builds(Event, st.just("success"), _SIZES)
_CONTRASTS = st.builds(Event, st.just("contrast"), _SIZES, st.sampled_from([50, 25, 5, 1])).filter(
    lambda event: event.smaller < event.size
)


def learned(*, is_stale: bool = False, **values: int) -> dict[str, LearnedLimit]:
    """Return limits that an earlier poll has learned."""
    return {name: LearnedLimit(value=value, is_stale=is_stale) for name, value in values.items()}


@given(st.lists(_SUCCESSES | _CONTRASTS, max_size=30))
def test_a_size_is_given_up_after_three_contrasts_without_a_success(events: list[Event]) -> None:
    """No size is given up that succeeded in between, as a whole page or as part of another."""
    limits = PageLimits(100, {})
    since: list[Event] = []
    for event in events:
        before = limits.page_size
        if event.kind == "success":
            limits.record_success(size=event.size, number=1)
            since = [] if event.size >= before else since
        else:
            if limits.record_contrast(event.size, event.smaller, refused=False):
                limits.give_up_size()
            since += [event] if event.size <= before else []
        if len(since) < 3:
            assert limits.page_size == before
        else:
            assert limits.page_size == max(each.smaller for each in since)
            assert limits.take_changes()["page_size"] == limits.page_size
            since = []


def test_a_size_that_the_vendor_refuses_is_given_up_at_once() -> None:
    """A refusal is no chance."""
    limits = PageLimits(100, {})
    limits.record_contrast(100, 50, refused=True)
    assert limits.page_size == 50
    assert limits.take_changes() == {"page_contrasts": None, "page_size": 50}
    assert limits.take_changes() == {}


def test_contrasts_are_counted_over_polls() -> None:
    """A poll of a quiet campaign reads a single page."""
    first = PageLimits(100, {})
    assert not first.record_contrast(100, 50, refused=False)
    assert first.take_changes() == {"page_contrasts": 1}
    second = PageLimits(100, learned(page_contrasts=1))
    assert not second.record_contrast(100, 50, refused=False)
    third = PageLimits(100, learned(page_contrasts=2))
    assert third.record_contrast(100, 50, refused=False)
    third.give_up_size()
    assert (third.page_size, third.take_changes()["page_contrasts"]) == (50, None)


@pytest.mark.parametrize("is_stale", [False, True])
def test_a_success_ends_the_contrasts_of_earlier_polls(is_stale: bool) -> None:
    """Contrasts of a day before count no more either."""
    limits = PageLimits(100, learned(page_contrasts=2, is_stale=is_stale))
    limits.record_success(size=100, number=1)
    assert not limits.record_contrast(100, 50, refused=False)
    assert limits.take_changes() == {"page_contrasts": 1}


@given(
    deepest=st.integers(1, 60),
    refused=st.lists(st.integers(2, 60), max_size=6),
)
def test_a_depth_is_refused_only_beyond_what_was_read(deepest: int, refused: list[int]) -> None:
    """A page fails for its rows, not for its depth, if one as deep was read in this poll."""
    limits = PageLimits(100, {})
    limits.record_success(size=100, number=deepest)
    for number in refused:
        confirm_depth(limits, number)
    beyond = [number - 1 for number in refused if number > deepest]
    assert limits.max_pages == min([MAX_PAGES, *beyond])
    assert limits.max_pages >= min(deepest, MAX_PAGES)
    expected = {"page_depth": min([MAX_PAGES, *beyond])} if beyond else {}
    assert limits.take_changes() == expected


def confirm_depth(limits: PageLimits, number: int) -> None:
    """Suspect the depth of a page, and read both halves of its window completely."""
    limits.suspect_depth(number, HALVES)
    for half in HALVES:
        limits.record_complete(half)


def test_a_depth_is_refused_only_if_the_same_rows_can_be_read_otherwise() -> None:
    """Two bad rows may fail all parts of a page: then a part of its window fails too."""
    limits = PageLimits(100, {})
    limits.suspect_depth(3, HALVES)
    limits.record_complete(HALVES[0])
    assert (limits.max_pages, limits.take_changes()) == (MAX_PAGES, {})
    limits.record_complete(HALVES[1])
    assert (limits.max_pages, limits.take_changes()) == (2, {"page_depth": 2})


@pytest.mark.parametrize("is_stale", [False, True])
def test_what_an_earlier_poll_learned_is_heeded_for_a_day(is_stale: bool) -> None:
    """A stale limit is tried again, from the settings' size and the full depth."""
    limits = PageLimits(100, learned(page_size=25, page_depth=7, is_stale=is_stale))
    assert (limits.page_size, limits.max_pages) == ((100, MAX_PAGES) if is_stale else (25, 7))
    assert limits.take_changes() == {}


def test_a_stale_limit_ends_with_a_success_beyond_it() -> None:
    """A page as large, or as deep, as the limit proves nothing about it."""
    limits = PageLimits(100, learned(page_size=25, page_depth=7, is_stale=True))
    limits.record_success(size=25, number=7)
    assert limits.take_changes() == {}
    limits.record_success(size=100, number=8)
    assert limits.take_changes() == {"page_size": None, "page_depth": None}


def test_a_stale_limit_that_still_holds_is_learned_again() -> None:
    """Recording it makes it fresh for another day."""
    limits = PageLimits(100, learned(page_size=50, page_depth=7, is_stale=True))
    limits.record_contrast(100, 50, refused=True)
    limits.record_success(size=50, number=7)
    confirm_depth(limits, 8)
    assert limits.take_changes() == {"page_contrasts": None, "page_size": 50, "page_depth": 7}


@pytest.mark.parametrize(("asked", "used"), [(200, 50), (50, 50), (10, 10)])
def test_settings_ask_for_a_size_as_far_as_the_vendor_takes_it(asked: int, used: int) -> None:
    """A campaign's setting may change during a poll, and asks for less but not for more."""
    limits = PageLimits(100, {})
    limits.record_contrast(100, 50, refused=True)
    limits.apply_page_size(asked)
    assert limits.page_size == used
