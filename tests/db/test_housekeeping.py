"""The vendor's answers, cleared in portions, and what a later reading does about them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import housekeeping, outcomes
from db.bulk_copy import format_text_row
from db.database import Database
from db.housekeeping import ClearedAnswers
from db.outcomes import MergeCounts
from leadloop.core.results import parse_result
from tests import factories, sql
from tests.factories import CAMPAIGN

_LEADS = 4000
_DAYS = 30
# Old and young ones in turn, and whole portions of young ones.
_OUTCOMES = f"""
INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw, first_seen_at,
                                    updated_at)
SELECT '{CAMPAIGN}', lpad(CAST(n AS text), 5, '0'), now(), '{{"a"\\: 1}}', stored, stored
  FROM (SELECT n, now() - n * interval '1 second'
                  - CASE WHEN n % 1000 > 500 AND n % 2 = 0
                         THEN interval '1 year' ELSE interval '1 day' END AS stored
          FROM generate_series(1, {_LEADS}) AS n) AS each
"""
_READ = """
SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'lead_outcomes'
"""
_YEAR_AGO = "now() - interval '1 year'"


@pytest.fixture(autouse=True)
def campaign(database: Database) -> None:
    """A campaign, whose row has the mark."""
    factories.add_campaign(database)


def clear_all(database: Database, campaign: str = CAMPAIGN) -> tuple[int, int]:
    """Clear all that is due; return how many raw answers and attempts' answers went."""
    raw = answers = 0
    while True:
        with database.transaction() as connection:
            done = housekeeping.clear_answers(connection, campaign, _DAYS)
        raw, answers = raw + done.raw, answers + done.answers
        if not done.has_more:
            return raw, answers


def call(answer: str, **more: Any) -> dict[str, Any]:
    """A call whose script was answered."""
    return {"reference_id": "r1", "called_at": 4000, "q": answer, **more}


def merge(
    database: Database, lead_id: str, at: int | None, *calls: Any, campaign: str = CAMPAIGN
) -> MergeCounts:
    """Store a result that was processed so many seconds after the epoch."""
    read = parse_result({"lead_id": lead_id, "processed_at": at, "call_attempt_x_1": list(calls)})
    with database.transaction() as connection:
        return outcomes.merge_outcomes(
            connection,
            campaign,
            outcomes=[format_text_row(read.outcome)] if read.outcome else [],
            attempts=[format_text_row(attempt) for attempt in read.attempts],
        )


def make_old(database: Database) -> None:
    """Have all outcomes stored a year earlier than they were."""
    sql.execute(
        database,
        """UPDATE leadloop.lead_outcomes SET first_seen_at = first_seen_at - interval '1 year',
                                             updated_at = updated_at - interval '1 year'""",
    )


def fetch_answers(database: Database, campaign: str = CAMPAIGN) -> dict[str, Any]:
    """Return what the attempts of a campaign were answered, by attempt."""
    query = "SELECT attempt_key, answers FROM leadloop.outreach_attempts WHERE campaign_id = :id"
    return {
        row["attempt_key"]: row["answers"] for row in sql.fetch_rows(database, query, id=campaign)
    }


def has_raw(database: Database, campaign: str = CAMPAIGN) -> bool:
    """Return whether the raw result of a campaign's only outcome is there."""
    query = "SELECT raw <> '{}' FROM leadloop.lead_outcomes WHERE campaign_id = :id"
    return bool(sql.fetch_value(database, query, id=campaign))


