import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from leadloop.core.postgres_json import (
    MAX_DEPTH,
    MAX_INTEGER_LENGTH,
    MAX_JSON_TOKENS,
    dump_json,
    escape_unstorable,
    find_unstorable_key,
    parse_json,
)

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


def test_a_text_of_very_many_values_is_not_parsed() -> None:
    """Each of the characters that begin, part or end values counts, and no other."""
    most = b"[" + b"1," * (MAX_JSON_TOKENS - 2) + b"1]"
    assert len(parse_json(most)) == MAX_JSON_TOKENS - 1
    for more in (b"[1,", b"[[]"):
        with pytest.raises(ValueError, match="too many values"):
            parse_json(most.replace(b"[1", more + b"1", 1))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (r'{"a": 1.5, "b": {"c": ["\u0000"]}}', "b"),
        (r'{"a": "\udc00", "b": "\u0000"}', "a"),
        ('{"a": 1e400, "b": 1}', "a"),
        ('{"a": ' + "9" * 140_000 + "}", "a"),
        (r'{"a": "\\u0000"}', None),
        ("no JSON", None),
        ('{"a": ' + "[" * 99_999, None),
    ],
)
def test_the_key_of_what_postgres_cannot_store(text: str, key: str | None) -> None:
    """The first one; None if it cannot be seen."""
    assert find_unstorable_key(text) == key


@given(_VALUES)
def test_nothing_is_left_that_postgres_cannot_store(value: Any) -> None:
    """No U+0000 and no half of a surrogate pair, in keys or values, however deep."""
    for text in _texts(escape_unstorable(value)):
        assert "\x00" not in text
        text.encode()  # halves of surrogate pairs have no UTF-8


@given(_VALUES)
def test_to_do_it_twice_changes_nothing(value: Any) -> None:
    """What was made storable is."""
    assert escape_unstorable(escape_unstorable(value)) == escape_unstorable(value)


@given(_VALUES)
def test_what_can_be_stored_stays_as_it_is(value: Any) -> None:
    """Every character but those is kept, and those are spelt out, so that nothing is lost."""
    for before, after in zip(_texts(value), _texts(escape_unstorable(value)), strict=False):
        bare = [char for char in before if char != "\x00" and not "\ud800" <= char <= "\udfff"]
        if len(bare) == len(before):
            assert after == before
        else:
            assert len(after) == len(before) + 5 * (len(before) - len(bare))


@given(_VALUES)
def test_json_of_the_vendor_s_reads_the_same(value: Any) -> None:
    """Whether it writes characters out or escapes them all."""
    assert parse_json(json.dumps(value).encode()) == escape_unstorable(value)
    written = json.dumps(value, ensure_ascii=False)
    # Half of a surrogate pair has no bytes: it can only come escaped.
    if all(not "\ud800" <= char <= "\udfff" for char in written):
        assert parse_json(written.encode()) == escape_unstorable(value)


@example(-(2**63) - 1, "{}")
@example(2**64, "{}")
@given(st.integers(-(10**30), 10**30), st.sampled_from(["{}", "[{}, 0.1, 1e5]", '{{"a": {}}}']))
def test_integers_keep_all_their_digits(number: int, around: str) -> None:
    """An id of twenty digits is not rounded, whatever stands beside it."""
    written = around.format(number)
    assert parse_json(written.encode()) == json.loads(written)


@given(_VALUES)
def test_what_was_read_can_be_written(value: Any) -> None:
    """As UTF-8 that reads the same."""
    read = parse_json(json.dumps(value).encode())
    assert parse_json(dump_json(read).encode()) == read


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "1e999"),
        (f"[1e999, NaN, {10**19}]", ["1e999", "NaN", 10**19]),
        ('"a\\u0000b"', "a\\u0000b"),
        ('"\\ud83d"', "\\ud83d"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_what_jsonb_does_not_know_is_kept_as_text(text: str, kept: Any) -> None:
    """Numbers that are none, U+0000, half of an emoji; a whole one is an emoji."""
    assert parse_json(text.encode()) == kept


@pytest.mark.parametrize("content", [b"", b"{", b"<html>", b"[" * 100_000, b'{"a": "\x00', b"\xff"])
def test_what_is_no_json_is_a_value_error(content: bytes) -> None:
    """Cut off, foreign, or nested without end."""
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own words
        parse_json(content)


def _depth(value: Any) -> int:
    """How many containers deep; without recursion, for it is asked of what is too deep."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        level = [
            inner for item in level for inner in (item.values() if isinstance(item, dict) else item)
        ]
        depth += 1
    return depth


@pytest.mark.parametrize("depth", [200, 260, 600, 900, 960, 50_000])
@pytest.mark.parametrize("inner", ["1", '"\\u0000"', '"]]\\""', "\x01"], ids=ascii)
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"k":', "}")])
def test_what_is_nested_too_deeply_is_kept_as_text(
    depth: int, inner: str, left: str, right: str
) -> None:
    """It takes nothing of what stands beside it along, and never ends a run."""
    deep = left * depth + (inner if inner != "\x01" else '"\x01"') + right * depth
    read = parse_json(f'{{"before": 1, "deep": [{deep}, {deep}], "after": [{{}}]}}'.encode())
    assert (read["before"], read["after"]) == (1, [{}])
    assert _depth(read) < 254
    assert parse_json(dump_json(read).encode()) == read
    assert dump_json(read).count(left[0]) >= 2 * depth


@pytest.mark.parametrize(("depth", "kept"), [(254, 254), (255, MAX_DEPTH - 1)])
def test_levels_of_a_value(depth: int, kept: int) -> None:
    """Up to the parser's limit all are values; beyond it, parts of the deepest levels are text."""
    assert _depth(parse_json(b"[" * depth + b"]" * depth)) == kept


def test_digits_of_a_number() -> None:
    """One digit more, and it is text: Python takes a square of their number to read them."""
    most = "9" * MAX_INTEGER_LENGTH
    assert parse_json(f"[{most}, {most}9]".encode()) == [int(most), f"{most}9"]


def test_an_odd_byte_is_kept_as_its_escape() -> None:
    """A name in Latin-1, a byte order mark, a line end in a text: the rest is read as ever."""
    odd = b'\xef\xbb\xbf{"name": "Jos\xe9", "note": "a\tb\x00", "n": ' + b"9" * 5000 + b"}"
    read = parse_json(odd)
    assert read == {"name": "Jos\\udce9", "note": "a\tb\\u0000", "n": "9" * 5000}
    assert parse_json(b'"Jos\xc3\xa9"') == "Jos\N{LATIN SMALL LETTER E WITH ACUTE}"
