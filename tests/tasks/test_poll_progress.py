"""Polls that get past anything: what can be read is stored, and the rest is owed."""

import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from db.database import Database
from leadloop.core.timestamps import to_epoch_ms
from tasks.jobs import CampaignsFailed
from tests import factories, sql
from tests.jobs import backfill_outcomes, poll_outcomes
from tests.quirky_api import Answer, Query, QuirkyApi, build_page
from tests.tasks.test_poll_quirky_api import MINUTE, now, result, watermark

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_OWED = """
SELECT window_after, window_before, reason, tries, accepted_at,
       next_try_at > clock_timestamp() AS waits
  FROM leadloop.owed_windows ORDER BY window_after
"""


def add_results(odd: QuirkyApi, amount: int, minutes: float = 120) -> None:
    """Spread results evenly over the last minutes, the oldest first."""
    step = timedelta(minutes=minutes) / amount
    start = now() - timedelta(minutes=minutes)
    odd.rows += [result(f"L{number}", start + number * step) for number in range(amount)]


def fail_on(odd: QuirkyApi, *lead_ids: str, status: int | bytes | None = 500) -> Answer:
    """Fail on each page that would hold one of these leads."""

    def answer(query: Query) -> dict[str, Any] | bytes | int | None:
        page = build_page(odd.rows, query)
        is_bad = any(row["lead_id"] in lead_ids for row in page["results"])
        return status if is_bad else page

    return answer


def fail_alike(answer: Answer, share: float, seed: int) -> Answer:
    """Fail on a share of all requests, whatever they ask for."""
    generator = random.Random(seed)
    return lambda query: 500 if generator.random() < share else answer(query)


def make_due(database: Database) -> None:
    """Let the next poll try what is owed."""
    sql.execute(database, "UPDATE leadloop.owed_windows SET next_try_at = now()")


def processed_at(odd: QuirkyApi, lead_id: str) -> int:
    """When a lead was processed, epoch milliseconds."""
    (row,) = [row for row in odd.rows if row["lead_id"] == lead_id]
    at: int = row["processed_at"]
    return at


@pytest.mark.parametrize("status", [500, 503, 400, 422, 413, b"<html>blocked</html>"])
@pytest.mark.parametrize("order", [1, -1, 0])
def test_one_result_that_cannot_be_read(
    database: Database, odd: QuirkyApi, status: int | bytes, order: int
) -> None:
    """All others are stored by one poll; its instant is owed and named, and later polls go on."""
    add_results(odd, 400)
    if order == -1:
        odd.rows.reverse()
    elif order == 0:
        random.Random(1).shuffle(odd.rows)
    odd.answer = fail_on(odd, "L150", status=status)
    with pytest.raises(
        CampaignsFailed, match=r"1 time range could not be read .*`leadloop owed --campaign C1`"
    ):
        poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 399
    assert len(odd.queries) < (220 if order == 0 else 150)
    (owed,) = sql.fetch_rows(database, _OWED)
    at = processed_at(odd, "L150")
    assert to_epoch_ms(owed["window_after"]) <= at <= to_epoch_ms(owed["window_before"])
    assert owed["window_before"] - owed["window_after"] <= timedelta(milliseconds=10)
    assert watermark(database) == owed["window_after"]

    odd.queries.clear()
    odd.rows.append(result("later", now()))
    poll_outcomes()
    assert "later" in sql.fetch_outcomes(database)
    assert len(odd.queries) == 1, "what is owed and not due costs nothing"


@pytest.mark.parametrize("status", [503, 429])
def test_one_result_that_asks_for_pauses(database: Database, odd: QuirkyApi, status: int) -> None:
    """It is a failure like any other: all others are stored, and its instant is owed."""
    odd.retry_after_s = 0
    add_results(odd, 40)
    odd.answer = fail_on(odd, "L20", status=status)
    with pytest.raises(CampaignsFailed, match=f"1 time range .*HTTP {status}"):
        poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 39


