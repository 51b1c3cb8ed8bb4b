import gzip
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from leadloop.client.errors import ApiError, Fatal, InDoubt, RateLimited, Rejected, Retryable
from leadloop.client.transport import MAX_RESPONSE_BYTES
from leadloop.sandbox import SandboxHandle
from tests.client.conftest import Client, Reach
from tests.client.test_api import HOUR, create, sendable
from tests.raw_http_server import RESET, create_certificate, read_request, response, run_raw_server

SECRETS = ("sandbox-token", "Ann a", sendable("a").e164 or "")


def a_create(client: Client) -> None:
    """The call that must not be repeated."""
    client.create("C1", [sendable("a")])


def a_disable(client: Client) -> None:
    """A call that may be."""
    client.disable("C1", ["a"])


def a_read(client: Client) -> None:
    """Another one."""
    client.list_processed("C1", HOUR, unit="ms", page=1, page_size=10)


CALLS = pytest.mark.parametrize(
    ("call", "error"), [(a_create, InDoubt), (a_disable, Retryable), (a_read, Retryable)]
)


@contextmanager
def fails(error: type[ApiError], said: str = "") -> Iterator[None]:
    """The block fails with that very error, whose text tells nothing secret."""
    with pytest.raises(ApiError, match=said or None) as caught:
        yield
    assert type(caught.value) is error
    for secret in SECRETS:
        assert secret not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("call", [a_create, a_disable, a_read])
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://no-such-host.invalid", "http://127.0.0.1:99999"]
)
def test_where_nobody_listens_nothing_was_carried_out(reach: Reach, call: Any, url: str) -> None:
    """Refused, or no such host: send it again later, a create as well."""
    with fails(Retryable, "no connection"):
        call(reach(url))


def test_the_cause_is_that_of_the_request_itself(reach: Reach) -> None:
    """Also where it is sent because another one has failed, as a probe is."""
    try:
        raise ValueError("an earlier failure")
    except ValueError:
        with fails(Retryable, r"no connection \(ConnectionRefusedError\)"):
            a_read(reach("http://127.0.0.1:1"))


def test_a_port_that_speaks_no_tls(reach: Reach) -> None:
    """The token is not sent, so a create is not in doubt: it closes instead of shaking hands."""
    with run_raw_server(response("200 OK")) as listener:
        with fails(Retryable, "no connection"):
            a_create(reach(listener.url.replace("http:", "https:")))
        assert b"sandbox-token" not in b"".join(listener.requests)


def test_a_server_that_speaks_no_tls(reach: Reach, vendor: SandboxHandle) -> None:
    """Nothing can have been carried out where both sides never came to speak."""
    with fails(Retryable, "no connection"):
        a_create(reach(vendor.url.replace("http:", "https:")))


def test_a_certificate_that_is_not_the_vendor_s(reach: Reach, tmp_path: Path) -> None:
    """Nothing is sent to whoever shows it, so nothing is in doubt."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(create_certificate(tmp_path))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        context.wrap_socket(server, server_side=True) as secure,
    ):
        answering = threading.Thread(target=_try_to_accept, args=(secure,), daemon=True)
        answering.start()
        with fails(Retryable, "no connection"):
            a_create(reach(f"https://127.0.0.1:{secure.getsockname()[1]}"))
        answering.join(timeout=10)


def test_plain_text_within_tls_does_not_mean_that_nothing_was_sent(
    reach: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middlebox that cuts in after the request: the vendor may have carried it out."""
    file = create_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(
            target=_answer_in_plain_text, args=(server, context, requests), daemon=True
        )
        answering.start()
        with fails(InDoubt, r"no answer \(SSLError\)"):
            a_create(reach(f"https://127.0.0.1:{server.getsockname()[1]}"))
        answering.join(timeout=10)
    assert b'"lead_id"' in requests[0]


