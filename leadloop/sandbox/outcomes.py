"""Outcomes of outreach: drawn from a seed, so that each run repeats the same story, or stated."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any

import orjson

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

FormatTime = Callable[[int], Any]
"""Turns epoch ms into the value that a response shows: ms, s or ISO text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorOutcome:
    """The outcome of one lead. Attempts, blocks and extra keys are kept as JSON bytes.

    `processed_at` is epoch ms. `attempts` holds one JSON object each, oldest first.
    """

    processed_at: int
    outcome_id: Any
    outcome_name: Any
    total_cost: Any
    attempts: tuple[bytes, ...] = ()
    extra: bytes | None = None


def pack_json(value: Any) -> bytes:
    """Serialize a value that is kept for long, without spare memory."""
    # orjson leaves a buffer of at least 4 KiB behind its result; a copy has the result's size.
    return bytes(memoryview(orjson.dumps(value)))


def seeded_integer(*parts: object) -> int:
    """Hash the parts to a 64-bit number."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def seeded_fraction(*parts: object) -> float:
    """Hash the parts to a number from 0 (inclusive) to 1 (exclusive)."""
    return (seeded_integer(*parts) >> 11) / (1 << 53)


def draw_delay_ms(pace: float, *parts: object) -> int:
    """Draw how many ms a lead takes to be processed: exponential around `pace` seconds."""
    return int(-math.log(1.0 - seeded_fraction("delay", *parts)) * pace * 1000)


def draw_outcome(
    *, created_at: int, processed_at: int, format_time: FormatTime, seed_key: tuple[object, ...]
) -> VendorOutcome:
    """Draw the outcome of a lead, with attempts between two epoch-ms times.

    Equal seed keys give equal outcomes.
    """
    rng = Random(seeded_integer("outcome", *seed_key))
    outcome_id, name, _ = rng.choices(_FINAL, _FINAL_WEIGHTS)[0]
    span = max(0, processed_at - created_at)
    missed_at = sorted(created_at + int(span * rng.random()) for _ in range(rng.randrange(3)))
    attempts = []
    for called_at in missed_at:
        missed_id, missed_name = rng.choice(_MISSED)
        attempts.append(_draw_attempt(rng, format_time(called_at), missed_id, missed_name))
    attempts.append(_draw_final_attempt(rng, format_time(processed_at), outcome_id, name))
    return VendorOutcome(
        processed_at=processed_at,
        outcome_id=outcome_id,
        outcome_name=name,
        total_cost=round(0.35 * len(attempts) + rng.randrange(40) / 100, 2),
        attempts=tuple(map(pack_json, attempts)),
        extra=_draw_block(rng, format_time(processed_at)),
    )


def draw_repeated_outcome(
    earlier: VendorOutcome, *, now: int, format_time: FormatTime, seed_key: tuple[object, ...]
) -> VendorOutcome:
    """Draw the outcome of a lead that is processed again: one attempt more."""
    rng = Random(seeded_integer("again", now, *seed_key))
    outcome_id, name, _ = rng.choices(_FINAL, _FINAL_WEIGHTS)[0]
    attempt = pack_json(_draw_final_attempt(rng, format_time(now), outcome_id, name))
    return VendorOutcome(
        processed_at=now,
        outcome_id=outcome_id,
        outcome_name=name,
        total_cost=earlier.total_cost,
        attempts=(*earlier.attempts, attempt),
        extra=earlier.extra,
    )


def _draw_final_attempt(rng: Random, called_at: Any, outcome_id: int, name: str) -> dict[str, Any]:
    if outcome_id not in _TALKED:
        return _draw_attempt(rng, called_at, outcome_id, name)
    asked = range(1 + rng.randrange(len(_QUESTIONS)))
    answers = {_QUESTIONS[i]: rng.choice(_ANSWERS[i]) for i in asked}
    return _draw_attempt(rng, called_at, outcome_id, name, answers)


def _draw_attempt(
    rng: Random,
    called_at: Any,
    outcome_id: int,
    name: str,
    answers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "reference_id": f"{rng.getrandbits(64):016x}",
        "outcome_id": outcome_id,
        "outcome_name": name,
        "call_duration": 20 + rng.randrange(400) if answers else rng.randrange(15),
        "called_at": called_at,
        "report_keys_order": list(answers or ()),
        "status": "Completed" if answers else "Not Connected",
        **(answers or {}),
    }


def _draw_block(rng: Random, sent_at: Any) -> bytes | None:
    """Draw one outreach block (SMS, email or IVR) as JSON; None for three leads of four."""
    chance = rng.random()
    if chance < 0.75:
        return None
    cost: Any = PENDING if rng.random() < 0.2 else round(0.01 + rng.randrange(5) / 100, 2)
    if chance < 0.85:
        sms = {
            "status": PENDING if cost == PENDING else "delivered",
            "cost": cost,
            "body": "Thank you for your time. Reply STOP to opt out.",
            "sent_at": sent_at,
        }
        return pack_json({"sms_follow_up": sms})
    if chance < 0.93:
        gmail = {
            "cost": cost,
            "google_email": "campaign@example.com",
            "subject": "What we talked about",
            "to": "lead@example.com",
            "from": "campaign@example.com",
            "sent_at": sent_at,
        }
        return pack_json({"gmail_summary": gmail})
    ivr = {
        "status": PENDING if cost == PENDING else "completed",
        "cost": cost,
        "text_to_speak": "This is a reminder. Press 1 to confirm.",
        "multi_text_to_speak": [],
        "dtmf_response": rng.choice(("1", "2", "")),
        "duration": None if cost == PENDING else rng.randrange(5, 40),
        "sent_at": sent_at,
    }
    return pack_json({"ivr_reminder": ivr})


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


def parse_outcome(item: Mapping[str, Any], processed_at: int) -> VendorOutcome:
    """Parse an outcome that a test or a script states; unknown keys become keys of the result."""
    extra = dict(item.get("blocks") or {})
    extra.update((key, value) for key, value in item.items() if key not in _KNOWN_KEYS)
    return VendorOutcome(
        processed_at=processed_at,
        outcome_id=item.get("outcome_id"),
        outcome_name=item.get("outcome_name"),
        total_cost=item.get("total_cost", 0),
        attempts=tuple(map(pack_json, item.get("attempts") or ())),
        extra=pack_json(extra) if extra else None,
    )
