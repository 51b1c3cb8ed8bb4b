"""Latencies: counted once, by the statements that store the confirmations."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from db import housekeeping, in_doubt, leads, opt_outs, outcomes
from db.bulk_copy import format_text_row
from db.database import Database
from db.latencies import BOUNDS_S, build_count
from db.leads import ClaimRef
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.results import parse_result
from tests import factories, sql
from tests.factories import CAMPAIGN

#: Waits that lie within a bucket also after a slow test, and the bounds of their buckets.
_WAITS = {"a": (20, 30), "b": (400, 900), "c": (5000, float("inf"))}


@pytest.fixture(autouse=True)
def campaign(database: Database) -> None:
    """The campaign whose latencies are counted."""
    factories.add_campaign(database)


def count_buckets(database: Database, kind: str, hour: str = "isfinite(hour)") -> dict[float, int]:
    """Return the number of latencies of a kind by the bound of their bucket."""
    rows = sql.fetch_rows(
        database,
        f"SELECT bucket_s, amount FROM leadloop.latencies WHERE kind = :kind AND {hour}",
        kind=kind,
    )
    return {row["bucket_s"]: row["amount"] for row in rows}


def seen(*waits: str) -> dict[float, int]:
    """Return the buckets with one latency each of these waits."""
    return {_WAITS[wait][1]: 1 for wait in waits}


def wait_before(database: Database, table: str, column: str) -> None:
    """Date each row as long ago as the wait of its id."""
    for lead_id, (wait_s, _) in _WAITS.items():
        sql.execute(
            database,
            f"""UPDATE leadloop.{table} SET {column} = now() - make_interval(secs => :wait)
                 WHERE lead_id = :lead""",
            wait=wait_s,
            lead=lead_id,
        )


def claim_all(database: Database) -> ClaimRef:
    """Claim the leads that wait, in a run that lives."""
    run_id = sql.fetch_value(
        database,
        """INSERT INTO leadloop.sync_runs (flow, campaign_id)
           VALUES ('push-leads', :campaign) RETURNING run_id""",
        campaign=CAMPAIGN,
    )
    with database.transaction() as connection:
        claimed = leads.claim_leads(
            connection,
            campaign_id=CAMPAIGN,
            run_id=run_id,
            claim_no=1,
            limit=1000,
            account=DEFAULT_ACCOUNT,
        )
    ids = [lead.lead_id for lead in claimed.leads]
    return ClaimRef(campaign_id=CAMPAIGN, run_id=run_id, claim_no=1, lead_ids=ids)


def store_outcomes(database: Database, *at_ms: int, is_backfill: bool = False) -> None:
    """Store an outcome for each time; its lead has the time's place as its id."""
    results = [
        {"campaign_id": CAMPAIGN, "lead_id": f"L{place}", "processed_at": at}
        for place, at in enumerate(at_ms)
    ]
    parsed = [parse_result(result).outcome for result in results]
    with database.transaction() as connection:
        outcomes.merge_outcomes(
            connection,
            CAMPAIGN,
            outcomes=[format_text_row(each) for each in parsed if each],
            attempts=[],
            is_backfill=is_backfill,
        )


def milliseconds_ago(seconds: float) -> int:
    """Return the time so long ago, as the vendor writes it."""
    return int((time.time() - seconds) * 1000)


def test_leads_count_from_their_insert(database: Database) -> None:
    """A response counts each of its leads once, though the commit's confirmation got lost."""
    factories.add_leads(database, *_WAITS)
    wait_before(database, "leads", "inserted_at")
    claimed = claim_all(database)
    for expected in (3, 0):
        with database.transaction() as connection:
            assert leads.record_created(connection, claimed) == expected
        assert count_buckets(database, "lead") == seen(*_WAITS)
    total = sql.fetch_value(database, "SELECT sum(total_s) FROM leadloop_monitor.latency_totals")
    assert total == pytest.approx(5420, abs=60)


