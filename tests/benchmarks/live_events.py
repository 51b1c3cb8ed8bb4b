"""The random moments of the live benchmark, and the figures of what they took."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from random import Random
from typing import Any

from tests.benchmarks.report import Figure

LEAD, OPT_OUT, OUTCOME = KINDS = ("lead", "opt-out", "outcome")


@dataclass(frozen=True, kw_only=True)
class Event:
    """A lead that comes in, opts out, or has its outcome, seconds after the beginning.

    `number` is unique among all events of a world: so are phone numbers made of it.
    """

    at_s: float
    kind: str
    campaign_id: str
    lead_id: str
    number: int


@dataclass(frozen=True, kw_only=True)
class LatencyTarget:
    """The most that half of all, and 99 in a hundred, may take, seconds; None: no target."""

    p50_s: float | None = None
    p99_s: float

    def describe(self) -> str:
        """Return the text of the report's column."""
        half = "" if self.p50_s is None else f"p50 ≤ {format_duration(self.p50_s)}, "
        return f"{half}p99 ≤ {format_duration(self.p99_s)}"

    def is_met(self, latencies: Sequence[float]) -> bool:
        """Return whether latencies are within the target."""
        p50_met = self.p50_s is None or percentile(latencies, 0.5) <= self.p50_s
        return p50_met and percentile(latencies, 0.99) <= self.p99_s


def plan_events(
    seed: str,
    duration_s: float,
    per_minute: Mapping[str, float],
    campaigns: Sequence[str],
    *,
    first_number: int = 0,
) -> list[Event]:
    """Draw the moments of a Poisson process for each kind of event, in the order of time.

    Args:
        seed: the same one draws the same events; it begins the ids of the leads.
        duration_s: all events are within this time.
        per_minute: the mean number of events a minute, by kind.
        campaigns: one is drawn for each event.
        first_number: the number of the first event.
    """
    moments = [
        (at_s, kind)
        for kind, rate in per_minute.items()
        for at_s in _draw_moments(f"{seed} {kind}", duration_s, rate)
    ]
    draws = Random(seed)
    return [
        Event(
            at_s=at_s,
            kind=kind,
            campaign_id=draws.choice(campaigns),
            lead_id=f"{seed}-{number}",
            number=number,
        )
        for number, (at_s, kind) in enumerate(sorted(moments), first_number)
    ]


def _draw_moments(seed: str, duration_s: float, per_minute: float) -> Iterator[float]:
    draws, at_s = Random(seed), 0.0
    while (at_s := at_s + draws.expovariate(per_minute / 60)) < duration_s:
        yield at_s


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that this share of all does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def format_duration(seconds: float) -> str:
    """Format a duration in ms or s."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def build_latency_figure(
    what: str, latencies: Sequence[float], target: LatencyTarget | None = None
) -> Figure:
    """Return the row of median, 99th percentile and maximum."""
    if not latencies:
        return Figure(what=what, measured="none", target=target.describe() if target else "")
    p50, p99 = (format_duration(percentile(latencies, share)) for share in (0.5, 0.99))
    return Figure(
        what=what,
        measured=f"p50 {p50}, p99 {p99}, most {format_duration(max(latencies))}"
        f" ({len(latencies):,})",
        target=target.describe() if target else "",
        met=target.is_met(latencies) if target else None,
    )


def count_schedule_runs(prefect_yaml: Mapping[str, Any]) -> dict[str, int]:
    """Count the runs a day of each flow by the active schedules of a prefect.yaml."""
    return {
        deployment["flow_name"]: sum(
            count_daily_runs(schedule["cron"])
            for schedule in deployment["schedules"]
            if schedule.get("active", True)
        )
        for deployment in prefect_yaml["deployments"]
    }


def count_daily_runs(cron: str) -> int:
    """Count the runs a day of a cron expression that names minutes and hours."""
    minutes, hours, *days = cron.split()
    assert days == ["*"] * 3, cron
    return _count_times(minutes, 60) * _count_times(hours, 24)


def _count_times(cron_field: str, size: int) -> int:
    if cron_field.startswith("*"):
        return size // int(cron_field[2:] or 1)
    return len(cron_field.split(","))
