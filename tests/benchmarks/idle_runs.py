"""The cost of a scheduled run with nothing to do."""

import sys
from collections.abc import Mapping, Sequence
from statistics import median

from tests.benchmarks.bench_environment import BenchEnvironment, FinishedProcess, run_process
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
    figures = [_build_figure(name, taken) for name in taken]
    return [
        Section(
            title="A scheduled run that finds nothing to do",
            conditions=f"Processes from start to end, in turns, {_TURNS} of each. All of them wait"
            " for the thread of Prefect's heartbeat, up to a second; CPU time excludes the wait.",
            figures=figures,
        )
    ]


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
