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

from leadloop.core.verdicts import Answer, Call, Verdict


class ApiError(Exception):
    """Base of all that the client raises about an answer."""

    def __init__(self, call: Call, answer: Answer, advice: str = "") -> None:
        super().__init__(f"{call}: {answer}" + (f"; {advice}" if advice else ""))
        self.call = call
        self.answer = answer

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

_ADVICE: dict[int, str] = {
    401: "the login is not accepted: check LEADLOOP_API_TOKEN or the four login settings",
    403: "the login may not do this: ask the vendor for access to the campaign",
    404: "the vendor does not know this campaign or address: check the campaign id and"
    " LEADLOOP_API_URL",
    405: "the address is not the Leads API: check LEADLOOP_API_URL",
}


def error_for(verdict: Verdict, call: Call, answer: Answer) -> ApiError:
    """The exception that stands for a verdict other than ACCEPTED."""
    status = answer.status or 0
    advice = _ADVICE.get(status, "")
    if 300 <= status < 400:
        advice = "the API answers from another address: check LEADLOOP_API_URL"
    return _ERRORS[verdict](call, answer, advice)
