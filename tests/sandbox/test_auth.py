from typing import Any

import pytest

from tests.sandbox.http_client import PATHS, SandboxClient, StartSandbox, lead

SECRETS = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
LOGIN = {
    **SECRETS, "grant_type": "password", "username": "sandbox-user", "password": "sandbox-password"
}  # fmt: skip


@pytest.mark.parametrize("kind", ["create", "responses", "disable"])
@pytest.mark.parametrize("header", [{"Authorization": None}, {"Authorization": "Bearer wrong"}])
def test_a_request_without_a_valid_token_is_rejected(
    start_sandbox: StartSandbox, kind: str, header: Any
) -> None:
    """401 in JSON, and nothing happens."""
    api = start_sandbox()
    answer = api.call(*PATHS[kind], json=[lead("a")], headers=header)
    assert answer.status_code == 401
    assert answer.json()["detail"]
    assert api.handle.store.creations("C1") == {}


def login(api: SandboxClient, **form: str) -> dict[str, Any]:
    """Request a pair of tokens; return the tokens or the error."""
    granted: dict[str, Any] = api.session.post(
        api.handle.url + "/oauth/token/", data=form, timeout=10
    ).json()
    return granted


def bearer(granted: dict[str, Any]) -> dict[str, str]:
    """Build the header for a granted token."""
    return {"Authorization": f"Bearer {granted['access_token']}"}


def test_the_password_grant_lets_in_until_it_expires(start_sandbox: StartSandbox) -> None:
    """The token works, and is refused once the sandbox's clock has passed its end."""
    api = start_sandbox(expires_in=60)
    granted = login(api, **LOGIN)
    assert granted["expires_in"] == 60
    assert set(granted) == {"access_token", "refresh_token", "token_type", "expires_in", "scope"}
    assert api.create([lead("a")], headers=bearer(granted)).status_code == 201
    api.handle.change_rules(clock_offset=61)
    assert api.create([lead("b")], headers=bearer(granted)).status_code == 401


def test_a_refresh_token_renews_once(start_sandbox: StartSandbox) -> None:
    """It gives a new pair, and is spent then; so is the access token that it came with."""
    api = start_sandbox()
    first = login(api, **LOGIN)
    refresh = {**SECRETS, "grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = login(api, **refresh)
    assert api.create([lead("a")], headers=bearer(second)).status_code == 201
    assert api.create([lead("b")], headers=bearer(first)).status_code == 401
    assert login(api, **refresh) == {"error": "invalid_grant"}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"client_secret": "x"}, "invalid_client"),
        ({"password": "x"}, "invalid_grant"),
        ({"grant_type": "magic"}, "unsupported_grant_type"),
    ],
)
def test_wrong_credentials_get_no_token(
    start_sandbox: StartSandbox, change: Any, error: str
) -> None:
    """The error is named as OAuth does."""
    assert login(start_sandbox(), **{**LOGIN, **change}) == {"error": error}


def test_a_token_request_in_json_is_refused(start_sandbox: StartSandbox) -> None:
    """The token route is form-encoded."""
    assert start_sandbox().call("POST", "/oauth/token/", json=LOGIN).status_code == 401


def test_a_revoked_token_is_refused(start_sandbox: StartSandbox) -> None:
    """Granted or fixed, a revoked token lets no one in."""
    api = start_sandbox()
    granted = login(api, **LOGIN)
    for token in (granted["access_token"], "sandbox-token"):
        form = {**SECRETS, "token": token}
        assert api.call("POST", "/oauth/revoke_token/", data=form).status_code == 200
    assert api.create([lead("a")], headers=bearer(granted)).status_code == 401
    assert api.create([lead("a")]).status_code == 401
    assert api.call("POST", "/oauth/revoke_token/", data={"token": "x"}).status_code == 401


def test_a_vendor_with_a_single_token(start_sandbox: StartSandbox) -> None:
    """Each login ends the token of the one before, as some OAuth servers do."""
    api = start_sandbox(single_token=True)
    first, second = (login(api, **LOGIN)["access_token"] for _ in range(2))
    headers = [{"Authorization": f"Bearer {token}"} for token in (first, second)]
    found = [api.call(*PATHS["responses"], headers=each).status_code for each in headers]
    assert found == [401, 200]
