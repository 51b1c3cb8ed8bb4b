"""From a row of `leadloop.leads` to what the vendor is sent, or to the reason why not."""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import orjson
import phonenumbers

from leadloop.core.campaigns import CampaignRules

#: Keys of a create request that are not custom fields (seed, "Body Parameters").
LEAD_FIELDS = frozenset({"lead_id", "phone_number", "contact_name", "state_code", "ebr_datetime"})

#: Keys that the vendor's answers use for its own facts (seed, "Response Structure"): a custom
#: field of that name would come back indistinguishable from them.
ANSWER_FIELDS = frozenset(
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

# Numbers as texts: nothing is rounded, and Python refuses to parse long ones.
_as_written = json.JSONDecoder(parse_int=str, parse_float=str).decode

_NORTH_AMERICAN = re.compile("[+]1[2-9][0-9]{9}")
# libphonenumber skips signs before a number and behind it, and reads full-width signs.
_FLOAT = re.compile(r"(?:[^\w+＋]|_)*([+＋]?\d++)[.．](\d*+)[\W_]*+")
_SCIENTIFIC = re.compile(r"(?:[^\w+＋]|_)*([+＋]?)(\d++)(?:[.．,](\d*+))?[eE]([+-]?\d{1,3})[\W_]*+")
# The labels that libphonenumber knows, and the German one. All repeats are bounded: it is searched.
_EXTENSION = re.compile(
    r"(?<![^\W\d_])(?:e?xt(?:ensi(?:o\u0301?|ó))?n?|ｅ?ｘｔｎ?|доб|anexo|[xｘ]|int|ｉｎｔ|durchwahl)"
    r"[:.．=]?[\s,-]{0,9}\d{1,9}[\W_]{0,9}\Z",
    re.IGNORECASE,
)
_LETTER = re.compile(r"[^\W\d_]")
_VANITY = re.compile(r"[\s(]*+[+＋]?[\s(]*+\d[\dA-Za-z\s()./\u2010-\u2015-]*+")
_FEWEST_LETTERS = 3

_ATTEMPT_PREFIXES = ("call_attempt_", "last_call_attempt_")

#: The states of the US, the District of Columbia and the territories (USPS two-letter codes).
US_STATES = frozenset(
    re.findall(
        "[A-Z]{2}",
        "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH"
        " NJ NM NY NC ND OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR UM VI",
    )
)


# Tuples, for a push makes both for each lead: a frozen dataclass takes four times as long to make.
class Lead(NamedTuple):
    """A lead as it stands in Postgres. `custom_fields` is JSON text as jsonb prints it."""

    lead_id: str
    phone_number: str | None = None
    contact_name: str | None = None
    state_code: str | None = None
    ebr_datetime: datetime | None = None
    custom_fields: str = "{}"

    def __repr__(self) -> str:
        """The id alone: a lead must be safe in a traceback."""
        return f"Lead({self.lead_id!r})"


class Sendable(NamedTuple):
    """A lead that may be sent: its id, its number in E.164, its name, and its JSON object."""

    lead_id: str
    e164: str | None
    contact_name: str | None
    body: bytes

    def own_keys(self) -> frozenset[str]:
        """The names of its custom fields."""
        return frozenset(_custom_fields(self.body.decode())) - LEAD_FIELDS

    def __repr__(self) -> str:
        """The id alone: a lead must be safe in a traceback."""
        return f"Sendable({self.lead_id!r})"


class InvalidLead(ValueError):
    """A lead that must not be sent. The message names the field and never repeats its value."""


def prepare(lead: Lead, rules: CampaignRules) -> Sendable:
    """Check a lead and write its JSON object.

    Phone numbers are checked by libphonenumber with the campaign's default region and sent as
    E.164; a state is one of the US or its territories (two letters for any other region); custom
    fields keep the very digits that Postgres holds.

    Raises:
        InvalidLead: a field is missing or wrong.
    """
    for field in rules.required_fields:
        if _missing(lead, field):
            raise InvalidLead(f"{field}: missing")
    if lead.ebr_datetime is not None and not 1900 <= lead.ebr_datetime.year < 9999:
        raise InvalidLead("ebr_datetime: not a time that can be meant")
    number = e164(lead.phone_number, rules.default_region) if lead.phone_number else None
    fixed = {
        "lead_id": lead.lead_id,
        "phone_number": number,
        "contact_name": lead.contact_name.strip() if lead.contact_name else None,
        "state_code": _state(lead.state_code, rules.default_region),
        "ebr_datetime": lead.ebr_datetime.astimezone(UTC).isoformat()
        if lead.ebr_datetime
        else None,
    }
    present = {key: value for key, value in fixed.items() if value is not None}
    return Sendable(
        lead_id=lead.lead_id,
        e164=number,
        contact_name=lead.contact_name,
        body=_spliced(present, _custom(lead.custom_fields)),
    )


def e164(text: str, region: str) -> str:
    """Normalize a phone number to E.164 (`+14155550123`).

    Raises:
        InvalidLead: libphonenumber does not take it for a valid number, or what a float column or
            a person made of it can be read as the number of somebody else.
    """
    number = _plain(text) or _parsed(text, region)
    if not _is_valid(number):
        raise InvalidLead(f"phone_number: not a valid number (default region {region})")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _is_valid(number: phonenumbers.PhoneNumber) -> bool:
    # To look for its region first, libphonenumber asks of each whether the number is valid there,
    # beginning with the US, and then asks that one again: for most numbers twice the time.
    return phonenumbers.is_valid_number_for_region(number, "US") or phonenumbers.is_valid_number(
        number
    )


def _plain(text: str) -> phonenumbers.PhoneNumber | None:
    """What is E.164 of North America already needs no parser, which takes the most of the time."""
    if not _NORTH_AMERICAN.fullmatch(text):
        return None
    return phonenumbers.PhoneNumber(country_code=1, national_number=int(text[2:]))


def _parsed(text: str, region: str) -> phonenumbers.PhoneNumber:
    number = undo_float_notation(_EXTENSION.sub("", text))
    if _LETTER.search(number) and not _is_vanity(number, region):
        raise InvalidLead("phone_number: has letters, and is no vanity number (1-800-FLOWERS)")
    return _parse(number, region)


def _parse(number: str, region: str) -> phonenumbers.PhoneNumber:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        raise InvalidLead(f"phone_number: not a phone number (default region {region})") from None


def undo_float_notation(text: str) -> str:
    """Rewrite a number that a spreadsheet or a float column wrote as the integer that it was.

    `3012345678.0` and `4.155550129E9` are read; any other text is returned as it is. libphonenumber
    would take the zero, and the exponent, for digits of the phone number.

    Raises:
        InvalidLead: some digits of the integer are missing (`4.15555E+09`), or it has a fraction.
    """
    if form := _SCIENTIFIC.fullmatch(text):
        sign, whole, fraction, exponent = form.groups(default="")
        return sign + _integer(whole + fraction, len(whole) + int(exponent))
    if form := _FLOAT.fullmatch(text):
        whole, fraction = form.groups()
        # With more digits behind its one point it is a phone number with a point in it.
        if len(fraction) <= 2 or _is_zero(fraction):
            return _integer(whole + fraction, len(whole))
    return text


def _integer(digits: str, point: int) -> str:
    """Return the digits before the decimal point, where there are no others."""
    if point > len(digits):
        # Whether a zero was left off or a digit rounded away, the text does not show.
        raise InvalidLead(
            "phone_number: in scientific notation, digits are missing"
            " (a spreadsheet or a float column?)"
        )
    if point <= 0 or not _is_zero(digits[point:]):
        raise InvalidLead("phone_number: a decimal fraction (a spreadsheet or a float column?)")
    return digits[:point]


def _is_zero(digits: str) -> bool:
    return all(unicodedata.decimal(digit) == 0 for digit in digits)


def _is_vanity(number: str, region: str) -> bool:
    """Check for a number with digits spelt as letters, as 1-800-FLOWERS.

    Where it is a valid number without its letters, they are a remark ("030 1234567 mobil").
    """
    if len(_LETTER.findall(number)) < _FEWEST_LETTERS or not _VANITY.fullmatch(number):
        return False
    try:
        return not _is_valid(_parse(_LETTER.sub("", number), region))
    except InvalidLead:
        return True


def is_the_vendors(field: str) -> bool:
    """Whether the vendor's answers use that name for facts of its own."""
    return field in ANSWER_FIELDS or field.startswith(_ATTEMPT_PREFIXES)


def custom_texts(lead: str) -> list[str]:
    """What the custom fields in a JSON object hold, texts and numbers, as they are written."""
    try:
        fields = _custom_fields(lead, _as_written)
    except InvalidLead:
        return []
    return [
        value for key, value in fields.items() if isinstance(value, str) and key not in LEAD_FIELDS
    ]


def _missing(lead: Lead, field: str) -> bool:
    if field in LEAD_FIELDS:
        value = getattr(lead, field)
        return value is None or (isinstance(value, str) and not value.strip())
    custom = _custom_fields(lead.custom_fields)
    return custom.get(field) in (None, "")


def _state(text: str | None, region: str) -> str | None:
    if text is None or not text.strip():
        return None
    state = text.strip().upper()
    if region == "US" and state not in US_STATES:
        raise InvalidLead("state_code: not a state of the US or its territories (two letters)")
    if not (len(state) == 2 and state.isascii() and state.isalpha()):
        raise InvalidLead("state_code: not two letters")
    return state


def _custom(text: str) -> str:
    for key in _custom_fields(text):
        if key in LEAD_FIELDS or is_the_vendors(key):
            # A fixed name, not personal data: it is safe to repeat.
            raise InvalidLead(f"custom_fields: {key[:64]!r} is a name of the vendor's own")
    return text


def _rounded(text: str) -> object:
    """The quick way, where names matter and whether a value is there: numbers may be rounded."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # A number that no float holds, or nested deeply.
        return _as_written(text)


def _custom_fields(text: str, parse: Callable[[str], object] = _rounded) -> Mapping[str, object]:
    if text == "{}":
        return {}
    try:
        fields = parse(text)
    except RecursionError:
        raise InvalidLead("custom_fields: nested too deeply") from None
    if not isinstance(fields, dict):
        raise InvalidLead("custom_fields: not a JSON object")
    return fields


def _spliced(fixed: Mapping[str, object], custom: str) -> bytes:
    """One JSON object of both; the custom fields' text as it is, since parsing rounds numbers."""
    own = orjson.dumps(fixed)
    return own if custom == "{}" else own[:-1] + b"," + custom[1:].encode()
