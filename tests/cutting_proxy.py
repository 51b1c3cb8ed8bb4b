"""A TCP proxy to Postgres that cuts one connection after a statement, before its response."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import make_url

_READY_FOR_QUERY = b"Z\x00\x00\x00\x05I"


@contextmanager
def run_cutting_proxy(database_url: str, *, cut_at: bytes) -> Iterator[str]:
    """Yield a URL of the database through a proxy that cuts once, at a statement with `cut_at`."""
    url = make_url(database_url)
    path = f"{url.query['host']}/.s.PGSQL.{url.query['port']}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        trigger = _CutTrigger(cut_at)
        threading.Thread(
            target=_accept_connections, args=(listener, path, trigger), daemon=True
        ).start()
        port = listener.getsockname()[1]
        # Without TLS, so that the proxy can read the statement.
        yield f"postgresql://postgres@127.0.0.1:{port}/{url.database}?sslmode=disable"
        # A close alone would leave the thread in accept.
        listener.shutdown(socket.SHUT_RDWR)


class _CutTrigger:
    """The bytes of the statement to cut at, and whether the cut is done."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern = pattern
        self._lock = threading.Lock()
        self._done = False

    def is_due(self, sent: bytes) -> bool:
        with self._lock:
            due = self._pattern in sent and not self._done
            self._done = self._done or due
        return due


def _accept_connections(listener: socket.socket, path: str, trigger: _CutTrigger) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(path)
            threading.Thread(target=_forward, args=(client, server, trigger), daemon=True).start()


def _forward(client: socket.socket, server: socket.socket, trigger: _CutTrigger) -> None:
    is_cut = False
    with client, server, suppress(OSError):
        while True:
            for source in select.select([client, server], [], [])[0]:
                received = source.recv(65536)
                if not received:
                    return
                if source is client:
                    is_cut = is_cut or trigger.is_due(received)
                    server.sendall(received)
                elif not is_cut:
                    client.sendall(received)
                elif received.endswith(_READY_FOR_QUERY):
                    return
