import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.storable import dumps, loads, storable

# Any text at all, halves of surrogate pairs too.
_TEXT = st.text(st.characters(exclude_categories=()))
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if isinstance(value, dict):
        return [text for pair in value.items() for item in pair for text in _texts(item)]
    return []


@given(_VALUES)
def test_nothing_is_left_that_postgres_cannot_store(value: Any) -> None:
    """No U+0000 and no half of a surrogate pair, in keys or values, however deep."""
    for text in _texts(storable(value)):
        assert "\x00" not in text
        text.encode()  # halves of surrogate pairs have no UTF-8


@given(_VALUES)
def test_to_do_it_twice_changes_nothing(value: Any) -> None:
    """What was made storable is."""
    assert storable(storable(value)) == storable(value)


@given(_VALUES)
def test_what_can_be_stored_stays_as_it_is(value: Any) -> None:
    """Every character but those is kept, and those are spelt out, so that nothing is lost."""
    for before, after in zip(_texts(value), _texts(storable(value)), strict=False):
        bare = [char for char in before if char != "\x00" and not "\ud800" <= char <= "\udfff"]
        if len(bare) == len(before):
            assert after == before
        else:
            assert len(after) == len(before) + 5 * (len(before) - len(bare))


@given(_VALUES)
def test_json_of_the_vendor_s_reads_the_same(value: Any) -> None:
    """Whether it writes characters out or escapes them all."""
    assert loads(json.dumps(value)) == storable(value)
    written = json.dumps(value, ensure_ascii=False)
    # Half of a surrogate pair has no bytes: it can only come escaped.
    if all(not "\ud800" <= char <= "\udfff" for char in written):
        assert loads(written) == storable(value)


@given(_VALUES)
def test_what_was_read_can_be_written(value: Any) -> None:
    """As UTF-8 that reads the same."""
    read = loads(json.dumps(value))
    assert loads(dumps(read).encode().decode()) == read


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "1e999"),
        ('"a\\u0000b"', "a\\u0000b"),
        ('"\\ud83d"', "\\ud83d"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_what_jsonb_does_not_know_is_kept_as_text(text: str, kept: str) -> None:
    """Numbers that are none, U+0000, half of an emoji; a whole one is an emoji."""
    assert loads(text) == kept


@pytest.mark.parametrize("text", ["", "{", "<html>", "[" * 100_000, '{"a": "\x00"}'])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    """Cut off, foreign, or nested without end."""
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own words
        loads(text)


@pytest.mark.parametrize("depth", [600, 900])
def test_deeply_nested_and_with_a_character_to_mend(depth: int) -> None:
    """Refused as no JSON: it does not end the run with an error that nobody expects."""
    with pytest.raises(ValueError, match="nested too deeply"):
        loads("[" * depth + '"\\u0000"' + "]" * depth)
