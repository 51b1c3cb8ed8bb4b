import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.campaign_rules import CampaignRules
from leadloop.core.errors import InvalidLead
from leadloop.core.leads import (
    LEAD_FIELDS,
    RESPONSE_FIELDS,
    US_STATES,
    Lead,
    extract_custom_texts,
    is_reserved_name,
    omit_phone_number,
    prepare_lead,
    read_vendor_id,
    write_lead_id,
)
from leadloop.core.phones import hash_phone_number, hash_raw_number
from leadloop.core.unseen_characters import strip_unseen

RULES = CampaignRules(
    batch_bytes=1_000_000,
    batch_size=100,
    page_size=100,
    lookback_s=900,
    settle_s=60,
    window_s=3600,
    epoch_unit="ms",
    default_region="US",
    source_timeout_s=120,
)
_NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(strip_unseen)


def rules(**changes: Any) -> CampaignRules:
    """The rules of a campaign with some of them changed."""
    return CampaignRules(**{**_as_dict(RULES), **changes})


def _as_dict(given: CampaignRules) -> dict[str, Any]:
    return {name: getattr(given, name) for name in given.__dataclass_fields__}


def lead(**changes: Any) -> Lead:
    """A lead that may be sent, changed."""
    good: dict[str, Any] = {
        "lead_id": "0042",
        "phone_number": "(415) 555-2671",
        "contact_name": "Ann Example",
        "state_code": "CA",
    }
    return Lead(**(good | changes))


def sent(given: Lead, by: CampaignRules = RULES) -> dict[str, Any]:
    """The JSON object that the vendor gets."""
    body: dict[str, Any] = json.loads(prepare_lead(given, by).body)
    return body


def refusal(given: Lead, by: CampaignRules = RULES) -> str:
    """Why a lead is not sent."""
    with pytest.raises(InvalidLead) as caught:
        prepare_lead(given, by)
    return str(caught.value)


def test_a_lead_as_the_document_wants_it() -> None:
    """The four fields, the number in E.164, nothing that was not given."""
    assert sent(lead()) == {
        "lead_id": "0042",
        "phone_number": "+14155552671",
        "contact_name": "Ann Example",
        "state_code": "CA",
    }


@given(st.integers(2_000_000, 9_999_999), st.sampled_from(["", "+1", "1-", "(415) ", " 415."]))
def test_numbers_go_out_as_e164_or_not_at_all(number: int, start: str) -> None:
    """However upstream wrote one: what is sent is a number that libphonenumber takes."""
    given = lead(phone_number=f"{start}{'' if '415' in start else '415'}{number}")
    if phonenumbers.is_valid_number(phonenumbers.parse(f"+1415{number}")):
        assert sent(given)["phone_number"] == f"+1415{number}"
    else:
        assert refusal(given) == "phone_number: not a valid number (default region US)"


def test_what_must_not_be_repeated_of_a_lead_is_told_as_it_is_written() -> None:
    """Numbers too: a balance in the vendor's words is a person's, and looked for digit by digit."""
    fields = (
        '{"pin": 48213, "balance": 1234.50, "id": 12345678901234567890, "ok": true, "to": "Bo"}'
    )
    assert extract_custom_texts(fields) == ["48213", "1234.50", "12345678901234567890", "Bo"]
    nested = '{"lead_id": "A", "kin": [{"Cy Roe": {"pin": 71}, "to": null}, [["Di"]]], "x": "Ed"}'
    assert extract_custom_texts(nested) == ["Cy Roe", "pin", "71", "to", "Di", "Ed"]
    assert extract_custom_texts("[1]") == extract_custom_texts("{}") == []


@pytest.mark.parametrize(
    ("region", "number", "state", "e164"),
    [
        ("IN", "098995 50412", "DL", "+919899550412"),
        ("GB", "020 7946 0018", "ZZ", "+442079460018"),
        ("IN", "+1 415 555 2671", "KA", "+14155552671"),
    ],
)
def test_other_regions(region: str, number: str, state: str, e164: str) -> None:
    """A campaign elsewhere has its own numbers and two-letter states; a whole number stays."""
    body = sent(lead(phone_number=number, state_code=state.lower()), rules(default_region=region))
    assert (body["phone_number"], body["state_code"]) == (e164, state)


@pytest.mark.parametrize("state", sorted(US_STATES))
def test_every_state_and_territory(state: str) -> None:
    """Taken in any case and with blanks around."""
    assert sent(lead(state_code=f" {state.lower()} "))["state_code"] == state


def test_there_are_fifty_states_a_district_and_its_territories() -> None:
    """50, DC, five inhabited territories, the outlying islands and the military's three."""
    assert len(US_STATES) == 60
    assert {"AA", "AE", "AP"} < US_STATES


@pytest.mark.parametrize(
    "lead_id", [" 7", "7 ", "7\n", "\u200b7", "7\u00a0", "7\u20608", "\ufeff7"]
)
def test_an_id_that_others_would_write_otherwise_is_refused(lead_id: str) -> None:
    """A vendor that trims it would never show the lead under its id."""
    assert refusal(lead(lead_id=lead_id)) == (
        "lead_id: has a blank at an end or an invisible character: correct the id, also in opt-outs"
    )


