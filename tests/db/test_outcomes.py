import json
import random
from concurrent.futures import ThreadPoolExecutor
from string import ascii_letters, digits
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db import erasure, outcomes
from db.bulk_copy import format_text_row
from db.database import Database
from db.outcomes import MergeCounts
from leadloop.core.postgres_json import escape_unstorable, parse_json
from leadloop.core.results import parse_result
from tests import factories, sql
from tests.factories import CAMPAIGN

_TEXT = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    [
        "\\N",
        "\\.",
        "\\",
        "\\\\N",
        "a\tb",
        "\t",
        "\n",
        "\r\n",
        "\x00",
        "\ud800",
        "",
        "\x7f\x85\u2028",
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
#: One database for all the examples of a test: each cleans up or works under its own campaign.
_SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def result(lead_id: str = "a", at: int = 5000, **more: Any) -> dict[str, Any]:
    """A processed result; `at` is seconds."""
    return {"lead_id": lead_id, "processed_at": at, "outcome_name": "Yes", **more}


def merge(database: Database, *results: dict[str, Any], campaign: str = CAMPAIGN) -> MergeCounts:
    """Store results, in one reading."""
    read = [parse_result(each) for each in results]
    with database.transaction() as connection:
        return outcomes.merge_outcomes(
            connection,
            campaign,
            outcomes=[format_text_row(each.outcome) for each in read if each.outcome],
            attempts=[format_text_row(item) for each in read for item in each.attempts],
        )


def counts(inserted: int, updated: int, unchanged: int) -> MergeCounts:
    """What a merge should come to."""
    return MergeCounts(inserted=inserted, updated=updated, unchanged=unchanged)


def test_what_the_watermark_counts_on_is_on_the_disk(database: Database) -> None:
    """A poll outlives a crash of the server: what that forgot must not lie behind the watermark."""
    stored = parse_result(result())
    assert stored.outcome is not None
    with database.transaction() as connection:
        outcomes.merge_outcomes(
            connection, CAMPAIGN, outcomes=[format_text_row(stored.outcome)], attempts=[]
        )
        assert connection.scalar(text("SHOW synchronous_commit")) == "on"


def test_what_is_new_changed_and_the_same_is_counted(database: Database) -> None:
    """The counts that a poll reports; a second poll of the same range changes nothing."""
    first = [result("a"), result("b"), result("c")]
    assert merge(database, *first) == counts(3, 0, 0)
    assert merge(database, *first) == counts(0, 0, 3)
    changed = [result("a"), result("b", outcome_name="No"), result("c", at=6000), result("d")]
    assert merge(database, *changed) == counts(1, 2, 1)
    assert sql.fetch_outcomes(database) == {"a": "Yes", "b": "No", "c": "Yes", "d": "Yes"}


def test_what_is_the_same_is_not_written(database: Database) -> None:
    """Rows stay where they are on disk, and `updated_at` stays."""
    called = result(call_attempt_x_1=[{"reference_id": "r1", "called_at": 5000}])
    merge(database, called)
    rows = """SELECT CAST(o.ctid AS text) AS outcome, o.updated_at, CAST(a.ctid AS text) AS attempt
                FROM leadloop.lead_outcomes AS o, leadloop.outreach_attempts AS a"""
    before = sql.fetch_rows(database, rows)
    merge(database, called)
    assert sql.fetch_rows(database, rows) == before


def test_an_older_outcome_never_replaces_a_newer_one(database: Database) -> None:
    """A backfill that was read before, and is stored after, a poll does no harm."""
    merge(database, result(at=6000, outcome_name="newer"))
    assert merge(database, result(at=5000, outcome_name="older")) == counts(0, 0, 1)
    assert sql.fetch_outcomes(database) == {"a": "newer"}


@pytest.mark.parametrize("order", [(5000, 6000), (6000, 5000)])
def test_of_two_in_one_reading_the_newer_counts(database: Database, order: tuple[int, int]) -> None:
    """A lead that was processed again while it was read."""
    both = [result(at=at, outcome_name=f"at {at}") for at in order]
    assert merge(database, *both) == counts(1, 0, 0)
    assert sql.fetch_outcomes(database) == {"a": "at 6000"}


def test_of_two_equally_new_ones_the_one_read_last_counts(database: Database) -> None:
    """A cost that was filled in while the pages were read, without a new processed_at."""
    call = {"reference_id": "r1", "called_at": 4000}
    versions = [
        result(outcome_name=str(turn), call_attempt_x_1=[{**call, "cost": turn}])
        for turn in range(9)
    ]
    assert merge(database, *versions) == counts(1, 0, 0)
    assert sql.fetch_outcomes(database) == {"a": "8"}
    assert costs(database) == {"r1": 8}


@pytest.mark.parametrize("at_once", [True, False])
def test_an_older_version_of_an_attempt_never_replaces_a_newer_one(
    database: Database, at_once: bool
) -> None:
    """Attempts that only the older version contains are added."""
    newer = {"reference_id": "r", "called_at": 4000, "cost": 2}
    older = [{**newer, "cost": 1}, {**newer, "reference_id": "only here", "cost": 3}]
    readings = [
        result(at=6000, call_attempt_x_1=[newer]),
        result(at=5000, call_attempt_x_1=older),
    ]
    if at_once:
        merge(database, *readings)
    else:
        for reading in readings:
            merge(database, reading)
    assert costs(database) == {"r": 2, "only here": 3}


def costs(database: Database) -> dict[str, int]:
    """What each attempt cost, by its key."""
    rows = sql.fetch_rows(database, "SELECT attempt_key, cost FROM leadloop.outreach_attempts")
    return {row["attempt_key"]: int(row["cost"]) for row in rows}


def test_when_it_was_first_seen_stays(database: Database) -> None:
    """Lateness is measured from it."""
    query = "SELECT first_seen_at FROM leadloop.lead_outcomes"
    merge(database, result())
    first = sql.fetch_value(database, query)
    merge(database, result(outcome_name="No"))
    assert sql.fetch_value(database, query) == first
    assert sql.fetch_value(
        database, "SELECT updated_at > first_seen_at FROM leadloop.lead_outcomes"
    )
    seen = "SELECT seen_at = first_seen_at FROM leadloop.lead_outcomes"
    assert sql.fetch_value(database, seen)
    merge(database, result(at=6000))
    assert not sql.fetch_value(database, seen)


def test_a_correction_comes_through_where_the_raw_answer_is_gone(database: Database) -> None:
    """A cost that changes under the same processed_at is money; what was removed stays removed."""
    call = {"reference_id": "r1", "called_at": 4000, "q": "private"}
    merge(database, result(total_cost=1, call_attempt_x_1=[{**call, "cost": 1}]))
    sql.execute(database, "UPDATE leadloop.lead_outcomes SET raw = '{}'")
    corrected = result(
        outcome_name="No", outcome_id=7, total_cost=2, call_attempt_x_1=[{**call, "cost": 2}]
    )
    assert merge(database, corrected) == counts(0, 1, 0)
    assert merge(database, corrected) == counts(0, 0, 1)
    (stored,) = sql.fetch_rows(
        database, "SELECT outcome_id, outcome_name, total_cost, raw FROM leadloop.lead_outcomes"
    )
    assert stored == {"outcome_id": "7", "outcome_name": "No", "total_cost": 2, "raw": {}}
    assert costs(database) == {"r1": 2}


def test_a_lead_that_is_processed_again_has_a_raw_answer_again(database: Database) -> None:
    """What was removed was the old answer, because it was old; this one is new."""
    merge(database, result(at=5000))
    sql.execute(database, "UPDATE leadloop.lead_outcomes SET raw = '{}'")
    assert merge(database, result(at=6000)) == counts(0, 1, 0)
    assert sql.fetch_value(database, "SELECT raw ->> 'lead_id' FROM leadloop.lead_outcomes") == "a"


def test_corrections_of_the_forgotten_come_through_without_them(database: Database) -> None:
    """Outcome and attempt: what they cost changes, what was said is not stored."""
    call = {"reference_id": "r1", "called_at": 4000, "q": "private"}
    merge(database, result(total_cost=1, call_attempt_x_1=[{**call, "cost": 1}]))
    with database.transaction() as connection:
        erasure.erase_leads(connection, CAMPAIGN, ["a"])
    corrected = result(total_cost=2, call_attempt_x_1=[{**call, "cost": 2}])
    assert merge(database, corrected) == counts(0, 1, 0)
    assert merge(database, corrected) == counts(0, 0, 1)
    stored = "SELECT total_cost, raw FROM leadloop.lead_outcomes"
    assert sql.fetch_rows(database, stored) == [{"total_cost": 2, "raw": {}}]
    assert costs(database) == {"r1": 2}
    assert sql.fetch_value(database, "SELECT answers FROM leadloop.outreach_attempts") == {}


def test_a_key_as_long_as_may_be_is_stored(database: Database) -> None:
    """Of characters that do not compress, so that the index has to hold every byte of them."""
    noise = "".join(random.Random(1).choices(ascii_letters + digits, k=9000))
    call = {"reference_id": noise, "called_at": 4000}
    long = result(noise[:1500]) | {f"call_attempt_{noise}": [call]}
    assert merge(database, long) == counts(1, 0, 0)
    assert sql.fetch_value(database, "SELECT reference_id FROM leadloop.outreach_attempts") == noise


def test_attempts_are_added_and_brought_up_to_date(database: Database) -> None:
    """A cost that was pending is filled in; an attempt is never there twice."""
    pending = {"sent_at": 5000, "cost": "PENDING OR NOT AVAILABLE", "status": "queued"}
    call = {"reference_id": "r1", "called_at": 4000, "call_duration": 7}
    merge(database, result(sms_x=pending, call_attempt_x_1=[call]))
    done = {"sent_at": 5000, "cost": 0.01, "status": "delivered"}
    both = [call, {**call, "reference_id": "r2"}]
    merge(database, result(sms_x=done, call_attempt_x_1=both))
    found = sql.fetch_rows(
        database,
        """SELECT channel, attempt_key, CAST(cost AS text) AS cost, outcome_name
             FROM leadloop.outreach_attempts ORDER BY channel, attempt_key""",
    )
    assert [tuple(row.values()) for row in found] == [
        ("call", "r1", None, None),
        ("call", "r2", None, None),
        ("sms", "#1", "0.01", "delivered"),
    ]


@pytest.mark.parametrize(
    ("status", "then"),
    [
        ("in_doubt", "created"),
        ("new", "created"),
        ("created", "created"),
        ("sending", "sending"),
        ("rejected", "created"),
        ("cancelled", "created"),
    ],
)
def test_an_outcome_settles_a_doubt(database: Database, status: str, then: str) -> None:
    """Whom the vendor has called, it has; a lead on its way is left to its run."""
    factories.add_leads(database, factories.build_lead("a", status=status, last_error="no answer"))
    factories.add_leads(database, factories.build_lead("b", status="in_doubt"))
    merge(database, result("a"))
    assert sql.fetch_statuses(database) == {"a": then, "b": "in_doubt"}


def test_an_outcome_of_a_cancelled_lead_has_the_vendor_told(database: Database) -> None:
    """It was thought never to have been sent, and was called: its opt-out waits again."""
    factories.add_leads(database, factories.build_lead("a", status="cancelled"))
    factories.add_opt_outs(database, "a", status="cancelled", confirmed_at="now")
    merge(database, result("a"))
    assert sql.fetch_opt_outs(database) == {"a": "requested"}


def test_an_outcome_of_a_created_lead_requests_a_cancelled_row(database: Database) -> None:
    """The row of the opt-out source was taken for a stranger's while the lead was sent."""
    factories.add_leads(database, factories.build_lead("a", status="created"))
    sql.execute(
        database,
        "INSERT INTO leadloop.disable_requests (campaign_id, lead_id, status, origin, confirmed_at)"
        " VALUES ('C1', 'a', 'cancelled', 'opt_out_source', now())",
    )
    merge(database, result("a"))
    assert sql.fetch_opt_outs(database) == {"a": "requested"}


def test_campaigns_do_not_meet(database: Database) -> None:
    """The same id in two campaigns is two leads."""
    factories.add_leads(database, factories.build_lead("a", status="in_doubt"), campaign="C2")
    merge(database, result("a"))
    merge(database, result("a", outcome_name="No"), campaign="C2")
    assert sql.fetch_outcomes(database) == {"a": "Yes"}
    assert sql.fetch_outcomes(database, "C2") == {"a": "No"}


def test_an_outcome_of_a_lead_that_is_not_ours_is_kept(database: Database) -> None:
    """Others created it at the vendor: its outcome is stored anyway."""
    assert merge(database, result("stranger")) == counts(1, 0, 0)


@_SHARED
@given(name=_TEXT, question=_TEXT, answer=_VALUES, custom=_VALUES, reference=_TEXT)
def test_any_text_comes_through_as_it_was(
    database: Database, name: str, question: str, answer: Any, custom: Any, reference: str
) -> None:
    r"""Tabs, line ends, backslashes, `\N`, U+0000, halves of emojis: the poll stores them all."""
    call = {"reference_id": reference, "report_keys_order": [question], question: answer}
    given_ = result(outcome_name=name, custom=custom, call_attempt_x_1=[call])
    read = parse_json(json.dumps(given_).encode())
    sql.execute(database, "TRUNCATE leadloop.lead_outcomes, leadloop.outreach_attempts")
    merge(database, read)
    (row,) = sql.fetch_rows(
        database,
        """SELECT outcome_name, raw, reference_id, answers
             FROM (SELECT lead_id, outcome_name, raw FROM leadloop.lead_outcomes) AS outcome
             JOIN (SELECT lead_id, reference_id, answers FROM leadloop.outreach_attempts) AS attempt
            USING (lead_id)""",
    )
    assert row["outcome_name"] == (escape_unstorable(name) or None)
    assert row["raw"] == escape_unstorable(given_)
    stored = read["call_attempt_x_1"][0]
    assert row["reference_id"] == (stored["reference_id"] or None)
    assert row["answers"] == {key: stored[key] for key in stored["report_keys_order"]}
    assert merge(database, read) == counts(0, 0, 1)


@pytest.mark.parametrize("cost", ["1e999", "1" * 900, "-1e-900", "NaN", "0." + "1" * 20_000])
def test_no_number_fails_a_window(database: Database, cost: str) -> None:
    """What Postgres cannot hold as a number is kept in `raw`."""
    bare = parse_json(f'{{"lead_id": "a", "processed_at": 5, "total_cost": {cost}}}'.encode())
    assert merge(database, bare, result("b", total_cost=cost)) == counts(2, 0, 0)


def test_what_cannot_be_read_is_kept_once(database: Database) -> None:
    """With its reason, whatever it holds."""
    odd = parse_json(b'{"phone_number": "+14155552671\\u0000", "n": NaN}')
    for _ in range(2):
        with database.transaction() as connection:
            outcomes.store_unreadable(connection, CAMPAIGN, [("lead_id: missing", odd), ("x", [1])])
    kept = sql.fetch_rows(
        database, "SELECT reason, raw FROM leadloop.unreadable_results ORDER BY 1"
    )
    assert kept == [{"reason": "lead_id: missing", "raw": odd}, {"reason": "x", "raw": [1]}]


def test_equal_results_that_cannot_be_read_are_counted(database: Database) -> None:
    """As many as one read showed at most: a read that shows fewer of them adds nothing."""
    redacted, other = {"deleted": True}, {"deleted": False}
    for shown, kept in (([redacted, None, redacted], 2), ([redacted] * 3, 3), ([redacted], 3)):
        with database.transaction() as connection:
            outcomes.store_unreadable(connection, CAMPAIGN, [("no id", each) for each in shown])
            outcomes.store_unreadable(connection, CAMPAIGN, [("no id", other)])
        found = sql.fetch_rows(
            database, "SELECT CAST(raw AS text), occurrences FROM leadloop.unreadable_results"
        )
        assert {row["raw"]: row["occurrences"] for row in found} == {
            '{"deleted": true}': kept,
            '{"deleted": false}': 1,
            "null": 1,
        }


def test_a_result_that_cannot_be_read_again_is_new_again(database: Database) -> None:
    """An empty row of last month and one of today look alike: somebody has to hear of today's."""
    with database.transaction() as connection:
        outcomes.store_unreadable(connection, CAMPAIGN, [("no id", None)])
    sql.execute(
        database, "UPDATE leadloop.unreadable_results SET seen_at = now() - interval '30 days'"
    )
    with database.transaction() as connection:
        outcomes.store_unreadable(connection, CAMPAIGN, [("no id", None)])
    age = "SELECT now() - seen_at < interval '1 day' FROM leadloop.unreadable_results"
    assert sql.fetch_value(database, age)


def test_what_cannot_be_read_of_the_forgotten_is_not_kept(database: Database) -> None:
    """However the vendor writes the id; of others it is."""
    with database.transaction() as connection:
        erasure.erase_leads(connection, CAMPAIGN, ["17"])
        outcomes.store_unreadable(
            connection,
            CAMPAIGN,
            [
                ("no time", {"lead_id": lead_id, "x": 1})
                for lead_id in (17, 17.0, "17", 170, "17.0")
            ],
        )
    kept = sql.fetch_rows(
        database, "SELECT CAST(raw -> 'lead_id' AS text) AS id FROM leadloop.unreadable_results"
    )
    assert sorted(row["id"] for row in kept) == ['"17.0"', "170"]


def test_leads_that_have_an_outcome_are_locked_in_the_order_of_opt_outs(database: Database) -> None:
    """While we wait for one we hold none that comes after it: upstream never meets a deadlock."""
    factories.add_leads(
        database, *(factories.build_lead(lead_id, status="in_doubt") for lead_id in ("z", "a"))
    )
    lock = text("SELECT FROM leadloop.leads WHERE lead_id = :lead FOR NO KEY UPDATE NOWAIT")
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as upstream:
            upstream.execute(lock, {"lead": "a"})
            storing = pool.submit(merge, database, result("z"), result("a"))
            sql.wait_until_blocked(database)
            upstream.execute(lock, {"lead": "z"})
        storing.result(timeout=30)
    assert set(sql.fetch_statuses(database).values()) == {"created"}


def test_a_window_is_stored_without_going_through_all_leads(database: Database) -> None:
    """Leads and outcomes are found by their keys, not read through for each window: a few by each.

    Postgres does not know yet how many outcomes there are, as while a first backfill is under way.
    """
    for table, columns, values in (
        ("leads", "status", "'created'"),
        ("lead_outcomes", "processed_at, raw", "to_timestamp(5), '{}'"),
    ):
        sql.execute(
            database,
            f"""INSERT INTO leadloop.{table} (campaign_id, lead_id, {columns})
                SELECT :campaign, CAST(number AS text), {values}
                  FROM generate_series(1, 40000) AS number""",
            campaign=CAMPAIGN,
        )
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt' WHERE lead_id = '7'")
    sql.execute(database, "ANALYZE leadloop.leads")
    call = [{"reference_id": "r1", "called_at": 5000}]
    window = [
        parse_result(result(str(number), at=6000, call_attempt_x_1=call)) for number in range(1, 51)
    ]
    # Up to a second's transactions before this one are in it too.
    rows_read = text("""SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables
                         WHERE schemaname = 'leadloop' AND relname IN ('leads', 'lead_outcomes')""")
    with database.transaction() as connection:
        before = connection.scalar(rows_read)
        outcomes.merge_outcomes(
            connection,
            CAMPAIGN,
            outcomes=[format_text_row(each.outcome) for each in window if each.outcome],
            attempts=[format_text_row(item) for each in window for item in each.attempts],
        )
        assert connection.scalar(rows_read) - before <= 5 * len(window)


def test_what_is_kept_as_unreadable_stands_in_no_statement(database: Database) -> None:
    """Postgres's log repeats statements that fail, and pg_stat_activity those that wait."""
    secret = {"phone_number": "+14155552671"}
    with database.transaction() as holder, ThreadPoolExecutor(1) as pool:
        holder.execute(text("LOCK TABLE leadloop.unreadable_results"))
        storing = pool.submit(
            database.run, outcomes.store_unreadable, CAMPAIGN, [("no id", secret)]
        )
        sql.wait_until_blocked(database)
        statements = sql.fetch_rows(database, "SELECT query FROM pg_stat_activity")
        holder.rollback()
        storing.result()
    assert any("unreadable_results" in row["query"] for row in statements)
    assert not any("4155552671" in row["query"] for row in statements)
    assert sql.fetch_value(database, "SELECT raw FROM leadloop.unreadable_results") == secret
