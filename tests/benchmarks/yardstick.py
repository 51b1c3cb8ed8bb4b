"""The yardstick: a bare script that makes the promises that cost a round trip to the disk.

A push commits that its leads are being sent before each request, checks their numbers, and records
them as created afterwards; a poll stores each page in a transaction that may be repeated. It has no
rate limiter, opt-outs, doubts or retries. It has as many threads as leadloop and the same
libraries. Run as `yardstick.py poll|push`; see tests/benchmarks/peers/environments.py for its
environment and its output.
"""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import phonenumbers
import psycopg2
from psycopg2.extras import execute_values

from tests.benchmarks.baseline import (
    CAMPAIGN,
    SIZE,
    THREADS,
    create_leads,
    fetch_page,
    parse_attempts,
    parse_outcome,
)

# The key, the index of new leads and the free space that leadloop's table has.
_TABLES = """
DROP SCHEMA IF EXISTS bench_yardstick CASCADE;
CREATE SCHEMA bench_yardstick;
CREATE TABLE bench_yardstick.leads (
    campaign_id text, lead_id text, phone_number text, contact_name text, state_code text,
    custom_fields jsonb, status text NOT NULL DEFAULT 'new', sent_at timestamptz,
    confirmed_at timestamptz, seq bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (campaign_id, lead_id)) WITH (fillfactor = 50);
CREATE INDEX ON bench_yardstick.leads (campaign_id, seq) WHERE status = 'new';
CREATE TABLE bench_yardstick.outcomes (
    lead_id text PRIMARY KEY, processed_at timestamptz, outcome_id text, outcome_name text,
    total_cost numeric, raw jsonb);
CREATE TABLE bench_yardstick.attempts (
    lead_id text, block text, reference_id text, outcome_id text, outcome_name text,
    occurred_at timestamptz, duration_s numeric, answers jsonb,
    PRIMARY KEY (lead_id, block, reference_id));
"""
_COPY_LEADS = f"""
INSERT INTO bench_yardstick.leads
       (campaign_id, lead_id, phone_number, contact_name, state_code, custom_fields)
SELECT %s, lead_id, phone_number, contact_name, state_code, custom_fields
  FROM {os.environ["BENCH_LEADS"]} ORDER BY lead_id;
"""
_CLAIM = """
WITH picked AS MATERIALIZED (
    SELECT campaign_id, lead_id FROM bench_yardstick.leads
     WHERE campaign_id = %s AND status = 'new'
     ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE bench_yardstick.leads AS lead SET status = 'sending', sent_at = clock_timestamp()
  FROM picked
 WHERE lead.campaign_id = picked.campaign_id AND lead.lead_id = picked.lead_id
RETURNING lead.lead_id, phone_number, contact_name, state_code, custom_fields
"""
# Not flushed to the disk at once, as leadloop's.
_RECORD = """
WITH async_commit AS (SELECT set_config('synchronous_commit', 'off', true))
UPDATE bench_yardstick.leads SET status = 'created', confirmed_at = clock_timestamp()
  FROM async_commit WHERE campaign_id = %s AND lead_id = ANY(%s)
"""
_STORE_OUTCOMES = """
INSERT INTO bench_yardstick.outcomes VALUES %s
ON CONFLICT (lead_id) DO UPDATE
   SET processed_at = excluded.processed_at, outcome_id = excluded.outcome_id,
       outcome_name = excluded.outcome_name, total_cost = excluded.total_cost, raw = excluded.raw
"""
_STORE_ATTEMPTS = """
INSERT INTO bench_yardstick.attempts VALUES %s
ON CONFLICT (lead_id, block, reference_id) DO UPDATE
   SET outcome_id = excluded.outcome_id, outcome_name = excluded.outcome_name,
       occurred_at = excluded.occurred_at, duration_s = excluded.duration_s,
       answers = excluded.answers
"""
_thread_local = threading.local()


def run_push() -> dict[str, int]:
    """Claim, send and record batches in threads until no lead is left."""
    with ThreadPoolExecutor(THREADS) as pool:
        sent = pool.map(lambda _: _send_until_drained(), range(THREADS))
    return {"leads": sum(sent)}


def run_poll() -> dict[str, int]:
    """Read and store the pages in threads."""
    first = fetch_page(1)
    with ThreadPoolExecutor(THREADS) as pool:
        others = pool.map(lambda number: _store_page(fetch_page(number)), _other_pages(first))
        stored = [_store_page(first), *others]
    return {name: sum(page[name] for page in stored) for name in stored[0]}


def _send_until_drained() -> int:
    cursor, sent = _get_cursor(), 0
    while True:
        cursor.execute(_CLAIM, (CAMPAIGN, SIZE))
        if not (rows := cursor.fetchall()):
            return sent
        ids = create_leads([(row[0], _format_e164(row[1]), *row[2:]) for row in rows])
        cursor.execute(_RECORD, (CAMPAIGN, ids))
        sent += len(ids)


def _format_e164(text: str) -> str:
    number = phonenumbers.parse(text, "US")
    assert phonenumbers.is_valid_number(number)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _other_pages(first: Any) -> range:
    return range(2, -(-first["count"] // SIZE) + 1)


def _store_page(page: Any) -> dict[str, int]:
    outcomes = [parse_outcome(result) for result in page["results"]]
    attempts = [attempt for result in page["results"] for attempt in parse_attempts(result)]
    cursor = _get_cursor()
    cursor.execute("BEGIN")
    execute_values(cursor, _STORE_OUTCOMES, outcomes, page_size=len(outcomes))
    execute_values(cursor, _STORE_ATTEMPTS, attempts, page_size=len(attempts))
    cursor.execute("COMMIT")
    return {"outcomes": len(outcomes), "attempts": len(attempts)}


def _get_cursor() -> Any:
    """Return a cursor of this thread's connection."""
    if not hasattr(_thread_local, "connection"):
        _thread_local.connection = psycopg2.connect(os.environ["BENCH_DATABASE_URL"])
        _thread_local.connection.autocommit = True
    return _thread_local.connection.cursor()


def main() -> None:
    """Run the work once and print its duration and row counts."""
    cursor = _get_cursor()
    cursor.execute(_TABLES)
    cursor.execute(_COPY_LEADS, (CAMPAIGN,))
    cursor.execute("VACUUM ANALYZE bench_yardstick.leads")
    began = time.monotonic()
    rows = {"push": run_push, "poll": run_poll}[sys.argv[1]]()
    print(json.dumps({"seconds": time.monotonic() - began, "rows": rows}))


if __name__ == "__main__":
    main()
