"""Phone numbers: the grammar that reads them, E.164, and hashes of opted-out numbers.

`format_e164` normalizes text; `hash_phone_number` gives the key under which a number is suppressed
without being stored.
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Container

import phonenumbers

from leadloop.core.errors import InvalidLead
from leadloop.core.unseen_characters import strip_unseen

#: The reason for cancelling a lead whose number opted out under another lead id.
NUMBER_OPTED_OUT_REASON = "its phone number has opted out under another lead"

_LOCAL_NUMBER = re.compile("[2-9][0-9]{2}[2-9][0-9]{6}")
_ALL_AREA_CODES = frozenset(map(str, range(200, 1000)))
#: The regions whose numbers without a country code can be read.
REGIONS = frozenset(phonenumbers.SUPPORTED_REGIONS)
_REGION_ALIASES = {"UK": "GB", "EL": "GR"}
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
# The labels that libphonenumber knows, and the German one. Repeats are bounded: `search` is used.
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
# With fewer letters, the digits could be a whole local number and the letters a remark
# ("201-2012 FAX").
_MIN_VANITY_LETTERS = 4
# A decimal fraction, or the end of a number in pairs (01.42.68.53.00) or of 415.555.0000.
_POINT_AT_END = re.compile(r"[.](?:\d{1,2}|0++)\Z")
_POINTS_AS_SEPARATORS = re.compile(r"[.](?:\d\d[.]\d\d|\d{3}[.]0000)\Z")
_IS_LOCAL = phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY
_LIST_NUMBER = re.compile(r"[1-9]\d?(?:[)]|[.] )")
_BEFORE_SECOND = re.compile(r"(?:(?<=\A\d)|(?<=\A[(]\d))[ ().\/-]++|(?<=\d)[ ().\/-]++(?=0)")
_LETTER = re.compile(r"[^\W\d_]")

_NOT_VANITY = "phone_number: has letters, but is not a vanity number (1-800-FLOWERS)"
_OTHER_CHARACTERS = (
    "phone_number: has characters that no phone number has (two numbers in one field?)"
)
_SECOND_NUMBER = "phone_number: more than one number in the field"
_DIGITS_MISSING = (
    "phone_number: in scientific notation, digits are missing (a spreadsheet or a float column?)"
)
_LAST_POINT = "phone_number: the digits after the last point may be a decimal fraction"
_FRACTION = "phone_number: a decimal fraction (a spreadsheet or a float column?)"


def format_e164(text: str, region: str, area_codes: Container[str] = ()) -> str:
    """Normalize a phone number to E.164 (`+14155550123`).

    The grammar is strict: an optional label ("Tel."), one number, an optional extension, which is
    dropped. Text that may be somebody else's number is rejected.

    Args:
        text: the number.
        region: of a number without a country code.
        area_codes: North American area codes that count as assigned, whatever libphonenumber knows.

    Raises:
        InvalidLead: the text does not fit the grammar, or libphonenumber finds the number invalid.
    """
    if _NORTH_AMERICAN.fullmatch(text):
        # Already E.164: skips the parser and the formatter, which take most of the time.
        number = phonenumbers.PhoneNumber(country_code=1, national_number=int(text[2:]))
        _require_valid(number, region, area_codes)
        return text
    number = _parse_text(text, region, area_codes)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def is_same_number(one: str, other: str, region: str) -> bool:
    """Return whether two texts are the same phone number, also if `other` lacks the plus."""
    # libphonenumber takes digits without the plus for a national number.
    return _to_digits(one, region) in (_to_digits(other, region), re.sub(r"\D", "", other))


def find_region_fault(region: str) -> str | None:
    """Return what is wrong with a region in one line, or None."""
    if region in REGIONS:
        return None
    meant = _REGION_ALIASES.get(region)
    advice = f" ({meant} is meant?)" if meant else ""
    return f"{region!r} is no region{advice}: write a country's two capital letters, as in US or GB"


def find_calling_code(region: str) -> str:
    """Return the calling code of a region without the plus (`1` for the US)."""
    return str(phonenumbers.country_code_for_region(region))


def hash_phone_number(secret: bytes, e164: str) -> bytes:
    """Return the HMAC-SHA256 under which a number in E.164 is suppressed."""
    return hmac.new(secret, e164.encode(), hashlib.sha256).digest()


def hash_raw_number(secret: bytes, text: str | None, region: str) -> bytes | None:
    """Return the suppression hash of a number as a row holds it; None if it is not valid.

    Blanks and invisible characters at its ends do not count, as in a lead that is sent.
    """
    try:
        return hash_phone_number(secret, read_opted_out_number(strip_unseen(text or ""), region))
    except InvalidLead:
        return None


def read_opted_out_number(text: str, region: str) -> str:
    """Normalize a number that has opted out to E.164, as `format_e164` does.

    Every North American area code counts: a campaign may send numbers of one that others do not.

    Raises:
        InvalidLead: the number is not valid.
    """
    return format_e164(text, region, _ALL_AREA_CODES)


def _require_valid(
    number: phonenumbers.PhoneNumber, region: str, area_codes: Container[str]
) -> phonenumbers.PhoneNumber:
    if not (_is_valid(number) or _has_area_code(number, area_codes)):
        raise InvalidLead(f"phone_number: not a valid number (default region {region})")
    return number


def _is_valid(number: phonenumbers.PhoneNumber) -> bool:
    # The US first: libphonenumber would look for the region, beginning with the US, and then
    # validate the number again, which takes twice the time for most numbers.
    return phonenumbers.is_valid_number_for_region(number, "US") or phonenumbers.is_valid_number(
        number
    )


def _has_area_code(number: phonenumbers.PhoneNumber, area_codes: Container[str]) -> bool:
    """Return whether a number is a North American one with one of the area codes."""
    digits = str(number.national_number)
    return bool(
        number.country_code == 1 and _LOCAL_NUMBER.fullmatch(digits) and digits[:3] in area_codes
    )


def _parse_text(text: str, region: str, area_codes: Container[str]) -> phonenumbers.PhoneNumber:
    """Parse a number as written by people, spreadsheets and float columns.

    Raises:
        InvalidLead: the text does not fit the grammar, or may hold more than one number.
    """
    number = _to_ascii(text).lstrip(_SIGNS_BEFORE).rstrip(_SIGNS_BEHIND)
    if not _DIGITS.fullmatch(number):
        if label := _LABEL.match(number):
            number = number[label.end() :]
        if extension := _EXTENSION.search(number):
            number = number[: extension.start()].rstrip(_SIGNS_BEFORE_EXTENSION)
    if dialled := _read_float(number, region) or _read_vanity(number, region):
        return _require_valid(_parse_digits(dialled, region), region, area_codes)
    if not _DIGITS.fullmatch(number):
        raise InvalidLead(_NOT_VANITY if _LETTER.search(number) else _OTHER_CHARACTERS)
    parsed = _require_valid(_parse_digits(number, region), region, area_codes)
    _check_single(number, parsed)
    # The last point must separate digits of one number: it may look like a decimal point, or follow
    # digits that are a number without the rest.
    before, point, _ = number.rpartition(".")
    is_decimal = _POINT_AT_END.search(number) and not _POINTS_AS_SEPARATORS.search(number)
    if is_decimal or (point and _stands_alone(before, region)):
        raise InvalidLead(_LAST_POINT)
    return parsed


def _parse_digits(number: str, region: str) -> phonenumbers.PhoneNumber:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        raise InvalidLead(f"phone_number: not a phone number (default region {region})") from None


def _to_ascii(text: str) -> str:
    """Replace digits, dashes and blanks of all scripts, and full-width characters, by ASCII."""
    if text.isascii():
        return text
    replaced = ""
    for character in text:
        if character.isdecimal():
            replaced += str(unicodedata.decimal(character))
        elif unicodedata.category(character) in ("Zs", "Cf"):
            # Format characters come from contact lists: direction marks, soft hyphens.
            replaced += " "
        elif "\uff01" <= character <= "\uff5e":
            replaced += chr(ord(character) - 0xFEE0)
        elif "\u2010" <= character <= "\u2015" or character in "\u2212\u30fc":
            # The katakana sound mark is typed as a dash in Japan.
            replaced += "-"
        else:
            replaced += character
    return replaced


def _read_float(text: str, region: str) -> str | None:
    """Return the integer that a spreadsheet or a float column wrote as a float.

    Reads `3012345678.0` and `4.155550129E9`: libphonenumber would take the zero, and the exponent,
    for digits of the phone number. Returns None for any other text.

    Raises:
        InvalidLead: digits of the integer are missing (`4.15555E+09`), it has a fraction, or the
            zeros after the point may be digits of the phone number.
    """
    if form := _SCIENTIFIC.fullmatch(text):
        sign, whole, fraction, exponent = form.groups(default="")
        return sign + _take_integer(whole + fraction, len(whole) + int(exponent))
    form = _FLOAT.fullmatch(text)
    if not form:
        return None
    whole, fraction = form.groups()
    if len(fraction) <= 2:
        return _take_integer(whole + fraction, len(whole))
    if fraction.strip("0"):
        # More digits after the only point: a phone number with a point in it.
        return None
    if _stands_alone(whole + fraction, region):
        raise InvalidLead(_FRACTION)
    return str(whole)


def _take_integer(digits: str, point: int) -> str:
    """Return the digits before the decimal point.

    Raises:
        InvalidLead: digits are missing before the point, or digits other than 0 follow it.
    """
    if point > len(digits):
        # The text does not show whether a zero was left off or a digit rounded away.
        raise InvalidLead(_DIGITS_MISSING)
    if point <= 0 or digits[point:].strip("0"):
        raise InvalidLead(_FRACTION)
    return digits[:point]


def _read_vanity(text: str, region: str) -> str | None:
    """Return the digits of a North American vanity number, such as 1-800-FLOWERS.

    Seven letters and digits follow the area code, at least four of them capital letters. A
    toll-free number may be one longer word, of which seven letters are dialled (1-800-CONTACTS).
    Returns None for any other text.
    """
    form = _VANITY.fullmatch(text)
    if not form or not (form[1] or phonenumbers.country_code_for_region(region) == 1):
        return None
    area_code, words = form[2], form[3].replace("-", "").replace(".", "").split()
    local = "".join(words)
    letters = sum(character.isalpha() for character in local)
    # A blank between digits and letters: the letters are a remark ("415-555 HOME").
    is_one_part = len(words) == 1 or letters == len(local)
    is_long_word = area_code in _TOLL_FREE and len(words) == 1 and letters == len(local)
    is_local = len(local) == _LOCAL_LENGTH or (len(local) > _LOCAL_LENGTH and is_long_word)
    if not (is_local and is_one_part and letters >= _MIN_VANITY_LETTERS):
        return None
    keys = phonenumbers.convert_alpha_characters_in_number(local[:_LOCAL_LENGTH])
    return f"+1{area_code}{keys}"


def _check_single(text: str, number: phonenumbers.PhoneNumber) -> None:
    """Check that the text holds a single phone number.

    Slashes and parentheses may follow the area code (`030/1234567`) and nothing later
    (`030 1234567/68`). A group that begins with 0, or the group after a first single digit, must
    not start another valid number (`2 030 12345`).

    Raises:
        InvalidLead: the text seems to hold a second number.
    """
    if _LIST_NUMBER.match(text):
        raise InvalidLead(_SECOND_NUMBER)
    after = re.split(r"[()/]", text)[-1]
    if len(after) < len(text):
        digits_after = sum(map(str.isdigit, after))
        digits_before = len(phonenumbers.national_significant_number(number)) - digits_after
        # Known in North America, while libphonenumber formats the number to find out.
        area_code_length = (
            3
            if number.country_code == 1
            else phonenumbers.length_of_national_destination_code(number)
        )
        # One digit more, because Londoners write (0207) 946 0018.
        is_after_area_code = digits_before > area_code_length + 1
        is_between_equals = text[0] not in "+0(" and digits_before >= digits_after
        if is_after_area_code or is_between_equals:
            raise InvalidLead(_SECOND_NUMBER)
    home = phonenumbers.region_code_for_number(number)
    for separators in _BEFORE_SECOND.finditer(text):
        second = _parse_or_none(text[separators.end() :], home)
        if second and second != number and _is_valid(second):
            raise InvalidLead(_SECOND_NUMBER)


def _stands_alone(text: str, region: str) -> bool:
    """Return whether a text is a valid number, or one without area code (`201-2012` in the US)."""
    number = _parse_or_none(text, region)
    if number is None:
        return False
    if number.country_code == 1:
        return _is_valid(number) or len(str(number.national_number).lstrip("1")) == _LOCAL_LENGTH
    if _is_valid(number):
        return True
    if text.isdigit() and phonenumbers.is_possible_number(number):
        # In Brazil, for example, a number without its area code is as long as a service number.
        return not text.startswith("0")
    is_local = phonenumbers.is_possible_number_with_reason(number) == _IS_LOCAL
    return is_local and text[0] not in "+0("


def _parse_or_none(text: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def _to_digits(number: str, region: str) -> str:
    try:
        return format_e164(number, region).removeprefix("+")
    except InvalidLead:
        return re.sub(r"\D", "", number)
