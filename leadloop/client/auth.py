"""Authentication: the bearer token, static or from the OAuth password grant.

Not requests-oauthlib, because each login counts against the vendor account's rate limit, several
threads share one token, and a token response is classified and retried like any other response.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from leadloop.client.errors import Fatal, error_for_verdict
from leadloop.client.retries import RequestRetries
from leadloop.client.transport import Transport
from leadloop.core.header_values import is_header_value
from leadloop.core.verdicts import UNREADABLE, ApiCall, ApiResponse, Verdict, classify_response

TOKEN_PATH = "/oauth/token/"
_RENEW_BEFORE_S = 60.0
# Assumed if the response has no `expires_in`.
_DEFAULT_LIFETIME_S = 3600.0


class TokenProvider(Protocol):
    """A source of the bearer token for requests."""

    def fresh_token(self) -> str:
        """Return a token that should be valid now.

        Raises:
            ApiError: the vendor issued none.
        """

    def cached_token(self) -> str:
        """Return the last token at once, even if it is about to expire or being renewed.

        Raises:
            ApiError: there is no token yet, and the vendor issued none.
        """

    def renew(self, rejected: str) -> bool:
        """Replace a rejected token; return False if there is no other."""

    def hold_turn(self) -> AbstractContextManager[None]:
        """Keep other processes from logging in during the block, and so from ending this token."""


class StaticToken:
    """A fixed token from the settings."""

    def __init__(self, token: str) -> None:
        self._token = token

    def fresh_token(self) -> str:
        """Return the token."""
        return self._token

    def cached_token(self) -> str:
        """Return the token."""
        return self._token

    def renew(self, rejected: str) -> bool:
        """Return False for the static token: there is no other."""
        return rejected != self._token

    def hold_turn(self) -> AbstractContextManager[None]:
        """Do nothing: no login ends a static token."""
        return nullcontext()


@dataclass(frozen=True, kw_only=True, repr=False)
class Credentials:
    """The credentials of the OAuth password grant."""

    client_id: str
    client_secret: str
    username: str
    password: str


@dataclass
class _TokenGrant:
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float

    @property
    def is_current(self) -> bool:
        """Whether the token is valid for another minute, unless the vendor has ended it."""
        return time.monotonic() <= self.expires_at


class OAuthPasswordGrant:
    """Tokens from `POST /oauth/token/` (form-encoded), renewed automatically; thread-safe.

    A vendor may keep one token a login alive, so that each login ends the token of every other
    process. Then the processes take turns: one logs in and sends its request while no other may.

    Args:
        transport: the vendor's server.
        credentials: of the login.
        acquire_permit: as for `LeadsApi`.
        retries: of the login's requests.
        lock_logins: keeps the other processes that use this vendor account from logging in.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        acquire_permit: Callable[[ApiCall], None],
        retries: RequestRetries,
        lock_logins: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._lock_logins = lock_logins
        self._turn = threading.RLock()
        self._is_turn_held = False
        self._issued_in_turn: str | None = None
        self._transport = transport
        self._credentials = credentials
        self._acquire_permit = acquire_permit
        self._retries = retries
        self._grant: _TokenGrant | None = None

    def fresh_token(self) -> str:
        """Return the cached token, renewed a minute before it expires.

        Raises:
            ApiError: the vendor issued none.
        """
        grant = self._grant
        if grant is not None and grant.is_current:
            return grant.access_token
        with self.hold_turn():
            if self._grant is None or not self._grant.is_current:
                self._grant = self._renew_grant()
            return self._grant.access_token

    def cached_token(self) -> str:
        """Return the last token without waiting for a renewal; log in if there is none yet.

        Raises:
            ApiError: there is no token yet, and the vendor issued none.
        """
        grant = self._grant
        return self.fresh_token() if grant is None else grant.access_token

    def renew(self, rejected: str) -> bool:
        """Replace a rejected token once for all threads that saw the rejection.

        Returns:
            False if the token was issued in the turn that is held: no other process has ended it.

        Raises:
            ApiError: the vendor issued no other.
        """
        with self.hold_turn():
            if rejected == self._issued_in_turn:
                return False
            if self._grant is not None and self._grant.access_token == rejected:
                self._grant = self._renew_grant()
        return True

    @contextmanager
    def hold_turn(self) -> Iterator[None]:
        """Keep other threads and processes from logging in during the block.

        One thread may nest such blocks.
        """
        with self._turn:
            if self._is_turn_held:
                yield
                return
            with self._lock_logins():
                self._is_turn_held = True
                try:
                    yield
                finally:
                    self._is_turn_held, self._issued_in_turn = False, None

    def _renew_grant(self) -> _TokenGrant:
        grant = self._log_in()
        self._issued_in_turn = grant.access_token
        return grant

    def _log_in(self) -> _TokenGrant:
        if self._grant is not None and self._grant.refresh_token is not None:
            form = {"grant_type": "refresh_token", "refresh_token": self._grant.refresh_token}
            try:
                return self._request_grant(form)
            except Fatal:
                # The refresh token may have expired or been revoked, unlike the password.
                self._grant = replace(self._grant, refresh_token=None)
        return self._request_grant({"grant_type": "password"})

    def _request_grant(self, form: Mapping[str, str]) -> _TokenGrant:
        secrets = self._credentials
        complete_form = {
            **form,
            "client_id": secrets.client_id,
            "client_secret": secrets.client_secret,
        }
        if form["grant_type"] == "password":
            complete_form |= {"username": secrets.username, "password": secrets.password}

        def log_in() -> _TokenGrant:
            self._acquire_permit(ApiCall.LOGIN)
            received = self._transport.send("POST", TOKEN_PATH, token=None, form=complete_form)
            return _parse_grant(received.response, self._transport.setting_prefix)

        return self._retries.run(ApiCall.LOGIN, log_in)


def _parse_grant(response: ApiResponse, setting_prefix: str) -> _TokenGrant:
    verdict = classify_response(ApiCall.LOGIN, response)
    if verdict is Verdict.REJECTED:
        # invalid_grant: a retry with the same login would be rejected too.
        verdict = Verdict.FATAL
    if verdict is not Verdict.ACCEPTED:
        raise error_for_verdict(verdict, ApiCall.LOGIN, response, prefix=setting_prefix)
    body: Any = response.body
    token = body.get("access_token") if isinstance(body, dict) else None
    if not isinstance(token, str) or not is_header_value(token):
        unreadable = replace(response, body=UNREADABLE)
        raise error_for_verdict(Verdict.RETRY, ApiCall.LOGIN, unreadable, prefix=setting_prefix)
    refresh_token, lifetime_s = body.get("refresh_token"), body.get("expires_in")
    if not isinstance(lifetime_s, int | float):
        lifetime_s = _DEFAULT_LIFETIME_S
    return _TokenGrant(
        access_token=token,
        refresh_token=refresh_token if isinstance(refresh_token, str) else None,
        expires_at=time.monotonic() + max(0.0, float(lifetime_s) - _RENEW_BEFORE_S),
    )
