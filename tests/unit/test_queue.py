"""Claims of a push: how many at once, and what that makes of the end of the queue."""

from concurrent.futures import ThreadPoolExecutor
from math import ceil
from threading import Barrier, Lock
from time import sleep

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.batch_claimer import ClaimGate

_SIZE = 10


class _Leads:
    """Leads that claims side by side share out, one by one."""

    def __init__(self, amount: int) -> None:
        self._left = amount
        self._lock = Lock()

    def take(self, most: int) -> int:
        """As many as are left, up to `most`."""
        taken = 0
        while taken < most and self._take_one():
            taken += 1
            sleep(0)
        return taken

    def _take_one(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0


def _batches(amount: int, known: int, claimers: int) -> list[int]:
    """The sizes of the batches that some threads make of so many leads."""
    leads, queue = _Leads(amount), ClaimGate(known)
    together = Barrier(claimers)

    def claim() -> list[int]:
        made: list[int] = []
        together.wait()
        while not made or made[-1]:
            queue.begin_claim(_SIZE)
            made.append(leads.take(_SIZE))
            queue.end_claim(_SIZE - made[-1])
        return made[:-1]

    with ThreadPoolExecutor(claimers) as pool:
        each = [pool.submit(claim) for _ in range(claimers)]
    return [size for made in each for size in made.result()]


@given(st.integers(0, 130), st.integers(1, 6))
def test_claims_side_by_side_make_no_more_batches(amount: int, claimers: int) -> None:
    """However many claim at once: n leads are ceil(n / batch) requests."""
    made = _batches(amount, amount, claimers)
    assert (sum(made), len(made)) == (amount, ceil(amount / _SIZE))


@given(st.integers(0, 130), st.integers(-50, 50), st.integers(1, 6))
def test_all_are_claimed_whatever_was_counted(amount: int, off: int, claimers: int) -> None:
    """Leads come and go after they were counted: none is left, and nobody waits for ever."""
    assert sum(_batches(amount, max(0, amount + off), claimers)) == amount


@pytest.mark.timeout(20)
def test_claims_of_a_long_queue_run_side_by_side() -> None:
    """Two that wait for each other, each in its claim, both go on."""
    queue, both = ClaimGate(2 * _SIZE), Barrier(2)

    def claim() -> None:
        queue.begin_claim(_SIZE)
        both.wait(timeout=10)
        queue.end_claim(0)

    with ThreadPoolExecutor(2) as pool:
        for claiming in [pool.submit(claim) for _ in range(2)]:
            claiming.result()
