from typing import Any

import pytest

from tests.sandbox.http_client import StartSandbox, lead


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"lead_id": None}, "lead_id"),
        ({"lead_id": "  "}, "lead_id"),
        ({"lead_id": True}, "lead_id"),
        ({"lead_id": 1.5}, "lead_id"),
        ({"phone_number": None}, "phone_number"),
        ({"phone_number": "call me"}, "phone_number"),
        ({"phone_number": "+1 212 555 0123"}, "phone_number"),
        ({"contact_name": ""}, "contact_name"),
        ({"contact_name": 5}, "contact_name"),
        ({"state_code": "New York"}, "state_code"),
        ({"state_code": None}, "state_code"),
        ({"ebr_datetime": "yesterday"}, "ebr_datetime"),
    ],
)
def test_a_bad_lead_is_refused_with_its_field(
    start_sandbox: StartSandbox, change: Any, word: str
) -> None:
    """The reason names the field, and the batch is refused whole."""
    api = start_sandbox()
    answer = api.create([lead("good"), {**lead("bad"), **change}])
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["index"] == 1
    assert word in error["reason"]
    assert api.handle.store.creations("C1") == {}


def test_the_reason_never_repeats_what_was_sent(start_sandbox: StartSandbox) -> None:
    """A client that logs the reason logs no phone number."""
    assert "letters" not in start_sandbox().create([lead("a", phone_number="letters")]).text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"5", b'["x"]', b"null"])
def test_a_body_that_holds_no_leads_is_refused(start_sandbox: StartSandbox, body: bytes) -> None:
    """400 with a reason."""
    path, headers = "/api/v1/leads/create/C1/", {"Content-Type": "application/json"}
    answer = start_sandbox().call("POST", path, data=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("rule", "number", "status"),
    [
        ("digits", "919899550412", 201),
        ("e164", "919899550412", 400),
        ("e164", "+919899550412", 201),
        ("nanp", "+919899550412", 400),
        ("nanp", "+12125550123", 201),
        ("nanp", 2125550123, 201),
        ("nanp", "+11115550123", 400),
    ],
)
def test_phone_rule(start_sandbox: StartSandbox, rule: str, number: Any, status: int) -> None:
    """How plausible a number must be can be set."""
    assert start_sandbox(phone=rule).create([lead("a", phone_number=number)]).status_code == status


def test_newer_limits_rule(start_sandbox: StartSandbox) -> None:
    """The caps of the vendor's later integration, off by default."""
    long = [lead("x" * 256), lead("b", contact_name="n" * 49), lead("c", phone_number="1" * 13)]
    assert start_sandbox().create(long).status_code == 201
    assert len(start_sandbox(newer_limits=True).create(long).json()["errors"]) == 3


def test_required_rule(start_sandbox: StartSandbox) -> None:
    """The document's own samples have no state_code."""
    bare = {"lead_id": 1, "phone_number": "12125550123", "contact_name": "Ann"}
    assert start_sandbox().create(bare).status_code == 400
    api = start_sandbox(required=("lead_id", "phone_number", "contact_name"))
    assert api.create(bare).status_code == 201
