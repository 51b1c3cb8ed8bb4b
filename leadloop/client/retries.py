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
#: No attempt begins after failures that took so long, seconds: from a vendor that swallows
#: requests, each attempt takes the read timeout.
GIVE_UP_AFTER_S = 45.0
# Seconds before the second attempt; twice as long before the third.
_PAUSE_S = 1.0


class RequestRetries:
    """Retries of requests that may be repeated, and the report of each pause that is asked for.

    Args:
        sleep: sleeps for seconds; raises an error where the run is stopped.
        on_pause: is called when the vendor asks for a pause, before any further attempt, with the
            Retry-After in seconds or None. The next permit waits for the end of the pause.
    """

    def __init__(
        self, sleep: Callable[[float], None], on_pause: Callable[[float | None], None]
    ) -> None:
        self._sleep = sleep
        self._on_pause = on_pause

    def run(self, call: ApiCall, request: Callable[[], T]) -> T:
        """Send a request, and again while its failure may pass.

        Args:
            call: the kind of request. A failure of another kind (the login that a read needs) was
                retried by itself.
            request: waits for a permit, sends the request once and returns its result.

        Raises:
            ApiError: the last failure; its `attempts` is the number of such failures.
        """
        failures = _Failures()

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

    def __init__(self) -> None:
        self._failed = 0
        self._rate_limited = 0
        self._lost_s = 0.0

    def record(self, state: RetryCallState) -> None:
        """Count a failure, and note in its error how often and how long the request failed."""
        error = _get_error(state)
        self._lost_s += error.took_s
        if isinstance(error, RateLimited):
            self._rate_limited += 1
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
            return self._rate_limited >= MAX_RATE_LIMITED
        self._lost_s += state.upcoming_sleep
        return self._failed >= MAX_ATTEMPTS or self._lost_s >= GIVE_UP_AFTER_S


def _get_error(state: RetryCallState) -> ApiError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ApiError), "only such errors are retried"
    return error
