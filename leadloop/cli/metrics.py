"""`leadloop metrics`: the state of every campaign for Prometheus, asked anew at each scrape."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily

from db import campaign_status
from db.database import Database, DatabaseError
from leadloop.cli import environment
from leadloop.core.errors import UsageError

_STATUSES = ("new", "sending", "in_doubt", "created", "rejected", "cancelled")
#: Gauges a campaign, by the column of `campaign_health` that holds them.
_GAUGES = {
    "processed": ("outcomes", "Leads that have an outcome."),
    "disabled": ("opt_outs_disabled", "Opt-outs that the vendor has confirmed."),
    "disable_pending": ("opt_outs_pending", "Opt-outs that are not confirmed yet."),
    "disable_failed": ("opt_outs_failed", "Opt-outs that the vendor refuses."),
    "disable_oldest_s": ("opt_out_oldest_seconds", "For how long the oldest opt-out has waited."),
    "new_oldest_s": ("new_oldest_seconds", "For how long the oldest unsent lead has waited."),
    "watermark_lag_s": ("watermark_lag_seconds", "How far behind the stored outcomes are."),
    "late": ("outcomes_late", "Outcomes that a poll before should have found."),
    "lookback_needed_s": ("lookback_needed_seconds", "The lookback that would have found them."),
}


class CampaignCollector:
    """What is collected at a scrape; a database that is not there is a figure too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All gauges, with the state of this moment."""
        try:
            with self._database.transaction() as connection:
                rows = campaign_status.list_campaign_health(connection)
                problems = campaign_status.sum_problems(connection)
                budget = campaign_status.get_rate_budget(connection)
        except DatabaseError:
            yield GaugeMetricFamily("leadloop_up", "Whether the database answers.", value=0)
            return
        yield GaugeMetricFamily("leadloop_up", "Whether the database answers.", value=1)
        yield _build_lead_gauge(rows)
        for column, (name, said) in _GAUGES.items():
            yield _build_campaign_gauge(name, said, rows, column)
        yield _build_problem_gauge(problems)
        yield from _build_rate_limit_gauges(budget)


def serve_metrics(database: Database, host: str, port: int) -> None:
    """Answer scrapes until somebody stops it.

    Raises:
        UsageError: the port is taken, or the views cannot be read.
    """
    try:
        with database.transaction() as connection:
            campaign_status.get_rate_budget(connection)
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


def _build_lead_gauge(rows: Iterable[Mapping[str, Any]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily("leadloop_leads", "Leads by status.", labels=["campaign", "status"])
    for row in rows:
        for status in _STATUSES:
            family.add_metric([row["campaign_id"], status], row[status])
    return family


def _build_campaign_gauge(
    name: str, documentation: str, rows: Iterable[Mapping[str, Any]], column: str
) -> GaugeMetricFamily:
    """A gauge a campaign; none where there is nothing that could be measured."""
    family = GaugeMetricFamily(f"leadloop_{name}", documentation, labels=["campaign"])
    for row in rows:
        if row[column] is not None:
            family.add_metric([row["campaign_id"]], row[column])
    return family


def _build_problem_gauge(rows: Iterable[Mapping[str, Any]]) -> GaugeMetricFamily:
    labels = ["campaign", "severity", "problem"]
    family = GaugeMetricFamily("leadloop_problems", "What is wrong; none: nothing.", labels=labels)
    for row in rows:
        family.add_metric([row["campaign_id"], row["severity"], row["problem"]], row["amount"])
    return family


def _build_rate_limit_gauges(budget: Mapping[str, Any]) -> Iterator[GaugeMetricFamily]:
    said = "Slots of the business's budget of requests"
    yield GaugeMetricFamily("leadloop_budget_slots", f"{said}.", value=budget["slots"])
    yield GaugeMetricFamily("leadloop_budget_taken", f"{said} in use.", value=budget["taken"])
    paused = budget["paused_s"] or 0
    yield GaugeMetricFamily(
        "leadloop_paused_seconds", "For how long the vendor wants no request.", value=paused
    )
