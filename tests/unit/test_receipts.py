from typing import Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.receipts import read_receipt, says_duplicate, without_personal_data, words

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["lead_id", "error", "errors", "status", "failed", "detail", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"errors": [{"lead_id": "a", "error": "bad phone"}]}, {"a": "bad phone"}),
        ({"errors": [{"lead_id": 7, "message": "bad phone"}]}, {"7": "bad phone"}),
        ({"errors": {"a": "bad phone"}}, {"a": "bad phone"}),
        ({"errors": {"a": ["bad phone", "no name"]}}, {"a": "bad phone; no name"}),
        (
            {"errors": {"a": {"phone_number": ["not valid"]}}},
            {"a": "phone_number: not valid"},
        ),
        ({"failed": ["a", 7]}, {"a": "failed", "7": "failed"}),
        ({"created": ["b"], "invalid_leads": ["a"]}, {"a": "invalid_leads"}),
        ([{"lead_id": "a", "status": "failed"}, {"lead_id": "b", "status": "ok"}], {"a": "failed"}),
        ([{"lead_id": "a", "success": False, "reason": "full"}], {"a": "full"}),
        ([{"lead_id": "a", "error": {"detail": "bad phone"}}], {"a": "bad phone"}),
        ({"results": [{"lead_id": "b"}, {"lead_id": "a", "error": "x"}]}, {"a": "x"}),
        ({"data": {"leads": {"rejected": [{"lead_id": "a"}]}}}, {"a": "rejected"}),
    ],
)
def test_every_shape_that_names_leads_is_read(body: Any, refused: dict[str, str]) -> None:
    """The document shows none, so all the usual ones must do; ids may be numbers."""
    assert read_receipt(body, {"a", "b", "7"}).refused == refused


@pytest.mark.parametrize(
    "body",
    [
        *(None, "", [], {}, 5, "created"),
        {"created": 100},
        [{"lead_id": "a", "status": "created"}, {"lead_id": "b", "errors": []}],
        {"leads": [{"lead_id": "a", "message": "created"}]},
        {"errors": [], "failed": {}},
        {"errors": {"phone_number": ["not valid"]}},
        {"failed": [{"lead_id": "somebody else"}]},
        {"detail": "Not all leads could be created"},
    ],
)
def test_an_answer_that_accuses_nobody_of_ours(body: Any) -> None:
    """Successes, lists that are empty, and leads that were not in the request."""
    assert read_receipt(body, {"a", "b"}).refused == {}


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ([{"lead_id": "a", "status": 404}], {"a": "404"}),
        ([{"lead_id": "a", "status": "not found"}], {"a": "not found"}),
        ([{"lead_id": "a", "code": 409, "message": "full"}], {"a": "full"}),
        ([{"lead_id": "a", "status": "processed", "success": False}], {"a": "False"}),
        ({"not_found": ["a"]}, {"a": "not_found"}),
        ({"unknown_leads": ["a"]}, {"a": "unknown_leads"}),
        ({"failed": [{"id": "a", "reason": "full"}]}, {"a": "full"}),
        ({"a": "unknown lead", "b": "created"}, {"a": "unknown lead"}),
        ({"a": {"error": "full"}}, {"a": "full"}),
        ({"errors": [{"lead_id": 7, "error": "full"}]}, {"007": "full"}),
    ],
)
def test_rarer_shapes(body: Any, refused: dict[str, str]) -> None:
    """A 207's statuses, objects keyed by id, ids that lost their leading zeros."""
    assert read_receipt(body, {"a", "b", "007"}).refused == refused


@pytest.mark.parametrize(
    "body",
    [
        {"errors": ["campaign paused"]},
        {"failed": [{"lead_id": "somebody else"}]},
        {"errors": {"phone_number": ["not valid"]}},
        {"errors": [{"message": "one of them is wrong"}]},
    ],
)
def test_a_failure_of_nobody_in_particular_is_unclear(body: Any) -> None:
    """It must be taken neither for a success nor for a refusal of all."""
    assert read_receipt(body, {"a"}).unclear
    assert not read_receipt(body, {"a"}).refused


def test_an_echo_of_a_users_own_field_accuses_nobody() -> None:
    """A custom field called `status` says nothing of the create, and what is in one even less."""
    echo = {"lead_id": "a", "status": "failed", "notes": {"lead_id": "b", "error": "x"}}
    own = {"a": {"status", "notes"}}
    assert not read_receipt([echo], {"a", "b"}, own.__getitem__).refused


