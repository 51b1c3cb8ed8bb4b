"""The gate before a poll's requests; its order is told by tests/flows/test_poll.py."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.window_reader import FifoSemaphore


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_more_than_so_many_are_in_at_once(at_once: int) -> None:
    """However many threads ask again and again; all of them get in, also after a failure."""
    gate, inside, most = FifoSemaphore(at_once), [], []

    def ask(number: int) -> None:
        with gate.acquire():
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.0005)
            inside.remove(number)
            if number % 3 == 0:
                raise ValueError

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(200)]
    assert sum(each.exception() is not None for each in asked) == 67
    assert len(most) == 200
    assert max(most) <= at_once
