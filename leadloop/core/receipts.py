"""Per-lead results in an answer to a create or a disable.

The document shows no body for either, so every shape that names leads beside an error is read.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_REASON_KEYS = ("error", "errors", "reason", "message", "detail", "details")
_FAILED_LISTS = frozenset(
    {
        *("errors", "failed", "failures", "rejected", "refused", "invalid", "invalid_leads"),
        *("unknown", "unknown_leads", "not_found", "missing", "ignored", "skipped", "duplicates"),
    }
)
_TAKEN_LISTS = frozenset({"created", "accepted", "success", "succeeded", "successful"})
_FAILED_STATES = frozenset(
    {"error", "failed", "failure", "rejected", "refused", "invalid", "not_found", "unknown"}
)
_STATE_KEYS = ("status", "status_code", "code", "state", "success", "ok")
_FINE = re.compile(r"\b(?:ok|success\w*|created|accepted|queued|updated|disabled|true)\b", re.I)

_DUPLICATE = re.compile(
    r"\bexists?\b|duplicate|already (?:been )?(?:created|added|imported|uploaded|present)", re.I
)
#: A duplicate of something else than the id, a person on some list, a thing that does *not* exist.
_NO_DUPLICATE = re.compile(
    r"phone|number|e-?mail|\blist\b|opted|disabled|unsubscri|\bnot?\b|n't", re.I
)
_OF_SOMETHING_ELSE = re.compile(r"contact|campaign|field|state", re.I)
_OF_A_LEAD = re.compile(r"lead", re.I)
_LONG_DIGITS = re.compile(r"\+?\d[\d\s().-]{5,}\d")
# Bounded, or a long text without a blank would take minutes.
_EMAIL = re.compile(r"\S{1,64}@\S+")
_LONGEST_REASON = 300
# Deeper than any answer that means something, and shallower than Python's stack.
_DEEPEST = 20


@dataclass(kw_only=True)
class Reading:
    """What an answer says of the leads of its request.

    `refused`: those not taken, with the vendor's own words; `taken`: those that it lists as
    created; `unclear`: it speaks of a failure without saying whose, or names others than ours.
    """

    refused: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    unclear: bool = False


def read_receipt(
    body: Any,
    sent: Collection[str],
    own_keys: Callable[[str], Collection[str]] = lambda _: (),
) -> Reading:
    """Read the answer to a create or a disable.

    Args:
        body: parsed JSON.
        sent: the ids that the request held.
        own_keys: the custom fields of one of them. An answer that echoes leads repeats these, and
            a field of the user's called `status` says nothing of the create.
    """
    reading = Reading()
    known = _Ids(sent)
    for lead_id, reason in _walk(body, known, own_keys, _DEEPEST):
        ours = known.find(lead_id)
        if ours is None:
            reading.unclear = reading.unclear or reason is not None
        elif reason is None:
            reading.taken.add(ours)
        else:
            reading.refused.setdefault(ours, reason)
    reading.taken -= reading.refused.keys()
    return reading


def says_duplicate(reason: str) -> bool:
    """Whether the vendor's words mean that it has the lead of this id already."""
    if not _DUPLICATE.search(reason) or _NO_DUPLICATE.search(reason):
        return False
    return bool(_OF_A_LEAD.search(reason)) or not _OF_SOMETHING_ELSE.search(reason)


def words(body: Any, depth: int = _DEEPEST) -> str:
    """The vendor's reason in a body that concerns one lead, as text; empty if there is none."""
    if isinstance(body, str):
        return body
    if depth == 0:
        return ""
    if isinstance(body, Mapping):
        for key in _REASON_KEYS:
            if body.get(key):
                return words(body[key], depth - 1)
        return "; ".join(
            f"{key}: {text}"
            for key, value in body.items()
            if key not in ("lead_id", "id") and (text := words(value, depth - 1))
        )
    if isinstance(body, list):
        return "; ".join(filter(None, (words(item, depth - 1) for item in body)))
    return ""


def vendors_words(
    reason: str, number: str | None = None, name: str | None = None, custom: Iterable[str] = ()
) -> str:
    """The vendor's reason as it is stored: without what it repeats of a person.

    Args:
        reason: its words.
        number: the person's, in E.164; others are found by their shape.
        name: the person's; each of its parts is blotted out too.
        custom: what the custom fields hold.
    """
    parts = [part for part in (name or "").split() if len(part) > 1]
    longest_first = sorted((part for part in custom if len(part) > 2), key=len, reverse=True)
    return f"vendor: {without_personal_data(reason, name, number, *longest_first, *parts)}"


