"""`poll-outcomes` and `backfill-outcomes`, against the sandbox over real HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from db.database import Database
from leadloop.core.summaries import collect_summary
from leadloop.core.timestamps import EPOCH
from leadloop.core.windows import MAX_PAGES
from leadloop.sandbox import SandboxHandle
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.jobs import backfill_outcomes, poll_outcomes, push_leads

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")


def push(database: Database, amount: int, **columns: Any) -> list[str]:
    """A campaign whose leads the vendor has."""
    ids = [f"L{number:04d}" for number in range(amount)]
    factories.add_campaign(database, **columns)
    factories.add_leads(database, *ids)
    push_leads()
    return ids


def process(vendor: SandboxHandle, lead_id: str, at: datetime, **more: Any) -> None:
    """The vendor is done with a lead."""
    fixed = {"outcome_id": "1", "outcome_name": "Interested", "attempts": []}
    item = {"campaign_id": factories.CAMPAIGN, "lead_id": lead_id, **fixed, **more}
    vendor.put_outcomes([{**item, "processed_at": int(at.timestamp() * 1000)}])


def now() -> datetime:
    """Our clock, which the sandbox and Postgres share."""
    return datetime.now(UTC)


def watermark(database: Database) -> datetime:
    """Up to where everything is stored."""
    mark: datetime = sql.fetch_value(database, "SELECT processed_through FROM leadloop.watermarks")
    return mark


def test_every_outcome_and_attempt_comes_back_once(
    database: Database, vendor: SandboxHandle
) -> None:
    """All of them are stored, and a second poll of the same range changes nothing."""
    ids = push(database, 230)
    for number, lead_id in enumerate(ids):
        calls = [
            {"reference_id": f"{lead_id}-{turn}", "called_at": 1531409739413, "outcome_name": "No"}
            for turn in range(number % 4)
        ]
        process(vendor, lead_id, now(), attempts=calls)
    first = poll_outcomes()
    assert (first["seen"], first["inserted"]) == (230, 230)
    stamp = "SELECT max(updated_at) FROM leadloop.lead_outcomes"
    updated = sql.fetch_value(database, stamp)
    second = poll_outcomes()
    assert (second["inserted"], second["updated"], second["unchanged"]) == (0, 0, 230)
    assert sql.fetch_value(database, stamp) == updated
    attempts = sql.fetch_value(database, "SELECT count(*) FROM leadloop.outreach_attempts")
    assert attempts == sum(number % 4 for number in range(230))


def test_an_idle_poll_is_one_request(database: Database, vendor: SandboxHandle) -> None:
    """With nothing new to read, a poll asks once."""
    push(database, 1)
    poll_outcomes()
    assert poll_outcomes()["requests"] == 1


def test_nothing_sent_means_nothing_to_ask(database: Database, vendor: SandboxHandle) -> None:
    """A campaign that never sent a lead costs no request and gets no watermark."""
    factories.add_campaign(database)
    assert poll_outcomes()["requests"] == 0
    assert sql.fetch_rows(database, "SELECT * FROM leadloop.watermarks") == []


def test_the_watermark_stays_behind_what_may_still_show(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never nearer to the vendor's now than SETTLE."""
    monkeypatch.setenv("LEADLOOP_SETTLE", "60")
    push(database, 1)
    poll_outcomes()
    assert watermark(database) <= now() - timedelta(seconds=60)


@pytest.mark.parametrize("after_inclusive", [True, False])
@pytest.mark.parametrize("before_inclusive", [True, False])
@pytest.mark.parametrize("unit", ["ms", "s"])
def test_bounds_may_be_inclusive_or_not(
    database: Database,
    vendor: SandboxHandle,
    after_inclusive: bool,
    before_inclusive: bool,
    unit: str,
) -> None:
    """An outcome on the very border of windows is read whichever way the vendor counts."""
    vendor.change_rules(
        after_inclusive=after_inclusive, before_inclusive=before_inclusive, window_unit=unit
    )
    ids = push(database, 3, epoch_unit=unit, window_s=60)
    start = now().replace(microsecond=0) - timedelta(minutes=2)
    for lead_id, minutes in zip(ids, (0, 1, 2), strict=True):
        process(vendor, lead_id, start + timedelta(minutes=minutes))
    backfill_outcomes(after=start, before=start + timedelta(minutes=2))
    assert set(sql.fetch_outcomes(database)) == set(ids)


