"""HTTP by `requests`: sends one request, turns whatever happens into an Answer."""

import gzip
import io
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from leadloop.client.connections import RecordingAdapter, record_attempt
from leadloop.core import postgres_json
from leadloop.core.addresses import is_loopback
from leadloop.core.verdicts import UNREADABLE, ApiResponse, TransportFailure

#: The most that the body of an answer may hold, packed or not: a page of thousands of results holds
#: a few MB, and nothing that this machine cannot hold may end a run.
_LARGEST_BODY = 64 * 2**20
_GZIP = ("gzip", "x-gzip")
# Read at once, or as much of it as has come.
_PIECE = 2**18
# For a Retry-After that says neither how long nor until when.
_PAUSE_FOR_NONSENSE_S = 60.0
# A clock that says anything else is none, and no time may be added to the last years there are.
_YEARS = range(1970, 9000)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds to wait for a connection, and for an answer.

    `read_s` is the longest silence, and also how long a body may take from its headers to its end.
    """

    connect_s: float = 5.0
    read_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class ReceivedResponse:
    """An answer, and the vendor's clock when it gave it (None: not told)."""

    response: ApiResponse
    vendor_now: datetime | None


class BearerAuth(requests.auth.AuthBase):
    """Puts the token on a request; as an auth object, so that no ~/.netrc replaces it."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign the request, or leave it as it is where there is no token."""
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Transport:
    """A connection pool to one address. It follows no redirect: a token goes nowhere else."""

    def __init__(self, base_url: str, timeouts: Timeouts, *, connections: int) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeouts = (timeouts.connect_s, timeouts.read_s)
        self._session = requests.Session()
        host = urlsplit(self._base_url).hostname or ""
        # A proxy for this machine is nobody's intention, and could read the token in plain http.
        self._proxies = {"no_proxy": host} if is_loopback(host) else None
        adapter = RecordingAdapter(pool_maxsize=connections, max_retries=0)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._counting = threading.Lock()
        self.requests_sent = 0

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
        """Send one request, once. Whatever goes wrong becomes the answer's `failure`."""
        with self._counting:
            self.requests_sent += 1
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        with record_attempt() as attempt:
            try:
                response = self._session.request(
                    method,
                    self._base_url + path,
                    params=params,
                    data=content if form is None else form,
                    headers=headers,
                    auth=BearerAuth(token),
                    timeout=self._timeouts,
                    proxies=self._proxies,
                    allow_redirects=False,
                    stream=True,
                )
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                return ReceivedResponse(
                    response=_absence(error, begun=attempt.has_begun), vendor_now=None
                )
        _, read_s = self._timeouts
        with response:
            return _received(response, until=time.monotonic() + read_s)

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()


def _absence(error: Exception, *, begun: bool) -> ApiResponse:
    """Return the failure that stands for an exception: had the request begun to leave?"""
    return ApiResponse(
        failure=TransportFailure.NO_RESPONSE if begun else TransportFailure.NOT_SENT,
        cause=type(_root(error)).__name__,
    )


def _root(error: BaseException) -> BaseException:
    """The exception at the bottom; its type tells a refused connection from an unknown host."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _received(response: requests.Response, *, until: float) -> ReceivedResponse:
    told_at = _http_date(response.headers.get("Date"))
    answer = ApiResponse(
        status=response.status_code,
        body=_body(response, until),
        retry_after_s=_retry_after(response.headers.get("Retry-After"), told_at),
    )
    return ReceivedResponse(response=answer, vendor_now=told_at)


def _body(response: requests.Response, until: float) -> Any:
    try:
        content = _unpacked(response, _content(response, until))
        if content.strip():
            return postgres_json.parse_json(content)
    except (HTTPError, OSError, EOFError, ValueError, zlib.error):
        return UNREADABLE
    # Without a length, an answer that breaks off in its headers looks like one without a body.
    headers = response.headers
    ends_as_told = "Content-Length" in headers or "Transfer-Encoding" in headers
    return None if ends_as_told or response.status_code == 204 else UNREADABLE


def _content(response: requests.Response, until: float) -> bytes:
    """The bytes of the body as they were sent.

    The read time-out holds for each byte anew, so an answer that drips would never end: `until` is
    looked at between reads, each of which returns what has come.

    Raises:
        HTTPError: it broke off.
        ValueError: it is too large, or came too slowly.
    """
    content = bytearray()
    while piece := response.raw.read1(_PIECE, decode_content=False):
        content += piece
        if len(content) > _LARGEST_BODY:
            raise ValueError("the body is too large")
        if time.monotonic() > until:
            raise ValueError("the body comes too slowly")
    return bytes(content)


def _unpacked(response: requests.Response, content: bytes) -> bytes:
    """The body without its gzip, which is all that we ask for.

    Raises:
        OSError, EOFError, zlib.error: it is not gzip, or broke off.
        ValueError: it is too large.
    """
    if not content or response.headers.get("Content-Encoding", "").lower() not in _GZIP:
        return content
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(_LARGEST_BODY + 1)
    if len(unpacked) > _LARGEST_BODY:
        raise ValueError("the body is too large")
    return unpacked


def _http_date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text) if text else None
        told = moment.astimezone(UTC) if moment and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
    return told if told and told.year in _YEARS else None


def _retry_after(text: str | None, told_at: datetime | None) -> float | None:
    """Seconds from the answer on; a date is counted by the vendor's clock, or else by ours.

    However long that is: the budget of the business says how much of it is heeded.
    """
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    until = _http_date(text)
    if until is None:
        return _PAUSE_FOR_NONSENSE_S
    return max(0.0, (until - (told_at or datetime.now(UTC))).total_seconds())
