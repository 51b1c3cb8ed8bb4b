"""Counts of what is past are equal to counts of the rows, whatever was written how and by whom."""

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import campaigns, counts, erasure, leads, outcomes
from db.bulk_copy import copy_lines, format_text_row
from db.database import Database, DatabaseError
from db.leads import ClaimRef
from db.schema import are_counts_filled
from db.schema.counting import DELAY_BOUNDS_S, TABLES
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.results import parse_result
from tests import factories, sql
from tests.factories import CAMPAIGN

#: Each writer has a campaign: two open transactions that write the same rows would wait.
WRITERS = ("C1", "C2")
#: Hours of this year are kept.
_YEAR = datetime.now(UTC).year
_TIMES = (
    f"{_YEAR}-01-01T10:59:59.999999Z",
    f"{_YEAR}-01-01T11:00:00Z",
    f"{_YEAR}-03-29T01:30:00Z",
    "infinity",
    "-infinity",
    # Hours so old are not kept.
    "2020-02-29T23:30:00Z",
)
_LEADS = st.sampled_from("abcd")
_STATUSES = st.sampled_from(["new", "sending", "created", "rejected", "in_doubt", "cancelled"])
_NAMES = st.sampled_from([None, "", "Sale", "No answer", "[null, null]"])
_WHEN = st.sampled_from(_TIMES)
#: Times that are ours; the vendor's and people's may be infinite.
_OURS = st.sampled_from(_TIMES[:3])
_COSTS = st.sampled_from([None, "0", "0.5", "1.25", "-3", "NaN", "Infinity"])
_REQUEST_STATUSES = st.sampled_from(["requested", "disabled", "cancelled", "failed"])
_FLOWS = st.sampled_from(["push-leads", "poll-outcomes", "sync-leads"])
_RUN_COUNTS = st.sampled_from(["{}", '{"requests": 7}', '{"requests": 0}', '{"requests": "x"}'])

#: Statements that write outcomes, and those that write attempts.
_OUTCOMES: list[tuple[str, dict[str, st.SearchStrategy[Any]]]] = [
    (
        """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, seen_at,
                  outcome_name, total_cost, raw)
           VALUES (:campaign, :lead, :at, :seen, :name, CAST(:cost AS numeric), '{}')
           ON CONFLICT (campaign_id, lead_id) DO UPDATE
              SET processed_at = excluded.processed_at, outcome_name = excluded.outcome_name,
                  total_cost = excluded.total_cost""",
        {"lead": _LEADS, "at": _WHEN, "seen": _OURS, "name": _NAMES, "cost": _COSTS},
    ),
    (
        """UPDATE leadloop.lead_outcomes SET raw = '{"a": 1}', seen_at = :seen,
                  lookback_needed_s = CASE WHEN lookback_needed_s IS NULL THEN 60 END
            WHERE campaign_id = :campaign AND lead_id >= :lead""",
        {"lead": _LEADS, "seen": _OURS},
    ),
    (
        """UPDATE leadloop.lead_outcomes SET outcome_name = :name
            WHERE campaign_id = :campaign AND lead_id >= :lead""",
        {"lead": _LEADS, "name": _NAMES},
    ),
    (
        "DELETE FROM leadloop.lead_outcomes WHERE campaign_id = :campaign AND lead_id <= :lead",
        {"lead": _LEADS},
    ),
]
_ATTEMPTS: list[tuple[str, dict[str, st.SearchStrategy[Any]]]] = [
    (
        """INSERT INTO leadloop.outreach_attempts (campaign_id, lead_id, channel, block,
                  attempt_key, occurred_at, duration_s)
           VALUES (:campaign, :lead, :channel, 'b', :key, :at, CAST(:duration AS numeric))
           ON CONFLICT (campaign_id, lead_id, block, attempt_key) DO UPDATE
              SET channel = excluded.channel, occurred_at = excluded.occurred_at,
                  duration_s = excluded.duration_s, answers = '{"a": 1}'""",
        {
            "lead": _LEADS,
            "channel": st.sampled_from(["call", "gmail", "sms", "ivr"]),
            "key": st.sampled_from("12"),
            "at": _WHEN | st.none(),
            "duration": _COSTS,
        },
    ),
    (
        # From one lead to another.
        """UPDATE leadloop.outreach_attempts
              SET lead_id = :lead, attempt_key = CAST(gen_random_uuid() AS text)
            WHERE campaign_id = :campaign AND lead_id > :lead""",
        {"lead": _LEADS},
    ),
    (
        "DELETE FROM leadloop.outreach_attempts WHERE campaign_id = :campaign AND lead_id = :lead",
        {"lead": _LEADS},
    ),
]
#: Statements of people and of ours, with the values that are drawn for them.
_STATEMENTS: list[tuple[str, dict[str, st.SearchStrategy[Any]]]] = [
    *_OUTCOMES,
    *_ATTEMPTS,
    (
        """INSERT INTO leadloop.leads (campaign_id, lead_id, status, last_error)
           VALUES (:campaign, :lead, :status, :name), (:campaign, :lead || '2', 'new', NULL)
           ON CONFLICT DO NOTHING""",
        {"lead": _LEADS, "status": _STATUSES, "name": _NAMES},
    ),
    (
        """INSERT INTO leadloop.leads (campaign_id, lead_id, status)
           VALUES (:campaign, :lead, :status), (:campaign, :lead || '2', :status)
           ON CONFLICT (campaign_id, lead_id) DO UPDATE SET status = excluded.status""",
        {"lead": _LEADS, "status": _STATUSES},
    ),
    (
        """UPDATE leadloop.leads SET status = :status, last_error = :name, state_code = 'NY'
            WHERE campaign_id = :campaign AND lead_id >= :lead""",
        {"lead": _LEADS, "status": _STATUSES, "name": _NAMES},
    ),
    (
        "DELETE FROM leadloop.leads WHERE campaign_id = :campaign AND lead_id >= :lead",
        {"lead": _LEADS},
    ),
    (
        """INSERT INTO leadloop.disable_requests
                  (campaign_id, lead_id, status, requested_at, confirmed_at)
           VALUES (:campaign, :lead, :status, :at, :confirmed)
           ON CONFLICT (campaign_id, lead_id) DO UPDATE
              SET status = excluded.status, confirmed_at = excluded.confirmed_at""",
        {
            "lead": _LEADS,
            "status": _REQUEST_STATUSES,
            "at": _WHEN,
            "confirmed": _OURS | st.none(),
        },
    ),
    (
        "DELETE FROM leadloop.disable_requests WHERE campaign_id = :campaign AND lead_id = :lead",
        {"lead": _LEADS},
    ),
    (
        """INSERT INTO leadloop.sync_runs (flow, campaign_id, started_at, counts)
           VALUES (:flow, CASE WHEN :is_covering THEN '' ELSE :campaign END, :at,
                   CAST(:counts AS jsonb))""",
        {"flow": _FLOWS, "is_covering": st.booleans(), "at": _OURS, "counts": _RUN_COUNTS},
    ),
    (
        """UPDATE leadloop.sync_runs SET state = 'completed', counts = CAST(:counts AS jsonb)
            WHERE campaign_id = :campaign AND flow = :flow""",
        {"flow": _FLOWS, "counts": _RUN_COUNTS},
    ),
    (
        "DELETE FROM leadloop.sync_runs WHERE campaign_id = :campaign AND flow >= :flow",
        {"flow": _FLOWS},
    ),
]