@pytest.mark.parametrize(("urgent_lead", "urgent_campaign"), [(1, 0), (0, 1)])
def test_urgent_leads_count_apart(
    database: Database, urgent_lead: int, urgent_campaign: int
) -> None:
    """By the lead's priority, or its campaign's."""
    factories.add_leads(database, factories.build_lead("a", priority=urgent_lead))
    sql.execute(database, f"UPDATE leadloop.campaigns SET priority = {urgent_campaign}")
    wait_before(database, "leads", "inserted_at")
    claimed = claim_all(database)
    with database.transaction() as connection:
        leads.record_created(connection, claimed)
    assert (count_buckets(database, "urgent lead"), count_buckets(database, "lead")) == (
        seen("a"),
        {},
    )


def test_a_lead_found_by_a_lookup_counts(database: Database) -> None:
    """Its latency includes the doubt; a second proof of the same lead counts nothing."""
    factories.add_leads(database, "a")
    wait_before(database, "leads", "inserted_at")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'in_doubt'")
    for expected in (["a"], []):
        with database.transaction() as connection:
            assert in_doubt.confirm_created(connection, CAMPAIGN, ["a"]) == expected
        assert count_buckets(database, "lead") == seen("a")


def test_opt_outs_count_from_the_request(database: Database) -> None:
    """A confirmation that is recorded twice counts once; one from the future took no time."""
    factories.add_opt_outs(database, *_WAITS, "later", "never")
    wait_before(database, "disable_requests", "requested_at")
    sql.execute(
        database,
        """UPDATE leadloop.disable_requests SET requested_at = now() + interval '1 hour'
            WHERE lead_id = 'later';
           UPDATE leadloop.disable_requests SET requested_at = 'infinity'
            WHERE lead_id = 'never'""",
    )
    ids = [*_WAITS, "later", "never"]
    for expected in (5, 0):
        with database.transaction() as connection:
            done = opt_outs.confirm_disabled(connection, CAMPAIGN, ids, settle_s=60)
        assert done == expected
        assert count_buckets(database, "opt-out") == {0.1: 1, **seen(*_WAITS)}


def test_outcomes_count_at_first_sight(database: Database) -> None:
    """From the vendor's processing; a poll that reads them again counts nothing.

    A lead that is processed again has another outcome. A backfill reads the past on purpose.
    """
    times = [milliseconds_ago(wait) for wait, _ in _WAITS.values()]
    store_outcomes(database, *times, is_backfill=True)
    assert count_buckets(database, "outcome") == {}
    sql.execute(database, "DELETE FROM leadloop.lead_outcomes")
    for _ in range(2):
        store_outcomes(database, *times)
        assert count_buckets(database, "outcome") == seen(*_WAITS)
    store_outcomes(database, milliseconds_ago(-3000))
    assert count_buckets(database, "outcome") == {0.1: 1, **seen(*_WAITS)}


def test_a_rollback_counts_nothing(database: Database) -> None:
    """The latency is stored with the confirmation, or neither is."""
    factories.add_leads(database, "a")
    claimed = claim_all(database)
    with database.transaction() as connection:
        assert leads.record_created(connection, claimed) == 1
        connection.rollback()
    assert count_buckets(database, "lead") == {}


def test_concurrent_confirmations_are_all_counted(database: Database) -> None:
    """Senders record at the same time: no deadlock, and no latency is lost."""
    ids = [f"L{number:03d}" for number in range(240)]
    factories.add_leads(database, *ids)
    # In all buckets, so that the statements share many rows, in many hands.
    sql.execute(
        database,
        """UPDATE leadloop.leads SET inserted_at = now() - make_interval(
                  secs => 0.05 * power(2, CAST(substr(lead_id, 2) AS int) % 18))""",
    )
    claimed = claim_all(database)

    def record(offset: int) -> int:
        share = ClaimRef(**{**vars(claimed), "lead_ids": claimed.lead_ids[offset::24]})
        return database.retry(lambda c: leads.record_created(c, share), single_statement=True)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(record, range(24))) == 240
    assert sum(count_buckets(database, "lead").values()) == 240
    assert sum(count_buckets(database, "lead", "hour = '-infinity'").values()) == 240


