from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.batch_response import (
    BatchResult,
    extract_reason,
    is_duplicate_reason,
    may_be_duplicate_reason,
    parse_batch_response,
)
from leadloop.core.leads import LEAD_FIELDS
from leadloop.core.verdicts import ApiCall

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


def read(body: Any, *sent: str, call: ApiCall = ApiCall.CREATE, own: Any = None) -> BatchResult:
    """The answer to a request that held these; `own`: their custom fields."""
    return parse_batch_response(call, body, set(sent), lambda lead_id: (own or {}).get(lead_id, ()))


def is_created(result: BatchResult) -> bool:
    """Whether a success has created all leads that it does not reject."""
    return not result.ambiguous and result.shape is None


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"errors": [{"lead_id": "a", "error": "bad phone"}]}, {"a": "bad phone"}),
        ({"errors": [{"lead_id": 7, "message": "bad phone"}]}, {"7": "bad phone"}),
        ({"errors": [{"lead_id": 7.0, "message": "bad phone"}]}, {"7": "bad phone"}),
        ({"failed": ["a", 7.0]}, {"a": "failed", "7": "failed"}),
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
    assert read(body, "a", "b", "7").rejected == refused


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
    assert read(body, "a", "b").rejected == {}


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
    assert read(body, "a", "b", "007").rejected == refused


@pytest.mark.parametrize(
    "body",
    [
        {"errors": ["campaign paused"]},
        {"failed": [{"lead_id": "somebody else"}]},
        {"errors": {"phone_number": ["not valid"]}},
        {"errors": [{"message": "one of them is wrong"}]},
        {"error": "database"},
        {"error": {"message": "Invalid payload"}},
        {"error": ["Invalid payload"]},
        {"errors": "b is invalid"},
        {"errors": True},
        {"created": 1, "failed": 1},
        {"created": 2, "failures": {"count": 1}},
        {"data": {"status": "error"}},
        {"status": "rejected"},
        {"status": "fail"},
        {"status": {"code": 400}},
        {"status": 400, "message": "Bad request"},
        {"title": "Bad Request", "type": "about:blank"},
        {"success": False},
        {"success": "false"},
        {"ok": False, "message": "closed"},
        {"message": "Invalid campaign"},
        {"message": "2 leads: 1 created, 1 failed"},
        {"detail": "Come back tomorrow"},
        {"hasErrors": True},
        [{}, {"phone_number": ["Enter a number."]}],
        {"lead_id": ["This field is required."]},
        {"message": "90 created, 10 failed"},
        "Error: not authorised",
        ["error: invalid"],
        False,
        {"leads": [{"lead_id": "c", "status": "invalid"}]},
        [{"lead_id": "a", "status": "not called"}, {"lead_id": "b"}],
        [{"lead_id": "a", "phone_number": ["Enter a number."]}, {"lead_id": "b"}],
        {"a": "unheard of", "b": "created"},
        {"a": 404, "b": 201},
    ],
    ids=str,
)
@pytest.mark.parametrize("call", [ApiCall.CREATE, ApiCall.DISABLE])
def test_trouble_of_nobody_in_particular_is_unclear(call: ApiCall, body: Any) -> None:
    """It must be taken neither for a success nor for a refusal of all."""
    reading = read(body, "a", "b", call=call)
    assert reading.ambiguous
    assert not reading.rejected


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (ApiCall.CREATE, {"created": 1}),
        (ApiCall.CREATE, {"created": "1"}),
        (ApiCall.CREATE, {"status": "success", "count": 1}),
        (ApiCall.CREATE, {"leads_created": 0, "total": 2}),
        (ApiCall.CREATE, {"createdCount": 1}),
        (ApiCall.CREATE, {"created": []}),
        (ApiCall.CREATE, {"data": {"accepted": 1}}),
        (ApiCall.CREATE, {"created": [501]}),
        (ApiCall.DISABLE, {"disabled": 1}),
    ],
)
def test_fewer_than_were_sent_are_not_all(call: ApiCall, body: Any) -> None:
    """Who is missing is not told."""
    assert read(body, "a", "b", call=call).ambiguous


