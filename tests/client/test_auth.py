from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from threading import Event, Lock

import pytest

from leadloop.client.auth import Credentials, OAuthPasswordGrant
from leadloop.client.errors import Fatal, Retryable
from leadloop.core.verdicts import ApiCall
from leadloop.sandbox import Rules, SandboxHandle
from tests.client.conftest import Client, Login, Reach
from tests.client.test_api import create
from tests.raw_http_server import response, run_raw_server

LockLogins = Callable[[], AbstractContextManager[None]]
_DEFAULTS = {field.name: field.default for field in fields(Rules)}
RIGHT = {
    name: str(_DEFAULTS[name]) for name in ("client_id", "client_secret", "username", "password")
}


def by_password(**changes: str) -> Login:
    """A login with the sandbox's own credentials, some of them changed."""
    credentials = Credentials(**(RIGHT | changes))
    return lambda transport, permit, retries: OAuthPasswordGrant(
        transport, credentials, permit, retries
    )


def in_turn(lock: LockLogins) -> Login:
    """A login whose turns a lock decides."""
    return lambda transport, permit, retries: OAuthPasswordGrant(
        transport, Credentials(**RIGHT), permit, retries, lock
    )


def kinds(vendor: SandboxHandle) -> list[str]:
    """What was asked of the vendor, and how it answered."""
    return [f"{entry.kind} {entry.status}" for entry in vendor.requests]


@pytest.fixture
def logged_in(reach: Reach, vendor: SandboxHandle) -> Client:
    """A client with a login by password; no fixed token is good."""
    vendor.change_rules(tokens=("nobody-has-this-one",))
    return reach(vendor.url, login=by_password())


def test_one_login_serves_many_requests(logged_in: Client, vendor: SandboxHandle) -> None:
    """And draws on the budget like any other request."""
    for _ in range(3):
        logged_in.look_up("C1", "a")
    assert kinds(vendor) == ["token 200", *["responses 200"] * 3]
    assert logged_in.permits == [ApiCall.LOGIN, *[ApiCall.READ] * 3]


def test_many_threads_share_one_login(logged_in: Client, vendor: SandboxHandle) -> None:
    """A run of eight senders does not log in eight times, nor renew eight times."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: logged_in.look_up("C1", "a"), range(16)))
        assert kinds(vendor).count("token 200") == 1
        vendor.change_rules(clock_offset=40_000)  # beyond its ten hours
        list(pool.map(lambda _: logged_in.look_up("C1", "a"), range(16)))
    assert kinds(vendor).count("token 200") == 2


def test_a_token_is_renewed_before_it_ends(reach: Reach, vendor: SandboxHandle) -> None:
    """By the refresh grant: no request is sent with a token that is about to end."""
    vendor.change_rules(tokens=("nobody-has-this-one",), expires_in=30)
    client = reach(vendor.url, login=by_password())
    client.look_up("C1", "a")
    client.look_up("C1", "a")
    assert kinds(vendor) == ["token 200", "responses 200"] * 2


def test_a_create_never_waits_for_a_login(reach: Reach, vendor: SandboxHandle) -> None:
    """Nor does it draw on the budget for one: who opts out meanwhile would be sent.

    Not where the token is about to end, and not while somebody else waits to renew it.
    """
    vendor.change_rules(tokens=("nobody-has-this-one",), expires_in=30)
    waits, goes_on = Event(), Event()
    goes_on.set()

    def permit(_: ApiCall) -> None:
        waits.set()
        assert goes_on.wait(10)

    client = reach(
        vendor.url, login=lambda transport, _, retries: by_password()(transport, permit, retries)
    )
    client.ensure_token()
    create(client, "a")
    waits.clear()
    goes_on.clear()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(client.ensure_token)
        assert waits.wait(10)
        create(client, "b")
        assert not renewing.done()
        goes_on.set()
    create(client, "c")
    assert kinds(vendor) == ["token 200", *["create 201"] * 2, "token 200", "create 201"]


def test_a_token_that_ended_before_its_create_is_renewed_and_the_leads_given_back(
    logged_in: Client, vendor: SandboxHandle
) -> None:
    """Another turn shows whether they may still be sent."""
    logged_in.ensure_token()
    vendor.change_rules(clock_offset=40_000)
    with pytest.raises(Retryable):
        create(logged_in, "a")
    create(logged_in, "a")
    assert kinds(vendor) == ["token 200", "create 401", "token 200", "create 201"]


def test_a_401_renews_once_and_sends_again(logged_in: Client, vendor: SandboxHandle) -> None:
    """A deployment outlives its token; the budget counts every request."""
    logged_in.look_up("C1", "a")
    vendor.change_rules(clock_offset=40_000)
    logged_in.look_up("C1", "a")
    expected = ["token 200", "responses 200", "responses 401", "token 200", "responses 200"]
    assert kinds(vendor) == expected
    assert len(logged_in.permits) == 5


def test_a_refresh_token_that_ended_falls_back_on_the_password(
    logged_in: Client, vendor: SandboxHandle
) -> None:
    """Revoked, or forgotten by a restart of the vendor's: the password is still good."""
    logged_in.look_up("C1", "a")
    vendor.reset()
    logged_in.look_up("C1", "a")
    assert kinds(vendor) == ["responses 401", "token 400", "token 200", "responses 200"]


