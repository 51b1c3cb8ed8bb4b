"""Connections of urllib3 that record whether a request may have left this machine.

An exception does not tell: a certificate file that is missing and a connection that broke after the
request are an OSError both. The connection does. Until it hands over the first byte of a request,
nobody can have carried the request out.
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
    """One try to send a request; `begun` once its first byte was handed to a connection."""

    has_begun: bool = False


_attempt: ContextVar[SendAttempt] = ContextVar("attempt")


@contextmanager
def record_attempt() -> Iterator[SendAttempt]:
    """Record what connections do for a request that this thread sends in the block."""
    attempt = SendAttempt()
    token = _attempt.set(attempt)
    try:
        yield attempt
    finally:
        _attempt.reset(token)


class RecordingAdapter(HTTPAdapter):
    """An adapter of requests whose connections record when they begin to send, by proxies too."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of connections without a proxy."""
        super().init_poolmanager(*args, **kwargs)
        _record(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return the pools of connections by a proxy."""
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **kwargs)
        if is_new:
            _record(manager)
        return manager


def _record(manager: PoolManager) -> None:
    # Whatever pools it has: those of a SOCKS proxy are others.
    manager.pool_classes_by_scheme = {
        scheme: _recording(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }


@cache
def _recording(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    connection = type(pool.ConnectionCls.__name__, (_Recording, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _Recording(HTTPConnection):
    """What is sent while it connects is a proxy's CONNECT, and no part of a request."""

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
