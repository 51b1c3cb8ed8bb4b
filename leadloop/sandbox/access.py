"""Who may come in: fixed tokens, and the OAuth grants that the vendor documents."""

from collections.abc import Mapping
from secrets import compare_digest, token_urlsafe

from leadloop.sandbox.rules import Rules


class Access:
    """The tokens that are valid now. Times are epoch ms of the vendor's clock."""

    def __init__(self) -> None:
        self._expiry: dict[str, int] = {}
        self._access_of: dict[str, str] = {}
        self._revoked: set[str] = set()

    def allows(self, authorization: str | None, rules: Rules, now: int) -> bool:
        """Whether an `Authorization` header lets its request in."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or token in self._revoked:
            return False
        return token in rules.tokens or self._expiry.get(token, 0) > now

    def grant(self, form: Mapping[str, str], rules: Rules, now: int) -> dict[str, object] | str:
        """A new pair of tokens for a form-encoded grant, or the name of its error."""
        if not _is_client(form, rules):
            return "invalid_client"
        kind = form.get("grant_type")
        if kind == "password":
            return self._issue(rules, now) if _is_user(form, rules) else "invalid_grant"
        if kind == "refresh_token":
            return self._refresh(form.get("refresh_token", ""), rules, now)
        return "unsupported_grant_type"

    def _refresh(self, token: str, rules: Rules, now: int) -> dict[str, object] | str:
        if token not in self._access_of:
            return "invalid_grant"
        self._expiry.pop(self._access_of.pop(token), None)
        return self._issue(rules, now)

    def _issue(self, rules: Rules, now: int) -> dict[str, object]:
        access, refresh = token_urlsafe(24), token_urlsafe(24)
        self._expiry[access] = now + rules.expires_in * 1000
        self._access_of[refresh] = access
        return {
            "access_token": access,
            "expires_in": rules.expires_in,
            "token_type": "Bearer",
            "scope": "read write",
            "refresh_token": refresh,
        }

    def revoke(self, form: Mapping[str, str], rules: Rules) -> str | None:
        """End a token, access or refresh, known or not; the name of the error if it may not."""
        if not _is_client(form, rules):
            return "invalid_client"
        if not form.get("token"):
            return "invalid_request"
        token = form["token"]
        self._revoked.add(token)
        self._expiry.pop(token, None)
        self._expiry.pop(self._access_of.pop(token, ""), None)
        return None

    def reset(self) -> None:
        """Forget every token that was issued or revoked."""
        self._expiry.clear()
        self._access_of.clear()
        self._revoked.clear()


def _is_client(form: Mapping[str, str], rules: Rules) -> bool:
    return _same(form.get("client_id"), rules.client_id) and _same(
        form.get("client_secret"), rules.client_secret
    )


def _is_user(form: Mapping[str, str], rules: Rules) -> bool:
    return _same(form.get("username"), rules.username) and _same(
        form.get("password"), rules.password
    )


def _same(given: str | None, right: str) -> bool:
    return compare_digest((given or "").encode(), right.encode())
