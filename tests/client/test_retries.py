"""Reads and logins are sent again by the client itself, each attempt with a permit of its own."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadloop.client.api import LeadsApi
from leadloop.client.auth import StaticToken
from leadloop.client.errors import ApiError, Fatal, InDoubt, RateLimited, Rejected, Retryable
from leadloop.client.retries import MAX_ATTEMPTS, MAX_RATE_LIMITED, RequestRetries
from leadloop.client.transport import Timeouts, Transport
from leadloop.core.errors import RunError
from leadloop.core.verdicts import ApiCall, ApiResponse, TransportFailure
from leadloop.sandbox import SandboxHandle
from tests.client.conftest import TOKEN, Client, Reach
from tests.client.test_api import HOUR, create, sendable
from tests.client.test_auth import by_password
from tests.raw_http_server import RESET, response, run_raw_server

_PAGE = response("200 OK", '{"count": 0, "results": []}')
_HTML = "<html>Blocked</html>"
# Failures that another attempt may get past, and the vendor's demands for a pause.
_PASSING = {
    "500": response("500 Internal Server Error"),
    "reset": RESET,
    "no answer": b"",
    "cut": response("200 OK", '{"count": 0, "resul'),
    "not a page": response("200 OK", "{}"),
    "a firewall's 403": response("403 Forbidden", _HTML),
}
_PAUSING = {
    "429": response("429 Too Many Requests", b"", "Retry-After: 7"),
    "429 alone": response("429 Too Many Requests"),
    "503": response("503 Service Unavailable", b"", "Retry-After: 7"),
}
_FINAL = {"page": _PAGE, "403": response("403 Forbidden", '{"detail": "no"}')}

Read = Callable[[Client], Any]
READS: dict[str, Read] = {
    "list_processed": lambda c: c.list_processed("C1", HOUR, unit="ms", page=1, page_size=10),
    "list_all": lambda c: c.list_all("C1", page=1, page_size=10),
    "look_up": lambda c: c.look_up("C1", "a"),
}
EACH_READ = pytest.mark.parametrize("read", READS.values(), ids=READS)


@EACH_READ
def test_a_read_gets_past_failures(client: Client, vendor: SandboxHandle, read: Read) -> None:
    """Two of them, each with a permit of its own; the pauses double."""
    create(client, "a")
    vendor.add_fault(route="responses", kind="status", status=500, times=2)
    read(client)
    assert [entry.status for entry in vendor.requests[1:]] == [500, 500, 200]
    assert client.permits == [ApiCall.READ] * 3
    first, second = client.slept
    assert 0.5 <= first <= 1.5
    assert 1.0 <= second <= 3.0


@EACH_READ
@pytest.mark.parametrize("answer", _PASSING.values(), ids=_PASSING)
def test_a_read_that_keeps_failing_is_given_up(reach: Reach, answer: bytes, read: Read) -> None:
    """Its error knows how often it was tried: such a failure is no accident."""
    with run_raw_server(answer) as server:
        with pytest.raises(ApiError) as caught:
            read(reach(server.url))
        assert caught.value.attempts == len(server.requests) == 3


def test_without_a_connection_a_read_is_tried_as_often(reach: Reach) -> None:
    """A connection that is refused costs nothing but the pauses."""
    client = reach("http://127.0.0.1:1")
    with pytest.raises(Retryable, match="no connection") as caught:
        client.look_up("C1", "a")
    assert (caught.value.attempts, len(client.permits), len(client.slept)) == (3, 3, 2)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((status, '{"detail": "no"}') for status in ("403 No", "404 No", "400 No", "413 No")),
        *((status, _HTML) for status in ("401 No", "405 No", "302 Elsewhere")),
    ],
)
def test_a_refusal_is_not_asked_for_twice(reach: Reach, status: str, body: str) -> None:
    """The vendor's words, a refused login or another address would be the same again."""
    with run_raw_server(response(status, body)) as server:
        with pytest.raises((Fatal, Rejected)) as caught:
            reach(server.url).list_all("C1", page=1, page_size=10)
        assert caught.value.attempts == len(server.requests) == 1


