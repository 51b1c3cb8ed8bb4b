"""What an answer of the vendor's means: one table, for every call and every answer.

The API has no way to make a create safe to repeat, so the table asks one thing first: may the
vendor have carried the request out? Where it may, a create is *in doubt* and is looked up instead
of sent again; reads and disables change nothing when repeated, so they simply are.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class ApiCall(StrEnum):
    """The calls of the API that we make."""

    CREATE = "create"
    DISABLE = "disable"
    READ = "read"
    LOGIN = "login"


class Verdict(StrEnum):
    """What the caller should do."""

    ACCEPTED = "accepted"
    REJECTED = "refused"
    """The vendor wants none of it as it stands: split it, and give up what stands alone."""
    TOO_LARGE = "too large"
    """Send fewer at a time."""
    RETRY = "resend"
    """Not carried out, or harmless to repeat: send it again after a pause."""
    RATE_LIMITED = "pause"
    """Not carried out; the whole business must send nothing for a while."""
    UNAUTHORIZED = "login"
    """Not carried out; the token is no longer good."""
    IN_DOUBT = "in doubt"
    """It may have been carried out: never resend before it has been looked up."""
    FATAL = "stop"
    """Nothing will succeed until a person changes something."""


class TransportFailure(StrEnum):
    """Why there is no status."""

    NOT_SENT = "no connection"
    """No byte of the request can have reached the vendor."""
    NO_RESPONSE = "no answer"
    """The request may have arrived."""


class _Unreadable:
    def __repr__(self) -> str:
        return "UNREADABLE"


#: The body of an answer that broke off, or is not the JSON that the vendor speaks.
UNREADABLE: Final = _Unreadable()


@dataclass(frozen=True, kw_only=True)
class ApiResponse:
    """An answer, or its absence: the whole of what a verdict rests on.

    `body` is parsed JSON, None where it was empty, or UNREADABLE; `cause` names what broke.
    """

    status: int | None = None
    failure: TransportFailure | None = None
    cause: str = ""
    body: Any = None
    retry_after_s: float | None = None

    @property
    def requests_pause(self) -> bool:
        """Whether it says when to come back, besides whatever its status says of the request."""
        return self.status is not None and self.status >= 400 and self.retry_after_s is not None

    def __str__(self) -> str:
        """A name for logs: the status alone, since bodies repeat personal data."""
        if self.failure is None:
            return f"HTTP {self.status}"
        return f"{self.failure} ({self.cause})" if self.cause else str(self.failure)


_STATUSES: Final[dict[int, Verdict]] = {
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


#: Statuses that are never about what a request holds: login, method, proxy, rate.
_NOT_THE_CONTENT: Final = frozenset({401, 405, 407, 429})

#: The verdict on leads of a success that speaks of trouble and does not say whose.
AMBIGUOUS_VERDICTS: Final[dict[ApiCall, Verdict]] = {
    ApiCall.CREATE: Verdict.IN_DOUBT,
    # Tried again, at last by itself.
    ApiCall.DISABLE: Verdict.REJECTED,
}


def classify_response(call: ApiCall, response: ApiResponse) -> Verdict:
    """The verdict on an answer; total, so that nothing the vendor says is left without one."""
    if response.failure is TransportFailure.NOT_SENT:
        return Verdict.RETRY
    if response.failure is TransportFailure.NO_RESPONSE or response.status is None:
        return _unknown(call)
    if 200 <= response.status < 300:
        return _success(call, response)
    if response.status == 503 and response.retry_after_s is not None:
        # Maintenance that says when to come back has refused the request by design. A bare 503
        # may as well come from a proxy that lost patience with a vendor still at work.
        return Verdict.RATE_LIMITED
    if call in (ApiCall.CREATE, ApiCall.DISABLE) and _blames_leads(call, response.status):
        # A proxy's page, or half of an answer, is nobody's word about the leads.
        return Verdict.FATAL if response.body is UNREADABLE else Verdict.REJECTED
    if response.status == 413 and call is ApiCall.LOGIN:
        # There is nothing to send less of.
        return Verdict.FATAL
    if response.status in _STATUSES:
        return _STATUSES[response.status]
    if 400 <= response.status < 500:
        return Verdict.FATAL
    if 300 <= response.status < 400 and call is not ApiCall.CREATE:
        return Verdict.FATAL
    # 5xx, and redirects that commonly follow a success (302, 303).
    return _unknown(call)


def may_blame_content(response: ApiResponse) -> bool:
    """Return whether what a request held may be why it failed.

    False where the failure is about the connection, the login, the address or the budget, or the
    vendor says in JSON what is wrong. A firewall's page, a 5xx or no answer at all may be about one
    item of the request.
    """
    if response.failure is not None:
        return response.failure is TransportFailure.NO_RESPONSE
    if response.status is None or response.requests_pause or response.status in _NOT_THE_CONTENT:
        return False
    return response.status >= 500 or (
        response.body is UNREADABLE and not 300 <= response.status < 400
    )


def _blames_leads(call: ApiCall, status: int) -> bool:
    # The 404 of a disable may mean one lead of the list that is unknown: splitting finds out.
    return _STATUSES.get(status) is Verdict.REJECTED or (status == 404 and call is ApiCall.DISABLE)


def _unknown(call: ApiCall) -> Verdict:
    return Verdict.IN_DOUBT if call is ApiCall.CREATE else Verdict.RETRY


def _success(call: ApiCall, answer: ApiResponse) -> Verdict:
    if answer.body is UNREADABLE:
        # A status line of success over a body that is cut or not the vendor's: a proxy may have
        # answered in its place.
        return _unknown(call)
    # What it says of each lead is read in leadloop.core.batch_response.
    return Verdict.ACCEPTED
