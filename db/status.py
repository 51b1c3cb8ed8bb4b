"""Where every campaign stands, for `leadloop status` and the demo's last table."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

_CAMPAIGNS = text("""
SELECT * FROM leadloop_monitor.campaign_health
 WHERE CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids)
 ORDER BY campaign_id
""")
_PROBLEMS = text("""
SELECT * FROM leadloop_monitor.problems
 WHERE CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids)
 ORDER BY severity, since, campaign_id, problem
""")

_REJECTIONS = text("""
SELECT last_error AS reason, count(*) AS leads, (array_agg(lead_id ORDER BY seq))[1:3] AS samples
  FROM leadloop.leads
 WHERE status = 'rejected' AND campaign_id = ANY(:ids)
 GROUP BY last_error ORDER BY count(*) DESC, last_error LIMIT 20
""")

_OUTCOMES = text("""
SELECT coalesce(outcome_name, '(none)') AS outcome, count(*) AS leads, sum(total_cost) AS cost
  FROM leadloop.lead_outcomes WHERE campaign_id = ANY(:ids)
 GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 20
""")

_ATTEMPTS = text("""
SELECT channel, count(*) AS attempts FROM leadloop.outreach_attempts
 WHERE campaign_id = ANY(:ids) GROUP BY channel ORDER BY channel
""")

_OPEN_OPT_OUTS = text("""
SELECT count(*) FILTER (WHERE status = 'requested') AS requested,
       count(*) FILTER (WHERE status = 'failed') AS failed
  FROM leadloop.disable_requests
 WHERE status IN ('requested', 'failed') AND campaign_id = ANY(:ids)
""")


def count_open_opt_outs(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """How many opt-outs are `requested`, and how many have `failed`."""
    return dict(connection.execute(_OPEN_OPT_OUTS, {"ids": list(ids)}).one()._mapping)


def list_campaign_health(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """A row a campaign; all of them where no ids are given. Times in UTC, lags in seconds."""
    rows = connection.execute(_CAMPAIGNS, {"ids": list(ids) or None})
    return [dict(row._mapping) for row in rows]


def list_problems(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """What is wrong, the worst first: `severity`, `problem`, `said`, `command` and more."""
    rows = connection.execute(_PROBLEMS, {"ids": list(ids) or None})
    return [dict(row._mapping) for row in rows]


def count_rejections(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Reasons, how many leads each has, and the ids of three of them."""
    return [dict(row._mapping) for row in connection.execute(_REJECTIONS, {"ids": list(ids)})]


def count_outcomes(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Outcomes by name, with their cost."""
    return [dict(row._mapping) for row in connection.execute(_OUTCOMES, {"ids": list(ids)})]


def count_attempts(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Attempts by channel."""
    return [dict(row._mapping) for row in connection.execute(_ATTEMPTS, {"ids": list(ids)})]


def read_status(
    connection: Connection, ids: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the campaigns' health and their problems, as one snapshot; no ids: of all."""
    return list_campaign_health(connection, ids), list_problems(connection, ids)


def read_campaign_report(
    connection: Connection, campaign_id: str
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Return one campaign's health, and its rejections, outcomes and attempts by title."""
    ids = [campaign_id]
    (health,) = list_campaign_health(connection, ids)
    return health, {
        "rejected": count_rejections(connection, ids),
        "outcomes": count_outcomes(connection, ids),
        "attempts": count_attempts(connection, ids),
    }