@pytest.mark.parametrize("body", [{"created": 1}, {"count": 1, "updated": 0}, {"created": 7}])
def test_as_many_as_were_sent_are_all(body: Any) -> None:
    """By a count."""
    assert is_created(read(body, "a"))


@pytest.mark.parametrize(
    "body",
    [
        None,
        "OK",
        "Leads created successfully",
        {"success": True},
        {"success": True, "data": None, "error": None},
        {"ok": True, "request_id": 17},
        {"status": "success", "received_at": "2026-11-25T10:02:00Z"},
        {"status": 201},
        {"code": "201", "message": "3 leads were created in 0.35 s"},
        {"message": "Leads created"},
        {"message": "Leads added to campaign"},
        {"status": "imported"},
        {"message": "Created 3 of 3 leads, 0 errors"},
        {"created": 3, "errors": []},
        {"errors": [], "failed": {}},
        {"data": {"accepted": 3}},
        ["a", "b", "c"],
        [{"lead_id": "a"}, {"lead_id": "b"}, {"lead_id": "c"}],
        [{"status": "created"}, {"status": "created"}, {"status": "created"}],
        {"leads": [{"id": 501, "status": "created"}] * 3},
        {"a": 7001, "b": 7002, "c": 7003},
        {"errors": [{"lead_id": "a", "error": "full"}]},
    ],
    ids=str,
)
def test_what_affirms_a_create(body: Any) -> None:
    """A status, a text, a count, each lead by name; or, as documented, the status alone."""
    assert is_created(read(body, "a", "b", "c"))


@pytest.mark.parametrize(
    "body",
    [
        *([], {}, "", {"leads": []}, {"leads": None}, {"created": None}, {"created": ""}),
        *({"message": ""}, {"data": {}}, {"id": None}, {"count": None}),
        *("Please log in", {"message": "Try again later"}, {"status": "NOK"}),
        *({"leads_created": "none"}, {"code": "E100"}, {"queued": 3}, {"batch": "x-17"}),
        {"success": True, "data": {"leads": []}},
        {"status": "ok", "leads": []},
        {"errors": [], "leads": []},
        {"created": ["Z1", "Z2", "Z3"]},
        {"success": True, "created": [7001, 7002, 7003]},
        [{"lead_id": f"Z{number}", "status": "created"} for number in range(3)],
        {"count": 3, "leads": [{"lead_id": f"Z{number}"} for number in range(3)]},
        [True, True, True],
        [201, 201, 201],
    ],
    ids=str,
)
def test_what_neither_affirms_nor_denies_a_create(body: Any) -> None:
    """It is no success by itself, whoever else it names: lookups show what it means."""
    reading = read(body, "a", "b", "c")
    assert reading.shape is not None
    assert (reading.accepted, reading.rejected, reading.ambiguous) == (set(), {}, False)


@pytest.mark.parametrize(
    "body",
    [
        *(
            {"status": "500"},
            {"response": {"code": "403"}},
            {"queued": 0},
            {"saved": 2},
            {"status": 0},
            0,
        ),
        *("2 of 3 leads created", "0 leads created", {"message": "Created 2 leads"}),
        *({"imported": "2/3"}, [201, 201, 400], [True, True, False], ["ok", "ok", "failed"]),
        *({"a": 1, "b": 1, "c": 0}, {"a": 201, "b": 201, "c": None}, {"a": 1, "b": 1, "c": "400"}),
        {"results": [{"index": 0, "status": "created"}, {"index": 2, "status": "created"}]},
        {"success": True, "results": [{"index": 0}, {"index": 2}]},
        {"outcomes": [{"index": 0, "status": "created"}]},
        {"created": ["a", "Z1", "Z2"]},
        {"created": ["a", "a", "a"]},
        {"x1": "queued", "x2": "queued", "x3": "waiting"},
        {"created": ["Z1", "Z2"], "errors": {"a": "full"}},
        [{"lead_id": "a"}, {"lead_id": "b"}, {"lead_id": "c", "status": "500"}, {"lead_id": "Z"}],
    ],
    ids=str,
)
def test_what_may_speak_of_some_leads_only(body: Any) -> None:
    """Lookups of a few would show nothing about the others: each is in doubt, or refused."""
    reading = read(body, "a", "b", "c")
    assert reading.shape is None
    assert reading.ambiguous or reading.rejected == {"c": "500"}


