"""The bisection of lists that fail: which items are marked, on simulated vendors."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil, log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.disable_bisection import MAX_CANDIDATES, MAX_FAILURES, Isolation, split_list

_ITEMS = [f"L{number}" for number in range(113)]
_sizes = st.integers(min_value=1, max_value=130)


class Vendor:
    """Answers lists by `fails`, and keeps each one that it was sent."""

    def __init__(self, fails: Callable[[Sequence[str]], bool]) -> None:
        self.fails = fails
        self.sent: list[tuple[str, ...]] = []
        self.confirmed: set[str] = set()

    def accept(self, items: Sequence[str]) -> bool:
        """Confirm a list unless it fails."""
        self.sent.append(tuple(items))
        if self.fails(items):
            return False
        self.confirmed |= set(items)
        return True


def isolate(
    vendor: Vendor, items: Sequence[str], *, probe: Callable[[], bool], is_proof: bool = True
) -> set[str] | None:
    """Send everything. Return the marked items; None where the probe showed an outage."""
    isolation = Isolation(items)
    marked: set[str] = set()
    while isolation.next_list or isolation.needs_probe:
        if not isolation.needs_probe:
            if vendor.accept(isolation.next_list):
                marked |= set(isolation.record_success())
            else:
                isolation.record_failure("HTTP 500")
        elif not probe() or (not is_proof and len(isolation.candidates) >= MAX_CANDIDATES):
            return None
        elif is_proof or not isolation.next_list:
            marked |= set(isolation.take_candidates())
        else:
            isolation.defer_probe()
    return marked


def list_bound(size: int, culprits: int) -> int:
    """The most lists that isolating this many culprits takes."""
    return min(2 * size - 1, 2 * culprits * ceil(log2(size)) + 1) if size > 1 else 1


@given(size=_sizes, data=st.data())
def test_culprits_are_marked_and_all_others_confirmed(size: int, data: st.DataObject) -> None:
    """Whatever their number and places; and the lists stay within their bound."""
    items = [f"L{number}" for number in range(size)]
    culprits = data.draw(st.sets(st.sampled_from(items), max_size=size))
    vendor = Vendor(lambda sent: bool(culprits & set(sent)))
    assert isolate(vendor, items, probe=lambda: True) == culprits
    assert vendor.confirmed == set(items) - culprits
    lists = set(vendor.sent)
    assert len(lists) <= list_bound(size, len(culprits))
    for each in lists:
        assert vendor.sent.count(each) == (MAX_FAILURES if culprits & set(each) else 1)


@given(size=_sizes)
def test_an_outage_marks_nobody(size: int) -> None:
    """Nothing works, so nobody in particular is at fault; a few lists are enough to know."""
    vendor = Vendor(lambda _: True)
    items = [f"L{number}" for number in range(size)]
    assert isolate(vendor, items, probe=lambda: False) is None
    assert len(set(vendor.sent)) <= ceil(log2(size)) + 2 if size > 1 else 1


@given(size=_sizes, data=st.data())
def test_without_proof_a_few_are_marked_and_many_are_an_outage(
    size: int, data: st.DataObject
) -> None:
    """Reads work, disables may not: no item is marked where ten in a row fail and none succeeds."""
    items = [f"L{number}" for number in range(size)]
    culprits = data.draw(st.sets(st.sampled_from(items), max_size=size))
    vendor = Vendor(lambda sent: bool(culprits & set(sent)))
    marked = isolate(vendor, items, probe=lambda: True, is_proof=False)
    assert marked in (None, culprits)
    if len(culprits) < MAX_CANDIDATES:
        assert marked == culprits
    if len(culprits) == size >= MAX_CANDIDATES:
        assert marked is None


@given(at=st.integers(min_value=0, max_value=40))
def test_an_outage_in_the_midst_marks_nobody_good(at: int) -> None:
    """The vendor goes away at some request: what failed alone then is not marked."""
    vendor = Vendor(lambda sent: "L7" in sent or len(vendor.sent) > at)
    marked = isolate(vendor, _ITEMS, probe=lambda: len(vendor.sent) <= at)
    assert marked is None or marked == {"L7"}


@given(size=st.integers(min_value=1, max_value=9), data=st.data())
def test_what_failed_in_an_outage_that_is_over_is_sent_again(
    size: int, data: st.DataObject
) -> None:
    """Only the culprits are marked after it, and everybody else is confirmed."""
    items = _ITEMS[:size]
    culprits = data.draw(st.sets(st.sampled_from(items), max_size=size))
    is_over = False
    vendor = Vendor(lambda sent: not is_over or bool(culprits & set(sent)))
    isolation, marked = Isolation(items), set[str]()
    while isolation.next_list or isolation.needs_probe:
        if isolation.needs_probe and not is_over:
            is_over = True
            isolation.retry_candidates()
        elif isolation.needs_probe:
            marked |= set(isolation.take_candidates())
        elif vendor.accept(isolation.next_list):
            marked |= set(isolation.record_success())
        else:
            isolation.record_failure("no answer")
    assert marked == culprits
    assert vendor.confirmed == set(items) - culprits


@given(size=_sizes, noise=st.floats(min_value=0, max_value=0.4), data=st.data())
def test_culprits_and_noise_are_no_concern_of_the_others(
    size: int, noise: float, data: st.DataObject
) -> None:
    """Non-interference: the others end as they would without the culprits; the requests' bound.

    An item on which noise completed three lone failures counts as a culprit.
    """
    items = [f"L{number}" for number in range(size)]
    poisoned = data.draw(st.sets(st.sampled_from(items), max_size=size))
    random = Random(data.draw(st.integers()))
    noisy = Counter[tuple[str, ...]]()

    def fails(sent: Sequence[str]) -> bool:
        if poisoned & set(sent):
            return True
        is_noise = random.random() < noise
        noisy[tuple(sent)] += is_noise
        return is_noise

    vendor = Vendor(fails)
    marked = isolate(vendor, items, probe=lambda: True)
    halved = [set(each) for each, failures in noisy.items() if failures == MAX_FAILURES]
    unlucky = {item for each in halved if len(each) == 1 for item in each}
    assert marked == poisoned | unlucky
    assert vendor.confirmed == set(items) - poisoned - unlucky
    # Without the requests that noise failed, and those below a list that noise halved.
    counted = [each for each in vendor.sent if not any(set(each) < list_ for list_ in halved)]
    failed_by_noise = sum(
        failures
        for each, failures in noisy.items()
        if not any(set(each) < list_ for list_ in halved)
    )
    bound = list_bound(size, len(poisoned))
    assert len(counted) - failed_by_noise <= MAX_FAILURES * bound


@given(size=st.integers(min_value=1, max_value=130), limit=st.integers(min_value=1, max_value=130))
def test_a_size_that_passes_is_learned(size: int, limit: int) -> None:
    """Everything passes in shorter lists, so the length was the reason, and nobody is marked."""
    items = [f"L{number}" for number in range(size)]
    vendor = Vendor(lambda sent: len(sent) > limit)
    isolation = Isolation(items)
    while isolation.next_list:
        if vendor.accept(isolation.next_list):
            assert isolation.record_success() == []
        else:
            isolation.record_failure("HTTP 413")
    assert vendor.confirmed == set(items)
    if size <= limit:
        assert isolation.passing_size is None
    else:
        assert isolation.passing_size is not None
        assert limit / 2 <= isolation.passing_size <= limit


@given(size=_sizes, data=st.data())
def test_no_size_is_learned_from_culprits(size: int, data: st.DataObject) -> None:
    """Lists that hold one fail, however short they are."""
    items = [f"L{number}" for number in range(size)]
    culprits = data.draw(st.sets(st.sampled_from(items), min_size=1, max_size=size))
    isolation = Isolation(items)
    while isolation.next_list:
        if culprits & set(isolation.next_list):
            isolation.record_failure("HTTP 413")
        else:
            isolation.record_success()
    assert isolation.passing_size is None


@given(failures=st.integers(min_value=0, max_value=MAX_FAILURES - 1))
def test_noise_that_passes_marks_nobody(failures: int) -> None:
    """A list that gets through at its third try is not even halved."""
    vendor = Vendor(lambda _: len(vendor.sent) <= failures)
    assert isolate(vendor, _ITEMS, probe=lambda: True) == set()
    assert len(set(vendor.sent)) == 1


def test_a_lone_item_is_marked_where_something_else_works() -> None:
    """The only opt-out of a campaign fails: a probe tells it from an outage."""
    vendor = Vendor(lambda _: True)
    assert isolate(vendor, ["a"], probe=lambda: True) == {"a"}
    assert isolate(vendor, ["a"], probe=lambda: False) is None


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_refused_list_is_halved_at_once(size: int) -> None:
    """A refusal is a word about the list, and no failure."""
    isolation = Isolation(_ITEMS[:size])
    isolation.replace_list(split_list(isolation.next_list))
    assert list(isolation.next_list) == _ITEMS[: size // 2 or 1]
    assert isolation.failures == 0
