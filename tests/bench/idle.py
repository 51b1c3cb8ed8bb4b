"""What a scheduled run costs that finds nothing to do."""

import sys
from collections.abc import Mapping, Sequence
from statistics import median

from tests.bench.report import Figure, Section, ratios, times
from tests.bench.stage import Ran, Stage, run

_FLOW = """
from prefect import flow

@flow
def empty({}):
    pass

empty()
"""
_EMPTY = "an empty flow"
_YARDSTICKS = {
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


def idle(stage: Stage, _: int, __: int) -> list[Section]:
    """Whole processes, from the interpreter's start to its end, on a Prefect server."""
    stage.renew(1)
    taken: dict[str, list[Ran]] = {name: [] for name in (*_YARDSTICKS, *_RUNS)}
    with stage.vendor() as vendor:
        stage.load()
        stage.leadloop(vendor, "push")
        stage.leadloop(vendor, "poll")
        environment = stage.environment(vendor)
        for _turn in range(_TURNS):
            for name, code in {**_YARDSTICKS, **_RUNS}.items():
                ran = run([sys.executable, "-c", code], environment, stage.directory)
                taken[name].append(ran)
    figures = [_figure(name, taken) for name in taken]
    return [
        Section(
            title="A scheduled run that finds nothing to do",
            conditions=f"Processes from start to end, in turns, {_TURNS} of each. All of them wait"
            " for the thread of Prefect's heartbeat, up to a second; CPU time shows what it"
            " hides.",
            figures=figures,
        )
    ]


def _figure(name: str, taken: Mapping[str, Sequence[Ran]]) -> Figure:
    runs, empty = ([ran.seconds for ran in taken[which]] for which in (name, _EMPTY))
    ratio, told = ratios(runs, empty)
    return Figure(
        what=name,
        measured=f"{times(runs)}, CPU {median(ran.cpu_s for ran in taken[name]):.2f} s",
        ratio="1" if name == _EMPTY else told,
        target="≤ 1.2" if name in _RUNS else "",
        met=ratio <= 1.2 if name in _RUNS else None,
    )
