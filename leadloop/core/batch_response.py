"""Per-lead results in an answer to a create or a disable.

The document shows no body for either, so every shape that names leads beside an error is read, by
what the words of its keys and texts mean (leadloop.core.response_vocabulary). What is understood and names a
lead refuses that lead; what speaks of trouble and does not say whose makes the others unclear.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from leadloop.core.leads import LEAD_FIELDS
from leadloop.core.redaction import redact_personal_data
from leadloop.core.response_vocabulary import (
    KeyMeaning,
    classify_key,
    confirms_call,
    is_negated,
    means_failure,
    means_no_error,
    means_success,
)
from leadloop.core.verdicts import ApiCall

_REASON_KEYS = ("error", "errors", "reason", "message", "detail", "details")
_DUPLICATE = re.compile(
    r"\bexists?\b|duplicate|already (?:been )?(?:created|added|imported|uploaded|present)", re.I
)
#: A duplicate of something else than the id, a person on some list, a thing that does *not* exist.
_NO_DUPLICATE = re.compile(
    r"phone|mobile|number|e-?mail|list\b|suppress|block|\bdnc\b|\bcall\b|opted|disabled|unsubscri"
    r"|\bnot?\b|n't",
    re.I,
)
_OF_THE_ID = re.compile(r"\blead[ _-]?ids?\b", re.I)
_OF_A_PERSON = re.compile(r"contact|customer|person|people|name|address|details|same", re.I)
_OF_SOMETHING_ELSE = re.compile(r"campaign|field|state", re.I)
_OF_A_LEAD = re.compile(r"lead", re.I)
# Deeper than any answer that means something, and shallower than Python's stack.
_DEEPEST = 20


@dataclass(kw_only=True)
class BatchResult:
    """What an answer says of the leads of its request.

    `refused`: those not taken, with the vendor's own words; `taken`: those that it lists as
    created, or disabled; `unclear`: of the others it is not known whether they were. It speaks of
    trouble without saying whose, or of some leads and not of all.
    """

    rejected: dict[str, str] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    ambiguous: bool = False


def parse_batch_response(
    call: ApiCall,
    body: Any,
    sent: Collection[str],
    custom_keys: Callable[[str], Collection[str]],
) -> BatchResult:
    """Read the answer to a create or a disable.

    Args:
        call: which of them.
        body: parsed JSON.
        sent: the ids that the request held.
        own_keys: the custom fields of one of them. An answer that echoes leads repeats these, and
            a field of the user's called `status` says nothing of the create.
    """
    return _BatchParser(call, sent, custom_keys).read(body)


def is_duplicate_reason(reason: str) -> bool:
    """Whether the vendor's words mean that it has the lead of this id already.

    Where they may mean another lead of the same person they do not: the lead is then rejected with
    these words, which a person reads. Should the vendor have it after all, an audit says so, and
    its opt-out is told to the vendor nevertheless.
    """
    if not _DUPLICATE.search(reason) or _NO_DUPLICATE.search(reason):
        return False
    if _OF_THE_ID.search(reason):
        return True
    if _OF_A_PERSON.search(reason):
        return False
    return bool(_OF_A_LEAD.search(reason)) or not _OF_SOMETHING_ELSE.search(reason)


def extract_reason(body: Any, depth: int = _DEEPEST) -> str:
    """The vendor's reason in a body that concerns one lead, as text; empty if there is none."""
    if isinstance(body, str):
        return body
    if depth == 0:
        return ""
    if isinstance(body, Mapping):
        for key in _REASON_KEYS:
            if body.get(key):
                return extract_reason(body[key], depth - 1)
        return "; ".join(
            f"{key}: {text}"
            for key, value in body.items()
            if key not in ("lead_id", "id") and (text := extract_reason(value, depth - 1))
        )
    if isinstance(body, list):
        return "; ".join(filter(None, (extract_reason(item, depth - 1) for item in body)))
    return ""


