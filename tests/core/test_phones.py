"""Phone numbers: which text is read as which number, and which is rejected."""

from collections.abc import Callable

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.errors import InvalidLead
from leadloop.core.phones import find_calling_code, format_e164, hash_raw_number

_DIGITS_MISSING = (
    "phone_number: in scientific notation, digits are missing (a spreadsheet or a float column?)"
)
_FRACTION = "phone_number: a decimal fraction (a spreadsheet or a float column?)"
_SIGNS = "phone_number: has characters that no phone number has (two numbers in one field?)"
_SECOND = "phone_number: more than one number in the field"
_POINT = "phone_number: the digits after the last point may be a decimal fraction"
_LETTERS = "phone_number: has letters, but is not a vanity number (1-800-FLOWERS)"


def _java(number: int) -> str:
    """Write a double as Java and Spark do: the fewest digits, at least one behind the point."""
    digits = str(number).rstrip("0")
    return f"{digits[0]}.{digits[1:] or '0'}E{len(str(number)) - 1}"


_WRITERS = st.sampled_from(
    [
        _java,
        lambda number: repr(float(number)),
        lambda number: f"{number}.00",
        lambda number: f"{number},0",
        lambda number: f"{number}E0",
        *(
            lambda number, form=form: f"{number:{form}}"
            for form in (*(f".{digits}{e}" for digits in range(15) for e in "eEg"), ".1f", ".2f")
        ),
        lambda number: f"{number:.9e}".replace("e+0", "E").replace(".", ","),
    ]
)


@given(
    st.from_regex("[2-9][0-9]{2}[2-9][0-9]{6}", fullmatch=True)
    | st.from_regex("[2-9][0-9]{2}[2-9][0-9]{3}000", fullmatch=True),
    st.sampled_from(["", "1"]),
    st.sampled_from(["", "+"]),
    _WRITERS,
    st.sampled_from(["{}", " {} ", "'{}"]),
)
def test_a_number_from_a_float_column_is_never_another_number(
    number: str, country: str, plus: str, write: Callable[[int], str], around: str
) -> None:
    """Java, Spark, Excel or pandas wrote it: that very number is called, or nobody."""
    plus = plus if country else ""
    written = around.format(plus + write(int(country + number)))
    try:
        read = format_e164(written, "US")
    except InvalidLead:
        return
    assert read == f"+1{number}"


@pytest.mark.parametrize(
    ("written", "region", "read"),
    [
        ("3012345678.0", "DE", "+493012345678"),
        ("4155550129.00", "US", "+14155550129"),
        ("+14155550129.0", "DE", "+14155550129"),
        ("14155550129.0000000", "US", "+14155550129"),
        ("3012345678．0", "DE", "+493012345678"),
        ("４１５５５５０１２９.０", "US", "+14155550129"),
        ("4155550129.", "US", "+14155550129"),
        ("4.155550129E9", "US", "+14155550129"),
        ("4.155550129e+09", "US", "+14155550129"),
        ("4.1555501290E9", "US", "+14155550129"),
        ("4,155550129E+09", "US", "+14155550129"),
        ("+1.4155550129E10", "DE", "+14155550129"),
        ("4155550129E0", "US", "+14155550129"),
        ("4155550129.0E-0", "US", "+14155550129"),
        ("41555501290E-1", "US", "+14155550129"),
        ("4.15555012E9", "US", _DIGITS_MISSING),
        ("4.15555E+09", "US", _DIGITS_MISSING),
        ("4E9", "US", _DIGITS_MISSING),
        (" -4.1556E+9 ", "US", _DIGITS_MISSING),
        ("3.01234567E9", "DE", _DIGITS_MISSING),
        ("4.1555501295E9", "US", _FRACTION),
        ("4155550129E-999", "US", _FRACTION),
        ("4155550129.5", "US", _FRACTION),
        ("3012345678.05", "DE", _FRACTION),
    ],
)
def test_forms_of_a_float_column(written: str, region: str, read: str) -> None:
    """They are the integer where all its digits are written, and else rejected by their name."""
    _is_read_or_rejected(written, region, read)


def _is_read_or_rejected(written: str, region: str, read: str) -> None:
    if read.startswith("+"):
        assert format_e164(written, region) == read
    else:
        with pytest.raises(InvalidLead) as caught:
            format_e164(written, region)
        assert str(caught.value) == read


