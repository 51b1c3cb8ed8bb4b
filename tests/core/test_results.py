import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadloop.core.results import (
    OutreachAttempt,
    ParsedResult,
    UnreadableResult,
    format_unreadable_error,
    is_unprocessed,
    parse_result,
)

#: The seed's sample, as it stands there.
UNPROCESSED: dict[str, Any] = {
    "lead_id": 10,
    "phone_number": "919899550412",
    "contact_number": "919899550412",
    "created_at": 1531409739413,
    "campaign_id": "0PT711",
    "country_code": "IN",
    "campaign_name": "{Name of the Campaign}",
    "contact_name": "John Doe",
    "call_attempt_keys": [],
    "last_call_attempt_keys": [],
}
PROCESSED = UNPROCESSED | {
    "processed_at": 1531409839413,
    "outcome_name": "Interested",
    "outcome_id": 31,
    "total_cost": 1.25,
}
FIRST = {
    "reference_id": "r1",
    "outcome_id": 4,
    "outcome_name": "No Answer",
    "call_duration": 0,
    "called_at": 1531409800000,
    "report_keys_order": [],
    "status": "Not Connected",
}
SECOND = {
    "reference_id": "r2",
    "outcome_id": 31,
    "outcome_name": "Interested",
    "call_duration": 62,
    "called_at": 1531409839000,
    "report_keys_order": ["Which plan?", "When?"],
    "status": "Completed",
    "When?": "Noon",
    "Which plan?": ["Basic", "Plus"],
}
CALLED = PROCESSED | {
    "call_attempt_keys": ["call_attempt_Spring_1"],
    "last_call_attempt_keys": ["last_call_attempt_Spring_1"],
    "call_attempt_Spring_1": [FIRST, SECOND],
    "last_call_attempt_Spring_1": SECOND,
}
_AT = "2018-07-12T15:37:19+00:00"


def attempts(**blocks: Any) -> Sequence[OutreachAttempt]:
    """The attempts of a processed result with these keys."""
    return parse_result(PROCESSED | blocks).attempts


def test_the_documented_sample_of_a_lead_not_yet_processed() -> None:
    """It is read, and has no outcome."""
    assert parse_result(UNPROCESSED) == ParsedResult(
        lead_id="10", processed_at=None, outcome=None, attempts=[]
    )


def test_a_processed_lead() -> None:
    """The outcome's facts, as Postgres reads them; the whole answer kept."""
    read = parse_result(PROCESSED)
    assert read.processed_at == datetime(2018, 7, 12, 15, 37, 19, 413000, tzinfo=UTC)
    outcome = read.outcome
    assert outcome is not None
    assert outcome.processed_at == "2018-07-12T15:37:19.413000+00:00"
    assert (outcome.outcome_id, outcome.outcome_name) == ("31", "Interested")
    assert outcome.total_cost == "1.25"
    assert json.loads(outcome.raw) == PROCESSED


def test_every_call_attempt_once() -> None:
    """The last one comes twice, in the list and by itself, and was one call."""
    first, second = parse_result(CALLED).attempts
    assert (first.reference_id, first.duration_s, first.answers) == ("r1", "0", "{}")
    assert (second.channel, second.block) == ("call", "call_attempt_Spring_1")
    assert (second.occurred_at, second.duration_s) == (_AT, "62")
    assert (second.outcome_id, second.outcome_name) == ("31", "Interested")
    assert list(json.loads(second.answers)) == ["Which plan?", "When?"]


@pytest.mark.parametrize("lost", ["call_attempt_Spring_1", "call_attempt_keys"])
def test_a_missing_list_loses_no_call(lost: str) -> None:
    """The last attempt is then known by itself; keys that nobody lists are found."""
    result = {key: value for key, value in CALLED.items() if key != lost}
    found = parse_result(result).attempts
    assert found[-1].reference_id == "r2"
    assert {attempt.block for attempt in found} == {"call_attempt_Spring_1"}
    assert len(found) == (1 if lost == "call_attempt_Spring_1" else 2)