@pytest.mark.parametrize("order", ["processed-desc", "random", "lead_id"])
@pytest.mark.parametrize("beyond", ["404", "empty"])
def test_pages_are_read_in_any_order(
    database: Database, vendor: SandboxHandle, order: str, beyond: str
) -> None:
    """Neither the order of results nor what comes after the last page matters."""
    vendor.change_rules(order=order, page_beyond_last=beyond, max_page_size=7)
    ids = push(database, 40)
    for lead_id in ids:
        process(vendor, lead_id, now())
    assert poll_outcomes()["seen"] == 40
    assert set(sql.fetch_outcomes(database)) == set(ids)


@pytest.mark.parametrize("beyond", ["404", "empty"])
@pytest.mark.parametrize(
    ("count", "link"),
    [
        ("page", "right"),
        ("page", "always"),
        ("query", "right"),
        ("query", "always"),
        ("query", "never"),
    ],
)
@pytest.mark.parametrize("amount", [5, 10, 95])
def test_pages_are_read_whatever_count_and_next_mean(
    database: Database, vendor: SandboxHandle, count: str, link: str, beyond: str, amount: int
) -> None:
    """`count` may be that of the page alone, as in the vendor's sample; every outcome comes."""
    vendor.change_rules(count=count, next=link, page_beyond_last=beyond)
    ids = push(database, amount, page_size=10)
    for lead_id in ids:
        process(vendor, lead_id, now())
    assert poll_outcomes()["inserted"] == amount
    assert set(sql.fetch_outcomes(database)) == set(ids)
    assert (
        sql.fetch_value(database, "SELECT sum(claimed_count) FROM leadloop.poll_windows") == amount
    )
    assert watermark(database) > now() - timedelta(seconds=30)


@pytest.mark.parametrize(
    ("amount", "link", "requests"),
    [(0, "right", 1), (0, "always", 1), (10, "right", 1), (10, "always", 4), (95, "right", 12)],
)
def test_what_a_next_costs(
    database: Database, vendor: SandboxHandle, amount: int, link: str, requests: int
) -> None:
    """Nothing where it is right. Where it is always set, the end is looked at twice."""
    vendor.change_rules(next=link)
    ids = push(database, amount or 1, page_size=10)
    for lead_id in ids[:amount]:
        process(vendor, lead_id, now() - timedelta(minutes=1))
    assert poll_outcomes()["requests"] == requests


@pytest.mark.parametrize(("nth", "rows"), [(2, -3), (3, 3), (4, -3)])
def test_pages_that_count_themselves_alone_and_shift(
    database: Database, vendor: SandboxHandle, nth: int, rows: int
) -> None:
    """Their sum does not tell of a row that slipped through: a second reading does."""
    vendor.change_rules(count="page")
    ids = push(database, 45, page_size=10)
    for lead_id in ids:
        process(vendor, lead_id, now())
    vendor.add_fault(route="responses", kind="shift", nth=nth, rows=rows)
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == set(ids)


def test_pages_that_count_themselves_alone_and_are_too_many(
    database: Database, vendor: SandboxHandle
) -> None:
    """They are read in shorter windows: no run keeps more than so many pages in memory."""
    vendor.change_rules(count="page")
    ids = push(database, 120, page_size=1)
    start = now() - timedelta(minutes=10)
    for number, lead_id in enumerate(ids):
        process(vendor, lead_id, start + timedelta(seconds=number))
    summary = backfill_outcomes(after=start, before=now())
    assert set(sql.fetch_outcomes(database)) == set(ids)
    most = sql.fetch_value(database, "SELECT max(pages) FROM leadloop.poll_windows")
    assert (summary["windows"] > 1, most <= MAX_PAGES) == (True, True)


def _sent(database: Database, ago: timedelta) -> None:
    sql.execute(database, "UPDATE leadloop.leads SET sent_at = sent_at - :ago", ago=ago)


