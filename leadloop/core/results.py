"""One result of the vendor's `responses` call, taken apart into an outcome and its attempts.

Sources: the seed ("Response Structure") for the fixed keys, the vendor's "Response formats"
chapter (VENDOR_API.md, the facts marked with a dagger) for the outreach blocks.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from leadloop.core.leads import ANSWER_FIELDS, LEAD_FIELDS
from leadloop.core.storable import dumps
from leadloop.core.timestamps import epoch_ms, read_time

_FIXED = LEAD_FIELDS | ANSWER_FIELDS
_LISTS = "call_attempt_"
_LAST_MARK = "last_"
_LAST = _LAST_MARK + _LISTS
_CALL_FACTS = frozenset(
    {
        "reference_id",
        "outcome_id",
        "outcome_name",
        "call_duration",
        "called_at",
        "report_keys_order",
        "status",
    }
)

#: By channel, the keys of which at least one shows that a block is outreach, not a custom field.
_BLOCK_FACTS = {
    "gmail": frozenset({"google_email", "subject", "sent_at", "cost"}),
    "sms": frozenset({"sent_at", "cost", "status", "body"}),
    "ivr": frozenset({"text_to_speak", "multi_text_to_speak", "dtmf_response", "sent_at", "cost"}),
}
_BLOCK_FIXED = frozenset({"cost", "status", "sent_at", "duration"})
_OUTREACH = (_LISTS, _LAST, *(f"{channel}_" for channel in _BLOCK_FACTS))

# Postgres refuses numbers of many thousand digits, and with one of them a whole window.
_LONGEST_NUMBER = 1000
_SCALARS = (str, int, float)

# Postgres takes some 2,700 bytes for all the columns of a key together.
_LONGEST_ID = 1500
_LONGEST_KEY = 300
_HEAD_OF_KEY = 40


# Tuples, of which a poll makes one for each row: a frozen dataclass takes four times as long.
class Outcome(NamedTuple):
    """A row of `leadloop.lead_outcomes`; `raw` is the whole result as JSON text."""

    lead_id: str
    processed_at: datetime
    outcome_id: str | None
    outcome_name: str | None
    total_cost: Decimal | None
    raw: str

    def __repr__(self) -> str:
        """The id alone: the rest is a person's data."""
        return f"Outcome({self.lead_id!r})"


class Attempt(NamedTuple):
    """A row of `leadloop.outreach_attempts`; `answers` is JSON text, `duration_s` seconds.

    `attempt_key` tells the attempts of one block apart, also when the vendor gives them no id;
    `processed_at` is that of the result which told of it: of two versions the later one counts.
    """

    lead_id: str
    processed_at: datetime | None
    channel: str
    block: str
    attempt_key: str
    reference_id: str | None
    outcome_id: str | None
    outcome_name: str | None
    occurred_at: datetime | None
    duration_s: Decimal | None
    cost: Decimal | None
    answers: str

    def __repr__(self) -> str:
        """The ids alone: the rest is a person's data."""
        return f"Attempt({self.lead_id!r}, {self.block!r}, {self.attempt_key!r})"


class Result(NamedTuple):
    """One result: `outcome` is None for a lead that the vendor has not processed yet."""

    lead_id: str
    outcome: Outcome | None
    attempts: tuple[Attempt, ...]


class UnreadableResult(ValueError):
    """A result that lacks what makes it one. The message repeats none of its values."""


def read_result(result: Any) -> Result:
    """Take one result apart. Its values must be storable (`leadloop.core.storable.loads`).

    Raises:
        UnreadableResult: not an object, no `lead_id` or one beyond all bounds, or a
            `processed_at` that is no time.
    """
    if not isinstance(result, dict):
        raise UnreadableResult("the result is not an object")
    lead_id = lead_id_of(result)
    if lead_id is None:
        raise UnreadableResult("lead_id: missing or neither text nor a number")
    if len(lead_id.encode()) > _LONGEST_ID:
        raise UnreadableResult(f"lead_id: longer than {_LONGEST_ID} bytes")
    outcome = _outcome(lead_id, result)
    lead = _Lead(lead_id, outcome.processed_at if outcome else None)
    return Result(lead_id=lead_id, outcome=outcome, attempts=tuple(_attempts(lead, result)))


def lead_id_of(result: Mapping[str, Any]) -> str | None:
    """The id as text, whichever way the vendor writes it."""
    value = result.get("lead_id")
    if isinstance(value, bool) or not isinstance(value, _SCALARS) or value == "":
        return None
    return str(value)


def _outcome(lead_id: str, result: Mapping[str, Any]) -> Outcome | None:
    if result.get("processed_at") in (None, ""):
        return None
    try:
        processed_at = read_time(result["processed_at"])
    except ValueError as error:
        raise UnreadableResult(f"processed_at: {error}") from None
    return Outcome(
        lead_id=lead_id,
        processed_at=processed_at,
        outcome_id=_text(result.get("outcome_id")),
        outcome_name=_text(result.get("outcome_name")),
        total_cost=_number(result.get("total_cost")),
        raw=dumps(result),
    )


class _Lead(NamedTuple):
    """What every attempt of a result has in common."""

    lead_id: str
    processed_at: datetime | None


