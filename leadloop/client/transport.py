"""HTTP transport on `requests`: send one request and return every outcome as an ApiResponse."""

import gzip
import io
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from leadloop.client.connections import RecordingAdapter, record_attempt
from leadloop.core import postgres_json
from leadloop.core.accounts import PREFIX
from leadloop.core.addresses import is_loopback
from leadloop.core.verdicts import UNREADABLE, ApiResponse, TransportFailure

#: The limit of a response body in bytes, compressed or not. A page of thousands of results has a
#: few MB, and a larger body could exhaust the memory of this machine and end the run.
MAX_RESPONSE_BYTES = 32 * 2**20
_GZIP = ("gzip", "x-gzip")
# The bytes of one read, or fewer if fewer have arrived.
_CHUNK = 2**18
# For a Retry-After that cannot be parsed.
_DEFAULT_PAUSE_S = 60.0
# Other years are not a clock's, and adding to a time in the last years would overflow.
_CLOCK_YEARS = range(1970, 9000)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Timeouts for the connection and the response, seconds.

    `connect_s` limits the TCP connection and the TLS handshake, each as a whole. `read_s` is the
    deadline of the whole response: from the request's first byte to the last byte of the body,
    however slowly the bytes arrive.
    """

    connect_s: float = 5.0
    read_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class ReceivedResponse:
    """A response, and the vendor's clock at that time (None: unknown)."""

    response: ApiResponse
    vendor_now: datetime | None


class BearerAuth(requests.auth.AuthBase):
    """The bearer token as an auth object of requests, so that no ~/.netrc replaces it."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request, if there is one."""
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Transport:
    """A connection pool to one address; redirects are not followed, to keep the token there.

    Attributes:
        requests_sent: the number of requests so far.
        on_response: is called with the path of each request and its response, which holds personal
            data.
        setting_prefix: what the variables of its address and login begin with, for messages.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        *,
        connections: int,
        setting_prefix: str = PREFIX,
    ) -> None:
        self.setting_prefix = setting_prefix
        self._base_url = base_url.rstrip("/")
        self._timeouts = (timeouts.connect_s, timeouts.read_s)
        self._session = requests.Session()
        # A session cookie beside the token makes some servers demand a CSRF token.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        host = urlsplit(self._base_url).hostname or ""
        # A proxy for loopback is never intended, and could read the token in plain http.
        self._proxies = {"no_proxy": host} if is_loopback(host) else None
        adapter = RecordingAdapter(pool_maxsize=connections, max_retries=0)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._count_lock = threading.Lock()
        self.requests_sent = 0
        self.on_response: Callable[[str, ApiResponse], None] = lambda _, __: None

    def send(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        form: Mapping[str, str] | None = None,
    ) -> ReceivedResponse:
        """Send one request once. Every error becomes the response's `failure`."""
        received = self._send_once(method, path, token, params, content if form is None else form)
        self.on_response(path, received.response)
        return received

    def _send_once(
        self,
        method: str,
        path: str,
        token: str | None,
        params: Mapping[str, str] | None,
        data: bytes | Mapping[str, str] | None,
    ) -> ReceivedResponse:
        with self._count_lock:
            self.requests_sent += 1
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        if isinstance(data, bytes):
            headers["Content-Type"] = "application/json"
        began = time.monotonic()
        # If the request is sent while the caller handles an error, that error is no cause of ours.
        outer = sys.exception()
        _, read_s = self._timeouts
        with record_attempt(read_s) as attempt:
            try:
                response = self._session.request(
                    method,
                    self._base_url + path,
                    params=params,
                    data=data,
                    headers=headers,
                    auth=BearerAuth(token),
                    timeout=self._timeouts,
                    proxies=self._proxies,
                    allow_redirects=False,
                    stream=True,
                )
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                return ReceivedResponse(
                    response=ApiResponse(
                        failure=TransportFailure.NO_RESPONSE
                        if attempt.has_begun
                        else TransportFailure.NOT_SENT,
                        cause=_find_cause(error, outer),
                        took_s=time.monotonic() - began,
                    ),
                    vendor_now=None,
                )
            with response:
                return _read_response(response, began)

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()


def _find_cause(error: BaseException, outer: BaseException | None) -> str:
    """Return the type of an exception's root cause, which names, say, an unknown host."""
    while error.__context__ is not None and error.__context__ is not outer:
        error = error.__context__
    return type(error).__name__


def _read_response(response: requests.Response, began: float) -> ReceivedResponse:
    headers = response.headers
    # Without a length, a response cut off in its headers looks like one without a body.
    has_length = "Content-Length" in headers or "Transfer-Encoding" in headers
    body: Any = None if has_length or response.status_code == 204 else UNREADABLE
    try:
        content = _decompress(response, _read_content(response))
        if content.strip():
            parsed = postgres_json.parse_json(content)
            # A null is content, unlike an empty body, and means as much as an empty list.
            body = [] if parsed is None else parsed
    except (HTTPError, OSError, EOFError, ValueError, zlib.error):
        body = UNREADABLE
    vendor_now = _parse_http_date(headers.get("Date"))
    return ReceivedResponse(
        response=ApiResponse(
            status=response.status_code,
            body=body,
            retry_after_s=_parse_retry_after(headers.get("Retry-After"), vendor_now),
            took_s=time.monotonic() - began,
        ),
        vendor_now=vendor_now,
    )


def _read_content(response: requests.Response) -> bytes:
    """Read the body as sent, still compressed.

    Raises:
        HTTPError: the body was cut off, or had not ended at the deadline.
        ValueError: the body is too large.
    """
    content = bytearray()
    while chunk := response.raw.read1(_CHUNK, decode_content=False):
        content += chunk
        if len(content) > MAX_RESPONSE_BYTES:
            raise ValueError("the body is too large")
    return bytes(content)


def _decompress(response: requests.Response, content: bytes) -> bytes:
    """Decompress a gzip body; gzip is the only encoding that requests accept.

    Raises:
        OSError, EOFError, zlib.error: the content is not gzip, or was cut off.
        ValueError: the decompressed body is too large.
    """
    if not content or response.headers.get("Content-Encoding", "").lower() not in _GZIP:
        return content
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        decompressed = file.read(MAX_RESPONSE_BYTES + 1)
    if len(decompressed) > MAX_RESPONSE_BYTES:
        raise ValueError("the body is too large")
    return decompressed


def _parse_http_date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text) if text else None
        parsed = moment.astimezone(UTC) if moment and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
    return parsed if parsed and parsed.year in _CLOCK_YEARS else None


def _parse_retry_after(text: str | None, vendor_now: datetime | None) -> float | None:
    """Return the pause in seconds; a date counts by the vendor's clock, else by ours.

    Without an upper limit: the rate limiter limits the pause.
    """
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    until = _parse_http_date(text)
    if until is None:
        return _DEFAULT_PAUSE_S
    return max(0.0, (until - (vendor_now or datetime.now(UTC))).total_seconds())
