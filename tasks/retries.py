"""Retries of a job: exponential back-off with jitter, after failures that may pass.

A read or a login is retried by itself first (`leadloop.client.retries`); here its last failure
counts as one failure of the job.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from leadloop.client.errors import ApiError, RateLimited, Retryable
from leadloop.client.retries import are_pauses_too_long
from leadloop.core.errors import RunError
from leadloop.core.plurals import format_count
from leadloop.settings import Account
from tasks.context import ApiContext, CampaignRun
from tasks.jobs import ChunkResult, due_in
from tasks.outages import OUTAGE_S

T = TypeVar("T")

#: Seconds before each retry of a job; the last one repeats.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)

#: Seconds before a single request is sent again for the first time.
_REQUEST_PAUSE_S = 1.0

#: Failures in a row without any progress, after which the vendor counts as out of order.
MAX_FRUITLESS_ATTEMPTS = 6


class FruitlessAttempts:
    """A job's failures in a row, without any progress between them, and the time they took.

    The time is that of the failing requests and the pauses between them. Waits for permits and the
    turns of other campaigns are left out: in them the vendor does not fail.
    """

    def __init__(self) -> None:
        self.reset()

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt failed."""
        return self._count > 0

    def reset(self) -> None:
        """Forget the failures: the job has made progress."""
        self._count = 0
        self._requests = 0
        self._lost_s = 0.0
        self._pauses = 0
        self._paused_s = 0.0

    def record_failure(self, reason: str, *, requests: int = 1, took_s: float = 0.0) -> float:
        """Count a failure, and return the seconds to wait before the next attempt.

        Args:
            reason: the text of the error that ends the job.
            requests: the requests that failed in this attempt.
            took_s: the time that they took, seconds.

        Raises:
            RunError: it was the last of MAX_FRUITLESS_ATTEMPTS, or nothing was done for OUTAGE_S. A
                single request that took so long does not show that the vendor fails on others.
        """
        self._count += 1
        self._requests += requests
        self._lost_s += took_s
        is_outage = self._lost_s >= OUTAGE_S and self._requests > 1
        if is_outage or self._count >= MAX_FRUITLESS_ATTEMPTS:
            raise RunError(reason) from None
        pause_s = _add_jitter(_PAUSES_S[min(self._count, len(_PAUSES_S)) - 1])
        # The last attempt comes when OUTAGE_S is over, and not much later.
        pause_s = min(pause_s, max(OUTAGE_S - self._lost_s, _PAUSES_S[0]))
        self._lost_s += pause_s
        return pause_s

    def record_api_failure(self, error: ApiError, account: Account) -> float:
        """Count a failure of an account's API; see `record_failure`.

        Raises:
            RunError: in one line, what failed and what to do.
        """
        if isinstance(error, RateLimited):
            self._record_pauses(error, account)
        reason = (
            f"{format_count(self._requests + error.attempts, 'request')} to {account.address}"
            f" failed in a row, the last with {error}: check {account.variable('api_url')}, the"
            " network and the vendor's"
            " status; the next run goes on where this one stopped"
        )
        return self.record_failure(reason, requests=error.attempts, took_s=error.took_s)

    def _record_pauses(self, error: RateLimited, account: Account) -> None:
        """Count the pauses that the vendor asked for.

        Raises:
            RunError: they are too long to wait for another.
        """
        pause_s = error.retry_after_s or 0.0
        self._pauses += error.attempts
        self._paused_s += error.attempts * pause_s
        if are_pauses_too_long(self._pauses, self._paused_s):
            raise RunError(
                f"{account.address} has asked {format_count(self._pauses, 'time')} in a row for a"
                f" pause, the last time for {pause_s:,.0f} s ({error}): check"
                f" {account.variable('rate_limit')} and the vendor's status; the next run waits for"
                " the end of the pause, an hour at most, and goes on where this one stopped"
            )


def retry_later(
    run: CampaignRun[ApiContext], attempts: FruitlessAttempts, error: ApiError
) -> ChunkResult:
    """Log a failure of the API, and return when the job is due again.

    Raises:
        RunError: the job failed too often, or nothing was done for OUTAGE_S.
    """
    pause_s = attempts.record_api_failure(error, run.context.account)
    run.warn("%s; trying again in %.0f s", error, pause_s)
    return due_in(pause_s)


def retry_request(
    run: CampaignRun[ApiContext], attempts: FruitlessAttempts, request: Callable[[], T]
) -> T:
    """Send requests of a job that has only one chunk, and again while their error may pass.

    The retries of each request get past single failures, and these past a short outage.

    Raises:
        RunError: the vendor rejects a request, the job failed too often, nothing was done for
            OUTAGE_S, or the run is being stopped.
    """
    while True:
        try:
            return request()
        except Retryable as error:
            pause_s = attempts.record_api_failure(error, run.context.account)
            run.warn("%s; trying again in %.0f s", error, pause_s)
        except ApiError as error:
            raise RunError(str(error)) from None
        run.context.limiter.sleep(pause_s)


def pause_before_retry(failures: int) -> None:
    """Sleep before a request is sent again: 1 s after its first failure, then twice as long."""
    time.sleep(_add_jitter(_REQUEST_PAUSE_S * 2 ** (failures - 1)))


def _add_jitter(pause_s: float) -> float:
    """Spread a pause by half, so that processes that failed together do not retry together."""
    return pause_s * random.uniform(0.5, 1.5)