Step = Callable[[Connection, str], None]


def _execute(statement: str, values: dict[str, Any]) -> Step:
    def execute(connection: Connection, campaign: str) -> None:
        connection.execute(text(statement), {"campaign": campaign, **values})

    return execute


def _draw(statement: str, values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Step]:
    """Draw the values of a statement."""
    return st.fixed_dictionaries(values).map(lambda drawn: _execute(statement, drawn))


def _merge(lead_id: str, at: int, name: str | None, tries: int) -> Step:
    """Store a result with attempts, as a poll does."""
    parsed = parse_result(
        {
            "lead_id": lead_id,
            "processed_at": at,
            "outcome_name": name,
            "total_cost": 2.5,
            "call_attempt_first": [
                {"reference_id": str(key), "called_at": at + key, "call_duration": key}
                for key in range(tries)
            ],
        }
    )

    assert len(parsed.attempts) == tries

    def merge(connection: Connection, campaign: str) -> None:
        outcomes.merge_outcomes(
            connection,
            campaign,
            outcomes=[format_text_row(parsed.outcome)] if parsed.outcome else [],
            attempts=[format_text_row(attempt) for attempt in parsed.attempts],
        )

    return merge


def _forget(lead_id: str) -> Step:
    def forget(connection: Connection, campaign: str) -> None:
        known = erasure.lock_for_erasure(connection, campaign, [lead_id]).known
        erasure.erase_leads(connection, campaign, known)

    return forget


def _copy(lead_id: str, status: str) -> Step:
    def copy(connection: Connection, campaign: str) -> None:
        connection.execute(
            text("DELETE FROM leadloop.leads WHERE campaign_id = :campaign AND lead_id = :lead"),
            {"campaign": campaign, "lead": f"{lead_id}3"},
        )
        copy_lines(
            connection,
            "leadloop.leads",
            ("campaign_id", "lead_id", "status"),
            [f"{campaign}\t{lead_id}3\t{status}\n"],
        )

    return copy


def _undo(step: Step) -> Step:
    """Do a step, and roll it back to a savepoint."""

    def undo(connection: Connection, campaign: str) -> None:
        with connection.begin_nested() as savepoint:
            step(connection, campaign)
            savepoint.rollback()

    return undo


