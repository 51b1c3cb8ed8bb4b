"""Fingerprints of successes that affirm nothing: what one has been shown to mean, its like means.

The vendor's document shows no response to a create. A success that neither names the leads nor
states a success in words or numbers means what lookups show, once. Only a response that treats all
leads alike has a fingerprint: otherwise lookups of some leads show nothing about others.
"""

import re
import zlib
from typing import Any

from leadloop.core.response_vocabulary import find_counts

#: Numbers from here on are ids or times; smaller ones may be status codes.
_MIN_ID = 600
_WORD = re.compile(r"[\w-]++")


def fingerprint_shape(body: Any, sent_count: int) -> int | None:
    """Return the fingerprint of a response, above 0; None if it may speak of some leads only.

    Ids and times do not count, so that the vendor's next response has the same fingerprint.

    Args:
        body: parsed JSON.
        sent_count: the number of leads in the request. A smaller number in the body may be a count
            of some of them, and so may a shorter list.
    """
    shape = _describe_shape(body, sent_count)
    return None if shape is None else max(1, zlib.crc32(shape.encode()) & 0x7FFF_FFFF)


def _describe_shape(value: Any, sent_count: int) -> str | None:
    if isinstance(value, dict):
        parts = {(_hide_ids(key), _describe_shape(value[key], sent_count)) for key in value}
        # Keys that are ids may have different values.
        is_uniform = len(dict(parts)) == len(parts) and None not in dict(parts).values()
        return f"{{{sorted(parts, key=str)}}}" if is_uniform else None
    if isinstance(value, list):
        if not value:
            return "[]"
        shapes = {_describe_shape(item, sent_count) for item in value}
        is_uniform = len(shapes) == 1 and None not in shapes and len(value) >= sent_count
        return f"[{shapes.pop()}]" if is_uniform else None
    if isinstance(value, str):
        return (
            None if min(find_counts(value), default=sent_count) < sent_count else _hide_ids(value)
        )
    if value is None or isinstance(value, bool):
        return repr(value)
    if not isinstance(value, int | float) or value < sent_count:
        return None
    return "all" if value == sent_count else str(value) if value < _MIN_ID else "#"


def _hide_ids(text: str) -> str:
    return repr(_WORD.sub(_hide_word_with_digit, text))


def _hide_word_with_digit(word: re.Match[str]) -> str:
    return "#" if any(map(str.isdecimal, word[0])) else word[0]
