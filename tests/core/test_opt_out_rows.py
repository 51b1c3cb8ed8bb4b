"""Rows of an opt-out source: which lead ids and phone numbers count."""

import pytest

from leadloop.core.errors import InvalidLead
from leadloop.core.opt_out_rows import check_opt_out_id, normalize_opt_out_number


@pytest.mark.parametrize("lead_id", ["A-1", "007", "two words", "ß", "x" * 255])
def test_ids_that_a_lead_may_have_count_as_they_are(lead_id: str) -> None:
    """Nothing is stripped: the row names this lead alone."""
    assert check_opt_out_id(lead_id) == lead_id


@pytest.mark.parametrize(
    ("lead_id", "line"),
    [
        ("A-1 ", "lead_id: has a blank at an end or an invisible character"),
        ("\u200bA-1", "lead_id: has a blank at an end or an invisible character"),
        ("x" * 256, "lead_id: more than 255 characters"),
    ],
)
def test_ids_that_no_lead_can_have_are_refused(lead_id: str, line: str) -> None:
    """They would count for nobody, and nobody would notice."""
    with pytest.raises(InvalidLead, match=line):
        check_opt_out_id(lead_id)


@pytest.mark.parametrize(
    ("text", "region", "e164"),
    [
        ("(415) 555-0123", "US", "+14155550123"),
        ("\u00a0+49 30 1234567 ", "US", "+49301234567"),
        ("030 1234567", "DE", "+49301234567"),
        ("3012345678.0", "US", "+13012345678"),
        ("tel: 999-555-0123", "US", "+19995550123"),
    ],
)
def test_numbers_are_read_as_those_of_leads(text: str, region: str, e164: str) -> None:
    """In the campaign's region; with any area code of North America, as a campaign may add some."""
    assert normalize_opt_out_number(text, region) == e164


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" \u200b", "phone_number: missing"),
        ("4" * 256, "phone_number: more than 255 characters"),
        ("030 1234567", r"phone_number: not a valid number \(default region US\)"),
        ("nobody", "phone_number: has letters"),
    ],
)
def test_numbers_of_nobody_are_refused(text: str, line: str) -> None:
    """The reason repeats no digit."""
    with pytest.raises(InvalidLead, match=line) as caught:
        normalize_opt_out_number(text, "US")
    assert "1234567" not in str(caught.value)