@pytest.mark.parametrize("polls_before", [0, 1])
@pytest.mark.parametrize(("ours", "theirs"), [("ms", "s"), ("s", "ms")])
def test_a_wrong_unit_of_times_is_told_and_loses_nothing(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    ours: str,
    theirs: str,
    polls_before: int,
) -> None:
    """One line that says what to set, the watermark waits; once it is set, everything comes."""
    vendor.change_rules(window_unit=theirs)
    monkeypatch.setenv("LEADLOOP_EPOCH_UNIT", ours)
    ids = push(database, 3)
    process(vendor, ids[0], now() - timedelta(hours=20))
    _sent(database, timedelta(hours=23))
    for _ in range(polls_before):
        poll_outcomes()
    query = "SELECT processed_through FROM leadloop.watermarks"
    before = sql.fetch_rows(database, query)
    _sent(database, timedelta(hours=2))
    for _ in range(2):
        with (
            collect_summary() as collected,
            pytest.raises(CampaignsFailed, match=f"LEADLOOP_EPOCH_UNIT, to {theirs}"),
        ):
            poll_outcomes()
        assert collected.summary["requests"] == 2
        assert polls_before == 0 or sql.fetch_rows(database, query) == before
    sql.execute(database, "UPDATE leadloop.campaigns SET epoch_unit = :unit", unit=theirs)
    summary = poll_outcomes()
    assert (summary["inserted"], summary["late"]) == (1, 0)
    assert watermark(database) > now() - timedelta(seconds=30)
    assert poll_outcomes()["requests"] == 1


@pytest.mark.parametrize(("hours", "outcomes", "requests"), [(23, 0, 1), (25, 0, 2), (25, 1, 1)])
def test_what_a_doubt_about_the_unit_costs(
    database: Database, vendor: SandboxHandle, hours: int, outcomes: int, requests: int
) -> None:
    """A request a poll, where a lead was sent more than a day ago and no outcome has ever come."""
    ids = push(database, 2)
    for lead_id in ids[:outcomes]:
        process(vendor, lead_id, now() - timedelta(hours=1))
    _sent(database, timedelta(hours=hours))
    poll_outcomes()
    assert poll_outcomes()["requests"] == requests


def test_a_vendor_that_breaks_down_over_a_unit_is_polled_all_the_same(
    database: Database, vendor: SandboxHandle
) -> None:
    """It has no idea of the year 50,000: that proves nothing, and holds up nothing."""
    push(database, 1)
    _sent(database, timedelta(days=2))
    poll_outcomes()
    vendor.add_fault(route="responses", kind="status", status=500, nth=2)
    vendor.add_fault(route="responses", kind="status", status=500, nth=3)
    vendor.add_fault(route="responses", kind="status", status=500, nth=4)
    assert poll_outcomes()["requests"] == 4
    assert watermark(database) > now() - timedelta(seconds=30)


@pytest.mark.parametrize("form", ["ms", "s", "us", "ns", "iso"])
def test_times_are_read_as_the_vendor_writes_them(
    database: Database, vendor: SandboxHandle, form: str
) -> None:
    """Epoch numbers of every unit and ISO 8601 all arrive as the same moment."""
    vendor.change_rules(time_format=form)
    push(database, 1)
    moment = now().replace(microsecond=0)
    process(vendor, "L0000", moment)
    poll_outcomes()
    assert sql.fetch_value(database, "SELECT processed_at FROM leadloop.lead_outcomes") == moment


def test_a_window_whose_rows_shift_is_read_again(database: Database, vendor: SandboxHandle) -> None:
    """Pages that overlap and leave rows out do not pass for the whole window."""
    ids = push(database, 30, page_size=10)
    for lead_id in ids:
        process(vendor, lead_id, now())
    vendor.add_fault(route="responses", kind="shift", nth=2, rows=-3)
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == set(ids)
    assert sql.fetch_value(
        database, "SELECT bool_and(status <> 'incomplete') FROM leadloop.poll_windows"
    )


def test_an_incomplete_window_holds_the_watermark(
    database: Database, vendor: SandboxHandle
) -> None:
    """What was read is stored, the watermark waits, the run fails; a later poll completes it."""
    ids = push(database, 30, page_size=10)
    poll_outcomes()
    before = watermark(database)
    for lead_id in ids:
        process(vendor, lead_id, now())
    vendor.add_fault(route="responses", kind="shift", rows=3)
    with pytest.raises(CampaignsFailed, match="later polls try"):
        poll_outcomes()
    left = watermark(database)
    assert sql.fetch_outcomes(database)
    vendor.clear_faults()
    sql.execute(database, "UPDATE leadloop.owed_windows SET next_try_at = now()")
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == set(ids)
    assert before <= left < watermark(database)


