"""Fingerprints of successes: what says the same is known again, and what may not is none."""

from typing import Any

import pytest

from leadloop.core.response_shape import fingerprint_shape


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([], []),
        ({"batch": "x-17", "leads": []}, {"leads": [], "batch": "x-18"}),
        ({"queued": 3}, {"queued": 3}),
        ({"ids": [7001, 7002, 7003]}, {"ids": [8001, 8002, 8003, 8004]}),
        ("Thanks, your request a8f3-11 is being handled", "thanks, your request"),
        ({"at": "2026-11-25T10:02:00Z"}, {"at": "2026-11-26T09:00:01Z"}),
    ],
)
def test_what_says_the_same_has_one_fingerprint(one: Any, other: Any) -> None:
    """Ids and times do not count, and all else does."""
    same = not isinstance(one, str)
    assert (fingerprint_shape(one, 3) == fingerprint_shape(other, 3)) == same
    assert 0 < (fingerprint_shape(one, 3) or 0) < 2**31


@pytest.mark.parametrize(
    "others",
    [{}, None, {"leads": []}, [[]], {"queued": 3}, {"queued": None}, "Please log in", True],
)
def test_what_says_something_else_has_another(others: Any) -> None:
    """A login page in place of an empty list was never shown to mean anything."""
    assert fingerprint_shape(others, 1) != fingerprint_shape([], 1)


@pytest.mark.parametrize(
    "body",
    [
        {"queued": 2},
        "2 of 3",
        ["queued"],
        ["queued", "queued", "waiting"],
        {"x1": 1000, "x2": None},
        [201, 201, 400],
        {"deep": {"deeper": [{"n": 1}, {"n": 2}, {"n": 2}]}},
    ],
)
def test_what_may_single_out_some_leads_has_none(body: Any) -> None:
    """Fewer than were sent, or not the same for each."""
    assert fingerprint_shape(body, 3) is None
