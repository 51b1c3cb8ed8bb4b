import time

import pytest

from leadloop.sandbox.rate_limiting import SlidingWindowLimiter
from leadloop.sandbox.request_log import count_busiest_window
from tests.sandbox.http_client import StartSandbox, lead


def test_the_rate_limit_is_a_sliding_window(start_sandbox: StartSandbox) -> None:
    """No window of that length lets more through, and room comes back request by request."""
    api = start_sandbox(rate_limit=(5, 1))
    statuses: list[int] = []
    while statuses.count(200) < 11:
        statuses.append(api.read().status_code)
        time.sleep(0.01)
    passed = [e.arrived for e in api.handle.requests if e.status == 200]
    assert set(statuses) == {200, 429}
    assert count_busiest_window(passed, 1) == 5


@pytest.mark.parametrize("sent", [True, False])
def test_retry_after_rule(start_sandbox: StartSandbox, sent: bool) -> None:
    """A 429 may state how long to wait, in seconds; the limit counts every route."""
    api = start_sandbox(rate_limit=(2, 60), retry_after=sent)
    api.create([lead("a")])
    api.disable("a")
    answer = api.read()
    assert answer.status_code == 429
    assert ("Retry-After" in answer.headers) == sent
    assert not sent or 55 < int(answer.headers["Retry-After"]) <= 61


def test_a_rejected_request_takes_no_room() -> None:
    """The limiter returns the seconds to wait, and admits again once that time has passed."""
    limiter = SlidingWindowLimiter()
    assert [limiter.admit((2, 10.0), now) for now in (0.0, 1.0, 4.0, 9.0)] == [0, 0, 6.0, 1.0]
    assert [limiter.admit((2, 10.0), now) for now in (10.0, 10.5)] == [0, 0.5]
    assert limiter.admit(None, 10.5) == 0
