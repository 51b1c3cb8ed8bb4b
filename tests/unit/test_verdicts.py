from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.client.errors import ApiError, error_for
from leadloop.core.verdicts import UNREADABLE, Answer, Call, Failure, Verdict, judge

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_BODIES = st.one_of(st.none(), st.just(UNREADABLE), _JSON, st.just({"error": "no", "detail": ""}))
_STATUSED = st.builds(
    Answer,
    status=st.integers(100, 599),
    body=_BODIES,
    retry_after_s=st.none() | st.floats(0, 1e6),
)
_FAILED = st.builds(Answer, failure=st.sampled_from(Failure), cause=st.text(max_size=5))
_ANSWERS = _STATUSED | _FAILED


@given(st.sampled_from(Call), _ANSWERS)
def test_every_answer_has_a_verdict(call: Call, answer: Answer) -> None:
    """And each verdict but success has an exception, whose text is one line."""
    verdict = judge(call, answer)
    if verdict is not Verdict.ACCEPTED:
        assert "\n" not in str(error_for(verdict, call, answer)).replace(answer.cause, "")


@given(_ANSWERS)
def test_a_create_that_may_have_happened_is_in_doubt(answer: Answer) -> None:
    """It is never sent again unasked: that could be a second call to the same person.

    So with no answer, a 5xx that does not say when to come back, a success that cannot be read.
    """
    broken = answer.failure is Failure.NO_ANSWER
    server_error = answer.status is not None and answer.status >= 500
    refused_by_design = answer.status == 503 and answer.retry_after_s is not None
    unreadable = answer.status in range(200, 300) and answer.body is UNREADABLE
    if broken or (server_error and not refused_by_design) or unreadable:
        assert judge(Call.CREATE, answer) is Verdict.IN_DOUBT


@given(st.integers(100, 599), _BODIES)
def test_a_create_is_resent_only_where_it_was_not_carried_out(status: int, body: Any) -> None:
    """By an answer with a status: only those that say that the server did not take it on."""
    if judge(Call.CREATE, Answer(status=status, body=body)) in (Verdict.RESEND, Verdict.PAUSE):
        assert status in (408, 425, 429)


@given(st.sampled_from([Call.READ, Call.DISABLE, Call.LOGIN]), _ANSWERS)
def test_only_a_create_is_ever_in_doubt(call: Call, answer: Answer) -> None:
    """To repeat anything else does no harm."""
    assert judge(call, answer) is not Verdict.IN_DOUBT


@given(st.sampled_from(Call))
def test_a_connection_that_was_never_made_carried_nothing_out(call: Call) -> None:
    """Refused, unknown host, certificate: send it again later."""
    assert judge(call, Answer(failure=Failure.NOT_SENT)) is Verdict.RESEND


@pytest.mark.parametrize(
    ("status", "create", "disable", "read"),
    [
        (200, Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.ACCEPTED),
        (201, Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.ACCEPTED),
        (302, Verdict.IN_DOUBT, Verdict.STOP, Verdict.STOP),
        (307, Verdict.STOP, Verdict.STOP, Verdict.STOP),
        (400, Verdict.REFUSED, Verdict.REFUSED, Verdict.REFUSED),
        (401, Verdict.LOGIN, Verdict.LOGIN, Verdict.LOGIN),
        (403, Verdict.STOP, Verdict.STOP, Verdict.STOP),
        (404, Verdict.STOP, Verdict.REFUSED, Verdict.STOP),
        (405, Verdict.STOP, Verdict.STOP, Verdict.STOP),
        (413, Verdict.TOO_LARGE, Verdict.TOO_LARGE, Verdict.TOO_LARGE),
        (429, Verdict.PAUSE, Verdict.PAUSE, Verdict.PAUSE),
        (500, Verdict.IN_DOUBT, Verdict.RESEND, Verdict.RESEND),
        (502, Verdict.IN_DOUBT, Verdict.RESEND, Verdict.RESEND),
        (503, Verdict.IN_DOUBT, Verdict.RESEND, Verdict.RESEND),
        (504, Verdict.IN_DOUBT, Verdict.RESEND, Verdict.RESEND),
    ],
)
def test_every_documented_status(
    status: int, create: Verdict, disable: Verdict, read: Verdict
) -> None:
    """The table, as an operator would look it up."""
    answer = Answer(status=status)
    assert judge(Call.CREATE, answer) is create
    assert judge(Call.DISABLE, answer) is disable
    assert judge(Call.READ, answer) is read


@pytest.mark.parametrize("status", [400, 409, 422])
@pytest.mark.parametrize("call", [Call.CREATE, Call.DISABLE])
def test_a_refusal_that_cannot_be_read_blames_no_lead(call: Call, status: int) -> None:
    """A proxy's page, or half an answer: a good lead must not be given up for it."""
    answer = Answer(status=status, body=UNREADABLE)
    assert judge(call, answer) is Verdict.STOP
    assert "LEADLOOP_API_URL" in str(error_for(Verdict.STOP, call, answer))


def test_a_page_of_html_in_place_of_every_disable_stops() -> None:
    """A 404 may be one unknown lead only where the vendor says so in its own words."""
    assert judge(Call.DISABLE, Answer(status=404, body=UNREADABLE)) is Verdict.STOP
    assert judge(Call.DISABLE, Answer(status=404, body={"detail": "?"})) is Verdict.REFUSED


def test_a_login_that_is_too_large_is_the_end() -> None:
    """There is nothing to send less of, and no lead to blame."""
    assert judge(Call.LOGIN, Answer(status=413)) is Verdict.STOP


@pytest.mark.parametrize("call", Call)
def test_maintenance_that_says_when_to_come_back_is_a_pause(call: Call) -> None:
    """503 with Retry-After has refused the request by design."""
    assert judge(call, Answer(status=503, retry_after_s=9.0)) is Verdict.PAUSE


@given(st.sampled_from(Call), st.integers(100, 599))
def test_an_error_repeats_no_body(call: Call, status: int) -> None:
    """Bodies repeat numbers and names; the text of an error goes to logs and to Prefect."""
    answer = Answer(status=status, body={"error": "+14155550123 Ann", "lead_id": "+14155550123"})
    verdict = judge(call, answer)
    if verdict is not Verdict.ACCEPTED:
        error: ApiError = error_for(verdict, call, answer)
        assert "4155550123" not in str(error) + repr(error)