_WRITES: st.SearchStrategy[Step] = st.one_of(
    *(_draw(statement, values) for statement, values in _STATEMENTS),
    st.builds(_merge, _LEADS, st.sampled_from([5000, 5001, 9000]), _NAMES, st.integers(0, 2)),
    st.builds(_forget, _LEADS),
    st.builds(_copy, _LEADS, _STATUSES),
)
_ENDS = st.sampled_from(["commit", "commit", "rollback", "fold", "recount", *TABLES])
_STEPS = st.lists(
    st.tuples(st.sampled_from(WRITERS), st.one_of(_WRITES, _WRITES.map(_undo), _ENDS)), max_size=25
)
_SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class _Writers:
    """A transaction for each writer, begun by its first statement."""

    def __init__(self, database: Database, level: str) -> None:
        self._database = database
        self._level = level
        self._open: dict[str, ExitStack] = {}
        self._connections: dict[str, Connection] = {}

    def use(self, writer: str) -> Connection:
        """Return the connection of a writer's transaction."""
        if writer not in self._open:
            stack = self._open[writer] = ExitStack()
            connection = stack.enter_context(self._database.transaction())
            connection.execute(text(f"SET TRANSACTION ISOLATION LEVEL {self._level}"))
            self._connections[writer] = connection
        return self._connections[writer]

    def end(self, writer: str, *, keep: bool = True) -> None:
        """Commit a writer's transaction, or roll it back."""
        if writer in self._open:
            if not keep:
                self._connections[writer].rollback()
            self._open.pop(writer).close()

    def end_all(self) -> None:
        """Commit all transactions."""
        for writer in list(self._open):
            self.end(writer)


@contextmanager
def _writers(database: Database, level: str = "READ COMMITTED") -> Iterator[_Writers]:
    writers = _Writers(database, level)
    try:
        yield writers
    finally:
        writers.end_all()


def clear(database: Database) -> None:
    """Delete all that an earlier example has left."""
    sql.execute(
        database,
        "; ".join(
            f"DELETE FROM leadloop.{table}" for table in (*TABLES, "sent_leads", "forgotten")
        ),
    )


def check_counts(database: Database) -> None:
    """Check that the sums are those of the rows, for each period."""
    with database.transaction() as connection:
        assert counts.count_drift(connection) == 0


def take_step(database: Database, writers: _Writers, writer: str, campaign: str, step: Any) -> None:
    """Let a writer write, or end its transaction; or fold, count again, or empty a table."""
    if callable(step):
        step(writers.use(writer), campaign)
    elif step in ("commit", "rollback"):
        writers.end(writer, keep=step == "commit")
    elif step == "fold":
        counts.fold_all_counts(database)
    elif step == "recount":
        database.run(counts.recount, campaign)
    else:
        writers.end_all()
        sql.execute(database, f"TRUNCATE leadloop.{step}")


@_SHARED
@given(steps=_STEPS)
def test_sums_are_those_of_the_rows(database: Database, steps: list[tuple[str, Any]]) -> None:
    """After each commit, beside another open transaction, folds, recounts and TRUNCATE."""
    clear(database)
    check_counts(database)
    with _writers(database) as writers:
        for campaign, step in steps:
            take_step(database, writers, campaign, campaign, step)
            if not callable(step):
                check_counts(database)
    check_counts(database)
    counts.fold_all_counts(database)
    check_counts(database)
    for left in ("count_changes", "attempt_changes", "counts WHERE amount <= 0"):
        assert sql.fetch_value(database, f"SELECT count(*) FROM leadloop.{left}") == 0


@_SHARED
@given(
    steps=st.lists(
        st.one_of(
            *(
                st.tuples(st.just(writer), st.one_of(*(_draw(*each) for each in statements), _ENDS))
                for writer, statements in (("outcomes", _OUTCOMES), ("attempts", _ATTEMPTS))
            )
        ),
        max_size=25,
    ),
    level=st.sampled_from(["READ COMMITTED", "REPEATABLE READ"]),
)
def test_leads_by_attempts_are_those_of_the_rows(
    database: Database, steps: list[tuple[str, Any]], level: str
) -> None:
    """Two transactions store outcomes and attempts of the same leads, blind to each other."""
    clear(database)
    with _writers(database, level) as writers:
        for writer, step in steps:
            take_step(database, writers, writer, CAMPAIGN, step)
            check_counts(database)
    counts.fold_all_counts(database)
    check_counts(database)
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.attempt_changes") == 0


