"""Parser of one result of the vendor's `responses` call: an outcome and its outreach attempts.

Sources, in the vendor's API document: the chapter "Response Structure" for the fixed keys, the
chapter "Response formats" for the outreach blocks.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, NamedTuple

from leadloop.core.leads import RESPONSE_FIELDS, read_vendor_id
from leadloop.core.postgres_json import dump_json
from leadloop.core.timestamps import parse_time, to_epoch_ms

_LIST_PREFIX = "call_attempt_"
_LAST_PREFIX = "last_"
_CALL_KEYS = frozenset(
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

# Keys of which a value shows that the lead is processed or was called.
_KEYS_IF_PROCESSED = (
    "processed_at",
    "outcome_id",
    "outcome_name",
    "call_attempt_keys",
    "last_call_attempt_keys",
)
_EMPTY: tuple[Any, ...] = (None, "", [])

#: Keys by channel: a block with at least one of them is outreach, not a custom field.
_MESSAGE_KEYS = {
    "gmail": frozenset({"google_email", "subject", "sent_at", "cost"}),
    "sms": frozenset({"sent_at", "cost", "status", "body"}),
    "ivr": frozenset({"text_to_speak", "multi_text_to_speak", "dtmf_response", "sent_at", "cost"}),
}
_MESSAGE_FIXED_KEYS = frozenset({"cost", "status", "sent_at", "duration"})
_MESSAGE_PREFIXES = tuple(f"{channel}_" for channel in _MESSAGE_KEYS)

# Postgres refuses numbers of many thousand digits, and one of them would fail a whole window.
_MAX_NUMBER_LENGTH = 1000
_SCALARS = (str, int, float)

# Postgres allows some 2,700 bytes for all the columns of a key together.
_MAX_ID_BYTES = 1500
_MAX_KEY_BYTES = 300
_KEY_HEAD_LENGTH = 40


# NamedTuples, because a poll makes one for each row: a frozen dataclass takes four times as long.
# Values are texts, each made once: a time is four times as slow to write as to read.
class Outcome(NamedTuple):
    """A row of `leadloop.lead_outcomes`, each value as text for Postgres (None: NULL).

    `processed_at` is ISO 8601 in UTC, `raw` the whole result as JSON.
    """

    lead_id: str
    processed_at: str
    outcome_id: str | None
    outcome_name: str | None
    total_cost: str | None
    raw: str

    def __repr__(self) -> str:
        """Return the id alone: the rest is personal data."""
        return f"Outcome({self.lead_id!r})"


class OutreachAttempt(NamedTuple):
    """A row of `leadloop.outreach_attempts`, each value as text for Postgres (None: NULL).

    Times are ISO 8601 in UTC, `duration_s` is in seconds, `answers` is JSON. `attempt_key`
    identifies an attempt within its block, even if the vendor gives no id. `processed_at` is that
    of the result that holds the attempt: the later of two versions counts.
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
        """Return the ids alone: the rest is personal data."""
        return f"OutreachAttempt({self.lead_id!r}, {self.block!r}, {self.attempt_key!r})"


class ParsedResult(NamedTuple):
    """One parsed result; an unprocessed lead has neither `processed_at` nor `outcome`."""

    lead_id: str
    processed_at: datetime | None
    outcome: Outcome | None
    attempts: Sequence[OutreachAttempt]


class UnreadableResult(ValueError):
    """A result that cannot be parsed. The message repeats no value of the result."""


def parse_result(result: Any) -> ParsedResult:
    """Parse one result, whose values come from `leadloop.core.postgres_json.parse_json`.

    Raises:
        UnreadableResult: see `parse_identity`.
    """
    lead_id, processed_at = parse_identity(result)
    lead = _RowKey(lead_id, processed_at.isoformat() if processed_at else None)
    outcome = None
    if lead.processed_at is not None:
        outcome = Outcome(
            lead_id=lead_id,
            processed_at=lead.processed_at,
            outcome_id=_as_text(result.get("outcome_id")),
            outcome_name=_as_text(result.get("outcome_name")),
            total_cost=_as_number(result.get("total_cost")),
            raw=dump_json(result),
        )
    return ParsedResult(lead_id, processed_at, outcome, _parse_attempts(lead, result))