def test_too_many_pages_are_split(database: Database, vendor: SandboxHandle) -> None:
    """A window that holds more than its pages may be is read in shorter ones, and all of it."""
    ids = push(database, 120, page_size=1)
    start = now() - timedelta(minutes=10)
    for number, lead_id in enumerate(ids):
        process(vendor, lead_id, start + timedelta(seconds=number))
    summary = backfill_outcomes(after=start, before=now())
    assert summary["windows"] > 1
    assert set(sql.fetch_outcomes(database)) == set(ids)


def test_what_holds_too_much_is_divided_before_its_turn(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one window is read to its end, parts of the next one are begun.

    Of three windows of a minute the last one alone has more pages than are read as one.
    """
    monkeypatch.setenv("LEADLOOP_WINDOW", "60")
    ids = push(database, 210, page_size=2)
    start = now() - timedelta(minutes=10)
    for minute, part in enumerate((ids[:20], ids[20:100], ids[100:])):
        for number, lead_id in enumerate(part):
            process(vendor, lead_id, start + timedelta(minutes=minute, seconds=1 + number / 2))
    vendor.change_rules(latency=0.05)
    backfill_outcomes(after=start, before=start + timedelta(minutes=3))
    assert set(sql.fetch_outcomes(database)) == set(ids)
    asked = [_bounds(entry.query) for entry in vendor.requests if entry.kind == "responses"]
    second, third = (start + timedelta(minutes=minute) for minute in (1, 2))
    last_of_second = max(n for n, window in enumerate(asked) if _is_minute(window, second))
    first_of_parts = next(n for n, (after, _) in enumerate(asked) if after > third)
    assert first_of_parts < last_of_second


def _bounds(query: str) -> tuple[datetime, datetime]:
    asked = parse_qs(query)
    after, before = (int(asked[f"processed_{side}"][0]) for side in ("after", "before"))
    return EPOCH + timedelta(milliseconds=after), EPOCH + timedelta(milliseconds=before)


def _is_minute(window: tuple[datetime, datetime], start: datetime) -> bool:
    near = timedelta(milliseconds=2)
    return abs(window[0] - start) <= near and abs(window[1] - start - timedelta(minutes=1)) <= near


def test_a_backfill_never_moves_the_watermark_back(
    database: Database, vendor: SandboxHandle
) -> None:
    """Reading an old range again leaves the watermark where it is."""
    push(database, 1)
    poll_outcomes()
    before = watermark(database)
    backfill_outcomes(after=now() - timedelta(days=1), before=now() - timedelta(hours=20))
    assert watermark(database) == before


def test_a_changed_outcome_is_updated(database: Database, vendor: SandboxHandle) -> None:
    """A lead that is processed again has its newer outcome; an older one never comes back."""
    push(database, 1)
    process(vendor, "L0000", now() - timedelta(seconds=5))
    poll_outcomes()
    process(vendor, "L0000", now(), outcome_name="Callback")
    assert poll_outcomes()["updated"] == 1
    assert sql.fetch_outcomes(database) == {"L0000": "Callback"}


def test_a_late_outcome_is_found_by_the_lookback(database: Database, vendor: SandboxHandle) -> None:
    """An outcome that shows after its time was read is still stored."""
    push(database, 2)
    poll_outcomes()
    process(vendor, "L0001", now() - timedelta(minutes=5))
    assert poll_outcomes()["inserted"] == 1


def test_what_postgres_cannot_store_is_kept_escaped(
    database: Database, vendor: SandboxHandle
) -> None:
    """A NUL, half a surrogate pair and a NaN neither fail the run nor vanish."""
    push(database, 1)
    odd = {"note": "a\x00b", "deep": [{"k\x00": "x"}]}
    process(vendor, "L0000", now(), outcome_name="x\x00y", **odd)
    poll_outcomes()
    assert sql.fetch_outcomes(database) == {"L0000": "x\\u0000y"}
    raw = sql.fetch_value(database, "SELECT raw FROM leadloop.lead_outcomes")
    assert raw["note"] == "a\\u0000b"
    assert raw["deep"] == [{"k\\u0000": "x"}]


@pytest.mark.parametrize("written", ["integer", "float"])
def test_ids_that_are_numbers_match_text_ids(
    database: Database, vendor: SandboxHandle, written: str
) -> None:
    """A vendor that answers 42 or 42.0 for a numeric id does not lose the lead."""
    vendor.change_rules(lead_id_answer=written)
    factories.add_campaign(database)
    factories.add_leads(database, "42")
    push_leads()
    process(vendor, "42", now())
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == {"42"}


def test_an_outcome_settles_a_doubt(database: Database, vendor: SandboxHandle) -> None:
    """A lead in doubt whose outcome comes was created."""
    push(database, 1)
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt'")
    process(vendor, "L0000", now())
    poll_outcomes()
    assert sql.fetch_statuses(database) == {"L0000": "created"}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
        {"kind": "reset"},
        {"kind": "cut"},
        {"kind": "foreign"},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
def test_a_read_that_fails_is_tried_again(
    database: Database, vendor: SandboxHandle, fault: dict[str, Any]
) -> None:
    """Reads are safe to repeat, so one failure costs a retry and nothing else."""
    ids = push(database, 30, page_size=10)
    for lead_id in ids:
        process(vendor, lead_id, now())
    when = "after" if fault["kind"] == "cut" else "before"
    vendor.add_fault(route="responses", when=when, nth=2, **fault)
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == set(ids)


@pytest.mark.parametrize("ahead", [30, 3600, -3600])
def test_the_vendors_clock_says_what_now_is(
    database: Database, vendor: SandboxHandle, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """What it has just processed is read, and nothing beyond its own now is taken for closed."""
    monkeypatch.setenv("LEADLOOP_SETTLE", "10")
    vendor.change_rules(clock_offset=ahead)
    push(database, 1)
    vendor_now = now() + timedelta(seconds=ahead)
    process(vendor, "L0000", vendor_now)
    sql.execute(database, "UPDATE leadloop.leads SET sent_at = sent_at - interval '2 hours'")
    assert poll_outcomes()["inserted"] == 1
    assert watermark(database) <= now() + timedelta(seconds=ahead - 10)


@pytest.mark.parametrize(("behind", "lookback"), [(7200, 900), (3, 0), (60, 0)])
def test_a_vendor_whose_clock_is_behind_loses_nothing_at_the_first_poll(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    behind: int,
    lookback: int,
) -> None:
    """What it processed just after the first send has a time of long before, and is read."""
    monkeypatch.setenv("LEADLOOP_LOOKBACK", str(lookback))
    vendor.change_rules(clock_offset=-behind)
    push(database, 2)
    first_sent = sql.fetch_value(database, "SELECT min(sent_at) FROM leadloop.leads")
    process(vendor, "L0000", first_sent - timedelta(seconds=behind - 0.1))
    assert poll_outcomes()["inserted"] == 1
    after = "SELECT min(window_after) FROM leadloop.poll_windows"
    assert sql.fetch_value(database, after) <= first_sent - timedelta(seconds=behind)
    assert watermark(database) <= now() - timedelta(seconds=behind)
    process(vendor, "L0001", now() - timedelta(seconds=behind))
    assert poll_outcomes()["inserted"] == 1


def test_a_first_poll_that_got_no_answer_begins_anew(
    database: Database, vendor: SandboxHandle
) -> None:
    """The watermark is set once the vendor has told its clock, and not before."""
    vendor.change_rules(clock_offset=-7200)
    push(database, 1)
    process(vendor, "L0000", now() - timedelta(hours=2))
    vendor.add_fault(route="responses", kind="status", status=403)
    with pytest.raises(CampaignsFailed, match="HTTP 403"):
        poll_outcomes()
    vendor.clear_faults()
    assert sql.fetch_rows(database, "SELECT 1 FROM leadloop.watermarks") == []
    assert poll_outcomes()["inserted"] == 1


def test_since_counts_where_there_is_no_watermark(
    database: Database, vendor: SandboxHandle
) -> None:
    """`since` begins a campaign's first poll, and is no more than that."""
    push(database, 1)
    process(vendor, "L0000", now() - timedelta(days=2))
    assert poll_outcomes()["inserted"] == 0
    sql.execute(database, "DELETE FROM leadloop.watermarks")
    assert poll_outcomes(since=now() - timedelta(days=3))["inserted"] == 1
