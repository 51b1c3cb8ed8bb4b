"""What an answer of the vendor's means: one table, for every call and every answer.

The API has no way to make a create safe to repeat, so the table asks one thing first: may the
vendor have carried the request out? Where it may, a create is *in doubt* and is looked up instead
of sent again; reads and disables change nothing when repeated, so they simply are.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Call(StrEnum):
    """The calls of the API that we make."""

    CREATE = "create"
    DISABLE = "disable"
    READ = "read"
    LOGIN = "login"


class Verdict(StrEnum):
    """What the caller should do."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    """The vendor wants none of it as it stands: split it, and give up what stands alone."""
    TOO_LARGE = "too large"
    """Send fewer at a time."""
    RESEND = "resend"
    """Not carried out, or harmless to repeat: send it again after a pause."""
    PAUSE = "pause"
    """Not carried out; the whole business must send nothing for a while."""
    LOGIN = "login"
    """Not carried out; the token is no longer good."""
    IN_DOUBT = "in doubt"
    """It may have been carried out: never resend before it has been looked up."""
    STOP = "stop"
    """Nothing will succeed until a person changes something."""


class Failure(StrEnum):
    """Why there is no status."""

    NOT_SENT = "no connection"
    """No byte of the request can have reached the vendor."""
    NO_ANSWER = "no answer"
    """The request may have arrived."""


class _Unreadable:
    def __repr__(self) -> str:
        return "UNREADABLE"


#: The body of an answer that broke off, or is not the JSON that the vendor speaks.
UNREADABLE: Final = _Unreadable()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer, or its absence: the whole of what a verdict rests on.

    `body` is parsed JSON, None where it was empty, or UNREADABLE; `cause` names what broke.
    """

    status: int | None = None
    failure: Failure | None = None
    cause: str = ""
    body: Any = None
    retry_after_s: float | None = None

    @property
    def asks_for_a_pause(self) -> bool:
        """Whether it says when to come back, besides whatever its status says of the request."""
        return self.status is not None and self.status >= 400 and self.retry_after_s is not None

    def __str__(self) -> str:
        """A name for logs: the status alone, since bodies repeat personal data."""
        if self.failure is None:
            return f"HTTP {self.status}"
        return f"{self.failure} ({self.cause})" if self.cause else str(self.failure)


_STATUSES: Final[dict[int, Verdict]] = {
    # A moved address: the request was not carried out where it arrived.
    301: Verdict.STOP,
    307: Verdict.STOP,
    308: Verdict.STOP,
    400: Verdict.REFUSED,
    401: Verdict.LOGIN,
    408: Verdict.RESEND,
    409: Verdict.REFUSED,
    413: Verdict.TOO_LARGE,
    422: Verdict.REFUSED,
    425: Verdict.RESEND,
    429: Verdict.PAUSE,
}


#: Statuses that are never about what a request holds: login, method, proxy, rate.
_NOT_THE_CONTENT: Final = frozenset({401, 405, 407, 429})

#: The verdict on leads of a success that speaks of trouble and does not say whose.
UNCLEAR: Final[dict[Call, Verdict]] = {
    Call.CREATE: Verdict.IN_DOUBT,
    # Tried again, at last by itself.
    Call.DISABLE: Verdict.REFUSED,
}


def judge(call: Call, answer: Answer) -> Verdict:
    """The verdict on an answer; total, so that nothing the vendor says is left without one."""
    if answer.failure is Failure.NOT_SENT:
        return Verdict.RESEND
    if answer.failure is Failure.NO_ANSWER or answer.status is None:
        return _unknown(call)
    if 200 <= answer.status < 300:
        return _success(call, answer)
    if answer.status == 503 and answer.retry_after_s is not None:
        # Maintenance that says when to come back has refused the request by design. A bare 503
        # may as well come from a proxy that lost patience with a vendor still at work.
        return Verdict.PAUSE
    if call in (Call.CREATE, Call.DISABLE) and _blames_leads(call, answer.status):
        # A proxy's page, or half of an answer, is nobody's word about the leads.
        return Verdict.STOP if answer.body is UNREADABLE else Verdict.REFUSED
    if answer.status == 413 and call is Call.LOGIN:
        # There is nothing to send less of.
        return Verdict.STOP
    if answer.status in _STATUSES:
        return _STATUSES[answer.status]
    if 400 <= answer.status < 500:
        return Verdict.STOP
    if 300 <= answer.status < 400 and call is not Call.CREATE:
        return Verdict.STOP
    # 5xx, and redirects that commonly follow a success (302, 303).
    return _unknown(call)


def may_blame_content(answer: Answer) -> bool:
    """Return whether what a request held may be why it failed.

    False where the failure is about the connection, the login, the address or the budget, or the
    vendor says in JSON what is wrong. A firewall's page, a 5xx or no answer at all may be about one
    item of the request.
    """
    if answer.failure is not None:
        return answer.failure is Failure.NO_ANSWER
    if answer.status is None or answer.asks_for_a_pause or answer.status in _NOT_THE_CONTENT:
        return False
    return answer.status >= 500 or (answer.body is UNREADABLE and not 300 <= answer.status < 400)


def _blames_leads(call: Call, status: int) -> bool:
    # The 404 of a disable may mean one lead of the list that is unknown: splitting finds out.
    return _STATUSES.get(status) is Verdict.REFUSED or (status == 404 and call is Call.DISABLE)


def _unknown(call: Call) -> Verdict:
    return Verdict.IN_DOUBT if call is Call.CREATE else Verdict.RESEND


def _success(call: Call, answer: Answer) -> Verdict:
    if answer.body is UNREADABLE:
        # A status line of success over a body that is cut or not the vendor's: a proxy may have
        # answered in its place.
        return _unknown(call)
    # What it says of each lead is read in leadloop.core.batch_response.
    return Verdict.ACCEPTED
