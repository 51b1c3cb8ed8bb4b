"""Retries of a job: how long each pause is, and after how many failures a job ends."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.database import Database
from leadloop.client.errors import ApiError, InDoubt, Rejected, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall, ApiResponse
from leadloop.settings import Settings
from tasks import retries
from tasks.context import ApiContext, CampaignRun, open_api_context, start_run
from tasks.retries import (
    MAX_FRUITLESS_ATTEMPTS,
    FruitlessAttempts,
    pause_before_retry,
    retry_later,
    retry_request,
)
from tests import factories
from tests.factories import CAMPAIGN
from tests.jobs import HOST


@pytest.fixture
def run(database: Database, environment: object) -> Iterator[CampaignRun[ApiContext]]:
    """A campaign's run."""
    factories.add_campaign(database)
    with open_api_context(Settings.load(), HOST) as context:
        (campaign,) = context.select_campaigns(None)
        yield start_run(context, "push-leads", campaign)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between requests, none of which takes time."""
    slept: list[float] = []
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=slept.append))
    return slept


def error_of(kind: type[ApiError], status: int) -> ApiError:
    """An error with a response of the vendor."""
    return kind(ApiCall.READ, ApiResponse(status=status))


@given(random=st.random_module())
def test_pauses_double_within_their_jitter(random: object) -> None:
    """About 1, 2, 4, 8 and 16 s, each spread by half; the sixth failure is the last."""
    attempts = FruitlessAttempts()
    for pause_s in (1.0, 2.0, 4.0, 8.0, 16.0):
        assert 0.5 * pause_s <= attempts.record_failure("away") <= 1.5 * pause_s
    with pytest.raises(RunError, match=r"^away$"):
        attempts.record_failure("away")


@given(amount=st.integers(1, MAX_FRUITLESS_ATTEMPTS - 1), random=st.random_module())
def test_processes_that_failed_together_do_not_retry_together(amount: int, random: object) -> None:
    """Their pauses after as many failures differ."""
    jobs = [FruitlessAttempts(), FruitlessAttempts()]
    pauses = [[job.record_failure("away") for _ in range(amount)] for job in jobs]
    assert pauses[0] != pauses[1]


@given(failures=st.lists(st.booleans(), max_size=30))
def test_only_failures_in_a_row_count(failures: list[bool]) -> None:
    """Progress forgets them: a job ends at six without any between them."""
    attempts = FruitlessAttempts()
    in_a_row = 0
    for failed in failures:
        in_a_row = in_a_row + 1 if failed else 0
        if not failed:
            attempts.reset()
        elif in_a_row < 6:
            attempts.record_failure("away")
        else:
            with pytest.raises(RunError):
                attempts.record_failure("away")
        assert attempts.has_failed == failed


def test_a_job_that_fails_is_due_again_after_a_pause(
    run: CampaignRun[ApiContext], caplog: pytest.LogCaptureFixture
) -> None:
    """Other campaigns have their turn meanwhile; the log names the campaign and the reason."""
    before = read_boot_clock()
    result = retry_later(run, FruitlessAttempts(), error_of(Retryable, 500))
    assert result.due_at is not None
    assert before + 0.5 <= result.due_at <= read_boot_clock() + 1.5
    assert f"campaign {CAMPAIGN}: read: HTTP 500; trying again" in caplog.text


def test_a_request_is_sent_again_while_its_error_may_pass(
    run: CampaignRun[ApiContext], pauses: list[float]
) -> None:
    """With a pause before each retry; then its answer is returned."""
    answers = [error_of(Retryable, 500), error_of(Retryable, 502), "answer"]

    def send() -> str:
        answer = answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return str(answer)

    assert retry_request(run, FruitlessAttempts(), send) == "answer"
    first, second = pauses
    assert 0.5 <= first <= 1.5
    assert 1.0 <= second <= 3.0


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (error_of(Retryable, 500), MAX_FRUITLESS_ATTEMPTS),
        (error_of(Rejected, 400), 1),
        (error_of(InDoubt, 500), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_request_that_never_succeeds_ends_the_job(
    run: CampaignRun[ApiContext], pauses: list[float], error: ApiError, sent: int
) -> None:
    """A refusal at once, a failure at the sixth; the job's error is that of the response."""
    requests: list[int] = []

    def send() -> None:
        requests.append(1)
        raise error

    with pytest.raises(RunError) as caught:
        retry_request(run, FruitlessAttempts(), send)
    assert str(caught.value) == str(error)
    assert (len(requests), len(pauses)) == (sent, sent - 1)


@given(failures=st.integers(1, 12), random=st.random_module())
def test_pauses_of_a_single_request_double(failures: int, random: object) -> None:
    """About 1 s after the first failure, then twice as long each time."""
    slept: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "time", SimpleNamespace(sleep=slept.append))
        pause_before_retry(failures)
    (pause_s,) = slept
    assert 0.5 <= pause_s / 2 ** (failures - 1) <= 1.5
