"""Polls of a vendor that does what the document does not rule out, over real HTTP."""

import logging
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from string import ascii_letters, digits
from typing import Any

import pytest

from db import campaign_status
from db.database import Database
from leadloop.core.timestamps import to_epoch_ms
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.conftest import Ran
from tests.jobs import backfill_outcomes, poll_outcomes
from tests.quirky_api import Query, QuirkyApi, build_page, run_quirky_api

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

MINUTE = timedelta(minutes=1)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[QuirkyApi]:
    """An odd vendor in place of the sandbox, and a campaign whose lead it has had for an hour."""
    with run_quirky_api() as vendor:
        monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
        monkeypatch.setattr("tasks.retries._PAUSES_S", (0.0,))
        factories.add_campaign(database)
        factories.add_leads(
            database, factories.build_lead("x", status="created", sent_at=now() - 60 * MINUTE)
        )
        yield vendor


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What flow runs warn of."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    ear, logger = Ear(logging.WARNING), logging.getLogger("leadloop.tests")
    logger.addHandler(ear)
    yield heard
    logger.removeHandler(ear)


def now() -> datetime:
    """Our clock."""
    return datetime.now(UTC)


def result(lead_id: str, at: datetime, **more: Any) -> dict[str, Any]:
    """A processed lead."""
    return {"lead_id": lead_id, "processed_at": to_epoch_ms(at), "outcome_name": "Yes", **more}


def watermark(database: Database) -> datetime:
    """Up to where everything is stored."""
    mark: datetime = sql.fetch_value(database, "SELECT processed_through FROM leadloop.watermarks")
    return mark


# Clocks


def test_one_wrong_clock_hides_nothing(
    database: Database, odd: QuirkyApi, warnings: list[str]
) -> None:
    """A Date of tomorrow is told with both clocks, and what comes after it is read as ever."""
    odd.ahead_s = 86_400
    poll_outcomes()
    assert watermark(database) <= now()
    assert any(
        "the vendor's clock is at" in words and "the database's" in words for words in warnings
    )
    odd.ahead_s = 0
    odd.rows.append(result("x", now()))
    poll_outcomes()
    assert sql.fetch_outcomes(database) == {"x": "Yes"}


def test_a_clock_that_is_an_hour_ahead_is_followed(database: Database, odd: QuirkyApi) -> None:
    """By the first poll and by every one after it, though the watermark stays behind our clock."""
    odd.ahead_s = 3600
    for number in range(3):
        lead_id = f"L{number}"
        odd.rows.append(result(lead_id, now() + 60 * MINUTE))
        poll_outcomes()
        assert lead_id in sql.fetch_outcomes(database)
    assert watermark(database) <= now()


def test_a_watermark_in_the_future_is_told_and_does_not_blind(
    database: Database, odd: QuirkyApi
) -> None:
    """Whoever set it: the vendor is asked all the same, and the run fails with what to do."""
    poll_outcomes()
    sql.execute(
        database, "UPDATE leadloop.watermarks SET processed_through = now() + interval '1 day'"
    )
    odd.rows.append(result("x", now()))
    odd.queries.clear()
    with pytest.raises(CampaignsFailed, match=r"watermark .* is ahead of now .* the database's"):
        poll_outcomes()
    assert odd.queries
    assert sql.fetch_outcomes(database) == {"x": "Yes"}


# Rows


_NOISE = "".join(random.Random(1).choices(ascii_letters + digits, k=12_000))
_BAD = {
    "an integer without end": '"score": ' + "9" * 5000,
    "a byte that is no UTF-8": '"contact_name": "Jos\udce9"',
    "a bare tab and NUL": '"note": "a\tb\x00"',
    "a reference without end": f'"call_attempt_x_1": [{{"reference_id": "{_NOISE}"}}]',
    "a block without end": f'"sms_{_NOISE}": {{"cost": 1}}',
    "nested": '"x": ' + "[" * 930 + "]" * 930,
    "nested without end": '"x": ' + '{"k":' * 20_000 + "1" + "}" * 20_000,
    "an id without end": f'"lead_id": "{_NOISE}"',
}


