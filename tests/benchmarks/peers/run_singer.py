"""Singer: a tap of our own on Meltano's singer-sdk, piped to target-postgres (poll). No push.

Set up as their pages advise (singer-sdk 0.54, meltanolabs-target-postgres 0.8):

- sdk.meltano.com, guides/performance: BATCH messages, records in files beside the pipe. That is
  faster than its other advice, msgspec for a message a record, and keeps no bookmarks.
- README and scripts/performance of MeltanoLabs/target-postgres: COPY, and no validating of records.
- sdk.meltano.com, parent_streams: attempts could be a child stream of outcomes, out of the same
  requests, but the SDK begins and ends a child stream anew for each parent: measured, that took one
  and a half times as long. So they are a stream beside it, which asks for each page again.

The tap asks for one page at a time, and its streams run one after the other: the SDK has no other
way. The target upserts by key, as leadloop does; no answer is kept as it came, and times have no
zone.

Tap and target are two processes with a pipe between them, as in a shell; but forked from one that
has imported both, for imports are not to count.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from functools import cached_property
from math import ceil
from multiprocessing import get_context
from typing import Any

import psycopg  # type: ignore[import-not-found, unused-ignore]
import requests
from singer_sdk import RESTStream, Tap  # type: ignore[import-not-found, unused-ignore]
from singer_sdk import typing as th
from singer_sdk.authenticators import BearerTokenAuthenticator  # type: ignore[import-not-found, unused-ignore]
from singer_sdk.pagination import PageNumberPaginator  # type: ignore[import-not-found, unused-ignore]
from target_postgres.target import TargetPostgres  # type: ignore[import-not-found, unused-ignore]

PAGE_SIZE = 100
BENCH = {name.removeprefix("BENCH_"): value for name, value in os.environ.items()}


class Pages(PageNumberPaginator):  # type: ignore[misc, unused-ignore]
    """A paginator that counts to the last page, known from the first page."""

    last = 0

    def has_more(self, response: requests.Response) -> bool:
        """Return whether there is a next page."""
        self.last = self.last or ceil(response.json()["count"] / PAGE_SIZE)
        return bool(self.current_value < self.last)


class Responses(RESTStream):  # type: ignore[misc, unused-ignore]
    """The base of both streams: the pages of the responses route."""

    path = "/api/v1/leads/responses/"

    @property
    def url_base(self) -> str:
        """The API's URL."""
        return str(self.config["api_url"])

    @cached_property
    def authenticator(self) -> BearerTokenAuthenticator:
        """The token."""
        return BearerTokenAuthenticator(token=self.config["token"])

    def get_url(self, context: Any) -> str:
        """Return the URL of the campaign's route."""
        return f"{self.url_base}{self.path}{self.config['campaign']}/"

    def get_new_paginator(self) -> Pages:
        """Return a paginator that starts at page 1."""
        return Pages(1)

    def get_url_params(self, context: Any, next_page_token: int | None) -> dict[str, Any]:
        """Return the parameters of the range and the page."""
        window = {f"processed_{edge}": self.config[edge] for edge in ("after", "before")}
        return {**window, "page_size": PAGE_SIZE, "page": next_page_token}


class Outcomes(Responses):
    """One record a lead."""

    name = "outcomes"
    primary_keys = ("lead_id",)
    schema = th.PropertiesList(
        th.Property("lead_id", th.StringType),
        th.Property("processed_at", th.DateTimeType),
        th.Property("outcome_id", th.StringType),
        th.Property("outcome_name", th.StringType),
        th.Property("total_cost", th.NumberType),
    ).to_dict()

    def parse_response(self, response: requests.Response) -> Iterator[dict[str, Any]]:
        """Yield the outcomes of a page."""
        for row in response.json()["results"]:
            yield {
                "lead_id": row["lead_id"],
                "processed_at": _format_time(row["processed_at"]),
                "outcome_id": str(row["outcome_id"]),
                "outcome_name": row["outcome_name"],
                "total_cost": row["total_cost"],
            }


