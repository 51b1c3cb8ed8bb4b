"""urllib3 connections that record whether a request may have left this machine, and end it in time.

The exception does not show this: a missing certificate file and a connection that broke after the
request are both an OSError. The connection knows: before it hands over the first byte of a request,
the request cannot have been carried out.

A socket's timeout limits the wait for each byte, so a response that drips would never end. Each
read of a response therefore waits only for what is left until the deadline of the attempt. (No
timer: one would cost a thread, and could hit the next request on a pooled connection. A TLS
handshake needs no deadline: Python limits it as a whole, by the connection's timeout.)
"""

import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection


@dataclass
class SendAttempt:
    """One attempt to send a request.

    Attributes:
        read_s: seconds from the request's first byte to the response's last one.
        has_begun: true from the request's first byte that was handed to a connection.
        deadline: when the response must have ended, by `time.monotonic`. Until the request has
            begun, the deadline of a proxy's response to CONNECT.
    """

    read_s: float
    has_begun: bool = False
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        """Start the time of the attempt."""
        self.deadline = time.monotonic() + self.read_s

    def begin(self) -> None:
        """Record that the request begins to leave: the time for its response starts."""
        if not self.has_begun:
            self.has_begun = True
            self.deadline = time.monotonic() + self.read_s


_attempt: ContextVar[SendAttempt] = ContextVar("attempt")


@contextmanager
def record_attempt(read_s: float) -> Iterator[SendAttempt]:
    """Record whether a request that this thread sends in the block has begun to leave.

    Args:
        read_s: the deadline of the response, seconds after the request begins to leave.
    """
    attempt = SendAttempt(read_s)
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


class _DeadlineReader(io.RawIOBase):
    """The bytes of a socket until a deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._socket = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the response is too slow")
        # The next request on this connection sets its own timeout.
        self._socket.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(HTTPResponse):
    """A response, also a proxy's to CONNECT, that is read until the deadline of the attempt."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_DeadlineReader(raw, sock, _attempt.get().deadline))


class _RecordingConnection(HTTPConnection):
    """A connection that records the start of a request, and ignores a proxy's CONNECT."""

    response_class = _DeadlineResponse
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
            _attempt.get().begin()
        super().send(data)
