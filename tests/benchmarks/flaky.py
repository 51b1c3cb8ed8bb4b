"""A vendor at which a share of the requests fails: what outcomes and opt-outs take until done."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import sqrt

import requests

from tests import sql
from tests.benchmarks.bench_environment import (
    CAMPAIGN,
    BenchEnvironment,
    SandboxProcess,
    generate_outcomes,
)
from tests.benchmarks.competitors import DLT
from tests.benchmarks.report import Figure, Section

_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
# The routes whose requests fail, and when their resets come.
_RESETS = {"any": "before"}
_MAX_OUTCOMES = 10_000
#: After this many runs that fail, it is not done.
_MAX_RUNS = 6


@dataclass(frozen=True, kw_only=True)
class _Effort:
    """What it took to get everything done: the seconds of all runs with their start-up."""

    seconds: float
    requests: int
    runs: int
    is_done: bool
    lost: int

    def build_figure(self, what: str, *, bound: float | None = None) -> Figure:
        """Return a row; `bound`: the most requests by which the target is met."""
        runs = f"{self.runs} run{'s' if self.runs > 1 else ''}"
        done = runs if self.is_done else f"**not done** in {runs}"
        return Figure(
            what=what,
            measured=f"{self.seconds:.0f} s, {self.requests:,} requests, {done}, {self.lost} lost",
            target="" if bound is None else f"1 run, ≤ {bound:,.0f} requests, 0 lost",
            met=None
            if bound is None
            else self.is_done and self.runs == 1 and self.requests <= bound and not self.lost,
        )


def measure_flaky(bench: BenchEnvironment, amount: int, _: int) -> list[Section]:
    """Compare polls and disables at growing shares of failing requests; dlt polls in turns."""
    outcomes = min(amount, _MAX_OUTCOMES)
    opt_outs = outcomes // 10
    figures = []
    calm: dict[str, int] = {}
    for turn, share in enumerate(_SHARES):
        efforts = _measure_share(bench, outcomes, opt_outs, share, peer_first=turn % 2 == 1)
        for name, effort in efforts.items():
            what = f"{share:.0%}: {name}"
            if name == DLT.name:
                figures.append(effort.build_figure(what))
            else:
                bound = _bound_requests(calm.setdefault(name, effort.requests), share)
                figures.append(effort.build_figure(f"**{what}**", bound=bound))
    conditions = (
        f"{outcomes:,} outcomes with two attempts each, and {opt_outs:,} opt-outs, in pages and"
        " lists of 100. Of the failing requests half get a 500, half a reset; the draws are seeded."
        f" Each program runs until it has done all, at most {_MAX_RUNS} times, with the pauses of"
        " its retries and no rate limit. Processes from start to end. Target: one run, and of n"
        " requests that a calm vendor takes, (n + 4 √(n · p)) / (1 - p) + 3."
    )
    return [Section(title="Requests that fail", conditions=conditions, figures=figures)]


def _bound_requests(calm: int, share: float) -> float:
    return (calm + 4 * sqrt(calm * share)) / (1 - share) + 3


def _measure_share(
    bench: BenchEnvironment, outcomes: int, opt_outs: int, share: float, *, peer_first: bool
) -> dict[str, _Effort]:
    bench.reset_leads(outcomes)
    bench.load_leads()
    with bench.run_sandbox() as sandbox:
        bench.run_leadloop(sandbox, "push")
        processed, began, end = generate_outcomes(outcomes)
        sandbox.put_outcomes(processed)
        bench.vacuum()
        works = {
            "leadloop poll": lambda: _poll(bench, sandbox, outcomes),
            DLT.name: lambda: _poll_with_dlt(bench, sandbox, outcomes, began, end),
        }
        efforts = {}
        for name in reversed(works) if peer_first else works:
            sandbox.fail_share(share, _RESETS)
            efforts[name] = works[name]()
        sandbox.fail_share(share, _RESETS)
        efforts["leadloop disable"] = _disable(bench, sandbox, opt_outs)
    return {name: efforts[name] for name in (*works, "leadloop disable")}


def _poll(bench: BenchEnvironment, sandbox: SandboxProcess, amount: int) -> _Effort:
    return _run_until_done(
        sandbox,
        lambda: bench.run_leadloop(sandbox, "poll"),
        lambda: amount - _count_rows(bench, "leadloop.lead_outcomes"),
    )


def _poll_with_dlt(
    bench: BenchEnvironment,
    sandbox: SandboxProcess,
    amount: int,
    began: datetime,
    end: datetime,
) -> _Effort:
    return _run_until_done(
        sandbox,
        lambda: DLT.run(bench, sandbox, "poll", amount, after=began, before=end),
        lambda: amount - _count_rows(bench, f"bench_{DLT.name}.outcomes"),
    )


def _disable(bench: BenchEnvironment, sandbox: SandboxProcess, amount: int) -> _Effort:
    sql.execute(
        bench.database,
        """INSERT INTO leadloop.disable_requests (campaign_id, lead_id)
           SELECT campaign_id, lead_id FROM leadloop.leads ORDER BY seq LIMIT :most""",
        most=amount,
    )

    def count_lost() -> int:
        summary = requests.get(f"{sandbox.url}/_sandbox/books", timeout=60).json()
        return amount - int(summary["campaigns"][CAMPAIGN]["disabled"])

    return _run_until_done(sandbox, lambda: bench.run_leadloop(sandbox, "disable"), count_lost)


def _run_until_done(
    sandbox: SandboxProcess, run: Callable[[], object], count_lost: Callable[[], int]
) -> _Effort:
    before, began = len(sandbox.fetch_requests()), time.monotonic()
    runs, is_done = 0, False
    while not is_done and runs < _MAX_RUNS:
        runs += 1
        try:
            run()
        except RuntimeError:
            # It exited with an error, or is not complete.
            continue
        is_done = True
    return _Effort(
        seconds=time.monotonic() - began,
        requests=len(sandbox.fetch_requests()) - before,
        runs=runs,
        is_done=is_done,
        lost=count_lost(),
    )


def _count_rows(bench: BenchEnvironment, table: str) -> int:
    """Count the rows of a table; 0 where it does not exist."""
    exists = sql.fetch_value(bench.database, "SELECT to_regclass(:name) IS NOT NULL", name=table)
    return int(sql.fetch_value(bench.database, f"SELECT count(*) FROM {table}")) if exists else 0
