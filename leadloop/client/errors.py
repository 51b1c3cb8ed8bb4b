"""The exceptions of the client, named by what the caller should do.

    ApiError
    ├── Resend            nothing was carried out, or repeating does no harm: send it again later
    │   └── Paused        ... and let the whole business send nothing for `retry_after_s`
    ├── InDoubt           it may have been carried out: look it up, never resend it unasked
    ├── Refused           the vendor will not take this as it stands; `body` says why
    │   └── TooLarge      ... because it is too much at once: send fewer
    └── Stopped           nothing will succeed until a person changes something

No message repeats a body, a token or a phone number.
"""

from typing import Any

from leadloop.core.batch_response import Reading
from leadloop.core.verdicts import UNREADABLE, Answer, Call, Verdict


class ApiError(Exception):
    """Base of all that the client raises about an answer."""

    def __init__(
        self, call: Call, answer: Answer, advice: str = "", reading: Reading | None = None
    ) -> None:
        super().__init__(f"{call}: {answer}" + (f"; {advice}" if advice else ""))
        self.call = call
        self.answer = answer
        #: What the answer says of each lead of the request: nothing, where it is not about leads.
        self.reading = reading or Reading()

    @property
    def body(self) -> Any:
        """The answer's body: parsed JSON, None or UNREADABLE. It may hold personal data."""
        return self.answer.body


class Resend(ApiError):
    """Send the same again after a pause."""


class Paused(Resend):
    """Send nothing at all for a while."""

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the vendor asked for, if it did."""
        return self.answer.retry_after_s


class InDoubt(ApiError):
    """The leads may have been created."""


class Refused(ApiError):
    """The request is wrong in part or whole."""


class TooLarge(Refused):
    """The request holds too many leads."""


class Stopped(ApiError):
    """A person has to act: wrong token, unknown campaign, moved address."""


_ERRORS: dict[Verdict, type[ApiError]] = {
    Verdict.REFUSED: Refused,
    Verdict.TOO_LARGE: TooLarge,
    Verdict.RESEND: Resend,
    Verdict.PAUSE: Paused,
    Verdict.LOGIN: Stopped,
    Verdict.IN_DOUBT: InDoubt,
    Verdict.STOP: Stopped,
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


def error_for(
    verdict: Verdict, call: Call, answer: Answer, reading: Reading | None = None
) -> ApiError:
    """The exception that stands for a verdict other than ACCEPTED."""
    return _ERRORS[verdict](call, answer, _advice(verdict, call, answer), reading)


def _advice(verdict: Verdict, call: Call, answer: Answer) -> str:
    status = answer.status or 0
    if call is Call.LOGIN and status in (400, 401):
        return _FOUR
    if 300 <= status < 400:
        return "the API answers from another address: check LEADLOOP_API_URL"
    no_page = call is Call.READ and verdict is Verdict.RESEND and 200 <= status < 300
    # Only where it made the verdict what it is: other errors may well come with a page.
    unread = answer.body is UNREADABLE and (200 <= status < 300 or status in (400, 404, 409, 422))
    if no_page or unread:
        return (
            "the answer is not the vendor's JSON, or broke off (a proxy or a login page?): check"
            " LEADLOOP_API_URL"
        )
    return _ADVICE.get(status, "")
