"""Believable outcomes of outreach, drawn from a seed so that every run tells the same story."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any

from leadloop.sandbox.packing import packed

PENDING = "PENDING OR NOT AVAILABLE"

# Outcome id, name, and how many of a hundred leads end so.
_FINAL = (
    (101, "Interested", 14),
    (102, "Not Interested", 38),
    (103, "Callback Requested", 12),
    (104, "Do Not Call", 4),
    (105, "Wrong Number", 7),
    (106, "Unreachable", 25),
)
_FINAL_WEIGHTS = [weight for _, _, weight in _FINAL]
_MISSED = ((201, "No Answer"), (202, "Voicemail"), (203, "Busy"))
_TALKED = {101, 102, 103, 104}
_QUESTIONS = ("Is this a good time?", "Which plan suits you?", "Best time to call back")
_ANSWERS = (("Yes", "No"), ("Basic", "Plus", "Premium", "None"), ("Morning", "Noon", "Évening ☎"))

Stamp = Callable[[int], Any]
"""Turns epoch ms into what the answer shows (ms, s or ISO text)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one lead. Attempts, blocks and extra keys are kept as JSON bytes.

    `processed_at` is epoch ms. `attempts` holds one JSON object each, oldest first.
    """

    processed_at: int
    outcome_id: Any
    outcome_name: Any
    total_cost: Any
    attempts: tuple[bytes, ...] = ()
    extra: bytes | None = None


def die(*parts: object) -> int:
    """A 64-bit number that depends on nothing but the parts."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def share(*parts: object) -> float:
    """A number from 0 (inclusive) to 1 (exclusive) that depends on nothing but the parts."""
    return (die(*parts) >> 11) / (1 << 53)


def delay_ms(pace: float, *parts: object) -> int:
    """How many ms a lead takes to be processed: exponential around `pace` seconds."""
    return int(-math.log(1.0 - share("delay", *parts)) * pace * 1000)


def drawn(*, created_at: int, processed_at: int, stamp: Stamp, key: tuple[object, ...]) -> Outcome:
    """The outcome that the seeded key stands for, between two epoch-ms times."""
    luck = Random(die("outcome", *key))
    final = luck.choices(_FINAL, _FINAL_WEIGHTS)[0]
    times = _attempt_times(luck, created_at, processed_at)
    attempts = [_missed(luck, stamp(at)) for at in times[:-1]]
    attempts.append(_last(luck, stamp(times[-1]), final[0], final[1]))
    return Outcome(
        processed_at=processed_at,
        outcome_id=final[0],
        outcome_name=final[1],
        total_cost=round(0.35 * len(attempts) + luck.randrange(40) / 100, 2),
        attempts=tuple(map(packed, attempts)),
        extra=_blocks(luck, stamp(processed_at)),
    )


def _attempt_times(luck: Random, created_at: int, processed_at: int) -> list[int]:
    span = max(0, processed_at - created_at)
    earlier = [created_at + int(span * luck.random()) for _ in range(luck.randrange(3))]
    return [*sorted(earlier), processed_at]


def _missed(luck: Random, called_at: Any) -> dict[str, Any]:
    outcome_id, name = luck.choice(_MISSED)
    return _attempt(luck, called_at, outcome_id, name, {})


def _last(luck: Random, called_at: Any, outcome_id: int, name: str) -> dict[str, Any]:
    if outcome_id not in _TALKED:
        return _attempt(luck, called_at, outcome_id, name, {})
    asked = range(1 + luck.randrange(len(_QUESTIONS)))
    answers = {_QUESTIONS[i]: luck.choice(_ANSWERS[i]) for i in asked}
    return _attempt(luck, called_at, outcome_id, name, answers)


def _attempt(
    luck: Random, called_at: Any, outcome_id: int, name: str, answers: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "reference_id": f"{luck.getrandbits(64):016x}",
        "outcome_id": outcome_id,
        "outcome_name": name,
        "call_duration": 20 + luck.randrange(400) if answers else luck.randrange(15),
        "called_at": called_at,
        "report_keys_order": list(answers),
        "status": "Completed" if answers else "Not Connected",
        **answers,
    }


def _blocks(luck: Random, sent_at: Any) -> bytes | None:
    chance = luck.random()
    if chance < 0.75:
        return None
    cost: Any = PENDING if luck.random() < 0.2 else round(0.01 + luck.randrange(5) / 100, 2)
    if chance < 0.85:
        return packed({"sms_follow_up": _sms(cost, sent_at)})
    if chance < 0.93:
        return packed({"gmail_summary": _gmail(cost, sent_at)})
    return packed({"ivr_reminder": _ivr(luck, cost, sent_at)})


def _sms(cost: Any, sent_at: Any) -> dict[str, Any]:
    status = PENDING if cost == PENDING else "delivered"
    body = "Thank you for your time. Reply STOP to opt out."
    return {"status": status, "cost": cost, "body": body, "sent_at": sent_at}


def _gmail(cost: Any, sent_at: Any) -> dict[str, Any]:
    return {
        "cost": cost,
        "google_email": "campaign@example.com",
        "subject": "What we talked about",
        "to": "lead@example.com",
        "from": "campaign@example.com",
        "sent_at": sent_at,
    }


def _ivr(luck: Random, cost: Any, sent_at: Any) -> dict[str, Any]:
    return {
        "status": PENDING if cost == PENDING else "completed",
        "cost": cost,
        "text_to_speak": "This is a reminder. Press 1 to confirm.",
        "multi_text_to_speak": [],
        "dtmf_response": luck.choice(("1", "2", "")),
        "duration": None if cost == PENDING else luck.randrange(5, 40),
        "sent_at": sent_at,
    }


_KNOWN_KEYS = frozenset(
    (
        "campaign_id",
        "lead_id",
        "processed_at",
        "visible_at",
        "outcome_id",
        "outcome_name",
        "total_cost",
        "attempts",
        "blocks",
    )
)


def by_hand(item: Mapping[str, Any], processed_at: int) -> Outcome:
    """An outcome as a test or a script states it; unknown keys become keys of the result."""
    extra = dict(item.get("blocks") or {})
    extra.update((key, value) for key, value in item.items() if key not in _KNOWN_KEYS)
    return Outcome(
        processed_at=processed_at,
        outcome_id=item.get("outcome_id"),
        outcome_name=item.get("outcome_name"),
        total_cost=item.get("total_cost", 0),
        attempts=_dumped(item.get("attempts") or ()),
        extra=packed(extra) if extra else None,
    )


def _dumped(attempts: Iterable[Mapping[str, Any]]) -> tuple[bytes, ...]:
    return tuple(map(packed, attempts))


def again(before: Outcome, *, now: int, stamp: Stamp, key: tuple[object, ...]) -> Outcome:
    """The outcome after the vendor has processed the lead once more: one attempt added."""
    luck = Random(die("again", now, *key))
    outcome_id, name, _ = luck.choices(_FINAL, _FINAL_WEIGHTS)[0]
    attempt = packed(_last(luck, stamp(now), outcome_id, name))
    return Outcome(
        processed_at=now,
        outcome_id=outcome_id,
        outcome_name=name,
        total_cost=before.total_cost,
        attempts=(*before.attempts, attempt),
        extra=before.extra,
    )
