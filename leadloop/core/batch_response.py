"""Per-lead results in the response to a create or disable request.

The vendor's document shows no body for either call. The parser therefore accepts every shape that
names leads beside an error, and classifies keys and texts by their words
(leadloop.core.response_vocabulary). An understood error that names a lead rejects that lead; an
error that names none makes the other leads ambiguous.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from leadloop.core.leads import LEAD_FIELDS, read_vendor_id
from leadloop.core.redaction import keep_plain_words, redact_personal_data, replace_lead_id
from leadloop.core.response_shape import fingerprint_shape
from leadloop.core.response_vocabulary import (
    KeyMeaning,
    classify_key,
    confirms_call,
    counts_created,
    find_counts,
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
#: A duplicate of something other than the id, a person on a list, something that does *not* exist.
_NOT_DUPLICATE = re.compile(
    r"phone|mobile|number|e-?mail|list\b|suppress|block|\bdnc\b|\bcall\b|opted|disabled|unsubscri"
    r"|\bnot?\b|n't",
    re.I,
)
_ABOUT_ID = re.compile(r"\blead[ _-]?ids?\b", re.I)
_ABOUT_PERSON = re.compile(r"contact|customer|person|people|name|address|details|same", re.I)
_ABOUT_OTHER_THING = re.compile(r"campaign|field|state", re.I)
_ABOUT_LEAD = re.compile(r"lead", re.I)
_WORD = re.compile(r"[^\W_]+")
#: The only words of a reason that certainly means this lead in this campaign.
_DUPLICATE_WORD = re.compile(
    r"a|an|the|this|that|it|same|given|leads?|record|entry|contact|ids?|field|value|error|campaign"
    r"|with|of|for|in|has|is|was|been|already|exists?|existing|duplicate[ds]?"
    r"|created|added|imported|uploaded|present",
    re.I,
)
# Deeper than any meaningful response, and shallower than Python's stack.
_MAX_DEPTH = 20


@dataclass(kw_only=True)
class BatchResult:
    """The per-lead results of one batch request.

    `rejected` maps the ids of rejected leads to the vendor's reason. `accepted` holds the ids
    listed as created or disabled. `ambiguous` is true if the state of all other leads is unknown:
    the response reports an error without naming the lead, or names only some of the leads.
    `creates_some` is true if a create's body states, by a count or a list, that leads were created.
    `shape` is set for the success of a create that neither affirms that the leads were created nor
    denies it, such as `[]`: its fingerprint (leadloop.core.response_shape).
    """

    rejected: dict[str, str] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    ambiguous: bool = False
    creates_some: bool = False
    shape: int | None = None


def parse_batch_response(
    call: ApiCall,
    body: Any,
    sent: Collection[str],
    custom_keys: Callable[[str], Collection[str]],
) -> BatchResult:
    """Parse the response to a create or disable request into per-lead results.

    Args:
        call: CREATE or DISABLE.
        body: parsed JSON.
        sent: the lead ids of the request.
        custom_keys: returns the names of a lead's custom fields. A response that echoes leads
            repeats custom fields, and one called `status` is not the status of the create.
    """
    return _BatchParser(call, sent, custom_keys).parse(body)


def is_duplicate_reason(reason: str, lead_id: str) -> bool:
    """Return whether the vendor's reason means that this lead exists already in this campaign.

    Only if it consists of words that say so: with any other word ("in another campaign", "must
    exist", "is archived") it may mean something else.
    """
    rest = replace_lead_id(reason, lead_id, " ")
    return may_be_duplicate_reason(reason) and all(
        map(_DUPLICATE_WORD.fullmatch, _WORD.findall(rest))
    )


def may_be_duplicate_reason(reason: str) -> bool:
    """Return whether the vendor's reason may mean that a lead with the same id exists already.

    False if the reason may mean another lead of the same person: the lead is then rejected, and a
    person reads the reason. If the vendor has the lead after all, an audit reports it, and its
    opt-out is sent nevertheless.
    """
    if not _DUPLICATE.search(reason) or _NOT_DUPLICATE.search(reason):
        return False
    if _ABOUT_ID.search(reason):
        return True
    if _ABOUT_PERSON.search(reason):
        return False
    return bool(_ABOUT_LEAD.search(reason)) or not _ABOUT_OTHER_THING.search(reason)


def extract_reason(body: Any, depth: int = _MAX_DEPTH) -> str:
    """Return the vendor's reason in a body about one lead, as text; empty if there is none."""
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
    """Redact personal data in the vendor's reason, for storage in `last_error`.

    Args:
        reason: the vendor's text.
        number: the person's phone number in E.164; other numbers are found by their shape.
        name: the person's name; each part of the name is redacted too.
        custom: the values of the custom fields.
    """
    parts = [part for part in (name or "").split() if len(part) > 1]
    fields = [text for text in custom if len(text) > 2]
    return f"vendor: {redact_personal_data(reason, name, number, *fields, *parts)}"


def redact_reason_of_unknown(reason: str) -> str:
    """Redact the vendor's reason about a lead without a row, whose name and fields are not known.

    Only plain words are left, because any other could be the person's name.
    """
    return f"vendor: {keep_plain_words(redact_personal_data(reason))}"


class _SentIds:
    """The lead ids of a request, which the response may write as numbers."""

    def __init__(self, sent: Collection[str]) -> None:
        self._sent = frozenset(sent)
        self._by_number: dict[str, list[str]] = {}
        for lead_id in self._sent:
            self._by_number.setdefault(_strip_zeros(lead_id), []).append(lead_id)

    def find(self, named: Any) -> str | None:
        """Return the lead id of the request that a value names; None if it names none."""
        lead_id = read_vendor_id(named)
        if lead_id is None or lead_id in self._sent:
            return lead_id
        alike = self._by_number.get(_strip_zeros(lead_id), ())
        return alike[0] if len(alike) == 1 else None

    def may_be_positions(self, named: Mapping[str, Any] | Sequence[Any]) -> bool:
        """Return whether keys or numbers may be positions in the request instead of ids.

        Positions count from 0 or 1. In a request with one lead, position and id mean the same lead.
        """
        count = len(self._sent)
        forms = (str,) if isinstance(named, Mapping) else (int, float)
        return (
            count > 1
            and all(
                type(item) in forms
                and (text := read_vendor_id(item) or "").isdecimal()
                and len(text) < 10
                and int(text) <= count
                for item in named
            )
            and any(self.find(item) is not None for item in named)
        )


def _strip_zeros(lead_id: str) -> str:
    """Return an id without leading zeros, as a JSON number has none."""
    return lead_id.lstrip("0") or "0" if lead_id.isdecimal() else lead_id


class _BatchParser:
    """A recursive walk over one response that collects per-lead results."""

    def __init__(
        self, call: ApiCall, sent: Collection[str], custom_keys: Callable[[str], Collection[str]]
    ) -> None:
        self._call = call
        self._ids = _SentIds(sent)
        self._sent = frozenset(sent)
        self._custom_keys = custom_keys
        self._result = BatchResult()
        self._mentioned: set[str] = set()
        self._reported_count: float = len(self._sent)
        self._affirms = False
        # Whether a list of leads is empty, or has leads that were not in the request.
        self._lists_others = False

    def parse(self, body: Any) -> BatchResult:
        result = self._result
        # An empty body leaves it to the status, which is all that the vendor's document shows.
        self._affirms = body is None
        if body is False or isinstance(body, str):
            self._read_statement(body)
        else:
            self._walk_value(body, KeyMeaning.CONTAINER, _MAX_DEPTH)
        result.accepted -= result.rejected.keys()
        named = result.accepted | self._mentioned | result.rejected.keys()
        some_missing = bool(result.accepted | self._mentioned) and named < self._sent
        too_few = self._reported_count < len(self._sent) - len(result.rejected)
        result.ambiguous = result.ambiguous or some_missing or too_few
        if self._call is ApiCall.CREATE:
            result.creates_some = bool(result.accepted) or _counts_created(body, _MAX_DEPTH)
            is_affirmed = named >= self._sent or (
                not self._lists_others and (self._affirms or bool(result.rejected))
            )
            if not (is_affirmed or result.ambiguous):
                shape = fingerprint_shape(body, len(self._sent))
                result.shape = None if result.rejected else shape
                result.ambiguous = result.shape is None
        return result

    def _walk_value(self, value: Any, meaning: KeyMeaning, depth: int) -> None:
        """Walk a part of the response that stands under a key with the given meaning."""
        if depth == 0:
            self._result.ambiguous = True
        elif isinstance(value, list):
            self._walk_list(value, meaning, depth)
        elif isinstance(value, dict):
            self._walk_object(value, meaning, depth)

    def _walk_list(self, value: Sequence[Any], meaning: KeyMeaning, depth: int) -> None:
        if meaning is KeyMeaning.SUCCESS:
            self._reported_count = min(self._reported_count, len(value))
        if meaning in (KeyMeaning.SUCCESS, KeyMeaning.CONTAINER):
            self._lists_others |= self._may_list_others(value)
        affirms, is_short = self._affirms, len(value) < len(self._sent)
        numbers = self._ids.may_be_positions(value)
        for item in value:
            if isinstance(item, dict | list):
                self._walk_value(item, meaning, depth - 1)
            elif (lead_id := self._ids.find(item)) is not None:
                self._record_lead(lead_id, accepted=meaning is KeyMeaning.SUCCESS and not numbers)
            elif isinstance(item, str):
                self._read_statement(item)
        if is_short:
            # An item speaks of one lead, so those of a short list do not speak of all.
            self._affirms = affirms

    def _may_list_others(self, value: Sequence[Any]) -> bool:
        """Return whether a list names nobody, or leads that were not in the request, or only some.

        Items without any id may be the leads of the request, in order, if there are enough.
        """
        is_short = len(value) < len(self._sent)
        for item in value:
            named = _get_id(item) if isinstance(item, dict) else item
            if isinstance(item, list) or self._ids.find(named) is not None:
                continue
            if isinstance(item, dict) and item.get("lead_id") is None and not is_short:
                continue
            if not (isinstance(item, str) and means_success(item)):
                return True
        return not value

    def _walk_object(self, value: Mapping[str, Any], meaning: KeyMeaning, depth: int) -> None:
        if self._names_lead(value):
            self._parse_lead(self._ids.find(_get_id(value)), value, meaning)
        elif self._ids.may_be_positions(value):
            # Position in the list or id: ambiguous, so no lead is named.
            self._walk_value([*value.values()], KeyMeaning.CONTAINER, depth - 1)
        else:
            for key, item in value.items():
                self._walk_entry(key, item, meaning, depth)

    def _walk_entry(self, key: str, value: Any, above: KeyMeaning, depth: int) -> None:
        meaning = classify_key(key, self._call)
        if meaning is KeyMeaning.ERROR:
            if means_no_error(value) or (isinstance(value, str) and means_success(value)):
                self._affirms = True
            else:
                self._walk_error(value, key, depth - 1)
        elif key in LEAD_FIELDS - {"lead_id"} and isinstance(value, dict | list):
            # An error of a field; the lead is identified by its position at most.
            self._result.ambiguous = self._result.ambiguous or not means_no_error(value)
        elif isinstance(value, dict | list) and meaning is not KeyMeaning.UNKNOWN:
            self._walk_value(
                value, above if meaning is KeyMeaning.CONTAINER else meaning, depth - 1
            )
        elif meaning in (KeyMeaning.SUCCESS, KeyMeaning.COUNT) and not isinstance(value, bool):
            self._record_count(value)
        elif meaning in (KeyMeaning.SUCCESS, KeyMeaning.STATUS, KeyMeaning.MESSAGE):
            self._read_statement(value)
        elif (lead_id := self._ids.find(key)) is not None:
            self._parse_entry(lead_id, value, above)
        else:
            self._walk_value(value, meaning, depth - 1)

    def _walk_error(self, value: Any, key: str, depth: int) -> None:
        """Walk the value of an error key; reject the leads that the value names."""
        if isinstance(value, list) and depth > 0:
            numbers = self._ids.may_be_positions(value)
            for item in value:
                lead_id = None if numbers else self._ids.find(item)
                if lead_id is not None:
                    self._result.rejected.setdefault(lead_id, key)
                elif not means_no_error(item):
                    self._walk_error(item, key, depth - 1)
        elif isinstance(value, dict) and self._names_lead(value):
            self._reject(
                self._ids.find(_get_id(value)), extract_reason(self._vendor_fields(value)) or key
            )
        elif isinstance(value, dict) and depth > 0 and not self._ids.may_be_positions(value):
            self._walk_errors_by_key(value, key, depth)
        else:
            self._result.ambiguous = True

    def _walk_errors_by_key(self, value: Mapping[str, Any], key: str, depth: int) -> None:
        for name, item in value.items():
            if means_no_error(item):
                continue
            lead_id = self._ids.find(name)
            if lead_id is None and classify_key(name, self._call) is KeyMeaning.CONTAINER:
                self._walk_error(item, key, depth - 1)
            else:
                self._reject(lead_id, extract_reason(item) or key)

    def _parse_lead(
        self, lead_id: str | None, item: Mapping[str, Any], meaning: KeyMeaning
    ) -> None:
        """Classify an object about one lead by the fields that the vendor added."""
        added = self._vendor_fields(item)
        bad = [value for key, value in added.items() if self._is_bad(key, value)]
        if bad:
            reason = next(
                (extract_reason(added[key]) for key in _REASON_KEYS if added.get(key)), ""
            )
            self._reject(lead_id, reason or extract_reason(bad[0]) or str(bad[0]))
        elif any(self._is_negated(key, value) for key, value in added.items()):
            self._result.ambiguous = True
        elif lead_id is not None:
            confirmed = any(self._confirms_call(key, value) for key, value in added.items())
            self._record_lead(lead_id, accepted=meaning is KeyMeaning.SUCCESS or confirmed)

    def _vendor_fields(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the vendor may have added to a lead, nested ones included.

        For a lead outside the request, the custom fields of all leads are left out.
        """
        lead_id = self._ids.find(_get_id(item))
        own = self._all_custom_keys if lead_id is None else self._custom_keys(lead_id)
        return _drop_fields(item, own, _MAX_DEPTH)

    @cached_property
    def _all_custom_keys(self) -> frozenset[str]:
        return frozenset[str]().union(*map(self._custom_keys, self._sent))

    def _is_bad(self, key: str, value: Any) -> bool:
        meaning = classify_key(key, self._call)
        if meaning is KeyMeaning.ERROR:
            return not means_no_error(value) and not (
                isinstance(value, str) and means_success(value)
            )
        if isinstance(value, dict):
            return meaning is not KeyMeaning.UNKNOWN and any(
                self._is_bad(*entry) for entry in value.items()
            )
        if meaning is KeyMeaning.SUCCESS and type(value) is int:
            return value == 0
        return meaning in (
            KeyMeaning.SUCCESS,
            KeyMeaning.STATUS,
            KeyMeaning.MESSAGE,
        ) and means_failure(_parse_code(value))

    def _is_negated(self, key: str, value: Any) -> bool:
        if key in LEAD_FIELDS:
            # The field's own value is left out already: this is an error about the field.
            return not means_no_error(value)
        return classify_key(key, self._call) in (
            KeyMeaning.STATUS,
            KeyMeaning.MESSAGE,
        ) and is_negated(value)

    def _parse_entry(self, lead_id: str, value: Any, above: KeyMeaning) -> None:
        """Classify one value of an object whose keys are lead ids."""
        if isinstance(value, dict):
            self._parse_lead(lead_id, {**value, "lead_id": lead_id}, above)
            return
        text = value if isinstance(value, str) else extract_reason(value)
        if value is False or means_failure(text):
            self._reject(lead_id, text or "refused")
        elif (text and not text.isdecimal() and not means_success(text)) or means_failure(
            _parse_code(value)
        ):
            # Words that are not understood, or a number that may be a status code.
            self._result.ambiguous = True
        elif value and _parse_code(value) != 0:
            self._record_lead(
                lead_id, accepted=above is KeyMeaning.SUCCESS or confirms_call(text, self._call)
            )

    def _confirms_call(self, key: str, value: Any) -> bool:
        text = key if value is True else value
        is_outcome = classify_key(key, self._call) in (KeyMeaning.SUCCESS, KeyMeaning.STATUS)
        return is_outcome and isinstance(text, str) and confirms_call(text, self._call)

    def _record_lead(self, lead_id: str, *, accepted: bool) -> None:
        (self._result.accepted if accepted else self._mentioned).add(lead_id)

    def _reject(self, lead_id: str | None, reason: str) -> None:
        if lead_id is None:
            self._result.ambiguous = True
        else:
            self._result.rejected.setdefault(lead_id, reason)

    def _read_statement(self, value: Any) -> None:
        """Read a status or a text that names no lead.

        An error or a negation makes the result ambiguous, and so does a text with a number below
        that of the leads: it may count those that were accepted.
        """
        code = _parse_code(value)
        if means_failure(code) or is_negated(value):
            self._result.ambiguous = True
        elif isinstance(code, str):
            self._reported_count = min([self._reported_count, *find_counts(code)])
            self._affirms |= means_success(code)
        else:
            self._affirms |= code is True or (isinstance(code, int) and 200 <= code < 300)

    def _record_count(self, value: Any) -> None:
        """Record a reported number of accepted leads."""
        count = _parse_code(value)
        if isinstance(count, int | float) and not isinstance(count, bool):
            self._reported_count = min(self._reported_count, count)
            self._affirms = True
        else:
            self._read_statement(value)

    def _names_lead(self, value: Mapping[str, Any]) -> bool:
        named = value.get("lead_id")
        if named is None:
            return self._ids.find(value.get("id")) is not None
        return isinstance(named, str | int | float)


def _parse_code(value: Any) -> Any:
    """Return a short decimal text as a number; any other value as it is."""
    is_code = isinstance(value, str) and value.isdecimal() and len(value) < 10
    return int(value) if is_code else value


def _counts_created(value: Any, depth: int) -> bool:
    """Return whether a part of a response counts or lists created leads, at whatever place.

    An object about one lead is left out: it repeats the lead's custom fields.
    """
    if isinstance(value, str):
        return counts_created(value)
    if depth == 0 or not isinstance(value, dict | list):
        return False
    if isinstance(value, list):
        return any(_counts_created(item, depth - 1) for item in value)
    if isinstance(value.get("lead_id"), str | int | float):
        return False
    return any(
        (classify_key(key, ApiCall.CREATE) is KeyMeaning.SUCCESS and _is_amount(item))
        or _counts_created(item, depth - 1)
        for key, item in value.items()
    )


def _is_amount(value: Any) -> bool:
    """Return whether a value is a count above 0, or a list of leads: objects or ids, not texts."""
    if isinstance(value, list):
        return any(
            isinstance(item, dict)
            or (
                read_vendor_id(item) is not None
                and not means_failure(item)
                and " " not in str(item)
            )
            for item in value
        )
    if isinstance(value, str):
        return value.isdecimal() and value.strip("0") != ""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _get_id(item: Mapping[str, Any]) -> Any:
    return item["lead_id"] if item.get("lead_id") is not None else item.get("id")


def _drop_fields(item: Mapping[str, Any], own: Collection[str], depth: int) -> dict[str, Any]:
    """Return an object without the custom fields and without a lead's plain fields."""
    return {
        key: _drop_fields(value, own, depth - 1) if isinstance(value, dict) else value
        for key, value in item.items()
        if depth > 0
        and key not in own
        and key != "id"
        and (key not in LEAD_FIELDS or isinstance(value, dict | list))
    }
