"""What a scheduled run costs that finds nothing to do."""

import sys
from statistics import median

from tests.bench.report import Figure, Section, ratios, times
from tests.bench.stage import Ran, Stage, run

_EMPTY = """
from prefect import flow

@flow
def empty():
    pass

empty()
"""
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
    taken: dict[str, list[Ran]] = {name: [] for name in ("empty", *_RUNS)}
    with stage.vendor() as vendor:
        stage.load()
        stage.leadloop(vendor, "push")
        stage.leadloop(vendor, "poll")
        environment = stage.environment(vendor)
        for _turn in range(_TURNS):
            for name, code in {"empty": _EMPTY, **_RUNS}.items():
                ran = run([sys.executable, "-c", code], environment, stage.directory)
                taken[name].append(ran)
    seconds = {name: [ran.seconds for ran in runs] for name, runs in taken.items()}
    figures = [Figure(what="an empty flow", measured=_told(taken["empty"]), ratio="1")]
    for name in _RUNS:
        ratio, told = ratios(seconds[name], seconds["empty"])
        figures.append(
            Figure(
                what=name,
                measured=_told(taken[name]),
                ratio=told,
                target="≤ 1.2",
                met=ratio <= 1.2,
            )
        )
    return [
        Section(
            title="A scheduled run that finds nothing to do",
            conditions=f"Processes from start to end, in turns, {_TURNS} of each. All of them wait"
            " for the thread of Prefect's heartbeat, up to a second; CPU tells what that hides.",
            figures=figures,
        )
    ]


def _told(runs: list[Ran]) -> str:
    return f"{times([ran.seconds for ran in runs])}, CPU {median(ran.cpu_s for ran in runs):.2f} s"
