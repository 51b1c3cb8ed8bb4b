"""Counts: requests, and the bytes that Postgres writes."""

from collections.abc import Callable
from functools import partial
from math import ceil

from tests import sql
from tests.benchmarks.bench_environment import (
    CAMPAIGN,
    BenchEnvironment,
    SandboxProcess,
    generate_outcomes,
)
from tests.benchmarks.report import Figure, Section

_PAGE = 100
_BATCH = 100


def count_requests(bench: BenchEnvironment, amount: int, _: int) -> list[Section]:
    """Count the requests of each command, and compare them with the minimum."""
    bench.reset_leads(amount)
    with bench.run_sandbox() as sandbox:
        nothing = {
            name: _count_command_requests(bench, sandbox, name) for name in ("push", "disable")
        }
        bench.load_leads()
        push = _count_command_requests(bench, sandbox, "push")
        processed, _began, _end = generate_outcomes(amount)
        sandbox.put_outcomes(processed)
        poll = _count_command_requests(bench, sandbox, "poll")
        idle = _count_command_requests(bench, sandbox, "poll", LOOKBACK="0")
        opted_out = min(amount, 1000)
        sql.execute(
            bench.database,
            """INSERT INTO leadloop.disable_requests (campaign_id, lead_id)
               SELECT campaign_id, lead_id FROM leadloop.leads ORDER BY seq LIMIT :most""",
            most=opted_out,
        )
        disable = _count_command_requests(bench, sandbox, "disable")
    pages = ceil(amount / _PAGE)
    figures = [
        _expect_exactly("push with nothing to send", nothing["push"], 0),
        _expect_exactly("disable with nothing to disable", nothing["disable"], 0),
        _expect_exactly(f"push of {amount:,} leads", push, ceil(amount / _BATCH)),
        _expect_exactly("poll with nothing new", idle, 1),
        Figure(what=f"poll of {amount:,} outcomes ({pages:,} pages)", measured=f"{poll:,}"),
        Figure(what=f"disable of {opted_out:,} leads", measured=f"{disable:,}"),
    ]
    conditions = (
        f"Batches and pages of {_PAGE}; counted by the sandbox. The idle poll has no lookback: with"
        " one it would read the outcomes of a moment ago again."
    )
    return [Section(title="Requests", conditions=conditions, figures=figures)]


def measure_wal(bench: BenchEnvironment, amount: int, _: int) -> list[Section]:
    """Measure the WAL of a lead's whole life, each step after a checkpoint."""
    bench.reset_leads(amount)
    sql.execute(bench.database, "CREATE TABLE bench.plain (LIKE bench.leads INCLUDING ALL)")
    sql.execute(bench.database, "ALTER TABLE bench.plain ADD COLUMN status text DEFAULT 'new'")
    baseline = sum(
        _measure_written(bench, partial(sql.execute, bench.database, statement))
        for statement in (
            "INSERT INTO bench.plain SELECT * FROM bench.leads",
            "UPDATE bench.plain SET status = 'created'",
        )
    )
    inserted = _measure_written(bench, bench.load_leads)
    with bench.run_sandbox() as sandbox:
        pushed = _measure_written(bench, lambda: bench.run_leadloop(sandbox, "push"))
        processed, _began, _end = generate_outcomes(amount)
        sandbox.put_outcomes(processed)
        polled = _measure_written(bench, lambda: bench.run_leadloop(sandbox, "poll"))
    size = sql.fetch_value(bench.database, "SELECT pg_total_relation_size('leadloop.leads')::float")

    def build_figure(what: str, amount_written: int) -> Figure:
        return Figure(
            what=what,
            measured=f"{amount_written / amount:,.0f} bytes",
            ratio=f"{amount_written / baseline:.2f}",
        )

    figures = [
        build_figure("one INSERT and one UPDATE of a plain table", baseline),
        build_figure("the insert by upstream", inserted),
        build_figure("the push: claimed, and recorded as created", pushed),
        build_figure("**insert and push**", inserted + pushed),
        build_figure("the poll: an outcome and two attempts", polled),
        build_figure("**the whole life of a lead**", inserted + pushed + polled),
        Figure(
            what="`leadloop.leads` on disk after it, indexes included",
            measured=f"{size / amount:,.0f} bytes a lead",
        ),
    ]
    return [
        Section(
            title="Bytes written to Postgres for a lead",
            conditions=f"{amount:,} leads; WAL by pg_current_wal_insert_lsn, after a checkpoint, so"
            " with the full pages that follow one.",
            figures=figures,
        )
    ]


def _count_command_requests(
    bench: BenchEnvironment, sandbox: SandboxProcess, command: str, **settings: str
) -> int:
    before = len(sandbox.fetch_requests())
    bench.run_leadloop(sandbox, command, "--campaign", CAMPAIGN, **settings)
    return len(sandbox.fetch_requests()) - before


def _expect_exactly(what: str, amount: int, wanted: int) -> Figure:
    return Figure(what=what, measured=f"{amount:,}", target=f"{wanted:,}", met=amount == wanted)


def _measure_written(bench: BenchEnvironment, work: Callable[[], object]) -> int:
    bench.vacuum()
    before = _fetch_wal_position(bench)
    work()
    return _fetch_wal_position(bench) - before


def _fetch_wal_position(bench: BenchEnvironment) -> int:
    return int(sql.fetch_value(bench.database, "SELECT pg_current_wal_insert_lsn() - '0/0'"))
