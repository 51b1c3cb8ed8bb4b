"""The pure parts of the live benchmarks: events, percentiles, schedules, CPU seconds."""

import yaml

from tests.benchmarks import live_events, live_idle, process_usage
from tests.benchmarks.live_events import LEAD, OPT_OUT, LatencyTarget, build_latency_figure
from tests.benchmarks.live_stack import PREFECT_YAML, set_schedules
from tests.benchmarks.process_usage import ProcessUsage, parse_process_usage, sum_cpu_seconds


def test_events_come_at_the_same_random_moments() -> None:
    """A seed stands for its events; rates are means, and numbers and leads are unique."""
    rates = {LEAD: 20.0, OPT_OUT: 5.0}
    events = live_events.plan_events("seed", 3600, rates, ["A", "B"], first_number=7)
    assert events == live_events.plan_events("seed", 3600, rates, ["A", "B"], first_number=7)
    assert events != live_events.plan_events("other", 3600, rates, ["A", "B"], first_number=7)
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
    assert 1100 <= sum(event.kind == LEAD for event in events) <= 1300
    assert 250 <= sum(event.kind == OPT_OUT for event in events) <= 350
    assert [event.number for event in events] == list(range(7, 7 + len(events)))
    assert len({event.lead_id for event in events}) == len(events)
    assert {event.campaign_id for event in events} == {"A", "B"}


def test_percentile_is_one_of_the_values() -> None:
    """Half of 1 to 100 are at most 50, and 99 in a hundred at most 99."""
    values = list(range(100, 0, -1))
    assert [live_events.percentile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert live_events.percentile([3.0], 0.01) == 3


def test_figure_misses_its_target_by_either_percentile() -> None:
    """A target is met if both percentiles are within it."""
    target = LatencyTarget(p50_s=0.1, p99_s=2)
    quick, slow, late = [0.05] * 100, [0.2] * 100, [0.05] * 90 + [3.0] * 10
    figures = [build_latency_figure("row", each, target) for each in (quick, slow, late)]
    assert [figure.met for figure in figures] == [True, False, False]
    assert figures[0].measured == "p50 50 ms, p99 50 ms, most 50 ms (100)"
    assert figures[2].target == "p50 ≤ 100 ms, p99 ≤ 2.0 s"


def test_runs_a_day_of_the_schedules() -> None:
    """Our schedules start at most a fifth of the runs that the former ones started."""
    crons = {"* * * * *": 1440, "*/5 * * * *": 288, "8,38 * * * *": 48, "17 3 * * *": 1}
    assert {cron: live_events.count_daily_runs(cron) for cron in crons} == crons
    former, live, net = live_idle._count_runs()
    assert (former, live) == (2016, 288)
    assert live + net <= former / 5


def test_schedules_are_replaced() -> None:
    """Only the named flows keep a schedule."""
    ours = yaml.safe_load(PREFECT_YAML.read_text())
    changed = set_schedules(ours, {"push-leads": "*/5 * * * *"})
    runs = live_events.count_schedule_runs(changed)
    assert {flow: amount for flow, amount in runs.items() if amount} == {"push-leads": 288}
    assert ours == yaml.safe_load(PREFECT_YAML.read_text())


def test_cpu_seconds_of_descendants_are_added_up() -> None:
    """Children count, other processes do not; a program's name may hold a parenthesis."""
    processes = {
        10: ProcessUsage(parent=1, cpu_s=1),
        11: ProcessUsage(parent=10, cpu_s=2),
        12: ProcessUsage(parent=11, cpu_s=4),
        13: ProcessUsage(parent=1, cpu_s=8),
    }
    assert sum_cpu_seconds(10, processes) == 7
    stat = "7 (a) b) S 5 7 7 0 -1 4194560 1 2 3 4 100 50 200 25 20 0 1 0 9"
    ticks = process_usage._TICKS_PER_S
    assert parse_process_usage(stat) == ProcessUsage(parent=5, cpu_s=375 / ticks)
