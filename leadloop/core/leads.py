"""Leads: validation of a row of `leadloop.leads`, and its JSON object for a create request."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from leadloop.core.campaign_rules import CampaignRules
from leadloop.core.errors import InvalidLead
from leadloop.core.phones import format_e164
from leadloop.core.timestamps import find_implausible
from leadloop.core.unseen_characters import is_clean_id, strip_unseen

#: Keys of a create request that are not custom fields (the vendor's API document, chapter "Body
#: Parameters").
LEAD_FIELDS = frozenset({"lead_id", "phone_number", "contact_name", "state_code", "ebr_datetime"})

#: Keys that the vendor's responses use for its own facts (the vendor's API document, chapter
#: "Response Structure"). A custom field of the same name would come back indistinguishable from the
#: vendor's.
RESPONSE_FIELDS = frozenset(
    {
        "contact_number",
        "created_at",
        "campaign_id",
        "campaign_name",
        "country_code",
        "call_attempt_keys",
        "last_call_attempt_keys",
        "total_cost",
        "processed_at",
        "outcome_name",
        "outcome_id",
    }
)

# Numbers as strings: none is rounded, and Python refuses to parse integers of many digits.
_decode_unrounded = json.JSONDecoder(parse_int=str, parse_float=str).decode

_STRAY_CHARACTERS = (
    "lead_id: has a blank at an end or an invisible character: correct the id, also in opt-outs"
)
_ATTEMPT_PREFIXES = ("call_attempt_", "last_call_attempt_")

#: The states of the US, the District of Columbia, the territories and the military's states (USPS
#: two-letter codes).
US_STATES = frozenset(
    re.findall(
        "[A-Z]{2}",
        "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH"
        " NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR UM VI"
        " AA AE AP",
    )
)


# Below this every integer is exact as a floating-point number: 17.0 is 17.
_MAX_EXACT_INTEGER = 2**53


def write_lead_id(lead_id: str, *, as_number: bool) -> str | int:
    """Return a lead's id as a request has it: text, or an integer where the id is one."""
    return int(lead_id) if as_number and _is_plain_number(lead_id) else lead_id


def _is_plain_number(lead_id: str) -> bool:
    """Return whether an id is a whole number that no reader of JSON rounds or shortens."""
    return (
        lead_id.isascii()
        and lead_id.isdecimal()
        and len(lead_id) <= len(str(_MAX_EXACT_INTEGER))
        and int(lead_id) < _MAX_EXACT_INTEGER
        and str(int(lead_id)) == lead_id
    )


def read_vendor_id(value: Any) -> str | None:
    """Return an id that the vendor wrote as text or as a number, as text; None if it is neither.

    An integral number is that integer (17.0 is "17"); a text stays as it is ("17.0").
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    is_integral = abs(value) < _MAX_EXACT_INTEGER and value == int(value)
    return str(int(value) if is_integral else value)


# NamedTuples, because a push makes both for each lead: a frozen dataclass takes four times as long.
class Lead(NamedTuple):
    """A lead as stored in Postgres. `custom_fields` is JSON text as jsonb prints it.

    `left_out` is set if the lead has more bytes than a request may have, and its fields were not
    read: its largest field, and the bytes of that.
    """

    lead_id: str
    phone_number: str | None = None
    contact_name: str | None = None
    state_code: str | None = None
    ebr_datetime: datetime | None = None
    custom_fields: str = "{}"
    left_out: str = ""

    def __repr__(self) -> str:
        """Return the id alone: a lead must be safe in a traceback."""
        return f"Lead({self.lead_id!r})"


class PreparedLead(NamedTuple):
    """A validated lead: its id, phone number in E.164, contact name and JSON object (`body`)."""

    lead_id: str
    e164: str | None
    contact_name: str | None
    body: bytes

    def custom_keys(self) -> frozenset[str]:
        """Return the names of the lead's custom fields."""
        return frozenset(_parse_custom_fields(self.body.decode())) - LEAD_FIELDS

    def __repr__(self) -> str:
        """Return the id alone: a lead must be safe in a traceback."""
        return f"PreparedLead({self.lead_id!r})"


