"""Retries of a job: exponential back-off with jitter, after failures that may pass."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from leadloop.client.errors import ApiError, Retryable
from leadloop.core.errors import RunError
from tasks.context import ApiContext, CampaignRun
from tasks.jobs import ChunkResult, due_in

T = TypeVar("T")

#: Seconds before each retry of a job; the last one repeats.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)

#: Seconds before a single request is sent again for the first time.
_REQUEST_PAUSE_S = 1.0

#: Failures in a row without any progress, after which the vendor counts as out of order.
MAX_FRUITLESS_ATTEMPTS = 6


class FruitlessAttempts:
    """A job's failures in a row, without any progress between them."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt failed."""
        return self._count > 0

    def reset(self) -> None:
        """Forget the failures: the job has made progress."""
        self._count = 0

    def record_failure(self, reason: str) -> float:
        """Count a failure, and return the seconds to wait before the next attempt.

        Raises:
            RunError: it was the last of MAX_FRUITLESS_ATTEMPTS.
        """
        self._count += 1
        if self._count >= MAX_FRUITLESS_ATTEMPTS:
            raise RunError(reason) from None
        return _add_jitter(_PAUSES_S[min(self._count, len(_PAUSES_S)) - 1])


def retry_later(
    run: CampaignRun[ApiContext], attempts: FruitlessAttempts, error: ApiError
) -> ChunkResult:
    """Log a failure of the API, and return when the job is due again.

    Raises:
        RunError: it was the last of MAX_FRUITLESS_ATTEMPTS.
    """
    pause_s = attempts.record_failure(str(error))
    run.warn("%s; trying again", error)
    return due_in(pause_s)


def retry_request(
    run: CampaignRun[ApiContext], attempts: FruitlessAttempts, request: Callable[[], T]
) -> T:
    """Send a request, and again while its error may pass.

    Raises:
        RunError: the vendor rejects it, or it was the last of MAX_FRUITLESS_ATTEMPTS.
    """
    while True:
        try:
            return request()
        except Retryable as error:
            pause_s = attempts.record_failure(str(error))
            run.warn("%s; trying again", error)
        except ApiError as error:
            raise RunError(str(error)) from None
        time.sleep(pause_s)


def pause_before_retry(failures: int) -> None:
    """Sleep before a request is sent again: 1 s after its first failure, then twice as long."""
    time.sleep(_add_jitter(_REQUEST_PAUSE_S * 2 ** (failures - 1)))


def _add_jitter(pause_s: float) -> float:
    """Spread a pause by half, so that processes that failed together do not retry together."""
    return pause_s * random.uniform(0.5, 1.5)
