"""dlt: its rest_api source to Postgres (poll), and its custom destination to the API (push).

`push-new` pushes what has come in since its last run, by dlt's incremental loading; see
live_peers.py.

Set up as dlt's own pages advise (https://dlthub.com/docs, as of dlt 1.31):

- reference/performance: several resources run at once with `parallelized`, in threads. The pages of
  one resource do not (https://github.com/dlt-hub/dlt/issues/2844), so the range is asked for in as
  many parts as leadloop has requests in flight. A resource of our own yields pages, not rows.
  Normalizing takes one process fewer than there are cores ("never allow dlt to use all cores"),
  loading dlt's 20 threads, for which files are rotated. Files are not compressed.
- dlt-ecosystem/destinations/postgres: CSV files go in by COPY; INSERT, the default, is slower.
- dlt-ecosystem/destinations/destination: a batch a call, on several threads; dlt's own requests.

Polling merges by lead, as leadloop does. It does less than leadloop: the answers are not kept as
they came, nothing is proven, and pushing leaves no mark on the leads.

The file is not called dlt.py: that would be what `import dlt` finds.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dlt
import psycopg2
from dlt.common import json as dlt_json
from dlt.sources.helpers import requests
from dlt.sources.rest_api import rest_api_source
from psycopg2.extensions import parse_dsn

PARTS = 4
ROWS_IN_A_FILE = 5000
SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "NORMALIZE__WORKERS": str(max(1, (os.cpu_count() or 1) - 1)),
}
ROTATED = {
    "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": str(ROWS_IN_A_FILE),
    "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": str(ROWS_IN_A_FILE),
}
BENCH = {name.removeprefix("BENCH_"): value for name, value in os.environ.items()}
REQUESTS: list[int] = []  # how many leads each one carried; appending is safe among threads


def run_poll() -> None:
    """Load the outcomes of the range into the tables outcomes and outcomes__attempts."""
    os.environ.update(SETTINGS)
    pipeline = dlt.pipeline(
        "poll",
        pipelines_dir=BENCH["WORK"],
        destination=dlt.destinations.postgres(_parse_credentials()),
        dataset_name=BENCH["SCHEMA"],
    )
    pipeline.run(_build_source(), loader_file_format="csv")


def run_push() -> None:
    """Send the leads to the create route, 100 a request."""
    os.environ.update(SETTINGS | ROTATED)
    pipeline = dlt.pipeline("push", pipelines_dir=BENCH["WORK"], destination=create_leads)
    pipeline.run(leads())


def run_push_new() -> None:
    """Send the leads that have come in since the last run of this pipeline."""
    os.environ.update(SETTINGS)
    dlt.pipeline("push_new", pipelines_dir=BENCH["WORK"], destination=create_leads).run(new_leads())


def count_landed() -> dict[str, int]:
    """Count the rows in the tables after polling: dlt's own counts are too high."""
    tables = {"outcomes": "outcomes", "attempts": "outcomes__attempts"}
    with psycopg2.connect(BENCH["DATABASE_URL"]) as connection, connection.cursor() as rows:
        return {name: _count_rows(rows, table) for name, table in tables.items()}


def count_sent() -> dict[str, int]:
    """Return the number of leads that the API has accepted."""
    return {"leads": sum(REQUESTS)}


def _count_rows(rows: Any, table: str) -> int:
    rows.execute(f"select count(*) from {BENCH['SCHEMA']}.{table}")
    return int(rows.fetchone()[0])


def _parse_credentials() -> dict[str, Any]:
    """Return credentials: dlt needs a host and a password, libpq neither; the query's host wins."""
    dsn = parse_dsn(BENCH["DATABASE_URL"])
    return {
        "host": "localhost",
        "port": int(dsn.get("port", 5432)),
        "database": dsn["dbname"],
        "username": dsn["user"],
        "password": dsn.get("password", "none"),
        "query": {"host": dsn["host"]},
    }


def _build_source() -> Any:
    client: Any = {
        "base_url": BENCH["API_URL"],
        "auth": {"type": "bearer", "token": BENCH["TOKEN"]},
        "paginator": {"type": "page_number", "base_page": 1, "total_path": None},
    }
    resources = [_build_resource(*part) for part in _split_range()]
    return rest_api_source({"client": client, "resources": resources}, parallelized=True)