@pytest.mark.parametrize("body", ['{"detail": "Invalid page."}', _HTML])
def test_the_end_of_a_listing_is_not_retried(reach: Reach, body: str) -> None:
    """A page beyond the last stays an empty page, also where the 404 comes in HTML."""
    with run_raw_server(response("404 Not Found", body)) as server:
        client = reach(server.url)
        assert client.list_all("C1", page=7, page_size=10).results == ()
        assert not client.look_up("C1", "a").absent
        assert len(server.requests) == 2


def test_writes_are_sent_once(reach: Reach) -> None:
    """A create because it may have been carried out; a disable because its job counts attempts."""
    with run_raw_server(_PASSING["500"]) as server:
        client = reach(server.url)
        with pytest.raises(InDoubt) as in_doubt:
            client.create("C1", [sendable("a")])
        with pytest.raises(Retryable) as retryable:
            client.disable("C1", ["a"])
        assert (in_doubt.value.attempts, retryable.value.attempts) == (1, 1)
        assert len(server.requests) == 2
        assert client.slept == []


@pytest.mark.parametrize("answer", _PAUSING.values(), ids=_PAUSING)
def test_a_pause_is_reported_before_the_next_attempt(reach: Reach, answer: bytes) -> None:
    """The permit of that attempt then waits for its end, so nothing else does."""
    events: list[str] = []
    with run_raw_server(*[answer] * 4, _PAGE) as server:
        retries = RequestRetries(
            sleep=lambda seconds: events.append(f"slept {seconds}"),
            on_pause=lambda _: events.append("paused"),
        )
        transport = reach(server.url).transport
        api = LeadsApi(transport, StaticToken(TOKEN), lambda _: events.append("permit"), retries)
        api.look_up("C1", "a")
    assert events == ["permit", *["paused", "slept 0.0", "permit"] * 4]


def test_a_vendor_that_only_asks_for_pauses_is_given_up(reach: Reach) -> None:
    """At the tenth time, each of them reported."""
    with run_raw_server(_PAUSING["429"]) as server:
        client = reach(server.url)
        with pytest.raises(RateLimited) as caught:
            client.look_up("C1", "a")
        assert caught.value.attempts == len(server.requests) == 10
        assert client.pauses == [7.0] * 10


@pytest.mark.parametrize(("pause_s", "sent"), [(30, 4), (60, 3), (3600, 3)])
def test_long_pauses_are_not_waited_for_ten_times(reach: Reach, pause_s: int, sent: int) -> None:
    """Three at least, and two minutes; the last one is reported too, so that it is kept."""
    answer = response("503 Service Unavailable", b"", f"Retry-After: {pause_s}")
    with run_raw_server(answer) as server:
        client = reach(server.url)
        with pytest.raises(RateLimited) as caught:
            client.look_up("C1", "a")
        assert caught.value.attempts == len(server.requests) == sent
        assert client.pauses == [float(pause_s)] * sent


@pytest.mark.parametrize(
    ("took_s", "probe", "expected"),
    [(1, False, 3), (12, False, 2), (16, False, 1), (60, False, 1), (0.1, True, 3), (5, True, 1)],
)
def test_a_vendor_that_swallows_requests_is_not_waited_for_three_times(
    took_s: float, probe: bool, expected: int
) -> None:
    """Each attempt takes the read timeout: none begins that would end after 30 s; or 5, a probe."""
    sent: list[int] = []

    def swallow() -> None:
        sent.append(1)
        silence = ApiResponse(failure=TransportFailure.NO_RESPONSE, took_s=took_s)
        raise Retryable(ApiCall.READ, silence)

    retries = RequestRetries(sleep=lambda _: None, on_pause=lambda _: None)
    with pytest.raises(Retryable) as caught:
        (retries.for_probes() if probe else retries).run(ApiCall.READ, swallow)
    assert caught.value.attempts == len(sent) == expected
    assert caught.value.took_s >= expected * took_s


