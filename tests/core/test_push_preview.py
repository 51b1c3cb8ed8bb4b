"""The preview of a push: counts and reasons, and a sample without a person's data."""

from leadloop.core.leads import PreparedLead
from leadloop.core.push_preview import PushPreview, mask_values

_LEAD = PreparedLead(
    lead_id="7",
    e164="+14155552671",
    contact_name="Ann",
    body=b'{"lead_id":"7","phone_number":"+14155552671","age":' + b"9" * 5000 + b',"vip":true}',
)


def test_the_sample_shows_kinds_and_no_values() -> None:
    """Also of a number with more digits than Python parses."""
    kinds = {"lead_id": "<text>", "phone_number": "<text>", "age": "<number>"}
    assert mask_values(_LEAD.body) == {**kinds, "vip": "<true or false>"}
    assert mask_values(b'{"a":null,"b":[1.5],"c":{}}') == {
        "a": "<null>",
        "b": "<list>",
        "c": "<object>",
    }


def test_requests_are_counted_in_batches() -> None:
    """Three leads in batches of two take two requests; a reason counts its leads."""
    preview = PushPreview(batch_size=2, batch_bytes=1_000_000)
    for kind in ("new", "changed", "gone", "unnamed", "twin", "same"):
        preview.add_source_row(kind)
    for _ in range(3):
        preview.add_sendable(_LEAD)
    preview.add_refused("8", "phone_number: missing")
    preview.add_cancelled("9")
    found = preview.to_json()
    assert (found["send"], found["requests"]) == (3, 2)
    assert (found["from_source"], found["refreshed"], found["gone"]) == (1, 1, 1)
    assert found["passed_over"] == 2
    assert found["refusals"] == {"phone_number: missing": 1}
    assert found["cancellations"] == {"opted out": 1}
    assert found["lead_ids"] == {
        "send": ["7", "7", "7"],
        "refusals": {"phone_number: missing": ["8"]},
        "cancellations": {"opted out": ["9"]},
    }


def test_requests_are_counted_by_their_bytes_too() -> None:
    """Two leads of five thousand bytes fit into ten thousand, with comma and brackets or not."""
    for batch_bytes, requests in ((2 * len(_LEAD.body) + 3, 2), (2 * len(_LEAD.body) + 2, 3)):
        preview = PushPreview(batch_size=100, batch_bytes=batch_bytes)
        for _ in range(3):
            preview.add_sendable(_LEAD)
        assert preview.to_json()["requests"] == requests


def test_reasons_beyond_the_first_fifty_are_summed_up() -> None:
    """Custom fields may have any names, and thousands of reasons help no reader."""
    preview = PushPreview(batch_size=1, batch_bytes=1_000_000)
    for number in range(60):
        preview.add_refused(f"{number}", f"field_{number}: missing")
    refusals = preview.to_json()["refusals"]
    assert len(refusals) == 51
    assert refusals["other reasons"] == 10
