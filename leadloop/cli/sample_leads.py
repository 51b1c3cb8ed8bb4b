"""Made-up leads for the demo: believable, and some of them wrong in the ways that leads are."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

from db.bulk_copy import Value
from db.lead_import import COLUMNS

_FIRST = ("Ava", "Ben", "Carla", "Dmitri", "Elena", "Farid", "Grace", "Hiro", "Ines", "Jamal")
_LAST = ("Adams", "Baker", "Costa", "Diaz", "Evans", "Fischer", "Gupta", "Hughes", "Ito", "Jones")
_AREAS = {"CA": 415, "NY": 212, "TX": 512, "WA": 206, "IL": 312, "MA": 617, "CO": 303, "GA": 404}
_PLANS = ("basic", "plus", "premium")
# Of a hundred leads, how many are wrong: enough to see, few enough to believe.
_WRONG_PERCENT = 4


def leads(amount: int, seed: int, after: int = 0) -> list[Sequence[Value]]:
    """Rows in the order of `db.lead_import.COLUMNS`; the same ones for the same seed.

    They are numbered on from `after`.
    """
    draw = random.Random(seed)
    return [_lead(draw, number) for number in range(after + 1, after + amount + 1)]


def lead_id(number: int) -> str:
    """The id of the lead of that number."""
    return f"D{number:05d}"


def write_csv(file: Path, amount: int) -> None:
    """A file for `leadloop load`, of other people than the demo's own."""
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow([*COLUMNS[:4], "plan", "score"])
        for row in leads(amount, seed=amount):
            custom = json.loads(str(row[5]))
            writer.writerow([*row[:4], custom["plan"], custom["score"]])


def _lead(draw: random.Random, number: int) -> list[Value]:
    state, area = draw.choice(list(_AREAS.items()))
    phone = f"+1{area}{draw.randint(2, 9)}{draw.randint(0, 999_999):06d}"
    name = f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"
    custom = {"plan": draw.choice(_PLANS), "score": draw.randint(1, 100)}
    lead: list[Value] = [lead_id(number), phone, name, state, None, json.dumps(custom)]
    if draw.randrange(100) < _WRONG_PERCENT:
        column, value = draw.choice([(1, "555-CALL-ME"), (1, None), (2, " "), (3, "XX")])
        lead[column] = value
    return lead
