"""The figures that monitoring systems scrape, from the data team's views alone."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

_HEALTH = text("SELECT * FROM leadloop_monitor.campaign_health ORDER BY campaign_id")
_PROBLEMS = text("""
SELECT campaign_id, severity, problem, sum(amount) AS amount FROM leadloop_monitor.problems
 GROUP BY campaign_id, severity, problem ORDER BY 1, 2, 3
""")
_BUDGET = text("SELECT * FROM leadloop_monitor.budget_now")


def list_campaign_health(connection: Connection) -> list[dict[str, Any]]:
    """A row of `campaign_health` each."""
    return [dict(row._mapping) for row in connection.execute(_HEALTH)]


def sum_problems(connection: Connection) -> list[dict[str, Any]]:
    """How much of each problem each campaign has."""
    return [dict(row._mapping) for row in connection.execute(_PROBLEMS)]


def get_rate_budget(connection: Connection) -> dict[str, Any]:
    """Slots, how many are taken, and for how long the vendor wants none."""
    return dict(connection.execute(_BUDGET).one()._mapping)


@dataclass(frozen=True, kw_only=True)
class MetricsSnapshot:
    """All that one scrape shows."""

    campaigns: list[dict[str, Any]]
    problems: list[dict[str, Any]]
    budget: dict[str, Any]


def read_metrics(connection: Connection) -> MetricsSnapshot:
    """Read everything that one scrape shows."""
    return MetricsSnapshot(
        campaigns=list_campaign_health(connection),
        problems=sum_problems(connection),
        budget=get_rate_budget(connection),
    )