def test_a_run_that_is_stopped_retries_nothing(reach: Reach) -> None:
    """The pause before a retry ends with the run."""

    def stop(_: float) -> None:
        raise RunError("the run was stopped")

    with run_raw_server(_PASSING["500"]) as server:
        client = reach(server.url)
        retries = RequestRetries(sleep=stop, on_pause=client.pauses.append)
        api = LeadsApi(client.transport, StaticToken(TOKEN), client.permits.append, retries)
        with pytest.raises(RunError, match="stopped"):
            api.look_up("C1", "a")
        assert len(server.requests) == 1


def test_a_login_gets_past_failures(reach: Reach, vendor: SandboxHandle) -> None:
    """The read that needs it is sent once, and its pause is reported once."""
    vendor.change_rules(tokens=("nobody-has-this-one",))
    vendor.add_fault(kind="status", status=503, route="token", times=1)
    client = reach(vendor.url, login=by_password())
    client.look_up("C1", "a")
    assert [entry.status for entry in vendor.requests] == [503, 200, 200]
    assert client.permits == [*[ApiCall.LOGIN] * 2, ApiCall.READ]


@pytest.mark.parametrize(("answer", "sent"), [("500", 3), ("429", 10)])
def test_a_login_that_keeps_failing_is_not_tried_for_each_attempt_of_its_read(
    reach: Reach, answer: str, sent: int
) -> None:
    """Three times, and not nine; a pause is reported once each."""
    with run_raw_server((_PASSING | _PAUSING)[answer]) as server:
        client = reach(server.url, login=by_password())
        with pytest.raises(Retryable, match=r"^login") as caught:
            client.look_up("C1", "a")
        assert caught.value.attempts == len(server.requests) == sent
        assert len(client.pauses) == (sent if answer == "429" else 0)


@settings(deadline=None, max_examples=60)
@given(
    failures=st.lists(st.sampled_from([*_PASSING, *_PAUSING]), max_size=20),
    end=st.sampled_from([*_FINAL]),
    read=st.sampled_from([*READS]),
)
def test_attempts_are_bounded_and_each_has_a_permit(
    failures: list[str], end: str, read: str
) -> None:
    """At most three failures and ten pauses, in any order; nothing is sent after an answer."""
    answers = (_PASSING | _PAUSING | _FINAL)[end], *[(_PASSING | _PAUSING)[f] for f in failures]
    with run_raw_server(*answers[1:], answers[0]) as server:
        transport = Transport(server.url, Timeouts(), connections=1)
        client = Client(transport, None)
        try:
            READS[read](client)
            error = None
        except ApiError as caught:
            error = caught
        finally:
            transport.close()
        sent = [*failures, end][: len(server.requests)]
    failed = sum(each in _PASSING for each in sent)
    paused = sum(each in _PAUSING for each in sent)
    assert len(client.permits) == len(sent)
    assert len(client.pauses) == paused
    assert len(client.slept) == len(sent) - 1
    assert failed <= MAX_ATTEMPTS
    assert paused <= MAX_RATE_LIMITED
    if sent[-1] == end:
        assert (error is None) == (end == "page")
    else:
        # Given up, and only because one of the two limits was reached.
        assert error is not None
        assert error.attempts == (failed if sent[-1] in _PASSING else paused)
        assert error.attempts == (MAX_ATTEMPTS if sent[-1] in _PASSING else MAX_RATE_LIMITED)


def test_processes_that_failed_together_do_not_retry_together(reach: Reach) -> None:
    """Each pause is spread by half."""
    clients = [reach("http://127.0.0.1:1") for _ in range(2)]
    for client in clients:
        with pytest.raises(Retryable):
            client.look_up("C1", "a")
    assert clients[0].slept != clients[1].slept
