"""Sample leads for the demo and `up`: plausible, a few of them invalid in realistic ways."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

from db.bulk_copy import CopyValue
from db.lead_import import COLUMNS

_FIRST_NAMES = ("Ava", "Ben", "Carla", "Dmitri", "Elena", "Farid", "Grace", "Hiro", "Ines", "Jamal")
_LAST_NAMES = (
    "Adams",
    "Baker",
    "Costa",
    "Diaz",
    "Evans",
    "Fischer",
    "Gupta",
    "Hughes",
    "Ito",
    "Jones",
)
_AREA_CODES = {
    "CA": 415,
    "NY": 212,
    "TX": 512,
    "WA": 206,
    "IL": 312,
    "MA": 617,
    "CO": 303,
    "GA": 404,
}
_PLANS = ("basic", "plus", "premium")
# Enough invalid leads to see, and few enough to be plausible.
_INVALID_PERCENT = 4


def make_leads(count: int, seed: int, start_after: int = 0) -> list[Sequence[CopyValue]]:
    """Generate rows in the order of `db.lead_import.COLUMNS`, reproducibly from the seed.

    The first lead has the number after `start_after`.
    """
    rng = random.Random(seed)
    leads: list[Sequence[CopyValue]] = []
    for number in range(start_after + 1, start_after + count + 1):
        state, area = rng.choice(list(_AREA_CODES.items()))
        phone = f"+1{area}{rng.randint(2, 9)}{rng.randint(0, 999_999):06d}"
        name = f"{rng.choice(_FIRST_NAMES)} {rng.choice(_LAST_NAMES)}"
        custom = json.dumps({"plan": rng.choice(_PLANS), "score": rng.randint(1, 100)})
        lead: list[CopyValue] = [format_lead_id(number), phone, name, state, None, custom, None]
        if rng.randrange(100) < _INVALID_PERCENT:
            column, value = rng.choice([(1, "555-CALL-ME"), (1, None), (2, " "), (3, "XX")])
            lead[column] = value
        leads.append(lead)
    return leads


def format_lead_id(number: int) -> str:
    """Return the id of the lead with that number."""
    return f"D{number:05d}"


def write_csv(file: Path, count: int) -> None:
    """Write a file for `leadloop load`, with other leads than the demo's."""
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow([*COLUMNS[:4], "plan", "score"])
        for row in make_leads(count, seed=count):
            custom = json.loads(str(row[5]))
            writer.writerow([*row[:4], custom["plan"], custom["score"]])
