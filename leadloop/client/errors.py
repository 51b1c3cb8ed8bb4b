"""The exceptions of the client, named by what the caller should do.

    ApiError
    ├── Retryable         not carried out, or idempotent: retry after a pause
    │   └── RateLimited   ... and every process of this vendor account pauses for `retry_after_s`
    ├── InDoubt           may have been carried out: look the leads up before any retry
    ├── Rejected          the vendor rejects the request as it is; `body` gives the reason
    │   └── TooLarge      ... because it is too large: send fewer leads
    └── Fatal             no request will succeed until a person changes something

No message repeats a body, a token or a phone number.
"""

from typing import Any

from leadloop.core.accounts import PREFIX
from leadloop.core.batch_response import BatchResult
from leadloop.core.verdicts import UNREADABLE, ApiCall, ApiResponse, Verdict


class ApiError(Exception):
    """Base of the exceptions about a response."""

    def __init__(
        self,
        call: ApiCall,
        response: ApiResponse,
        advice: str = "",
        batch_result: BatchResult | None = None,
    ) -> None:
        super().__init__(f"{call}: {response}" + (f"; {advice}" if advice else ""))
        self.call = call
        self.response = response
        #: The per-lead results of the request; empty if the response is not about leads.
        self.batch_result = batch_result or BatchResult()
        #: How often the request was sent with a failure like this one; see RequestRetries.
        self.attempts = 1
        #: Seconds that these attempts and the pauses between them took, without waits for permits.
        self.took_s = response.took_s

    @property
    def body(self) -> Any:
        """The body of the response: parsed JSON, None or UNREADABLE. It may hold personal data."""
        return self.response.body


class Retryable(ApiError):
    """A request that may be retried after a pause."""


class RateLimited(Retryable):
    """The vendor's demand that every process that uses this vendor account pauses."""

    @property
    def retry_after_s(self) -> float | None:
        """The pause that the vendor asked for, seconds; None if it named none."""
        return self.response.retry_after_s


class InDoubt(ApiError):
    """A create whose leads may have been created."""


class Rejected(ApiError):
    """A request that is wrong in part or as a whole."""


class TooLarge(Rejected):
    """A request with too many leads."""


class Fatal(ApiError):
    """A failure that a person must fix: wrong token, unknown campaign, moved address."""


_ERRORS: dict[Verdict, type[ApiError]] = {
    Verdict.REJECTED: Rejected,
    Verdict.TOO_LARGE: TooLarge,
    Verdict.RETRY: Retryable,
    Verdict.RATE_LIMITED: RateLimited,
    Verdict.UNAUTHORIZED: Fatal,
    Verdict.IN_DOUBT: InDoubt,
    Verdict.FATAL: Fatal,
}

_CHECK_LOGIN = (
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
    verdict: Verdict,
    call: ApiCall,
    response: ApiResponse,
    batch_result: BatchResult | None = None,
    *,
    prefix: str = PREFIX,
) -> ApiError:
    """Return the exception for a verdict other than ACCEPTED.

    Args:
        verdict: the verdict.
        call: the request.
        response: its response.
        batch_result: the per-lead results of the request.
        prefix: what the variables of the account's settings begin with, for the advice.
    """
    advice = _find_advice(verdict, call, response).replace(PREFIX, prefix)
    return _ERRORS[verdict](call, response, advice, batch_result)


def _find_advice(verdict: Verdict, call: ApiCall, response: ApiResponse) -> str:
    status = response.status or 0
    if call is ApiCall.LOGIN and status in (400, 401):
        return _CHECK_LOGIN
    if 300 <= status < 400:
        return "the API redirects to another address: check LEADLOOP_API_URL"
    is_not_page = call is ApiCall.READ and verdict is Verdict.RETRY and 200 <= status < 300
    # Only statuses whose verdict depends on the body: other errors may well come with a page.
    is_unreadable = response.body is UNREADABLE and (
        200 <= status < 300 or status in (400, 404, 409, 422)
    )
    if is_not_page or is_unreadable:
        return (
            "the response is not the vendor's JSON, or was cut off (a proxy or a login page?):"
            " check LEADLOOP_API_URL"
        )
    return _ADVICE.get(status, "")