@pytest.mark.parametrize(
    ("written", "region", "read"),
    [
        ("415.555.0123", "US", "+14155550123"),
        ("030.12345678", "DE", "+493012345678"),
        ("415555.0123", "US", "+14155550123"),
        ("415-555-0123 x0", "US", "+14155550123"),
        ("415-555-0123x123", "US", "+14155550123"),
        ("(415) 555-0123 ext. 45", "US", "+14155550123"),
        ("415-555-0123, Extension 45.", "US", "+14155550123"),
        ("415-555-0123;ext=45", "US", "+14155550123"),
        ("030 12345678 Durchwahl: 12", "DE", "+493012345678"),
        ("415-555-0123 доб. 12", "US", "+14155550123"),
        ("1-800-FLOWERS", "US", "+18003569377"),
        ("+1 800 FLOWERS", "IN", "+18003569377"),
        ("1-800-GOT-JUNK", "CA", "+18004685865"),
        ("1 800 GOT JUNK", "US", "+18004685865"),
        ("1-800-CONTACTS", "US", "+18002668228"),
        ("415-555-CALL", "US", "+14155552255"),
        ("(800) FLOWERS x12", "US", "+18003569377"),
        ("1-800-GOOG-411", "US", "+18004664411"),
        ("1-800-FLOWERS", "IN", _LETTERS),
        ("+1 800 flowers", "US", _LETTERS),
        ("415-CONTACTS", "US", _LETTERS),
        ("0800 REIMANN", "DE", _LETTERS),
        ("415-555-O123", "US", _LETTERS),
        ("415 555 0123 home", "US", _LETTERS),
        ("030 1234567 mobil", "DE", _LETTERS),
        ("030 12345 tel", "DE", _LETTERS),
        ("fax 415 555 0123", "US", _LETTERS),
        ("fax415 5550123 x1", "US", _LETTERS),
        ("415-555-0123 ext", "US", _LETTERS),
        ("0301234567 BÜRO", "DE", _LETTERS),
        ("NaN", "US", _LETTERS),
        ("4155550129L", "US", _LETTERS),
    ],
)
def test_points_and_letters_in_a_number(written: str, region: str, read: str) -> None:
    """Points separate digits as ever; letters are an extension or a vanity number, or rejected."""
    _is_read_or_rejected(written, region, read)


@pytest.mark.parametrize(
    ("written", "region"),
    [
        ("201-2012 fax", "US"),
        ("201-2012 FAX", "US"),
        ("201-2012-FAX", "US"),
        ("201 FAX 2012", "US"),
        ("305-2345 ext", "US"),
        ("212-9555 TOM", "US"),
        ("2012012 Tim", "US"),
        ("1 201-2012 fax", "US"),
        ("1-305-234 bob1", "US"),
        ("415-555 HOME", "US"),
        ("07911 123 mob", "GB"),
        ("0170 1234 mob", "DE"),
        ("fax: 415-555-0129", "US"),
    ],
)
def test_a_word_beside_a_number_is_no_vanity_number(written: str, region: str) -> None:
    """A local number and a remark would make up the number of somebody else."""
    _is_read_or_rejected(written, region, _LETTERS)


@pytest.mark.parametrize(
    ("written", "region", "reason"),
    [
        ("030 1234567.0", "DE", _POINT),
        ("(030) 12345678.0", "DE", _POINT),
        ("030/12345678.00", "DE", _POINT),
        ("030 1234567.123", "DE", _POINT),
        ("06 1234567.0", "IT", _POINT),
        ("0301234.0000", "DE", _POINT),
        ("301234.0000", "DE", _FRACTION),
        ("0301234567.0", "DE", _POINT),
        ("3012345678.123", "DE", _POINT),
        ("2012012.345", "US", _POINT),
        ("201-2012.000", "US", _POINT),
        ("21987654.321", "BR", _POINT),
        ("7410410.123", "IN", _POINT),
        ("1 201-2012.345", "US", _POINT),
        ("415-555-012.9", "US", _POINT),
        ("(415) 555.0000", "US", _POINT),
        ("415555,0129", "US", _SIGNS),
        (".4155550129", "US", _SIGNS),
        ("01.42.68.53.00", "FR", "+33142685300"),
        ("347.123.4567", "IT", "+393471234567"),
        ("512.345.678", "PL", "+48512345678"),
        ("02/512.45.67", "BE", "+3225124567"),
        ("415.555.0000", "US", "+14155550000"),
        ("1.415.555.0129", "US", "+14155550129"),
        ("07911.123456", "GB", "+447911123456"),
    ],
)
def test_a_decimal_point_is_no_separator(written: str, region: str, reason: str) -> None:
    """Digits behind a decimal point do not belong to the number."""
    _is_read_or_rejected(written, region, reason)


