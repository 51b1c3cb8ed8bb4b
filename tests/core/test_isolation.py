"""Which items are marked when lists fail: leadloop.core.isolation on simulated vendors."""

from collections.abc import Callable, Sequence
from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.isolation import MAX_CANDIDATES, MAX_FAILURES, Isolation, split_list

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
            marked |= set(isolation.record_probe_success())
        else:
            isolation.defer_probe()
    return marked | set(isolation.mark_rest())


@given(size=_sizes, data=st.data())
def test_culprits_are_marked_and_all_others_confirmed(size: int, data: st.DataObject) -> None:
    """Whatever their number and places; and the lists stay within their bound."""
    items = [f"L{number}" for number in range(size)]
    culprits = data.draw(st.sets(st.sampled_from(items), max_size=size))
    vendor = Vendor(lambda sent: bool(culprits & set(sent)))
    assert isolate(vendor, items, probe=lambda: True) == culprits
    assert vendor.confirmed == set(items) - culprits
    lists = set(vendor.sent)
    bound = min(2 * size - 1, 2 * len(culprits) * ceil(log2(size)) + 1) if size > 1 else 1
    assert len(lists) <= bound
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
def test_an_outage_in_the_midst_marks_no_two(at: int) -> None:
    """The vendor goes away at some request: at most the one item that was alone is marked."""
    vendor = Vendor(lambda sent: "L7" in sent or len(vendor.sent) > at)
    marked = isolate(vendor, _ITEMS, probe=lambda: len(vendor.sent) <= at)
    assert marked is None or marked == {"L7"}


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
