"""What a long history and many campaigns cost: each command, each view, each look of the page."""

import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from statistics import median_low

import requests

from db import monitor, schema
from db.database import Database, DatabaseError
from leadloop.monitor.data import start_of_period
from tests import sql
from tests.benchmarks.bench_environment import (
    BIN,
    CAMPAIGN,
    BenchEnvironment,
    SandboxProcess,
    generate_outcomes,
)
from tests.benchmarks.growth_seed import HistorySize, SeedTimes, hurry_writes, seed_history
from tests.benchmarks.report import Figure, Section

_DATABASE = "bench_growth"
#: Bytes of a lead on disk, with its outcome and attempts; of the WAL and of all else.
_BYTES_A_LEAD = 1_700
_OTHER_BYTES = 12 * 2**30
_MAX_RATIO = 1.3
# 0.3 ms and 0.5 ms are no growth.
_NEGLIGIBLE_S = 0.02
_ROW_S = 5e-6
_PATIENCE_S = 60
_AT_WORK = 5_000
# Above the ids of the history.
_FIRST_NEW = 50_000_001
_COMMANDS = {
    "`status`": ("status",),
    "`status --campaign`": ("status", "--campaign", CAMPAIGN),
    "`status --check`": ("status", "--check"),
    "`plan`": ("plan",),
    "`disable`, idle": ("disable",),
    "`push`, idle": ("push",),
    "`poll`, idle": ("poll",),
    "`sync`, idle": ("sync",),
}
_PERIODS = {"1 day": 1, "7 days": 7, "30 days": 30, "ever": None}
# `slowest_opt_outs` has a day and the moment by which it is found, `since`: the last of the names.
_VIEWS = """
SELECT relname AS name,
       (SELECT max(attname) FROM pg_attribute
         WHERE attrelid = pg_class.oid AND atttypid IN ('date'::regtype, 'timestamptz'::regtype)
           AND attname IN ('day', 'hour', 'polled_hour', 'seen_hour', 'since', 'started_at')
       ) AS moment
  FROM pg_class
 WHERE relkind = 'v' AND relnamespace = 'leadloop_monitor'::regnamespace ORDER BY relname
"""
_NEW_LEADS = """
INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, contact_name, state_code,
                            custom_fields)
SELECT :campaign, lpad(i::text, 8, '0'), '+1' || (ARRAY[212, 415, 512, 617])[i % 4 + 1]
       || (200 + i / 10000 % 700) || lpad((i % 10000)::text, 4, '0'), 'Person ' || i, 'CA',
       jsonb_build_object('plan', 'basic', 'number', i)
  FROM generate_series(CAST(:first AS bigint), :first + :amount - 1) AS i
"""
_TABLE_SIZES = """
SELECT relname AS name, pg_table_size(oid) AS rows, pg_indexes_size(oid) AS indexes
  FROM pg_class WHERE relkind = 'r' AND relnamespace = 'leadloop'::regnamespace
   AND pg_total_relation_size(oid) > :least ORDER BY pg_total_relation_size(oid) DESC
"""
_DEAD_ROWS = """
SELECT n_dead_tup AS dead, autovacuum_count AS vacuums
  FROM pg_stat_user_tables WHERE relid = 'leadloop.leads'::regclass
"""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The seconds of one measurement, infinite if it was given up, and the rows it returned."""

    seconds: float
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class _World:
    """What was measured in a database with a history: readings and further facts, by name."""

    size: HistorySize
    readings: dict[str, Reading] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


def measure_growth(bench: BenchEnvironment, _: int, turns: int) -> list[Section]:
    """Measure one database after the other; each is dropped before the next one is made.

    The variables AMOUNTS and CAMPAIGNS of the environment list the sizes. The numbers of leads are
    compared at the middle number of campaigns, and the numbers of campaigns at the middle number of
    leads.
    """
    amounts, campaigns = _list_sizes("AMOUNTS", "0,2000000"), _list_sizes("CAMPAIGNS", "1,100,2000")
    by_leads = [HistorySize(leads=each, campaigns=_middle(campaigns)) for each in amounts]
    by_campaigns = [HistorySize(leads=_middle(amounts), campaigns=each) for each in campaigns]
    worlds = {
        size: _measure_world(bench, size, turns)
        for size in dict.fromkeys((*by_leads, *by_campaigns))
        if _has_space(bench, size)
    }
    axes = {"leads of history": by_leads, "campaigns": by_campaigns}
    return [
        *(
            _build_section(f"Costs by the number of {name}", chosen, turns)
            for name, sizes in axes.items()
            if len(chosen := [worlds[size] for size in sizes if size in worlds]) > 1
        ),
        _build_disk_section(worlds.values()),
    ]


def _list_sizes(variable: str, default: str) -> list[int]:
    return sorted(int(each) for each in os.environ.get(variable, default).split(","))


def _middle(sizes: Sequence[int]) -> int:
    return sizes[len(sizes) // 2]


def _has_space(bench: BenchEnvironment, size: HistorySize) -> bool:
    """Return whether the server's disk has space for a history; print it if there is none."""
    free = shutil.disk_usage(sql.fetch_value(bench.database, "SHOW data_directory")).free
    needed = size.leads * _BYTES_A_LEAD + _OTHER_BYTES
    if free < needed:
        _print_progress(size, f"left out: it takes {needed:,} bytes of disk, {free:,} are free")
    return free >= needed