def _answer_in_plain_text(
    server: socket.socket, context: ssl.SSLContext, requests: list[bytes]
) -> None:
    plain, _ = server.accept()
    # The wrapped socket takes over the plain one's descriptor, so this is another one of it.
    with plain.dup() as below, context.wrap_socket(plain, server_side=True) as secure:
        requests.append(read_request(secure))
        below.sendall(response("503 Service Unavailable"))


def _try_to_accept(server: ssl.SSLSocket) -> None:
    with suppress(ssl.SSLError, OSError):
        server.accept()[0].close()


@CALLS
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["reset", "hang"])
def test_no_answer_puts_a_create_in_doubt(
    reach: Reach, vendor: SandboxHandle, kind: str, when: Any, call: Any, error: type[ApiError]
) -> None:
    """Whether the effect had happened or not: the client cannot know."""
    if call is not a_create:
        create(reach(vendor.url), "a")
    vendor.add_fault(kind=kind, when=when, seconds=10.0)
    with fails(error, "no answer"):
        call(reach(vendor.url, read_s=0.2))
    created = 1 if when == "after" or call is not a_create else 0
    deadline = time.monotonic() + 30
    # The client has given up; the vendor may still be at it.
    while vendor.store.creations("C1").get("a", 0) != created and time.monotonic() < deadline:
        time.sleep(0.01)
    vendor.clear_faults()
    assert vendor.store.creations("C1").get("a", 0) == created


@CALLS
@pytest.mark.parametrize("kind", ["cut", "foreign"])
def test_a_success_that_cannot_be_read_puts_a_create_in_doubt(
    client: Client, vendor: SandboxHandle, kind: str, call: Any, error: type[ApiError]
) -> None:
    """Half an answer, or the page of a captive portal under status 200."""
    if call is not a_create:
        create(client, "a")
    vendor.add_fault(kind=kind)
    with fails(error):
        call(client)


@CALLS
@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize("body", ["json", "html", "empty"])
def test_a_server_error_puts_a_create_in_doubt(
    client: Client, vendor: SandboxHandle, status: int, body: Any, call: Any, error: type[ApiError]
) -> None:
    """The vendor's own or a proxy's, with whatever body."""
    vendor.add_fault(kind="status", status=status, body=body)
    with fails(error, f"HTTP {status}"):
        call(client)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", InDoubt),
        (b"HTTP/1.1 ", InDoubt),
        (b"HTTP/1.1 201 Created\r\nContent-Le", InDoubt),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 50\r\n\r\n{}", InDoubt),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", InDoubt),
        (response("201 Created", b"not gzip", "Content-Encoding: gzip"), InDoubt),
        (response("201 Created", b"\xff\xfe"), InDoubt),
        (response("201 Created", "[" * 5000), InDoubt),
        (response("201 Created", '{"error": "later"}'), InDoubt),
        (b"220 smtp.example.com ESMTP\r\n", InDoubt),
        (RESET, InDoubt),
        (response("303 See Other", b"", "Location: /done"), InDoubt),
        (response("503 Service Unavailable"), InDoubt),
        (response("503 Service Unavailable", b"", "Retry-After: 7"), RateLimited),
        (response("429 Too Many Requests", b"", "Retry-After: 7"), RateLimited),
        (response("408 Request Timeout"), Retryable),
        (response("403 Forbidden"), Fatal),
        (response("405 Method Not Allowed"), Fatal),
        (response("422 Unprocessable Content", "[]"), Rejected),
    ],
)
def test_what_a_create_is_told_by_each_answer(
    reach: Reach, answer: bytes, error: type[ApiError]
) -> None:
    """Bytes that are no HTTP, answers that break off anywhere, and every kind of status."""
    with run_raw_server(answer) as listener, fails(error):
        a_create(reach(listener.url))
    assert len(listener.requests) == 1, "never sent again by the client itself"


def dripping(*pieces: bytes) -> Iterator[bytes]:
    """The pieces, the last one for ever, each a little later than the one before."""
    yield from pieces[:-1]
    while True:
        time.sleep(0.05)
        yield pieces[-1]


_PACKED = gzip.compress(b" " * 100_000)


