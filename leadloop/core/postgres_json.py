r"""JSON from elsewhere, made fit for Postgres without losing what it said.

Postgres can store neither U+0000 nor half of a surrogate pair, in text or in jsonb, and jsonb has
no NaN or infinity. Such characters are kept as their JSON escape, spelt out (`\u0000` as six
characters); such numbers as text. What is nested too deeply to be worked with, and numbers of
thousands of digits, are kept as the text that stood there.
"""

import json
import math
import re
from typing import Any

import orjson

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Of an integer beyond 64 bits orjson makes a float. It has at least so many digits, which among
# noughts alone are found ten times as fast as by a pattern.
_MANY_DIGITS = b"0" * 19
_AS_NOUGHTS = bytes.maketrans(b"123456789", b"0" * 9)
_NUL = rb"\u0000"
_LONGEST_INTEGER = 1000

# Python's JSON and our own functions take a frame a level, and a thread may have used up most of
# its frames by the time it writes what another one read. orjson draws the line at 254 levels.
_DEEPEST = 100
# A text that is cut off is a token too, half of an escape at its end included: else the search
# would restart at each quote in it, which is quadratic and takes hours for a megabyte.
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def parse_json(content: bytes) -> Any:
    """Parse JSON into values that Postgres can store, nested no deeper than 254 levels.

    A byte that is no UTF-8 is kept as the escape of half a surrogate pair. Characters below U+0020
    are taken as they stand in a text, though JSON wants them escaped.

    Raises:
        ValueError: the content is not JSON (or nested beyond reason).
    """
    try:
        has_long_numbers = _MANY_DIGITS in content.translate(_AS_NOUGHTS)
        value = _with_long_numbers(content) if has_long_numbers else orjson.loads(content)
        # Far quicker than a look at each value: it does not write what is too deep.
        orjson.dumps(value)
    except (ValueError, TypeError, RecursionError):
        return _careful(content)
    return _careful(content) if _NUL in content else value


def dump_json(value: object) -> str:
    """Compact JSON text of a value from `loads`."""
    try:
        # Four times as fast as the standard library, on what is a third of a poll's work.
        return orjson.dumps(value).decode()
    except TypeError:
        # It does not write integers beyond 64 bits.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def escape_unstorable(value: Any) -> Any:
    """The same value with every character that Postgres cannot store written as its escape."""
    if isinstance(value, str):
        return _UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    if isinstance(value, list):
        return [escape_unstorable(item) for item in value]
    if isinstance(value, dict):
        return {escape_unstorable(key): escape_unstorable(item) for key, item in value.items()}
    return value


def _with_long_numbers(content: bytes) -> Any:
    return json.loads(content.decode(), parse_float=_finite, parse_constant=str)


def _careful(content: bytes) -> Any:
    """Parse what is odd somewhere, so that the rest of it is not lost."""
    text = content.decode("utf-8-sig", "surrogateescape")
    try:
        value = json.loads(
            _shallow(text),
            strict=False,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=str,
        )
        return escape_unstorable(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _shallow(text: str) -> str:
    """The same JSON with what lies too deep in it as a string that holds its JSON."""
    kept: list[str] = []
    depth, end, start = 0, 0, 0
    for token in _TOKENS.finditer(text):
        if token[0] in "[{":
            depth += 1
            start = token.start() if depth == _DEEPEST else start
        elif token[0] in "]}":
            if depth == _DEEPEST and start > end:
                kept += text[end:start], json.dumps(text[start : token.end()])
                end = token.end()
            depth -= 1
    return "".join([*kept, text[end:]])


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _whole(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_INTEGER else text
