"""A vendor of the test's own, for what the sandbox cannot do: bare bytes over a real socket."""

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
class Listener:
    """Answers each request with the next of `answers`, the last one for ever; keeps the requests.

    An answer is the whole of its bytes, or pieces of it, which may take their time to come; `RESET`
    resets the connection, after the request was read.
    """

    url: str
    requests: list[bytes] = field(default_factory=list)


@contextmanager
def listening(*answers: Bytes) -> Iterator[Listener]:
    """Serve on a free port of loopback, one request a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(url=f"http://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=_serve, args=(server, listener, answers), daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            # A thread in accept does not notice that its socket is closed.
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def response(status: str, body: bytes | str = b"", *headers: str) -> bytes:
    """An answer with a right length."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _serve(server: socket.socket, listener: Listener, answers: tuple[Bytes, ...]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(1)
            _answer(connection, listener, answers)


def _answer(connection: socket.socket, listener: Listener, answers: tuple[Bytes, ...]) -> None:
    try:
        listener.requests.append(read_request(connection))
        answer = answers[min(len(listener.requests), len(answers)) - 1]
        if answer == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            for piece in [answer] if isinstance(answer, bytes) else answer:
                connection.sendall(piece)
    except OSError:
        return  # the client has had enough


def read_request(connection: socket.socket) -> bytes:
    """The whole of one request."""
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


def self_signed(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 and vendor.invalid that nobody vouches for, and its key."""
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
