"""What of a person must not be left in the vendor's words, and what must."""

import html
import unicodedata
from collections.abc import Callable
from urllib.parse import quote

import phonenumbers
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from leadloop.core import redaction
from leadloop.core.redaction import keep_plain_words, redact_personal_data


def _without_accents(text: str) -> str:
    return "".join(
        sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign)
    )


@given(
    st.integers(2_000_000, 9_999_999),
    st.sampled_from(
        [
            phonenumbers.PhoneNumberFormat.E164,
            phonenumbers.PhoneNumberFormat.NATIONAL,
            phonenumbers.PhoneNumberFormat.INTERNATIONAL,
            phonenumbers.PhoneNumberFormat.RFC3966,
        ]
    ),
    # U+0000 is kept as its escape, whose digits are none of the number.
    st.text(
        st.characters(exclude_categories=("Nd", "Cs"), exclude_characters="\x00"), max_size=400
    ),
)
def test_no_phone_number_is_left_in_the_vendor_s_words(number: int, form: int, said: str) -> None:
    """In no way that numbers are written, wherever it stands."""
    written = phonenumbers.format_number(phonenumbers.parse(f"+1415{number}"), form)
    left = redact_personal_data(f"{said} {written} {said}")
    assert str(number)[3:] not in left
    assert str(number)[:3] not in left
    assert len(left) <= 300


@given(
    st.text(min_size=1, max_size=40).filter(lambda name: _without_accents(name).strip()),
    st.text(max_size=20),
)
def test_a_given_name_is_left_nowhere(name: str, said: str) -> None:
    """In any case of letters, e-mail addresses too."""
    left = redact_personal_data(f"{said} {name} ann@example.com", name, None, " ")
    assert name.strip() in ("…", " … …"[: len(name.strip())]) or name.strip() not in left
    assert "@example" not in left


def test_what_is_no_personal_data_stays() -> None:
    """The reason must still tell what is wrong."""
    said = "phone_number +14155552671 of Ann Example: max 12 characters (400)"
    left = redact_personal_data(said, "Ann Example")
    assert left == "phone_number … of …: max 12 characters (400)"


def test_a_long_answer_without_a_blank_is_read_at_once() -> None:
    """A compact echo of a whole batch takes no minutes."""
    assert len(redact_personal_data("x" * 300_000)) == 300