def test_attempts_without_an_id_are_told_apart_the_same_way_each_time() -> None:
    """By their time, by their place where they have none: read again they are the same rows."""
    bare = [{"called_at": 1531409839000}, {"called_at": "1531409839000"}, {"status": "Busy"}]
    keys = [attempt.attempt_key for attempt in attempts(call_attempt_x_1=bare)]
    assert keys == ["1531409839000", "1531409839000#2", "#1"]
    assert len(set(keys)) == 3
    assert attempts(call_attempt_x_1=bare) == attempts(call_attempt_x_1=bare)


def test_no_call_is_lost_where_ids_are_empty() -> None:
    """Two calls whose id is there and says nothing are two; the last one is one of them."""
    calls = [FIRST | {"reference_id": ""}, SECOND | {"reference_id": ""}]
    found = attempts(call_attempt_x_1=calls, last_call_attempt_x_1=calls[1])
    assert [attempt.duration_s for attempt in found] == ["0", "62"]


def test_a_block_that_is_said_to_hold_calls_holds_no_messages() -> None:
    """Whatever it is called: what stands in it happened once."""
    found = attempts(call_attempt_keys=["sms_x"], sms_x=[{"status": "Busy", "cost": 1}])
    assert [(attempt.channel, attempt.block) for attempt in found] == [("call", "sms_x")]


def test_each_result_is_read_by_its_own_keys() -> None:
    """What one lead's answer lists says nothing of the next one's."""
    named = attempts(call_attempt_keys=["calls"], calls=[FIRST], sms_x={"cost": 1, "body": ""})
    assert [attempt.block for attempt in named] == ["calls", "sms_x"]
    unnamed = attempts(call_attempt_keys=[], calls=[FIRST], sms_x={"cost": "given", "why": ""})
    assert [attempt.block for attempt in unnamed] == ["sms_x"]
    assert attempts(call_attempt_keys=[], calls=[FIRST], sms_x="yes") == []


@pytest.mark.parametrize("channel", ["sms_x", "gmail_x", "ivr_x"])
def test_a_message_is_the_same_one_before_and_after_it_was_sent(channel: str) -> None:
    """Its time is not there while it is pending; one message must not count twice."""
    pending = {"cost": "PENDING OR NOT AVAILABLE", "sent_at": None}
    sent = {"cost": 0.01, "sent_at": 1531409839000}
    keys = [[item.attempt_key for item in attempts(**{channel: each})] for each in (pending, sent)]
    assert keys == [["#1"], ["#1"]]
    assert [item.attempt_key for item in attempts(**{channel: [sent, pending]})] == ["#1", "#2"]


def test_keys_without_measure_are_shortened_and_still_told_apart() -> None:
    """Postgres indexes some 2,700 bytes; what is longer must not fail a whole window."""
    long = "\N{SNOWMAN}" * 2000
    calls = [{"reference_id": long + end, "called_at": 1} for end in ("a", "b")]
    found = attempts(**{"call_attempt_" + long: calls})
    assert [attempt.reference_id for attempt in found] == [long + "a", long + "b"]
    assert len({attempt.attempt_key for attempt in found}) == 2
    assert found == attempts(**{"call_attempt_" + long: calls})
    for attempt in found:
        assert len((attempt.block + attempt.attempt_key).encode()) <= 600


def test_an_attempt_tells_which_version_of_the_result_it_is_from() -> None:
    """So that an older one does not overwrite what a newer one said."""
    assert {attempt.processed_at for attempt in parse_result(CALLED).attempts} == {
        "2018-07-12T15:37:19.413000+00:00"
    }
    bare = UNPROCESSED | {"sms_x": {"cost": 1}}
    assert [attempt.processed_at for attempt in parse_result(bare).attempts] == [None]


def test_two_scripts_of_a_campaign_are_two_blocks() -> None:
    """The same reference under two keys is not one attempt."""
    found = attempts(call_attempt_x_1=[FIRST], call_attempt_x_2=[FIRST])
    assert [attempt.block for attempt in found] == ["call_attempt_x_1", "call_attempt_x_2"]


