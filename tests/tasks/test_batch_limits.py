"""The leads and bytes of a create: the setting's limits, and those that the vendor shows."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.database import Database
from db.learned_limits import LearnedLimit
from leadloop.core.leads import PreparedLead, count_body_bytes
from leadloop.sandbox import SandboxHandle
from tasks.batch_limits import BYTES, SIZE, BatchLimits, BatchParts
from tests import factories, sql
from tests.jobs import push_leads

LEARNED = "SELECT name, value FROM leadloop.learned_limits"


def prepared(lead_id: str, size: int) -> PreparedLead:
    """A lead of that many bytes."""
    return PreparedLead(lead_id=lead_id, e164=None, contact_name=None, body=b"x" * size)


def send(leads: list[PreparedLead], limits: BatchLimits, takes: Any) -> tuple[int, list[str]]:
    """Send leads to a vendor as a push does; return the refused requests and whom it took."""
    refused, taken = 0, list[str]()

    def send_part(part: list[PreparedLead], parts: BatchParts) -> None:
        nonlocal refused
        if takes(part):
            parts.record_accepted(part)
            limits.record_accepted(part)
            taken.extend(lead.lead_id for lead in part)
            return
        refused += 1
        parts.record_too_large(part)
        middle = len(part) // 2
        for half in (part[:middle], part[middle:]) if middle else ():
            send_part(half, parts)

    while leads:
        batch, size = list[PreparedLead](), limits.cap_bytes(10**9)
        while leads and len(batch) < limits.cap_leads(16):
            if batch and count_body_bytes([*batch, leads[0]]) > size:
                break
            batch.append(leads.pop(0))
        parts = BatchParts()
        send_part(batch, parts)
        if (contrast := parts.find_contrast()) is not None:
            limits.record_contrast(contrast)
    return refused, taken


SIZES = st.lists(st.integers(50, 3000), min_size=1, max_size=80)


@given(SIZES, st.integers(1, 20), st.integers(200, 20_000))
def test_whatever_the_vendor_limits_all_it_takes_is_sent_once(
    sizes: list[int], most: int, max_bytes: int
) -> None:
    """In order; and what was learned is never less than the halves of what it refused."""
    limits = BatchLimits({})
    leads = [prepared(str(number), size) for number, size in enumerate(sizes)]

    def takes(part: list[PreparedLead]) -> bool:
        return len(part) <= most and count_body_bytes(part) <= max_bytes

    _, taken = send(list(leads), limits, takes)
    assert taken == [lead.lead_id for lead in leads if takes([lead])]
    for name, value in limits.take_changes().items():
        assert value is None or value <= {SIZE: 16, BYTES: max_bytes}[name]
    # What was learned of this data is taken of it at the second time, but for the lead alone.
    learned = BatchLimits(
        {
            name: LearnedLimit(value=value, is_stale=False)
            for name, value in ((SIZE, limits.cap_leads(16)), (BYTES, limits.cap_bytes(10**9)))
        }
    )
    _, taken = send(list(leads), learned, takes)
    assert taken == [lead.lead_id for lead in leads if takes([lead])]


@given(st.integers(1, 15), st.integers(20, 60))
def test_a_limit_of_leads_is_learned_once(most: int, amount: int) -> None:
    """Leads of one size: after the first batch, each request passes."""
    limits = BatchLimits({})
    leads = [prepared(str(number), 100) for number in range(amount)]
    send(leads[:16], limits, lambda part: len(part) <= most)
    assert limits.take_changes().keys() == {SIZE}
    assert most // 2 < limits.cap_leads(16) <= most
    assert send(leads[16:], limits, lambda part: len(part) <= most)[0] == 0


def test_a_limit_of_bytes_is_one_of_bytes() -> None:
    """As many small leads pass: one batch of large ones is halved, and no batch of small ones."""
    limits = BatchLimits({})
    small = [prepared(f"s{number}", 100) for number in range(32)]
    large = [prepared(f"l{number}", 1000) for number in range(32)]
    refused, _ = send([*small[:16], *large], limits, lambda part: count_body_bytes(part) <= 9000)
    assert refused == 1
    assert limits.take_changes() == {BYTES: count_body_bytes(large[:8])}
    assert limits.cap_leads(16) == 16
    assert send(small[16:], limits, lambda _: True) == (0, [lead.lead_id for lead in small[16:]])


def test_a_lead_that_is_too_large_alone_shows_nothing() -> None:
    """It is the lead: what held it was too large because of it."""
    limits = BatchLimits({})
    leads = [prepared(str(number), 100) for number in range(15)]
    send([*leads, prepared("giant", 9000)], limits, lambda part: count_body_bytes(part) <= 4000)
    assert limits.take_changes() == {}


@pytest.mark.parametrize("is_stale", [False, True])
def test_a_stale_limit_is_tried_again(is_stale: bool) -> None:
    """A larger batch that passes ends it; one that does not makes it hold for another day."""
    learned = {SIZE: LearnedLimit(value=4, is_stale=is_stale)}
    limits = BatchLimits(learned)
    assert limits.cap_leads(16) == (16 if is_stale else 4)
    leads = [prepared(str(number), 100) for number in range(16)]
    if is_stale:
        send(list(leads), limits, lambda part: len(part) <= 4)
        assert limits.take_changes() == {SIZE: 4}
        send(list(leads), BatchLimits(learned), lambda _: True)
    limits = BatchLimits(learned)
    limits.record_accepted(leads)
    assert limits.take_changes() == {SIZE: None}


@pytest.fixture
def one_sender(environment: object, quick_retries: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes that send one request after the other, of ten thousand bytes at the most."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    monkeypatch.setenv("LEADLOOP_BATCH_BYTES", "10000")


@pytest.mark.usefixtures("one_sender")
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.integers(0, 12_000), min_size=1, max_size=25), names=st.integers(0, 600))
def test_no_request_has_more_bytes_and_each_lead_is_sent_once(
    database: Database, vendor: SandboxHandle, sizes: list[int], names: int
) -> None:
    """Whatever the sizes: in order, none left out but those that are too large by themselves."""
    vendor.reset()
    sql.execute(database, "TRUNCATE leadloop.leads, leadloop.sent_leads, leadloop.campaigns")
    vendor.change_rules(max_body_bytes=10_000)
    factories.add_campaign(database)
    rows = [
        factories.build_lead(
            f"L{number:02d}",
            custom_fields={"note": "é\\" * (size // 4)},
            contact_name="\t" * names + "Ann",
        )
        for number, size in enumerate(sizes)
    ]
    factories.add_leads(database, *rows)
    push_leads()
    assert 413 not in [entry.status for entry in vendor.requests]
    statuses = sql.fetch_statuses(database)
    assert list(vendor.store.creations("C1").values()) == [1] * len(vendor.store.leads("C1"))
    assert [lead.lead_id for lead in vendor.store.leads("C1")] == [
        row["lead_id"] for row in rows if statuses[row["lead_id"]] == "created"
    ]
    assert set(statuses.values()) <= {"created", "rejected"}
    for lead_id, reason in sql.fetch_errors(database).items():
        assert "LEADLOOP_BATCH_BYTES" in reason, lead_id
    # Nearly full: two that follow each other would not have fit into one request.
    assert len([e for e in vendor.requests if e.kind == "create"]) <= 2 + 2 * (
        sum(min(size, 10_000) + names * 2 + 200 for size in sizes) // 10_000
    )


@pytest.mark.usefixtures("one_sender")
def test_a_lead_that_is_too_large_is_rejected_before_any_request(
    database: Database, vendor: SandboxHandle
) -> None:
    """Its reason names the field, its bytes and the limit, and nothing of what is in it."""
    factories.add_campaign(database)
    factories.add_leads(
        database,
        factories.build_lead("text", contact_name="secret" * 5000),
        factories.build_lead("field", custom_fields={"note": "secret" * 5000}),
        factories.build_lead("just", custom_fields={"note": "secret" * 1650}),
        "good",
    )
    assert push_leads()["rejected"] == 3
    assert len(vendor.requests) == 1
    assert sql.fetch_errors(database) == {
        "text": "contact_name: 30000 bytes, and a request with this lead may have 10000"
        " (LEADLOOP_BATCH_BYTES)",
        "field": "custom_fields: 30012 bytes, and a request with this lead may have 10000"
        " (LEADLOOP_BATCH_BYTES)",
        "just": "custom_fields: 9912 bytes, and a request with this lead may have 10000"
        " (LEADLOOP_BATCH_BYTES)",
    }


@pytest.mark.usefixtures("environment", "quick_retries")
def test_a_vendors_limit_of_bytes_is_remembered_and_tried_again(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later pushes send no body that is refused; a day later, one that passes ends the limit.

    As many small leads pass in one request, so the limit is none of leads.
    """
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    vendor.change_rules(max_body_bytes=30_000)
    factories.add_campaign(database, batch_size=40)
    large = {"custom_fields": {"note": "x" * 900}}
    factories.add_leads(database, *(f"S{number:02d}" for number in range(40)))
    factories.add_leads(database, *(factories.build_lead(f"L{n:02d}", **large) for n in range(40)))
    assert push_leads()["created"] == 80
    assert [row["name"] for row in sql.fetch_rows(database, LEARNED)] == ["batch_bytes"]
    refusals = [entry.status for entry in vendor.requests].count(413)
    factories.add_leads(database, *(factories.build_lead(f"M{n:02d}", **large) for n in range(60)))
    assert push_leads()["created"] == 60
    assert [entry.status for entry in vendor.requests].count(413) == refusals == 1
    vendor.change_rules(max_body_bytes=None)
    sql.execute(database, "UPDATE leadloop.learned_limits SET learned_at = now() - interval '25 h'")
    factories.add_leads(database, *(factories.build_lead(f"N{n:02d}", **large) for n in range(40)))
    assert push_leads()["requests"] == 1
    assert sql.fetch_rows(database, LEARNED) == []
