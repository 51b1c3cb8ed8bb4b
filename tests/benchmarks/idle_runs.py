"""The cost of a scheduled run with nothing to do, by the number of campaigns."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from threading import Event, Thread

from db.database import Database
from tests import sql
from tests.benchmarks.bench_environment import (
    BenchEnvironment,
    FinishedProcess,
    SandboxProcess,
    run_process,
)
from tests.benchmarks.report import Figure, Section, compare_times, format_times

_FLOW = """
from prefect import flow

@flow
def empty({}):
    pass

empty()
"""
_EMPTY = "an empty flow"
_EMPTY_FLOWS = {
    _EMPTY: _FLOW.format(""),
    # For the first parameter of any flow Prefect imports FastAPI.
    "the same with a parameter": _FLOW.format("campaigns=None"),
}
_RUNS = {
    "push": "from flows.push import push_leads; push_leads()",
    "disable": "from flows.disable import disable_leads; disable_leads()",
    "poll": "from flows.poll import poll_outcomes; poll_outcomes()",
    "sync": "from flows.sync import sync_leads; sync_leads()",
}
_TURNS = 7
_TURNS_OF_MANY = 3
# Campaigns whose leads have their outcomes, and whose last poll was an hour ago.
_CAMPAIGNS = (
    "INSERT INTO leadloop.campaigns (campaign_id) SELECT :prefix || n FROM"
    " generate_series(1, :amount) AS n",
    """INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, status, sent_at,
                                   confirmed_at)
       SELECT campaign_id, 'a', '+14155550123', 'created', now() - interval '1 day',
              now() - interval '1 day'
         FROM leadloop.campaigns WHERE campaign_id LIKE :prefix || '%'""",
    """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
       SELECT campaign_id, 'a', now() - interval '2 hours', '{}'
         FROM leadloop.campaigns WHERE campaign_id LIKE :prefix || '%'""",
    """INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through, read_through,
                                        written_through)
       SELECT campaign_id, 'outcomes', now() - interval '1 hour', now() - interval '1 hour',
              now() - interval '1 hour'
         FROM leadloop.campaigns WHERE campaign_id LIKE :prefix || '%'""",
)
_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
#: A run of many idle campaigns may take this many times as long as with one, its polls apart.
_MAX_RATIO = 1.5


def measure_idle_runs(bench: BenchEnvironment, _: int, __: int) -> list[Section]:
    """Measure whole processes, from the interpreter's start to its end, on a Prefect server."""
    bench.reset_leads(1)
    taken: dict[str, list[FinishedProcess]] = {name: [] for name in (*_EMPTY_FLOWS, *_RUNS)}
    with bench.run_sandbox() as sandbox:
        bench.load_leads()
        bench.run_leadloop(sandbox, "push")
        bench.run_leadloop(sandbox, "poll")
        environment = bench.build_environment(sandbox)
        for _turn in range(_TURNS):
            for name, code in {**_EMPTY_FLOWS, **_RUNS}.items():
                ran = run_process([sys.executable, "-c", code], environment, bench.directory)
                taken[name].append(ran)
        many = _measure_campaigns(bench, sandbox)
    figures = [_build_figure(name, taken) for name in taken]
    return [
        Section(
            title="A scheduled run that finds nothing to do",
            conditions=f"Processes from start to end, in turns, {_TURNS} of each. All of them wait"
            " for the thread of Prefect's heartbeat, up to a second; CPU time excludes the wait.",
            figures=figures,
        ),
        many,
    ]


def _measure_campaigns(bench: BenchEnvironment, sandbox: SandboxProcess) -> Section:
    """Measure the same runs with more and more idle campaigns, and the locks that they hold."""
    numbers = [int(each) for each in os.environ.get("CAMPAIGNS", "1,10,100,400").split(",")]
    environment = bench.build_environment(sandbox)
    taken: dict[tuple[str, int], list[float]] = {}
    locks: dict[tuple[str, int], int] = {}
    for number in numbers:
        bench.reset_leads(1)
        for statement in _CAMPAIGNS:
            parameters = {"prefix": "idle-", "amount": number - 1}
            _execute(bench.database, statement, parameters)
        bench.vacuum()
        for _turn in range(_TURNS_OF_MANY):
            for name, code in _RUNS.items():
                with _watch_locks(bench.database) as seen:
                    ran = run_process([sys.executable, "-c", code], environment, bench.directory)
                taken.setdefault((name, number), []).append(ran.seconds)
                locks[name, number] = max([locks.get((name, number), 0), *seen])
    figures = []
    for (name, number), seconds in sorted(
        taken.items(), key=lambda each: list(_RUNS).index(each[0][0])
    ):
        ratio, ratio_text = compare_times(seconds, taken[name, numbers[0]])
        has_target = name in ("push", "disable") and number != numbers[0]
        figures.append(
            Figure(
                what=f"{name}, {number:,} campaigns",
                measured=f"{format_times(seconds)}, {locks[name, number]} locks",
                ratio=ratio_text,
                target=f"≤ {_MAX_RATIO}" if has_target else "",
                met=ratio <= _MAX_RATIO if has_target else None,
            )
        )
    return Section(
        title="Idle runs, by the number of campaigns",
        conditions="Processes from start to end, whose campaigns have no open work and no new"
        f" outcome, {_TURNS_OF_MANY} of each; the most advisory locks that were seen held. A poll"
        " sends a request for each campaign, and so does the last part of a sync.",
        figures=figures,
    )


def _execute(database: Database, statement: str, parameters: Mapping[str, object]) -> None:
    used = {name: value for name, value in parameters.items() if f":{name}" in statement}
    sql.execute(database, statement, **used)


@contextmanager
def _watch_locks(database: Database) -> Iterator[list[int]]:
    """Look every 20 ms, for the block, how many advisory locks are held."""
    seen: list[int] = []
    is_over = Event()

    def watch() -> None:
        while not is_over.wait(0.02):
            seen.append(sql.fetch_value(database, _LOCKS))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def _build_figure(name: str, taken: Mapping[str, Sequence[FinishedProcess]]) -> Figure:
    runs, empty = ([ran.seconds for ran in taken[which]] for which in (name, _EMPTY))
    ratio, ratio_text = compare_times(runs, empty)
    return Figure(
        what=name,
        measured=f"{format_times(runs)}, CPU {median(ran.cpu_s for ran in taken[name]):.2f} s",
        ratio="1" if name == _EMPTY else ratio_text,
        target="≤ 1.2" if name in _RUNS else "",
        met=ratio <= 1.2 if name in _RUNS else None,
    )