@pytest.mark.parametrize("amount", [40, 400])
@pytest.mark.parametrize("status", [500, 400, b"<html>blocked</html>"])
def test_other_campaigns_do_not_wait_for_a_result_that_cannot_be_read(
    database: Database, odd: QuirkyApi, status: int | bytes, amount: int
) -> None:
    """They have their turn as soon as its first window has failed: each try may time out."""
    add_results(odd, amount)
    factories.add_campaign(database, "C2")
    first_sent_at = now() - 130 * MINUTE
    sent = factories.build_lead("x", status="created", sent_at=first_sent_at)
    factories.add_leads(database, sent, campaign="C2")
    # Its requests are known by their size, which no part of a page of 100 has.
    sql.execute(database, "UPDATE leadloop.campaigns SET page_size = 512 WHERE campaign_id = 'C2'")
    answer = fail_on(odd, f"L{amount // 2}", status=status)
    odd.answer = lambda query: build_page(odd.rows, query) if query.size == 512 else answer(query)
    with pytest.raises(CampaignsFailed, match="campaign C1: 1 time range"):
        poll_outcomes()
    sizes = [query.size for query in odd.queries]
    assert sizes.index(512) < len(sizes) / 2


def test_what_is_owed_is_tried_again_and_closed(database: Database, odd: QuirkyApi) -> None:
    """A try in vain fails the run; a success stores the rest and lets the watermark go on."""
    add_results(odd, 40)
    odd.answer = fail_on(odd, "L7")
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    poll_outcomes()
    make_due(database)
    with pytest.raises(CampaignsFailed, match="HTTP 500"):
        poll_outcomes()
    (owed,) = sql.fetch_rows(database, _OWED)
    assert (owed["tries"], owed["waits"]) == (2, True)
    make_due(database)
    odd.answer = lambda query: build_page(odd.rows, query)
    poll_outcomes()
    assert sql.fetch_rows(database, _OWED) == []
    assert len(sql.fetch_outcomes(database)) == 40
    assert watermark(database) > now() - MINUTE


def test_an_accepted_window_fails_no_run(database: Database, odd: QuirkyApi) -> None:
    """It stays on record and is tried; the watermark goes past it."""
    add_results(odd, 40)
    odd.answer = fail_on(odd, "L7")
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    sql.execute(
        database,
        """UPDATE leadloop.owed_windows
              SET accepted_at = now(), accepted_by = 'me', accepted_reason = 'gone for good'""",
    )
    make_due(database)
    odd.queries.clear()
    poll_outcomes()
    assert len(odd.queries) > 1
    assert [row["waits"] for row in sql.fetch_rows(database, _OWED)] == [True]
    assert watermark(database) > now() - MINUTE


def test_neighbours_at_the_same_instant_are_stored(database: Database, odd: QuirkyApi) -> None:
    """Pages of one row reach what lies beside the one that cannot be read."""
    add_results(odd, 20)
    at = processed_at(odd, "L9")
    odd.rows += [
        {"lead_id": name, "processed_at": at + ms} for name, ms in (("a", -1), ("b", 0), ("c", 1))
    ]
    odd.answer = fail_on(odd, "L9")
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == {row["lead_id"] for row in odd.rows} - {"L9"}


