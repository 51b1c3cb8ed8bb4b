"""`leadloop metrics`: serve every campaign's state to Prometheus, queried at each scrape."""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from db.campaign_status import get_rate_budget, read_metrics
from db.database import Database, DatabaseError
from db.latencies import BOUNDS_S
from leadloop.cli import environment
from leadloop.core.errors import UsageError

_STATUSES = ("new", "sending", "in_doubt", "created", "rejected", "cancelled")
#: Name and description of each gauge per campaign, by its column of `campaign_health`.
_GAUGES = {
    "processed": ("outcomes", "Leads that have an outcome."),
    "disabled": ("opt_outs_disabled", "Opt-outs that the vendor has confirmed."),
    "disable_pending": ("opt_outs_pending", "Opt-outs that are not confirmed yet."),
    "disable_failed": ("opt_outs_failed", "Opt-outs that the vendor rejects."),
    "disable_oldest_s": (
        "opt_out_oldest_seconds",
        "Age of the oldest opt-out that is not confirmed.",
    ),
    "new_oldest_s": ("new_oldest_seconds", "Age of the oldest unsent lead."),
    "watermark_lag_s": ("watermark_lag_seconds", "Lag of the watermark behind the present."),
    "owed": ("windows_owed", "Windows of outcomes that could not be read: owed, not accepted."),
    "owed_accepted": (
        "windows_accepted",
        "Windows of outcomes that a person has accepted as unreadable.",
    ),
    "late": ("outcomes_late", "Late outcomes: they appeared after a poll had read their time."),
    "lookback_needed_s": (
        "lookback_needed_seconds",
        "Lookback that would have found the late outcomes.",
    ),
}


class CampaignCollector:
    """A collector of gauges and histograms; an unreachable database is a gauge too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their present values."""
        try:
            snapshot = self._database.run(read_metrics)
        except DatabaseError:
            yield GaugeMetricFamily("leadloop_up", "Whether the database answers.", value=0)
            return
        yield GaugeMetricFamily("leadloop_up", "Whether the database answers.", value=1)
        leads = GaugeMetricFamily(
            "leadloop_leads", "Leads by status.", labels=["campaign", "status"]
        )
        for row in snapshot.campaigns:
            for status in _STATUSES:
                leads.add_metric([row["campaign_id"], status], row[status])
        yield leads
        for column, (name, documentation) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"leadloop_{name}", documentation, labels=["campaign"])
            for row in snapshot.campaigns:
                if row[column] is not None:  # without a value there is no sample
                    gauge.add_metric([row["campaign_id"]], row[column])
            yield gauge
        problems = GaugeMetricFamily(
            "leadloop_problems",
            "Problems that need attention.",
            labels=["campaign", "severity", "problem"],
        )
        for row in snapshot.problems:
            problems.add_metric(
                [row["campaign_id"], row["severity"], row["problem"]], row["amount"]
            )
        yield problems
        yield from _build_rate_limit_gauges(snapshot.budget)
        yield _build_latency_histogram(snapshot.latencies)


def serve_metrics(database: Database, host: str, port: int) -> None:
    """Serve Prometheus metrics until interrupted.

    Raises:
        UsageError: the server cannot listen at that address, or the views cannot be read.
    """
    try:
        database.run(get_rate_budget)
    except DatabaseError as error:
        raise UsageError(f"{error}; has `leadloop init` been run?") from None
    registry = CollectorRegistry()
    registry.register(CampaignCollector(database))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise environment.explain_listen_error(error, host, port) from None
    print(f"Metrics at http://{host}:{server.server_port}/metrics", flush=True)
    try:
        threading.Event().wait()
    finally:
        server.shutdown()
        thread.join()


def _build_latency_histogram(rows: Sequence[Mapping[str, Any]]) -> HistogramMetricFamily:
    """Build the histogram of all latencies since the first one; `rows`: by campaign and kind."""
    histogram = HistogramMetricFamily(
        "leadloop_latency_seconds",
        "Latency of leads, opt-outs and outcomes, since the first one.",
        labels=["campaign", "kind"],
    )
    for labels, group in groupby(rows, key=itemgetter("campaign_id", "kind")):
        buckets = list(group)
        amounts = {bucket["bucket_s"]: bucket["amount"] for bucket in buckets}
        so_far = accumulate(amounts.get(bound, 0) for bound in BOUNDS_S)
        histogram.add_metric(
            labels,
            [
                ("+Inf" if math.isinf(bound) else str(float(bound)), float(amount))
                for bound, amount in zip(BOUNDS_S, so_far, strict=True)
            ],
            sum_value=sum(bucket["total_s"] for bucket in buckets),
        )
    return histogram


def _build_rate_limit_gauges(budget: Mapping[str, Any]) -> Iterator[GaugeMetricFamily]:
    """Build the gauges of the rate limit, shared by every process that uses this vendor account."""
    yield GaugeMetricFamily(
        "leadloop_budget_slots", "Request slots of the rate limit.", value=budget["slots"]
    )
    yield GaugeMetricFamily("leadloop_budget_taken", "Request slots in use.", value=budget["taken"])
    yield GaugeMetricFamily(
        "leadloop_paused_seconds",
        "Time left of the vendor's pause of all requests.",
        value=budget["paused_s"] or 0,
    )
