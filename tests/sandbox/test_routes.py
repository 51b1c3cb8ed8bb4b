from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from leadloop.sandbox import Handle
from tests.sandbox.http_client import Visitor, lead

Visit = Callable[..., Visitor]
PATHS = {
    "create": ("POST", "/api/v1/leads/create/C1/"),
    "responses": ("GET", "/api/v1/leads/responses/C1/"),
    "disable": ("POST", "/api/v1/leads/disable/C1/"),
    "token": ("POST", "/oauth/token/"),
    "revoke": ("POST", "/oauth/revoke_token/"),
}
FIXED = {
    "lead_id", "phone_number", "contact_name", "created_at", "campaign_id", "campaign_name",
    "country_code", "state_code", "call_attempt_keys", "last_call_attempt_keys", "total_cost",
}  # fmt: skip
SECRETS = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
LOGIN = {
    **SECRETS, "grant_type": "password", "username": "sandbox-user", "password": "sandbox-password"
}  # fmt: skip


def test_a_list_of_leads_is_created(visit: Visit) -> None:
    """A list gets 201 and is in the books, once each."""
    api = visit()
    answer = api.create([lead("a"), lead("b", age=7)])
    assert answer.status_code == 201
    assert api.handle.books.creations("C1") == {"a": 1, "b": 1}


def test_one_bare_object_is_created(visit: Visit) -> None:
    """The document's shell sample posts no list."""
    api = visit()
    assert api.create(lead(1)).status_code == 201
    assert api.ids() == ["1"]


def test_an_unprocessed_result_has_the_documented_keys_and_the_custom_ones(visit: Visit) -> None:
    """Fixed keys, custom fields, and none of the keys of a processed lead."""
    api = visit()
    api.create([lead("007", age=41, tags=["x", {"y": "\u0000é☎"}])])
    page = api.read().json()
    row = page["results"][0]
    assert (page["count"], page["next"], page["previous"]) == (1, None, None)
    assert set(row) >= FIXED
    assert not {"processed_at", "outcome_id", "outcome_name"} & set(row)
    assert (row["lead_id"], row["age"], row["tags"]) == ("007", 41, ["x", {"y": "\u0000é☎"}])
    assert row["campaign_id"] == "C1"
    assert abs(row["created_at"] - api.handle.now()) < 5_000


def test_a_processed_result_has_its_attempts_under_keys_that_it_names(visit: Visit) -> None:
    """The list of attempts, the last one again as an object, and other blocks."""
    api = visit(campaigns={"C1": "Spring"})
    api.create([lead("a")])
    attempts: list[dict[str, Any]] = [{"reference_id": "r1"}, {"reference_id": "r2", "Q": "é"}]
    blocks = {"sms_hello": {"cost": "PENDING OR NOT AVAILABLE"}}
    api.process("a", processed_at=123, total_cost=1.5, attempts=attempts, blocks=blocks, note="n")
    row = api.read().json()["results"][0]
    assert row["call_attempt_keys"] == ["call_attempt_Spring_1"]
    assert row["last_call_attempt_keys"] == ["last_call_attempt_Spring_1"]
    assert row["call_attempt_Spring_1"] == attempts
    assert row["last_call_attempt_Spring_1"] == attempts[-1]
    assert (row["sms_hello"], row["note"]) == (blocks["sms_hello"], "n")
    assert (row["processed_at"], row["outcome_id"], row["outcome_name"]) == (123, 7, "Yes")
    assert row["total_cost"] == 1.5


def test_pages_and_filters(visit: Visit) -> None:
    """Page and page_size cut the range; lead_id and the window choose it."""
    api = visit()
    api.create([lead(f"{n}") for n in range(5)])
    for n in range(4):
        api.process(f"{n}", processed_at=1000 + n)
    assert api.ids(page=2, page_size=2) == ["2", "3"]
    assert api.ids(lead_id="3") == ["3"]
    assert api.ids(processed_after=1001, processed_before=1002) == ["1", "2"]
    assert api.ids(processed_after=0) == ["0", "1", "2", "3"]
    assert api.ids(lead_id="3", processed_after=1004) == []
    assert api.ids(lead_id="4", processed_before=9999) == []
    assert api.ids(lead_id="nobody") == []
    assert api.ids(min_called_at=1) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "params",
    [{"page": "x"}, {"page": 0}, {"page_size": 0}, {"processed_after": "2020-01-01"}, {"page": ""}],
)
def test_wrong_parameters_are_refused(visit: Visit, params: dict[str, Any]) -> None:
    """A parameter that is no whole number gets 400 with the reason."""
    answer = visit().read(**params)
    assert answer.status_code == 400
    assert "must be" in answer.json()["detail"]


def test_a_disabled_lead_gets_201_and_no_outcome(visit: Visit) -> None:
    """Outreach stops: what was still to come does not come."""
    api = visit(pace=1000.0)
    api.create([lead("a"), lead("b")])
    assert api.disable("a").status_code == 201
    api.handle.change(clock_offset=1_000_000)
    assert api.ids(processed_after=0) == ["b"]
    assert set(api.handle.books.disabled("C1")) == {"a"}


