"""Prefect task retries: with back-off and jitter, and only where the work may be repeated."""

import random
import time
from collections.abc import Callable
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from leadloop.client.errors import ApiError
from leadloop.core.errors import RetryLater
from tasks.context import CampaignRun

#: Seconds before each retry (Prefect repeats the last); with jitter they spread by half as much.
_PAUSES_S = [1.0, 2.0, 4.0, 8.0, 16.0]

#: Seconds before a single request is sent again for the first time.
_PAUSE_S = 1.0

#: Tries in a row that got nothing done, after which the vendor is taken to be out of order.
MAX_FRUITLESS_ATTEMPTS = 6

# Only tries without any progress count against PATIENCE, so this one must never be what ends a run.
_NO_LIMIT = 100_000


def worth_another_try(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed try is repeated. A plain function: Prefect never calls anything else."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, RetryLater) and error.fruitless_attempts < MAX_FRUITLESS_ATTEMPTS


def step(name: str) -> Callable[[Callable[..., Any]], Task[..., Any]]:
    """A task with effects: retried while it gets something done, never cached, never persisted."""
    return task(
        name=name,
        retries=_NO_LIMIT,
        retry_delay_seconds=_PAUSES_S,
        retry_jitter_factor=0.5,
        retry_condition_fn=worth_another_try,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def pause_before_retry(failures: int) -> None:
    """Sleep before a request is sent again: 1 s after its first failure, then twice as long.

    With jitter, so that processes that failed together do not come back together.
    """
    time.sleep(_PAUSE_S * 2 ** (failures - 1) * random.uniform(0.5, 1.5))


class FruitlessAttempts:
    """Counts tries in a row without progress."""

    def __init__(self) -> None:
        self._fruitless = 0

    @property
    def has_failed(self) -> bool:
        """Whether the last try failed."""
        return self._fruitless > 0

    def reset(self) -> None:
        """Something was done."""
        self._fruitless = 0

    def record_failure(self, reason: str) -> RetryLater:
        """A try failed: the error to raise, so that Prefect tries again or gives up."""
        self._fruitless += 1
        return RetryLater(reason, fruitless=self._fruitless)


def retry_later(run: CampaignRun, patience: FruitlessAttempts, error: ApiError) -> RetryLater:
    """The error that has Prefect try again."""
    later = patience.record_failure(str(error))
    run.context.log.warning("campaign %s: %s; trying again", run.campaign.campaign_id, later)
    return later