@pytest.mark.parametrize("unit", ["ms", "s"])
def test_several_results_that_cannot_be_read(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    """Also neighbours: each is owed, all others are stored."""
    monkeypatch.setenv("LEADLOOP_EPOCH_UNIT", unit)
    add_results(odd, 300)
    bad = {"L20", "L150", "L151", "L299"}
    page_of = fail_on(odd, *bad)

    def answer(query: Query) -> dict[str, Any] | bytes | int | None:
        scale = 1 if unit == "ms" else 1000
        bounds = {"after": query.after * scale, "before": query.before * scale}
        return page_of(Query(**bounds, page=query.page, size=query.size))

    odd.answer = answer
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == {row["lead_id"] for row in odd.rows} - bad
    owed = sql.fetch_rows(database, _OWED)
    for lead_id in bad:
        at = processed_at(odd, lead_id)
        assert any(
            to_epoch_ms(row["window_after"]) <= at <= to_epoch_ms(row["window_before"])
            for row in owed
        )


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.4])
def test_failures_by_chance_lose_nothing_and_accuse_nobody(
    database: Database, odd: QuirkyApi, share: float
) -> None:
    """One backfill reads everything, within the bound on requests."""
    add_results(odd, 10_000)
    failed = 0
    page_of = fail_alike(lambda query: build_page(odd.rows, query), share, seed=3)

    def answer(query: Query) -> dict[str, Any] | bytes | int | None:
        nonlocal failed
        given = page_of(query)
        failed += given == 500
        return given

    odd.answer = answer
    summary = backfill_outcomes(after=now() - 150 * MINUTE, before=now())
    assert (summary["inserted"], summary["owed"]) == (10_000, 0)
    calm = 110
    assert len(odd.queries) <= (calm + 4 * (calm * share) ** 0.5) / (1 - share) + 3


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize(
    ("asked", "greatest", "learned"), [(100, 50, 50), (100, 30, 25), (97, 50, 48), (100, 3, 1)]
)
def test_pages_above_a_size_are_refused(
    database: Database,
    odd: QuirkyApi,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    asked: int,
    greatest: int,
    learned: int,
) -> None:
    """Whatever they hold: they become small enough, which the next poll knows from the start."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", str(asked))
    add_results(odd, 20, minutes=15)
    odd.answer = lambda query: status if query.size > greatest else build_page(odd.rows, query)
    poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 20
    odd.queries.clear()
    poll_outcomes()
    assert len(odd.queries) <= 3 + 20 // learned


def test_a_single_page_that_is_too_large_is_learned_over_polls(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet campaign shows it once or twice a poll; then a poll costs what its pages cost."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "10")
    add_results(odd, 8, minutes=5)

    def answer(query: Query) -> dict[str, Any] | int:
        page = build_page(odd.rows, query)
        return 502 if len(page["results"]) > 5 else page

    odd.answer = answer
    for _ in range(3):
        poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 8
    odd.queries.clear()
    poll_outcomes()
    assert {query.size for query in odd.queries} == {5}
    assert len(odd.queries) <= 4


@pytest.mark.parametrize("status", [400, 422, 500])
def test_pages_beyond_a_depth_are_refused(database: Database, odd: QuirkyApi, status: int) -> None:
    """Windows become short enough, which the next poll knows from the start."""
    add_results(odd, 3000, minutes=15)
    odd.answer = lambda query: status if query.page > 10 else build_page(odd.rows, query)
    assert poll_outcomes()["inserted"] == 3000
    first = len(odd.queries)
    limits = "SELECT name, value FROM leadloop.learned_limits"
    assert sql.fetch_rows(database, limits) == [{"name": "page_depth", "value": 10}]
    odd.queries.clear()
    backfill_outcomes(after=now() - 20 * MINUTE, before=now())
    assert len(odd.queries) < first
    assert not any(query.page > 10 for query in odd.queries)


@pytest.mark.parametrize("status", [400, 413, 500, 502])
def test_answers_over_some_size_are_refused(
    database: Database, odd: QuirkyApi, status: int
) -> None:
    """Pages become small enough, which the next poll knows; a day later more is tried again."""
    add_results(odd, 1500, minutes=15)

    def answer(query: Query) -> dict[str, Any] | int:
        page = build_page(odd.rows, query)
        return status if len(page["results"]) > 60 else page

    odd.answer = answer
    assert poll_outcomes()["inserted"] == 1500
    limits = "SELECT name, value FROM leadloop.learned_limits"
    assert sql.fetch_rows(database, limits) == [{"name": "page_size", "value": 50}]
    odd.queries.clear()
    backfill_outcomes(after=now() - 20 * MINUTE, before=now())
    assert {query.size for query in odd.queries} == {50}
    sql.execute(database, "UPDATE leadloop.learned_limits SET learned_at = now() - interval '25 h'")
    odd.answer = lambda query: build_page(odd.rows, query)
    backfill_outcomes(after=now() - 20 * MINUTE, before=now())
    assert sql.fetch_rows(database, limits) == []


def test_a_result_shown_twice_in_one_answer(database: Database, odd: QuirkyApi) -> None:
    """It is harmless: the answer holds the whole window, and as many rows as its count."""
    add_results(odd, 19, minutes=10)
    odd.rows.append(dict(odd.rows[3]))
    poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 19
    assert watermark(database) > now() - MINUTE


def test_a_result_shown_twice_across_pages_hides_another(
    database: Database, odd: QuirkyApi
) -> None:
    """Ties in the vendor's order: split until one page holds the window, and nothing is lost."""
    add_results(odd, 2000, minutes=60)
    generator = random.Random(5)

    def answer(query: Query) -> dict[str, Any]:
        found = [row for row in odd.rows if query.after <= row["processed_at"] <= query.before]
        # Each page is cut from an order of its own where minutes tie.
        generator.shuffle(found)
        found.sort(key=lambda row: row["processed_at"] // 60_000)
        start = (query.page - 1) * query.size
        return {"count": len(found), "results": found[start : start + query.size]}

    odd.answer = answer
    poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 2000


@pytest.mark.parametrize("redacted", [None, {}, {"deleted": True}])
def test_redacted_results(database: Database, odd: QuirkyApi, redacted: object) -> None:
    """They are kept with how many there were, and the window is complete."""
    add_results(odd, 20, minutes=10)

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        for number, row in enumerate(page["results"]):
            if row["lead_id"] in ("L3", "L4"):
                page["results"][number] = redacted
        return page

    odd.answer = answer
    poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 18
    query = "SELECT sum(occurrences) FROM leadloop.unreadable_results"
    assert sql.fetch_value(database, query) == 2
    assert watermark(database) > now() - MINUTE
    poll_outcomes()
    assert sql.fetch_value(database, query) == 2


def test_a_count_that_never_adds_up_is_owed_where_it_does_not(
    database: Database, odd: QuirkyApi
) -> None:
    """A row that is counted and never shown: its instant is owed, nothing else waits for it."""
    add_results(odd, 60)
    hidden = to_epoch_ms(now() - 60 * MINUTE)

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        return {**page, "count": page["count"] + (query.after <= hidden <= query.before)}

    odd.answer = answer
    counts = r"\((1 row was|(?!1 )\d+ rows were) read, and \d+ counted\)"
    with pytest.raises(CampaignsFailed, match=counts):
        poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 60
    owed = sql.fetch_rows(database, _OWED)
    assert all(row["window_before"] - row["window_after"] < timedelta(seconds=1) for row in owed)
    poll_outcomes()


def test_a_count_that_adds_up_nowhere_costs_little(database: Database, odd: QuirkyApi) -> None:
    """All is stored and all is owed; no instant is looked for that is everywhere."""
    add_results(odd, 60)

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        return {**page, "count": page["count"] + 1}

    odd.answer = answer
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 60
    assert len(odd.queries) < 120


def test_a_vendor_that_ignores_the_page(database: Database, odd: QuirkyApi) -> None:
    """It names a next page for ever: a page that brings nothing new ends the window."""
    add_results(odd, 20, minutes=10)

    def answer(query: Query) -> dict[str, Any]:
        found = [row for row in odd.rows if query.after <= row["processed_at"] <= query.before]
        return {"count": len(found), "results": found, "next": "http://x/"}

    odd.answer = answer
    poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 20
    assert len(odd.queries) < 10


def test_an_outage_of_seconds_is_waited_out(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read is kept, and the first request after it is a read of something else."""
    add_results(odd, 500)
    down: list[Query] = []

    def answer(query: Query) -> dict[str, Any] | int:
        if len(odd.queries) >= 4 and len(down) < 15:
            down.append(query)
            return 503
        return build_page(odd.rows, query)

    odd.answer = answer
    summary = poll_outcomes()
    assert (summary["inserted"], summary["owed"]) == (500, 0)


def test_an_outage_ends_the_run_with_one_line(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the address and the next step; what was read before is stored."""
    monkeypatch.setattr("tasks.outages.OUTAGE_S", 0.5)
    monkeypatch.setattr("tasks.outages._RECENT_S", 0.0)
    monkeypatch.setenv("LEADLOOP_WINDOW", "600")
    add_results(odd, 500)
    odd.answer = lambda query: 503 if len(odd.queries) > 5 else build_page(odd.rows, query)
    with pytest.raises(CampaignsFailed, match=f"{odd.url} has answered no request for") as failed:
        poll_outcomes()
    assert "\n" not in str(failed.value)
    assert sql.fetch_rows(database, _OWED) == []
    assert sql.fetch_outcomes(database)


def test_a_poll_of_a_campaign_that_owes_much_costs_what_is_due(
    database: Database, odd: QuirkyApi
) -> None:
    """A month of owed instants costs no request while none is due."""
    odd.rows.append(result("x", now()))
    poll_outcomes()
    sql.execute(
        database,
        """INSERT INTO leadloop.owed_windows
                  (campaign_id, window_after, window_before, reason, next_try_at)
           SELECT 'C1', at, at + interval '4 ms', 'HTTP 500', now() + interval '1 day'
             FROM generate_series(now() - interval '30 days', now() - interval '1 hour',
                                  interval '1 hour') AS at""",
    )
    odd.queries.clear()
    poll_outcomes()
    assert len(odd.queries) == 1


def test_windows_that_an_older_version_left_incomplete(database: Database, odd: QuirkyApi) -> None:
    """Housekeeping may delete old windows: what is owed is on record elsewhere."""
    add_results(odd, 40)
    odd.answer = fail_on(odd, "L7")
    with pytest.raises(CampaignsFailed):
        poll_outcomes()
    sql.execute(database, "DELETE FROM leadloop.poll_windows")
    make_due(database)
    odd.answer = lambda query: build_page(odd.rows, query)
    poll_outcomes()
    assert len(sql.fetch_outcomes(database)) == 40


def test_time_of_first_failure_is_kept(database: Database, odd: QuirkyApi) -> None:
    """The row of an owed window says since when, however often it was tried."""
    add_results(odd, 40)
    odd.answer = fail_on(odd, "L7")
    found: list[datetime] = []
    for _ in range(2):
        with pytest.raises(CampaignsFailed):
            poll_outcomes()
        found.append(sql.fetch_value(database, "SELECT found_at FROM leadloop.owed_windows"))
        make_due(database)
    assert found[0] == found[1]


@pytest.mark.parametrize("status", [500, 400, b"<html>blocked</html>", None])
def test_a_first_lead_that_fails_is_no_outage(
    database: Database, odd: QuirkyApi, status: int | bytes | None
) -> None:
    """Whatever comes of the campaign's first lead, or nothing, comes of the probe too."""
    add_results(odd, 30)
    page_of = fail_on(odd, "L0", status=status)
    # A listing of the campaign, without bounds, shows that lead first.
    odd.answer = lambda query: page_of(query) if query.before else status
    with pytest.raises(CampaignsFailed, match="could not be read completely"):
        poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == {f"L{number}" for number in range(1, 30)}


def add_repeat_in_one_second(odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show four rows of one second, the unit of bounds; one is a repeat, and pages hold three."""
    monkeypatch.setenv("LEADLOOP_EPOCH_UNIT", "s")
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "3")
    moment = to_epoch_ms(now() - 5 * MINUTE) // 1000
    odd.rows += [{"lead_id": name, "processed_at": moment} for name in "ABCA"]


def test_a_repeat_in_one_second_that_no_page_holds(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the unit is seconds, no shorter window helps: it is owed, after few requests."""
    add_repeat_in_one_second(odd, monkeypatch)
    odd.answer = lambda query: 400 if query.size > 3 else build_page(odd.rows, query)
    with pytest.raises(CampaignsFailed, match="3 rows were read, and 4 counted"):
        poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == set("ABC")
    assert len(odd.queries) < 150


def test_a_repeat_in_one_second_that_a_larger_page_holds(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer proves it, if the vendor gives more than is usually asked for."""
    add_repeat_in_one_second(odd, monkeypatch)
    poll_outcomes()
    assert set(sql.fetch_outcomes(database)) == set("ABC")


@pytest.mark.parametrize(("unreadable", "amount"), [(3, 5), (6, 8), (8, 10)])
def test_many_results_of_one_instant_that_cannot_be_read(
    database: Database, odd: QuirkyApi, unreadable: int, amount: int
) -> None:
    """Those behind them are stored."""
    moment = to_epoch_ms(now() - 5 * MINUTE)
    odd.rows += [{"lead_id": f"L{number}", "processed_at": moment} for number in range(amount)]
    odd.answer = fail_on(odd, *(f"L{number}" for number in range(unreadable)))
    with pytest.raises(CampaignsFailed, match="1 time range"):
        poll_outcomes()
    readable = {f"L{number}" for number in range(unreadable, amount)}
    assert set(sql.fetch_outcomes(database)) == readable


def test_different_unreadable_results_on_several_pages(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They name no lead, so no lead was processed again: the window is verified as it is."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "10")
    add_results(odd, 25, minutes=10)

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        page["results"] = [
            {"deleted": row["lead_id"]} if row["lead_id"] in ("L3", "L14") else row
            for row in page["results"]
        ]
        return page

    odd.answer = answer
    backfill_outcomes(after=now() - 30 * MINUTE, before=now() - 2 * MINUTE)
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.poll_windows") == 1
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.unreadable_results") == 2


def test_a_lead_that_is_processed_again_within_its_window(
    database: Database, odd: QuirkyApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pages it moves to the last one, and pulls a row over the border behind it."""
    monkeypatch.setenv("LEADLOOP_PAGE_SIZE", "10")
    monkeypatch.setenv("LEADLOOP_CONCURRENCY", "1")
    add_results(odd, 30, minutes=20)

    def answer(query: Query) -> dict[str, Any]:
        if query.page == 3 and odd.rows[15]["lead_id"] == "L15":
            odd.rows.append({**odd.rows.pop(15), "processed_at": to_epoch_ms(now() - MINUTE)})
        return build_page(odd.rows, query)

    odd.answer = answer
    backfill_outcomes(after=now() - 30 * MINUTE, before=now())
    assert set(sql.fetch_outcomes(database)) == {f"L{number}" for number in range(30)}


@pytest.mark.parametrize("page_is_ignored", [True, False])
def test_rows_alone_at_a_vendor_that_always_names_a_next_page(
    database: Database, odd: QuirkyApi, page_is_ignored: bool
) -> None:
    """What lies beside an instant that cannot be read is stored, after few requests."""
    add_results(odd, 5, minutes=10)
    at = processed_at(odd, "L2")
    odd.rows.append({"lead_id": "beside", "processed_at": at})
    page_of = fail_on(odd, "L2")

    def answer(query: Query) -> dict[str, Any] | bytes | int | None:
        number = 1 if page_is_ignored else query.page
        shown = page_of(replace(query, page=number))
        return {**shown, "next": "http://x/"} if isinstance(shown, dict) else shown

    odd.answer = answer
    with pytest.raises(CampaignsFailed, match="could not be read completely"):
        poll_outcomes()
    others = {"L0", "L1", "L3", "L4"} | (set() if page_is_ignored else {"beside"})
    assert set(sql.fetch_outcomes(database)) == others
    assert len(odd.queries) < 300
