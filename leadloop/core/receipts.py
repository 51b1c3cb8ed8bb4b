"""Per-lead results in an answer to a create or a disable.

The document shows no body for either, so every shape that names leads beside an error is read.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_REASON_KEYS = ("error", "errors", "reason", "message", "detail", "details")
_FAILED_LISTS = ("errors", "failed", "failures", "rejected", "invalid", "invalid_leads", "unknown")
_FAILED_STATES = frozenset({"error", "failed", "failure", "rejected", "invalid", "not_found"})
_DUPLICATE = re.compile(r"already|exists|duplicate", re.IGNORECASE)
#: A duplicate of something else than the id, a person on some list, a thing that does *not* exist.
_OF_SOMETHING_ELSE = re.compile(
    r"phone|number|contact|\blist\b|campaign|field|state|\bnot?\b|n't", re.IGNORECASE
)
_LONG_DIGITS = re.compile(r"\+?\d[\d\s().-]{5,}\d")
# Bounded, or a long text without a blank would take minutes.
_EMAIL = re.compile(r"\S{1,64}@\S+")
_LONGEST_REASON = 300


def refused_leads(body: Any, sent: Collection[str]) -> dict[str, str]:
    """Which of the leads that were sent the answer says were not taken, and why.

    Returns:
        `lead_id` to the vendor's own words. Empty where the body names nobody.
    """
    return {lead_id: reason for lead_id, reason in _walk(body) if lead_id in sent}


def says_duplicate(reason: str) -> bool:
    """Whether the vendor's words mean that it has the lead of this id already."""
    return bool(_DUPLICATE.search(reason)) and not _OF_SOMETHING_ELSE.search(reason)


def words(body: Any) -> str:
    """The vendor's reason in a body that concerns one lead, as text; empty if there is none."""
    if isinstance(body, str):
        return body
    if isinstance(body, Mapping):
        for key in _REASON_KEYS:
            if body.get(key):
                return words(body[key])
        return "; ".join(
            f"{key}: {text}"
            for key, value in body.items()
            if key != "lead_id" and (text := words(value))
        )
    if isinstance(body, list):
        return "; ".join(filter(None, map(words, body)))
    return ""


def without_personal_data(text: str, *values: str | None) -> str:
    """The vendor's words with phone numbers, addresses and the given values blotted out.

    Kept to 300 characters, for it becomes `last_error` and is counted in a view.
    """
    for value in values:
        if value and value.strip():
            text = re.sub(re.escape(value.strip()), "…", text, flags=re.IGNORECASE)
    return _EMAIL.sub("…", _LONG_DIGITS.sub("…", text))[:_LONGEST_REASON]


def _walk(body: Any) -> Iterator[tuple[str, str]]:
    if isinstance(body, list):
        for item in body:
            yield from _walk(item)
    elif isinstance(body, dict):
        yield from _of_lead(body)
        for key, value in body.items():
            if key in _FAILED_LISTS:
                yield from _failed(value, key)
            elif isinstance(value, list | dict):
                yield from _walk(value)


def _of_lead(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """An object about one lead that carries an error, or a state that is one."""
    if "lead_id" not in item:
        return
    state = item.get("status", item.get("success"))
    failed = state is False or str(state).lower() in _FAILED_STATES
    reason = next((words(item[key]) for key in _REASON_KEYS if item.get(key)), "")
    if failed or (reason and any(item.get(key) for key in ("error", "errors"))):
        yield str(item["lead_id"]), reason or str(state)


def _failed(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """The content of a list, or a mapping by id, of leads that failed."""
    if isinstance(value, dict):
        for lead_id, reason in value.items():
            yield str(lead_id), words(reason) or key
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and "lead_id" in item:
                yield str(item["lead_id"]), words(item) or key
            elif isinstance(item, str | int):
                yield str(item), key
