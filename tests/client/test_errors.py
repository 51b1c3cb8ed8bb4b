"""Errors of the API: one line with the call, the status and the setting to check."""

import pytest

from leadloop.client.errors import Fatal, InDoubt, Retryable, error_for_verdict
from leadloop.core.verdicts import UNREADABLE, ApiCall, ApiResponse, Verdict


@pytest.mark.parametrize(
    ("call", "status", "line"),
    [
        (
            ApiCall.LOGIN,
            401,
            "login: HTTP 401; the login is not accepted: check LEADLOOP_CLIENT_ID",
        ),
        (ApiCall.READ, 401, "read: HTTP 401; the login is not accepted: check LEADLOOP_API_TOKEN"),
        (ApiCall.READ, 404, "the vendor does not know this campaign or address"),
        (ApiCall.CREATE, 301, "the API redirects to another address: check LEADLOOP_API_URL"),
        (ApiCall.CREATE, 405, "the address is not the Leads API: check LEADLOOP_API_URL"),
    ],
)
def test_what_a_person_must_check_is_named(call: ApiCall, status: int, line: str) -> None:
    """By the call and the status."""
    error = error_for_verdict(Verdict.FATAL, call, ApiResponse(status=status))
    assert isinstance(error, Fatal)
    assert line in str(error)


def test_a_body_never_shows_in_a_message() -> None:
    """It may repeat a person's data."""
    response = ApiResponse(status=500, body={"detail": "Ann, +14155552671"})
    assert str(error_for_verdict(Verdict.IN_DOUBT, ApiCall.CREATE, response)) == "create: HTTP 500"


def test_a_login_page_is_explained_where_it_decided_the_verdict() -> None:
    """A 500 may well come with a page; a success must not."""
    page = ApiResponse(status=200, body=UNREADABLE)
    error = error_for_verdict(Verdict.IN_DOUBT, ApiCall.CREATE, page)
    assert isinstance(error, InDoubt)
    assert "not the vendor's JSON" in str(error)
    failed = error_for_verdict(
        Verdict.RETRY, ApiCall.DISABLE, ApiResponse(status=500, body=UNREADABLE)
    )
    assert isinstance(failed, Retryable)
    assert str(failed) == "disable: HTTP 500"
