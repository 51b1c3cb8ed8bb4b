"""Validation of request bodies and leads: strict, with the reason in words."""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from leadloop.sandbox.campaign_leads import LeadDraft
from leadloop.sandbox.outcomes import pack_json
from leadloop.sandbox.rules import REQUIRED, Rules

_PHONES = {
    "digits": re.compile(r"\+?[0-9]{7,15}"),
    "e164": re.compile(r"\+[1-9][0-9]{6,14}"),
    "nanp": re.compile(r"(?:\+?1)?[2-9][0-9]{2}[2-9][0-9]{6}"),
}
_STATE = re.compile(r"[A-Za-z]{2}")
_DOCUMENTED_FIELDS = frozenset((*REQUIRED, "ebr_datetime"))
_LENGTHS = {"lead_id": 255, "contact_name": 48, "phone_number": 12}
NOT_NUMERIC = "lead_id: A valid integer is required."
EXISTS = "A lead with this lead_id already exists."


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryError:
    """Why one entry of a list is rejected: its index, its id if it has one, the reason."""

    index: int
    lead_id: str | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Convert to the keys that the response's body shows."""
        return asdict(self)


def parse_entries(body: bytes) -> list[Any]:
    """Parse the list of a request's body; one bare object counts as a list of one.

    Raises:
        ValueError: the body is not JSON, or neither a list nor an object, or empty.
    """
    try:
        entries = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ValueError("The body is not valid JSON.") from None
    if isinstance(entries, dict):
        return [entries]
    if not isinstance(entries, list):
        raise ValueError("The body must be a list of objects, or one object.")
    if not entries:
        raise ValueError("The list is empty.")
    return entries


def parse_entry_id(entry: Any) -> str | None:
    """Return the `lead_id` of an entry as text; None if it is missing or not valid."""
    value = entry.get("lead_id") if isinstance(entry, dict) else None
    if isinstance(value, str):
        return value if value.strip() else None
    return str(value) if type(value) is int else None


def validate_lead(index: int, entry: Any, rules: Rules) -> LeadDraft | EntryError:
    """Check a lead of a create request; return the valid lead, or why it is rejected."""
    lead_id = parse_entry_id(entry)
    if not isinstance(entry, dict):
        return EntryError(index=index, lead_id=None, reason="An entry must be an object.")
    reasons = " ".join(_find_errors(entry, lead_id, rules))
    if reasons or lead_id is None:
        return EntryError(index=index, lead_id=lead_id, reason=reasons)
    custom = {key: value for key, value in entry.items() if key not in _DOCUMENTED_FIELDS}
    return LeadDraft(
        lead_id=lead_id,
        phone_number=str(entry.get("phone_number") or ""),
        contact_name=entry.get("contact_name") or "",
        state_code=entry.get("state_code") or "",
        custom=pack_json(custom) if custom else None,
    )


def _find_errors(entry: dict[str, Any], lead_id: str | None, rules: Rules) -> Iterable[str]:
    if lead_id is None:
        yield "lead_id: text or a whole number is required."
    elif rules.numeric_ids and type(entry["lead_id"]) is not int:
        yield NOT_NUMERIC
    for name, is_valid in _FIELD_CHECKS.items():
        value = entry.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            if name in rules.required:
                yield f"{name}: this field is required."
        elif not is_valid(value, rules):
            yield f"{name}: not valid."
    if entry.get("ebr_datetime") is not None and not _is_time(entry["ebr_datetime"]):
        yield "ebr_datetime: neither an epoch timestamp nor an ISO 8601 time."
    if rules.newer_limits:
        for name, limit in _LENGTHS.items():
            text = lead_id or "" if name == "lead_id" else str(entry.get(name) or "")
            if len(text) > limit:
                yield f"{name}: longer than {limit} characters."


_FIELD_CHECKS: dict[str, Callable[[Any, Rules], bool]] = {
    "phone_number": lambda value, rules: (
        type(value) in (str, int) and _PHONES[rules.phone].fullmatch(str(value)) is not None
    ),
    "contact_name": lambda value, _: isinstance(value, str),
    "state_code": lambda value, _: isinstance(value, str) and _STATE.fullmatch(value) is not None,
}


def _is_time(value: Any) -> bool:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value) is not None
        except ValueError:
            return value.isdigit()
    return type(value) in (int, float)