def test_those_that_were_refused_are_not_missing() -> None:
    """The sandbox's own form: a count of the good ones, and the bad ones by name."""
    reading = read({"created": 1, "errors": [{"lead_id": "b", "reason": "full"}]}, "a", "b")
    assert not reading.ambiguous


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        ({"created": ["a"]}, {"a"}),
        ({"created": [{"lead_id": "a"}]}, {"a"}),
        ([{"lead_id": "a", "status": "created"}], {"a"}),
        ([{"lead_id": "a"}], set()),
        ({"leads": ["a"]}, set()),
        ({"pending": ["b"]}, set()),
        ({"a": "created"}, {"a"}),
    ],
)
def test_who_is_left_out_is_in_doubt(body: Any, taken: set[str]) -> None:
    """Whoever tells of some tells of all; those that it says it has created are."""
    reading = read(body, "a", "b")
    assert reading.ambiguous
    assert (reading.accepted, reading.rejected) == (taken, {})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"results": [{"id": "b", "error": "bad phone"}]}, "bad phone"),
        ([{"lead_id": "a"}, {"lead_id": "b", "status": "invalid_phone"}], "invalid_phone"),
        ([{"lead_id": "b", "status": "skipped"}], "skipped"),
        ([{"lead_id": "b", "status": "not created"}], "not created"),
        ([{"lead_id": "b", "state": "NOT_FOUND"}], "NOT_FOUND"),
        ([{"lead_id": "b", "message": "phone number is invalid"}], "phone number is invalid"),
        ([{"lead_id": "b", "reason": "phone too short"}], "phone too short"),
        ([{"lead_id": "b", "result": {"status": "error"}}], "status: error"),
        ([{"lead_id": "b", "accepted": False}], "False"),
        ({"failed_leads": ["b"]}, "failed_leads"),
        ({"rejected_leads": [{"lead_id": "b", "reason": "full"}]}, "full"),
        ({"rejected_leads": [{"lead_id": "b", "phone_number": "+1"}]}, "rejected_leads"),
        ({"invalidLeadIds": ["b"]}, "invalidLeadIds"),
        ({"not_disabled": ["b"]}, "not_disabled"),
        ({"errors": {"leads": {"b": "full"}}}, "full"),
        ({"error": {"lead_id": "b", "message": "full"}}, "full"),
        ({"b": ["phone invalid"]}, "phone invalid"),
        ({"b": {"phone_number": ["invalid"]}}, None),
        ({"detail": "see payload", "payload": [{"lead_id": "b", "code": 404}]}, "404"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", [ApiCall.CREATE, ApiCall.DISABLE])
def test_trouble_that_names_a_lead_refuses_that_lead(
    call: ApiCall, body: Any, reason: str | None
) -> None:
    """In the vendor's words, or in the name of the list that it is in; nobody else is refused."""
    reading = read(body, "a", "b", call=call)
    assert reading.rejected == ({"b": reason} if reason else {})
    assert reading.ambiguous == (reason is None or "detail" in body)


def test_what_was_asked_for_is_what_must_be_done() -> None:
    """A lead that was just created is not disabled, and one that is disabled was not just made."""
    echo = [{"lead_id": "a", "created": False, "disabled": True}]
    assert list(read(echo, "a").rejected) == ["a"]
    assert read(echo, "a", call=ApiCall.DISABLE) == BatchResult(accepted={"a"})
    echo = [{"lead_id": "a", "created": True, "disabled": False}]
    assert read(echo, "a") == BatchResult(accepted={"a"}, creates_some=True)
    assert list(read(echo, "a", call=ApiCall.DISABLE).rejected) == ["a"]


@pytest.mark.parametrize(
    "body",
    [
        {"errors": {"1": ["bad phone"]}},
        {"errors": {"0": "bad phone", "2": "full"}},
        {"failed": [1]},
        {"failed": [1.0]},
        {"1": {"error": "full"}},
    ],
)
def test_a_place_in_the_list_is_not_taken_for_an_id(body: Any) -> None:
    """Where leads are called 1, 2 and 3, nobody can tell whom it means."""
    assert read(body, "1", "2", "3") == BatchResult(ambiguous=True)


def test_a_number_that_can_be_no_place_is_an_id() -> None:
    """Beyond the length of the list, or beside a key that is no number, or as a list's text."""
    assert list(read({"errors": {"7": "bad"}}, "1", "7").rejected) == ["7"]
    assert list(read({"errors": {"1": "bad", "x": "bad"}}, "1", "x").rejected) == ["1", "x"]
    assert list(read({"failed": ["1"]}, "1", "2").rejected) == ["1"]
    assert list(read({"errors": {"1": "bad"}}, "1").rejected) == ["1"]


_IDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6
) | st.integers(0, 120).map(str)
_VALUES = st.sampled_from(["failed", "error", "not created", False, True, 0, 400, None]) | _JSON
_CUSTOM = st.dictionaries(
    st.sampled_from(["status", "error", "errors", "message", "created", "failed", "count", "id"])
    | st.text(max_size=6),
    _VALUES,
    max_size=4,
).map(lambda custom: {key: value for key, value in custom.items() if key not in LEAD_FIELDS})
_LEADS = st.dictionaries(_IDS, _CUSTOM, min_size=1, max_size=5)


