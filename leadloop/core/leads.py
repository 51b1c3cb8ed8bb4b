"""From a row of `leadloop.leads` to what the vendor is sent, or to the reason why not."""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import orjson
import phonenumbers

from leadloop.core.campaign_rules import CampaignRules

#: Keys of a create request that are not custom fields (seed, "Body Parameters").
LEAD_FIELDS = frozenset({"lead_id", "phone_number", "contact_name", "state_code", "ebr_datetime"})

#: Keys that the vendor's answers use for its own facts (seed, "Response Structure"): a custom
#: field of that name would come back indistinguishable from them.
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

# Numbers as texts: nothing is rounded, and Python refuses to parse long ones.
_as_written = json.JSONDecoder(parse_int=str, parse_float=str).decode

_NORTH_AMERICAN = re.compile("[+]1[2-9][0-9]{9}")

# The grammar of a phone number, after `_to_ascii` and without the signs around it:
# `[label] number [extension]`, where the number is digits, a float or a vanity number.
_BLANKS = " \t\r\n\v\f"
_SIGNS_BEFORE = _BLANKS + "'\"=:;-"
_SIGNS_BEHIND = _BLANKS + "'\".,;:"
_SIGNS_BEFORE_EXTENSION = _BLANKS + ".,;(-"
_LABEL = re.compile(
    r"(?:tele(?:ph|f)one?|t[eé]l|phone|ph|mobile?|mob|cell|handy)[ ]?(?:[.]:?|:)[ ]{0,9}",
    re.IGNORECASE,
)
# The labels that libphonenumber knows, and the German one. All repeats are bounded: it is searched.
_EXTENSION = re.compile(
    r"(?:(?<![^\W\d_])(?:e?xt(?:ensi(?:o\u0301?|ó))?n?|доб|anexo|ramal|x|int|durchwahl)"
    r"[:.=]{0,2}[ ,-]{0,9}#?|#|,,)[ ]?\d{1,9}[ .)#]{0,9}\Z",
    re.IGNORECASE,
)
_SCIENTIFIC = re.compile(r"([+]?)(\d++)(?:[.,](\d*+))?[eE]([+-]?\d{1,3})")
_FLOAT = re.compile(r"([+]?[1-9]\d*+)[.,](\d++)")
_DIGITS = re.compile(r"[ (]*+[+]?[ (]*+\d[\d ().\/-]*+")
_VANITY = re.compile(r"(?:([+]?)1)?[ (.-]{0,3}([2-9]\d\d)[ ).-]{0,3}([A-Z\d. -]{7,20})")
_TOLL_FREE = frozenset({"800", "833", "844", "855", "866", "877", "888"})
_LOCAL_LENGTH = 7
# With fewer, the digits could be a whole local number and the letters a remark ("201-2012 FAX").
_FEWEST_LETTERS = 4
# A decimal fraction, or the end of a number in pairs (01.42.68.53.00) or of 415.555.0000.
_POINT_AT_THE_END = re.compile(r"[.](?:\d{1,2}|0++)\Z")
_POINTS_AS_SEPARATORS = re.compile(r"[.](?:\d\d[.]\d\d|\d{3}[.]0000)\Z")
_IS_LOCAL = phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY
_LIST_NUMBER = re.compile(r"[1-9]\d?(?:[)]|[.] )")
_BEFORE_SECOND = re.compile(r"(?:(?<=\A\d)|(?<=\A[(]\d))[ ().\/-]++|(?<=\d)[ ().\/-]++(?=0)")
_LETTER = re.compile(r"[^\W\d_]")

_NO_VANITY = "phone_number: has letters, and is no vanity number (1-800-FLOWERS)"
_OTHER_SIGNS = (
    "phone_number: has signs that a phone number does not have (two numbers in one field?)"
)
_SECOND_NUMBER = "phone_number: more than one number in the field"
_DIGITS_MISSING = (
    "phone_number: in scientific notation, digits are missing (a spreadsheet or a float column?)"
)
_LAST_POINT = "phone_number: the digits behind the last point may be a decimal fraction"
_FRACTION = "phone_number: a decimal fraction (a spreadsheet or a float column?)"

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


class PreparedLead(NamedTuple):
    """A lead that may be sent: its id, its number in E.164, its name, and its JSON object."""

    lead_id: str
    e164: str | None
    contact_name: str | None
    body: bytes

    def custom_keys(self) -> frozenset[str]:
        """The names of its custom fields."""
        return frozenset(_custom_fields(self.body.decode())) - LEAD_FIELDS

    def __repr__(self) -> str:
        """The id alone: a lead must be safe in a traceback."""
        return f"PreparedLead({self.lead_id!r})"