@given(
    st.integers(9_700, 10_010),
    st.sampled_from(
        ["+1 415 555 2671", "Ann Example", "AÑN – EXAMPLE", "ann@example.com", "3/4/1980"]
    ),
    st.sampled_from(["", "x", " "]),
)
def test_a_long_answer_is_not_cut_in_the_midst_of_a_person(
    start: int, written: str, after: str
) -> None:
    """A megabyte is not read to its end, and half a number or a name is not kept of it."""
    # Blotted to one sign each, so that what stands at the cut is among the 300 characters.
    said = "1234567 " * (start // 8) + written + after * 1_000_000
    left = redact_personal_data(said, "Ann Example")
    assert not any(letter.isalnum() and letter != "x" for letter in left)


def test_a_custom_text_longer_than_what_is_read_is_not_kept() -> None:
    """Of its echo only the beginning would be looked at, which is no whole value to find."""
    note = " ".join(f"word{n}" for n in range(20_000))
    assert "word" not in redact_personal_data(f"not valid: {note}", note)
    assert redact_personal_data("not valid: note", note) == "not valid: note"


def test_what_python_does_not_read_as_a_character_ends_no_run() -> None:
    """A custom text that looks like a character reference of thousands of digits."""
    assert redact_personal_data("too long", "&#" + "9" * 5000) == "too long"


#: Everything but letters and digits; a few that people do write are drawn often.
_SIGNS = st.sampled_from("-./_ ()\u2011\u2013\u2010\u00a0\u200b,") | st.characters(
    exclude_categories=("L", "N", "Cs")
)


@given(
    st.integers(2_000_000_000, 9_999_999_999).map(str),
    st.lists(st.text(_SIGNS, max_size=9), min_size=9, max_size=9),
)
@example("4155550123", ["", "", " \u2013 ", "", "", " \u2013 ", "", "", ""])
@example("4155550123", ["", "", ") / - ", "", "", " \u00b7\u00b7 ", "", "", ""])
@example("2125550123", ["", "", "/", "", "", "/", "", "", ""])
@example("2125550123", ["", "", "_", "", "", "_", "", "", ""])
@example("2125550123", ["", "", "\u2011", "", "", "\u2011", "", "", ""])
@example("2125550123", ["\u2009"] * 9)
@example("3461000000", ["", "%", "", "", "", "", "", "", ""])
def test_a_number_is_found_whatever_is_between_its_digits(number: str, between: list[str]) -> None:
    """Unicode's hyphens and blanks, slashes, underscores: none of its last seven digits is left."""
    written = "".join(digit + sign for digit, sign in zip(number, [*between, ""], strict=True))
    left = redact_personal_data(f"number {written} is bad")
    assert not any(letter.isdecimal() for letter in left)
    assert left.endswith(" is bad")


@given(
    st.sampled_from(["O'Brien", "Müller", "Nuñez-García", "D’Angelo", "Groß", "Ångström", "İnce"]),
    st.lists(
        st.sampled_from(
            [
                _without_accents,
                str.upper,
                str.lower,
                str.casefold,
                lambda text: unicodedata.normalize("NFD", text),
                lambda text: text.replace("'", "’"),
                lambda text: text.replace("-", " "),
            ]
        ),
        max_size=3,
    ),
    st.sampled_from([str, html.escape, quote, lambda text: quote(text).lower()]),
    st.text(st.characters(exclude_categories=("L", "N", "C")), max_size=20),
)
def test_a_name_is_found_however_it_is_written(
    name: str, changes: list[Callable[[str], str]], escape: Callable[[str], str], said: str
) -> None:
    """Without accents, in any case, with another apostrophe, escaped: no letter of it is left."""
    written = name
    for change in changes:
        written = change(written)
    left = redact_personal_data(f"{said} {escape(written)} {said}", name)
    assert not any(letter.isalpha() for letter in left)


@pytest.mark.parametrize(
    ("said", "value", "left"),
    [
        ("name O&#39;Brien rejected", "O'Brien", "name … rejected"),
        ("name o%27brien rejected", "O'Brien", "name … rejected"),
        ("name Muller rejected", "Müller", "name … rejected"),
        ("name MÜLLER rejected", "Muller", "name … rejected"),
        ("name Mu\u0308ller rejected", "Müller", "name … rejected"),
        ("at 12 MAIN  STREET", "12 Main Street", "at …"),
        ("12 Main Street Road", "Street Road", "12 Main …"),
        ("born 3/4/1980", "1980-03-04", "born …"),
        ("born 03/04/80", "1980-03-04", "born …"),
        ("born 3.4.1980 or 1980-3-4", None, "born … or …"),
        ("212 - 555 -- 0123", None, "…"),
        ("ann%40example.com is taken", None, "… is taken"),
    ],
)
def test_what_a_vendor_might_write(said: str, value: str | None, left: str) -> None:
    """The rest of its words stays, unescaped."""
    assert redact_personal_data(said, value) == left


@pytest.mark.parametrize(
    "said",
    [
        "HTTP 400: 3 of 100 leads",
        "422 (17 errors)",
        "state_code: max 2 characters, not 12",
        "the limit of 1,000 a day is used up",
        "Größe der Liste: 100%",
        "field 1/2 is missing",
    ],
)
def test_counts_and_statuses_stay(said: str) -> None:
    """They are what tells a person what is wrong."""
    assert redact_personal_data(said, "John A. Smith", "A.") == said


def test_what_cannot_be_stored_is_not_unescaped_into_the_books() -> None:
    """Postgres takes no U+0000."""
    assert "\x00" not in redact_personal_data("bad%00 name&#0;")


@given(st.text(st.characters(categories=["L"]), min_size=1, max_size=20))
@example("Jane")
def test_of_an_unknown_person_only_plain_words_are_left(name: str) -> None:
    """The reason of an opt-out whose lead only the vendor knows: what is wrong, and no name."""
    assume(not {name.lower(), name.upper().lower()} & redaction._PLAIN_WORDS)
    left = keep_plain_words(f"Lead not found (404): {name} {name.upper()}, born 1980, has 2 leads")
    assert left == "Lead not found (404): … …, … …, has 2 leads"