def test_an_attempt_of_an_outcome_that_is_not_committed(database: Database) -> None:
    """Neither transaction sees the other's row; the lead has its attempt once both are done."""
    attempt = text(
        """INSERT INTO leadloop.outreach_attempts
                  (campaign_id, lead_id, channel, block, attempt_key)
           VALUES ('C1', 'a', 'call', 'b', :key)"""
    )
    with database.transaction() as older:
        older.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        older.execute(text("SELECT count(*) FROM leadloop.lead_outcomes"))
        with database.transaction() as first:
            first.execute(
                text(
                    """INSERT INTO leadloop.lead_outcomes
                              (campaign_id, lead_id, processed_at, outcome_name, raw)
                       VALUES ('C1', 'a', now(), 'Sale', '{}')"""
                )
            )
            with database.transaction() as second:
                second.execute(attempt, {"key": "1"})
            counts.fold_all_counts(database)
        assert fetch_tries(database) == [("Sale", 1, 1)]
        counts.fold_all_counts(database)
        older.execute(attempt, {"key": "2"})
    assert fetch_tries(database) == [("Sale", 2, 1)]
    counts.fold_all_counts(database)
    assert fetch_tries(database) == [("Sale", 2, 1)]


@pytest.mark.parametrize("is_folded", [True, False])
@pytest.mark.parametrize(
    ("table", "expected"), [("lead_outcomes", []), ("outreach_attempts", [("Sale", 0, 2)])]
)
def test_a_truncate_changes_leads_by_attempts(
    database: Database, table: str, expected: list[tuple[str, int, int]], is_folded: bool
) -> None:
    """No outcome leaves no lead; no attempt leaves leads without one."""
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes
                  (campaign_id, lead_id, processed_at, outcome_name, raw)
           VALUES ('C1', 'a', now(), 'Sale', '{}'), ('C1', 'b', now(), 'Sale', '{}');
           INSERT INTO leadloop.outreach_attempts
                  (campaign_id, lead_id, channel, block, attempt_key)
           VALUES ('C1', 'a', 'call', 'b', '1'), ('C1', 'b', 'call', 'b', '1'),
                  ('C1', 'b', 'call', 'b', '2')""",
    )
    if is_folded:
        counts.fold_all_counts(database)
    assert sorted(fetch_tries(database)) == [("Sale", 1, 1), ("Sale", 2, 1)]
    sql.execute(database, f"TRUNCATE leadloop.{table}")
    assert fetch_tries(database) == expected
    check_counts(database)
    counts.fold_all_counts(database)
    assert fetch_tries(database) == expected


def test_many_leads_of_one_statement_are_a_few_changes(database: Database) -> None:
    """An array has a limit, and a delete of a year of outcomes must not meet it."""
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
           SELECT 'C1', n, now(), '{}' FROM generate_series(1, 2500) AS n""",
    )
    sizes = "SELECT cardinality(lead_ids) AS size FROM leadloop.attempt_changes ORDER BY 1"
    assert [row["size"] for row in sql.fetch_rows(database, sizes)] == [501, 999, 1000]
    check_counts(database)


def fetch_tries(database: Database) -> list[tuple[str, int, int]]:
    """Return the outcomes, attempts and leads that the view shows."""
    query = "SELECT outcome_name, attempts, leads FROM leadloop_monitor.attempts_to_outcome"
    return [tuple(row.values()) for row in sql.fetch_rows(database, query)]


def test_a_drift_is_found_and_a_recount_mends_it(database: Database) -> None:
    """Rows written without triggers, as a restore with --disable-triggers writes them."""
    factories.add_leads(database, factories.build_lead("a", status="created"))
    counts.fold_all_counts(database)
    sql.execute(
        database,
        """SET LOCAL session_replication_role = replica;
           INSERT INTO leadloop.leads (campaign_id, lead_id, status)
           VALUES ('C1', 'b', 'created'), ('C2', 'c', 'created')""",
    )
    drifts = "SELECT sum(amount) FROM leadloop.counts_now WHERE campaign_id = :campaign"
    assert [database.run(counts.count_drift, each) for each in WRITERS] == [2, 1]
    database.run(counts.recount, "C1")
    assert [database.run(counts.count_drift, each) for each in WRITERS] == [0, 1]
    assert sql.fetch_value(database, drifts, campaign="C1") == 2
    database.run(counts.recount)
    assert database.run(counts.count_drift) == 0


def test_a_correction_of_an_hour_that_is_not_kept_shows_in_its_day_alone(
    database: Database,
) -> None:
    """The old hour is hidden as a whole, before housekeeping deletes it and after.

    That of all campaigns too.
    """
    insert = """INSERT INTO leadloop.lead_outcomes
                       (campaign_id, lead_id, processed_at, outcome_name, raw)
                VALUES ('C1', :lead, now() - interval '500 days', 'Sale', '{}')"""
    hours = """SELECT (SELECT count(*) FROM leadloop_monitor.outcomes_by_hour)
                    + (SELECT count(*) FROM leadloop_monitor.sums WHERE span = 'total hour')"""
    days = "SELECT sum(outcomes) FROM leadloop_monitor.outcomes_by_day"
    sql.execute(database, insert, lead="a")
    # The sum that was folded when the hour was new.
    sql.execute(
        database,
        """INSERT INTO leadloop.counts
           SELECT kind, 'hour', hour, campaign_id, 'key', name, detail, amount, marked, cost
             FROM leadloop.count_changes WHERE kind = 'outcome'""",
    )
    for change in (insert.replace(":lead", "'b'"), "DELETE FROM leadloop.lead_outcomes"):
        left = 0 if change.startswith("DELETE") else 2
        sql.execute(database, change)
        for fold in (counts.fold_all_counts, lambda database: database.run(counts.recount)):
            check_counts(database)
            assert sql.fetch_value(database, hours) == 0
            assert sql.fetch_value(database, days) == (left or None)
            fold(database)