class Attempts(Responses):
    """One record an attempt."""

    name = "attempts"
    primary_keys = ("lead_id", "block", "reference_id")
    schema = th.PropertiesList(
        th.Property("lead_id", th.StringType),
        th.Property("block", th.StringType),
        th.Property("reference_id", th.StringType),
        th.Property("outcome_id", th.StringType),
        th.Property("outcome_name", th.StringType),
        th.Property("occurred_at", th.DateTimeType),
        th.Property("duration_s", th.IntegerType),
        th.Property("answers", th.ObjectType(additional_properties=True)),
    ).to_dict()

    def parse_response(self, response: requests.Response) -> Iterator[dict[str, Any]]:
        """Yield the attempts of a page."""
        for row in response.json()["results"]:
            for block in row["call_attempt_keys"]:
                for attempt in row[block]:
                    yield {"lead_id": row["lead_id"], "block": block, **_parse_attempt(attempt)}


def _parse_attempt(attempt: dict[str, Any]) -> dict[str, Any]:
    return {
        "reference_id": attempt["reference_id"],
        "outcome_id": str(attempt["outcome_id"]),
        "outcome_name": attempt["outcome_name"],
        "occurred_at": _format_time(attempt["called_at"]),
        "duration_s": attempt["call_duration"],
        "answers": {key: attempt[key] for key in attempt["report_keys_order"]},
    }


def _format_time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


class TapLeads(Tap):  # type: ignore[misc, unused-ignore]
    """The tap."""

    name = "tap-leads"
    config_jsonschema = th.PropertiesList(
        th.Property("api_url", th.StringType, required=True),
        th.Property("token", th.StringType, required=True, secret=True),
        th.Property("campaign", th.StringType, required=True),
        th.Property("after", th.IntegerType, required=True),
        th.Property("before", th.IntegerType, required=True),
    ).to_dict()

    def discover_streams(self) -> list[Responses]:
        """Return the two streams."""
        return [Outcomes(self), Attempts(self)]


def run_poll() -> None:
    """Load the outcomes of the range into the tables outcomes and attempts: `tap | target`."""
    pipe = os.pipe()
    fork = get_context("fork")
    processes = [fork.Process(target=run, args=pipe) for run in (_run_tap, _run_target)]
    for process in processes:
        process.start()
    for end in pipe:
        os.close(end)
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("The tap or the target has failed: see the messages above.")


def _run_tap(reading: int, writing: int) -> None:
    os.close(reading)
    os.dup2(writing, sys.stdout.fileno())
    os.close(writing)
    config = {
        "api_url": BENCH["API_URL"],
        "token": BENCH["TOKEN"],
        "campaign": BENCH["CAMPAIGN"],
        "after": int(BENCH["AFTER"]),
        "before": int(BENCH["BEFORE"]),
        "batch_config": {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": f"file://{BENCH['WORK']}"},
        },
    }
    TapLeads(config=config).sync_all()


def _run_target(reading: int, writing: int) -> None:
    os.close(writing)
    config = {
        "sqlalchemy_url": BENCH["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:", 1),
        "default_target_schema": BENCH["SCHEMA"],
        "use_copy": True,
        "validate_records": False,
        "add_record_metadata": False,
        "activate_version": False,
    }
    # The target prints its state for a next run of the tap, which there is not.
    with os.fdopen(reading) as messages, redirect_stdout(sys.stderr):
        TargetPostgres(config=config).listen(messages)


def count_landed() -> dict[str, int]:
    """Count the rows in the tables."""
    with psycopg.connect(BENCH["DATABASE_URL"]) as connection:
        return {table: _count_rows(connection, table) for table in ("outcomes", "attempts")}


def _count_rows(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"select count(*) from {BENCH['SCHEMA']}.{table}").fetchone()
    return int(row[0])


if __name__ == "__main__":
    if sys.argv[1] != "poll":
        sys.exit("A Singer tap reads, and target-postgres writes to Postgres: there is no push.")
    started = time.monotonic()
    run_poll()
    seconds = time.monotonic() - started
    print(json.dumps({"seconds": seconds, "requests": None, "rows": count_landed()}))
