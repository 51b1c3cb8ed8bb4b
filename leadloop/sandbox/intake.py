"""What the vendor accepts as a lead: strict, with the reason in words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from leadloop.sandbox.packing import packed
from leadloop.sandbox.rules import REQUIRED, Rules
from leadloop.sandbox.shelf import Draft

_PHONES = {
    "digits": re.compile(r"\+?[0-9]{7,15}"),
    "e164": re.compile(r"\+[1-9][0-9]{6,14}"),
    "nanp": re.compile(r"(?:\+?1)?[2-9][0-9]{2}[2-9][0-9]{6}"),
}
_STATE = re.compile(r"[A-Za-z]{2}")
_OWN = frozenset((*REQUIRED, "ebr_datetime"))
EXISTS = "A lead with this lead_id already exists."


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why one entry of a list was refused: its index, its id where it had one, the reason."""

    index: int
    lead_id: str | None
    reason: str

    def shown(self) -> dict[str, Any]:
        """As the answer's body shows it."""
        return {"index": self.index, "lead_id": self.lead_id, "reason": self.reason}


def entries(body: bytes) -> list[Any]:
    """The list of a request's body; one bare object counts as a list of one.

    Raises:
        ValueError: the body is not JSON, or neither a list nor an object, or empty.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ValueError("The body is not valid JSON.") from None
    if isinstance(found, dict):
        return [found]
    if not isinstance(found, list):
        raise ValueError("The body must be a list of objects, or one object.")
    if not found:
        raise ValueError("The list is empty.")
    return found


def identity(entry: Any) -> str | None:
    """The `lead_id` of an entry as text; None where it has none that could be one."""
    value = entry.get("lead_id") if isinstance(entry, dict) else None
    if isinstance(value, str):
        return value if value.strip() else None
    return str(value) if type(value) is int else None


def read(index: int, entry: Any, rules: Rules) -> Draft | Refusal:
    """A well-formed lead, or why it is not one."""
    lead_id = identity(entry)
    if not isinstance(entry, dict):
        return Refusal(index=index, lead_id=None, reason="An entry must be an object.")
    reasons = " ".join(_complaints(entry, lead_id, rules))
    if reasons or lead_id is None:
        return Refusal(index=index, lead_id=lead_id, reason=reasons)
    custom = {key: value for key, value in entry.items() if key not in _OWN}
    return Draft(
        lead_id=lead_id,
        phone_number=str(entry.get("phone_number") or ""),
        contact_name=entry.get("contact_name") or "",
        state_code=entry.get("state_code") or "",
        custom=packed(custom) if custom else None,
    )


def _complaints(entry: dict[str, Any], lead_id: str | None, rules: Rules) -> Iterable[str]:
    if lead_id is None:
        yield "lead_id: text or a whole number is required."
    for name in ("phone_number", "contact_name", "state_code"):
        if _is_missing(entry.get(name)):
            if name in rules.required:
                yield f"{name}: this field is required."
        elif not _FIELDS[name](entry[name], rules):
            yield f"{name}: not valid."
    if entry.get("ebr_datetime") is not None and not _is_time(entry["ebr_datetime"]):
        yield "ebr_datetime: neither an epoch timestamp nor an ISO 8601 time."
    if rules.newer_limits:
        yield from _too_long(entry, lead_id or "")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _is_phone(value: Any, rules: Rules) -> bool:
    return type(value) in (str, int) and _PHONES[rules.phone].fullmatch(str(value)) is not None


def _is_name(value: Any, _: Rules) -> bool:
    return isinstance(value, str)


def _is_state(value: Any, _: Rules) -> bool:
    return isinstance(value, str) and _STATE.fullmatch(value) is not None


_FIELDS = {"phone_number": _is_phone, "contact_name": _is_name, "state_code": _is_state}


def _is_time(value: Any) -> bool:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value) is not None
        except ValueError:
            return value.isdigit()
    return type(value) in (int, float)


def _too_long(entry: dict[str, Any], lead_id: str) -> Iterable[str]:
    limits = {"lead_id": 255, "contact_name": 48, "phone_number": 12}
    for name, limit in limits.items():
        value = lead_id if name == "lead_id" else str(entry.get(name) or "")
        if len(value) > limit:
            yield f"{name}: longer than {limit} characters."
