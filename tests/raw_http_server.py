"""A fake API that sends raw bytes over a socket, for responses that the sandbox cannot give."""

import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

RESET = b"RESET"

Bytes = bytes | Iterable[bytes]


@dataclass
class RawServer:
    """A server that sends the next of `answers` to each request, and repeats the last one.

    An answer is its bytes, or an iterable of pieces, which may be slow. `RESET` resets the
    connection after the request is read. The server keeps the requests.
    """

    url: str
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def run_raw_server(*answers: Bytes) -> Iterator[RawServer]:
    """Serve on a free loopback port, one request a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = RawServer(url=f"http://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(
            target=_serve_requests, args=(server, listener, answers), daemon=True
        )
        thread.start()
        try:
            yield listener
        finally:
            # A close alone would leave the thread in accept.
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def response(status: str, body: bytes | str = b"", *headers: str) -> bytes:
    """Return a response with its Content-Length."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _serve_requests(server: socket.socket, listener: RawServer, answers: tuple[Bytes, ...]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(1)
            _send_answer(connection, listener, answers)


def _send_answer(
    connection: socket.socket, listener: RawServer, answers: tuple[Bytes, ...]
) -> None:
    try:
        listener.requests.append(read_request(connection))
        answer = answers[min(len(listener.requests), len(answers)) - 1]
        if answer == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            for piece in [answer] if isinstance(answer, bytes) else answer:
                connection.sendall(piece)
    except OSError:
        return  # the client has closed the connection


def read_request(connection: socket.socket) -> bytes:
    """Return the bytes of one request."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def create_certificate(folder: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1 and vendor.invalid, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("vendor.invalid")]
            ),
            critical=False,
        )
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    encoding = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(encoding)
    )
    return file