@CALLS
@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 100000\r\n\r\n", b" "),
        (b"HTTP/1.1 201 Created\r\n\r\n", b" "),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (
            b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 9999\r\n\r\n",
            *(_PACKED[:10], b"\0"),
        ),
    ],
    ids=["length", "until closed", "chunked", "gzip"],
)
def test_an_answer_that_drips_ends(
    reach: Reach, pieces: tuple[bytes, ...], call: Any, error: type[ApiError]
) -> None:
    """The read time-out holds for the body as a whole too, not only from byte to byte."""
    with run_raw_server(*[dripping(*pieces) for _ in range(3)]) as server:
        begun = time.monotonic()
        with fails(error, "HTTP 201"):
            call(reach(server.url, read_s=0.5))
        assert time.monotonic() - begun < 30


@CALLS
@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 201 Crea", b"t"),
        (b"HTTP/1.1 201 Created\r\nX-Slow: ", b"y"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
    ],
    ids=["status", "header", "only interim responses", "length of a chunk"],
)
def test_an_answer_whose_head_drips_ends(
    reach: Reach, pieces: tuple[bytes, ...], call: Any, error: type[ApiError]
) -> None:
    """One deadline for the whole answer; the next request is answered on a connection of its own.

    Without it each of these lines takes an hour.
    """
    page = response("200 OK", '{"count": 0, "results": []}')
    with run_raw_server(*[dripping(*pieces) for _ in range(3)], page) as server:
        client = reach(server.url, read_s=0.5)
        with fails(error, "no answer|HTTP 201"):
            call(client)
        while len(server.requests) < 3:
            with fails(InDoubt):
                a_create(client)
        assert client.look_up("C1", "a").absent


def test_a_connection_is_kept_after_a_slow_answer(reach: Reach) -> None:
    """What was left of its time is not what the next answer on that connection gets."""
    peers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            peers.append(self.client_address)
            body = b'{"count": 0, "results": []}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            time.sleep(1.2)
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = reach(f"http://127.0.0.1:{server.server_port}", read_s=2)
        for _ in range(2):
            a_read(client)
        client.transport.close()
        server.shutdown()
    assert len(peers) == 2
    assert len(set(peers)) == 1


