"""The threads that send a campaign's requests, and how a stop ends them."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Event, Lock

import pytest

from tasks.thread_pool import FifoSemaphore, RequestThreads, open_threads, run_elastic


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_a_stop_ends_the_waits_of_the_threads(error: BaseException) -> None:
    """The waits end by `on_stop`, or the end of the block would wait for the threads."""
    stopped = Event()
    begun: list[Future[bool]] = []

    def send_requests() -> None:
        with open_threads(2, on_stop=stopped.set) as pool:
            begun.extend(pool.submit(stopped.wait, 60) for _ in range(5))
            raise error

    with pytest.raises(type(error)):
        send_requests()
    assert stopped.is_set()
    assert all(each.done() for each in begun)
    waited = [each.result() for each in begun if not each.cancelled()]
    assert waited
    assert all(waited)
    assert len(waited) < len(begun), "requests that had not begun are not sent"


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_an_end_without_a_stop_waits_for_the_threads(error: Exception | None) -> None:
    """A request that is on its way gets its answer, although another one has failed."""
    calls: list[str] = []
    is_sent, may_end = Event(), Event()

    def send_request() -> str:
        is_sent.set()
        may_end.wait(60)
        return "answer"

    answers: list[Future[str]] = []

    def send_requests() -> None:
        with open_threads(1, on_stop=lambda: calls.append("stop")) as pool:
            answers.append(pool.submit(send_request))
            assert is_sent.wait(60)
            may_end.set()
            if error:
                raise error

    if error:
        with pytest.raises(ValueError, match="no"):
            send_requests()
    else:
        send_requests()
    assert [each.result() for each in answers] == ["answer"]
    assert calls == []


def test_a_pool_knows_its_size() -> None:
    """By it a reader of pages limits how many it requests ahead."""
    with open_threads(3, on_stop=lambda: None) as pool:
        assert pool.size == 3


def test_pages_wait_for_each_other() -> None:
    """However long a listing is, only a few of its pages are in memory; they come in order."""
    begun: list[int] = []
    taken = 0
    pool = RequestThreads(3)
    for _ in pool.map_in_order(begun.append, range(1000)):
        assert len(begun) - taken <= 6
        taken += 1
    pool.shutdown()
    assert taken == len(begun) == 1000
    assert list(RequestThreads(3).map_in_order(str, range(20))) == [
        str(number) for number in range(20)
    ]


def test_threads_come_and_go_with_the_limit() -> None:
    """While steps are left, there are as many as the limit says; all steps are done once."""
    limit, left, at_once, most = 2, list(range(60)), 0, dict[int, int]()
    lock, both = Lock(), Barrier(2)
    both_began: list[int] = []

    def step() -> bool:
        nonlocal limit, at_once
        if not left:
            return False
        with lock:
            if not left:
                return False
            number = left.pop()
            at_once += 1
            most[limit] = max(most.get(limit, 0), at_once)
        if number > 57:
            both_began.append(both.wait(60))
        time.sleep(0.001)
        with lock:
            at_once -= 1
            if number == 50:
                limit = 5
            if number == 20:
                limit = 1
        return True

    with open_threads(6, on_stop=lambda: None) as pool:
        assert run_elastic(pool, step, lambda: limit) == []
    assert (left, at_once, len(both_began)) == ([], 0, 2)
    assert most[2] == 2
    assert most[5] <= 5
    # The threads that were at work when the limit fell end their steps first.
    assert most[1] <= 5


def test_after_an_error_no_thread_is_started() -> None:
    """The others end by their own steps, and each error is returned."""
    begun: list[int] = []
    has_failed = Event()

    def step() -> bool:
        begun.append(1)
        if len(begun) == 2:
            has_failed.set()
            raise ValueError
        has_failed.wait(60)
        return False

    with open_threads(8, on_stop=lambda: None) as pool:
        (error,) = run_elastic(pool, step, lambda: 2 if len(begun) < 2 else 8)
    assert isinstance(error, ValueError)
    assert len(begun) <= 8


@pytest.mark.parametrize("limit", [1, 3])
def test_the_semaphore_admits_no_more_than_its_limit(limit: int) -> None:
    """All threads that ask repeatedly are admitted in the end, also after an error."""
    semaphore, inside, counts = FifoSemaphore(limit), [], []

    def ask(number: int) -> None:
        with semaphore.acquire():
            inside.append(number)
            counts.append(len(inside))
            time.sleep(0.0005)
            inside.remove(number)
            if number % 3 == 0:
                raise ValueError

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(200)]
    assert sum(each.exception() is not None for each in asked) == 67
    assert len(counts) == 200
    assert max(counts) <= limit
