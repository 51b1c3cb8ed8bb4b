"""A year of history, written to the tables directly: leads, outcomes, attempts, opt-outs, runs.

The rows are those that pushes, polls and opt-outs leave behind, spread evenly over the year and
over the campaigns. Nothing is open, and no view shows a problem.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import text

from db import counts
from db.database import Database
from tests import sql
from tests.benchmarks.bench_environment import CAMPAIGN

#: Distinct reasons of rejected leads, and names of outcomes.
REASONS = 20
OUTCOME_NAMES = 6
#: Ended runs of each flow and campaign: as many as the rules of problems read.
RUNS = 60
_CHUNK = 1_000_000
_WINDOWS = 7 * 24 * 12

# Campaign number 1 has the id that the other parts of the benchmark use.
_CAMPAIGN_ID = f"""CASE number WHEN 1 THEN '{CAMPAIGN}'
                    ELSE '{CAMPAIGN}-' || lpad(number::text, 5, '0') END"""
# `dice` decides per thousand, independently of the campaign: below 20 rejected, below 30 cancelled,
# below 40 opted out later, 40 late.
_LEADS = f"""
    SELECT i, {_CAMPAIGN_ID} AS campaign_id, lpad(i::text, 8, '0') AS lead_id, dice,
           now() - interval '1 hour' - interval '365 days' * (1 - i / :leads ::float8) AS at
      FROM (SELECT i, 1 + i % :campaigns AS number,
                   (hashint8(i)::bigint + 2147483648) % 1000 AS dice
              FROM generate_series(CAST(:first AS bigint), :last) AS i) AS numbered
"""
_CAMPAIGNS = f"""
INSERT INTO leadloop.campaigns (campaign_id)
SELECT {_CAMPAIGN_ID} FROM generate_series(1, :campaigns) AS number
"""
#: Each with the parameters `first`, `last`, `leads` and `campaigns`.
_BY_LEAD = {
    "leads": f"""
INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, contact_name, state_code,
                            custom_fields, status, opted_out, number_noted, last_error, inserted_at,
                            sent_at, confirmed_at, run_id, claim_no)
SELECT campaign_id, lead_id,
       '+1' || (ARRAY[212, 415, 512, 617])[i % 4 + 1] || (200 + i / 10000 % 700)
            || lpad((i % 10000)::text, 4, '0'),
       'Person ' || i, chr((65 + i % 50 / 26)::integer) || chr((65 + i % 50 % 26)::integer),
       jsonb_build_object('plan', 'basic', 'number', i),
       CASE WHEN dice < 20 THEN 'rejected' WHEN dice < 30 THEN 'cancelled' ELSE 'created' END,
       dice BETWEEN 20 AND 39, dice BETWEEN 20 AND 39,
       CASE WHEN dice < 20 THEN 'phone_number: reason ' || i / :campaigns % {REASONS} END,
       at, CASE WHEN dice >= 30 THEN at + interval '10 s' END,
       CASE WHEN dice >= 30 THEN at + interval '11 s' END, i / 100, i % 100
  FROM ({_LEADS}) AS lead ORDER BY i""",
    "disable_requests": f"""
INSERT INTO leadloop.disable_requests (campaign_id, lead_id, requested_at, status, confirmed_at)
SELECT campaign_id, lead_id, at + interval '30 minutes',
       CASE WHEN dice < 30 THEN 'cancelled' ELSE 'disabled' END,
       -- Some of each campaign are slow, mostly too few for the percentile of a day.
       at + interval '30 minutes' + interval '1 s' * CASE WHEN i / :campaigns % 40 = 0 THEN 1500
                                                          WHEN i / :campaigns % 8 = 0 THEN 45
                                                          ELSE 3 END
  FROM ({_LEADS}) AS lead WHERE dice BETWEEN 20 AND 39 ORDER BY i""",
    "suppressed_numbers": f"""
INSERT INTO leadloop.suppressed_numbers (number_key, campaign_id, lead_id)
SELECT sha256(convert_to(lead_id, 'UTF8')), campaign_id, lead_id
  FROM ({_LEADS}) AS lead WHERE dice BETWEEN 20 AND 39""",
    "lead_outcomes": f"""
INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, outcome_id, outcome_name,
                                    total_cost, raw, first_seen_at, updated_at, seen_at,
                                    lookback_needed_s)
SELECT campaign_id, lead_id, at + interval '20 minutes', dice % {OUTCOME_NAMES},
       'outcome ' || dice % {OUTCOME_NAMES}, 0.7,
       jsonb_build_object('lead_id', lead_id, 'campaign_id', campaign_id, 'answer',
                          repeat(md5(lead_id), 6)),
       at + interval '21 minutes', at + interval '21 minutes', at + interval '21 minutes',
       CASE dice WHEN 40 THEN 600 END
  FROM ({_LEADS}) AS lead WHERE dice >= 30 ORDER BY i""",
    "outreach_attempts": f"""
INSERT INTO leadloop.outreach_attempts (campaign_id, lead_id, channel, block, attempt_key,
                                        reference_id, outcome_id, outcome_name, occurred_at,
                                        duration_s, cost, answers)
SELECT campaign_id, lead_id, CASE WHEN turn = 2 AND i % 20 = 0 THEN 'sms' ELSE 'call' END,
       'call_attempts', 'r' || i || '-' || turn, 'r' || i || '-' || turn, turn, 'answered',
       at + interval '10 minutes' + interval '1 minute' * turn, i % 3 * 30, 0.3,
       '{{"interested": "Yes"}}'
  FROM ({_LEADS}) AS lead CROSS JOIN generate_series(1, 2) AS turn
 WHERE dice >= 30 AND (turn = 1 OR i % 2 = 0) ORDER BY i""",
}
#: Each with the parameter `campaigns`.
_BY_CAMPAIGN = (
    f"""
