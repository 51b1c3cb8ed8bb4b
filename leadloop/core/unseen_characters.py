"""Blanks and invisible characters: one rule for all text that people give us.

A value has no blank and no invisible character at its ends, and a lead id has no invisible
character at all. `leadloop load` removes such characters. A lead whose row has such an id is
rejected, because the vendor, an opt-out or an outcome might write the id without them.
"""

import re

# Control and format characters of Unicode, fillers and tags. db.schema has the same characters, and
# the blanks, in SQL.
_INVISIBLE = (
    "\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_BLANKS = "\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_AT_START = re.compile(f"[{_BLANKS}{_INVISIBLE}]+")
_INSIDE = re.compile(f"[{_INVISIBLE}]+")
_ASCII_UNSEEN = "".join(map(chr, (*range(0x21), 0x7F)))


def strip_unseen(text: str) -> str:
    """Strip blanks and invisible characters from both ends of a text."""
    if text.isascii():
        return text.strip(_ASCII_UNSEEN)
    start = _AT_START.match(text)
    end = _AT_START.match(text[::-1])
    first = start.end() if start else 0
    return text[first : len(text) - (end.end() if end else 0)] if first < len(text) else ""


def clean_id(text: str) -> str:
    """Strip an id, and remove invisible characters within it; blanks within it stay."""
    return _INSIDE.sub("", strip_unseen(text))


def is_clean_id(text: str) -> bool:
    """Return whether an id has no blank at an end and no invisible character."""
    return clean_id(text) == text
