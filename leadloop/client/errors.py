"""The exceptions of the client, named by what the caller should do.

    ApiError
    ├── Retryable         nothing was carried out, or repeating does no harm: send it again later
    │   └── RateLimited   ... and let the whole business send nothing for `retry_after_s`
    ├── InDoubt           it may have been carried out: look it up, never resend it unasked
    ├── Rejected          the vendor will not take this as it stands; `body` says why
    │   └── TooLarge      ... because it is too much at once: send fewer
    └── Fatal             nothing will succeed until a person changes something

No message repeats a body, a token or a phone number.
"""

from typing import Any

from leadloop.core.batch_response import BatchResult
from leadloop.core.verdicts import UNREADABLE, ApiCall, ApiResponse, Verdict


class ApiError(Exception):
    """Base of all that the client raises about an answer."""

    def __init__(
        self,
        call: ApiCall,
        answer: ApiResponse,
        advice: str = "",
        reading: BatchResult | None = None,
    ) -> None:
        super().__init__(f"{call}: {answer}" + (f"; {advice}" if advice else ""))
        self.call = call
        self.response = answer
        #: What the answer says of each lead of the request: nothing, where it is not about leads.
        self.batch_result = reading or BatchResult()

    @property
    def body(self) -> Any:
        """The answer's body: parsed JSON, None or UNREADABLE. It may hold personal data."""
        return self.response.body


class Retryable(ApiError):
    """Send the same again after a pause."""


class RateLimited(Retryable):
    """Send nothing at all for a while."""

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the vendor asked for, if it did."""
        return self.response.retry_after_s


class InDoubt(ApiError):
    """The leads may have been created."""


class Rejected(ApiError):
    """The request is wrong in part or whole."""


class TooLarge(Rejected):
    """The request holds too many leads."""


class Fatal(ApiError):
    """A person has to act: wrong token, unknown campaign, moved address."""


_ERRORS: dict[Verdict, type[ApiError]] = {
    Verdict.REJECTED: Rejected,
    Verdict.TOO_LARGE: TooLarge,
    Verdict.RETRY: Retryable,
    Verdict.RATE_LIMITED: RateLimited,
    Verdict.UNAUTHORIZED: Fatal,
    Verdict.IN_DOUBT: InDoubt,
    Verdict.FATAL: Fatal,
}

_FOUR = (
    "the login is not accepted: check LEADLOOP_CLIENT_ID, LEADLOOP_CLIENT_SECRET,"
    " LEADLOOP_USERNAME and LEADLOOP_PASSWORD"
)
_ADVICE: dict[int, str] = {
    401: "the login is not accepted: check LEADLOOP_API_TOKEN or the four login settings",
    403: "the login may not do this: ask the vendor for access to the campaign",
    404: "the vendor does not know this campaign or address: check the campaign id and"
    " LEADLOOP_API_URL",
    405: "the address is not the Leads API: check LEADLOOP_API_URL",
}


def error_for_verdict(
    verdict: Verdict, call: ApiCall, answer: ApiResponse, reading: BatchResult | None = None
) -> ApiError:
    """The exception that stands for a verdict other than ACCEPTED."""
    return _ERRORS[verdict](call, answer, _advice(verdict, call, answer), reading)


def _advice(verdict: Verdict, call: ApiCall, answer: ApiResponse) -> str:
    status = answer.status or 0
    if call is ApiCall.LOGIN and status in (400, 401):
        return _FOUR
    if 300 <= status < 400:
        return "the API answers from another address: check LEADLOOP_API_URL"
    no_page = call is ApiCall.READ and verdict is Verdict.RETRY and 200 <= status < 300
    # Only where it made the verdict what it is: other errors may well come with a page.
    unread = answer.body is UNREADABLE and (200 <= status < 300 or status in (400, 404, 409, 422))
    if no_page or unread:
        return (
            "the answer is not the vendor's JSON, or broke off (a proxy or a login page?): check"
            " LEADLOOP_API_URL"
        )
    return _ADVICE.get(status, "")
