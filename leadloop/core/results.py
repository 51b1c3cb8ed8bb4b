"""One result of the vendor's `responses` call, taken apart into an outcome and its attempts.

Sources: the seed ("Response Structure") for the fixed keys, the vendor's "Response formats"
chapter (VENDOR_API.md, the facts marked with a dagger) for the outreach blocks.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, NamedTuple

from leadloop.core.leads import RESPONSE_FIELDS
from leadloop.core.postgres_json import dump_json
from leadloop.core.timestamps import parse_time, to_epoch_ms

_LISTS = "call_attempt_"
_LAST_MARK = "last_"
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
_MESSAGES = tuple(f"{channel}_" for channel in _BLOCK_FACTS)

# Postgres refuses numbers of many thousand digits, and with one of them a whole window.
_LONGEST_NUMBER = 1000
_SCALARS = (str, int, float)

# Postgres takes some 2,700 bytes for all the columns of a key together.
_LONGEST_ID = 1500
_LONGEST_KEY = 300
_HEAD_OF_KEY = 40


# A poll makes one of these for each row, so they are tuples (a frozen dataclass takes four times as
# long to make), and of texts, each made once: a time is four times as slow to write as to read.
class Outcome(NamedTuple):
    """A row of `leadloop.lead_outcomes`, each value as the text that Postgres reads (None: NULL).

    `processed_at` is ISO 8601 in UTC, `raw` the whole result as JSON.
    """

    lead_id: str
    processed_at: str
    outcome_id: str | None
    outcome_name: str | None
    total_cost: str | None
    raw: str

    def __repr__(self) -> str:
        """The id alone: the rest is a person's data."""
        return f"Outcome({self.lead_id!r})"


class OutreachAttempt(NamedTuple):
    """A row of `leadloop.outreach_attempts`, each value as text (None: NULL).

    Times are ISO 8601 in UTC, `duration_s` is in seconds, `answers` JSON. `attempt_key` tells the
    attempts of one block apart, also when the vendor gives them no id; `processed_at` is that of
    the result which told of it: of two versions the later one counts.
    """

    lead_id: str
    processed_at: str | None
    channel: str
    block: str
    attempt_key: str
    reference_id: str | None
    outcome_id: str | None
    outcome_name: str | None
    occurred_at: str | None
    duration_s: str | None
    cost: str | None
    answers: str

    def __repr__(self) -> str:
        """The ids alone: the rest is a person's data."""
        return f"OutreachAttempt({self.lead_id!r}, {self.block!r}, {self.attempt_key!r})"


class ParsedResult(NamedTuple):
    """One result; `processed_at` and `outcome` are None for a lead not processed yet."""

    lead_id: str
    processed_at: datetime | None
    outcome: Outcome | None
    attempts: Sequence[OutreachAttempt]


class UnreadableResult(ValueError):
    """A result that lacks what makes it one. The message repeats none of its values."""


def parse_result(result: Any) -> ParsedResult:
    """Take one result apart. Its values must be storable (`leadloop.core.postgres_json.loads`).

    Raises:
        UnreadableResult: see `identify`.
    """
    lead_id, processed_at = parse_identity(result)
    lead = _RowKey(lead_id, processed_at.isoformat() if processed_at else None)
    return ParsedResult(lead_id, processed_at, _outcome(lead, result), _attempts(lead, result))


def parse_identity(result: Any) -> tuple[str, datetime | None]:
    """The lead that a result tells of, and when it was processed (None: not yet).

    Raises:
        UnreadableResult: not an object, no `lead_id` or one beyond all bounds, or a
            `processed_at` that is no time.
    """
    if not isinstance(result, dict):
        raise UnreadableResult("the result is not an object")
    lead_id = parse_lead_id(result)
    if lead_id is None:
        raise UnreadableResult("lead_id: missing or neither text nor a number")
    if len(lead_id.encode()) > _LONGEST_ID:
        raise UnreadableResult(f"lead_id: longer than {_LONGEST_ID} bytes")
    return lead_id, _processed_at(result)


def parse_lead_id(result: Mapping[str, Any]) -> str | None:
    """The id as text, whichever way the vendor writes it."""
    value = result.get("lead_id")
    if isinstance(value, bool) or not isinstance(value, _SCALARS) or value == "":
        return None
    return str(value)


def _processed_at(result: Mapping[str, Any]) -> datetime | None:
    value = result.get("processed_at")
    if value is None or value == "":
        return None
    try:
        return parse_time(value)
    except ValueError as error:
        raise UnreadableResult(f"processed_at: {error}") from None


class _RowKey(NamedTuple):
    """What all rows of a result have in common; `processed_at` is None where it has no outcome."""

    lead_id: str
    processed_at: str | None


def _outcome(lead: _RowKey, result: Mapping[str, Any]) -> Outcome | None:
    if lead.processed_at is None:
        return None
    return Outcome(
        lead_id=lead.lead_id,
        processed_at=lead.processed_at,
        outcome_id=_text(result.get("outcome_id")),
        outcome_name=_text(result.get("outcome_name")),
        total_cost=_number(result.get("total_cost")),
        raw=dump_json(result),
    )


def _attempts(lead: _RowKey, result: Mapping[str, Any]) -> Sequence[OutreachAttempt]:
    lists, lasts = result.get("call_attempt_keys"), result.get("last_call_attempt_keys")
    blocks = _blocks(tuple(result), _texts(lists), _texts(lasts))
    found: list[OutreachAttempt] = []
    for block, keys in blocks.calls:
        given = set[str]()
        found += [_call(lead, block, call, given) for call in _calls(result, keys)]
    for block, key in blocks.messages:
        given = set[str]()
        found += [_message(lead, block, item, given) for item in _messages(key, result[key])]
    return found