def _echoes(custom: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """The leads as a vendor would repeat them, with their own fields and some of its own."""
    fixed = {"phone_number": "+14155550123", "contact_name": "Bad Error", "state_code": "NO"}
    own: dict[str, Any] = {
        "created_at": 1531409739413,
        "outcome_name": None,
        "campaign_name": "Failed before",
    }
    return [
        {**own, **own_fields, **fixed, "lead_id": lead_id} for lead_id, own_fields in custom.items()
    ]


@st.composite
def _successes(draw: st.DrawFn) -> tuple[dict[str, dict[str, Any]], Any]:
    """Leads, and one of the usual answers that took all of them."""
    custom = draw(_LEADS)
    echoes, amount = _echoes(custom), len(custom)
    leads = draw(
        st.sampled_from(
            [
                echoes,
                list(custom),
                [{**echo, "errors": [], "success": True} for echo in echoes],
                [{"lead_id": lead_id, "status": "created"} for lead_id in custom],
            ]
        )
    )
    quiet: dict[str, Any] = draw(
        st.dictionaries(
            st.sampled_from(["errors", "failed", "rejected", "invalid_leads", "error", "skipped"]),
            st.sampled_from([[], {}, 0, None, False, "", "0", "none"]),
        )
    )
    said: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"message": "Leads created successfully"},
                {"status": "success", "count": amount},
                {"status": 201},
                {"created": amount},
                {"success": True, "data": leads},
                {"created": leads},
                {"leads": leads},
                {"results": leads, "count": amount},
                {"message": f"{amount} created, 0 failed, no errors"},
                {"detail": "created"},
            ]
        )
    )
    return custom, draw(st.sampled_from([None, "", "OK", {}, [], leads, said, said | quiet, quiet]))


@given(_successes())
def test_a_plain_success_is_one(given_: tuple[dict[str, dict[str, Any]], Any]) -> None:
    """Whatever the users' fields are called and hold, and whatever the leads are called."""
    custom, body = given_
    reading = read(body, *custom, own=custom)
    assert not reading.ambiguous
    assert reading.rejected == {}


