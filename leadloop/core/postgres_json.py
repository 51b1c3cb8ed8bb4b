r"""JSON sanitized for Postgres: parse and dump without losing what the vendor sent.

Postgres stores neither U+0000 nor half of a surrogate pair, in text or in jsonb, and jsonb has no
NaN or infinity. Such characters are kept as their JSON escape, spelt out (`\u0000` as six
characters), and such numbers as strings. Parts that are nested too deeply, and numbers of thousands
of digits, are kept as their source text.
"""

import json
import math
import re
from typing import Any

import orjson

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# orjson turns an integer beyond 64 bits into a float. Such an integer has at least 19 digits, and a
# run of zeros is found ten times as fast as a pattern.
_MANY_DIGITS = b"0" * 19
_DIGITS_TO_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_NUL = rb"\u0000"
#: Digits of an integer; longer ones are kept as text.
MAX_INTEGER_LENGTH = 1000
# Before the decimal point.
_MAX_NUMERIC_DIGITS = 131_072
_TOKEN_BYTES = (b"[", b"]", b"{", b"}", b",", b":")

#: The limit of `[ ] { } , :` in a text that is parsed, those in strings included. A page of ten
#: thousand results has about a million. Counting takes a hundredth of the time of parsing, and
#: bounds its memory: a value takes up to 65 bytes for each such character.
MAX_JSON_TOKENS = 2_000_000

# Python's JSON module and our functions take one stack frame a level, and a thread may have used
# most of its frames already. orjson's limit is 254 levels.
#: Levels of a JSON text; deeper parts are kept as text.
MAX_DEPTH = 100
# A truncated string is a token too, half of an escape at its end included. Otherwise the search
# would restart at each quote in it, which is quadratic and takes hours for a megabyte.
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def parse_json(content: bytes) -> Any:
    """Parse JSON into values that Postgres can store, nested no deeper than 254 levels.

    A byte that is not UTF-8 is kept as the escape of half a surrogate pair. Unescaped characters
    below U+0020 in a string are accepted, although JSON forbids them.

    Raises:
        ValueError: the content is not JSON, is nested beyond reason, or has more than
            MAX_JSON_TOKENS tokens.
    """
    if sum(map(content.count, _TOKEN_BYTES)) > MAX_JSON_TOKENS:
        raise ValueError("too many values")
    try:
        has_long_numbers = _MANY_DIGITS in content.translate(_DIGITS_TO_ZEROS)
        value = (
            json.loads(content.decode(), parse_float=_finite_or_text, parse_constant=str)
            if has_long_numbers
            else orjson.loads(content)
        )
        # Fails if the value is nested too deeply, and is far faster than a walk over the values.
        orjson.dumps(value)
    except (ValueError, TypeError, RecursionError):
        return _parse_leniently(content)
    return _parse_leniently(content) if _NUL in content else value


def dump_json(value: object) -> str:
    """Serialize a value from `parse_json` as compact JSON text."""
    try:
        # Four times as fast as the standard library, for a third of a poll's work.
        return orjson.dumps(value).decode()
    except TypeError:
        # orjson does not write integers beyond 64 bits.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def escape_unstorable(value: Any) -> Any:
    """Escape every character of a JSON value that Postgres cannot store."""
    if isinstance(value, str):
        return _UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    if isinstance(value, list):
        return [escape_unstorable(item) for item in value]
    if isinstance(value, dict):
        return {escape_unstorable(key): escape_unstorable(item) for key, item in value.items()}
    return value


def find_unstorable_key(text: str) -> str | None:
    """Return the first key of a JSON object whose value is not valid as jsonb; None if unknown."""
    try:
        fields = json.loads(
            text,
            parse_int=lambda digits: 0 if len(digits) <= _MAX_NUMERIC_DIGITS else "\0",
            parse_float=lambda digits: 0 if math.isfinite(float(digits)) else "\0",
        )
    except (ValueError, RecursionError):
        return None
    return next((key for key in fields if escape_unstorable(fields[key]) != fields[key]), None)


def _parse_leniently(content: bytes) -> Any:
    """Parse JSON that holds something unstorable, and sanitize only that part."""
    text = content.decode("utf-8-sig", "surrogateescape")
    try:
        value = json.loads(
            _flatten_deep_parts(text),
            strict=False,
            # Python refuses to parse integers of more than 4,300 digits.
            parse_int=lambda digits: int(digits) if len(digits) <= MAX_INTEGER_LENGTH else digits,
            parse_float=_finite_or_text,
            parse_constant=str,
        )
        return escape_unstorable(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _flatten_deep_parts(text: str) -> str:
    """Replace parts of a JSON text that are nested too deeply by strings of their JSON."""
    kept: list[str] = []
    depth, end, start = 0, 0, 0
    for token in _TOKENS.finditer(text):
        if token[0] in "[{":
            depth += 1
            start = token.start() if depth == MAX_DEPTH else start
        elif token[0] in "]}":
            if depth == MAX_DEPTH and start > end:
                kept += text[end:start], json.dumps(text[start : token.end()])
                end = token.end()
            depth -= 1
    return "".join([*kept, text[end:]])


def _finite_or_text(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text
