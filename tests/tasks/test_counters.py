"""Counters that the threads of a job share."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.counters import Counters


class _SlowAmount(int):
    """An amount whose addition takes long enough for another thread's to begin."""

    def __radd__(self, other: int) -> int:
        time.sleep(0.001)
        return other + int(self)


def test_no_amount_is_lost_between_threads() -> None:
    """Two threads that add at the same moment both count."""
    counters = Counters("sent")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: counters.add(sent=_SlowAmount(2)), range(40)))
    assert counters.counts() == {"sent": 80}


def test_every_counter_is_shown_from_the_start() -> None:
    """A summary has all counts of its flow; each call adds to some of them."""
    counters = Counters("sent", "failed")
    counters.add(failed=2)
    assert counters.counts() == {"sent": 0, "failed": 2}


def test_counts_are_a_snapshot() -> None:
    """What is counted later does not change a summary that was handed out."""
    counters = Counters("sent")
    before = counters.counts()
    counters.add(sent=1)
    assert before == {"sent": 0}


def test_an_unknown_counter_is_refused() -> None:
    """A typing error does not add a count to the contract's names."""
    with pytest.raises(KeyError):
        Counters("sent").add(snet=1)