def without_personal_data(text: str, *values: str | None) -> str:
    """The vendor's words with phone numbers, addresses and the given values blotted out.

    Kept to 300 characters, for it becomes `last_error` and is counted in a view.
    """
    for value in values:
        if value and value.strip():
            text = re.sub(re.escape(value.strip()), "…", text, flags=re.IGNORECASE)
    return _EMAIL.sub("…", _LONG_DIGITS.sub("…", text))[:_LONGEST_REASON]


class _Ids:
    """The ids of a request, found again where the answer writes them as numbers."""

    def __init__(self, sent: Collection[str]) -> None:
        self._sent = sent if isinstance(sent, set | frozenset) else set(sent)
        self._by_number: dict[str, list[str]] = {}
        for lead_id in self._sent:
            self._by_number.setdefault(_as_number(lead_id), []).append(lead_id)

    def find(self, lead_id: str) -> str | None:
        if lead_id in self._sent:
            return lead_id
        alike = self._by_number.get(_as_number(lead_id), ())
        return alike[0] if len(alike) == 1 else None


def _as_number(lead_id: str) -> str:
    """An id as JSON's numbers would have it: without leading zeros."""
    return lead_id.lstrip("0") or "0" if lead_id.isdecimal() else lead_id


_Said = Iterator[tuple[str, str | None]]


def _walk(body: Any, known: _Ids, own_keys: Callable[[str], Collection[str]], depth: int) -> _Said:
    """Ids with the reason why they were refused; None for those that were taken."""
    if depth == 0:
        return
    if isinstance(body, list):
        for item in body:
            yield from _walk(item, known, own_keys, depth - 1)
    elif isinstance(body, dict) and "lead_id" in body:
        # What an echoed lead holds inside is the user's.
        yield from _of_lead(str(body["lead_id"]), body, known, own_keys)
    elif isinstance(body, dict):
        for key, value in body.items():
            if key in _FAILED_LISTS:
                yield from _failed(value, key)
            elif key in _TAKEN_LISTS:
                yield from _taken(value)
            elif known.find(key) is not None:
                yield from _by_id(key, value, known, own_keys)
            else:
                yield from _walk(value, known, own_keys, depth - 1)


def _of_lead(
    lead_id: str,
    item: Mapping[str, Any],
    known: _Ids,
    own_keys: Callable[[str], Collection[str]],
) -> _Said:
    """An object about one lead that carries an error, or a state that is one."""
    ours = known.find(lead_id)
    own = own_keys(ours) if ours is not None else ()
    facts = {key: value for key, value in item.items() if key not in own}
    failed = [facts[key] for key in _STATE_KEYS if key in facts and _failed_state(facts[key])]
    if failed or any(facts.get(key) for key in ("error", "errors")):
        reason = next((words(facts[key]) for key in _REASON_KEYS if facts.get(key)), "")
        yield lead_id, reason or str(failed[0] if failed else "refused")


def _failed_state(state: Any) -> bool:
    if isinstance(state, bool):
        return not state
    if isinstance(state, int):
        return 400 <= state < 600
    return str(state).lower().replace(" ", "_") in _FAILED_STATES


def _failed(value: Any, key: str) -> _Said:
    """The content of a list, or a mapping by id, of leads that failed."""
    if isinstance(value, dict):
        for lead_id, reason in value.items():
            yield str(lead_id), words(reason) or key
    elif isinstance(value, list):
        for item in value:
            named = item.get("lead_id", item.get("id")) if isinstance(item, dict) else item
            reason = words(item) if isinstance(item, dict) else ""
            # Without an id it is an id of nobody's: a failure that does not say whose it is.
            yield "" if named is None else str(named), reason or key


def _taken(value: Any) -> _Said:
    for item in value if isinstance(value, list) else ():
        named = item.get("lead_id", item.get("id")) if isinstance(item, dict) else item
        if isinstance(named, str | int) and not isinstance(named, bool):
            yield str(named), None


def _by_id(
    lead_id: str, value: Any, known: _Ids, own_keys: Callable[[str], Collection[str]]
) -> _Said:
    """What an object keyed by ids says of one."""
    if isinstance(value, dict):
        yield from _of_lead(lead_id, value, known, own_keys)
    elif value is False or (isinstance(value, str) and not _FINE.search(value)):
        yield lead_id, words(value) or "refused"
