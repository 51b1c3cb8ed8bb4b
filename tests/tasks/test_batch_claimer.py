"""The gate of concurrent claims, and the number of batches at the end of the queue."""

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
    """New leads that concurrent claims take one by one."""

    def __init__(self, amount: int) -> None:
        self._left = amount
        self._lock = Lock()

    def take_leads(self, limit: int) -> int:
        """Take up to `limit` of the leads that are left."""
        taken = 0
        while taken < limit and self._take_one():
            taken += 1
            sleep(0)
        return taken

    def _take_one(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0


def _claim_all(amount: int, known: int, claimers: int) -> list[int]:
    """Return the sizes of the batches that some threads claim."""
    leads, gate = _Leads(amount), ClaimGate(known)
    together = Barrier(claimers)

    def claim() -> list[int]:
        made: list[int] = []
        together.wait()
        while not made or made[-1]:
            gate.begin_claim(_SIZE)
            made.append(leads.take_leads(_SIZE))
            gate.end_claim(_SIZE - made[-1])
        return made[:-1]

    with ThreadPoolExecutor(claimers) as pool:
        each = [pool.submit(claim) for _ in range(claimers)]
    return [size for made in each for size in made.result()]


@given(st.integers(0, 130), st.integers(1, 6))
def test_concurrent_claims_make_no_more_batches(amount: int, claimers: int) -> None:
    """Any number of claimers: n leads take ceil(n / batch) requests."""
    made = _claim_all(amount, amount, claimers)
    assert (sum(made), len(made)) == (amount, ceil(amount / _SIZE))


@given(st.integers(0, 130), st.integers(-50, 50), st.integers(1, 6))
def test_all_leads_are_claimed_if_their_count_was_wrong(
    amount: int, off: int, claimers: int
) -> None:
    """Leads come and go after the count: none is left, and no claimer waits indefinitely."""
    assert sum(_claim_all(amount, max(0, amount + off), claimers)) == amount


@pytest.mark.timeout(20)
def test_claims_of_a_long_queue_are_concurrent() -> None:
    """Two claims that wait for each other both go on."""
    gate, both = ClaimGate(2 * _SIZE), Barrier(2)

    def claim() -> None:
        gate.begin_claim(_SIZE)
        both.wait(timeout=10)
        gate.end_claim(0)

    with ThreadPoolExecutor(2) as pool:
        for claiming in [pool.submit(claim) for _ in range(2)]:
            claiming.result()
