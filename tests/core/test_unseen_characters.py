"""Blanks and invisible characters: the rule for values and ids."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.schema import expand_macros
from leadloop.core.unseen_characters import clean_id, is_clean_id, strip_unseen

_UNSEEN = st.sampled_from(
    " \t\n\r\u0000\u007f\u0085\u00a0\u00ad\u200b\u2060\u3000\ufe0f\ufeff\U000e0041"
)


@given(st.text(_UNSEEN), st.text(), st.text(_UNSEEN))
def test_ends_are_stripped(before: str, text: str, behind: str) -> None:
    """Of whatever stands there; what is seen stays."""
    stripped = strip_unseen(before + text + behind)
    assert stripped == strip_unseen(text) == strip_unseen(stripped)
    assert stripped in text
    assert strip_unseen(before + behind) == ""


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("A-7", "A-7"),
        (" A 7\u00a0", "A 7"),
        ("A\u200b-\u00ad7\ufeff", "A-7"),
        ("\u200b", ""),
        ("", ""),
    ],
)
def test_an_id_has_no_invisible_character(text: str, cleaned: str) -> None:
    """A blank within it is seen, and stays."""
    assert clean_id(text) == cleaned
    assert is_clean_id(text) is (text == cleaned)


def test_sql_knows_the_same_characters() -> None:
    """An opt-out is misspelt by the characters that an id may not have, and by no others."""
    found = re.search(r"\[(.*?)\]", expand_macros("FOLDED(x)"))
    assert found
    in_sql = re.compile("[" + found[1].encode().decode("unicode_escape") + "]")
    for code in range(1, 0x110000):
        if not 0xD800 <= code < 0xE000:
            character = chr(code)
            unseen = not strip_unseen(character)
            # Unicode's rare format characters are only stripped where somebody has met them.
            assert unseen == bool(in_sql.match(character)), hex(code)
            assert not unseen or unicodedata.category(character)[0] in "ZCLMS"