class InvalidLead(ValueError):
    """A lead that must not be sent. The message names the field and never repeats its value."""


def prepare_lead(lead: Lead, rules: CampaignRules) -> PreparedLead:
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
    number = format_e164(lead.phone_number, rules.default_region) if lead.phone_number else None
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
    return PreparedLead(
        lead_id=lead.lead_id,
        e164=number,
        contact_name=lead.contact_name,
        body=_spliced(present, _custom(lead.custom_fields)),
    )


def format_e164(text: str, region: str) -> str:
    """Normalize a phone number to E.164 (`+14155550123`).

    The text is read by a strict grammar: an optional label ("Tel."), one number, an optional
    extension, which is dropped. Any text that may be the number of somebody else is rejected.

    Raises:
        InvalidLead: the text does not fit the grammar, or libphonenumber finds the number invalid.
    """
    number = _plain(text)
    number = _require_valid(number, region) if number else _parsed(text, region)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _require_valid(number: phonenumbers.PhoneNumber, region: str) -> phonenumbers.PhoneNumber:
    if not _is_valid(number):
        raise InvalidLead(f"phone_number: not a valid number (default region {region})")
    return number


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
    """Parse a number as people, spreadsheets and float columns write it.

    Raises:
        InvalidLead: the text does not fit the grammar, or more than one number may stand in it.
    """
    number = _without_label_and_extension(_to_ascii(text))
    if dialled := _read_float(number, region) or _read_vanity(number, region):
        return _require_valid(_parse(dialled, region), region)
    if not _DIGITS.fullmatch(number):
        raise InvalidLead(_NO_VANITY if _LETTER.search(number) else _OTHER_SIGNS)
    parsed = _require_valid(_parse(number, region), region)
    _check_single(number, parsed)
    _check_points(number, region)
    return parsed


def _parse(number: str, region: str) -> phonenumbers.PhoneNumber:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        raise InvalidLead(f"phone_number: not a phone number (default region {region})") from None


def _to_ascii(text: str) -> str:
    """Replace digits, dashes and blanks of all scripts, and full-width signs, by ASCII."""
    return text if text.isascii() else "".join(map(_ascii_sign, text))


def _ascii_sign(sign: str) -> str:
    if sign.isdecimal():
        return str(unicodedata.decimal(sign))
    if unicodedata.category(sign) in ("Zs", "Cf"):
        # Format characters come from address books: direction marks, soft hyphens.
        return " "
    if "\uff01" <= sign <= "\uff5e":
        return chr(ord(sign) - 0xFEE0)
    # The katakana sound mark is typed as a dash in Japan.
    return "-" if "\u2010" <= sign <= "\u2015" or sign in "\u2212\u30fc" else sign


def _without_label_and_extension(text: str) -> str:
    """Strip the signs around a number, a label before it and an extension behind it."""
    number = text.lstrip(_SIGNS_BEFORE).rstrip(_SIGNS_BEHIND)
    if _DIGITS.fullmatch(number):
        return number
    if label := _LABEL.match(number):
        number = number[label.end() :]
    if extension := _EXTENSION.search(number):
        number = number[: extension.start()].rstrip(_SIGNS_BEFORE_EXTENSION)
    return number


def _read_float(text: str, region: str) -> str | None:
    """Return the integer that a spreadsheet or a float column wrote as a float.

    `3012345678.0` and `4.155550129E9` are read. libphonenumber would take the zero, and the
    exponent, for digits of the phone number. The result is None for any other text.

    Raises:
        InvalidLead: some digits of the integer are missing (`4.15555E+09`), it has a fraction, or
            the zeros behind the point may be digits of the phone number.
    """
    if form := _SCIENTIFIC.fullmatch(text):
        sign, whole, fraction, exponent = form.groups(default="")
        return sign + _integer(whole + fraction, len(whole) + int(exponent))
    form = _FLOAT.fullmatch(text)
    if not form:
        return None
    whole, fraction = form.groups()
    if len(fraction) <= 2:
        return _integer(whole + fraction, len(whole))
    if fraction.strip("0"):
        # With more digits behind its one point it is a phone number with a point in it.
        return None
    if _stands_alone(whole + fraction, region):
        raise InvalidLead(_FRACTION)
    return str(whole)


