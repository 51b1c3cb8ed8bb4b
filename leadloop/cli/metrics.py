"""`leadloop metrics`: serve every campaign's state to Prometheus, read as the page reads it."""

import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from db.database import Database, DatabaseError
from db.latencies import BOUNDS_S
from db.monitor import ViewsUnavailable, read_metrics_snapshot
from leadloop.cli import environment
from leadloop.core.errors import UsageError
from leadloop.monitor.request_guard import MAX_CONNECTIONS, RequestGuard, ServedAddresses
from leadloop.monitor.throttled_cache import ThrottledCache

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


_ADVICE = "Name the host that clients use: `leadloop metrics --allowed-host NAME`"


class CampaignCollector:
    """A collector of gauges and histograms; a database that cannot be read is a gauge too."""

    def __init__(self, database: Database) -> None:
        self._read = ThrottledCache(partial(read_metrics_snapshot, database))

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, fresh or from the cache."""
        try:
            snapshot = self._read()
        except (DatabaseError, ViewsUnavailable):
            yield GaugeMetricFamily("leadloop_up", "Whether the database answers.", value=0)
            return
        yield GaugeMetricFamily("leadloop_up", "Whether the database answers.", value=1)
        yield GaugeMetricFamily(
            "leadloop_upgrade_complete",
            "Whether the figures count the rows from before an upgrade of the schema too.",
            value=snapshot.upgrade_complete,
        )
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
        yield from _build_rate_limit_gauges(snapshot.budgets)
        yield _build_latency_histogram(snapshot.latencies)


def serve_metrics(
    database: Database, host: str, port: int, *, allowed_hosts: Sequence[str]
) -> None:
    """Serve Prometheus metrics until interrupted.

    Args:
        database: opened with any login that may act as `leadloop_reader`.
        host: the address to listen on.
        port: the port to listen on; 0: any free one.
        allowed_hosts: names under which clients reach the server, beside IP addresses and
            `localhost`.

    Raises:
        UsageError: the server cannot listen at that address, or the views cannot be read.
    """
    try:
        read_metrics_snapshot(database)
    except (DatabaseError, ViewsUnavailable) as error:
        raise UsageError(str(error)) from None
    registry = CollectorRegistry()
    registry.register(CampaignCollector(database))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise environment.explain_listen_error(error, host, port) from None
    with listener:
        url_host = f"[{host}]" if ":" in host else host
        print(f"Metrics at http://{url_host}:{listener.getsockname()[1]}/metrics", flush=True)
        config = uvicorn.Config(
            RequestGuard(
                build_metrics_app(registry), ServedAddresses(names=allowed_hosts, advice=_ADVICE)
            ),
            log_config=None,
            log_level="error",
            access_log=False,
            # uvicorn refuses the connection that reaches its limit.
            limit_concurrency=MAX_CONNECTIONS + 1,
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run(sockets=[listener])


def build_metrics_app(registry: CollectorRegistry) -> Starlette:
    """Build the application that answers a scrape."""

    async def scrape(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        content = await run_in_threadpool(encode, registry)
        return Response(content, headers={"content-type": content_type})

    return Starlette(routes=[Route("/metrics", scrape)])


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


def _build_rate_limit_gauges(
    budgets: Sequence[Mapping[str, Any]],
) -> Iterator[GaugeMetricFamily]:
    """Build the gauges of the rate limits, each shared by every process that uses the account.

    They have the label `account` if there are several accounts.
    """
    labels = ["account"] if len(budgets) > 1 else []
    for name, documentation, column in (
        ("budget_slots", "Request slots of the rate limit.", "slots"),
        ("budget_taken", "Request slots in use.", "taken"),
        ("paused_seconds", "Time left of the vendor's pause of all requests.", "paused_s"),
    ):
        gauge = GaugeMetricFamily(f"leadloop_{name}", documentation, labels=labels)
        for row in budgets:
            gauge.add_metric([row["account"]] if labels else [], row[column] or 0)
        yield gauge
