"""Probes: a harmless request that shows whether the vendor answers at all."""

from collections.abc import Callable

import pytest

from leadloop.client.errors import Fatal, Rejected, Retryable
from leadloop.core.errors import RunError
from leadloop.core.verdicts import UNREADABLE, ApiCall, ApiResponse
from tasks.probes import MAX_FAILURES, send_probe

pytestmark = pytest.mark.usefixtures("quick_retries")


def fail_first(*errors: Exception) -> Callable[[], None]:
    """A request that fails with these errors, one after the other, and then succeeds."""
    left = list(errors)

    def request() -> None:
        if left:
            raise left.pop(0)

    return request


def fatal(status: int, body: object = None) -> Fatal:
    """A failure that needs a person."""
    return Fatal(ApiCall.READ, ApiResponse(status=status, body=body))


def test_an_accepted_probe() -> None:
    """The vendor works."""
    assert send_probe(fail_first())


@pytest.mark.parametrize(
    "answer",
    [Rejected(ApiCall.READ, ApiResponse(status=400, body={})), fatal(404, {"detail": "unknown"})],
)
def test_a_refusal_in_json_is_an_answer(answer: Exception) -> None:
    """The vendor is there, whatever it thinks of the request."""
    assert not send_probe(fail_first(answer))


def test_no_answer_is_left_to_the_caller() -> None:
    """It decides how long an outage lasts."""
    with pytest.raises(Retryable):
        send_probe(fail_first(Retryable(ApiCall.READ, ApiResponse(status=500))))


@pytest.mark.parametrize("failures", range(1, MAX_FAILURES + 2))
def test_what_needs_a_person_ends_the_run(failures: int) -> None:
    """But not at the first time: a firewall's page passes."""
    request = fail_first(*[fatal(403, UNREADABLE)] * failures)
    if failures < MAX_FAILURES:
        assert send_probe(request)
    else:
        with pytest.raises(RunError, match="403"):
            send_probe(request)