def test_an_answer_without_end_is_not_kept(reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain or packed small: what this machine may not be able to hold is not read to its end."""
    monkeypatch.setattr("leadloop.client.transport.MAX_RESPONSE_BYTES", 99_999)
    packed = response("201 Created", _PACKED, "Content-Encoding: gzip")
    with run_raw_server(response("201 Created", b" " * 100_000), packed) as server:
        for _ in range(2):
            with fails(InDoubt):
                a_create(reach(server.url))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" + b"[]," * 21_000_000 + b"[]]", id="many bytes"),
        pytest.param(b"[" + b"[]," * 9_000_000 + b"[]]", id="many values"),
        pytest.param(b"[" * 30_000_000, id="deep"),
        pytest.param(b"]" * 30_000_000, id="closed"),
    ],
)
def test_an_answer_that_inflates_takes_little_memory(reach: Reach, body: bytes) -> None:
    """63 KB of gzip are 63 MB of lists: they are no answer, and are never made values of."""
    packed = response("200 OK", gzip.compress(body, 9), "Content-Encoding: gzip")
    with run_raw_server(packed) as server:
        client = reach(server.url)
        tracemalloc.start()
        try:
            with fails(Retryable, "not the vendor's JSON"):
                client.list_all("C1", page=1, page_size=1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 5 * MAX_RESPONSE_BYTES


def test_a_packed_answer_is_read(reach: Reach) -> None:
    """Pages shrink to a tenth; two members make one body, and half of one is none."""
    first, second = gzip.compress(b'{"count": 0,'), gzip.compress(b' "results": []}')
    with run_raw_server(
        response("200 OK", first + second, "Content-Encoding: GZIP"),
        response("200 OK", first + second[:-9], "Content-Encoding: gzip"),
    ) as server:
        client = reach(server.url)
        assert client.list_all("C1", page=1, page_size=1).count == 0
        with fails(Retryable):
            client.list_all("C1", page=1, page_size=1)
        assert b"Accept-Encoding: gzip\r\n" in server.requests[0]


def test_connections_are_kept(reach: Reach) -> None:
    """An answer that was read to its end, empty or not, leaves its connection to the next one."""
    peers: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b'{"count": 0, "results": []}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            peers.append(self.client_address)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        client = reach(f"http://127.0.0.1:{server.server_port}")
        for call in (a_create, a_read, a_disable, a_read):
            call(client)
        client.transport.close()
        server.shutdown()
    assert len(peers) == 4
    assert len(set(peers)) == 1


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Accepted", "204 No Content"])
def test_every_success_is_one(reach: Reach, status: str) -> None:
    """With no body at all, too."""
    with run_raw_server(response(status)) as listener:
        a_create(reach(listener.url))
        assert len(listener.requests) == 1


_AT_TWO = "Date: Sat, 31 Jan 2026 14:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 7"], 7.0),
        (["Retry-After:  120 "], 120.0),
        (["Retry-After: Sat, 31 Jan 2026 14:00:25 GMT", _AT_TWO], 25.0),
        (["Retry-After: Sat, 31 Jan 2026 13:59:00 GMT", _AT_TWO], 0.0),
        (["Retry-After: Sat, 31 Jan 2026 14:00:00 GMT", "Date: lately"], 0.0),
        (["Retry-After: soon"], 60.0),
        (["X-Nothing: 1"], None),
    ],
)
def test_how_long_the_vendor_asks_us_to_wait(
    reach: Reach, headers: list[str], seconds: float | None
) -> None:
    """In seconds, or until a moment by its own clock; nonsense is taken as a minute."""
    with run_raw_server(response("429 Too Many Requests", b"", *headers)) as listener:
        with pytest.raises(RateLimited) as caught:
            a_read(reach(listener.url))
        assert caught.value.retry_after_s == seconds


def test_a_vendor_without_a_clock_is_waited_for_by_ours(reach: Reach) -> None:
    """An answer need not have a Date."""
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    with run_raw_server(
        response("429 Too Many Requests", b"", f"Retry-After: {moment}")
    ) as listener:
        with pytest.raises(RateLimited) as caught:
            a_read(reach(listener.url))
        assert 90 < (caught.value.retry_after_s or 0) <= 100


@pytest.mark.parametrize(
    ("status", "error"), [(403, Fatal), (404, Fatal), (408, Retryable), (500, InDoubt)]
)
def test_whoever_asks_for_a_pause_gets_it(reach: Reach, status: int, error: type[ApiError]) -> None:
    """Nobody of the business sends anything; what becomes of the request is another matter."""
    with run_raw_server(response(f"{status} Later", b"", "Retry-After: 7")) as listener:
        client = reach(listener.url)
        with fails(error, f"HTTP {status}"):
            a_create(client)
        assert client.pauses == [7.0]


def test_a_success_pauses_nobody(reach: Reach) -> None:
    """Nor does a redirect, whose Retry-After is about the other address."""
    moved = response("307 Moved", b"", "Location: /x", "Retry-After: 7")
    with run_raw_server(response("202 Accepted", b"", "Retry-After: 7"), moved) as listener:
        client = reach(listener.url)
        a_create(client)
        with fails(Fatal):
            a_create(client)
        assert client.pauses == []


@pytest.mark.parametrize("call", [a_create, a_disable, a_read])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_never_followed(reach: Reach, call: Any, status: int) -> None:
    """The token and the leads go to the address that a person has set, and nowhere else."""
    with run_raw_server(response("200 OK", '{"count": 0, "results": []}')) as elsewhere:
        moved = response(f"{status} Moved", b"", f"Location: {elsewhere.url}/x")
        with run_raw_server(moved) as listener:
            with pytest.raises(ApiError, match="LEADLOOP_API_URL"):
                call(reach(listener.url))
            assert len(listener.requests) == 1
        assert elsewhere.requests == []


def test_the_vendor_s_next_is_never_followed(reach: Reach) -> None:
    """It names plain http and another host in the vendor's own sample."""
    with run_raw_server(response("200 OK")) as elsewhere:
        page = f'{{"count": 9, "next": "{elsewhere.url}/x", "results": [{{"lead_id": 1}}]}}'
        with run_raw_server(response("200 OK", page)) as listener:
            client = reach(listener.url)
            for number in (1, 2):
                client.list_processed("C1", HOUR, unit="ms", page=number, page_size=1)
            assert [b"page=2&" in request for request in listener.requests] == [False, True]
        assert elsewhere.requests == []


def test_a_netrc_file_does_not_replace_the_token(
    reach: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's ~/.netrc for the same host belongs to some other program."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password s3cret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with run_raw_server(response("201 Created")) as listener:
        a_create(reach(listener.url))
    assert b"Authorization: Bearer sandbox-token\r\n" in listener.requests[0]
    assert b"Basic" not in listener.requests[0]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_stands_between_us_and_this_machine(
    reach: Reach, monkeypatch: pytest.MonkeyPatch, name: str, host: str
) -> None:
    """It would be told the token in the clear: plain http is for loopback alone."""
    with (
        run_raw_server(response("201 Created")) as proxy,
        run_raw_server(response("201 Created")) as server,
    ):
        monkeypatch.setenv(name, proxy.url)
        a_create(reach(server.url.replace("127.0.0.1", host)))
        assert len(server.requests) == 1
        assert proxy.requests == []


def test_a_proxy_is_used_for_the_vendor(reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for a tunnel, and is told no token; where it gives none, nothing was sent."""
    with run_raw_server(response("503 Service Unavailable")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with fails(Retryable, "no connection"):
            a_create(reach("https://vendor.invalid"))
        assert proxy.requests[0].startswith(b"CONNECT vendor.invalid:443 ")
        assert b"sandbox-token" not in proxy.requests[0]


def test_every_request_is_counted(client: Client) -> None:
    """Answered or not: the contract's `requests`."""
    create(client, "a")
    a_disable(client)
    with pytest.raises(Rejected):
        client.disable("C1", ["stranger"])
    assert client.transport.requests_sent == 3


def test_a_port_that_answers_nothing_at_all(reach: Reach) -> None:
    """It accepts and then is silent: the time-out ends it, and a create is in doubt."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with fails(InDoubt, "no answer"):
            a_create(reach(url, read_s=0.2))


@pytest.mark.parametrize("status", [400, 404, 422])
@pytest.mark.parametrize("call", [a_create, a_disable])
def test_a_proxy_s_refusal_blames_no_lead(
    client: Client, vendor: SandboxHandle, call: Any, status: int
) -> None:
    """A person must look: a good lead is not given up for it, and no list is split."""
    vendor.add_fault(kind="status", status=status, body="html")
    with fails(Fatal, f"HTTP {status}; .*LEADLOOP_API_URL"):
        call(client)


@pytest.mark.parametrize("call", [a_create, a_disable, a_read])
def test_a_login_page_in_the_vendor_s_place_is_told(reach: Reach, call: Any) -> None:
    """A status of success alone would send nobody looking for the proxy."""
    page = response("200 OK", "<html>Sign in</html>", "Content-Type: text/html")
    with run_raw_server(page) as server, pytest.raises(ApiError, match="not the vendor's JSON"):
        call(reach(server.url))


def test_no_cookie_is_kept(reach: Reach) -> None:
    """A session cookie beside the token makes some servers demand a CSRF token of a create."""
    page = response(
        "200 OK", '{"count": 0, "results": []}', "Set-Cookie: sessionid=abc; Path=/", "X: y"
    )
    with run_raw_server(page) as server:
        client = reach(server.url)
        a_read(client)
        a_read(client)
    assert len(server.requests) == 2
    assert not any(b"cookie" in request.lower() for request in server.requests)
