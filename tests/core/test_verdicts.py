from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.client.errors import ApiError, error_for_verdict
from leadloop.core.verdicts import (
    UNREADABLE,
    ApiCall,
    ApiResponse,
    TransportFailure,
    Verdict,
    classify_response,
)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_BODIES = st.one_of(st.none(), st.just(UNREADABLE), _JSON, st.just({"error": "no", "detail": ""}))
_STATUSED = st.builds(
    ApiResponse,
    status=st.integers(100, 599),
    body=_BODIES,
    retry_after_s=st.none() | st.floats(0, 1e6),
)
_FAILED = st.builds(
    ApiResponse, failure=st.sampled_from(TransportFailure), cause=st.text(max_size=5)
)
_ANSWERS = _STATUSED | _FAILED


@given(st.sampled_from(ApiCall), _ANSWERS)
def test_every_answer_has_a_verdict(call: ApiCall, answer: ApiResponse) -> None:
    """And each verdict but success has an exception, whose text is one line."""
    verdict = classify_response(call, answer)
    if verdict is not Verdict.ACCEPTED:
        assert "\n" not in str(error_for_verdict(verdict, call, answer)).replace(answer.cause, "")


@given(_ANSWERS)
def test_a_create_that_may_have_happened_is_in_doubt(answer: ApiResponse) -> None:
    """It is never sent again unasked: that could be a second call to the same person.

    So with no answer, a 5xx that does not say when to come back, a success that cannot be read.
    """
    broken = answer.failure is TransportFailure.NO_RESPONSE
    server_error = answer.status is not None and answer.status >= 500
    refused_by_design = answer.status == 503 and answer.retry_after_s is not None
    unreadable = answer.status in range(200, 300) and answer.body is UNREADABLE
    if broken or (server_error and not refused_by_design) or unreadable:
        assert classify_response(ApiCall.CREATE, answer) is Verdict.IN_DOUBT


@given(st.integers(100, 599), _BODIES)
def test_a_create_is_resent_only_where_it_was_not_carried_out(status: int, body: Any) -> None:
    """By an answer with a status: only those that say that the server did not take it on."""
    if classify_response(ApiCall.CREATE, ApiResponse(status=status, body=body)) in (
        Verdict.RETRY,
        Verdict.RATE_LIMITED,
    ):
        assert status in (408, 425, 429)


@given(st.sampled_from([ApiCall.READ, ApiCall.DISABLE, ApiCall.LOGIN]), _ANSWERS)
def test_only_a_create_is_ever_in_doubt(call: ApiCall, answer: ApiResponse) -> None:
    """To repeat anything else does no harm."""
    assert classify_response(call, answer) is not Verdict.IN_DOUBT


@given(st.sampled_from(ApiCall))
def test_a_connection_that_was_never_made_carried_nothing_out(call: ApiCall) -> None:
    """Refused, unknown host, certificate: send it again later."""
    assert classify_response(call, ApiResponse(failure=TransportFailure.NOT_SENT)) is Verdict.RETRY


@pytest.mark.parametrize(
    ("status", "create", "disable", "read"),
    [
        (200, Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.ACCEPTED),
        (201, Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.ACCEPTED),
        (302, Verdict.IN_DOUBT, Verdict.FATAL, Verdict.FATAL),
        (307, Verdict.FATAL, Verdict.FATAL, Verdict.FATAL),
        (400, Verdict.REJECTED, Verdict.REJECTED, Verdict.REJECTED),
        (401, Verdict.UNAUTHORIZED, Verdict.UNAUTHORIZED, Verdict.UNAUTHORIZED),
        (403, Verdict.FATAL, Verdict.FATAL, Verdict.FATAL),
        (404, Verdict.FATAL, Verdict.REJECTED, Verdict.FATAL),
        (405, Verdict.FATAL, Verdict.FATAL, Verdict.FATAL),
        (413, Verdict.TOO_LARGE, Verdict.TOO_LARGE, Verdict.TOO_LARGE),
        (429, Verdict.RATE_LIMITED, Verdict.RATE_LIMITED, Verdict.RATE_LIMITED),
        (500, Verdict.IN_DOUBT, Verdict.RETRY, Verdict.RETRY),
        (502, Verdict.IN_DOUBT, Verdict.RETRY, Verdict.RETRY),
        (503, Verdict.IN_DOUBT, Verdict.RETRY, Verdict.RETRY),
        (504, Verdict.IN_DOUBT, Verdict.RETRY, Verdict.RETRY),
    ],
)
def test_every_documented_status(
    status: int, create: Verdict, disable: Verdict, read: Verdict
) -> None:
    """The table, as an operator would look it up."""
    answer = ApiResponse(status=status)
    assert classify_response(ApiCall.CREATE, answer) is create
    assert classify_response(ApiCall.DISABLE, answer) is disable
    assert classify_response(ApiCall.READ, answer) is read


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize("call", [ApiCall.CREATE, ApiCall.DISABLE])
def test_a_refusal_that_cannot_be_read_blames_no_lead(call: ApiCall, status: int) -> None:
    """A proxy's page, or half an answer: a good lead must not be given up for it."""
    answer = ApiResponse(status=status, body=UNREADABLE)
    assert classify_response(call, answer) is Verdict.FATAL
    assert "LEADLOOP_API_URL" in str(error_for_verdict(Verdict.FATAL, call, answer))


def test_a_page_of_html_in_place_of_every_disable_stops() -> None:
    """A 404 may be one unknown lead only where the vendor says so in its own words."""
    assert (
        classify_response(ApiCall.DISABLE, ApiResponse(status=404, body=UNREADABLE))
        is Verdict.FATAL
    )
    assert (
        classify_response(ApiCall.DISABLE, ApiResponse(status=404, body={"detail": "?"}))
        is Verdict.REJECTED
    )


def test_a_login_that_is_too_large_is_the_end() -> None:
    """There is nothing to send less of, and no lead to blame."""
    assert classify_response(ApiCall.LOGIN, ApiResponse(status=413)) is Verdict.FATAL


@pytest.mark.parametrize("call", ApiCall)
def test_maintenance_that_says_when_to_come_back_is_a_pause(call: ApiCall) -> None:
    """503 with Retry-After has refused the request by design."""
    assert (
        classify_response(call, ApiResponse(status=503, retry_after_s=9.0)) is Verdict.RATE_LIMITED
    )


@given(st.sampled_from(ApiCall), st.integers(100, 599))
def test_an_error_repeats_no_body(call: ApiCall, status: int) -> None:
    """Bodies repeat numbers and names; the text of an error goes to logs and to Prefect."""
    answer = ApiResponse(
        status=status, body={"error": "+14155550123 Ann", "lead_id": "+14155550123"}
    )
    verdict = classify_response(call, answer)
    if verdict is not Verdict.ACCEPTED:
        error: ApiError = error_for_verdict(verdict, call, answer)
        assert "4155550123" not in str(error) + repr(error)
