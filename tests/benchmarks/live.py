"""`live-leads`: what a lead, an opt-out and an outcome take, calm and while a file is pushed."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests import sql
from tests.benchmarks.bench_environment import BenchEnvironment
from tests.benchmarks.live_events import (
    LEAD,
    OPT_OUT,
    OUTCOME,
    Event,
    LatencyTarget,
    build_latency_figure,
    format_duration,
    plan_events,
)
from tests.benchmarks.live_stack import (
    CAMPAIGNS,
    RATE_LIMIT,
    LivePrefect,
    LiveWorld,
    open_world,
    run_live_prefect,
)
from tests.benchmarks.report import Figure, Section

#: How long each program is measured, minutes.
MINUTES = float(os.environ.get("MINUTES", "5"))
#: Of each kind of event, how many a minute.
PER_MINUTE = {LEAD: 20.0, OPT_OUT: 10.0, OUTCOME: 20.0}
LIVE_SCHEDULE = {"live-leads": "*/5 * * * *"}
_MAX_FILE = 20_000
_FIRST_LEAD_S = 30.0
# How long the first lead is waited for, seconds.
_START_TIMEOUT_S = 180.0
_Latencies = Mapping[str, Sequence[float]]
_WHAT = {LEAD: "row to vendor", OPT_OUT: "opt-out confirmed", OUTCOME: "outcome in Postgres"}
_CALM = {
    OPT_OUT: LatencyTarget(p50_s=0.1, p99_s=3),
    OUTCOME: LatencyTarget(p99_s=15),
}
_TARGETS: Mapping[str, Mapping[str, LatencyTarget | None]] = {
    "with NOTIFY": {LEAD: LatencyTarget(p50_s=0.1, p99_s=2), **_CALM},
    "without": {
        LEAD: LatencyTarget(p50_s=0.4, p99_s=2),
        OPT_OUT: None,
        OUTCOME: _CALM[OUTCOME],
    },
}
_TARGETS_IN_PUSH = {
    LEAD: LatencyTarget(p99_s=10),
    OPT_OUT: LatencyTarget(p99_s=3.1),
    OUTCOME: LatencyTarget(p99_s=60),
}


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The result of a world: the first lead's seconds, latencies, and refused requests."""

    first_lead_s: float
    latencies: _Latencies
    in_push: _Latencies
    refused: int
    busiest: int


def measure_live(bench: BenchEnvironment, amount: int, _: int) -> list[Section]:
    """Measure live-leads through a Prefect server and a worker, with notifications and without."""
    with run_live_prefect(bench, "prefect_live", LIVE_SCHEDULE) as prefect:
        notified = _measure_world(bench, prefect, "with NOTIFY", min(amount, _MAX_FILE))
        unnotified = _measure_world(bench, prefect, "without", 0)
    return [
        Section(
            title="Live: seconds until a lead, an opt-out and an outcome are there",
            conditions=_describe_conditions(min(amount, _MAX_FILE)),
            figures=[
                *_build_figures("with NOTIFY", notified),
                *_build_figures("without", unnotified),
            ],
        )
    ]


def play_events(
    events: Sequence[Event],
    act: Callable[[Event], object],
    *,
    is_over: Callable[[], bool] = lambda: False,
) -> list[Event]:
    """Let events happen at their moments until all have, or it is over; return those that did."""
    began, happened = time.monotonic(), []
    for event in events:
        if is_over():
            break
        time.sleep(max(0.0, began + event.at_s - time.monotonic()))
        act(event)
        happened.append(event)
    return happened


def _measure_world(bench: BenchEnvironment, prefect: LivePrefect, how: str, file: int) -> _Part:
    calm = plan_events(f"calm {how}", MINUTES * 60, PER_MINUTE, CAMPAIGNS)
    busy = plan_events("busy", MINUTES * 60 * bool(file), PER_MINUTE, CAMPAIGNS, first_number=10**5)
    first = Event(at_s=0, kind=LEAD, campaign_id=CAMPAIGNS[0], lead_id="first", number=2 * 10**5)
    with open_world(bench) as world:
        if how == "without":
            world.lose_notifications()
        world.push_known_leads([*calm, *busy])
        world.add_lead(first)
        prefect.start_live_run()
        started = time.time()
        with prefect.run_worker(world):
            _wait_for_lead(world, first)
            play_events(calm, world.act)
            world.wait_until_done(calm)
            in_push = _measure_in_push(world, busy, file) if file else {}
        log = world.sandbox.fetch_requests()
        return _Part(
            first_lead_s=world.fetch_arrivals()[first.lead_id] - started,
            latencies=world.fetch_latencies(calm),
            in_push=in_push,
            refused=sum(request["status"] == 429 for request in log),
            busiest=world.sandbox.fetch_busiest(60),
        )


def _measure_in_push(world: LiveWorld, events: Sequence[Event], file: int) -> _Latencies:
    """Measure while a file is pushed; its leads wait behind the events' leads, which are urgent."""
    world.add_file(file)
    happened = play_events(
        events, lambda event: world.act(event, priority=1), is_over=lambda: not _is_pushing(world)
    )
    world.wait_until_done(happened)
    return world.fetch_latencies(happened)


def _is_pushing(world: LiveWorld) -> bool:
    query = """SELECT EXISTS (SELECT FROM leadloop.leads
                               WHERE campaign_id = :campaign AND status = 'new')"""
    is_pushing: bool = sql.fetch_value(world.bench.database, query, campaign=CAMPAIGNS[0])
    return is_pushing


def _wait_for_lead(world: LiveWorld, lead: Event) -> None:
    query = "SELECT status = 'created' FROM leadloop.leads WHERE lead_id = :lead"
    sql.wait_until(world.bench.database, query, timeout_s=_START_TIMEOUT_S, lead=lead.lead_id)


def _build_figures(how: str, part: _Part) -> list[Figure]:
    calm = [
        build_latency_figure(f"{_WHAT[kind]}, {how}", part.latencies[kind], target)
        for kind, target in _TARGETS[how].items()
    ]
    in_push = [
        build_latency_figure(f"{_WHAT[kind]}, in a push", latencies, _TARGETS_IN_PUSH[kind])
        for kind, latencies in part.in_push.items()
    ]
    return [
        *calm,
        *in_push,
        Figure(
            what=f"first lead after the worker's start, {how}",
            measured=format_duration(part.first_lead_s),
            target=f"≤ {format_duration(_FIRST_LEAD_S)}",
            met=part.first_lead_s <= _FIRST_LEAD_S,
        ),
        Figure(
            what=f"429, {how}",
            measured=f"{part.refused}; at most {part.busiest} requests in 60 s",
            target="0",
            met=part.refused == 0,
        ),
    ]


def _describe_conditions(file: int) -> str:
    rates = ", ".join(f"{rate:.0f} {kind}s" for kind, rate in PER_MINUTE.items())
    return (
        f"A Prefect server and a worker as of `leadloop up`, {len(CAMPAIGNS)} campaigns,"
        f" {RATE_LIMIT} requests; a minute {rates}, at random moments (Poisson, seeded), for"
        f" {MINUTES:.0f} minutes. A lead: from its INSERT to its creation at the sandbox, which"
        " answers at once; an opt-out: from its INSERT to its confirmation in Postgres; an outcome:"
        " from the vendor's time of processing to the beginning of the transaction that stores it."
        f" In a push: while {file:,} leads of one statement are sent, with priority 1 for the other"
        " leads. Without NOTIFY: in a database in which notifications reach nobody. The"
        " first lead was there before the worker."
    )