INSERT INTO leadloop.sync_runs (flow, campaign_id, flow_run_id, state, started_at, ended_at, counts)
SELECT flow, {_CAMPAIGN_ID}, gen_random_uuid(), 'completed',
       now() - interval '5 minutes' * ({RUNS} - run + 1),
       now() - interval '5 minutes' * ({RUNS} - run + 1) + interval '2 s', counts
  FROM generate_series(1, {RUNS}) AS run
 CROSS JOIN generate_series(1, :campaigns) AS number
 CROSS JOIN (VALUES
       ('disable-leads', jsonb_build_object('disabled', 1, 'cancelled', 0, 'failed', 0,
            'set_aside', 0, 'in_doubt', 0, 'requests', 1)),
       ('push-leads', jsonb_build_object('created', 100, 'rejected', 2, 'in_doubt', 0,
            'not_looked_up', 0, 'settling', 0, 'suspects', 0, 'cancelled', 1, 'from_source', 0,
            'unreadable_rows', 0, 'held_back', 0, 'requests', 1)),
       ('poll-outcomes', jsonb_build_object('windows', 1, 'pages', 1, 'seen', 0, 'inserted', 0,
            'updated', 0, 'unchanged', 0, 'late', 0, 'owed', 0, 'lookback_s', 900,
            'lookback_needed_s', 0, 'requests', 1))) AS flows (flow, counts)
 ORDER BY run, flow, number""",
    f"""
INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through, read_through,
                                 written_through)
SELECT {_CAMPAIGN_ID}, 'outcomes', now(), now(), now()
  FROM generate_series(1, :campaigns) AS number""",
    f"""
INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before, status,
                                   claimed_count, stored_count, pages, closed_through, polled_at)
SELECT {_CAMPAIGN_ID}, 0, polled.at - interval '5 minutes', polled.at, 'closed', 0, 0, 1, polled.at,
       polled.at
  FROM generate_series({_WINDOWS}, 0, -1) AS ago
 CROSS JOIN LATERAL (SELECT now() - interval '5 minutes' * ago AS at) AS polled
 CROSS JOIN generate_series(1, :campaigns) AS number""",
    f"""
INSERT INTO leadloop.latencies (hour, campaign_id, kind, bucket_s, amount, total_s)
SELECT hour, {_CAMPAIGN_ID}, kind, bucket_s, 10, 5 * bucket_s
  FROM (VALUES ('lead', 10), ('outcome', 60)) AS kinds (kind, bucket_s)
 CROSS JOIN generate_series(1, :campaigns) AS number
 CROSS JOIN (SELECT date_trunc('hour', now(), 'UTC') - interval '1 hour' * ago AS hour
               FROM generate_series(0, 23) AS ago
              UNION ALL SELECT '-infinity') AS hours
 ORDER BY 1""",
)
_HURRY = {"autovacuum": "off", "fsync": "off", "full_page_writes": "off", "max_wal_size": "'8GB'"}


@dataclass(frozen=True, kw_only=True)
class HistorySize:
    """The number of leads of a year's history, and of the campaigns that share them."""

    leads: int
    campaigns: int

    @property
    def description(self) -> str:
        """The size in words."""
        plural = "" if self.campaigns == 1 else "s"
        return f"{self.leads:,} leads, {self.campaigns:,} campaign{plural}"


@dataclass(frozen=True, kw_only=True)
class SeedTimes:
    """The seconds that the rows took, and those of the count from scratch."""

    insert_s: float
    recount_s: float


@contextmanager
def hurry_writes(database: Database) -> Iterator[None]:
    """Let the server risk its data, which are a benchmark's, for the block."""
    with database.autocommit() as connection:
        for name, value in _HURRY.items():
            connection.exec_driver_sql(f"ALTER SYSTEM SET {name} = {value}")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        with database.autocommit() as connection:
            for name in _HURRY:
                connection.exec_driver_sql(f"ALTER SYSTEM RESET {name}")
            connection.exec_driver_sql("SELECT pg_reload_conf()")


def seed_history(database: Database, size: HistorySize) -> SeedTimes:
    """Fill an empty schema with a history of this size, count it, vacuum and analyze it."""
    began = time.monotonic()
    _insert_rows(database, size)
    inserted = time.monotonic()
    database.run(counts.recount)
    counted = time.monotonic()
    with database.autocommit() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return SeedTimes(insert_s=inserted - began, recount_s=counted - inserted)


def _insert_rows(database: Database, size: HistorySize) -> None:
    sql.execute(database, _CAMPAIGNS, campaigns=size.campaigns)
    for first in range(1, size.leads + 1, _CHUNK):
        last = min(first + _CHUNK - 1, size.leads)
        for statement in _BY_LEAD.values():
            _insert_without_triggers(
                database,
                statement,
                **{"first": first, "last": last, "leads": size.leads, "campaigns": size.campaigns},
            )
    for statement in _BY_CAMPAIGN:
        _insert_without_triggers(database, statement, campaigns=size.campaigns)


def _insert_without_triggers(database: Database, statement: str, **parameters: int) -> None:
    disable = "SET LOCAL session_replication_role = replica; SET LOCAL synchronous_commit = off"
    with database.transaction() as connection:
        connection.exec_driver_sql(disable)
        connection.execute(text(statement), parameters)