def parse_identity(result: Any) -> tuple[str, datetime | None]:
    """Return the lead id of a result and its `processed_at` (None: not processed yet).

    Raises:
        UnreadableResult: the result is not an object, has no `lead_id` or one of more than 1,500
            bytes, or has a `processed_at` that is not a time.
    """
    if not isinstance(result, dict):
        raise UnreadableResult("the result is not an object")
    lead_id = parse_lead_id(result)
    if lead_id is None:
        raise UnreadableResult("lead_id: missing or neither text nor a number")
    if len(lead_id.encode()) > _MAX_ID_BYTES:
        raise UnreadableResult(f"lead_id: longer than {_MAX_ID_BYTES} bytes")
    processed_at = result.get("processed_at")
    if processed_at is None or processed_at == "":
        return lead_id, None
    try:
        return lead_id, parse_time(processed_at)
    except ValueError as error:
        raise UnreadableResult(f"processed_at: {error}") from None


def format_unreadable_error(*, seen: int, unreadable: int) -> str | None:
    """Return an error if most results that a poll has read could not be parsed; else None.

    A few are a problem of the campaign (the view `problems`). Most of them mean that the vendor has
    changed its format: then the poll has not done its work.

    Args:
        seen: number of results read, unreadable ones included.
        unreadable: number of results that could not be parsed.
    """
    if 2 * unreadable <= seen:
        return None
    return (
        f"{unreadable} of {seen} results could not be parsed, so outcomes are missing; they are"
        " stored in leadloop.unreadable_results, each with the reason: once that is fixed, read"
        " them again with `leadloop backfill`"
    )


def parse_lead_id(result: Mapping[str, Any]) -> str | None:
    """Return the lead id as text, also if the vendor writes it as a number; None if missing."""
    return read_vendor_id(result.get("lead_id"))


def is_unprocessed(result: Mapping[str, Any]) -> bool:
    """Return whether a result shows a lead that is not processed: no time, outcome or attempt.

    One that lacks `processed_at` alone may be processed nevertheless.
    """
    return all(result.get(key) in _EMPTY for key in _KEYS_IF_PROCESSED) and not _parse_attempts(
        _RowKey("", None), result
    )


def is_of_other_campaign(result: Mapping[str, Any], campaign_id: str) -> bool:
    """Return whether a result names another campaign than the one that was read.

    A campaign id that differs only by case, blanks or leading zeros is the same.
    """
    named = read_vendor_id(result.get("campaign_id"))
    return named is not None and _fold_id(named) != _fold_id(campaign_id)


def _fold_id(campaign_id: str) -> str:
    return campaign_id.strip().casefold().lstrip("0")


class _RowKey(NamedTuple):
    """The columns that all rows of a result share; `processed_at` is missing without an outcome."""

    lead_id: str
    processed_at: str | None


def _parse_attempts(lead: _RowKey, result: Mapping[str, Any]) -> Sequence[OutreachAttempt]:
    lists, lasts = result.get("call_attempt_keys"), result.get("last_call_attempt_keys")
    blocks = _find_blocks(tuple(result), _select_texts(lists), _select_texts(lasts))
    found: list[OutreachAttempt] = []
    for block, keys in blocks.calls:
        used = set[str]()
        found += [_parse_call(lead, block, call, used) for call in _select_calls(result, keys)]
    for block, key in blocks.messages:
        used = set[str]()
        found += [
            _parse_message(lead, block, item, used) for item in _select_messages(key, result[key])
        ]
    return found


class _Blocks(NamedTuple):
    """The blocks of a result by name, each with the keys that hold its items."""

    calls: Sequence[tuple[str, Sequence[str]]]
    messages: Sequence[tuple[str, str]]


# Cached, because all results of a campaign have the same keys: looking at each key of each result
# took a sixth of the parser's time.
@lru_cache(maxsize=64)
def _find_blocks(keys: tuple[str, ...], lists: tuple[str, ...], lasts: tuple[str, ...]) -> _Blocks:
    """Find the blocks of a result.

    Args:
        keys: all keys of the result.
        lists: the keys that the result declares as lists of call attempts; it may have more.
        lasts: the keys that the result declares as last call attempts; the lists may lack these.
    """
    calls: dict[str, list[str]] = {}
    for key in dict.fromkeys((*lists, *_select_keys(keys, _LIST_PREFIX))):
        calls.setdefault(key, []).append(key)
    for key in dict.fromkeys((*lasts, *_select_keys(keys, _LAST_PREFIX + _LIST_PREFIX))):
        calls.setdefault(key.removeprefix(_LAST_PREFIX), []).append(key)
    return _Blocks(
        calls=[(shorten_key(block), keys) for block, keys in calls.items()],
        messages=[
            (shorten_key(key), key)
            for key in _select_keys(keys, *_MESSAGE_PREFIXES)
            if key not in calls
        ],
    )