@pytest.mark.parametrize("bad", _BAD)
@pytest.mark.parametrize("size", [1, 100])
def test_an_odd_row_spoils_nothing(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch, bad: str, size: int
) -> None:
    """The row beside it is stored, it is kept itself, and the watermark moves on."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", str(size))
    good = f'{{"lead_id": "good", "processed_at": {to_epoch_ms(now() - MINUTE)}}}'
    row = f'{{"lead_id": "bad", "processed_at": {to_epoch_ms(now() - MINUTE)}, {_BAD[bad]}}}'

    def answer(query: Query) -> bytes:
        if query.before < to_epoch_ms(now() - 2 * MINUTE) or query.after > to_epoch_ms(
            now() - MINUTE
        ):
            return b'{"count": 0, "results": []}'
        start = (query.page - 1) * query.size
        rows = ",".join([good, row][start : start + query.size])
        return f'\ufeff{{"count": 2, "results": [{rows}]}}'.encode("utf-8", "surrogateescape")

    odd.answer = answer
    poll_outcomes()
    stored = set(sql.fetch_outcomes(database))
    kept = sql.fetch_value(database, "SELECT count(*) FROM leadloop.unreadable_results")
    assert (stored, kept) in (({"good", "bad"}, 0), ({"good"}, 1))
    assert watermark(database) > now() - MINUTE


@pytest.mark.parametrize("time", [{}, {"processed_at": None}, {"processed_at": ""}])
@pytest.mark.parametrize("size", [2, 100])
def test_a_result_without_its_time_is_kept(
    database: Database,
    odd: QuirkyApi,
    monkeypatch: pytest.MonkeyPatch,
    time: dict[str, Any],
    size: int,
) -> None:
    """As it came, with the reason, beside the outcomes of its window; its attempts are stored."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", str(size))
    odd.rows += [result(lead_id, now() - MINUTE) for lead_id in "ABCD"]
    calls = {"call_attempt_x_1": [{"reference_id": "r1", "outcome_name": "No"}]}

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        for number, row in enumerate(page["results"]):
            if row["lead_id"] in "BC":
                bare = {key: row[key] for key in ("lead_id", "outcome_name")}
                page["results"][number] = {**bare, **calls, **time}
        return page

    odd.answer = answer
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == {"A", "D"}
    kept = sql.fetch_rows(database, "SELECT reason, raw FROM leadloop.unreadable_results")
    assert {row["raw"]["lead_id"] for row in kept} == {"B", "C"}
    assert all("processed_at: missing" in row["reason"] for row in kept)
    attempts = sql.fetch_rows(database, "SELECT lead_id FROM leadloop.outreach_attempts")
    assert {row["lead_id"] for row in attempts} == {"B", "C"}
    assert watermark(database) > now() - 5 * MINUTE
    poll_outcomes()
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.unreadable_results") == 2


def test_what_cannot_be_read_of_the_forgotten_is_not_kept_again(
    database: Database, odd: QuirkyApi, leadloop: Callable[..., Ran]
) -> None:
    """Its window is read again by the next poll; what is not theirs is kept as ever."""
    factories.add_leads(database, factories.build_lead("17", status="created"))

    def answer(query: Query) -> dict[str, Any]:
        found = [{"lead_id": 17, "note": "private"}, {"lead_id": "x"}] if query.page == 1 else []
        return {"count": 2, "results": found}

    odd.answer = answer
    with pytest.raises(CampaignsFailed, match="2 of 2 results could not be parsed"):
        poll_outcomes()
    assert (
        leadloop("forget", "--yes", "--campaign", factories.CAMPAIGN, "--lead-id", "17").code == 0
    )
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    assert sql.fetch_value(database, "SELECT raw FROM leadloop.unreadable_results") == {
        "lead_id": "x"
    }