def test_invisible_characters_at_the_ends_are_not_sent() -> None:
    """They come from contact lists and spreadsheets; within a name they stay."""
    body = sent(
        lead(
            phone_number="\u202a+14155550123\u202c",
            contact_name="\ufeff Zo\u200d\u00eb\u00a0",
            state_code="\u200bca",
        )
    )
    assert (body["phone_number"], body["contact_name"], body["state_code"]) == (
        "+14155550123",
        "Zo\u200d\u00eb",
        "CA",
    )


@pytest.mark.parametrize("code", ["999", "222"])
def test_an_area_code_that_libphonenumber_does_not_know(code: str) -> None:
    """The campaign names it; the rest of the number is checked as ever."""
    number = f"({code}) 555-0123"
    assert "not a valid number" in refusal(lead(phone_number=number))
    known = rules(area_codes=(code,))
    assert sent(lead(phone_number=number), known)["phone_number"] == f"+1{code}5550123"
    for other in (f"({code}) 155-0123", f"{code} 555-012", f"+44 {code} 555 0123"):
        with pytest.raises(InvalidLead, match="phone_number"):
            prepare_lead(lead(phone_number=other), known)


@pytest.mark.parametrize("lead_id", ["007", "0", "1e3", "7 8", "é/☎", "+1"])
def test_ids_are_text(lead_id: str) -> None:
    """No leading zero is lost and nothing becomes a number."""
    prepared = prepare_lead(lead(lead_id=lead_id), RULES)
    assert prepared.lead_id == lead_id
    assert json.loads(prepared.body)["lead_id"] == lead_id


def test_the_ebr_goes_out_in_utc() -> None:
    """Whatever zone Postgres gave it in."""
    moment = datetime(2026, 1, 31, 9, tzinfo=timezone(timedelta(hours=-5)))
    assert sent(lead(ebr_datetime=moment))["ebr_datetime"] == "2026-01-31T14:00:00+00:00"


@pytest.mark.parametrize(
    "moment", ["1970-01-01T00:00:46Z", "1970-01-21T11:37:30Z", "1970-01-01T12:47:33Z"]
)
def test_a_number_that_was_read_in_another_unit_is_no_ebr(moment: str) -> None:
    """Seconds read as milliseconds, or a spreadsheet's days as either: not 1970."""
    reason = refusal(lead(ebr_datetime=datetime.fromisoformat(moment)))
    assert reason == "ebr_datetime: in the first weeks of 1970: a number read in another unit?"