def redact_reason(
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
    fields = [text for text in custom if len(text) > 2]
    return f"vendor: {redact_personal_data(reason, name, number, *fields, *parts)}"


class _SentIds:
    """The ids of a request, found again where the answer writes them as numbers."""

    def __init__(self, sent: Collection[str]) -> None:
        self._sent = frozenset(sent)
        self._by_number: dict[str, list[str]] = {}
        for lead_id in self._sent:
            self._by_number.setdefault(_as_number(lead_id), []).append(lead_id)

    def of(self, named: Any) -> str | None:
        """The id of ours that is meant, if it is one."""
        if isinstance(named, bool) or not isinstance(named, str | int):
            return None
        lead_id = str(named)
        if lead_id in self._sent:
            return lead_id
        alike = self._by_number.get(_as_number(lead_id), ())
        return alike[0] if len(alike) == 1 else None

    def may_be_places(self, named: Mapping[str, Any] | Sequence[Any]) -> bool:
        """Whether an object's keys, or a list's numbers, may be places in the request and not ids.

        They are then counted from 0 or from 1. In a request of one lead both mean that one.
        """
        most = len(self._sent)
        form = str if isinstance(named, Mapping) else int
        return (
            most > 1
            and all(type(place) is form and _is_place(str(place), most) for place in named)
            and any(self.of(place) is not None for place in named)
        )


def _is_place(text: str, most: int) -> bool:
    return text.isdecimal() and len(text) < 10 and int(text) <= most


def _as_number(lead_id: str) -> str:
    """An id as JSON's numbers would have it: without leading zeros."""
    return lead_id.lstrip("0") or "0" if lead_id.isdecimal() else lead_id


class _BatchParser:
    """Goes through one answer, and notes what it says of whom."""

    def __init__(
        self, call: ApiCall, sent: Collection[str], own_keys: Callable[[str], Collection[str]]
    ) -> None:
        self._call = call
        self._ids = _SentIds(sent)
        self._sent = frozenset(sent)
        self._own_keys = own_keys
        self._reading = BatchResult()
        self._mentioned: set[str] = set()
        self._least: float = len(self._sent)

    def read(self, body: Any) -> BatchResult:
        reading = self._reading
        if body is False or isinstance(body, str):
            self._hear(body)
        else:
            self._walk(body, KeyMeaning.CONTAINER, _DEEPEST)
        reading.accepted -= reading.rejected.keys()
        spoken_of = reading.accepted | self._mentioned | reading.rejected.keys()
        some_missing = bool(reading.accepted | self._mentioned) and spoken_of < self._sent
        too_few = self._least < len(self._sent) - len(reading.rejected)
        reading.ambiguous = reading.ambiguous or some_missing or too_few
        return reading

    def _walk(self, value: Any, kind: KeyMeaning, depth: int) -> None:
        """A part of the answer, under a key of that kind."""
        if depth == 0:
            self._reading.ambiguous = True
        elif isinstance(value, list):
            if kind is KeyMeaning.SUCCESS:
                self._count(len(value))
            numbers = self._ids.may_be_places(value)
            for item in value:
                if isinstance(item, dict | list):
                    self._walk(item, kind, depth - 1)
                elif (ours := self._ids.of(item)) is not None:
                    self._note(ours, taken=kind is KeyMeaning.SUCCESS and not numbers)
                elif isinstance(item, str):
                    self._hear(item)
        elif isinstance(value, dict):
            self._object(value, kind, depth)

    def _object(self, value: Mapping[str, Any], kind: KeyMeaning, depth: int) -> None:
        if self._is_about_a_lead(value):
            self._lead(self._ids.of(_named(value)), value, kind)
        elif self._ids.may_be_places(value):
            # By the place in the list or by id: nobody can tell, so nobody is meant.
            self._walk([*value.values()], KeyMeaning.CONTAINER, depth - 1)
        else:
            for key, item in value.items():
                self._entry(key, item, kind, depth)

    def _entry(self, key: str, value: Any, above: KeyMeaning, depth: int) -> None:
        kind = classify_key(key, self._call)
        if kind is KeyMeaning.ERROR:
            if not (means_no_error(value) or (isinstance(value, str) and means_success(value))):
                self._trouble(value, key, depth - 1)
        elif key in LEAD_FIELDS - {"lead_id"} and isinstance(value, dict | list):
            # What is wrong with a field, of a lead that is told by its place at most.
            self._reading.ambiguous = self._reading.ambiguous or not means_no_error(value)
        elif isinstance(value, dict | list) and kind is not KeyMeaning.UNKNOWN:
            self._walk(value, above if kind is KeyMeaning.CONTAINER else kind, depth - 1)
        elif kind in (KeyMeaning.SUCCESS, KeyMeaning.COUNT) and not isinstance(value, bool):
            self._count(value)
        elif kind in (KeyMeaning.SUCCESS, KeyMeaning.STATUS, KeyMeaning.MESSAGE):
            self._hear(value)
        elif (ours := self._ids.of(key)) is not None:
            self._by_id(ours, value, above)
        else:
            self._walk(value, kind, depth - 1)

    def _trouble(self, value: Any, key: str, depth: int) -> None:
        """What stands under a key that speaks of trouble: whose it is, if that is said."""
        if isinstance(value, list) and depth > 0:
            numbers = self._ids.may_be_places(value)
            for item in value:
                ours = None if numbers else self._ids.of(item)
                if ours is not None:
                    self._reading.rejected.setdefault(ours, key)
                elif not means_no_error(item):
                    self._trouble(item, key, depth - 1)
        elif isinstance(value, dict) and self._is_about_a_lead(value):
            self._refuse(self._ids.of(_named(value)), extract_reason(self._facts(value)) or key)
        elif isinstance(value, dict) and depth > 0 and not self._ids.may_be_places(value):
            self._troubles_by_key(value, key, depth)
        else:
            self._reading.ambiguous = True

    def _troubles_by_key(self, value: Mapping[str, Any], key: str, depth: int) -> None:
        for name, item in value.items():
            if means_no_error(item):
                continue
            ours = self._ids.of(name)
            if ours is None and classify_key(name, self._call) is KeyMeaning.CONTAINER:
                self._trouble(item, key, depth - 1)
            else:
                self._refuse(ours, extract_reason(item) or key)

    def _lead(self, ours: str | None, item: Mapping[str, Any], kind: KeyMeaning) -> None:
        """An object about one lead: what it says beside the lead's own fields."""
        facts = self._facts(item)
        bad = [value for key, value in facts.items() if self._is_bad(key, value)]
        if bad:
            said = next((extract_reason(facts[key]) for key in _REASON_KEYS if facts.get(key)), "")
            self._refuse(ours, said or extract_reason(bad[0]) or str(bad[0]))
        elif any(self._is_doubtful(key, value) for key, value in facts.items()):
            self._reading.ambiguous = True
        elif ours is not None:
            done = any(self._is_done(key, value) for key, value in facts.items())
            self._note(ours, taken=kind is KeyMeaning.SUCCESS or done)

    def _facts(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """What the vendor may have added to a lead, within its parts too: the rest is the user's.

        Of a lead that is not ours it is not known what is: then no field of any of ours counts.
        """
        ours = self._ids.of(_named(item))
        own = self._anybodys_own if ours is None else self._own_keys(ours)
        return _without(item, own, _DEEPEST)

    @cached_property
    def _anybodys_own(self) -> frozenset[str]:
        return frozenset[str]().union(*map(self._own_keys, self._sent))

    def _is_bad(self, key: str, value: Any) -> bool:
        kind = classify_key(key, self._call)
        if kind is KeyMeaning.ERROR:
            return not means_no_error(value) and not (
                isinstance(value, str) and means_success(value)
            )
        if isinstance(value, dict):
            return kind is not KeyMeaning.UNKNOWN and any(
                self._is_bad(*entry) for entry in value.items()
            )
        if kind is KeyMeaning.SUCCESS and type(value) is int:
            return value == 0
        return kind in (
            KeyMeaning.SUCCESS,
            KeyMeaning.STATUS,
            KeyMeaning.MESSAGE,
        ) and means_failure(value)

    def _is_doubtful(self, key: str, value: Any) -> bool:
        if key in LEAD_FIELDS:
            # Its own value is left out, so that this is what is wrong with it.
            return not means_no_error(value)
        return classify_key(key, self._call) in (
            KeyMeaning.STATUS,
            KeyMeaning.MESSAGE,
        ) and is_negated(value)

    def _by_id(self, ours: str, value: Any, above: KeyMeaning) -> None:
        """What an object keyed by ids says of one."""
        if isinstance(value, dict):
            self._lead(ours, {**value, "lead_id": ours}, above)
            return
        said = value if isinstance(value, str) else extract_reason(value)
        if value is False or means_failure(said):
            self._refuse(ours, said or "refused")
        elif (said and not said.isdecimal() and not means_success(said)) or means_failure(value):
            # Words that are not understood, or a number that may be a status.
            self._reading.ambiguous = True
        else:
            self._note(ours, taken=above is KeyMeaning.SUCCESS or confirms_call(said, self._call))

    def _is_done(self, key: str, value: Any) -> bool:
        said = key if value is True else value
        told = classify_key(key, self._call) in (KeyMeaning.SUCCESS, KeyMeaning.STATUS)
        return told and isinstance(said, str) and confirms_call(said, self._call)

    def _note(self, ours: str, *, taken: bool) -> None:
        (self._reading.accepted if taken else self._mentioned).add(ours)

    def _refuse(self, ours: str | None, reason: str) -> None:
        if ours is None:
            self._reading.ambiguous = True
        else:
            self._reading.rejected.setdefault(ours, reason)

    def _hear(self, value: Any) -> None:
        """Something said of nobody in particular."""
        if means_failure(value) or is_negated(value):
            self._reading.ambiguous = True

    def _count(self, value: Any) -> None:
        """How many were taken."""
        if isinstance(value, int | float):
            self._least = min(self._least, value)
        elif isinstance(value, str) and value.isdecimal() and len(value) < 10:
            self._least = min(self._least, int(value))
        else:
            self._hear(value)

    def _is_about_a_lead(self, value: Mapping[str, Any]) -> bool:
        named = value.get("lead_id")
        if named is None:
            return self._ids.of(value.get("id")) is not None
        return isinstance(named, str | int)


def _named(item: Mapping[str, Any]) -> Any:
    return item["lead_id"] if item.get("lead_id") is not None else item.get("id")


def _without(item: Mapping[str, Any], own: Collection[str], depth: int) -> dict[str, Any]:
    """The object without the user's fields and the plain ones of a lead."""
    return {
        key: _without(value, own, depth - 1) if isinstance(value, dict) else value
        for key, value in item.items()
        if depth > 0
        and key not in own
        and key != "id"
        and (key not in LEAD_FIELDS or isinstance(value, dict | list))
    }