def _select_keys(keys: Iterable[str], *prefixes: str) -> Iterable[str]:
    return (key for key in keys if key.startswith(prefixes) and key not in RESPONSE_FIELDS)


def _select_calls(result: Mapping[str, Any], keys: Iterable[str]) -> Iterable[Mapping[str, Any]]:
    """Return the call attempts of a block, deduplicated by their id, else by their content."""
    calls: dict[str, Mapping[str, Any]] = {}
    for key in keys:
        value = result.get(key)
        for call in value if isinstance(value, list) else [value]:
            if isinstance(call, dict) and call:
                calls.setdefault(_as_text(call.get("reference_id")) or dump_json(call), call)
    return calls.values()


def _select_texts(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else ()
    return tuple([item for item in items if isinstance(item, str)])


def _parse_call(
    lead: _RowKey, block: str, call: Mapping[str, Any], used: set[str]
) -> OutreachAttempt:
    reference = _as_text(call.get("reference_id"))
    occurred_at = _as_time(call.get("called_at"))
    order = call.get("report_keys_order")
    if isinstance(order, list):
        answers = {key: call[key] for key in order if isinstance(key, str) and key in call}
    else:
        answers = {key: value for key, value in call.items() if key not in _CALL_KEYS}
    # Positional: keyword arguments take a tenth longer.
    return OutreachAttempt(
        *lead,
        "call",
        block,
        _make_key(reference or (str(to_epoch_ms(occurred_at)) if occurred_at else ""), used),
        reference,
        _as_text(call.get("outcome_id")),
        _as_text(call.get("outcome_name")),
        _as_iso(occurred_at),
        _as_number(call.get("call_duration")),
        _as_number(call.get("cost")),
        dump_json(answers),
    )


def _select_messages(key: str, value: Any) -> Sequence[Mapping[str, Any]]:
    """Return the messages of a block; empty if it is a custom field with such a name."""
    channel, _, block = key.partition("_")
    known = _MESSAGE_KEYS.get(channel)
    if not (known and block):
        return ()
    items = value if isinstance(value, list) else [value]
    are_messages = all(isinstance(item, dict) and not known.isdisjoint(item) for item in items)
    return items if are_messages else ()


def _parse_message(
    lead: _RowKey, block: str, message: Mapping[str, Any], used: set[str]
) -> OutreachAttempt:
    return OutreachAttempt(
        lead_id=lead.lead_id,
        processed_at=lead.processed_at,
        channel=block.partition("_")[0],
        block=block,
        # By position: a pending message has no time that could serve as its key.
        attempt_key=_make_key("", used),
        reference_id=_as_text(message.get("reference_id")),
        outcome_id=None,
        outcome_name=_as_text(message.get("status")),
        occurred_at=_as_iso(_as_time(message.get("sent_at"))),
        duration_s=_as_number(message.get("duration")),
        cost=_as_number(message.get("cost")),
        answers=dump_json(
            {key: value for key, value in message.items() if key not in _MESSAGE_FIXED_KEYS}
        ),
    )


def _make_key(wanted: str, used: set[str]) -> str:
    """Return a key unique within the block, and add it to `used`: `wanted`, or one by position."""
    wanted = shorten_key(wanted)
    key, twin = wanted or "#1", 1
    while key in used:
        twin += 1
        key = f"{wanted}#{twin}"
    used.add(key)
    return key


def shorten_key(key: str) -> str:
    """Return a key that Postgres can index: a long key becomes its head and a SHA-256 digest."""
    content = key.encode()
    if len(content) <= _MAX_KEY_BYTES:
        return key
    return f"{key[:_KEY_HEAD_LENGTH]}…{hashlib.sha256(content).hexdigest()}"


def _as_text(value: Any) -> str | None:
    """Return a text, or an id that is a number, as text; any other value as JSON."""
    if isinstance(value, str):
        return value or None
    return None if value is None else read_vendor_id(value) or dump_json(value)


def _as_time(value: Any) -> datetime | None:
    try:
        return parse_time(value)
    except ValueError:
        return None


def _as_iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _as_number(value: Any) -> str | None:
    """Return a number as text for Postgres; None for 'PENDING OR NOT AVAILABLE' and the like."""
    if isinstance(value, bool) or not isinstance(value, _SCALARS):
        return None
    text = str(value)
    if len(text) > _MAX_NUMBER_LENGTH:
        return None
    if not isinstance(value, str):
        return text
    try:
        # Postgres accepts fewer spellings than Python.
        number = Decimal(text)
    except InvalidOperation:
        return None
    return str(number) if number.is_finite() and abs(number.adjusted()) < 1000 else None
