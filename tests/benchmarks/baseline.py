"""The baseline: a minimal script with the same requests and COPY, without states and checks.

It has as many threads as leadloop and the same libraries. Run as `baseline.py poll|push`; see
tests/benchmarks/peers/environments.py for its environment and its output.
"""

import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg2
import requests

THREADS = 4
SIZE = 100
_API = f"{os.environ['BENCH_API_URL']}/api/v1/leads"
CAMPAIGN = os.environ["BENCH_CAMPAIGN"]
_TABLES = """
DROP SCHEMA IF EXISTS bench_baseline CASCADE;
CREATE SCHEMA bench_baseline;
CREATE TABLE bench_baseline.sent (lead_id text);
CREATE TABLE bench_baseline.outcomes (
    lead_id text PRIMARY KEY, processed_at timestamptz, outcome_id text, outcome_name text,
    total_cost numeric, raw jsonb);
CREATE TABLE bench_baseline.attempts (
    lead_id text, block text, reference_id text, outcome_id text, outcome_name text,
    occurred_at timestamptz, duration_s numeric, answers jsonb,
    PRIMARY KEY (lead_id, block, reference_id));
"""
_thread_local = threading.local()


def run_push(connection: Any) -> dict[str, int]:
    """Read leads, send them in threads, and copy the sent ids to Postgres."""
    sent = io.StringIO()
    with ThreadPoolExecutor(THREADS) as pool:
        for ids in pool.map(create_leads, _fetch_batches(connection)):
            sent.write("\n".join(ids) + "\n")
    sent.seek(0)
    cursor = connection.cursor()
    cursor.copy_expert("COPY bench_baseline.sent FROM STDIN", sent)
    return {"leads": cursor.rowcount}


def run_poll(connection: Any) -> dict[str, int]:
    """Read the pages in threads, and copy their outcomes and attempts to Postgres."""
    outcomes, attempts = io.StringIO(), io.StringIO()
    first = fetch_page(1)
    with ThreadPoolExecutor(THREADS) as pool:
        others = pool.map(fetch_page, range(2, -(-first["count"] // SIZE) + 1))
        for page in (first, *others):
            for result in page["results"]:
                outcomes.write(_format_line(parse_outcome(result)))
                attempts.writelines(map(_format_line, parse_attempts(result)))
    rows, cursor = {}, connection.cursor()
    for table, lines in (("outcomes", outcomes), ("attempts", attempts)):
        lines.seek(0)
        cursor.copy_expert(f"COPY bench_baseline.{table} FROM STDIN", lines)
        rows[table] = cursor.rowcount
    return rows


def _fetch_batches(connection: Any) -> Iterator[list[Any]]:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT lead_id, phone_number, contact_name, state_code, custom_fields"
        f" FROM {os.environ['BENCH_LEADS']}"
    )
    while rows := cursor.fetchmany(SIZE):
        yield rows


def create_leads(rows: list[Any]) -> list[str]:
    """Send the leads of rows in one request; return their ids."""
    names = ("lead_id", "phone_number", "contact_name", "state_code")
    body = [{**dict(zip(names, row[:4], strict=True)), **row[4]} for row in rows]
    answer = _get_session().post(f"{_API}/create/{CAMPAIGN}/", data=orjson.dumps(body))
    assert answer.status_code == 201
    return [row[0] for row in rows]


def fetch_page(number: int) -> Any:
    """Return a page of outcomes, decoded."""
    wanted = {
        "processed_after": os.environ["BENCH_AFTER"],
        "processed_before": os.environ["BENCH_BEFORE"],
        "page": str(number),
        "page_size": str(SIZE),
    }
    answer = _get_session().get(f"{_API}/responses/{CAMPAIGN}/", params=wanted)
    return orjson.loads(answer.content)


def _get_session() -> requests.Session:
    if not hasattr(_thread_local, "session"):
        _thread_local.session = requests.Session()
        _thread_local.session.headers["Authorization"] = f"Bearer {os.environ['BENCH_TOKEN']}"
        _thread_local.session.headers["Content-Type"] = "application/json"
    session: requests.Session = _thread_local.session
    return session


def parse_outcome(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the row of a result's outcome, as text."""
    return (
        result["lead_id"],
        _format_time(result["processed_at"]),
        str(result["outcome_id"]),
        result["outcome_name"],
        str(result["total_cost"]),
        _format_json(result),
    )


def parse_attempts(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a result's attempts, as text."""
    for block in result["call_attempt_keys"]:
        for attempt in result[block]:
            yield (
                result["lead_id"],
                block,
                attempt["reference_id"],
                str(attempt["outcome_id"]),
                attempt["outcome_name"],
                _format_time(attempt["called_at"]),
                str(attempt["call_duration"]),
                _format_json({key: attempt[key] for key in attempt["report_keys_order"]}),
            )


def _format_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _format_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _format_line(cells: Iterable[str]) -> str:
    return "\t".join(cells).replace("\\", "\\\\") + "\n"


def main() -> None:
    """Run the work once and print its duration and row counts."""
    connection = psycopg2.connect(os.environ["BENCH_DATABASE_URL"])
    connection.autocommit = True
    connection.cursor().execute(_TABLES)
    began = time.monotonic()
    rows = {"push": run_push, "poll": run_poll}[sys.argv[1]](connection)
    print(json.dumps({"seconds": time.monotonic() - began, "rows": rows}))


if __name__ == "__main__":
    main()
