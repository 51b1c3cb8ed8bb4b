"""Where the bearer token comes from: a fixed one, or the OAuth password grant.

Written here rather than taken from requests-oauthlib because each login counts against the budget
of the business, several threads share one token, and an answer gets its verdict like any other.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from leadloop.client.errors import Fatal, error_for_verdict
from leadloop.client.transport import Transport
from leadloop.core.verdicts import UNREADABLE, ApiCall, ApiResponse, Verdict, classify_response

TOKEN_PATH = "/oauth/token/"
_RENEW_BEFORE_S = 60.0


class TokenProvider(Protocol):
    """Gives the token to send with a request."""

    def fresh_token(self) -> str:
        """A token that should be good now.

        Raises:
            ApiError: the vendor gave none.
        """

    def cached_token(self) -> str:
        """The token that was got last, at once: even where it is about to end, or being renewed.

        Raises:
            ApiError: there has been none so far, and the vendor gave none.
        """

    def renew(self, rejected: str) -> bool:
        """Get another token in place of one that was rejected; False where there is none."""


class StaticToken:
    """A token that a person has set."""

    def __init__(self, token: str) -> None:
        self._token = token

    def fresh_token(self) -> str:
        """The token."""
        return self._token

    def cached_token(self) -> str:
        """The token."""
        return self._token

    def renew(self, rejected: str) -> bool:
        """There is no other."""
        return rejected != self._token


@dataclass(frozen=True, kw_only=True, repr=False)
class Credentials:
    """What the password grant asks for."""

    client_id: str
    client_secret: str
    username: str
    password: str


@dataclass
class _TokenGrant:
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    good_until: float


class OAuthPasswordGrant:
    """Tokens from `POST /oauth/token/` (form-encoded), renewed by themselves, for all threads."""

    def __init__(
        self, transport: Transport, credentials: Credentials, permit: Callable[[ApiCall], None]
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._permit = permit
        self._lock = threading.Lock()
        self._grant: _TokenGrant | None = None

    def fresh_token(self) -> str:
        """The token at hand, renewed a minute before it ends.

        Raises:
            ApiError: the vendor gave none.
        """
        with self._lock:
            if self._grant is None or time.monotonic() > self._grant.good_until:
                self._grant = self._renewed()
            return self._grant.access_token

    def cached_token(self) -> str:
        """The last token, without waiting for whoever renews it; one to begin with if need be.

        Raises:
            ApiError: there has been none so far, and the vendor gave none.
        """
        grant = self._grant
        return self.fresh_token() if grant is None else grant.access_token

    def renew(self, rejected: str) -> bool:
        """Replace a rejected token, once for all the threads that saw it rejected.

        Raises:
            ApiError: the vendor gave no other.
        """
        with self._lock:
            if self._grant is not None and self._grant.access_token == rejected:
                self._grant = self._renewed()
        return True

    def _renewed(self) -> _TokenGrant:
        if self._grant is not None and self._grant.refresh_token is not None:
            form = {"grant_type": "refresh_token", "refresh_token": self._grant.refresh_token}
            try:
                return self._ask(form)
            except Fatal:
                # A refresh token may have ended or been revoked; the password has not.
                self._grant = replace(self._grant, refresh_token=None)
        return self._ask({"grant_type": "password"})

    def _ask(self, form: Mapping[str, str]) -> _TokenGrant:
        secrets = self._credentials
        whole = {
            **form,
            "client_id": secrets.client_id,
            "client_secret": secrets.client_secret,
        }
        if form["grant_type"] == "password":
            whole |= {"username": secrets.username, "password": secrets.password}
        self._permit(ApiCall.LOGIN)
        answer = self._transport.send("POST", TOKEN_PATH, token=None, form=whole).response
        return _read_grant(answer)


def _read_grant(answer: ApiResponse) -> _TokenGrant:
    verdict = classify_response(ApiCall.LOGIN, answer)
    if verdict is Verdict.REJECTED:
        # invalid_grant: the same login will not be taken the next time either.
        verdict = Verdict.FATAL
    if verdict is not Verdict.ACCEPTED:
        raise error_for_verdict(verdict, ApiCall.LOGIN, answer)
    body: Any = answer.body
    if not isinstance(body, dict) or not _is_token(body.get("access_token")):
        raise error_for_verdict(
            Verdict.RETRY, ApiCall.LOGIN, ApiResponse(status=answer.status, body=UNREADABLE)
        )
    refresh = body.get("refresh_token")
    return _TokenGrant(
        access_token=body["access_token"],
        refresh_token=refresh if isinstance(refresh, str) else None,
        good_until=time.monotonic() + max(0.0, _seconds(body.get("expires_in")) - _RENEW_BEFORE_S),
    )


def _is_token(value: object) -> bool:
    """Text that a header can carry: of any other, http.client raises an error that repeats it."""
    return isinstance(value, str) and re.fullmatch("[!-~]+", value) is not None


def _seconds(value: object) -> float:
    """`expires_in`; an hour where the vendor does not say."""
    return float(value) if isinstance(value, int | float) else 3600.0
