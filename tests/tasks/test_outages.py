"""An outage of the vendor, told from a request that fails alone."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from leadloop.client.errors import Fatal, Retryable
from leadloop.client.retries import RequestRetries
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall, ApiResponse, TransportFailure
from tasks import outages
from tasks.outages import OutageWatch

# Its address, and the variable that sets it.
_VENDOR = ("https://vendor.example", "LEADLOOP_API_URL")
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
    return OutageWatch(probe_of(*results), lambda _: None, *_VENDOR)


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


def test_silence_is_reported_before_it_is_waited_for() -> None:
    """Once, however many probes fail."""
    silences: list[str] = []
    probe = probe_of(_FAILURE, _FAILURE, None)
    watch = OutageWatch(
        probe,
        lambda _: None,
        *_VENDOR,
        on_silence=lambda message, *args: silences.append(message % args),
    )
    assert not watch.probe_after_failure(_FAILURE)
    assert silences == [
        "https://vendor.example does not answer (read: HTTP 500): trying again for up to 45 s"
    ]


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
    watch = OutageWatch(probe_of(_FAILURE), lambda _: time.sleep(0.05), *_VENDOR)
    began = time.monotonic()
    answers = ask_side_by_side(watch, threads=5)
    assert all(isinstance(each.exception(), RunError) for each in answers)
    with pytest.raises(RunError, match="has answered no request"):
        watch.probe_now()
    assert time.monotonic() - began < 2 * outages.OUTAGE_S


def test_an_outage_that_is_over_accuses_no_request_that_failed_in_it() -> None:
    """Whichever thread has probed through it."""
    watch = OutageWatch(probe_of(_FAILURE, _FAILURE, None), lambda _: time.sleep(0.05), *_VENDOR)
    assert [each.result() for each in ask_side_by_side(watch, threads=5)] == [False] * 5
    assert watch.probe_after_failure(_FAILURE)


class SilentApi:
    """An API that accepts requests and never answers, on a clock that does not take the time.

    Attributes:
        now: seconds on the clock.
        read_s: the read timeout.
        retries: the retries of a read.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, read_s: float) -> None:
        self.now = 0.0
        self.read_s = read_s
        self.retries = RequestRetries(sleep=self.sleep, on_pause=lambda _: None)
        monkeypatch.setattr(outages, "read_boot_clock", lambda: self.now)

    def sleep(self, seconds: float) -> None:
        """Move the clock on."""
        self.now += seconds

    def read(self) -> None:
        """Send a read that is not answered."""
        self.sleep(self.read_s)
        silence = ApiResponse(failure=TransportFailure.NO_RESPONSE, took_s=self.read_s)
        raise Retryable(ApiCall.READ, silence)

    def fail_read(self) -> Retryable:
        """Return the failure of a read that is not answered."""
        with pytest.raises(Retryable) as failed:
            self.retries.run(ApiCall.READ, self.read)
        return failed.value


@pytest.mark.parametrize("read_s", [0.5, 1, 2, 3, 5, 8, 10, 12, 14, 15, 16, 20, 22, 25, 30, 45, 60])
def test_a_vendor_that_never_answers_ends_a_job_with_the_first_timeout_after_45_s(
    monkeypatch: pytest.MonkeyPatch, read_s: float
) -> None:
    """Within a minute or two read timeouts, or little more; never after one request."""
    api = SilentApi(monkeypatch, read_s)
    watch = OutageWatch(
        lambda: api.retries.for_probes().run(ApiCall.READ, api.read), api.sleep, *_VENDOR
    )
    failed = api.fail_read()
    with pytest.raises(RunError, match=r"answered no request for \d\d"):
        watch.probe_after_failure(failed)
    assert max(45, 2 * read_s) <= api.now <= max(60, 2 * read_s) + (8 if 18 < read_s < 23 else 0)


@pytest.mark.parametrize("chance", [ApiResponse(status=500), None])
def test_a_request_that_hangs_makes_no_outage_of_a_probe_that_fails_by_chance(
    monkeypatch: pytest.MonkeyPatch, chance: ApiResponse | None
) -> None:
    """However long it hung: a quick failure of the probe is no part of the same silence."""
    api = SilentApi(monkeypatch, 60.0)
    failed = api.fail_read()
    reset = ApiResponse(failure=TransportFailure.NO_RESPONSE, took_s=0.1)
    quick = Retryable(ApiCall.READ, chance or reset)
    watch = OutageWatch(probe_of(quick, quick, None), api.sleep, *_VENDOR)
    assert not watch.probe_after_failure(failed)