def test_claims_and_responses_are_counted(database: Database) -> None:
    """Leads that a claim cancels, and those that a response creates or rejects."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b", "c", "d")
    sql.execute(
        database,
        """SET LOCAL session_replication_role = replica;
           INSERT INTO leadloop.disable_requests (campaign_id, lead_id) VALUES ('C1', 'a')""",
    )
    run_id = sql.fetch_value(
        database,
        """INSERT INTO leadloop.sync_runs (flow, campaign_id) VALUES ('push-leads', 'C1')
           RETURNING run_id""",
    )
    for claim_no in (1, 2):
        with database.autocommit() as connection:
            claimed = leads.claim_leads(
                connection,
                campaign_id=CAMPAIGN,
                run_id=run_id,
                claim_no=claim_no,
                limit=3,
                account=DEFAULT_ACCOUNT,
            )
        check_counts(database)
        ids = [lead.lead_id for lead in claimed.leads]
        claim = ClaimRef(campaign_id=CAMPAIGN, run_id=run_id, claim_no=claim_no, lead_ids=ids)
        database.run(leads.record_created, claim)
        check_counts(database)
    assert sql.fetch_statuses(database)["a"] == "cancelled"
    funnel = "SELECT stage, leads FROM leadloop_monitor.lead_funnel WHERE leads > 0"
    shown = {row["stage"]: row["leads"] for row in sql.fetch_rows(database, funnel)}
    assert shown == {"cancelled": 1, "created": 3}


def test_a_name_of_any_length_is_counted(database: Database) -> None:
    """The vendor's texts have no limit, and an entry of an index has."""
    name = secrets.token_hex(5000)
    sql.execute(
        database,
        """INSERT INTO leadloop.lead_outcomes
                  (campaign_id, lead_id, processed_at, outcome_name, raw)
           VALUES ('C1', 'a', now(), :name, '{}')""",
        name=name,
    )
    counts.fold_all_counts(database)
    check_counts(database)


def test_a_writer_in_doubt_delays_nobody(database: Database) -> None:
    """Two transactions that count the same hour, name and campaign do not wait for each other."""
    insert = text(
        """INSERT INTO leadloop.leads (campaign_id, lead_id, status)
           VALUES ('C1', :lead, 'created')"""
    )
    with database.transaction() as first:
        first.execute(insert, {"lead": "a"})
        with database.transaction() as second:
            second.execute(text("SET LOCAL lock_timeout = '100ms'"))
            second.execute(insert, {"lead": "b"})
        counts.fold_all_counts(database)
        check_counts(database)
    check_counts(database)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_insert_with_an_older_snapshot_does_not_fail(database: Database, level: str) -> None:
    """Counts that others have folded meanwhile do not concern it."""
    with database.transaction() as connection:
        connection.execute(text(f"SET TRANSACTION ISOLATION LEVEL {level}"))
        connection.execute(text("SELECT count(*) FROM leadloop.counts"))
        factories.add_leads(database, factories.build_lead("a", status="created"))
        counts.fold_all_counts(database)
        connection.execute(
            text(
                """INSERT INTO leadloop.leads (campaign_id, lead_id, status)
                   VALUES ('C1', 'b', 'created')"""
            )
        )
    check_counts(database)


@pytest.mark.parametrize("table", TABLES)
def test_truncate_needs_a_fresh_snapshot(database: Database, table: str) -> None:
    """Else rows that are gone would stay counted."""
    with pytest.raises(DatabaseError, match="55000"):
        sql.execute(
            database,
            f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; TRUNCATE leadloop.{table}",
        )


def test_a_truncate_beside_a_recount_meets_no_deadlock(database: Database) -> None:
    """Upstream empties a table while a recount waits for another one: neither fails."""
    factories.add_leads(database, factories.build_lead("a", status="created"))
    with ThreadPoolExecutor() as pool:
        with database.transaction() as writer:
            writer.execute(text("LOCK TABLE leadloop.lead_outcomes IN ACCESS EXCLUSIVE MODE"))
            recount = pool.submit(database.run, counts.recount)
            sql.wait_until_blocked(database)
            truncate = pool.submit(sql.execute, database, "TRUNCATE leadloop.disable_requests")
            # It has ended, or waits for the counts that the recount has locked.
            wait([truncate], timeout=2)
        truncate.result()
        recount.result()
    check_counts(database)