def test_a_second_401_stops(logged_in: Client, vendor: SandboxHandle) -> None:
    """A new token that is rejected as well will not get better: no endless loop."""
    vendor.add_fault(kind="status", status=401, route="responses")
    with pytest.raises(Fatal, match="the login is not accepted"):
        logged_in.look_up("C1", "a")
    assert [kind for kind in kinds(vendor) if "responses" in kind] == ["responses 401"] * 2


def test_a_fixed_token_that_is_rejected_stops(reach: Reach, vendor: SandboxHandle) -> None:
    """At once, with what to check, and without the token in the text."""
    vendor.change_rules(tokens=("another",))
    with pytest.raises(Fatal, match="LEADLOOP_API_TOKEN") as caught:
        reach(vendor.url).look_up("C1", "a")
    assert kinds(vendor) == ["responses 401"]
    assert "sandbox-token" not in repr(caught.value) + str(caught.value)


@pytest.mark.parametrize("wrong", ["client_id", "client_secret", "username", "password"])
def test_a_wrong_login_stops(reach: Reach, vendor: SandboxHandle, wrong: str) -> None:
    """After one try: more of them may lock the account. Nothing secret is in the text."""
    client = reach(vendor.url, login=by_password(**{wrong: "s3cret"}))
    with pytest.raises(Fatal) as caught:
        client.look_up("C1", "a")
    assert [entry.kind for entry in vendor.requests] == ["token"]
    assert "check LEADLOOP_CLIENT_ID" in str(caught.value)
    for secret in ("s3cret", *RIGHT.values()):
        assert secret not in repr(caught.value) + str(caught.value)


def test_a_login_that_is_down_is_tried_later(logged_in: Client, vendor: SandboxHandle) -> None:
    """The password is not given up for a 503."""
    vendor.add_fault(kind="status", status=503, route="token", times=3)
    with pytest.raises(Retryable):
        logged_in.look_up("C1", "a")
    logged_in.look_up("C1", "a")
    assert kinds(vendor) == [*["token 503"] * 3, "token 200", "responses 200"]


@pytest.mark.parametrize(
    "body",
    [
        *("", "[]", "{}", "<html>", '{"access_token": 5}', '{"access_token": null}'),
        *('{"access_token": "a\\nb"}', '{"access_token": "\N{SNOWMAN}"}', '{"access_token": ""}'),
    ],
)
def test_a_grant_without_a_token_is_tried_later(reach: Reach, body: str) -> None:
    """Whatever came in its place: no header is made of it."""
    with run_raw_server(response("200 OK", body)) as listener:
        with pytest.raises(Retryable):
            reach(listener.url, login=by_password()).look_up("C1", "a")
        assert len(listener.requests) == 3


def test_the_password_grant_is_form_encoded(reach: Reach) -> None:
    """As the vendor's document says, and without an Authorization header."""
    grant = response("200 OK", '{"access_token": "t"}')
    page = response("200 OK", '{"count": 0, "results": []}')
    with run_raw_server(grant, page) as listener:
        reach(listener.url, login=by_password(password="p&ss w=rd")).look_up("C1", "a")
    token, read = listener.requests
    head, _, form = token.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /oauth/token/ ")
    assert b"application/x-www-form-urlencoded" in head
    assert b"authorization" not in head.lower()
    assert b"grant_type=password" in form
    assert b"password=p%26ss+w%3Drd" in form
    assert b"Authorization: Bearer t\r\n" in read


def test_nothing_secret_shows_in_a_repr() -> None:
    """Tracebacks show values."""
    assert "sandbox" not in repr(Credentials(**RIGHT))


def test_logins_that_end_each_other_fail_no_request(reach: Reach, vendor: SandboxHandle) -> None:
    """A vendor that keeps one token alive, and processes that work at once: in turn, all go on."""
    vendor.change_rules(tokens=("nobody-has-this-one",), single_token=True)
    mutex = Lock()

    @contextmanager
    def lock() -> Iterator[None]:
        with mutex:
            yield

    clients = [reach(vendor.url, login=in_turn(lock)) for _ in range(3)]

    def work(client: Client) -> None:
        for _ in range(10):
            client.look_up("C1", "a")
            client.disable("C1", ["a"])

    clients[0].ensure_token()
    create(clients[0], "a")
    with ThreadPoolExecutor(6) as pool:
        # Two threads of each process.
        list(pool.map(work, clients * 2))
    found = kinds(vendor)
    assert found.count("responses 200") == found.count("disable 201") == 60
    assert "responses 401" in found, "a login has ended another"


def test_a_thread_whose_token_ended_twice_goes_on(reach: Reach, vendor: SandboxHandle) -> None:
    """Another thread has replaced the token, and another process has ended that one too."""
    vendor.change_rules(tokens=("nobody-has-this-one",), single_token=True)
    ours, others = (reach(vendor.url, login=by_password()) for _ in range(2))
    ours.ensure_token()
    vendor.add_fault(kind="status", status=401, route="responses", nth=1)
    others.ensure_token()
    ours.look_up("C1", "a")
    assert kinds(vendor)[-1] == "responses 200"
