"""What a first contact reads from responses: outlines without anybody's data, times, ids."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.first_contact import (
    OutlineRedaction,
    describe_id_type,
    describe_time_format,
    is_whole,
    outline_body,
    outline_response,
    wants_numeric_id,
)
from leadloop.core.verdicts import UNREADABLE, ApiResponse, TransportFailure

_SECRET = "Zoë Quux"
_TEXTS = st.text(max_size=12).map(lambda text: f"{text} {_SECRET}") | st.just(_SECRET)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(2, 10**12) | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


def hide(text: str) -> str:
    """Redact the one secret."""
    return text.replace(_SECRET, "…")


REDACTION = OutlineRedaction(hide_text=hide, hide_key=hide)


@given(body=_JSON)
def test_an_outline_repeats_neither_people_nor_numbers(body: object) -> None:
    """It is stored and printed: keys, types and redacted texts are all that is left."""
    nothing = OutlineRedaction(hide_text=lambda _: "…", hide_key=lambda _: "…")
    assert _SECRET not in outline_body(body, REDACTION)
    assert not any(character.isdecimal() for character in outline_body(body, nothing))


@pytest.mark.parametrize(
    ("response", "outline"),
    [
        (
            ApiResponse(status=201, body={"created": 1, "errors": []}),
            "HTTP 201 {created: number, errors: []}",
        ),
        (
            ApiResponse(status=400, body={"errors": [{"id": n, "why": "bad"} for n in (1, 2)]}),
            'HTTP 400 {errors: [{id: number, why: "bad"}]}',
        ),
        (
            ApiResponse(status=400, body={"Ann Lee": "exists", _SECRET: 1}),
            'HTTP 400 {…: "exists", …: number}',
        ),
        (ApiResponse(status=204), "HTTP 204, no body"),
        (ApiResponse(status=502, body=UNREADABLE), "HTTP 502, a body that is not JSON"),
        (
            ApiResponse(failure=TransportFailure.NOT_SENT, cause="gaierror"),
            "no connection (gaierror)",
        ),
    ],
)
def test_a_response_is_outlined(response: ApiResponse, outline: str) -> None:
    """A person sees what the vendor answers, and sends it to nobody by mistake."""
    assert outline_response(response, REDACTION) == outline


def test_a_deep_body_is_cut() -> None:
    """No response makes the outline endless."""
    body: object = "x"
    for _ in range(50):
        body = [body]
    assert outline_body(body, REDACTION) == "[[[[[[…]]]]]]"


@pytest.mark.parametrize(
    ("body", "wants"),
    [
        ({"detail": "lead_id: A valid integer is required."}, True),
        ({"errors": [{"lead_id": ["Must be a number"]}]}, True),
        (["Not an int: lead id"], True),
        ({"errors": [{"lead_id": 17, "reason": "phone number: not valid."}]}, False),
        ({"detail": "A lead with this lead_id already exists."}, False),
        ({"number": "an integer is required"}, False),
        (None, False),
    ],
)
def test_a_vendor_that_wants_numbers_is_recognised(body: object, wants: bool) -> None:
    """A person is asked before the setting changes, so a guess may be wrong."""
    assert wants_numeric_id(body) is wants


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (1531409739, "seconds since 1970"),
        (1531409739413, "milliseconds since 1970"),
        ("1531409739413", "milliseconds since 1970, as text"),
        (1531409739.5, "seconds since 1970"),
        (1531409739413000, "microseconds since 1970"),
        (1531409739413000000, "nanoseconds since 1970"),
        ("2018-07-12T15:35:39+00:00", "ISO 8601"),
        ("soon", "no time"),
        (None, "no time"),
    ],
)
def test_a_format_of_times_is_described(value: object, described: str) -> None:
    """As it stands in a result."""
    assert describe_time_format(value) == described


def test_a_type_of_ids_is_described() -> None:
    """The samples show numbers, the tables do not say."""
    assert describe_id_type({"lead_id": 17}) == "number"
    assert describe_id_type({"lead_id": "17"}) == "text"


def test_only_whole_times_can_equal_a_bound() -> None:
    """Between two units a lead is inside of both bounds, whatever they mean."""
    moment = datetime(2026, 1, 1, 9, 0, 1, tzinfo=UTC)
    assert is_whole(moment, "s")
    assert is_whole(moment.replace(microsecond=7000), "ms")
    assert not is_whole(moment.replace(microsecond=7000), "s")
    assert not is_whole(moment.replace(microsecond=7), "ms")
