"""The floor: the barest script that does the same requests, and COPY. No states, no checks.

As many threads as leadloop has, and the same libraries. Run as `floor.py poll|push`; see
tests/bench/peers/environments.py for what it reads and prints.
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

_THREADS = 4
_SIZE = 100
_API = f"{os.environ['BENCH_API_URL']}/api/v1/leads"
_CAMPAIGN = os.environ["BENCH_CAMPAIGN"]
_TABLES = """
DROP SCHEMA IF EXISTS bench_floor CASCADE;
CREATE SCHEMA bench_floor;
CREATE TABLE bench_floor.sent (lead_id text);
CREATE TABLE bench_floor.outcomes (
    lead_id text PRIMARY KEY, processed_at timestamptz, outcome_id text, outcome_name text,
    total_cost numeric, raw jsonb);
CREATE TABLE bench_floor.attempts (
    lead_id text, block text, reference_id text, outcome_id text, outcome_name text,
    occurred_at timestamptz, duration_s numeric, answers jsonb,
    PRIMARY KEY (lead_id, block, reference_id));
"""
_own = threading.local()


def push(connection: Any) -> dict[str, int]:
    """Read, send in threads, and copy the ids that were sent."""
    sent = io.StringIO()
    with ThreadPoolExecutor(_THREADS) as pool:
        for ids in pool.map(_create, _batches(connection)):
            sent.write("\n".join(ids) + "\n")
    sent.seek(0)
    cursor = connection.cursor()
    cursor.copy_expert("COPY bench_floor.sent FROM STDIN", sent)
    return {"leads": cursor.rowcount}


def poll(connection: Any) -> dict[str, int]:
    """Read the pages in threads, and copy what is on them."""
    outcomes, attempts = io.StringIO(), io.StringIO()
    first = _page(1)
    with ThreadPoolExecutor(_THREADS) as pool:
        others = pool.map(_page, range(2, -(-first["count"] // _SIZE) + 1))
        for page in (first, *others):
            for result in page["results"]:
                outcomes.write(_line(_outcome(result)))
                attempts.writelines(map(_line, _attempts(result)))
    rows, cursor = {}, connection.cursor()
    for table, lines in (("outcomes", outcomes), ("attempts", attempts)):
        lines.seek(0)
        cursor.copy_expert(f"COPY bench_floor.{table} FROM STDIN", lines)
        rows[table] = cursor.rowcount
    return rows


def _batches(connection: Any) -> Iterator[list[Any]]:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT lead_id, phone_number, contact_name, state_code, custom_fields"
        f" FROM {os.environ['BENCH_LEADS']}"
    )
    while rows := cursor.fetchmany(_SIZE):
        yield rows


def _create(rows: list[Any]) -> list[str]:
    names = ("lead_id", "phone_number", "contact_name", "state_code")
    body = [{**dict(zip(names, row[:4], strict=True)), **row[4]} for row in rows]
    answer = _session().post(f"{_API}/create/{_CAMPAIGN}/", data=orjson.dumps(body))
    assert answer.status_code == 201
    return [row[0] for row in rows]


def _page(number: int) -> Any:
    wanted = {
        "processed_after": os.environ["BENCH_AFTER"],
        "processed_before": os.environ["BENCH_BEFORE"],
        "page": str(number),
        "page_size": str(_SIZE),
    }
    answer = _session().get(f"{_API}/responses/{_CAMPAIGN}/", params=wanted)
    return orjson.loads(answer.content)


def _session() -> requests.Session:
    if not hasattr(_own, "session"):
        _own.session = requests.Session()
        _own.session.headers["Authorization"] = f"Bearer {os.environ['BENCH_TOKEN']}"
        _own.session.headers["Content-Type"] = "application/json"
    session: requests.Session = _own.session
    return session


def _outcome(result: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        result["lead_id"],
        _time(result["processed_at"]),
        str(result["outcome_id"]),
        result["outcome_name"],
        str(result["total_cost"]),
        _json(result),
    )


def _attempts(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for block in result["call_attempt_keys"]:
        for attempt in result[block]:
            yield (
                result["lead_id"],
                block,
                attempt["reference_id"],
                str(attempt["outcome_id"]),
                attempt["outcome_name"],
                _time(attempt["called_at"]),
                str(attempt["call_duration"]),
                _json({key: attempt[key] for key in attempt["report_keys_order"]}),
            )


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _json(value: object) -> str:
    return orjson.dumps(value).decode().replace("\\", "\\\\")


def _line(cells: Iterable[str]) -> str:
    return "\t".join(cells) + "\n"


def main() -> None:
    """Do it once, and print how long it took."""
    connection = psycopg2.connect(os.environ["BENCH_DATABASE_URL"])
    connection.autocommit = True
    connection.cursor().execute(_TABLES)
    began = time.monotonic()
    rows = {"push": push, "poll": poll}[sys.argv[1]](connection)
    print(json.dumps({"seconds": time.monotonic() - began, "rows": rows}))


if __name__ == "__main__":
    main()
