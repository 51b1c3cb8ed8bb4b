"""What Hypothesis draws for the machine: leads, readings of the document, faults."""

from itertools import product
from typing import Any

from hypothesis import strategies as st

from tests import factories
from tests.fire.world import Given

Fault = dict[str, Any]

# What is wrong with a lead, or odd about a good one; the last are seldom.
_GOOD = ("plain", "plain", "plain", "unicode", "custom")
_BAD = ("phone", "state", "nameless", "clash", "long")
SHAPES = st.sampled_from((*_GOOD, *_GOOD, *_BAD))
IDS = st.sampled_from(("L{}", "{}", "00{}", "é {}/?&#%☎", "L{}"))

_CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "unicode": {"contact_name": "Zoë “☎” O'Ñandú\u2028\t\\N 😀"},
    "custom": {"custom_fields": {"nöte": "a\u2028b\\u0000☎", "n": 10**18 + 1, "deep": [{"a": 0}]}},
    "phone": {"phone_number": "12"},
    "state": {"state_code": "ZZ"},
    "nameless": {"contact_name": " "},
    "clash": {"custom_fields": {"outcome_name": "mine"}},
    "long": {"contact_name": "x" * 60},
}


def given(shape: str, lead_id: str, phone: str, *, newer_limits: bool) -> Given:
    """The lead of that shape; a long name is bad only where the vendor's newer limits hold."""
    row = factories.build_lead(lead_id, **{"phone_number": phone, **_CHANGES[shape]})
    bad = shape in ("phone", "state", "nameless", "clash") or (shape == "long" and newer_limits)
    return Given(row=row, good=not bad)


#: How the vendor reads its own document, for as long as it lives.
READINGS = st.fixed_dictionaries(
    {
        "bad_lead": st.sampled_from(("batch", "lead", "batch-anonymous")),
        "repeat": st.sampled_from(("second", "error", "update")),
        "newer_limits": st.booleans(),
        "time_format": st.sampled_from(("ms", "s", "iso")),
        "window_unit": st.sampled_from(("ms", "s")),
        "shows_unprocessed": st.sampled_from((True, True, True, False)),
    }
)
#: What it may think better of from one day to the next.
MOODS = st.fixed_dictionaries(
    {},
    optional={
        "unknown_disable": st.sampled_from(("404", "400", "lead", "ignore")),
        "order": st.sampled_from(("created", "processed", "processed-desc", "lead_id", "random")),
        "after_inclusive": st.booleans(),
        "before_inclusive": st.booleans(),
        "lead_id_answer": st.sampled_from(("text", "integer")),
        "page_beyond_last": st.sampled_from(("404", "empty")),
        "max_page_size": st.sampled_from((None, 1, 2)),
        "links": st.sampled_from(("trap", "correct")),
    },
)

_NOWHERE = {"kind": "redirect", "url": "http://127.0.0.1:9/"}
_SOON = {"headers": {"Retry-After": "0"}}


def _status(number: int, **more: Any) -> Fault:
    return {"kind": "status", "status": number, **more}


# These say that nothing was done, or where nothing was: they come before a create's effect alone.
# A 400 after the effect is left out: no client can tell it from a refusal.
_REFUSALS = [
    *(_status(number) for number in (400, 401, 403, 404, 429)),
    _status(404, body="html"),
    _status(429, **_SOON),
    _status(503, **_SOON),
    _NOWHERE,
]
_SILENCES: list[Fault] = [
    _status(500),
    _status(500, body="empty"),
    _status(503, body="html"),
    {"kind": "reset"},
    {"kind": "hang", "seconds": 0.05},
    {"kind": "foreign"},
]
_SPOILT: list[Fault] = [{"kind": "cut"}, {"kind": "slow", "seconds": 0.05}]
_DRIFTS: list[Fault] = [
    *({"kind": "shift", "rows": rows} for rows in (-2, -1, 1, 2)),
    *({"kind": "late", "seconds": seconds} for seconds in (5.0, 300.0)),
    {"kind": "repeat"},
]
_ON_CREATE = [
    *({"when": "before", **fault} for fault in (*_REFUSALS, *_SILENCES)),
    *({"when": "after", **fault} for fault in (*_SILENCES, *_SPOILT)),
]
_HARMLESS = [
    *({"when": when, **fault} for when, fault in product(("before", "after"), _SILENCES)),
    *({"when": when, **fault} for when, fault in product(("before", "after"), _REFUSALS)),
    *_SPOILT,
]
_OCCASIONS: list[Fault] = [
    {"nth": 1},
    {"nth": 2},
    {"nth": 3},
    {"every": 1, "times": 2},
    {"every": 1, "times": 7},
]


def _at(route: str, faults: list[Fault]) -> st.SearchStrategy[Fault]:
    pairs = st.tuples(st.sampled_from(faults), st.sampled_from(_OCCASIONS))
    return pairs.map(lambda pair: {"route": route, **pair[0], **pair[1]})


def _drift() -> st.SearchStrategy[Fault]:
    numbers = st.sampled_from((1, 2, 3))
    pairs = st.tuples(st.sampled_from(_DRIFTS), numbers)
    return pairs.map(lambda pair: {"route": "responses", **pair[0], "nth": pair[1]})


ON_CREATE = _at("create", _ON_CREATE)
DRIFTS = _drift()
FAULTS = st.one_of(
    ON_CREATE,
    _at("responses", _HARMLESS),
    _at("disable", _HARMLESS),
    DRIFTS,
)
