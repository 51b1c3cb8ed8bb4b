"""Authentication: fixed bearer tokens, and the OAuth grants that the vendor documents."""

from collections.abc import Mapping
from secrets import compare_digest, token_urlsafe

from leadloop.sandbox.rules import Rules


class TokenRegistry:
    """The tokens that were issued or revoked. Times are epoch ms of the vendor's clock."""

    def __init__(self) -> None:
        self._expiry: dict[str, int] = {}
        self._access_by_refresh: dict[str, str] = {}
        self._revoked: set[str] = set()

    def is_authorized(self, authorization: str | None, rules: Rules, now: int) -> bool:
        """Check the bearer token of an `Authorization` header."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or token in self._revoked:
            return False
        return token in rules.tokens or self._expiry.get(token, 0) > now

    def grant_tokens(
        self, form: Mapping[str, str], rules: Rules, now: int
    ) -> dict[str, object] | str:
        """Issue a pair of tokens for a password or refresh-token grant.

        Returns:
            The response's body, or the OAuth name of the error.
        """
        if not _is_client(form, rules):
            return "invalid_client"
        kind = form.get("grant_type")
        if kind == "password":
            is_user = _equal_secrets(form.get("username"), rules.username) and _equal_secrets(
                form.get("password"), rules.password
            )
            return self._issue_tokens(rules, now) if is_user else "invalid_grant"
        if kind == "refresh_token":
            refresh_token = form.get("refresh_token", "")
            if refresh_token not in self._access_by_refresh:
                return "invalid_grant"
            self._expiry.pop(self._access_by_refresh.pop(refresh_token), None)
            return self._issue_tokens(rules, now)
        return "unsupported_grant_type"

    def _issue_tokens(self, rules: Rules, now: int) -> dict[str, object]:
        access, refresh = token_urlsafe(24), token_urlsafe(24)
        if rules.single_token:
            self._expiry.clear()
            self._access_by_refresh.clear()
        self._expiry[access] = now + rules.expires_in * 1000
        self._access_by_refresh[refresh] = access
        return {
            "access_token": access,
            "expires_in": rules.expires_in,
            "token_type": "Bearer",
            "scope": "read write",
            "refresh_token": refresh,
        }

    def revoke_token(self, form: Mapping[str, str], rules: Rules) -> str | None:
        """Revoke an access or refresh token, known or unknown.

        Returns:
            None, or the OAuth name of the error.
        """
        if not _is_client(form, rules):
            return "invalid_client"
        if not form.get("token"):
            return "invalid_request"
        token = form["token"]
        self._revoked.add(token)
        self._expiry.pop(token, None)
        self._expiry.pop(self._access_by_refresh.pop(token, ""), None)
        return None

    def reset(self) -> None:
        """Forget every token that was issued or revoked."""
        self._expiry.clear()
        self._access_by_refresh.clear()
        self._revoked.clear()


def _is_client(form: Mapping[str, str], rules: Rules) -> bool:
    return _equal_secrets(form.get("client_id"), rules.client_id) and _equal_secrets(
        form.get("client_secret"), rules.client_secret
    )


def _equal_secrets(sent: str | None, expected: str) -> bool:
    return compare_digest((sent or "").encode(), expected.encode())
