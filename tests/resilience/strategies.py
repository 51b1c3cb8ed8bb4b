"""Hypothesis strategies for the state machine: leads, API interpretations, faults."""

from itertools import product
from typing import Any

from hypothesis import strategies as st

from tests import factories
from tests.resilience.model import InsertedLead

Fault = dict[str, Any]

# Shapes of valid and of invalid leads; valid ones are drawn more often.
_GOOD = ("plain", "plain", "plain", "unicode", "custom")
_BAD = ("phone", "state", "nameless", "clash", "long")
LEAD_SHAPES = st.sampled_from((*_GOOD, *_GOOD, *_BAD))
LEAD_IDS = st.sampled_from(("L{}", "{}", "00{}", "é {}/?&#%☎", "L{}"))

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


def create_lead(
    shape: str, lead_id: str, phone: str, *, newer_limits: bool, priority: int = 0
) -> InsertedLead:
    """Return a lead of the shape; a long name is invalid only under the vendor's newer limits."""
    columns = {"phone_number": phone, "priority": priority, **_CHANGES[shape]}
    row = factories.build_lead(lead_id, **columns)
    is_invalid = shape in ("phone", "state", "nameless", "clash") or (
        shape == "long" and newer_limits
    )
    return InsertedLead(row=row, is_valid=not is_invalid)


#: How the vendor implements its document; fixed for the life of the vendor.
INTERPRETATIONS = st.fixed_dictionaries(
    {
        "bad_lead": st.sampled_from(("batch", "lead", "batch-anonymous")),
        "repeat": st.sampled_from(("second", "error", "update")),
        "newer_limits": st.booleans(),
        "time_format": st.sampled_from(("ms", "s", "us", "ns", "iso")),
        "window_unit": st.sampled_from(("ms", "s")),
        "shows_unprocessed": st.sampled_from((True, True, True, False)),
    }
)
#: How the vendor behaves where the document leaves a choice; may change at any time.
BEHAVIOURS = st.fixed_dictionaries(
    {},
    optional={
        "unknown_disable": st.sampled_from(("404", "400", "lead", "ignore")),
        "order": st.sampled_from(("created", "processed", "processed-desc", "lead_id", "random")),
        "after_inclusive": st.booleans(),
        "before_inclusive": st.booleans(),
        "lead_id_answer": st.sampled_from(("text", "integer", "float")),
        "page_beyond_last": st.sampled_from(("404", "empty")),
        "max_page_size": st.sampled_from((None, 1, 2)),
        "links": st.sampled_from(("trap", "correct")),
    },
)

_NOWHERE = {"kind": "redirect", "url": "http://127.0.0.1:9/"}
_SOON = {"headers": {"Retry-After": "0"}}


def _status(number: int, **more: Any) -> Fault:
    return {"kind": "status", "status": number, **more}


# Responses that state that nothing was done. For a create they come before its effect only: a
# client cannot tell a 400 after the effect from a rejection.
_REJECTIONS = [
    *(_status(number) for number in (400, 401, 403, 404, 429)),
    _status(404, body="html"),
    _status(429, **_SOON),
    _status(503, **_SOON),
    _NOWHERE,
]
_LOST_RESPONSES: list[Fault] = [
    _status(500),
    _status(500, body="empty"),
    _status(503, body="html"),
    {"kind": "reset"},
    {"kind": "hang", "seconds": 0.05},
    {"kind": "foreign"},
]
_DAMAGED_RESPONSES: list[Fault] = [{"kind": "cut"}, {"kind": "slow", "seconds": 0.05}]
_ROW_SHIFTS: list[Fault] = [
    *({"kind": "shift", "rows": rows} for rows in (-2, -1, 1, 2)),
    *({"kind": "late", "seconds": seconds} for seconds in (5.0, 300.0)),
    {"kind": "repeat"},
]
_CREATE_FAULTS = [
    *({"when": "before", **fault} for fault in (*_REJECTIONS, *_LOST_RESPONSES)),
    *({"when": "after", **fault} for fault in (*_LOST_RESPONSES, *_DAMAGED_RESPONSES)),
]
_IDEMPOTENT_FAULTS = [
    *({"when": when, **fault} for when, fault in product(("before", "after"), _LOST_RESPONSES)),
    *({"when": when, **fault} for when, fault in product(("before", "after"), _REJECTIONS)),
    *_DAMAGED_RESPONSES,
]
_TIMINGS: list[Fault] = [
    {"nth": 1},
    {"nth": 2},
    {"nth": 3},
    {"every": 1, "times": 2},
    {"every": 1, "times": 7},
]


def _draw_fault(route: str, faults: list[Fault]) -> st.SearchStrategy[Fault]:
    pairs = st.tuples(st.sampled_from(faults), st.sampled_from(_TIMINGS))
    return pairs.map(lambda pair: {"route": route, **pair[0], **pair[1]})


def _draw_row_shift() -> st.SearchStrategy[Fault]:
    numbers = st.sampled_from((1, 2, 3))
    pairs = st.tuples(st.sampled_from(_ROW_SHIFTS), numbers)
    return pairs.map(lambda pair: {"route": "responses", **pair[0], "nth": pair[1]})


CREATE_FAULTS = _draw_fault("create", _CREATE_FAULTS)
ROW_SHIFTS = _draw_row_shift()
FAULTS = st.one_of(
    CREATE_FAULTS,
    _draw_fault("responses", _IDEMPOTENT_FAULTS),
    _draw_fault("disable", _IDEMPOTENT_FAULTS),
    ROW_SHIFTS,
)
