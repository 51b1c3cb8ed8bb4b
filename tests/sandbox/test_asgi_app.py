import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import pytest

from tests.sandbox.http_client import PATHS, StartSandbox, lead, open_socket


def test_a_caller_that_dies_in_the_middle_of_its_request_creates_nothing(
    start_sandbox: StartSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a body and the end of the connection: nothing happens, nothing is logged."""
    api = start_sandbox()
    with open_socket(api) as sock:
        head = b"POST /api/v1/leads/create/C1/ HTTP/1.1\r\nHost: x\r\nContent-Length: 999"
        sock.sendall(head + b'\r\n\r\n[{"lead_id": 1')
        while not api.handle.requests:
            time.sleep(0.01)
    assert api.ids() == []
    assert [entry.status for entry in api.handle.requests] == [0, 200]
    assert caplog.records == []


@pytest.mark.parametrize("kind", list(PATHS))
def test_another_method_gets_405(start_sandbox: StartSandbox, kind: str) -> None:
    """The path is right, the method is not."""
    method, path = PATHS[kind]
    answer = start_sandbox().call("DELETE", path)
    assert answer.status_code == 405
    assert answer.json()["detail"]
    assert method in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/api/v1/leads/create/C1", "/api/v2/leads/", "/nope/"])
def test_other_paths_get_404_in_json(start_sandbox: StartSandbox, path: str) -> None:
    """The trailing slash is part of the path, as documented; nothing is redirected."""
    answer = start_sandbox().call("POST", path, json=[], allow_redirects=False)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})


def test_every_answer_carries_the_sandbox_s_own_date(start_sandbox: StartSandbox) -> None:
    """The Date header follows the clock that can be set."""
    api = start_sandbox(clock_offset=-86_400)
    for path in ("/api/v1/leads/responses/C1/", "/nope"):
        dated = parsedate_to_datetime(api.call("GET", path).headers["Date"])
        assert abs(dated.timestamp() * 1000 - api.handle.now()) < 3_000


def test_latency_rule(start_sandbox: StartSandbox) -> None:
    """A response takes that long, and does not hold up other requests."""
    api = start_sandbox(latency=3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: api.create([lead(n)]), range(8)))
    assert min(answer.elapsed.total_seconds() for answer in answers) >= 3
    arrived = [entry.arrived for entry in api.handle.requests]
    assert max(arrived) - min(arrived) < 3