def _measure_world(bench: BenchEnvironment, size: HistorySize, turns: int) -> _World:
    """Create a database with a history of this size, measure everything in it, and drop it."""
    schema.recreate_database(bench.database, _DATABASE)
    own, world = bench.open_sibling(_DATABASE), _World(size=size)
    try:
        with own.database:
            own.database.run(schema.migrate_schema)
            with hurry_writes(bench.database):
                times = seed_history(own.database, size)
            own.vacuum()
            world.facts.update(_describe_seeding(own.database, size, times))
            for name, work in chain(list_reads(own.database), _list_commands(own)):
                world.readings[name] = measure_median(work, turns)
                _print_progress(size, f"{name}: {world.readings[name]}")
            _measure_at_work(own, world, turns)
    finally:
        with bench.database.autocommit() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {_DATABASE} WITH (FORCE)")
    return world


def _print_progress(size: HistorySize, message: str) -> None:
    print(f"{size.description}: {message}", flush=True)


def measure_median(work: Callable[[], Reading], turns: int) -> Reading:
    """Return the median of some turns after a warm-up, or of those that a minute allows."""
    readings = [work()]
    while len(readings) <= turns and sum(each.seconds for each in readings) < _PATIENCE_S:
        readings.append(work())
    return _pick_median(readings)


def _pick_median(readings: Sequence[Reading]) -> Reading:
    """Return the median without the first one, the warm-up, if it is not the only one."""
    counted = readings[1:] or readings
    middle = median_low(reading.seconds for reading in counted)
    return next(reading for reading in counted if reading.seconds == middle)


def list_reads(database: Database) -> Iterator[tuple[str, Callable[[], Reading]]]:
    """Yield the looks of the page and the reads of views, with their names."""
    yield "page: status", partial(_time_call, partial(monitor.read_status_snapshot, database))
    for name, days in _PERIODS.items():
        yield f"page: {name}", partial(_time_call, partial(_read_page_history, database, days))
    problems = f"SELECT * FROM leadloop_monitor.problems WHERE campaign_id = '{CAMPAIGN}'"
    yield "problems, 1 campaign", partial(_time_query, database, problems)
    for view in sql.fetch_rows(database, _VIEWS):
        query = f"SELECT * FROM leadloop_monitor.{view['name']}"
        yield view["name"], partial(_time_query, database, query)
        if view["moment"]:
            query += f" WHERE {view['moment']} >= now() - interval '1 day'"
            yield f"{view['name']}, 1 day", partial(_time_query, database, query)


def _list_commands(own: BenchEnvironment) -> Iterator[tuple[str, Callable[[], Reading]]]:
    """Yield the commands while nothing is to be done, with their names; their servers run."""
    with own.run_sandbox() as sandbox:
        with _serve_metrics(own, sandbox) as url:
            yield (
                "`metrics`, a scrape",
                partial(_time_call, partial(requests.get, url, timeout=600)),
            )
        for name, arguments in _COMMANDS.items():
            yield name, partial(_time_command, own, sandbox, arguments)


def _time_command(
    own: BenchEnvironment, sandbox: SandboxProcess, arguments: Sequence[str]
) -> Reading:
    return Reading(seconds=own.run_leadloop(sandbox, *arguments).seconds)


