"""Retries of a job: how long each pause is, and after how many failures a job ends."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.database import Database
from leadloop.client.errors import ApiError, InDoubt, Rejected, Retryable
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall, ApiResponse
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks import rate_limiter, retries
from tasks.context import ApiContext, CampaignRun, open_api_context, start_run
from tasks.jobs import CampaignsFailed
from tasks.retries import (
    MAX_FRUITLESS_ATTEMPTS,
    FruitlessAttempts,
    pause_before_retry,
    retry_later,
    retry_request,
)
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import HOST, audit_leads, disable_leads, poll_outcomes, push_leads


@pytest.fixture
def run(database: Database, environment: object) -> Iterator[CampaignRun[ApiContext]]:
    """A campaign's run."""
    factories.add_campaign(database)
    with open_api_context(Settings.load(), HOST) as context:
        (campaign,) = context.select_campaigns(None)
        yield start_run(context, "push-leads", campaign)


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


@given(
    failures=st.lists(st.tuples(st.integers(1, 3), st.floats(0.0, 70.0)), min_size=6, max_size=6),
    random=st.random_module(),
)
def test_a_job_ends_once_nothing_is_done_for_45_s(
    failures: list[tuple[int, float]], random: object
) -> None:
    """With the first failure after that, which is the second request at least, or at the sixth.

    So an outage in which each attempt takes 15 s at most ends a job within a minute.
    """
    attempts = FruitlessAttempts()
    lost_s, sent = 0.0, 0
    for number, (requests, took_s) in enumerate(failures, start=1):
        lost_s, sent = lost_s + took_s, sent + requests
        if (lost_s >= 45 and sent > 1) or number == 6:
            with pytest.raises(RunError):
                attempts.record_failure("away", requests=requests, took_s=took_s)
            return
        pause_s = attempts.record_failure("away", requests=requests, took_s=took_s)
        lost_s += pause_s
        assert lost_s <= 45 or pause_s <= 1, "no long pause at the end of the 45 s"