def _attempts(lead: _Lead, result: Mapping[str, Any]) -> Iterator[Attempt]:
    # Most keys are no outreach: sorted out once, quickly.
    outreach = {key: value for key, value in result.items() if key.startswith(_OUTREACH)}
    for block, items in _call_blocks(result, outreach).items():
        keys = _KeySpace()
        for item in items:
            yield _call(lead, block, item, keys)
    for key, value in outreach.items():
        channel = _channel(key, value)
        if channel is None:
            continue
        keys = _KeySpace()
        for item in value if isinstance(value, list) else [value]:
            yield _message(lead, channel, key, item, keys)


def _call_blocks(
    result: Mapping[str, Any], outreach: Mapping[str, Any]
) -> dict[str, Iterable[Mapping[str, Any]]]:
    """Call attempts by block; the last one is added where the list does not hold it."""
    blocks: dict[str, dict[str, Mapping[str, Any]]] = {}
    for key in _named(result, "call_attempt_keys", outreach, _LISTS):
        _add_new(blocks.setdefault(key, {}), _objects(result.get(key)))
    for key in _named(result, "last_call_attempt_keys", outreach, _LAST):
        _add_new(blocks.setdefault(key.removeprefix(_LAST_MARK), {}), _objects(result.get(key)))
    return {block: items.values() for block, items in blocks.items()}


def _add_new(items: dict[str, Mapping[str, Any]], more: Iterable[Mapping[str, Any]]) -> None:
    """Add those that are not there yet, each known by its id, or else by all that it says."""
    for item in more:
        reference = item.get("reference_id")
        items.setdefault(dumps(item if reference is None else reference), item)


def _named(
    result: Mapping[str, Any], names: str, outreach: Mapping[str, Any], prefix: str
) -> Iterable[str]:
    """The keys that `names` lists, and those that look like one where it lists too few."""
    listed = result.get(names)
    keys = [key for key in listed if isinstance(key, str)] if isinstance(listed, list) else []
    seen = [
        key
        for key, value in outreach.items()
        if key.startswith(prefix) and key not in _FIXED and _objects(value)
    ]
    return dict.fromkeys(keys + seen)


def _objects(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict) and item]


def _call(lead: _Lead, block: str, item: Mapping[str, Any], keys: "_KeySpace") -> Attempt:
    reference = _text(item.get("reference_id"))
    occurred_at = _time(item.get("called_at"))
    return Attempt(
        lead_id=lead.lead_id,
        processed_at=lead.processed_at,
        channel="call",
        block=fitting(block),
        attempt_key=keys.give(reference, occurred_at),
        reference_id=reference,
        outcome_id=_text(item.get("outcome_id")),
        outcome_name=_text(item.get("outcome_name")),
        occurred_at=occurred_at,
        duration_s=_number(item.get("call_duration")),
        cost=_number(item.get("cost")),
        answers=dumps(_answers(item)),
    )


def _answers(item: Mapping[str, Any]) -> dict[str, Any]:
    """The script's answers: what `report_keys_order` lists, or all that is not a fixed key."""
    order = item.get("report_keys_order")
    if isinstance(order, list):
        return {key: item[key] for key in order if isinstance(key, str) and key in item}
    return {key: value for key, value in item.items() if key not in _CALL_FACTS}


def _channel(key: str, value: Any) -> str | None:
    channel, _, block = key.partition("_")
    facts = _BLOCK_FACTS.get(channel)
    if not (facts and block):
        return None
    items = value if isinstance(value, list) else [value]
    looks_right = bool(items) and all(
        isinstance(item, dict) and not facts.isdisjoint(item) for item in items
    )
    return channel if looks_right else None


def _message(
    lead: _Lead, channel: str, block: str, item: Mapping[str, Any], keys: "_KeySpace"
) -> Attempt:
    return Attempt(
        lead_id=lead.lead_id,
        processed_at=lead.processed_at,
        channel=channel,
        block=fitting(block),
        # Its time is not there while it is pending, so that it cannot be its name.
        attempt_key=keys.give(None, None),
        reference_id=_text(item.get("reference_id")),
        outcome_id=None,
        outcome_name=_text(item.get("status")),
        occurred_at=_time(item.get("sent_at")),
        duration_s=_number(item.get("duration")),
        cost=_number(item.get("cost")),
        answers=dumps({key: value for key, value in item.items() if key not in _BLOCK_FIXED}),
    )


class _KeySpace:
    """Keys of the attempts of one block: the vendor's id, else the time, else the position."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def give(self, reference: str | None, occurred_at: datetime | None) -> str:
        wanted = fitting(reference or (str(epoch_ms(occurred_at)) if occurred_at else ""))
        key, twin = wanted or "#1", 1
        while key in self._given:
            twin += 1
            key = f"{wanted}#{twin}"
        self._given.add(key)
        return key


def fitting(key: str) -> str:
    """A key that Postgres can index: its head and a digest of it where it is too long."""
    content = key.encode()
    if len(content) <= _LONGEST_KEY:
        return key
    return f"{key[:_HEAD_OF_KEY]}…{hashlib.sha256(content).hexdigest()}"


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return None if value is None else dumps(value)


def _time(value: Any) -> datetime | None:
    try:
        return read_time(value)
    except ValueError:
        return None


def _number(value: Any) -> Decimal | None:
    """A number, also as text; None for 'PENDING OR NOT AVAILABLE' and the like."""
    if isinstance(value, bool) or not isinstance(value, _SCALARS):
        return None
    text = str(value)
    if len(text) > _LONGEST_NUMBER:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < 1000 else None