# Proof


def test_a_row_that_leaves_and_one_that_comes_are_noticed(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count stands still between two pages, and yet a row slipped from one to the other."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "2")
    at = now() - 30 * MINUTE
    odd.rows += [result(lead_id, at + timedelta(seconds=n)) for n, lead_id in enumerate("ABCD")]

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        if page["count"] == 4 and odd.rows[0]["lead_id"] == "A":
            odd.rows.append(result("Y", at + timedelta(seconds=9)))
            odd.rows.append({**odd.rows.pop(0), "processed_at": to_epoch_ms(now() + 60 * MINUTE)})
        return page

    odd.answer = answer
    poll_outcomes()
    assert {"B", "C", "D", "Y"} <= set(sql.fetch_outcomes(database))


def test_a_row_that_leaves_a_page_in_the_middle_is_noticed(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page is the same at the end, but the lead that left was processed just now."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "2")
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    at = now() - 30 * MINUTE
    odd.rows += [result(lead_id, at + timedelta(seconds=n)) for n, lead_id in enumerate("ABCDEFGH")]

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        if query.page == 2 and odd.rows[2]["lead_id"] == "C":
            odd.rows.append(result("Y", at + timedelta(seconds=9)))
            odd.rows.append({**odd.rows.pop(2), "processed_at": to_epoch_ms(now())})
        return page

    odd.answer = answer
    poll_outcomes()
    assert set("ABDEFGHY") <= set(sql.fetch_outcomes(database))


def test_a_window_whose_leads_are_processed_again_all_the_time(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in parts, each of one page, it is proven all the same; no outcome is lost."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "3")
    odd.rows += [result(f"L{n:02}", now() - (10 + n) * MINUTE) for n in range(30)]

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        if query.page > 1 and len(odd.queries) % 3 == 0:
            again = min(odd.rows, key=lambda row: row["processed_at"])
            odd.rows.remove(again)
            odd.rows.append({**again, "processed_at": to_epoch_ms(now()), "outcome_name": "Again"})
        return page

    odd.answer = answer
    poll_outcomes()
    odd.answer = lambda query: build_page(odd.rows, query)
    poll_outcomes()
    assert sql.fetch_outcomes(database) == {row["lead_id"]: row["outcome_name"] for row in odd.rows}
    assert "Again" in sql.fetch_outcomes(database).values()
    query = "SELECT count(*) FROM leadloop.poll_windows WHERE status = 'incomplete'"
    assert sql.fetch_value(database, query) == 0


@pytest.mark.parametrize(("results", "requests"), [(0, 1), (10, 1), (20, 3), (100, 12)])
def test_what_the_proof_costs(
    database: Database,
    odd: QuirkyApi,
    monkeypatch: pytest.MonkeyPatch,
    results: int,
    requests: int,
) -> None:
    """Nothing where one answer holds all; one request more for two pages, two for any number."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "10")
    monkeypatch.setenv("LEADLOOP_WINDOW", "7200")
    odd.rows += [result(f"L{number}", now() - 5 * MINUTE) for number in range(results)]
    assert poll_outcomes()["requests"] == requests


def test_a_count_that_has_a_limit_is_not_believed(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than are counted: read in parts that are counted right, and nothing is lost."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "5")
    odd.rows += [result(f"L{n:02}", now() - (1 + n) * MINUTE) for n in range(40)]

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        goes_on = query.page * query.size < page["count"]
        return {**page, "count": min(page["count"], 15), "next": "http://x/" if goes_on else None}

    odd.answer = answer
    assert poll_outcomes()["inserted"] == 40
    assert watermark(database) > now() - MINUTE


def test_rows_beyond_what_is_counted_leave_a_window_incomplete(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even short windows are counted right, the run says so and the watermark waits."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "2")
    at = now() - 30 * MINUTE
    odd.rows += [result(lead_id, at) for lead_id in "ABCDE"]

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        goes_on = query.page * query.size < page["count"]
        return {**page, "count": min(page["count"], 4), "next": "http://x/" if goes_on else None}

    odd.answer = answer
    with pytest.raises(CampaignsFailed, match="could not be read completely"):
        poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == set("ABCDE")
    assert watermark(database) <= at


def test_years_are_cheap_where_a_next_is_always_named(database: Database, odd: QuirkyApi) -> None:
    """The end is looked at twice before the range is taken for no more than it holds."""
    odd.rows.append(result("x", now() - 1000 * 1440 * MINUTE))
    odd.answer = lambda query: {**build_page(odd.rows, query), "next": "http://x/"}
    summary = backfill_outcomes(after=now() - timedelta(days=1826), before=now())
    assert (summary["inserted"], summary["requests"]) == (1, 4)


def test_what_was_incomplete_behind_the_watermark_is_read_again(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next poll, even where the lookback has been made too short to reach it."""
    monkeypatch.setenv("LEADLOOP_WINDOW", "300")
    late = result("late", now() - 50 * MINUTE)
    odd.rows.append(late)
    mark = now() - 40 * MINUTE
    sql.execute(
        database, "INSERT INTO leadloop.watermarks VALUES ('C1', 'outcomes', :mark)", mark=mark
    )

    def answer(query: Query) -> dict[str, Any]:
        return {**build_page(odd.rows, query), "results": []}

    odd.answer = answer
    with pytest.raises(CampaignsFailed, match="later polls try"):
        poll_outcomes()
    assert watermark(database) == mark
    odd.answer = lambda query: build_page(odd.rows, query)
    monkeypatch.setenv("LEADLOOP_LOOKBACK", "0")
    sql.execute(database, "UPDATE leadloop.owed_windows SET next_try_at = now()")
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == {"late"}
    assert watermark(database) > now() - MINUTE
    odd.queries.clear()
    poll_outcomes()
    assert len(odd.queries) == 1


# Cost


def test_a_count_that_ignores_the_filters_ends_the_run(database: Database, odd: QuirkyApi) -> None:
    """After a few requests, not after millions, and with what to say to the vendor."""
    odd.answer = lambda _: {"count": 1_000_000, "results": []}
    with pytest.raises(CampaignsFailed, match="ignores processed_after"):
        poll_outcomes()
    assert len(odd.queries) < 20


@pytest.mark.parametrize("unit", ["ms", "s"])
def test_a_crowd_in_one_moment_is_told_from_it(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    """One part claims as much as the whole, and rightly: it is read, however many pages it has."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "2")
    monkeypatch.setenv("LEADLOOP_EPOCH_UNIT", unit)
    scale = 1 if unit == "ms" else 1000
    moment = to_epoch_ms(now() - MINUTE) // scale
    odd.rows += [{"lead_id": f"L{number}", "processed_at": moment} for number in range(120)]
    poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 120


@pytest.mark.parametrize("years", [5, 56, 2000])
def test_a_backfill_of_empty_years_is_cheap(database: Database, odd: QuirkyApi, years: int) -> None:
    """Whoever asks for all there is does not wait for half a million requests."""
    after = now().replace(year=now().year - years, day=1)
    assert backfill_outcomes(after=after, before=now())["requests"] == 1


def test_a_backfill_of_years_with_a_little_in_them(database: Database, odd: QuirkyApi) -> None:
    """It costs about as much as there is, not as long as the years are."""
    for number in range(300):
        day = now() - timedelta(days=1 + number * 6)
        odd.rows.append(result(f"L{number}", day))
    summary = backfill_outcomes(after=now() - timedelta(days=1826), before=now())
    assert summary["inserted"] == 300
    assert summary["requests"] < 20
    longest = """SELECT max(window_before - window_after) FROM leadloop.poll_windows
                  WHERE stored_count > 0"""
    assert sql.fetch_value(database, longest) <= timedelta(hours=1), "LEADLOOP_WINDOW"
    total = sql.fetch_value(database, "SELECT sum(stored_count) FROM leadloop.poll_windows")
    assert total >= 300, "one on a border is in both windows"


def test_a_long_range_that_the_vendor_refuses_is_asked_for_in_parts(
    database: Database, odd: QuirkyApi
) -> None:
    """Down to the windows that the settings name; no shorter ones are made of it."""
    odd.rows.append(result("x", now() - 90 * MINUTE))

    def answer(query: Query) -> dict[str, Any] | int:
        return 400 if query.before - query.after > 10 * 3_600_000 else build_page(odd.rows, query)

    odd.answer = answer
    assert backfill_outcomes(after=now() - timedelta(days=3), before=now())["inserted"] == 1
    odd.answer = lambda _: 400
    with pytest.raises(CampaignsFailed, match="HTTP 400"):
        backfill_outcomes(after=now() - timedelta(days=3), before=now())


# Backfills


def _hourly(odd: QuirkyApi, hours: int) -> tuple[datetime, datetime]:
    """Three pages of two results in each of the last hours; the range of them."""
    after = now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours + 1)
    for hour in range(hours):
        for turn in range(6):
            at = after + timedelta(hours=hour, minutes=5 + turn)
            odd.rows.append(result(f"L{hour}-{turn}", at))
    return after, after + timedelta(hours=hours)


@pytest.mark.parametrize("killed", [True, False])
def test_a_backfill_that_was_broken_off_goes_on_where_it_was(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """It reads what is missing alone; once it is completed, the same command reads all again."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "2")
    after, before = _hourly(odd, 12)
    middle = to_epoch_ms(after + timedelta(hours=6))

    def answer(query: Query) -> dict[str, Any] | int:
        whole = query.before - query.after > 7 * 3_600_000
        just_now = query.after > to_epoch_ms(before)
        known = whole or just_now or query.before <= middle + 1
        return build_page(odd.rows, query) if known else 403

    odd.answer = answer
    with pytest.raises(CampaignsFailed):
        backfill_outcomes(after=after, before=before)
    stored = len(sql.fetch_outcomes(database))
    assert 0 < stored < 72
    if killed:
        sql.execute(database, "UPDATE leadloop.sync_runs SET state = 'running', ended_at = NULL")
    odd.answer = lambda query: build_page(odd.rows, query)
    second = backfill_outcomes(after=after, before=before)
    assert (second["seen"], second["inserted"]) == (72 - stored, 72 - stored)
    third = backfill_outcomes(after=after, before=before)
    assert (third["seen"], third["unchanged"]) == (72, 72)
    other = backfill_outcomes(after=after, before=before - MINUTE)
    assert other["seen"] == 72


def test_a_backfill_moves_the_watermark_over_what_adjoins(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over windows of a backfill that was broken off too, and never over a gap."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "2")
    after, before = _hourly(odd, 12)
    sql.execute(
        database, "INSERT INTO leadloop.watermarks VALUES ('C1', 'outcomes', :mark)", mark=after
    )
    gap = to_epoch_ms(after + timedelta(hours=3, minutes=30))

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        short = query.before - query.after < 2 * 3_600_000
        return {**page, "count": 9} if short and query.after < gap < query.before else page

    odd.answer = answer
    with pytest.raises(CampaignsFailed, match="could not be read completely"):
        backfill_outcomes(after=after, before=before)
    assert len(sql.fetch_outcomes(database)) == 72
    assert after + 2 * 60 * MINUTE <= watermark(database) <= after + 3.5 * 60 * MINUTE
    odd.answer = lambda query: build_page(odd.rows, query)
    assert backfill_outcomes(after=after, before=before)["windows"] == 1
    assert watermark(database) == before


def test_several_windows_are_read_at_once(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many requests as LEADLOOP_CONCURRENCY says are on their way, and no more."""
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "3")
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "6")
    after, before = _hourly(odd, 12)
    gate, lock = threading.Barrier(3), threading.Lock()
    now_in, most_in = 0, 0

    def answer(query: Query) -> dict[str, Any]:
        nonlocal now_in, most_in
        with lock:
            now_in += 1
            most_in = max(most_in, now_in)
        if len(odd.queries) in (2, 3, 4):
            gate.wait(timeout=30)
        with lock:
            now_in -= 1
        return build_page(odd.rows, query)

    odd.answer = answer
    assert backfill_outcomes(after=after, before=before)["inserted"] == 72
    assert most_in == 3


# Lateness


def test_what_comes_late_is_measured(
    database: Database, odd: QuirkyApi, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just inside the lookback it is told; beyond it, a backfill finds it and says what to set.

    It is a problem until that has been set.
    """
    for lead_id in ("first", "second"):
        odd.rows.append(result(lead_id, now() - MINUTE))
        summary = poll_outcomes()
        assert summary["late"] == (lead_id == "second")
    odd.rows.append(result("just", now() - 14 * MINUTE))
    assert poll_outcomes()["late"] == 1
    assert "was barely long enough" in warnings[-1]
    odd.rows.append(result("beyond", now() - 40 * MINUTE))
    assert poll_outcomes()["late"] == 0
    summary = backfill_outcomes(after=now() - 60 * MINUTE, before=now())
    assert summary["late"] == 1
    assert 2300 < summary["campaigns"]["C1"]["lookback_needed_s"] < 2700
    assert "LEADLOOP_LOOKBACK=900 is too short, set it to 3" in warnings[-1]
    counts = "SELECT counts FROM leadloop.sync_runs ORDER BY run_id DESC LIMIT 1"
    assert sql.fetch_value(database, counts)["late"] == 1
    with database.transaction() as connection:
        (told,) = campaign_status.list_campaign_health(connection, ["C1"])
    assert told["late"] == 3
    assert 2300 < told["lookback_needed_s"] < 2700
    wrong = "SELECT count(*) FROM leadloop_monitor.problems WHERE problem = 'outcomes_late'"
    assert sql.fetch_value(database, wrong) == 1
    monkeypatch.setenv("LEADLOOP_LOOKBACK", "2700")
    poll_outcomes()
    assert sql.fetch_value(database, wrong) == 0


def test_what_nobody_looked_for_is_not_late(database: Database, odd: QuirkyApi) -> None:
    """The first reading of an old range finds old outcomes, and says nothing of the lookback."""
    odd.rows.append(result("x", now() - MINUTE))
    poll_outcomes()
    odd.rows.append(result("old", now() - timedelta(days=30)))
    assert backfill_outcomes(after=now() - timedelta(days=60), before=now())["late"] == 0


def test_a_lead_that_is_processed_again_in_time_is_not_late(
    database: Database, odd: QuirkyApi
) -> None:
    """Its new outcome is measured anew, whatever the old one was."""
    poll_outcomes()
    odd.rows.append(result("x", now() - 5 * MINUTE))
    assert poll_outcomes()["late"] == 1
    odd.rows[:] = [result("x", now())]
    assert poll_outcomes()["late"] == 0
    needed = "SELECT lookback_needed_s FROM leadloop.lead_outcomes"
    assert sql.fetch_value(database, needed) is None


def test_since_before_all_times(database: Database, odd: QuirkyApi) -> None:
    """All there is may be typed as the year 1: the watermark moves on from there as ever."""
    odd.rows.append(result("x", now() - timedelta(days=4000)))
    assert poll_outcomes(since=datetime(1, 1, 2, tzinfo=UTC))["inserted"] == 1
    assert watermark(database) > now() - MINUTE