@pytest.mark.parametrize(
    ("written", "region", "read"),
    [
        ("030 12345 / 12346", "DE", _SECOND),
        ("030 1234567 / 68", "DE", _SECOND),
        ("030 1234567/68/69", "DE", _SECOND),
        ("089 1234 - 5678 / 5679", "DE", _SECOND),
        ("030 12345 (12346)", "DE", _SECOND),
        ("4661/4662", "DE", _SECOND),
        ("030 12345 030 12346", "DE", _SECOND),
        ("2 030 12345", "DE", _SECOND),
        ("2 (030) 12345", "DE", _SECOND),
        ("2. 301 2345", "DE", _SECOND),
        ("40. 301 2345", "DE", _SECOND),
        ("2 301 2345", "DE", _SECOND),
        ("2 9374 4000", "AU", "+61293744000"),
        ("8 (495) 123-45-67", "RU", "+74951234567"),
        ("2) 301 2345", "DE", _SECOND),
        ("(2) 301 2345", "DE", _SECOND),
        ("+49 30 12345 030 12346", "US", _SECOND),
        ("3012345678*10", "DE", _SIGNS),
        ("030 12345; 030 12346", "DE", _SIGNS),
        ("030 12345, 12346", "DE", _SIGNS),
        ("030 12345\n12346", "DE", _SIGNS),
        ("030 12345~46", "DE", _SIGNS),
        ("030 12345 + 12346", "DE", _SIGNS),
        ("030 12345 or 12346", "DE", _LETTERS),
        ("030/1234567", "DE", "+49301234567"),
        ("033201/123", "DE", "+4933201123"),
        ("+49 (0)30 / 1234567", "DE", "+49301234567"),
        ("+49 030 1234567", "DE", "+49301234567"),
        ("030 12345-67", "DE", "+49301234567"),
        ("0664/1234567", "AT", "+436641234567"),
        ("347/1234567", "IT", "+393471234567"),
        ("06/20/123-4567", "HU", "+36201234567"),
        ("(0207) 946 0018", "GB", "+442079460018"),
        ("01 42 68 05 30", "FR", "+33142680530"),
        ("03ー1234ー5678", "JP", "+81312345678"),
        ("\u202a+1 415\u2011555\u20110129\u202c\n", "US", "+14155550129"),
    ],
)
def test_two_numbers_in_one_field(written: str, region: str, read: str) -> None:
    """They are never joined; an area code is told apart from a first number."""
    _is_read_or_rejected(written, region, read)


@pytest.mark.parametrize(
    "written",
    [
        "tel:+14155550129",
        "tel:+1-415-555-0129;ext=12",
        "Tel. 415-555-0129",
        "Tel.: 415-555-0129",
        "Tél. (415) 555-0129",
        "Phone: 415-555-0129",
        "Telephone: 415-555-0129",
        "Mob: 4155550129.0",
        "Mobile: 4.155550129E9",
        "Cell: 415-555-0129",
        "415-555-0129 Ext. #12",
        "415-555-0129 Ext.: 12",
        "415-555-0129 (ext. 12)",
        "415-555-0129 #12",
        "415-555-0129,,12#",
        "415-555-0129 ramal 12",
        "Phone: 415-555-0129 x12",
    ],
)
def test_labels_and_extensions(written: str) -> None:
    """A label before a number, and an extension behind it, are not sent."""
    assert format_e164(written, "US") == "+14155550129"