_TROUBLE_KEYS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "lead_", "n_", "has_"]),
    st.sampled_from(["error", "errors", "failed", "failures", "rejected", "invalid", "skipped"]),
    st.sampled_from(["", "_leads", "_ids", "_list"]),
)
_TROUBLES = st.sampled_from([True, 1, "bad", ["bad"], {"message": "bad"}, [{"code": 7}]])


@given(_successes(), _TROUBLE_KEYS, _TROUBLES, st.lists(st.sampled_from("xyz"), max_size=3))
def test_trouble_is_never_a_success(
    given_: tuple[dict[str, dict[str, Any]], Any], key: str, trouble: Any, path: list[str]
) -> None:
    """At any depth, beside anything that sounds like success."""
    custom, body = given_
    told: Any = {key: trouble}
    for name in path:
        told = {name: told}
    both = {**body, **told} if isinstance(body, dict) else {"data": body, **told}
    reading = read(both, *custom, own=custom)
    assert reading.ambiguous or reading.rejected


@given(_successes(), _TROUBLE_KEYS, st.data())
def test_whoever_is_named_beside_trouble_is_refused(
    given_: tuple[dict[str, dict[str, Any]], Any], key: str, data: st.DataObject
) -> None:
    """By id, in a list or as an object; where ids may be places, somebody is in doubt."""
    custom, body = given_
    lead_id = data.draw(st.sampled_from(list(custom)))
    item = {"lead_id": lead_id, "message": "full"}
    told = {
        key: data.draw(st.sampled_from([[lead_id], [item], {lead_id: "full"}, {lead_id: ["full"]}]))
    }
    both = {**body, **told} if isinstance(body, dict) else {"data": body, **told}
    reading = read(both, *custom, own=custom)
    assert lead_id in reading.rejected or reading.ambiguous


def test_an_echo_of_a_users_own_field_accuses_nobody() -> None:
    """A custom field called `status` says nothing of the create, and what is in one even less."""
    echo = {"lead_id": "a", "status": "failed", "notes": {"lead_id": "b", "error": "x"}}
    own = {"a": {"status", "notes"}}
    assert not read([echo], "a", "b", own=own).rejected


def test_an_echo_under_an_id_of_the_vendors_own_accuses_nobody() -> None:
    """Whose field it is cannot be told; but nobody of ours is named, so lookups decide."""
    echo = [{"lead_id": 701, "status": "failed"}, {"lead_id": 702, "status": "failed"}]
    reading = read(echo, "a", "b", own={"a": {"status"}, "b": set()})
    assert reading.shape is not None
    assert reading.rejected == {}


@pytest.mark.parametrize(
    "body",
    [
        {"message": "2 created, 0 failed"},
        {"message": "Done: no errors, without any duplicates"},
        {"message": "created: 2, errors: 0, skipped=none"},
        {"message": "Leads created successfully", "errors": [], "failed": 0},
        {"status": "success", "count": 2, "error": None, "error_code": 0},
        {"created": 2, "failures": {"count": 0, "leads": []}},
        {"errors": {"a": [], "b": []}},
        {"errors": [{}, None]},
        {"detail": "created"},
        {"a": 7001, "b": "7002"},
    ],
    ids=str,
)
def test_no_trouble_is_none(body: Any) -> None:
    """Where it is said that there is none, or an empty list stands."""
    reading = read(body, "a", "b")
    assert not reading.ambiguous
    assert reading.rejected == {}


def test_leads_that_are_listed_as_created_are_taken() -> None:
    """A refusal may say whom it took all the same: they must not be sent again."""
    reading = read({"created": ["a", 7], "errors": {"b": "full"}}, "a", "b", "007")
    assert (reading.accepted, reading.rejected) == ({"a", "007"}, {"b": "full"})


