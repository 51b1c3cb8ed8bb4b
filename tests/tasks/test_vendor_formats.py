"""Polls of a vendor that begins to write ids and times otherwise (S10, S11)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.database import Database
from leadloop.core.timestamps import to_epoch_ms
from leadloop.core.windows import MAX_PAGES
from tasks.jobs import CampaignsFailed
from tasks.window_pages import MAX_UNCOUNTED_PAGES
from tasks.window_reader import MOST_ENDLESS
from tests import factories, sql
from tests.jobs import backfill_outcomes, poll_outcomes
from tests.quirky_api import Query, QuirkyApi, build_page, run_quirky_api

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

_IDS = [str(number) for number in range(17, 37)]


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[QuirkyApi]:
    """An odd vendor that has processed twenty leads of a campaign."""
    now = datetime.now(UTC).replace(microsecond=0)
    with run_quirky_api() as vendor:
        monkeypatch.setenv("LEADLOOP_API_URL", vendor.url)
        factories.add_campaign(database)
        sent_at = now - timedelta(hours=1)
        leads = [factories.build_lead(each, status="created", sent_at=sent_at) for each in _IDS]
        factories.add_leads(database, *leads)
        vendor.rows += [
            {
                "lead_id": each,
                "processed_at": to_epoch_ms(now - timedelta(minutes=5, seconds=int(each))),
                "outcome_name": "Yes",
            }
            for each in _IDS
        ]
        yield vendor


def rewrite(odd: QuirkyApi, **written: Any) -> None:
    """Have the vendor write a field of each result by a function of its row."""

    def answer(query: Query) -> dict[str, Any]:
        page = build_page(odd.rows, query)
        rows = [
            {**row, **{name: write(row) for name, write in written.items()}}
            for row in page["results"]
        ]
        return {**page, "results": rows}

    odd.answer = answer


def list_problems(database: Database) -> list[str]:
    """Return the names of the problems."""
    rows = sql.fetch_rows(database, "SELECT problem FROM leadloop_monitor.problems")
    return [row["problem"] for row in rows]


def test_ids_as_numbers_with_a_fraction_of_zero(database: Database, odd: QuirkyApi) -> None:
    """17.0 is 17: each outcome belongs to its lead."""
    rewrite(odd, lead_id=lambda row: float(row["lead_id"]))
    assert poll_outcomes()["inserted"] == len(_IDS)
    assert set(sql.fetch_outcomes(database)) == set(_IDS)
    assert list_problems(database) == []


def test_ids_as_other_texts(database: Database, odd: QuirkyApi) -> None:
    """The text "17.0" is another id: outcomes of no known lead are a problem, while leads wait."""
    rewrite(odd, lead_id=lambda row: f"{row['lead_id']}.0")
    assert poll_outcomes()["inserted"] == len(_IDS)
    assert list_problems(database) == ["outcomes_unknown"]


@pytest.mark.parametrize("factor", [1_000, 1_000_000])
def test_times_in_a_finer_unit(database: Database, odd: QuirkyApi, factor: int) -> None:
    """Microseconds and nanoseconds are plain by their size: the same times are stored."""
    rewrite(odd, processed_at=lambda row: row["processed_at"] * factor)
    assert poll_outcomes()["inserted"] == len(_IDS)
    stored = sql.fetch_rows(database, "SELECT lead_id, processed_at FROM leadloop.lead_outcomes")
    assert {row["lead_id"]: to_epoch_ms(row["processed_at"]) for row in stored} == {
        row["lead_id"]: row["processed_at"] for row in odd.rows
    }
    assert list_problems(database) == []


def test_times_that_cannot_be_read(database: Database, odd: QuirkyApi) -> None:
    """They are kept and reported; the watermark does not pass them unseen."""
    rewrite(odd, processed_at=lambda _: "yesterday")
    with pytest.raises(CampaignsFailed, match=r"could not be (parsed|read)"):
        poll_outcomes()
    kept = "SELECT count(*) FROM leadloop.unreadable_results"
    assert sql.fetch_value(database, kept) == len(_IDS)
    assert "results_unreadable" in list_problems(database)
    assert sql.fetch_outcomes(database) == {}


def test_pages_without_end(database: Database, odd: QuirkyApi) -> None:
    """Each page has a new row and names a next one: a second is given up after some pages."""

    def answer(query: Query) -> dict[str, Any]:
        row = {"lead_id": f"n{len(odd.queries)}", "processed_at": query.after + 1}
        return {"count": 1, "next": "http://x/", "results": [row]}

    odd.answer = answer
    before = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
    with pytest.raises(CampaignsFailed, match="owed"):
        backfill_outcomes(after=before - timedelta(seconds=1), before=before)
    # Three tries before a window is owed.
    assert len(odd.queries) <= 3 * (MAX_UNCOUNTED_PAGES + MAX_PAGES + 2)
    odd.queries.clear()
    with pytest.raises(CampaignsFailed, match=r"the vendor's pages have no end: in \d+ windows"):
        backfill_outcomes(after=before - timedelta(hours=1), before=before)
    assert len(odd.queries) <= (MOST_ENDLESS + 1) * 3 * (MAX_UNCOUNTED_PAGES + 2 * MAX_PAGES)
