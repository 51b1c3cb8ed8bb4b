from threading import Event

import pytest

from tasks.thread_pool import open_threads


@pytest.mark.timeout(30)
def test_a_stop_ends_the_waits_of_all_threads() -> None:
    """Ctrl-C does not wait for threads that wait for permits."""
    stopped = Event()

    def stop_run() -> None:
        with open_threads(2, on_stop=stopped.set) as pool:
            pool.submit(stopped.wait)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_run()
    assert stopped.is_set()


def test_an_error_is_no_stop() -> None:
    """Requests of other threads are completed, so that their results are recorded."""
    stopped, sent = Event(), list[int]()

    def fail() -> None:
        with open_threads(1, on_stop=stopped.set) as pool:
            pool.submit(sent.append, 1).result()
            raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        fail()
    assert not stopped.is_set()
    assert sent == [1]