def _integer(digits: str, point: int) -> str:
    """Return the digits before the decimal point, where there are no others."""
    if point > len(digits):
        # Whether a zero was left off or a digit rounded away, the text does not show.
        raise InvalidLead(_DIGITS_MISSING)
    if point <= 0 or digits[point:].strip("0"):
        raise InvalidLead(_FRACTION)
    return digits[:point]


def _read_vanity(text: str, region: str) -> str | None:
    """Return the digits of a North American vanity number, such as 1-800-FLOWERS.

    Behind the area code stand seven letters and digits, at least four of them letters in capitals.
    A toll-free number may be one longer word, of which seven letters are dialled
    (1-800-CONTACTS). The result is None for any other text.
    """
    form = _VANITY.fullmatch(text)
    if not form or not (form[1] or phonenumbers.country_code_for_region(region) == 1):
        return None
    area_code, words = form[2], form[3].replace("-", "").replace(".", "").split()
    local = "".join(words)
    letters = sum(sign.isalpha() for sign in local)
    # A blank between digits and letters makes the letters a remark ("415-555 HOME").
    is_one_part = len(words) == 1 or letters == len(local)
    is_long_word = area_code in _TOLL_FREE and len(words) == 1 and letters == len(local)
    is_local = len(local) == _LOCAL_LENGTH or (len(local) > _LOCAL_LENGTH and is_long_word)
    if not (is_local and is_one_part and letters >= _FEWEST_LETTERS):
        return None
    keys = phonenumbers.convert_alpha_characters_in_number(local[:_LOCAL_LENGTH])
    return f"+1{area_code}{keys}"


def _check_points(text: str, region: str) -> None:
    """Check that the last point separates digits of one phone number.

    Raises:
        InvalidLead: a number stands before the point, or the point looks like a decimal point.
    """
    before, point, _ = text.rpartition(".")
    if point and _stands_alone(before, region):
        raise InvalidLead(_LAST_POINT)
    if _POINT_AT_THE_END.search(text) and not _POINTS_AS_SEPARATORS.search(text):
        raise InvalidLead(_LAST_POINT)


def _check_single(text: str, number: phonenumbers.PhoneNumber) -> None:
    """Check that one phone number alone stands in the text.

    Slashes and parentheses belong to the area code (`030/1234567`), not behind it
    (`030 1234567/68`). Neither a group that begins with 0, nor the group behind a first single
    digit, starts another valid number (`2 030 12345`).

    Raises:
        InvalidLead: a second number seems to stand in the text.
    """
    if _LIST_NUMBER.match(text):
        raise InvalidLead(_SECOND_NUMBER)
    after = re.split(r"[()/]", text)[-1]
    if len(after) < len(text):
        digits_after = sum(map(str.isdigit, after))
        digits_before = len(phonenumbers.national_significant_number(number)) - digits_after
        # One more, for Londoners write (0207) 946 0018.
        is_behind_area_code = digits_before > _area_code_length(number) + 1
        is_between_equals = text[0] not in "+0(" and digits_before >= digits_after
        if is_behind_area_code or is_between_equals:
            raise InvalidLead(_SECOND_NUMBER)
    home = phonenumbers.region_code_for_number(number)
    for separators in _BEFORE_SECOND.finditer(text):
        second = _parse_or_none(text[separators.end() :], home)
        if second and second != number and _is_valid(second):
            raise InvalidLead(_SECOND_NUMBER)


def _area_code_length(number: phonenumbers.PhoneNumber) -> int:
    # libphonenumber formats the number to find out.
    return (
        3 if number.country_code == 1 else phonenumbers.length_of_national_destination_code(number)
    )


def _stands_alone(text: str, region: str) -> bool:
    """Check for a valid number, or one without its area code (`201-2012` in the US)."""
    number = _parse_or_none(text, region)
    if number is None:
        return False
    if number.country_code == 1:
        return _is_valid(number) or len(str(number.national_number).lstrip("1")) == _LOCAL_LENGTH
    if _is_valid(number):
        return True
    if text.isdigit() and phonenumbers.is_possible_number(number):
        # In Brazil, for one, a number without its area code is as long as a service number.
        return not text.startswith("0")
    is_local = phonenumbers.is_possible_number_with_reason(number) == _IS_LOCAL
    return is_local and text[0] not in "+0("


def _parse_or_none(text: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def is_reserved_name(field: str) -> bool:
    """Whether the vendor's answers use that name for facts of its own."""
    return field in RESPONSE_FIELDS or field.startswith(_ATTEMPT_PREFIXES)


def extract_custom_texts(lead: str) -> list[str]:
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
        if key in LEAD_FIELDS or is_reserved_name(key):
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
