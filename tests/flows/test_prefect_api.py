"""The Prefect server that a run uses: its address, whether it answers, who may read it."""

import json
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from db.database import Database
from flows.prefect_api import allows_anonymous_access, check_api_reachable, configured_api_url
from leadloop.core.errors import UsageError
from tests import factories
from tests.conftest import Ran
from tests.raw_http_server import response, run_raw_server


@pytest.mark.parametrize("address", ["http://127.0.0.1:4200/api", "http://127.0.0.1:4200/api/"])
def test_the_address_has_no_slash_at_its_end(address: str) -> None:
    """A path can be appended to it, however the profile writes it."""
    with temporary_settings({PREFECT_API_URL: address}):
        assert configured_api_url() == "http://127.0.0.1:4200/api"


def test_without_an_address_there_is_none() -> None:
    """Then a run starts a server itself."""
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert configured_api_url() is None


def test_a_server_that_answers_is_reachable(prefect: str) -> None:
    """With the login that the environment names."""
    with temporary_settings({PREFECT_API_URL: prefect}):
        check_api_reachable()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("401 Unauthorized", "the server wants another PREFECT_API_KEY"),
        ("403 Forbidden", "the server wants another PREFECT_API_KEY"),
        ("404 Not Found", r"that is not the API of a Prefect server.*\(HTTP 404\)"),
        ("500 Internal Server Error", r"the server, or a proxy before it, fails \(HTTP 500\)"),
        ("503 Service Unavailable", r"the server, or a proxy before it, fails \(HTTP 503\)"),
    ],
)
def test_a_server_that_refuses_is_explained(status: str, words: str) -> None:
    """One line names the variable, the reason and the remedy."""
    with (
        run_raw_server(response(status, "{}")) as server,
        temporary_settings({PREFECT_API_URL: f"{server.url}/api"}),
        pytest.raises(
            UsageError,
            match=rf"^PREFECT_API_URL: {words}.*: {server.url}/api; correct it, or unset it",
        ),
    ):
        check_api_reachable()


def test_where_no_server_is_that_is_said() -> None:
    """At once: a person waits."""
    with run_raw_server(response("200 OK", "[]")) as server:
        gone = f"{server.url}/api"
    with_password = gone.replace("http://", "http://ann:s3cret@")
    with (
        temporary_settings({PREFECT_API_URL: with_password}),
        pytest.raises(UsageError, match=f"no server answers there .*: {gone}; start the server"),
    ):
        check_api_reachable()


def test_doctor_looks_at_the_door_of_the_profile_s_server(
    leadloop: Callable[..., Ran], environment: Path
) -> None:
    """It warns of an open server that `prefect profile` names too, and with a slash at its end."""
    home = environment / "prefect-home"
    home.mkdir()
    no_csrf_token = response("404 Not Found", "{}")
    with run_raw_server(no_csrf_token, response("200 OK", "[]")) as server:
        (home / "profiles.toml").write_text(
            f'active = "team"\n[profiles.team]\nPREFECT_API_URL = "{server.url}/api/"\n'
        )
        said = leadloop("doctor", "--json", PREFECT_HOME=str(home)).last["checks"]
    door = next(check for check in said if check["check"] == "Prefect authentication")
    assert (door["ok"], door["warns"]) == (True, True)
    assert "the server requires no authentication" in door["detail"]


@pytest.mark.parametrize(
    ("answer", "open_to_all"),
    [
        ("200 OK", True),
        ("401 Unauthorized", False),
        ("403 Forbidden", False),
        ("404 Not Found", None),
        ("500 Internal Server Error", None),
    ],
)
def test_whether_a_server_is_open_is_told_only_where_it_is_known(
    answer: str, open_to_all: bool | None
) -> None:
    """What is neither a refusal nor an answer vouches for nothing."""
    with run_raw_server(response(answer, "[]")) as server:
        assert allows_anonymous_access(server.url) is open_to_all
    # Nobody is there any more.
    assert allows_anonymous_access(server.url) is None


@pytest.mark.parametrize("answered", [0, 1])
def test_a_server_that_fails_when_a_run_begins_is_one_line(
    leadloop: Callable[..., Ran], database: Database, answered: int
) -> None:
    """It has answered the first requests; then it, or a proxy before it, answers 503.

    A request that begins a run is not repeated: Prefect's client would do so for two minutes.
    """
    factories.add_campaign(database)
    no_csrf_token, flows = response("404 Not Found", "{}"), response("200 OK", "[]")
    created = response("201 Created", json.dumps({"id": str(UUID(int=7)), "name": "push-leads"}))
    first = [no_csrf_token, flows, *[no_csrf_token, created] * answered]
    refused = response("503 Service Unavailable", "{}")
    with run_raw_server(*first, refused) as server:
        ran = leadloop("push", PREFECT_API_URL=f"{server.url}/api")
    assert len(server.requests) == len(first) + 1
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "leadloop: the Prefect server failed (HTTP 503)" in ran.err
    assert f"see the log of the server at {server.url}/api" in ran.err
    assert len(ran.err.splitlines()) <= 3


def test_a_proxy_that_prefect_cannot_use_is_named(
    leadloop: Callable[..., Ran], database: Database
) -> None:
    """Its client prepares every proxy of the environment, also for a server on this machine."""
    factories.add_campaign(database)
    ran = leadloop("push", ALL_PROXY="socks5://127.0.0.1:1080")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "ALL_PROXY (or all_proxy) names a SOCKS proxy" in ran.err