class _Blocks(NamedTuple):
    """The blocks of a result by their names, each with the keys that hold its items."""

    calls: Sequence[tuple[str, Sequence[str]]]
    messages: Sequence[tuple[str, str]]


# Once for all results that have the same keys, as those of a campaign do: to look at each key of
# each result was a sixth of what a result takes.
@lru_cache(maxsize=64)
def _blocks(keys: tuple[str, ...], lists: tuple[str, ...], lasts: tuple[str, ...]) -> _Blocks:
    """Find the blocks of a result.

    Args:
        keys: all its keys.
        lists: those that it says hold lists of call attempts. It may have more of them.
        lasts: those that it says hold last call attempts, which may be missing in the lists.
    """
    calls: dict[str, list[str]] = {}
    for key in dict.fromkeys((*lists, *_beginning(keys, _LISTS))):
        calls.setdefault(key, []).append(key)
    for key in dict.fromkeys((*lasts, *_beginning(keys, _LAST_MARK + _LISTS))):
        calls.setdefault(key.removeprefix(_LAST_MARK), []).append(key)
    return _Blocks(
        calls=[(shorten_key(block), keys) for block, keys in calls.items()],
        messages=[
            (shorten_key(key), key) for key in _beginning(keys, *_MESSAGES) if key not in calls
        ],
    )


def _beginning(keys: Iterable[str], *prefixes: str) -> Iterable[str]:
    return (key for key in keys if key.startswith(prefixes) and key not in RESPONSE_FIELDS)


def _calls(result: Mapping[str, Any], keys: Iterable[str]) -> Iterable[Mapping[str, Any]]:
    """The call attempts of a block, each known by its id, or else by all that it says."""
    calls: dict[str, Mapping[str, Any]] = {}
    for key in keys:
        for call in _objects(result.get(key)):
            calls.setdefault(_text(call.get("reference_id")) or dump_json(call), call)
    return calls.values()


def _texts(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else ()
    return tuple([item for item in items if isinstance(item, str)])


def _objects(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict) and item]


def _call(lead: _RowKey, block: str, call: Mapping[str, Any], given: set[str]) -> OutreachAttempt:
    reference = _text(call.get("reference_id"))
    occurred_at = _time(call.get("called_at"))
    # By position: by name it takes a tenth longer.
    return OutreachAttempt(
        *lead,
        "call",
        block,
        _new_key(reference or _milliseconds(occurred_at), given),
        reference,
        _text(call.get("outcome_id")),
        _text(call.get("outcome_name")),
        _iso(occurred_at),
        _number(call.get("call_duration")),
        _number(call.get("cost")),
        dump_json(_answers(call)),
    )


def _answers(item: Mapping[str, Any]) -> dict[str, Any]:
    """The script's answers: what `report_keys_order` lists, or all that is not a fixed key."""
    order = item.get("report_keys_order")
    if isinstance(order, list):
        return {key: item[key] for key in order if isinstance(key, str) and key in item}
    return {key: value for key, value in item.items() if key not in _CALL_FACTS}


def _messages(key: str, value: Any) -> Sequence[Mapping[str, Any]]:
    """The messages of a block; none where it is a custom field of such a name."""
    channel, _, block = key.partition("_")
    facts = _BLOCK_FACTS.get(channel)
    if not (facts and block):
        return ()
    items = value if isinstance(value, list) else [value]
    looks_right = all(isinstance(item, dict) and not facts.isdisjoint(item) for item in items)
    return items if looks_right else ()


def _message(
    lead: _RowKey, block: str, message: Mapping[str, Any], given: set[str]
) -> OutreachAttempt:
    return OutreachAttempt(
        lead_id=lead.lead_id,
        processed_at=lead.processed_at,
        channel=block.partition("_")[0],
        block=block,
        # Its time is not there while it is pending, so that it cannot be its name.
        attempt_key=_new_key("", given),
        reference_id=_text(message.get("reference_id")),
        outcome_id=None,
        outcome_name=_text(message.get("status")),
        occurred_at=_iso(_time(message.get("sent_at"))),
        duration_s=_number(message.get("duration")),
        cost=_number(message.get("cost")),
        answers=dump_json(
            {key: value for key, value in message.items() if key not in _BLOCK_FIXED}
        ),
    )


def _new_key(wanted: str, given: set[str]) -> str:
    """A key that no other attempt of the block was `given`: the one wanted, or by its position."""
    wanted = shorten_key(wanted)
    key, twin = wanted or "#1", 1
    while key in given:
        twin += 1
        key = f"{wanted}#{twin}"
    given.add(key)
    return key


def shorten_key(key: str) -> str:
    """A key that Postgres can index: its head and a digest of it where it is too long."""
    content = key.encode()
    if len(content) <= _LONGEST_KEY:
        return key
    return f"{key[:_HEAD_OF_KEY]}…{hashlib.sha256(content).hexdigest()}"


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return None if value is None else dump_json(value)


def _time(value: Any) -> datetime | None:
    try:
        return parse_time(value)
    except ValueError:
        return None


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _milliseconds(moment: datetime | None) -> str:
    return str(to_epoch_ms(moment)) if moment else ""


def _number(value: Any) -> str | None:
    """A number, also as text; None for 'PENDING OR NOT AVAILABLE' and the like."""
    if isinstance(value, bool) or not isinstance(value, _SCALARS):
        return None
    text = str(value)
    if len(text) > _LONGEST_NUMBER:
        return None
    return _decimal(text) if isinstance(value, str) else text


def _decimal(text: str) -> str | None:
    """As Postgres reads it: Python's are written in more ways."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return str(number) if number.is_finite() and abs(number.adjusted()) < 1000 else None