def test_a_bucket_includes_its_bound(database: Database) -> None:
    """As Prometheus's label `le` has it: less or equal."""
    for place, bound in enumerate(BOUNDS_S[:-1]):
        sql.execute(
            database,
            f"""INSERT INTO leadloop.disable_requests
                       (campaign_id, lead_id, requested_at, status, confirmed_at)
                VALUES ('{CAMPAIGN}', 'L{place}', now(), 'disabled',
                        now() + make_interval(secs => {bound}))""",
        )
    counted = build_count(
        "leadloop.disable_requests AS d",
        kind="'opt-out'",
        since="d.requested_at",
        until="d.confirmed_at",
    )
    with database.transaction() as connection:
        connection.execute(text(counted), {"campaign": CAMPAIGN})
    assert count_buckets(database, "opt-out") == dict.fromkeys(BOUNDS_S[:-1], 1)


def add_latencies(database: Database, *rows: tuple[str, str, float, int]) -> None:
    """Insert latencies: the SQL of the hour, kind, bucket, amount."""
    for hour, kind, bucket_s, amount in rows:
        sql.execute(
            database,
            f"""INSERT INTO leadloop.latencies
                VALUES (date_trunc('hour', {hour}, 'UTC'), '{CAMPAIGN}', :kind, :bucket, :amount, 1)
            """,
            kind=kind,
            bucket=bucket_s,
            amount=amount,
        )


def test_percentiles_are_bounds_of_buckets(database: Database) -> None:
    """Of a hundred, the fiftieth and the ninety-ninth; of one, that one."""
    add_latencies(
        database,
        ("now()", "lead", 0.1, 50),
        ("now()", "lead", 0.2, 48),
        ("now()", "lead", 5, 1),
        ("now()", "lead", float("inf"), 1),
        ("now() - interval '1 hour'", "opt-out", 1, 1),
        ("now() - interval '2 hours'", "opt-out", 60, 1),
    )
    for view in ("latencies", "latencies_now"):
        rows = sql.fetch_rows(
            database, f"SELECT * FROM leadloop_monitor.{view} ORDER BY kind, amount, p50_s"
        )
        figures = [(r["kind"], r["amount"], r["p50_s"], r["p99_s"], r["worst_s"]) for r in rows]
        assert figures[:2] == [("lead", 100, 0.1, 5, float("inf")), ("opt-out", 1, 1, 1, 1)], view
        assert figures[2:] == ([("opt-out", 1, 60, 60, 60)] if view == "latencies" else [])


def test_old_hours_go_and_the_total_stays(database: Database) -> None:
    """The exporter's counters would seem to restart if they decreased."""
    add_latencies(
        database,
        ("now()", "lead", 1, 1),
        ("now() - interval '40 days'", "lead", 1, 1),
    )
    sql.execute(
        database,
        f"INSERT INTO leadloop.latencies VALUES ('-infinity', '{CAMPAIGN}', 'lead', 1, 2, 1)",
    )
    with database.transaction() as connection:
        assert housekeeping.HISTORY["latencies"](connection, [CAMPAIGN], 30) == {CAMPAIGN: 1}
    assert count_buckets(database, "lead") == {1: 1}
    assert count_buckets(database, "lead", "hour = '-infinity'") == {1: 2}


def test_a_look_costs_the_same_with_any_history(database: Database) -> None:
    """Status, page and exporter read the last hour and the total alone."""
    sql.execute(
        database,
        f"""INSERT INTO leadloop.latencies
            SELECT now() - make_interval(hours => n), '{CAMPAIGN}', 'lead', bucket, 1, 1
              FROM generate_series(2, 5000) AS n, unnest(ARRAY[0.1, 0.2, 0.5, 1]) AS bucket""",
    )
    sql.execute(database, "ANALYZE leadloop.latencies")
    for view in ("latencies_now", "latency_totals"):
        with database.transaction() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN SELECT * FROM leadloop_monitor.{view}")
            assert "Seq Scan" not in "\n".join(row[0] for row in plan), view