def test_a_truncate_beside_a_fold_meets_no_deadlock(database: Database) -> None:
    """The fold waits for the table before it locks the counts, which the trigger locks."""
    factories.add_leads(database, factories.build_lead("a", status="created"))
    with ThreadPoolExecutor() as pool:
        with database.transaction() as truncate:
            truncate.execute(text("LOCK TABLE leadloop.lead_outcomes IN ACCESS EXCLUSIVE MODE"))
            fold = pool.submit(counts.fold_all_counts, database)
            sql.wait_until_blocked(database)
            # Shorter than the fold's patience, and than the search for deadlocks waits.
            truncate.execute(text("SET LOCAL lock_timeout = '200ms'"))
            truncate.execute(text("TRUNCATE leadloop.lead_outcomes"))
        with suppress(DatabaseError):
            fold.result()
    check_counts(database)


def test_one_fold_at_a_time(database: Database) -> None:
    """A second one returns at once, so that folds cannot deadlock."""
    factories.add_leads(database, factories.build_lead("a", status="created"))
    with database.transaction() as connection:
        assert counts.fold_counts(connection) == 1
        assert database.run(counts.fold_counts) == 0


def test_a_recount_of_a_campaign_leaves_the_totals_of_other_periods(database: Database) -> None:
    """Those of its own are repaired, also where it has sums without a row."""
    add_outcome = """INSERT INTO leadloop.lead_outcomes
                            (campaign_id, lead_id, processed_at, outcome_name, total_cost, raw)
                     VALUES (:campaign, :lead, now() - interval '1 day' * :age, 'Sale', 2, '{}')"""
    for campaign, lead, age in (("C1", "a", 1), ("C1", "b", 5), ("C2", "a", 1), ("C2", "c", 9)):
        sql.execute(database, add_outcome, campaign=campaign, lead=lead, age=age)
    counts.fold_all_counts(database)
    totals = """SELECT ctid, since, amount, cost FROM leadloop.counts
                 WHERE span LIKE 'total %' AND since < now() - interval '7 days' ORDER BY 1"""
    sql.execute(
        database,
        """SET LOCAL session_replication_role = replica;
           DELETE FROM leadloop.lead_outcomes WHERE lead_id = 'b';
           UPDATE leadloop.counts SET amount = amount + 4, cost = 7 WHERE span LIKE 'total %'""",
    )
    wrong = sql.fetch_rows(database, totals)
    assert database.run(counts.count_drift, "C1") > 0
    database.run(counts.recount, "C1")
    assert database.run(counts.count_drift, "C1") == 0
    assert sql.fetch_rows(database, totals) == wrong != []
    by_day = """SELECT since < now() - interval '3 days' AS is_old, amount, cost
                  FROM leadloop.counts
                 WHERE span = 'total day' AND since > now() - interval '7 days'"""
    assert [tuple(row.values()) for row in sql.fetch_rows(database, by_day)] == [(False, 2, 4)]
    database.run(counts.recount, "C2")
    assert database.run(counts.count_drift) == 0
    assert sql.fetch_value(database, "SELECT count(*) FROM leadloop.counts WHERE amount = 0") == 0


def test_counts_of_an_older_database_are_filled_once(database: Database) -> None:
    """An upgrade finds rows that no trigger has seen."""
    sql.execute(
        database,
        """SET LOCAL session_replication_role = replica;
           DELETE FROM leadloop.counts_filled;
           INSERT INTO leadloop.leads (campaign_id, lead_id, status)
           VALUES ('C1', 'a', 'created')""",
    )
    assert not database.run(are_counts_filled)
    counts.fill_counts(database)
    check_counts(database)
    sql.execute(database, "UPDATE leadloop.counts SET amount = 5")
    counts.fill_counts(database)
    assert database.run(counts.count_drift, CAMPAIGN) == 1 + 1


_COST = "sum(total_cost) FILTER (WHERE abs(total_cost) < 'Infinity')"
_HOUR = "date_trunc('hour', {}, 'UTC')"
_DAY = "date_trunc('day', {}, 'UTC')"
_REQUESTS = """CASE jsonb_typeof(counts -> 'requests')
               WHEN 'number' THEN CAST(counts ->> 'requests' AS integer) END"""
_BOUNDS = ", ".join(f"CAST('{bound}' AS float8)" for bound in DELAY_BOUNDS_S)


def _bound(share: float, seconds: str) -> str:
    """Build the SQL of the upper bound of the bucket with a percentile."""
    return f"""CASE WHEN count({seconds}) > 0 THEN coalesce((
        SELECT min(bound) FROM unnest(ARRAY[{_BOUNDS}]) AS bound
         WHERE bound >= percentile_disc({share}) WITHIN GROUP (ORDER BY {seconds})), 'Infinity')
        END"""


def _is_kept(column: str) -> str:
    """Build the condition that the hour of a time is one that views by hour show."""
    return f"{_HOUR.format(column)} >= now() - interval '400 days'"