_NUMBERS = st.sampled_from(
    [
        ("US", "+14155550129", ["415-555-0129", "(415) 555.0129", "1.415.555.0129"]),
        ("US", "+14155550000", ["4155550000", "415.555.0000", "415/555-0000"]),
        ("DE", "+493012345", ["030 12345", "(030) 12345", "030/12345", "+49 30 12345", "3012345"]),
        ("DE", "+49301234567", ["030 1234567", "0301234567", "030.1234567", "+49 (0)30 / 1234567"]),
        ("DE", "+491701234567", ["0170 1234567", "0170/1234567", "0049 170 1234567"]),
        ("GB", "+442079460018", ["020 7946 0018", "(0207) 946 0018", "020.7946.0018"]),
        ("IT", "+39061234567", ["06 1234567", "06/1234567", "061234567", "+39 06.1234567"]),
        ("FR", "+33142685300", ["01 42 68 53 00", "01.42.68.53.00", "+33 (0)1 42685300"]),
        ("AT", "+4315123456", ["01 5123456", "01/5123456", "(01) 512 34 56"]),
    ]
)  # fmt: skip
_REMARKS = ["fax", "mob", "TOM", "HOME", "bob1", "FLOWERS", "E", "e9", "NaN", "Tel.", "Phone:"]
_SEPARATORS = [
    " ",
    "-",
    ".",
    "/",
    "(",
    ")",
    ",",
    ";",
    "*",
    "~",
    "\n",
    "\t",
    "_",
    "ー",
    "\u200b",
    "|",
]
# A label of an extension is not among them: behind it, digits are dropped on purpose.
_AROUND = st.sampled_from([*_REMARKS, *(f" {remark}" for remark in _REMARKS), *_SEPARATORS])
_BEHIND = st.sampled_from(
    [
        *(".0", ".00", ".000", ".0000", ".5", ".56", ".123", ",0", ",00", "E0", "e+0", "*10", "²"),
        *(" / 12346", "/68", "/68/69", ", 12346", ";12346", "\n12346", " (68)", " or 12346"),
        *(" & 68", " + 68", "+4930123", " 030 12346", "-0170 1234567", "/030 12346"),
        *(" x12", " ext. #12", " ext"),
    ]
)  # fmt: skip
_BEFORE = st.sampled_from(
    ["2 ", "2. ", "1) ", "(2) ", "12346 / ", "68, ", "12346; ", "12346\n", "1: ", "*31#"]
)
_NOTHING = st.just("")


@given(_NUMBERS, st.data())
def test_whatever_stands_beside_a_number_it_is_that_very_number_or_none(
    number: tuple[str, str, list[str]], data: st.DataObject
) -> None:
    """Remarks, separators, second numbers and decimals never make up another number."""
    region, e164_form, forms = number
    form = data.draw(st.sampled_from(forms))
    assert format_e164(form, region) == e164_form
    place = data.draw(st.integers(0, len(form)))
    written = (
        data.draw(_NOTHING | _AROUND | _BEFORE)
        + form[:place]
        + data.draw(_NOTHING | _AROUND)
        + form[place:]
        + data.draw(_NOTHING | _AROUND | _BEHIND)
    )
    for text in (written, f" {written} ", f"Tel. {written}", f"{written} x12"):
        try:
            read = format_e164(text, region)
        except InvalidLead:
            continue
        assert read == e164_form


@given(
    st.from_regex("1?[ -]?[2-9][0-9]{2}[ .-]?[0-9]{4}", fullmatch=True),
    st.from_regex("[ .,:/(-]{0,2}[A-Za-z]{1,8}[0-9]?", fullmatch=True)
    | st.from_regex("[.,][0-9]{1,4}", fullmatch=True),
    st.booleans(),
)
def test_a_number_without_its_area_code_is_never_completed(
    local: str, beside: str, is_behind: bool
) -> None:
    """Neither a word nor decimals stand for the digits that are missing."""
    with pytest.raises(InvalidLead):
        format_e164(local + beside if is_behind else beside + local, "US")


@given(st.from_regex("[+]1[0-9]{9,11}", fullmatch=True))
def test_what_looks_like_e164_is_judged_by_libphonenumber(text: str) -> None:
    """Numbers of North America are sent, or refused, as libphonenumber reads and judges them."""
    number = phonenumbers.parse(text, "US")
    if phonenumbers.is_valid_number(number):
        e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        assert format_e164(text, "US") == e164
    else:
        with pytest.raises(InvalidLead, match=r"^phone_number: not a valid number"):
            format_e164(text, "US")


def test_what_a_region_s_numbers_begin_with() -> None:
    """Without the plus."""
    assert (find_calling_code("US"), find_calling_code("IN")) == ("1", "91")


def test_a_number_is_suppressed_however_it_is_written() -> None:
    """An opt-out of (415) 555-2671 stops +14155552671 too; text without a number has no hash."""
    known = hash_raw_number(b"secret", "(415) 555-2671", "US")
    assert known == hash_raw_number(b"secret", "+14155552671", "GB")
    assert known != hash_raw_number(b"other", "(415) 555-2671", "US")
    assert hash_raw_number(b"secret", "call me", "US") is hash_raw_number(b"secret", None, "US")
    assert hash_raw_number(b"secret", None, "US") is None