@pytest.mark.parametrize("year", [2, 1899, 2101, 9999])
def test_an_ebr_that_nobody_can_mean_is_refused(year: int) -> None:
    """Year 1 and infinity mean "none" in some databases; the vendor would believe them."""
    assert "ebr_datetime" in refusal(lead(ebr_datetime=datetime(year, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize("field", ["phone_number", "contact_name", "state_code"])
@pytest.mark.parametrize("value", [None, "", "  ", "\u200b", "\u2060 \ufe0f"])
def test_what_is_required_and_missing_is_named(field: str, value: str | None) -> None:
    """The reason is what a person reads in last_error."""
    assert refusal(lead(**{field: value})) == f"{field}: missing"


def test_what_is_required_is_the_campaign_s_own_setting() -> None:
    """A field that is not required may be left out; a custom one may be required."""
    lax = rules(required_fields=("lead_id", "plan"))
    bare = {"phone_number": None, "contact_name": None, "state_code": None}
    assert refusal(lead(**bare), lax) == "plan: missing"
    assert refusal(lead(**bare, custom_fields='{"plan": ""}'), lax) == "plan: missing"
    given = lead(**bare, custom_fields='{"plan": 0}')
    assert sent(given, lax) == {"lead_id": "0042", "plan": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"phone_number": "555-CALL-ANN"},
        {"phone_number": "+1 415 555 26711"},
        {"phone_number": "+999 1234567"},
        {"state_code": "Ann's"},
        {"state_code": "XX"},
        {"custom_fields": '["Ann"]'},
        {"custom_fields": '"Ann"'},
        {"custom_fields": "null"},
        {"custom_fields": '{"contact_name": "Ann"}'},
    ],
)
def test_a_reason_never_repeats_the_value(changes: dict[str, Any]) -> None:
    """It is stored, counted in a view and logged."""
    reason = refusal(lead(**changes))
    assert reason.split(":")[0] in changes
    (value,) = changes.values()
    for part in (value, "Ann", "26711", "XX"):
        assert part not in reason


@pytest.mark.parametrize("key", sorted(LEAD_FIELDS | RESPONSE_FIELDS))
def test_a_custom_field_by_the_name_of_a_fixed_one_is_refused(key: str) -> None:
    """It would overwrite the fixed one, or come back as the vendor's own fact."""
    assert key in refusal(lead(custom_fields=json.dumps({"plan": 1, key: "x"})))


@pytest.mark.parametrize("key", ["call_attempt_x_1", "last_call_attempt_x_1"])
def test_a_custom_field_that_looks_like_an_attempt_is_refused(key: str) -> None:
    """It would come back as a call that nobody made."""
    assert "custom_fields" in refusal(lead(custom_fields=json.dumps({key: []})))


@pytest.mark.parametrize(
    "digits",
    ["0.1234567890123456789012345", "12345678901234567890123", "1.10", "1e400", "9" * 5000],
)
def test_custom_fields_keep_their_very_digits(digits: str) -> None:
    """An account number of 23 digits is not rounded, and one of 5,000 holds nobody up."""
    body = prepare_lead(lead(custom_fields=f'{{"account": {digits}, "n": null}}'), RULES).body
    assert f'"account": {digits}'.encode() in body


@given(st.dictionaries(_NAMES, st.text()), _NAMES)
def test_the_whole_is_one_json_object(custom: dict[str, str], name: str) -> None:
    """Fixed and custom fields beside each other, any Unicode in either."""
    taken = [key for key in custom if key in LEAD_FIELDS or is_reserved_name(key)]
    custom = {key: text for key, text in custom.items() if key not in taken}
    given = lead(contact_name=name, custom_fields=json.dumps(custom))
    assert sent(given) == sent(lead(contact_name=name)) | custom
    assert sent(given)["contact_name"] == strip_unseen(name)


def test_custom_fields_nested_without_end_are_refused() -> None:
    """As a bad lead, not as an error that ends the run."""
    deep = '{"a": ' + "[" * 5000 + "]" * 5000 + "}"
    assert refusal(lead(custom_fields=deep)) == "custom_fields: nested too deeply"


def test_a_lead_is_safe_in_a_traceback() -> None:
    """Its repr is its id alone."""
    given = lead(custom_fields='{"plan": "secret"}')
    for text in (repr(given), repr(prepare_lead(given, RULES))):
        assert "0042" in text
        for secret in ("415", "Ann", "CA", "secret"):
            assert secret not in text


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *((17, "17"), (17.0, "17"), (-17.0, "-17"), (0.0, "0"), (float(2**53 - 1), str(2**53 - 1))),
        *(("17.0", "17.0"), ("017", "017"), (17.5, "17.5"), (2.0**53, "9007199254740992.0")),
        *((10**400, str(10**400)), (1e300, "1e+300"), (float("nan"), "nan"), (float("inf"), "inf")),
        *(("", None), (None, None), (True, None), ([17], None), ({"id": 17}, None)),
    ],
)
def test_an_integral_number_is_that_integer(written: Any, read: str | None) -> None:
    """A vendor that begins to write 17.0 for 17 means the same lead; a text is as it stands."""
    assert read_vendor_id(written) == read


@given(number=st.integers(0, 2**53 - 1))
def test_an_id_that_is_sent_as_a_number_is_read_back(number: int) -> None:
    """As the same text: nobody becomes somebody else."""
    sent = write_lead_id(str(number), as_number=True)
    assert sent == number
    assert read_vendor_id(sent) == str(number)
    assert write_lead_id(str(number), as_number=False) == str(number)
    body = json.loads(prepare_lead(lead(lead_id=str(number)), rules(numeric_lead_ids=True)).body)
    assert body["lead_id"] == number


@pytest.mark.parametrize(
    "lead_id", ["007", "-1", "+1", "1.0", "1e3", "x", "\u0661", str(2**53), "9" * 5000]
)
def test_an_id_that_is_no_number_is_refused_where_numbers_are_sent(lead_id: str) -> None:
    """A lost zero, or a rounded digit, would be another person's id."""
    assert write_lead_id(lead_id, as_number=True) == lead_id
    with pytest.raises(InvalidLead, match="numeric_lead_ids"):
        prepare_lead(lead(lead_id=lead_id), rules(numeric_lead_ids=True))
    assert prepare_lead(lead(lead_id=lead_id), rules()).lead_id == lead_id


@given(name=_NAMES, custom=st.dictionaries(st.just("phone"), st.just("+14155552671")))
def test_a_lead_without_its_number_keeps_all_else(name: str, custom: dict[str, str]) -> None:
    """Also where another field holds the same text."""
    tricky = f'{name},"phone_number":"+14155552671"'
    prepared = prepare_lead(lead(contact_name=tricky, custom_fields=json.dumps(custom)), rules())
    fields = json.loads(prepared.body)
    assert fields.pop("phone_number") == "+14155552671"
    assert json.loads(omit_phone_number(prepared).body) == fields


_UNSEEN = st.text("\ufe0f\u2028\u2029\u200b\u202c\u00a0 \t\n\x00", max_size=3)


@given(
    before=_UNSEEN,
    number=st.sampled_from(["+14155552671", "(415) 555-2671", "415.555.2671", "4155552671.0"]),
    behind=_UNSEEN,
)
def test_a_number_that_is_sent_is_suppressed(before: str, number: str, behind: str) -> None:
    """An opt-out reads a lead's number as the request has it, whatever is unseen around it."""
    written = before + number + behind
    e164 = prepare_lead(lead(phone_number=written), RULES).e164
    assert e164 == "+14155552671"
    assert hash_raw_number(b"secret", written, "US") == hash_phone_number(b"secret", e164)
