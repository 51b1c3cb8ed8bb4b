r"""JSON from elsewhere, made fit for Postgres without losing what it said.

Postgres can store neither U+0000 nor half of a surrogate pair, in text or in jsonb, and jsonb has
no NaN or infinity. Such characters are kept as their JSON escape, spelt out (`\u0000` as six
characters); such numbers as text.
"""

import json
import math
import re
from typing import Any

import orjson

# Where none of these is in the text of a document, nothing in it needs escaping.
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def loads(text: str) -> Any:
    """Parse JSON into values that Postgres can store.

    Raises:
        ValueError: the text is not JSON (or nested beyond reason).
    """
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=str)
        return storable(value) if _SUSPECT.search(text) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(value: object) -> str:
    """Compact JSON text of a value from `loads`."""
    try:
        # Four times as fast as the standard library, on what is a third of a poll's work.
        return orjson.dumps(value).decode()
    except TypeError:
        # It does not write integers beyond 64 bits.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def storable(value: Any) -> Any:
    """The same value with every character that Postgres cannot store written as its escape."""
    if isinstance(value, str):
        return _UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", value)
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text