def _count(table: str, *statuses: str) -> str:
    """Build the SQL of the number of a campaign's rows of each status."""
    return ", ".join(
        f"""(SELECT count(*) FROM leadloop.{table} AS counted
              WHERE counted.campaign_id = campaign.campaign_id AND status = '{status}')"""
        for status in statuses
    )


_SEEN_AFTER_S = "date_part('epoch', seen_at) - date_part('epoch', processed_at)"
_LATENCY_S = """CASE WHEN status IN ('disabled', 'cancelled')
                     THEN date_part('epoch', confirmed_at) - date_part('epoch', requested_at) END"""

#: What each view has to show, from the rows: its columns, and the query.
_FROM_ROWS = {
    "lead_funnel": (
        "campaign_id, stage, leads",
        """SELECT campaign_id, stage, count(lead.campaign_id)
             FROM leadloop.campaigns
            CROSS JOIN unnest(ARRAY['new', 'sending', 'in_doubt', 'created', 'processed',
                                    'rejected', 'cancelled']) AS stage
             LEFT JOIN (SELECT campaign_id, status AS stage FROM leadloop.leads
                         UNION ALL
                        SELECT campaign_id, 'processed' FROM leadloop.lead_outcomes) AS lead
                 USING (campaign_id, stage) GROUP BY campaign_id, stage""",
    ),
    "rejections": (
        "campaign_id, reason, leads, sample_lead_ids",
        """SELECT campaign_id, last_error, count(*), (array_agg(lead_id ORDER BY seq DESC))[1:5]
             FROM leadloop.leads WHERE status = 'rejected' GROUP BY campaign_id, last_error""",
    ),
    "outcomes_by_hour": (
        "campaign_id, hour, outcome_name, outcomes, coalesce(cost, 0)",
        f"""SELECT campaign_id, {_HOUR.format("processed_at")}, outcome_name, count(*),
                   coalesce({_COST}, 0) FROM leadloop.lead_outcomes
             WHERE {_is_kept("processed_at")} GROUP BY 1, 2, 3""",
    ),
    "outcomes_by_day": (
        "campaign_id, day, outcome_name, outcomes, coalesce(cost, 0)",
        f"""SELECT campaign_id, date_trunc('day', processed_at, 'UTC'), outcome_name, count(*),
                   coalesce({_COST}, 0) FROM leadloop.lead_outcomes GROUP BY 1, 2, 3""",
    ),
    "attempts_by_hour": (
        "campaign_id, hour, attempts, connected, calls",
        f"""SELECT campaign_id, nullif({_HOUR.format("occurred_at")}, 'infinity'), count(*),
                   count(*) FILTER (WHERE channel = 'call' AND duration_s > 0),
                   count(*) FILTER (WHERE channel = 'call')
              FROM leadloop.outreach_attempts
             WHERE {_is_kept("coalesce(occurred_at, 'infinity')")} GROUP BY 1, 2""",
    ),
    "attempts_to_outcome": (
        "campaign_id, outcome_name, attempts, leads",
        """SELECT outcome.campaign_id, outcome.outcome_name, coalesce(tried.attempts, 0), count(*)
             FROM leadloop.lead_outcomes AS outcome
             LEFT JOIN (SELECT campaign_id, lead_id, count(*) AS attempts
                          FROM leadloop.outreach_attempts GROUP BY campaign_id, lead_id) AS tried
                  USING (campaign_id, lead_id)
            GROUP BY 1, 2, 3""",
    ),
    "request_stats": (
        "hour, campaign_id, flow, runs, requests",
        f"""SELECT {_HOUR.format("started_at")}, nullif(campaign_id, ''), flow, count(*),
                   coalesce(sum({_REQUESTS}), 0)
              FROM leadloop.sync_runs
             WHERE flow <> 'sync-leads' AND {_is_kept("started_at")} GROUP BY 1, 2, 3""",
    ),
    # The sums of all campaigns together.
    "sums WHERE substr(span, 1, 5) = 'total' GROUP BY 1, 2, 3, 4, 5 HAVING sum(amount) > 0": (
        "kind, span, since, name, bucket_s, sum(amount), sum(marked), coalesce(sum(cost), 0)",
        f"""SELECT 'outcome', 'total hour', {_HOUR.format("processed_at")}, outcome_name,
                   CAST(NULL AS float8), count(*), 0, coalesce({_COST}, 0)
              FROM leadloop.lead_outcomes WHERE {_is_kept("processed_at")} GROUP BY 3, 4
            UNION ALL
            SELECT 'outcome', 'total day', {_DAY.format("processed_at")}, outcome_name, NULL,
                   count(*), 0, coalesce({_COST}, 0)
              FROM leadloop.lead_outcomes GROUP BY 3, 4
            UNION ALL
            SELECT 'attempt', 'total hour', coalesce({_HOUR.format("occurred_at")}, 'infinity'),
                   channel, NULL, count(*), count(*) FILTER (WHERE duration_s > 0), 0
              FROM leadloop.outreach_attempts
             WHERE {_is_kept("coalesce(occurred_at, 'infinity')")} GROUP BY 3, 4
            UNION ALL
            SELECT 'run', 'total hour', {_HOUR.format("started_at")}, flow, NULL, count(*),
                   coalesce(sum({_REQUESTS}), 0), 0
              FROM leadloop.sync_runs
             WHERE flow <> 'sync-leads' AND {_is_kept("started_at")} GROUP BY 3, 4
            UNION ALL
            SELECT 'opt_out', 'total day', {_DAY.format("requested_at")}, status,
                   (SELECT min(bound) FROM unnest(ARRAY[{_BOUNDS}]) AS bound
                     WHERE bound >= {_LATENCY_S}), count(*), 0, 0
              FROM leadloop.disable_requests WHERE status IN ('disabled', 'cancelled')
             GROUP BY 3, 4, 5""",
    ),
    "lateness": (
        "campaign_id, seen_hour, outcomes, late, lookback_needed_s, p50_s, p95_s",
        f"""SELECT campaign_id, {_HOUR.format("seen_at")}, count(*), count(lookback_needed_s),
                   max(lookback_needed_s), {_bound(0.5, _SEEN_AFTER_S)},
                   {_bound(0.95, _SEEN_AFTER_S)}
              FROM leadloop.lead_outcomes WHERE {_is_kept("seen_at")} GROUP BY 1, 2""",
    ),
    "disable_latency": (
        "campaign_id, day, requested, disabled, cancelled, failed, waiting, p50_s, p95_s, worst_s",
        f"""SELECT campaign_id, CAST(requested_at AT TIME ZONE 'UTC' AS date), count(*),
                   count(*) FILTER (WHERE status = 'disabled'),
                   count(*) FILTER (WHERE status = 'cancelled'),
                   count(*) FILTER (WHERE status = 'failed'),
                   count(*) FILTER (WHERE status IN ('requested', 'failed')),
                   {_bound(0.5, "latency_s")}, {_bound(0.95, "latency_s")},
                   {_bound(1, "latency_s")}
              FROM (SELECT *, {_LATENCY_S} AS latency_s FROM leadloop.disable_requests) AS each
             GROUP BY 1, 2""",
    ),
    "slowest_opt_outs": (
        "day, p95_s",
        f"""SELECT day, max(p95_s)
              FROM (SELECT CAST(requested_at AT TIME ZONE 'UTC' AS date) AS day,
                           {_bound(0.95, _LATENCY_S)} AS p95_s
                      FROM leadloop.disable_requests GROUP BY campaign_id, 1) AS each
             GROUP BY day HAVING max(p95_s) IS NOT NULL""",
    ),
    "campaign_health": (
        """campaign_id, new, sending, in_doubt, created, rejected, cancelled, processed,
           coalesce(cost, 0), disabled, disable_pending, disable_failed, late,
           lookback_needed_s""",
        f"""SELECT campaign_id,
                   {
            _count("leads", "new", "sending", "in_doubt", "created", "rejected", "cancelled")
        },
                   outcome.*, {_count("disable_requests", "disabled", "requested", "failed")},
                   late.*
              FROM leadloop.campaigns AS campaign
             CROSS JOIN LATERAL (SELECT count(*), coalesce({_COST}, 0) FROM leadloop.lead_outcomes
                                  WHERE campaign_id = campaign.campaign_id) AS outcome
             CROSS JOIN LATERAL (SELECT count(lookback_needed_s),
                                        CAST(ceil(coalesce(max(lookback_needed_s), 0)) AS integer)
                                   FROM leadloop.lead_outcomes
                                  WHERE campaign_id = campaign.campaign_id) AS late""",
    ),
}


def check_views(database: Database) -> None:
    """Check that each view shows what a count of the rows shows."""
    for view, (columns, query) in _FROM_ROWS.items():
        different = sql.fetch_value(
            database,
            f"""WITH shown AS (SELECT {columns} FROM leadloop_monitor.{view}), expected AS ({query})
                SELECT count(*) FROM ((TABLE shown EXCEPT ALL TABLE expected)
                                      UNION ALL (TABLE expected EXCEPT ALL TABLE shown)) AS rows""",
        )
        assert different == 0, view


@settings(_SHARED, max_examples=20)
@given(steps=st.lists(st.tuples(st.sampled_from(WRITERS), _WRITES), min_size=10, max_size=40))
def test_views_show_what_the_rows_hold(database: Database, steps: list[tuple[str, Step]]) -> None:
    """Before a fold and after it."""
    clear(database)
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM leadloop.campaigns"))
        for campaign in WRITERS:
            campaigns.add_campaign(connection, campaign)
        for campaign, step in steps:
            step(connection, campaign)
    check_views(database)
    counts.fold_all_counts(database)
    check_views(database)
