"""A wire to Postgres that breaks once: when a statement is done, and before its answer is heard."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import make_url

_READY_FOR_QUERY = b"Z\x00\x00\x00\x05I"


@contextmanager
def wire(database_url: str, *, cut_at: bytes) -> Iterator[str]:
    """The URL of a way to the database that is cut at the first statement that holds `cut_at`."""
    url = make_url(database_url)
    path = f"{url.query['host']}/.s.PGSQL.{url.query['port']}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        cut = _Cut(cut_at)
        threading.Thread(target=_accept, args=(listener, path, cut), daemon=True).start()
        port = listener.getsockname()[1]
        # In clear text, so that the statement can be seen.
        yield f"postgresql://postgres@127.0.0.1:{port}/{url.database}?sslmode=disable"
        # A close alone would leave the other thread waiting for callers.
        listener.shutdown(socket.SHUT_RDWR)


class _Cut:
    """Where to cut, and whether that has been done."""

    def __init__(self, at: bytes) -> None:
        self._at = at
        self._lock = threading.Lock()
        self._done = False

    def is_due(self, sent: bytes) -> bool:
        with self._lock:
            due = self._at in sent and not self._done
            self._done = self._done or due
        return due


def _accept(listener: socket.socket, path: str, cut: _Cut) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(path)
            threading.Thread(target=_carry, args=(client, server, cut), daemon=True).start()


def _carry(client: socket.socket, server: socket.socket, cut: _Cut) -> None:
    deaf = False
    with client, server, suppress(OSError):
        while True:
            for source in select.select([client, server], [], [])[0]:
                carried = source.recv(65536)
                if not carried:
                    return
                if source is client:
                    deaf = deaf or cut.is_due(carried)
                    server.sendall(carried)
                elif not deaf:
                    client.sendall(carried)
                elif carried.endswith(_READY_FOR_QUERY):
                    return
