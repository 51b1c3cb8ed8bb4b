"""Whether a request was sent: by what the connection did, whatever the exception is."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from leadloop.client.transport import Timeouts, Transport
from leadloop.core.verdicts import TransportFailure
from tests.raw_http_server import RESET, create_certificate, read_request, response, run_raw_server

_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _BUNDLES:
        monkeypatch.delenv(name, raising=False)


def failure(url: str, *, read_s: float = 10.0, before: int = 0) -> TransportFailure | None:
    """Send a request like a create, after some that are answered; why there was no answer."""
    transport = Transport(url, Timeouts(connect_s=1.0, read_s=read_s), connections=1)
    try:
        for _ in range(before):
            assert transport.send("GET", "/", token="t").response.status == 200
        return transport.send("POST", "/", token="t", content=b"[{}]").response.failure
    finally:
        transport.close()


Act = Callable[[socket.socket], None]


@contextmanager
def serving(act: Act) -> Iterator[str]:
    """Hand the first connection to `act`; its address, without a scheme."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError), server.accept()[0] as connection:
                connection.settimeout(3)
                act(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


def _close(_: socket.socket) -> None:
    pass


def _answer_in_plain(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(response("200 OK"))


def _shake_hands(folder: Path, then: Act = _close) -> Act:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(create_certificate(folder))

    def act(connection: socket.socket) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secure:
            then(secure)

    return act


def _build_tunnel(then: Act) -> Act:
    def act(connection: socket.socket) -> None:
        assert read_request(connection).startswith(b"CONNECT ")
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        then(connection)

    return act


def _drip(*pieces: bytes) -> Act:
    """Send the pieces, and then the last one again and again until the client has gone."""

    def act(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"".join(pieces))
        while True:
            time.sleep(0.05)
            connection.sendall(pieces[-1])

    return act


def _read_and_close(connection: socket.socket) -> None:
    assert b"[{}]" in read_request(connection)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_without_a_connection_nothing_is_sent(url: str) -> None:
    """The port is closed, or there is no such host."""
    assert failure(url) is TransportFailure.NOT_SENT


@pytest.mark.parametrize("name", _BUNDLES)
@pytest.mark.parametrize("bundle", ["missing.pem", "no.pem", "empty.pem", "a folder"])
def test_without_certificates_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bundle: str
) -> None:
    """A bundle that is no file, or none in PEM: no token, no lead has left, so none is in doubt."""
    (tmp_path / "no.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense")
    (tmp_path / "empty.pem").touch()
    (tmp_path / "a folder").mkdir()
    monkeypatch.setenv(name, str(tmp_path / bundle))
    with serving(_shake_hands(tmp_path, _read_and_close)) as address:
        assert failure(f"https://{address}") is TransportFailure.NOT_SENT


@pytest.mark.parametrize("act", [_close, _answer_in_plain])
def test_without_a_handshake_nothing_is_sent(act: Act) -> None:
    """The port speaks no TLS."""
    with serving(act) as address:
        assert failure(f"https://{address}") is TransportFailure.NOT_SENT


def test_nothing_is_sent_to_a_server_that_nobody_vouches_for(tmp_path: Path) -> None:
    """Its certificate is not trusted."""
    with serving(_shake_hands(tmp_path, _read_and_close)) as address:
        assert failure(f"https://{address}") is TransportFailure.NOT_SENT


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "act",
    [_close, _answer_in_plain, _build_tunnel(_close), _build_tunnel(_answer_in_plain)],
    ids=["closes", "answers", "tunnel to what closes", "tunnel to plain text"],
)
def test_without_a_tunnel_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, act: Act, scheme: str
) -> None:
    """A proxy that builds none, or one that ends before TLS: what it was sent is its CONNECT."""
    with serving(act) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://{address}")
        assert failure("https://vendor.invalid") is TransportFailure.NOT_SENT


def test_a_handshake_that_drips_ends() -> None:
    """A byte now and then of a record of 4 KB; no byte of the request has left."""
    with serving(_drip(b"\x16\x03\x03\x10\x00", b"\x00")) as address:
        assert failure(f"https://{address}") is TransportFailure.NOT_SENT


@pytest.mark.parametrize("line", [b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_a_tunnel_whose_answer_drips_ends(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    """The proxy has its CONNECT, and the request stays here."""
    with serving(_drip(line, b"K")) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        assert failure("https://vendor.invalid", read_s=0.5) is TransportFailure.NOT_SENT


def test_an_answer_that_drips_in_tls_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request went out, and the answer has one deadline."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(create_certificate(tmp_path)))
    with serving(_shake_hands(tmp_path, _drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"y"))) as address:
        assert failure(f"https://{address}", read_s=0.5) is TransportFailure.NO_RESPONSE


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers the CONNECT, and the request stays here."""
    with run_raw_server(response("407 Proxy Authentication Required")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert failure("https://vendor.invalid") is TransportFailure.NOT_SENT
        assert [request[:8] for request in proxy.requests] == [b"CONNECT "]


def test_an_answer_that_is_lost_in_a_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request went through it, so it may have arrived."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(create_certificate(tmp_path)))
    with serving(_build_tunnel(_shake_hands(tmp_path, _read_and_close))) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        assert failure("https://vendor.invalid") is TransportFailure.NO_RESPONSE


def test_an_answer_that_is_lost_after_a_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request went out in TLS."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(create_certificate(tmp_path)))
    with serving(_shake_hands(tmp_path, _read_and_close)) as address:
        assert failure(f"https://{address}") is TransportFailure.NO_RESPONSE


@pytest.mark.parametrize("answer", [b"", RESET, b"HTTP/1.1 2"])
def test_an_answer_that_does_not_come(answer: bytes) -> None:
    """Closed without a word, reset, or broken off: the request was read."""
    with run_raw_server(answer) as listener:
        assert failure(listener.url) is TransportFailure.NO_RESPONSE
        assert len(listener.requests) == 1


def test_a_connection_that_is_reset_at_the_first_byte() -> None:
    """The rest of the request was never read, but what had left is not known."""

    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(reset) as address:
        assert failure(f"http://{address}") is TransportFailure.NO_RESPONSE


def test_an_answer_that_is_not_waited_for() -> None:
    """The read time-out has passed."""

    def read_on(connection: socket.socket) -> None:
        while connection.recv(65_536):
            pass

    with serving(read_on) as address:
        assert failure(f"http://{address}", read_s=0.2) is TransportFailure.NO_RESPONSE


def test_a_kept_connection_that_breaks() -> None:
    """Whether the server closed it before it read the next request, nobody can tell."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_POST(self) -> None:
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert (
            failure(f"http://127.0.0.1:{server.server_port}", before=2)
            is TransportFailure.NO_RESPONSE
        )
        server.shutdown()


def test_an_attempt_begins_without_what_the_one_before_it_did() -> None:
    """Refused after a request that was answered, by the same connection pool."""
    with run_raw_server(response("200 OK", "{}")) as listener:
        transport = Transport(listener.url, Timeouts(), connections=1)
        assert transport.send("GET", "/", token="t").response.status == 200
    assert transport.send("GET", "/", token="t").response.failure is TransportFailure.NOT_SENT
    transport.close()