def test_time_without_progress_begins_again_with_progress() -> None:
    """A job that gets something done between long failures goes on."""
    attempts = FruitlessAttempts()
    for _ in range(10):
        attempts.record_failure("away", took_s=40.0)
        attempts.reset()
    attempts.record_failure("away", requests=3, took_s=40.0)
    with pytest.raises(RunError):
        attempts.record_failure("away", requests=3, took_s=40.0)


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
    run: CampaignRun[ApiContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pause before each retry, which ends with the run; then its answer is returned."""
    answers = [error_of(Retryable, 500), error_of(Retryable, 502), "answer"]
    pauses: list[float] = []
    monkeypatch.setattr(run.context.limiter, "sleep", pauses.append)

    def send() -> str:
        answer = answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return str(answer)

    assert retry_request(run, FruitlessAttempts(), send) == "answer"
    first, second = pauses
    assert 0.5 <= first <= 1.5
    assert 1.0 <= second <= 3.0


def test_a_retry_waits_until_the_run_is_stopped(run: CampaignRun[ApiContext]) -> None:
    """Nothing more is sent by a run that ends."""
    sent: list[int] = []

    def send() -> None:
        sent.append(1)
        raise error_of(Retryable, 500)

    run.context.limiter.stop()
    with pytest.raises(RunError, match=r"^the run was stopped$"):
        retry_request(run, FruitlessAttempts(), send)
    assert len(sent) == 1


@pytest.mark.usefixtures("quick_retries")
def test_a_request_that_never_succeeds_ends_the_job(run: CampaignRun[ApiContext]) -> None:
    """At the sixth failure, with the address, the failure and the next step."""
    sent: list[int] = []

    def send() -> None:
        sent.append(1)
        raise error_of(Retryable, 500)

    with pytest.raises(RunError, match="read: HTTP 500") as caught:
        retry_request(run, FruitlessAttempts(), send)
    assert_names_the_outage(str(caught.value), run.context.settings.api_url)
    assert len(sent) == MAX_FRUITLESS_ATTEMPTS


@pytest.mark.parametrize("error", [error_of(Rejected, 400), error_of(InDoubt, 500)])
def test_a_refusal_ends_the_job_at_once(run: CampaignRun[ApiContext], error: ApiError) -> None:
    """The job's error is that of the response."""

    def send() -> None:
        raise error

    with pytest.raises(RunError) as caught:
        retry_request(run, FruitlessAttempts(), send)
    assert str(caught.value) == str(error)


def assert_names_the_outage(line: str, url: str) -> None:
    """One line names the address, and what to do next."""
    assert "\n" not in line
    assert url in line
    assert "check LEADLOOP_API_URL, the network and the vendor's status" in line
    assert "the next run goes on where this one stopped" in line


@pytest.mark.usefixtures("environment", "quick_retries")
@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://127.0.0.1:1", "no connection (ConnectionRefusedError)"),
        ("https://no-such-host.invalid", "no connection (gaierror)"),
    ],
)
@pytest.mark.parametrize("job", [push_leads, disable_leads, audit_leads])
def test_a_vendor_that_is_away_ends_a_job_in_one_line(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    job: Callable[[], object],
    url: str,
    cause: str,
) -> None:
    """Refused, or a host that nobody knows: nothing is lost, and nothing is in doubt."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created' WHERE lead_id = 'b'")
    factories.add_opt_outs(database, "b")
    monkeypatch.setenv("LEADLOOP_API_URL", url)
    with pytest.raises(CampaignsFailed) as caught:
        job()
    assert_names_the_outage(str(caught.value), url)
    assert cause in str(caught.value)
    assert sql.fetch_statuses(database) == {"a": "new", "b": "created"}
    assert sql.fetch_opt_outs(database) == {"b": "requested"}


@pytest.mark.usefixtures("environment", "quick_retries")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("asked_s", "line"),
    [
        (0, "with (disable|read|create): HTTP"),
        (60, r"asked [3-6] times in a row for a pause, the last time for 60 s"),
        (7200, r"asked [3-6] times in a row for a pause, the last time for 7,200 s"),
    ],
)
@pytest.mark.parametrize("job", [push_leads, disable_leads, poll_outcomes, audit_leads])
def test_a_vendor_that_only_asks_for_pauses_ends_a_job_in_one_line(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    job: Callable[[], object],
    asked_s: int,
    line: str,
    status: int,
) -> None:
    """A few long pauses are waited out, then the line names the last one; nothing is lost."""
    monkeypatch.setattr(rate_limiter, "MAX_PAUSE_S", 0.01)
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b", "c")
    sql.execute(
        database,
        """UPDATE leadloop.leads SET sent_at = now(),
                  status = CASE lead_id WHEN 'b' THEN 'created' ELSE 'in_doubt' END
            WHERE lead_id <> 'a'""",
    )
    factories.add_opt_outs(database, "b", "c")
    vendor.add_fault(kind="status", status=status, headers={"Retry-After": str(asked_s)})
    with pytest.raises(CampaignsFailed, match=line) as caught:
        job()
    assert "\n" not in str(caught.value)
    assert vendor.url in str(caught.value)
    assert "the next run" in str(caught.value)
    assert len(vendor.requests) <= (6 if asked_s else 66)
    assert sql.fetch_statuses(database) == {"a": "new", "b": "created", "c": "in_doubt"}
    assert sql.fetch_opt_outs(database) == {"b": "requested", "c": "requested"}


@given(failures=st.integers(1, 12), random=st.random_module())
def test_pauses_of_a_single_request_double(failures: int, random: object) -> None:
    """About 1 s after the first failure, then twice as long each time."""
    slept: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "time", SimpleNamespace(sleep=slept.append))
        pause_before_retry(failures)
    (pause_s,) = slept
    assert 0.5 <= pause_s / 2 ** (failures - 1) <= 1.5
