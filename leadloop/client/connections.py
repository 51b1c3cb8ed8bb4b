"""urllib3 connections that record whether a request may have left this machine.

The exception does not show this: a missing certificate file and a connection that broke after the
request are both an OSError. The connection knows: before it hands over the first byte of a request,
the request cannot have been carried out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection


@dataclass
class SendAttempt:
    """One attempt to send a request; `has_begun` from its first byte handed to a connection."""

    has_begun: bool = False


_attempt: ContextVar[SendAttempt] = ContextVar("attempt")


@contextmanager
def record_attempt() -> Iterator[SendAttempt]:
    """Record whether a request that this thread sends in the block has begun to leave."""
    attempt = SendAttempt()
    token = _attempt.set(attempt)
    try:
        yield attempt
    finally:
        _attempt.reset(token)


class RecordingAdapter(HTTPAdapter):
    """A requests adapter whose connections, also by proxies, record the start of a request."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the connection pools without a proxy."""
        super().init_poolmanager(*args, **kwargs)
        _install_recording(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the connection pools of a proxy."""
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            _install_recording(manager)
        return manager


def _install_recording(manager: PoolManager) -> None:
    # All its pool classes: a SOCKS proxy has separate ones.
    manager.pool_classes_by_scheme = {
        scheme: _recording_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


@cache
def _recording_pool(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    connection = type(pool.ConnectionCls.__name__, (_RecordingConnection, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _RecordingConnection(HTTPConnection):
    """A connection that records the start of a request, and ignores a proxy's CONNECT."""

    _is_connecting = False

    def connect(self) -> None:
        self._is_connecting = True
        try:
            super().connect()
        finally:
            self._is_connecting = False

    def send(self, data: Any) -> None:
        if not self._is_connecting:
            if self.sock is None:
                # As http.client does, but before the request counts as begun.
                self.connect()
            _attempt.get().has_begun = True
        super().send(data)