def test_leads_that_are_listed_as_created_are_taken() -> None:
    """A refusal may say whom it took all the same: they must not be sent again."""
    reading = read_receipt({"created": ["a", 7], "errors": {"b": "full"}}, {"a", "b", "007"})
    assert (reading.taken, reading.refused) == ({"a", "007"}, {"b": "full"})


@given(_JSON)
def test_no_answer_is_too_strange(body: Any) -> None:
    """Whatever it holds, only leads that were sent are named, each with some words."""
    sent = {"", "0", "1", "a"}
    refused = read_receipt(body, sent).refused
    assert refused.keys() <= sent
    assert all(isinstance(reason, str) for reason in refused.values())
    assert isinstance(words(body), str)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "Invalid phone"}, "Invalid phone"),
        ({"error": {"message": "Invalid phone"}}, "Invalid phone"),
        ([{"phone_number": ["Invalid", "too long"]}], "phone_number: Invalid; too long"),
        ({"lead_id": "a", "error": ""}, ""),
        (["full", {"reason": "closed"}], "full; closed"),
        (None, ""),
        (5, ""),
    ],
)
def test_the_vendor_s_own_words(body: Any, said: str) -> None:
    """What a person reads in last_error of the lead that stood alone."""
    assert words(body) == said


@pytest.mark.parametrize(
    "said",
    [
        "Lead already exists",
        "duplicate lead_id",
        "lead_id: ALREADY created",
        "It exists.",
        "Lead with this lead_id already exists in this campaign",
        "A contact with this lead_id already exists",
        "Lead already exists (state: processed)",
        "lead_id field: already exists",
    ],
)
def test_the_ways_to_say_that_it_is_there_already(said: str) -> None:
    """For a lead that we sent that is a success."""
    assert says_duplicate(said)
    assert not says_duplicate("Invalid phone")


@pytest.mark.parametrize(
    "said",
    [
        "A lead with this phone number already exists",
        "this person is already on the do-not-call list",
        "no such state exists",
        "duplicate phone_number",
        "Lead already opted out",
        "Lead already disabled",
        "was already unsubscribed",
    ],
)
def test_a_refusal_is_not_taken_for_a_duplicate(said: str) -> None:
    """A lead that the vendor refused must not count as one that it has."""
    assert not says_duplicate(said)


@given(
    st.integers(2_000_000, 9_999_999),
    st.sampled_from(
        [
            phonenumbers.PhoneNumberFormat.E164,
            phonenumbers.PhoneNumberFormat.NATIONAL,
            phonenumbers.PhoneNumberFormat.INTERNATIONAL,
            phonenumbers.PhoneNumberFormat.RFC3966,
        ]
    ),
    st.text(st.characters(exclude_categories=("Nd", "Cs")), max_size=400),
)
def test_no_phone_number_is_left_in_the_vendor_s_words(number: int, form: int, said: str) -> None:
    """In no way that numbers are written, wherever it stands."""
    written = phonenumbers.format_number(phonenumbers.parse(f"+1415{number}"), form)
    left = without_personal_data(f"{said} {written} {said}")
    assert str(number)[3:] not in left
    assert str(number)[:3] not in left
    assert len(left) <= 300


@given(st.text(min_size=1, max_size=40).filter(str.strip), st.text(max_size=20))
def test_a_given_name_is_left_nowhere(name: str, said: str) -> None:
    """In any case of letters, e-mail addresses too."""
    left = without_personal_data(f"{said} {name} ann@example.com", name, None, " ")
    assert name.strip() in ("…", " … …"[: len(name.strip())]) or name.strip() not in left
    assert "@example" not in left


def test_what_is_no_personal_data_stays() -> None:
    """The reason must still tell what is wrong."""
    said = "phone_number +14155552671 of Ann Example: max 12 characters (400)"
    left = without_personal_data(said, "Ann Example")
    assert left == "phone_number … of …: max 12 characters (400)"


def test_a_long_answer_without_a_blank_is_read_at_once() -> None:
    """A compact echo of a whole batch takes no minutes."""
    assert len(without_personal_data("x" * 300_000)) == 300
