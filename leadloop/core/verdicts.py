"""Verdicts: one table that classifies every response of the vendor to every call.

The API has no idempotency key, so a create is not safe to repeat. The first question is therefore
whether the vendor may have carried the request out. A create that may have been carried out is *in
doubt*: its leads are looked up and never resent blindly. Reads and disables are idempotent and are
simply retried.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class ApiCall(StrEnum):
    """The calls that we make to the API."""

    CREATE = "create"
    DISABLE = "disable"
    READ = "read"
    LOGIN = "login"


class Verdict(StrEnum):
    """The next action of the caller."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """Rejected as a whole: bisect, and reject leads that still fail alone."""
    TOO_LARGE = "too large"
    """Send fewer leads in a request."""
    RETRY = "retry"
    """Not carried out, or harmless to repeat: retry after a pause."""
    RATE_LIMITED = "rate limited"
    """Not carried out: every process that uses this vendor account must pause."""
    UNAUTHORIZED = "unauthorized"
    """Not carried out: the token is no longer valid."""
    IN_DOUBT = "in doubt"
    """May have been carried out: look the leads up before any retry."""
    FATAL = "fatal"
    """No request will succeed until a person changes something."""


class TransportFailure(StrEnum):
    """The reason why a response has no status."""

    NOT_SENT = "no connection"
    """No byte of the request reached the vendor."""
    NO_RESPONSE = "no answer"
    """The request may have reached the vendor."""


class _Unreadable:
    def __repr__(self) -> str:
        return "UNREADABLE"


#: The body of a response that was cut off, or is not the vendor's JSON.
UNREADABLE: Final = _Unreadable()


@dataclass(frozen=True, kw_only=True)
class ApiResponse:
    """A response of the vendor, or the failure that came instead: all that a verdict depends on.

    `body` is parsed JSON, None if it was empty, or UNREADABLE. `cause` names the exception of a
    failure. `took_s`, on which no verdict depends, is the time from the request to the response or
    failure, seconds.
    """

    status: int | None = None
    failure: TransportFailure | None = None
    cause: str = ""
    body: Any = None
    retry_after_s: float | None = None
    took_s: float = field(default=0.0, compare=False)

    @property
    def requests_pause(self) -> bool:
        """True if an error response has a Retry-After, whatever its status."""
        return self.status is not None and self.status >= 400 and self.retry_after_s is not None

    def __str__(self) -> str:
        """Return the status or failure for logs, without the body: it repeats personal data."""
        if self.failure is None:
            return f"HTTP {self.status}"
        return f"{self.failure} ({self.cause})" if self.cause else str(self.failure)


_STATUS_VERDICTS: Final[dict[int, Verdict]] = {
    # A moved address: the request was not carried out where it arrived.
    301: Verdict.FATAL,
    307: Verdict.FATAL,
    308: Verdict.FATAL,
    400: Verdict.REJECTED,
    401: Verdict.UNAUTHORIZED,
    408: Verdict.RETRY,
    409: Verdict.REJECTED,
    413: Verdict.TOO_LARGE,
    422: Verdict.REJECTED,
    425: Verdict.RETRY,
    429: Verdict.RATE_LIMITED,
}


#: The verdict on leads if a success reports an error without naming the lead.
AMBIGUOUS_VERDICTS: Final[dict[ApiCall, Verdict]] = {
    ApiCall.CREATE: Verdict.IN_DOUBT,
    # Retried, at last in a request of one lead.
    ApiCall.DISABLE: Verdict.REJECTED,
}


def classify_response(call: ApiCall, response: ApiResponse) -> Verdict:
    """Classify a response into a verdict. Total: every response has one."""
    if response.failure is TransportFailure.NOT_SENT:
        return Verdict.RETRY
    if response.failure is TransportFailure.NO_RESPONSE or response.status is None:
        return _unknown_verdict(call)
    if 200 <= response.status < 300:
        # An unreadable body may come from a proxy that answered in the vendor's place. Per-lead
        # errors of a readable one are parsed in leadloop.core.batch_response.
        return _unknown_verdict(call) if response.body is UNREADABLE else Verdict.ACCEPTED
    if response.status == 503 and response.retry_after_s is not None:
        # Maintenance with a Retry-After refused the request by design. A 503 without one may come
        # from a proxy that timed out while the vendor was still at work.
        return Verdict.RATE_LIMITED
    if call in (ApiCall.CREATE, ApiCall.DISABLE) and (
        _STATUS_VERDICTS.get(response.status) is Verdict.REJECTED
        # The 404 of a disable may mean one unknown lead of the list: bisecting finds out.
        or (response.status == 404 and call is ApiCall.DISABLE)
    ):
        # A proxy's page, or half of a response, is no statement about the leads.
        return Verdict.FATAL if response.body is UNREADABLE else Verdict.REJECTED
    if response.status == 413 and call is ApiCall.LOGIN:
        # A login has no batch to halve.
        return Verdict.FATAL
    if response.status in _STATUS_VERDICTS:
        return _STATUS_VERDICTS[response.status]
    if 400 <= response.status < 500:
        return Verdict.FATAL
    if 300 <= response.status < 400 and call is not ApiCall.CREATE:
        return Verdict.FATAL
    # 5xx, and redirects that commonly follow a success (302, 303).
    return _unknown_verdict(call)


def may_blame_content(response: ApiResponse) -> bool:
    """Return whether the content of a request may be the reason for its failure.

    A firewall may answer one item of a request with any status, a page or no response. False only
    if nothing was sent, if the rate limit was reached, or if JSON rejects the login.
    """
    if response.failure is not None:
        return response.failure is TransportFailure.NO_RESPONSE
    if response.status in (401, 407):
        return response.body is UNREADABLE
    return response.status != 429


def _unknown_verdict(call: ApiCall) -> Verdict:
    return Verdict.IN_DOUBT if call is ApiCall.CREATE else Verdict.RETRY