def _split_range() -> Iterator[tuple[int, int, int]]:
    """Yield number, first and last ms of each part; bounds are inclusive, so none is shared."""
    after, before = int(BENCH["AFTER"]), int(BENCH["BEFORE"])
    edges = [after + (before + 1 - after) * part // PARTS for part in range(PARTS + 1)]
    for part in range(PARTS):
        yield part, edges[part], edges[part + 1] - 1


def _build_resource(number: int, after: int, before: int) -> Any:
    params = {"processed_after": after, "processed_before": before, "page_size": 100}
    return {
        "name": f"outcomes_{number}",
        "table_name": "outcomes",
        # A lead may come twice, and processed again: one row each, as leadloop has it.
        "primary_key": "lead_id",
        "write_disposition": "merge",
        "max_table_nesting": 1,
        "endpoint": {
            "path": f"api/v1/leads/responses/{BENCH['CAMPAIGN']}/",
            "params": params,
            "data_selector": "results",
            # The page after the last may be a 404: dlt's way to let that end the paging.
            "response_actions": [_count_request, {"status_code": 404, "action": "ignore"}],
        },
        "processing_steps": [{"map": _parse_outcome}],
    }


def _count_request(response: requests.Response, *_: Any, **__: Any) -> requests.Response:
    REQUESTS.append(0)
    return response


def _parse_outcome(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "lead_id": row["lead_id"],
        "processed_at": _parse_time(row["processed_at"]),
        "outcome_id": str(row["outcome_id"]),
        "outcome_name": row["outcome_name"],
        "total_cost": row["total_cost"],
        "attempts": [
            _parse_attempt(block, one) for block in row["call_attempt_keys"] for one in row[block]
        ],
    }


def _parse_attempt(block: str, attempt: dict[str, Any]) -> dict[str, Any]:
    return {
        "block": block,
        "reference_id": attempt["reference_id"],
        "outcome_id": str(attempt["outcome_id"]),
        "outcome_name": attempt["outcome_name"],
        "occurred_at": _parse_time(attempt["called_at"]),
        "duration_s": attempt["call_duration"],
        "answers": {key: attempt[key] for key in attempt["report_keys_order"]},
    }


def _parse_time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@dlt.resource(max_table_nesting=0)
def leads() -> Iterator[list[dict[str, Any]]]:
    """Yield pages of leads, with custom fields at the top level."""
    query = (
        "select lead_id, phone_number, contact_name, state_code, custom_fields"
        f" from {BENCH['LEADS']}"
    )
    with psycopg2.connect(BENCH["DATABASE_URL"]) as connection, connection.cursor("leads") as rows:
        rows.execute(query)
        while page := rows.fetchmany(ROWS_IN_A_FILE):
            yield [_build_lead(*row) for row in page]


@dlt.resource(max_table_nesting=0)
def new_leads(
    seq: Any = dlt.sources.incremental("seq", initial_value=0),  # noqa: B008
) -> Iterator[list[dict[str, Any]]]:
    """Yield the leads after the last one that was sent."""
    query = (
        "select seq, lead_id, phone_number, contact_name, state_code"
        f" from {BENCH['LEADS']} where seq > %s"
    )
    with psycopg2.connect(BENCH["DATABASE_URL"]) as connection, connection.cursor() as rows:
        rows.execute(query, (seq.last_value,))
        names = ("seq", "lead_id", "phone_number", "contact_name", "state_code")
        yield [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def _build_lead(
    lead_id: str, phone: str, name: str, state: str, custom: dict[str, Any]
) -> dict[str, Any]:
    own = {"lead_id": lead_id, "phone_number": phone, "contact_name": name, "state_code": state}
    return custom | own


@dlt.destination(batch_size=100)
def create_leads(items: Any, table: Any) -> None:
    """Send one create request."""
    response = requests.post(
        f"{BENCH['API_URL']}/api/v1/leads/create/{BENCH['CAMPAIGN']}/",
        data=dlt_json.dumpb(items),
        headers={
            "Authorization": f"Bearer {BENCH['TOKEN']}",
            "Content-Type": "application/json",
        },
    )
    response.raise_for_status()
    REQUESTS.append(len(items))


if __name__ == "__main__":
    work, rows = {
        "poll": (run_poll, count_landed),
        "push": (run_push, count_sent),
        "push-new": (run_push_new, count_sent),
    }[sys.argv[1]]
    started = time.monotonic()
    work()
    seconds = time.monotonic() - started
    print(json.dumps({"seconds": seconds, "requests": len(REQUESTS), "rows": rows()}))
