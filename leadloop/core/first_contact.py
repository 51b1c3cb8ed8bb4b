"""What a first contact reads from the vendor's responses: their outlines, times, types of ids."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from leadloop.core.timestamps import EpochUnit, parse_time, to_epoch_ms
from leadloop.core.verdicts import UNREADABLE, ApiResponse

_MAX_DEPTH = 6
_MAX_ITEMS = 30
_MAX_TEXT = 120
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]{0,39}", re.ASCII)
_LEAD_ID = re.compile(r"\blead[ _-]?id\b", re.I)
# Not a number alone, which may be that of a phone.
_INTEGER = re.compile(r"\b(?:int|integer|numeric|(?:be|an?|whole) number)\b", re.I)
_MS_OF = {"ms": 1, "s": 1000}
_UNIT_NAMES = ((11, "seconds"), (14, "milliseconds"), (17, "microseconds"))


@dataclass(frozen=True, kw_only=True)
class OutlineRedaction:
    """How an outline redacts personal data in texts and in keys."""

    hide_text: Callable[[str], str]
    hide_key: Callable[[str], str]


def outline_response(response: ApiResponse, redaction: OutlineRedaction) -> str:
    """Describe a response by its status and the outline of its body; see `outline_body`."""
    if response.failure is not None:
        return str(response)
    if response.body is None:
        return f"{response}, no body"
    if response.body is UNREADABLE:
        return f"{response}, a body that is not JSON"
    return f"{response} {outline_body(response.body, redaction)}"


def outline_body(body: Any, redaction: OutlineRedaction, *, depth: int = _MAX_DEPTH) -> str:
    """Describe parsed JSON by its keys, types and redacted texts, without numbers.

    A key that is no plain identifier, or that has to be redacted, is left out. So is what lies
    deeper than `depth`.
    """
    if isinstance(body, str):
        return json.dumps(redaction.hide_text(body)[:_MAX_TEXT], ensure_ascii=False)
    if body is None or isinstance(body, bool):
        return json.dumps(body)
    if not isinstance(body, dict | list):
        return "number"
    if not depth:
        return "…"
    outline = partial(outline_body, redaction=redaction, depth=depth - 1)
    if isinstance(body, list):
        return f"[{', '.join(dict.fromkeys(map(outline, body[:_MAX_ITEMS])))}]"
    parts = [
        f"{key if _is_plain_key(key, redaction) else '…'}: {outline(item)}"
        for key, item in list(body.items())[:_MAX_ITEMS]
    ]
    return f"{{{', '.join(parts)}}}"


def _is_plain_key(key: str, redaction: OutlineRedaction) -> bool:
    return _PLAIN_KEY.fullmatch(key) is not None and redaction.hide_key(key) == key


def wants_numeric_id(body: Any) -> bool:
    """Return whether a refusal's body may mean that lead ids must be JSON numbers."""
    text = json.dumps(body, default=str)
    return _LEAD_ID.search(text) is not None and _INTEGER.search(text) is not None


def describe_time_format(value: object) -> str:
    """Describe how the vendor writes a time: its unit, or ISO 8601; or "no time"."""
    try:
        parse_time(value)
    except ValueError:
        return "no time"
    text = str(value).strip()
    whole = text.lstrip("-").partition(".")[0]
    if not whole.isdecimal():
        return "ISO 8601"
    unit = next((name for digits, name in _UNIT_NAMES if len(whole) <= digits), "nanoseconds")
    return f"{unit} since 1970" + (", as text" if isinstance(value, str) else "")


def describe_id_type(result: Mapping[str, Any]) -> str:
    """Describe how a result writes the lead's id."""
    return "text" if isinstance(result.get("lead_id"), str) else "number"


def is_whole(moment: datetime, unit: EpochUnit) -> bool:
    """Return whether a time is a whole number of units: a bound can then equal it."""
    return moment.microsecond % 1000 == 0 and to_epoch_ms(moment) % _MS_OF[unit] == 0
