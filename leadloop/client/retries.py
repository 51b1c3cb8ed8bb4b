"""Retries of one request that may be repeated: a read or a login, with back-off and jitter.

tenacity runs the loop; the verdict on a response decides whether another attempt follows. A create
is never retried here (docs/delivery.md), and a disable by its job.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from leadloop.client.errors import ApiError, RateLimited, Retryable
from leadloop.core.verdicts import UNREADABLE, ApiCall, ApiResponse

T = TypeVar("T")

#: The most failed attempts of a request, without those that were rate limited.
MAX_ATTEMPTS = 3
#: The most attempts of a request that the vendor answers with a demand for a pause.
MAX_RATE_LIMITED = 10
# After this number of pauses in a row, if they make this number of seconds, none is waited for.
_MIN_PAUSES = 3
_LONG_PAUSES_S = 120.0
#: No attempt begins that ends later than this, seconds, if it takes as long as the one before: from
#: a vendor that swallows requests, each attempt takes the read timeout.
GIVE_UP_AFTER_S = 30.0
# Likewise for a probe, which its caller repeats: only quick failures are retried.
_PROBE_GIVE_UP_AFTER_S = 5.0
# Seconds before the second attempt; twice as long before the third.
_PAUSE_S = 1.0


def are_pauses_too_long(pauses: int, total_s: float) -> bool:
    """Return whether the vendor has asked in a row for more pauses than a run should wait for.

    Args:
        pauses: the number of pauses, with nothing answered between them.
        total_s: seconds of these pauses together.
    """
    return pauses >= _MIN_PAUSES and total_s >= _LONG_PAUSES_S


class RequestRetries:
    """Retries of requests that may be repeated, and the report of each pause that is asked for.

    Args:
        sleep: sleeps for seconds; raises an error where the run is stopped.
        on_pause: is called when the vendor asks for a pause, before any further attempt, with the
            Retry-After in seconds or None. The next permit waits for the end of the pause.
        give_up_after_s: see GIVE_UP_AFTER_S.
        max_rate_limited: see MAX_RATE_LIMITED.
    """

    def __init__(
        self,
        sleep: Callable[[float], None],
        on_pause: Callable[[float | None], None],
        *,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        max_rate_limited: int = MAX_RATE_LIMITED,
    ) -> None:
        self._sleep = sleep
        self._on_pause = on_pause
        self._give_up_after_s = give_up_after_s
        self._max_rate_limited = max_rate_limited

    def for_probes(self) -> "RequestRetries":
        """Return the retries of a probe: only a quick failure is retried.

        After silence or a pause, the caller decides what to try next.
        """
        return RequestRetries(
            self._sleep,
            self._on_pause,
            give_up_after_s=_PROBE_GIVE_UP_AFTER_S,
            max_rate_limited=1,
        )

    def run(self, call: ApiCall, request: Callable[[], T]) -> T:
        """Send a request, and again while its failure may pass.

        Args:
            call: the kind of request. A failure of another kind (the login that a read needs) was
                retried by itself.
            request: waits for a permit, sends the request once and returns its result.

        Raises:
            ApiError: the last failure; its `attempts` is the number of such failures.
        """
        failures = _Failures(self._give_up_after_s, self._max_rate_limited)

        def attempt() -> T:
            with self.report_pause(call):
                return request()

        retrying = Retrying(
            retry=retry_if_exception(partial(_may_pass, call)),
            after=failures.record,
            wait=failures.choose_pause,
            stop=failures.are_enough,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(attempt)

    @contextmanager
    def report_pause(self, call: ApiCall) -> Iterator[None]:
        """Report a pause that the vendor asks for in answer to a call, whatever the error."""
        try:
            yield
        except ApiError as error:
            asks = isinstance(error, RateLimited) or error.response.requests_pause
            if asks and error.call is call:
                self._on_pause(error.response.retry_after_s)
            raise


def _may_pass(call: ApiCall, error: BaseException) -> bool:
    """Return whether another attempt of the call may succeed."""
    return (
        isinstance(error, ApiError)
        and error.call is call
        and (isinstance(error, Retryable) or _is_foreign_page(error.response))
    )


def _is_foreign_page(response: ApiResponse) -> bool:
    """Return whether a firewall or proxy answered in the vendor's place, which may pass.

    A rejected login and a wrong address stay what they are, and more attempts with a wrong password
    may lock the account. So do the vendor's reasons in JSON.
    """
    return (
        response.body is UNREADABLE
        and response.status is not None
        and 400 <= response.status < 500
        and response.status not in (401, 405, 407)
    )


class _Failures:
    """The failures of one request; the methods are hooks of tenacity, called in this order."""

    def __init__(self, give_up_after_s: float, max_rate_limited: int) -> None:
        self._give_up_after_s = give_up_after_s
        self._max_rate_limited = max_rate_limited
        self._failed = 0
        self._rate_limited = 0
        self._paused_s = 0.0
        self._lost_s = 0.0
        self._last_took_s = 0.0

    def record(self, state: RetryCallState) -> None:
        """Count a failure, and note in its error how often and how long the request failed."""
        error = _get_error(state)
        self._last_took_s = error.took_s
        self._lost_s += error.took_s
        if isinstance(error, RateLimited):
            self._rate_limited += 1
            self._paused_s += error.retry_after_s or 0.0
            error.attempts = self._rate_limited
        else:
            self._failed += 1
            error.attempts = self._failed
        error.took_s = self._lost_s

    def choose_pause(self, state: RetryCallState) -> float:
        """Return the seconds before the next attempt; after a rate limit, its permit waits."""
        if isinstance(_get_error(state), RateLimited):
            return 0.0
        return float(_PAUSE_S * 2 ** (self._failed - 1) * random.uniform(0.5, 1.5))

    def are_enough(self, state: RetryCallState) -> bool:
        """Return whether this failure is the last one."""
        if isinstance(_get_error(state), RateLimited):
            return self._rate_limited >= self._max_rate_limited or are_pauses_too_long(
                self._rate_limited, self._paused_s
            )
        self._lost_s += state.upcoming_sleep
        would_end_s = self._lost_s + self._last_took_s
        return self._failed >= MAX_ATTEMPTS or would_end_s >= self._give_up_after_s


def _get_error(state: RetryCallState) -> ApiError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ApiError), "only such errors are retried"
    return error
