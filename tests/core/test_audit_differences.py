from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from leadloop.core.audit_differences import (
    PersonFacts,
    compare_person,
    measure_clock_offset,
    parse_listing_page,
)

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def facts(**changes: Any) -> PersonFacts:
    """What is said of a person."""
    same = {"phone_number": "+14155550123", "contact_name": "Ann", "state_code": "CA"}
    return PersonFacts(**{**same, **changes})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("(415) 555-0123", "+14155550123"),
        ("+1 415 555 0123", "4155550123"),
        ("1 415 555 0123", "14155550123"),
        ("+91 98995 50412", "919899550412"),
        ("not a number", "not a number"),
        (None, ""),
        ("+14155550123", None),
    ],
)
def test_a_number_is_the_same_however_it_is_written(ours: str | None, theirs: str | None) -> None:
    """Neither blanks nor the region's own code make two of one; what is not shown is no other."""
    assert not compare_person(facts(phone_number=ours), facts(phone_number=theirs), "US")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("+14155550123", "+14155550124"),
        ("4155550123", "+4155550123"),
        ("+14155550123", ""),
        (None, "+14155550123"),
    ],
)
def test_another_number_is_another(ours: str | None, theirs: str) -> None:
    """Also where the digits are the same in two countries."""
    found = compare_person(facts(phone_number=ours), facts(phone_number=theirs), "US")
    assert found == {"phone_differs"}


def test_names_and_states_are_compared_as_they_are_sent() -> None:
    """Blanks around them and the case of a state do not count, everything else does."""
    ours = facts(contact_name=" Ann\N{NO-BREAK SPACE}", state_code="ca ")
    assert not compare_person(ours, facts(), "US")
    found = compare_person(ours, facts(contact_name="ann", state_code="NY"), "US")
    assert found == {"name_differs", "state_differs"}


def test_rows_alike_on_one_page_are_two() -> None:
    """On two pages they may be one that has shifted; created at different times they are two."""
    row = {"lead_id": "a", "created_at": 1}
    once, twice = parse_listing_page([row, row], "C1")
    (again,) = parse_listing_page([{**row, "processed_at": 1531409739413}], "C1")
    (later,) = parse_listing_page([{**row, "created_at": 2}], "C1")
    assert once.copy_key != twice.copy_key
    assert again.copy_key == once.copy_key
    assert later.copy_key not in (once.copy_key, twice.copy_key)


@pytest.mark.parametrize("result", [None, 7, "text", [], {}, {"lead_id": ""}, {"lead_id": True}])
def test_a_row_that_names_no_lead_is_unreadable(result: Any) -> None:
    """It counts as a row, so that the sums add up."""
    (listed,) = parse_listing_page([result], "C1")
    assert (listed.lead_id, listed.unreadable) == ("", True)


def test_a_row_is_read_with_all_that_is_compared() -> None:
    """The outcome, the last call, and the number under either of its keys; nothing in its repr."""
    calls = [{"called_at": 1531409739413}, {"called_at": 1531409999000}, {"called_at": "never"}]
    (listed,) = parse_listing_page(
        [
            {
                "lead_id": 10,
                "contact_number": 919899550412,
                "contact_name": "John Doe",
                "processed_at": 1531409839413,
                "call_attempt_x_1": calls,
            }
        ],
        "C1",
    )
    assert listed.lead_id == "10"
    assert listed.facts == PersonFacts(
        phone_number="919899550412", contact_name="John Doe", state_code=None
    )
    assert listed.outcome is not None
    assert listed.last_attempt_at == datetime.fromtimestamp(1531409999, UTC)
    assert "John" not in repr(listed) + repr(listed.facts)


@pytest.mark.parametrize(
    ("vendor_now", "ahead"),
    [(None, 0), (NOW, 0), (NOW - timedelta(seconds=5), 0), (NOW + timedelta(hours=1), 3600)],
)
def test_a_clock_that_is_off_is_allowed_for(vendor_now: datetime | None, ahead: int) -> None:
    """The few seconds of a header's rounding and a slow answer are not."""
    assert measure_clock_offset(vendor_now, NOW) == timedelta(seconds=ahead)


@pytest.mark.parametrize(
    ("named", "is_other"),
    [("C2", True), (2, True), ("C1", False), (" c1", False), ("00C1", False), ("", False)],
)
def test_a_row_of_another_campaign_is_passed_over(named: str | int, is_other: bool) -> None:
    """It counts as a row, and is that of no lead of this campaign."""
    row = {"lead_id": "a", "campaign_id": named}
    (listed,) = parse_listing_page([row], "C1")
    assert listed.lead_id == (None if is_other else "a")
    (nameless,) = parse_listing_page([{"campaign_id": named}], "C1")
    assert nameless.lead_id == (None if is_other else "")
