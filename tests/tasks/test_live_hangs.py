"""A Postgres that hangs, behind connections that stay open."""

import logging
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import pytest
from sqlalchemy import make_url, text

from db.database import Database, DatabaseError
from tasks import live_hangs
from tasks.live_hangs import HangWatch

LOG = logging.getLogger("leadloop.tests")


class HangingProxy:
    """A TCP proxy to Postgres that reads on, but forwards nothing any more, once `hangs` is set."""

    def __init__(self, database_url: str) -> None:
        self.hangs = Event()
        self._url = make_url(database_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of the database through the proxy."""
        port = self._listener.getsockname()[1]
        return f"postgresql://postgres@127.0.0.1:{port}/{self._url.database}?sslmode=disable"

    def _accept(self) -> None:
        path = f"{self._url.query['host']}/.s.PGSQL.{self._url.query['port']}"
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(path)
                Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with client, server, suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    received = source.recv(65536)
                    if not received:
                        return
                    if not self.hangs.is_set():
                        other[source].sendall(received)

    def close(self) -> None:
        """Accept no connection any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxy(database: Database) -> Iterator[HangingProxy]:
    """A proxy that does not hang yet."""
    opened = HangingProxy(database.sibling_url("postgres", "postgresql"))
    yield opened
    opened.close()


@contextmanager
def watch(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[HangWatch]:
    """Watch with short times."""
    monkeypatch.setattr(live_hangs, "_CHECK_S", 0.05)
    monkeypatch.setattr(live_hangs, "HANG_S", 0.3)
    with HangWatch(LOG, database) as opened:
        yield opened


def test_a_statement_that_waits_for_ever_fails(
    proxy: HangingProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one of a connection that was cut, which the loop opens again."""
    with Database(proxy.url, pool_size=2) as database, database.autocommit() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        proxy.hangs.set()
        with (
            watch(database, monkeypatch),
            pytest.raises(DatabaseError) as failed,
            database.translate_errors(),
        ):
            connection.scalar(text("SELECT 1"))
        assert failed.value.disconnected
        assert "has not answered for" in caplog.text


def test_nothing_is_cut_while_the_loop_looks(
    proxy: HangingProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it runs."""
    with (
        Database(proxy.url, pool_size=1) as database,
        watch(database, monkeypatch) as hang_watch,
        database.autocommit() as connection,
    ):
        for _ in range(30):
            hang_watch.record_look()
            connection.execute(text("SELECT pg_sleep(0.02)"))
    assert caplog.messages == []