def test_each_outcome_is_looked_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many portions it takes; and the next night finds what has become old since."""
    sql.execute(database, _OUTCOMES)
    sql.execute(database, "ANALYZE leadloop.lead_outcomes")
    monkeypatch.setattr(housekeeping, "CLEAR_SIZE", 50)
    gone, portions = 0, 0
    done = ClearedAnswers(raw=0, answers=0, has_more=True)
    with database.transaction() as connection:
        while done.has_more:
            done = housekeeping.clear_answers(connection, CAMPAIGN, _DAYS)
            gone += done.raw
            portions += 1
        read = connection.exec_driver_sql(_READ).scalar_one()
        housekeeping.clear_answers(connection, CAMPAIGN, _DAYS)
        assert connection.exec_driver_sql(_READ).scalar_one() == read
    assert (gone, portions) == (996, 21)
    young = "SELECT count(*) FROM leadloop.lead_outcomes WHERE raw <> '{}'"
    assert sql.fetch_value(database, young) == _LEADS - gone
    assert read < 5 * gone


def test_the_answers_of_attempts_go_with_the_raw_result(database: Database) -> None:
    """Reading the same again changes nothing and brings nothing back, not even a correction."""
    merge(database, "a", 5000, call("private"))
    assert clear_all(database) == (0, 0), "it is not old yet"
    make_old(database)
    assert clear_all(database) == (1, 1)
    assert merge(database, "a", 5000, call("private")).unchanged == 1
    merge(database, "a", 5000, call("private", cost=3))
    merge(database, "a", 4000, call("private"), call("private", reference_id="r2"))
    assert fetch_answers(database) == {"r1": {}, "r2": {}}
    assert sql.fetch_value(database, "SELECT max(cost) FROM leadloop.outreach_attempts") == 3
    assert not has_raw(database)


def test_a_newer_result_is_kept_for_its_own_time(database: Database) -> None:
    """It was processed again after the old one was cleared, or before that."""
    merge(database, "a", 5000, call("old"))
    make_old(database)
    merge(database, "a", 6000, call("new"))
    assert clear_all(database) == (0, 0)
    make_old(database)
    assert clear_all(database) == (1, 1)
    merge(database, "a", 7000, call("newest"))
    assert clear_all(database) == (0, 0)
    assert fetch_answers(database) == {"r1": {"q": "newest"}}
    make_old(database)
    assert clear_all(database) == (1, 1)


def test_a_reading_waits_while_answers_are_cleared(database: Database) -> None:
    """Otherwise it would store what it saw as not cleared."""
    merge(database, "a", 5000, call("private"))
    make_old(database)
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as connection:
            housekeeping.clear_answers(connection, CAMPAIGN, _DAYS)
            reading = pool.submit(merge, database, "a", 5000, call("private", cost=3))
            sql.wait_until_blocked(database)
        reading.result(timeout=30)
    assert fetch_answers(database) == {"r1": {}}


def test_answers_without_an_outcome_go_with_the_unreadable_result(database: Database) -> None:
    """A result without its time is kept there, and its attempts are stored."""
    merge(database, "a", None, call("private"))
    with database.transaction() as connection:
        odd = {"lead_id": "a", "call_attempt_x_1": [call("private")]}
        outcomes.store_unreadable(connection, CAMPAIGN, [("no time", odd)])
    assert fetch_answers(database) == {"r1": {"q": "private"}}
    sql.execute(database, f"UPDATE leadloop.unreadable_results SET seen_at = {_YEAR_AGO}")
    with database.transaction() as connection:
        purge = housekeeping.RAW["unreadable"]
        assert purge(connection, [CAMPAIGN], _DAYS) == {CAMPAIGN: 1}
        assert purge(connection, [CAMPAIGN], _DAYS) == {}
    assert fetch_answers(database) == {"r1": {}}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(["clear", *range(1, 5)]), max_size=9), st.uuids())
def test_what_was_cleared_stays_cleared(
    database: Database, steps: list[Any], campaign: Any
) -> None:
    """Results are read in any order and again, and all that is stored is cleared at any time."""
    name = str(uuid4())
    factories.add_campaign(database, name)
    newest, cleared = 0, 0
    for step in [*steps, "clear", *steps]:
        if step == "clear":
            make_old(database)
            clear_all(database, name)
            cleared = newest
        else:
            again = step <= newest
            counted = merge(database, "a", step, call(f"version {step}"), campaign=name)
            assert counted.unchanged == again
            newest = max(newest, step)
        kept = newest > cleared
        assert has_raw(database, name) == kept if newest else True
        shown = fetch_answers(database, name).get("r1", {})
        assert shown == ({"q": f"version {newest}"} if kept else {})