def test_an_email_a_text_and_a_recording() -> None:
    """Each documented block becomes an attempt of its channel."""
    gmail, sms, ivr = attempts(
        gmail_summary={
            "cost": 0.02,
            "google_email": "us@example.com",
            "subject": "Hello",
            "to": "ann@example.com",
            "from": "us@example.com",
            "sent_at": 1531409839000,
        },
        sms_follow_up={"status": "delivered", "cost": "0.01", "body": "Hi", "sent_at": 1531409839},
        ivr_reminder={
            "status": "completed",
            "cost": 0,
            "text_to_speak": "Hi",
            "multi_text_to_speak": [],
            "dtmf_response": "1",
            "duration": None,
            "sent_at": "2018-07-12T15:37:19Z",
        },
    )
    assert [gmail.channel, sms.channel, ivr.channel] == ["gmail", "sms", "ivr"]
    assert [gmail.cost, sms.cost, ivr.cost] == ["0.02", "0.01", "0"]
    assert {gmail.occurred_at, sms.occurred_at, ivr.occurred_at} == {_AT}
    assert (sms.outcome_name, ivr.duration_s) == ("delivered", None)
    assert json.loads(ivr.answers)["dtmf_response"] == "1"


def test_what_is_pending_has_no_cost_yet() -> None:
    """The words that stand for a cost are not one, and the attempt is there all the same."""
    pending = "PENDING OR NOT AVAILABLE"
    (sms,) = attempts(sms_x={"status": pending, "cost": pending, "body": "", "sent_at": None})
    assert (sms.cost, sms.occurred_at, sms.outcome_name) == (None, None, pending)
    outcome = parse_result(PROCESSED | {"total_cost": pending}).outcome
    assert outcome is not None
    assert outcome.total_cost is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sms_consent", "yes"),
        ("sms_consent", True),
        ("sms_consent", []),
        ("sms_consent", {"given": True}),
        ("gmail_address", "ann@example.com"),
        ("ivr_language", {"code": "en"}),
        ("sms_", {"cost": 1}),
        ("sms", {"cost": 1}),
        ("call_attempt_limit", 3),
        ("call_attempt_note", "later"),
        ("last_call_attempt_note", None),
    ],
)
def test_a_custom_field_that_looks_like_outreach_is_none(key: str, value: Any) -> None:
    """Nobody was called because a field is called sms_consent."""
    assert attempts(**{key: value}) == []


@pytest.mark.parametrize(
    ("written", "read"), [(10, "10"), (10.0, "10"), ("010", "010"), ("é", "é"), (0, "0")]
)
def test_ids_are_read_as_text(written: Any, read: str) -> None:
    """Number or text, and no zero is lost."""
    assert parse_result(PROCESSED | {"lead_id": written}).lead_id == read


def test_a_vendor_that_begins_to_write_floats_means_the_same() -> None:
    """Ids of outcomes and calls too: no call is there twice because its id is now 4.0."""
    call = FIRST | {"reference_id": 7}
    before = parse_result(PROCESSED | {"call_attempt_x_1": [call]})
    floats = [call | {"reference_id": 7.0, "outcome_id": 4.0}]
    after = parse_result(PROCESSED | {"outcome_id": 31.0, "call_attempt_x_1": floats})
    assert before.outcome is not None
    assert after.outcome == before.outcome._replace(raw=after.outcome.raw if after.outcome else "")
    assert after.attempts == before.attempts


@pytest.mark.parametrize("factor", [1000, 10**6])
def test_a_vendor_that_begins_to_write_smaller_units_means_the_same(factor: int) -> None:
    """Microseconds, nanoseconds: the times are those of the milliseconds."""
    call: dict[str, Any] = {"reference_id": "", "called_at": 1531409800000}
    before = parse_result(PROCESSED | {"call_attempt_x_1": [call]})
    finer = PROCESSED | {
        "processed_at": PROCESSED["processed_at"] * factor,
        "call_attempt_x_1": [call | {"called_at": call["called_at"] * factor}],
    }
    after = parse_result(finer)
    assert (after.processed_at, after.attempts) == (before.processed_at, before.attempts)