@pytest.mark.parametrize(
    "body",
    [
        {"created": 7, "failed": [{"lead_id": "a", "error": "bad phone"}]},
        {"status": "partial", "leads_created": "7", "failed": 1},
        {"detail": {"createdCount": 7.0, "failed": 1}},
        {"errors": [{"message": "bad phone"}], "data": {"accepted": 7}},
        {"created": ["x", "y"], "errors": {"a": "full"}},
        {"created": [{"id": 501}], "error": "one is wrong"},
        {"message": "7 of 8 leads were created"},
        [{"error": "created: 7, failed: 1"}],
        {"leads": [{"lead_id": "a", "error": "full"}, {"lead_id": "b", "status": "created"}]},
    ],
    ids=str,
)
def test_a_refusal_that_states_that_leads_were_created(body: Any) -> None:
    """By a count or a list, at any place: whoever it means must not be sent again."""
    assert read(body, "a", "b", "c").creates_some


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "1 of 2 leads are invalid. Nothing was created.", "errors": []},
        {"created": 0, "accepted": [], "imported": "0", "errors": {"a": "full"}},
        {"detail": "2 leads could not be created"},
        {"detail": "At most 50 leads can be created at once"},
        {"errors": {"7": "Lead 7 was already created"}},
        {"address": ["This field is required."], "added": ["required"]},
        {"leads": [{"lead_id": "a", "accepted": 3, "errors": ["phone_number: not valid"]}]},
        *(None, "", [], {"success": False}, {"created_at": 1531409739413}),
    ],
    ids=str,
)
def test_a_refusal_that_created_nobody(body: Any) -> None:
    """It says so, or speaks of something else: a field, the request, a user's own field."""
    assert not read(body, "a", "b", "c", own={"a": {"accepted"}}).creates_some


@given(_JSON)
def test_no_answer_is_too_strange(body: Any) -> None:
    """Whatever it holds, only leads that were sent are named, each with some words."""
    sent = {"", "0", "1", "a"}
    refused = read(body, *sent).rejected
    assert refused.keys() <= sent
    assert all(isinstance(reason, str) for reason in refused.values())
    assert isinstance(extract_reason(body), str)


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
    assert extract_reason(body) == said


@pytest.mark.parametrize(
    "said",
    [
        "Lead already exists",
        "duplicate lead_id",
        "lead_id: ALREADY created",
        "It exists.",
        "already created",
        "A lead with this lead_id already exists.",
        "Lead with this lead_id already exists in this campaign",
        "A contact with this lead_id already exists",
        "lead_id field: already exists",
        "Lead L-7 already exists.",
        "lead_id 'L-7' has already been imported",
    ],
)
def test_the_ways_to_say_that_it_is_there_already(said: str) -> None:
    """For a lead that we sent that is a success."""
    assert is_duplicate_reason(said, "L-7")
    assert not may_be_duplicate_reason("Invalid phone")


@pytest.mark.parametrize(
    "said",
    [
        "Lead exists in another campaign",
        "lead already created for other campaign",
        "Lead 8 already exists",
        "lead_id must exist in CRM",
        "This lead has to exist in this campaign",
        "Lead limit exists",
        "A lead with this id exists but is archived",
        "Lead already exists (state: processed)",
        "Lead already exists in campaign 12",
        "duplicate lead_id within this request",
    ],
)
def test_what_merely_contains_that_something_exists(said: str) -> None:
    """It proves neither that the vendor has this lead in this campaign nor that it has not."""
    assert may_be_duplicate_reason(said)
    assert not is_duplicate_reason(said, "L-7")


@pytest.mark.parametrize(
    "said",
    [
        "A lead with this phone number already exists",
        "A lead with this mobile already exists",
        "Lead exists in blocklist",
        "Lead exists on the DNC",
        "Lead with this contact already exists",
        "Lead with the same details already exists",
        "Lead with this lead_id exists in the suppression list",
        "Lead already exists for this customer",
        "Contact already exists",
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
    assert not may_be_duplicate_reason(said)
    assert not is_duplicate_reason(said, "L-7")