@contextmanager
def _serve_metrics(own: BenchEnvironment, sandbox: SandboxProcess) -> Iterator[str]:
    """Run `leadloop metrics` for the block; yield its URL."""
    process = subprocess.Popen(
        [BIN / "leadloop", "metrics", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=own.directory,
        env=own.build_environment(sandbox),
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


def _read_page_history(database: Database, days: int | None) -> monitor.History:
    return monitor.read_history(database, (), None if days is None else start_of_period(days))


def _time_call(call: Callable[[], object]) -> Reading:
    began = time.monotonic()
    try:
        call()
    except monitor.ViewsUnavailable:
        return Reading(seconds=math.inf)
    return Reading(seconds=time.monotonic() - began)


def _time_query(database: Database, query: str) -> Reading:
    """Time a query and the output of its rows, without a client that reads them."""
    began = time.monotonic()
    try:
        with database.transaction() as connection:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_PATIENCE_S}s'")
            rows = connection.exec_driver_sql(f"COPY ({query}) TO '/dev/null'").rowcount
    except DatabaseError as error:
        if error.sqlstate != "57014":
            raise
        return Reading(seconds=math.inf)
    return Reading(seconds=time.monotonic() - began, rows=rows)


def _measure_at_work(own: BenchEnvironment, world: _World, turns: int) -> None:
    """Push leads of one campaign and poll their outcomes, the first time as a warm-up."""
    pushes, polls, written = [], [], 0
    for turn in range(turns + 1):
        first = _FIRST_NEW + turn * _AT_WORK
        added = {"campaign": CAMPAIGN, "first": first, "amount": _AT_WORK}
        sql.execute(own.database, _NEW_LEADS, **added)
        with own.run_sandbox() as sandbox:
            before = _fetch_wal_position(own.database)
            push = own.run_leadloop(sandbox, "push", "--campaign", CAMPAIGN)
            assert push.output["created"] == _AT_WORK, push.output
            written = _fetch_wal_position(own.database) - before
            pushes.append(Reading(seconds=own.fetch_run_seconds("push-leads")))
            processed, _began, _end = generate_outcomes(_AT_WORK, first=first)
            sandbox.put_outcomes(processed)
            poll = own.run_leadloop(sandbox, "poll", "--campaign", CAMPAIGN)
            assert poll.output["inserted"] == _AT_WORK, poll.output
            polls.append(Reading(seconds=own.fetch_run_seconds("poll-outcomes")))
    world.readings[f"`push`, {_AT_WORK:,} leads"] = _pick_median(pushes)
    world.readings[f"`poll`, {_AT_WORK:,} outcomes"] = _pick_median(polls)
    (found,) = sql.fetch_rows(own.database, _DEAD_ROWS)
    world.facts["WAL of a push"] = f"{written / _AT_WORK:,.0f} bytes a lead"
    world.facts["`leads` at the end"] = (
        f"{found['dead']:,} dead rows, {found['vacuums']} autovacuums"
    )


def _fetch_wal_position(database: Database) -> int:
    return int(sql.fetch_value(database, "SELECT pg_current_wal_insert_lsn() - '0/0'"))


def _describe_seeding(
    database: Database, size: HistorySize, times: SeedTimes
) -> Iterator[tuple[str, str]]:
    yield "the INSERT of all rows", f"{times.insert_s:.1f} s"
    yield "the count from scratch", f"{times.recount_s:.1f} s"
    for table in sql.fetch_rows(database, _TABLE_SIZES, least=2**20):
        rows, indexes = table["rows"], table["indexes"]
        text = f"{rows / 2**20:,.0f} MiB, indexes {indexes / 2**20:,.0f} MiB"
        if size.leads:
            text += f", {(rows + indexes) / size.leads:,.0f} bytes a lead"
        yield f"`{table['name']}`", text


def _build_section(title: str, worlds: Sequence[_World], turns: int) -> Section:
    sizes = (world.size.description for world in worlds)
    return Section(
        title=title,
        conditions=f"A year of history, one database after the other: {'; '.join(sizes)}. Medians"
        f" of {turns} turns after a warm-up, fewer where they take a minute. Commands are processes"
        " from start to end; pushes and polls with work are runs of one campaign, without start-up;"
        " views include the output of their rows. The ratio compares the last size with the first"
        f" one, which is granted {_ROW_S * 1e6:.0f} µs for each row that the last one outputs more;"
        f" less than {_NEGLIGIBLE_S * 1000:.0f} ms more are no growth.",
        figures=[
            _build_figure(name, [world.readings[name] for world in worlds])
            for name in worlds[0].readings
        ],
    )


def _build_figure(what: str, readings: Sequence[Reading]) -> Figure:
    ratio, met = judge_growth(readings[0], readings[-1])
    rows = [f"{reading.rows:,}" for reading in readings]
    return Figure(
        what=what,
        measured=" → ".join(_format_seconds(reading.seconds) for reading in readings)
        + (f"; {' → '.join(rows)} rows" if len(set(rows)) > 1 else "")
        + _describe_cost(readings[0], readings[-1]),
        ratio=f"{ratio:.2f}",
        target=f"≤ {_MAX_RATIO}",
        met=met,
    )


def _describe_cost(first: Reading, last: Reading) -> str:
    """Return the cost of each row that the last size outputs more, beside the time granted."""
    rows, seconds = last.rows - first.rows, last.seconds - first.seconds
    if rows <= 0 or seconds < _NEGLIGIBLE_S or math.isinf(seconds):
        return ""
    return f", {seconds / rows * 1e6:,.1f} µs each"


def judge_growth(first: Reading, last: Reading) -> tuple[float, bool]:
    """Return the ratio of two sizes' seconds, and whether it meets the target.

    The first one is granted the time to output the rows that the last one has more.
    """
    granted = first.seconds + max(0, last.rows - first.rows) * _ROW_S
    ratio = last.seconds / granted
    return ratio, ratio <= _MAX_RATIO or last.seconds - granted < _NEGLIGIBLE_S


def _format_seconds(seconds: float) -> str:
    if math.isinf(seconds):
        return "given up"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:,.1f} ms"


def _build_disk_section(worlds: Iterable[_World]) -> Section:
    return Section(
        title="Disk and time of a history",
        conditions="Rows inserted in order, without triggers, fsync and autovacuum. A lead has"
        " 0.97 outcomes and 1.5 attempts. WAL, dead rows and autovacuums are those of"
        f" pushes of {_AT_WORK:,} leads after it.",
        figures=[
            Figure(
                what=f"{world.size.description}: {name}",
                measured=fact,
            )
            for world in worlds
            for name, fact in world.facts.items()
        ],
    )
