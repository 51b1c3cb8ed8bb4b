"""An outage of the vendor, told from a request that fails alone."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from leadloop.client.errors import Fatal, Retryable
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall, ApiResponse
from tasks import outages
from tasks.outages import OutageWatch

_FAILURE = Retryable(ApiCall.READ, ApiResponse(status=500))


def probe_of(*results: Exception | None) -> Callable[[], None]:
    """Return a probe with these results, whose last one repeats."""
    left = list(results)

    def probe() -> None:
        result = left.pop(0) if len(left) > 1 else left[0]
        if result is not None:
            raise result

    return probe


def watch_of(*results: Exception | None) -> OutageWatch:
    """Return a watch whose probe has these results."""
    return OutageWatch(probe_of(*results), lambda _: None, "https://vendor.example")


def test_a_request_fails_alone_where_the_vendor_answers_others() -> None:
    """A success of late, or else a probe that succeeds, shows it."""
    watch = watch_of(_FAILURE)
    watch.record_success()
    assert watch.probe_after_failure(_FAILURE)
    assert watch_of(None).probe_after_failure(_FAILURE)


def test_a_failure_in_an_outage_that_is_over_says_nothing() -> None:
    """The request may be sent again."""
    watch = watch_of(_FAILURE, _FAILURE, None)
    assert not watch.probe_after_failure(_FAILURE)
    assert watch.probe_after_failure(_FAILURE)


def test_a_probe_can_be_asked_for_though_the_vendor_has_answered_of_late() -> None:
    """What failed since that answer may have failed in an outage that began after it."""
    watch = watch_of(_FAILURE, None)
    watch.record_success()
    assert not watch.probe_now()
    assert watch.probe_now()


def test_an_outage_that_goes_on_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line with the address and the failure."""
    monkeypatch.setattr(outages, "OUTAGE_S", 0.02)
    with pytest.raises(RunError, match=r"https://vendor\.example .*HTTP 500"):
        watch_of(_FAILURE).probe_after_failure(_FAILURE)


def test_a_job_that_had_nothing_to_send_has_met_no_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Silence begins with the first failure, not with the last answer."""
    monkeypatch.setattr(outages, "OUTAGE_S", 0.05)
    monkeypatch.setattr(outages, "_RECENT_S", 0)
    watch = watch_of(_FAILURE, None)
    watch.record_success()
    time.sleep(0.1)
    assert not watch.probe_after_failure(_FAILURE)


def test_a_probe_that_is_rejected_ends_the_job_at_once() -> None:
    """The vendor answers, and waiting changes nothing."""
    rejected = Fatal(ApiCall.READ, ApiResponse(status=403))
    with pytest.raises(Fatal):
        watch_of(rejected).probe_after_failure(_FAILURE)


def ask_side_by_side(watch: OutageWatch, threads: int) -> list[Future[bool]]:
    """Let several threads ask at the same time whether their requests failed alone."""
    with ThreadPoolExecutor(threads) as pool:
        return [pool.submit(watch.probe_after_failure, _FAILURE) for _ in range(threads)]


def test_an_outage_ends_all_threads_of_a_job_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them probes for all, also for those that ask later; none probes for its own 45 s."""
    monkeypatch.setattr(outages, "OUTAGE_S", 0.3)
    watch = OutageWatch(probe_of(_FAILURE), lambda _: time.sleep(0.05), "https://vendor.example")
    began = time.monotonic()
    answers = ask_side_by_side(watch, threads=5)
    assert all(isinstance(each.exception(), RunError) for each in answers)
    with pytest.raises(RunError, match="has answered no request"):
        watch.probe_now()
    assert time.monotonic() - began < 2 * outages.OUTAGE_S


def test_an_outage_that_is_over_accuses_no_request_that_failed_in_it() -> None:
    """Whichever thread has probed through it."""
    watch = OutageWatch(
        probe_of(_FAILURE, _FAILURE, None), lambda _: time.sleep(0.05), "https://vendor.example"
    )
    assert [each.result() for each in ask_side_by_side(watch, threads=5)] == [False] * 5
    assert watch.probe_after_failure(_FAILURE)