@pytest.mark.parametrize(
    ("seen", "unreadable", "fails"),
    [(0, 0, False), (20, 2, False), (2, 1, False), (3, 2, True), (1, 1, True), (30, 30, True)],
)
def test_most_results_unreadable_is_a_failed_poll(seen: int, unreadable: int, fails: bool) -> None:
    """More than half of them: the vendor has changed its format, and nobody may call that done."""
    said = format_unreadable_error(seen=seen, unreadable=unreadable)
    assert (said is not None) == fails
    if said:
        assert f"{unreadable} of {seen} results" in said


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "not an object"),
        ("+14155552671", "not an object"),
        ({}, "lead_id"),
        (PROCESSED | {"lead_id": ""}, "lead_id"),
        (PROCESSED | {"lead_id": None}, "lead_id"),
        (PROCESSED | {"lead_id": True}, "lead_id"),
        (PROCESSED | {"lead_id": ["+14155552671"]}, "lead_id"),
        (PROCESSED | {"lead_id": "+14155552671" * 200}, "longer than 1500 bytes"),
        (PROCESSED | {"processed_at": "+14155552671x"}, "processed_at"),
        (PROCESSED | {"processed_at": [1]}, "processed_at"),
        (PROCESSED | {"processed_at": 10**40}, "processed_at"),
    ],
)
def test_what_cannot_be_read_is_said_without_its_values(result: Any, reason: str) -> None:
    """It is kept apart with that reason, which must be safe to show."""
    with pytest.raises(UnreadableResult, match=reason) as caught:
        parse_result(result)
    assert "4155552671" not in str(caught.value)


@pytest.mark.parametrize(
    "cost", ["nan", "Infinity", "", [], True, None, "1" * 2000, "1e-9999999", "0." + "1" * 20_000]
)
def test_a_cost_that_is_no_number_is_none(cost: Any) -> None:
    """Nor does a number that Postgres cannot hold fail the whole window."""
    outcome = parse_result(PROCESSED | {"total_cost": cost}).outcome
    assert outcome is not None
    assert outcome.total_cost is None


_KEYS = st.sampled_from(
    [
        *("lead_id", "processed_at", "outcome_id", "total_cost", "call_attempt_keys", "sms_x"),
        *("last_call_attempt_keys", "call_attempt_x_1", "last_call_attempt_x_1", "gmail_y"),
        *("reference_id", "called_at", "report_keys_order", "sent_at", "cost", "status", "ivr_z"),
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(_KEYS, _JSON, max_size=10))
def test_every_result_is_read_or_said_to_be_unreadable(result: dict[str, Any]) -> None:
    """Whatever the vendor sends: keys tell the attempts apart, and the answer is kept whole."""
    try:
        read = parse_result(result)
    except UnreadableResult:
        return
    assert read.outcome is None or json.loads(read.outcome.raw) == result
    keys = [(attempt.block, attempt.attempt_key) for attempt in read.attempts]
    assert len(keys) == len(set(keys))


def test_a_result_is_safe_in_a_traceback() -> None:
    """The reprs of its parts hold ids alone."""
    read = parse_result(CALLED)
    for text in (repr(read.outcome), repr(read.attempts)):
        assert "10" in text
        assert "9899550412" not in text
        assert "John" not in text
        assert "Noon" not in text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, True),
        ({"processed_at": None, "outcome_id": None, "outcome_name": "", "total_cost": 0}, True),
        ({"call_attempt_keys": None, "call_attempt_X_1": [], "sms_greeting": "hello"}, True),
        ({"processed_at": 1531409839413}, False),
        ({"processed_at": 0}, False),
        ({"processed_at": "soon"}, False),
        ({"outcome_id": 0}, False),
        ({"outcome_name": "Interested"}, False),
        ({"call_attempt_keys": ["call_attempt_X_1"]}, False),
        ({"last_call_attempt_keys": ["last_call_attempt_X_1"]}, False),
        ({"call_attempt_X_1": [FIRST]}, False),
        ({"last_call_attempt_X_1": FIRST}, False),
        ({"sms_greeting": {"status": "sent", "sent_at": None}}, False),
    ],
)
def test_any_sign_of_an_outcome_or_attempt_shows_a_processed_lead(
    shown: dict[str, Any], expected: bool
) -> None:
    """A missing `processed_at` alone is no proof that the vendor shows leads that wait."""
    assert is_unprocessed(UNPROCESSED | shown) is expected