@pytest.mark.parametrize("kind", ["create", "responses", "disable"])
@pytest.mark.parametrize("header", [{"Authorization": None}, {"Authorization": "Bearer wrong"}])
def test_without_a_valid_token_nothing_is_told(visit: Visit, kind: str, header: Any) -> None:
    """401 in JSON, and nothing happens."""
    api = visit()
    answer = api.call(*PATHS[kind], json=[lead("a")], headers=header)
    assert answer.status_code == 401
    assert answer.json()["detail"]
    assert api.handle.books.creations("C1") == {}


@pytest.mark.parametrize("kind", list(PATHS))
def test_another_method_gets_405(visit: Visit, kind: str) -> None:
    """The path is right, the method is not."""
    method, path = PATHS[kind]
    answer = visit().call("DELETE", path)
    assert answer.status_code == 405
    assert answer.json()["detail"]
    assert method in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/", "/api/v1/leads/create/C1", "/api/v2/leads/", "/nope/"])
def test_other_paths_get_404_in_json(visit: Visit, path: str) -> None:
    """The trailing slash is part of the path, as documented; nothing is redirected."""
    answer = visit().call("POST", path, json=[], allow_redirects=False)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})


def test_every_answer_carries_the_sandbox_s_own_date(visit: Visit) -> None:
    """The Date header follows the clock that can be set."""
    api = visit(clock_offset=-86_400)
    for path in ("/api/v1/leads/responses/C1/", "/nope"):
        dated = parsedate_to_datetime(api.call("GET", path).headers["Date"])
        assert abs(dated.timestamp() * 1000 - api.handle.now()) < 3_000


def login(api: Visitor, **form: str) -> dict[str, Any]:
    """A pair of tokens, or the error, as the token route tells it."""
    granted: dict[str, Any] = api.session.post(
        api.handle.url + "/oauth/token/", data=form, timeout=10
    ).json()
    return granted


def bearer(granted: dict[str, Any]) -> dict[str, str]:
    """The header for a granted token."""
    return {"Authorization": f"Bearer {granted['access_token']}"}


def test_the_password_grant_lets_in_until_it_expires(visit: Visit) -> None:
    """The token works, and is refused once the sandbox's clock has passed its end."""
    api = visit(expires_in=60)
    granted = login(api, **LOGIN)
    assert granted["expires_in"] == 60
    assert set(granted) == {"access_token", "refresh_token", "token_type", "expires_in", "scope"}
    assert api.create([lead("a")], headers=bearer(granted)).status_code == 201
    api.handle.change(clock_offset=61)
    assert api.create([lead("b")], headers=bearer(granted)).status_code == 401


def test_a_refresh_token_renews_once(visit: Visit) -> None:
    """It gives a new pair, and is spent then; so is the access token that it came with."""
    api = visit()
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
def test_wrong_credentials_get_no_token(visit: Visit, change: Any, error: str) -> None:
    """The error is named as OAuth does."""
    assert login(visit(), **{**LOGIN, **change}) == {"error": error}


def test_a_token_request_in_json_is_refused(visit: Visit) -> None:
    """The token route is form-encoded."""
    assert visit().call("POST", "/oauth/token/", json=LOGIN).status_code == 401


def test_a_revoked_token_is_refused(visit: Visit) -> None:
    """Granted or fixed, a revoked token lets no one in."""
    api = visit()
    granted = login(api, **LOGIN)
    for token in (granted["access_token"], "sandbox-token"):
        form = {**SECRETS, "token": token}
        assert api.call("POST", "/oauth/revoke_token/", data=form).status_code == 200
    assert api.create([lead("a")], headers=bearer(granted)).status_code == 401
    assert api.create([lead("a")]).status_code == 401
    assert api.call("POST", "/oauth/revoke_token/", data={"token": "x"}).status_code == 401


def test_one_connection_serves_many_requests(visit: Visit) -> None:
    """Keep-alive: a session opens one connection."""
    api = visit()
    for n in range(5):
        api.create([lead(f"{n}")])
    pools: Any = api.session.get_adapter("http://").poolmanager.pools  # type: ignore[attr-defined]
    assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118


def test_the_log_tells_kind_and_status_but_no_secret(visit: Visit) -> None:
    """Tests judge a client by this log; it holds neither token nor body."""
    api = visit()
    api.create([lead("a")])
    api.read(page=1)
    api.call("GET", "/nope")
    log = api.handle.requests
    assert [(e.kind, e.status, e.query) for e in log] == [
        ("create", 201, ""),
        ("responses", 200, "page=1"),
        ("other", 404, ""),
    ]
    assert all(e.bearer for e in log)
    assert "sandbox-token" not in repr(log) + repr(api.handle.rules)


def test_the_handle_is_what_the_package_says(visit: Visit) -> None:
    """The public name is importable for annotations."""
    assert isinstance(visit().handle, Handle)