def prepare_lead(lead: Lead, rules: CampaignRules) -> PreparedLead:
    """Validate a lead and serialize it for a create request.

    libphonenumber validates the phone number with the campaign's default region; the number is
    sent as E.164. A state is one of the US or its territories (two letters for any other region).
    Custom fields keep the exact digits that Postgres holds.

    Raises:
        InvalidLead: a field is missing or wrong, or the lead has too many bytes for a request.
    """
    if lead.left_out:
        raise _too_many_bytes(lead.left_out, rules)
    if not is_clean_id(lead.lead_id):
        raise InvalidLead(_STRAY_CHARACTERS)
    if rules.numeric_lead_ids and not _is_plain_number(lead.lead_id):
        raise InvalidLead(
            "lead_id: not a whole number below 2^53 without leading zeros, as numeric_lead_ids of"
            " the campaign requires"
        )
    for field in rules.required_fields:
        if _is_missing(lead, field):
            raise InvalidLead(f"{field}: missing")
    if lead.ebr_datetime is not None and (reason := find_implausible(lead.ebr_datetime)):
        raise InvalidLead(f"ebr_datetime: {reason.removeprefix('is ')}")
    number = None
    if phone_number := strip_unseen(lead.phone_number or ""):
        number = format_e164(phone_number, rules.default_region, rules.area_codes)
    fixed = {
        "lead_id": write_lead_id(lead.lead_id, as_number=rules.numeric_lead_ids),
        "phone_number": number,
        "contact_name": strip_unseen(lead.contact_name or "") or None,
        "state_code": _normalize_state(lead.state_code, rules.default_region),
        "ebr_datetime": lead.ebr_datetime.astimezone(UTC).isoformat()
        if lead.ebr_datetime
        else None,
    }
    for key in _parse_custom_fields(lead.custom_fields):
        if key in LEAD_FIELDS or is_reserved_name(key):
            # A fixed name, not personal data: safe to repeat.
            raise InvalidLead(f"custom_fields: {key[:64]!r} is a name reserved by the vendor's API")
    body = orjson.dumps({key: value for key, value in fixed.items() if value is not None})
    if lead.custom_fields != "{}":
        # The custom fields are spliced in as text, because parsing would round numbers.
        body = body[:-1] + b"," + lead.custom_fields[1:].encode()
    prepared = PreparedLead(
        lead_id=lead.lead_id, e164=number, contact_name=lead.contact_name, body=body
    )
    if count_body_bytes([prepared]) > rules.batch_bytes:
        sizes = {"custom_fields": len(lead.custom_fields.encode())}
        sizes |= {key: len(orjson.dumps(value)) for key, value in fixed.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        raise _too_many_bytes(f"{largest}: {sizes[largest]} bytes", rules)
    return prepared


def omit_phone_number(lead: PreparedLead) -> PreparedLead:
    """Return a prepared lead whose JSON object lacks the phone number: nobody can be called."""
    # The id comes first, and a quote within a value is escaped.
    return lead._replace(body=lead.body.replace(f',"phone_number":"{lead.e164}"'.encode(), b"", 1))


def count_body_bytes(leads: Sequence[PreparedLead]) -> int:
    """Return the bytes of the body of a create request: a JSON list of the leads."""
    return sum(len(lead.body) for lead in leads) + max(len(leads), 1) + 1


def build_too_old_reason(max_lead_age_s: int) -> str:
    """Build the reason of a lead that is rejected because it is too old."""
    return (
        f"too old: inserted more than {max_lead_age_s} s before it could be sent"
        " (LEADLOOP_MAX_LEAD_AGE)"
    )


def _too_many_bytes(largest_field: str, rules: CampaignRules) -> InvalidLead:
    return InvalidLead(
        f"{largest_field}, and a request with this lead may have {rules.batch_bytes}"
        " (LEADLOOP_BATCH_BYTES)"
    )


def is_reserved_name(field: str) -> bool:
    """Return whether the vendor's responses use a name for the vendor's facts."""
    return field in RESPONSE_FIELDS or field.startswith(_ATTEMPT_PREFIXES)


def extract_custom_texts(lead: str) -> list[str]:
    """Return the strings and numbers of a JSON object's custom fields, as they are written.

    Those in lists and objects count, and so do the keys of such objects.
    """
    try:
        fields = _parse_custom_fields(lead, _decode_unrounded)
    except InvalidLead:
        return []
    texts: list[str] = []
    # The next value is the last one.
    unread: list[object] = [value for key, value in fields.items() if key not in LEAD_FIELDS][::-1]
    while unread:
        value = unread.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            unread += reversed(value)
        elif isinstance(value, dict):
            unread += reversed([part for item in value.items() for part in item])
    return texts


def _is_missing(lead: Lead, field: str) -> bool:
    if field in LEAD_FIELDS:
        value = getattr(lead, field)
        return value is None or (isinstance(value, str) and not strip_unseen(value))
    value = _parse_custom_fields(lead.custom_fields).get(field)
    return value is None or (isinstance(value, str) and not strip_unseen(value))


def _normalize_state(text: str | None, region: str) -> str | None:
    state = strip_unseen(text or "").upper()
    if not state:
        return None
    if region == "US" and state not in US_STATES:
        raise InvalidLead(
            "state_code: not a state of the US, its territories or its military (two letters)"
        )
    if not (len(state) == 2 and state.isascii() and state.isalpha()):
        raise InvalidLead("state_code: not two letters")
    return state


def _decode_rounded(text: str) -> object:
    """Parse JSON fast, for callers that need keys and presence only: numbers may be rounded."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # A number that no float holds, or deep nesting.
        return _decode_unrounded(text)


def _parse_custom_fields(
    text: str, decode: Callable[[str], object] = _decode_rounded
) -> Mapping[str, object]:
    if text == "{}":
        return {}
    try:
        fields = decode(text)
    except RecursionError:
        raise InvalidLead("custom_fields: nested too deeply") from None
    if not isinstance(fields, dict):
        raise InvalidLead("custom_fields: not a JSON object")
    return fields
