"""What an hour costs in which nothing happens: schedules that start runs, and live-leads."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from tests.benchmarks.bench_environment import BenchEnvironment
from tests.benchmarks.live import LIVE_SCHEDULE, MINUTES
from tests.benchmarks.live_events import LEAD, OPT_OUT, OUTCOME, count_schedule_runs, plan_events
from tests.benchmarks.live_stack import (
    CAMPAIGNS,
    PREFECT_YAML,
    LivePrefect,
    LiveWorld,
    open_world,
    run_live_prefect,
    set_schedules,
)
from tests.benchmarks.process_usage import read_cpu_seconds
from tests.benchmarks.report import Figure, Section

#: The schedules without live-leads, by which a lead waited for minutes.
_FORMER_SCHEDULES = {
    "disable-leads": "* * * * *",
    "push-leads": "*/5 * * * *",
    "poll-outcomes": "*/5 * * * *",
}
# A measured time holds as many scheduled runs as its length says, and none at its ends.
_PERIOD_S, _PERIOD_BEGINS_S = 300, 90
# After the worker's start, seconds.
_WARM_UP_S = 60
_TARGET = 0.2


@dataclass(frozen=True, kw_only=True)
class IdleCost:
    """What some time cost: CPU seconds without and with Prefect's server, and counts."""

    cpu_s: float
    cpu_with_server_s: float
    transactions: float
    prefect_requests: float
    vendor_requests: float

    def scale(self, factor: float) -> "IdleCost":
        """Return the cost of this many times the time."""
        return IdleCost(**{name: value * factor for name, value in vars(self).items()})

    def subtract(self, earlier: "IdleCost") -> "IdleCost":
        """Return the cost of the time since `earlier`."""
        return IdleCost(**{name: value - vars(earlier)[name] for name, value in vars(self).items()})

    def add(self, other: "IdleCost") -> "IdleCost":
        """Return the sum of both costs."""
        return IdleCost(**{name: value + vars(other)[name] for name, value in vars(self).items()})


def measure_live_idle(bench: BenchEnvironment, _: int, __: int) -> list[Section]:
    """Compare an idle hour of the former schedules with one of live-leads and its net."""
    former_runs, live_runs, net_runs = _count_runs()
    former = _measure_idle(bench, "prefect_former", _FORMER_SCHEDULES)
    live = _measure_idle(bench, "prefect_idle", LIVE_SCHEDULE)
    # The net's runs are too seldom to be measured: each counts like one of the former schedules.
    with_net = live.add(former.scale(net_runs / former_runs))
    per_hour = [
        _build_figure("CPU seconds, worker and runs", former.cpu_s, with_net.cpu_s),
        _build_figure(
            "CPU seconds, with Prefect's server",
            former.cpu_with_server_s,
            with_net.cpu_with_server_s,
        ),
        _build_figure("transactions", former.transactions, with_net.transactions),
        _build_figure("requests to Prefect", former.prefect_requests, with_net.prefect_requests),
        _build_figure(
            "requests to the vendor", former.vendor_requests, with_net.vendor_requests, target=None
        ),
    ]
    return [
        Section(
            title="Live: what an idle hour costs",
            conditions=f"{len(CAMPAIGNS)} campaigns in which outcomes are expected, and nothing"
            f" happens. Measured for {_measured_s() / 60:.0f} minutes, scaled to an hour; runs a"
            " day by the schedules. Before: push and poll every 5 minutes, disable every minute."
            " Now: live-leads, of which a run comes every 5 minutes and ends, and the net below it,"
            " whose runs count as much as one of before with its share of worker and server."
            " Requests to Prefect by the server's log, a WebSocket as one.",
            figures=[*per_hour, _build_figure("runs a day", former_runs, live_runs + net_runs)],
        )
    ]


def _count_runs() -> tuple[int, int, int]:
    """Return the runs a day of the former schedules, of live-leads, and of the net below it."""
    ours = yaml.safe_load(PREFECT_YAML.read_text())
    runs = count_schedule_runs(ours)
    former = sum(count_schedule_runs(set_schedules(ours, _FORMER_SCHEDULES)).values())
    net = sum(runs[flow] for flow in _FORMER_SCHEDULES)
    return former, runs["live-leads"], net


def _measure_idle(bench: BenchEnvironment, name: str, schedules: Mapping[str, str]) -> IdleCost:
    """Return the cost of an hour."""
    # Work of some minutes ago: outcomes are expected of each campaign.
    rates = {LEAD: 20.0, OPT_OUT: 5.0, OUTCOME: 20.0}
    earlier = plan_events("earlier", 60, rates, CAMPAIGNS)
    with open_world(bench) as world, run_live_prefect(bench, name, schedules) as prefect:
        world.push_known_leads(earlier)
        if schedules == LIVE_SCHEDULE:
            prefect.start_live_run()
        with prefect.run_worker(world) as worker:
            for event in earlier:
                if event.kind != LEAD:
                    world.act(event)
            time.sleep(_WARM_UP_S)
            _sleep_until_period()
            before = _read_costs(world, prefect, worker)
            time.sleep(_measured_s())
            after = _read_costs(world, prefect, worker)
    return after.subtract(before).scale(3600 / _measured_s())


def _measured_s() -> float:
    """Return the measured time: whole periods, so that each holds the same runs."""
    return max(1, round(MINUTES * 60 / _PERIOD_S)) * _PERIOD_S


def _sleep_until_period() -> None:
    time.sleep((_PERIOD_BEGINS_S - time.time()) % _PERIOD_S)


def _read_costs(world: LiveWorld, prefect: LivePrefect, worker: int) -> IdleCost:
    ours = read_cpu_seconds(worker)
    return IdleCost(
        cpu_s=ours,
        cpu_with_server_s=ours + prefect.read_cpu_seconds(),
        transactions=world.count_transactions(),
        prefect_requests=prefect.count_requests(),
        vendor_requests=len(world.sandbox.fetch_requests()),
    )


def _build_figure(
    what: str, before: float, now: float, *, target: float | None = _TARGET
) -> Figure:
    ratio = now / before
    return Figure(
        what=what,
        measured=f"{before:,.0f} before, {now:,.0f} now",
        ratio=f"{ratio:.2f}",
        target=f"≤ {target}" if target else "",
        met=ratio <= target if target else None,
    )
