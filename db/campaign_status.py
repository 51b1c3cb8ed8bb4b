"""Where campaigns stand: the figures of `leadloop status`, the Prometheus exporter and the demo."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

_HEALTH = text("""
SELECT * FROM leadloop_monitor.campaign_health
 WHERE CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids)
 ORDER BY campaign_id
""")
# All columns but `health` and `problems`, which `add_health` counts.
_FIGURES = text("""
SELECT campaign_id, name, enabled, new, sending, in_doubt, created, rejected, cancelled, processed,
       cost, disabled, disable_pending, disable_failed, disable_oldest_s, new_oldest_s, watermark,
       watermark_lag_s, late, lookback_needed_s, last_push_at, last_poll_at, last_disable_at,
       push_enabled, owed, owed_accepted, creates_held, account
  FROM leadloop_monitor.campaign_health
 WHERE CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids)
 ORDER BY campaign_id
""")
# The view finds neither problems nor the last runs for columns that are not named.
_METRICS = text("""
SELECT campaign_id, new, sending, in_doubt, created, rejected, cancelled, processed, disabled,
       disable_pending, disable_failed, disable_oldest_s, new_oldest_s, watermark_lag_s, late,
       lookback_needed_s, owed, owed_accepted
  FROM leadloop_monitor.campaign_health ORDER BY campaign_id
""")
_PROBLEMS = text("""
SELECT * FROM leadloop_monitor.problems
 WHERE CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids)
 ORDER BY severity, since, campaign_id, problem
""")
_PROBLEM_SUMS = text("""
SELECT campaign_id, severity, problem, sum(amount) AS amount FROM leadloop_monitor.problems
 GROUP BY campaign_id, severity, problem ORDER BY 1, 2, 3
""")
# JSON has no infinity: null, more than the largest bound.
_LATENCIES = text("""
SELECT campaign_id, kind, amount, nullif(p50_s, 'Infinity') AS p50_s,
       nullif(p99_s, 'Infinity') AS p99_s, nullif(worst_s, 'Infinity') AS worst_s
  FROM leadloop_monitor.latencies_now
 WHERE CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids)
 ORDER BY campaign_id, kind
""")
_LATENCY_TOTALS = text("""
SELECT campaign_id, kind, bucket_s, amount, total_s FROM leadloop_monitor.latency_totals
 ORDER BY campaign_id, kind, bucket_s
""")
_RATE_BUDGETS = text("SELECT * FROM leadloop_monitor.budget_now ORDER BY account")
_REJECTIONS = text("""
SELECT reason, leads, ARRAY(
       SELECT lead_id FROM leadloop.leads
        WHERE campaign_id = :campaign AND status = 'rejected'
          AND hashtext(coalesce(last_error, '')) = hashtext(coalesce(reason, ''))
          AND last_error IS NOT DISTINCT FROM reason
        ORDER BY seq LIMIT 3) AS samples
  FROM (SELECT detail AS reason, CAST(sum(amount) AS bigint) AS leads
          FROM leadloop.counts_now
         WHERE kind = 'lead' AND span = 'ever' AND since = '-infinity' AND name = 'rejected'
           AND campaign_id = :campaign
         GROUP BY detail HAVING sum(amount) > 0
         ORDER BY sum(amount) DESC, detail LIMIT 20) AS rejected
 ORDER BY leads DESC, reason
""")
_OUTCOMES = text("""
SELECT coalesce(name, '(none)') AS outcome, CAST(sum(amount) AS bigint) AS leads,
       sum(cost) AS cost
  FROM leadloop.counts_now
 WHERE kind = 'outcome' AND span = 'ever' AND since = '-infinity' AND campaign_id = :campaign
 GROUP BY 1 HAVING sum(amount) > 0 ORDER BY sum(amount) DESC, 1 LIMIT 20
""")
_ATTEMPTS = text("""
SELECT name AS channel, CAST(sum(amount) AS bigint) AS attempts FROM leadloop.counts_now
 WHERE kind = 'attempt' AND span = 'ever' AND since = '-infinity' AND campaign_id = :campaign
 GROUP BY name HAVING sum(amount) > 0 ORDER BY name
""")
_IS_UPGRADED = text("SELECT is_complete FROM leadloop_monitor.schema_upgrade")
_OPEN_OPT_OUTS = text("""
SELECT count(*) FILTER (WHERE status = 'requested') AS requested,
       count(*) FILTER (WHERE status = 'failed') AS failed
  FROM leadloop.disable_requests
 WHERE status IN ('requested', 'failed') AND campaign_id = ANY(:ids)
""")

#: The most reasons of a campaign that `list_rejections` lists.
MAX_REASONS = 100
# From the view, which the data team's login may read. Joined with itself, so that samples are
# looked for after the cut.
_REJECTIONS_BY_VIEW = text(f"""
SELECT ranked.campaign_id, ranked.reason, ranked.leads, sampled.sample_lead_ids, all_reasons,
       all_leads
  FROM (SELECT campaign_id, reason, leads,
               row_number() OVER (PARTITION BY campaign_id ORDER BY leads DESC, reason) AS place,
               count(*) OVER (PARTITION BY campaign_id) AS all_reasons,
               CAST(sum(leads) OVER (PARTITION BY campaign_id) AS bigint) AS all_leads
          FROM leadloop_monitor.rejections WHERE campaign_id = ANY(:ids)) AS ranked
  JOIN leadloop_monitor.rejections AS sampled
         ON sampled.campaign_id = ANY(:ids) AND sampled.campaign_id = ranked.campaign_id
        AND coalesce(sampled.reason, '') = coalesce(ranked.reason, '')
        AND sampled.reason IS NOT DISTINCT FROM ranked.reason
 WHERE place <= {MAX_REASONS}
 ORDER BY leads DESC, campaign_id, reason
""")

Rows = list[dict[str, Any]]

# The most severe one first.
_SEVERITIES = ("critical", "warning")


def list_campaign_health(connection: Connection, ids: Sequence[str] = ()) -> Rows:
    """List rows of the view `campaign_health`; no ids: all campaigns. Times in UTC, lags in s."""
    return _fetch_rows(connection, _HEALTH, ids=list(ids) or None)


def add_health(campaigns: Rows, problems: Rows) -> Rows:
    """Return the campaigns with `health` and `problems`, as the view `campaign_health` has them.

    The view would find all problems a second time.

    Args:
        campaigns: rows of `campaign_health` without these columns.
        problems: rows of `problems`, at least those of the campaigns.
    """
    severities: dict[str, list[str]] = {row["campaign_id"]: [] for row in campaigns}
    for problem in problems:
        severities.get(problem["campaign_id"], []).append(problem["severity"])
    return [
        {
            # In the order of the view's columns.
            **{name: row[name] for name in ("campaign_id", "name", "enabled")},
            "health": min(severities[row["campaign_id"]], key=_SEVERITIES.index, default="ok"),
            "problems": len(severities[row["campaign_id"]]),
            **row,
        }
        for row in campaigns
    ]


def list_problems(connection: Connection, ids: Sequence[str] = ()) -> Rows:
    """List rows of the view `problems`, most severe first; no ids: of all campaigns.

    Columns: `severity`, `problem`, `said`, `command` and others.
    """
    return _fetch_rows(connection, _PROBLEMS, ids=list(ids) or None)


def sum_problems(connection: Connection) -> Rows:
    """Sum the amount of each problem, by campaign and severity."""
    return _fetch_rows(connection, _PROBLEM_SUMS)


def list_latencies(connection: Connection, ids: Sequence[str] = ()) -> Rows:
    """List the latencies of the last hour by campaign and kind; no ids: of all campaigns.

    `p50_s`, `p99_s` and `worst_s` are upper bounds; None: more than an hour.
    """
    return _fetch_rows(connection, _LATENCIES, ids=list(ids) or None)


def list_latency_totals(connection: Connection) -> Rows:
    """List the buckets of all latencies since the first one, in the order of their bounds."""
    return _fetch_rows(connection, _LATENCY_TOTALS)


def list_rate_budgets(connection: Connection) -> Rows:
    """List each account's `slots`, the number `taken`, and `paused_s` (view `budget_now`)."""
    return _fetch_rows(connection, _RATE_BUDGETS)


def is_upgrade_complete(connection: Connection) -> bool:
    """Return whether the views count all rows, also those from before an upgrade of the schema."""
    return bool(connection.execute(_IS_UPGRADED).scalar_one())


def count_open_opt_outs(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Count the opt-outs that are `requested` and those that have `failed`."""
    return dict(connection.execute(_OPEN_OPT_OUTS, {"ids": list(ids)}).one()._mapping)


def count_rejections(connection: Connection, campaign_id: str) -> Rows:
    """Count rejected leads by reason, with three sample ids each; at most 20 reasons."""
    return _fetch_rows(connection, _REJECTIONS, campaign=campaign_id)


def list_rejections(connection: Connection, ids: Sequence[str]) -> Rows:
    """List rows of the view `rejections`, the most frequent reason first.

    At most MAX_REASONS of a campaign. `all_reasons` and `all_leads` count those left out too.
    """
    return _fetch_rows(connection, _REJECTIONS_BY_VIEW, ids=list(ids))


def count_outcomes(connection: Connection, campaign_id: str) -> Rows:
    """Count outcomes by name, with their cost; at most 20 names."""
    return _fetch_rows(connection, _OUTCOMES, campaign=campaign_id)


def count_attempts(connection: Connection, campaign_id: str) -> Rows:
    """Count attempts by channel."""
    return _fetch_rows(connection, _ATTEMPTS, campaign=campaign_id)


def _fetch_rows(connection: Connection, query: TextClause, **parameters: Any) -> Rows:
    return [dict(row._mapping) for row in connection.execute(query, parameters)]


@dataclass(frozen=True, kw_only=True)
class CampaignStatus:
    """Where campaigns stand: rows of the views `campaign_health`, `problems` and others.

    Attributes:
        upgrade_complete: whether the figures count the rows from before an upgrade too.
        rejections: None: they were not read, because no campaign was named and there are several.
    """

    campaigns: Rows
    problems: Rows
    latencies: Rows
    upgrade_complete: bool
    rejections: Rows | None


def read_status(connection: Connection, ids: Sequence[str]) -> CampaignStatus:
    """Return the status of campaigns; no ids: of all.

    The rejections take a search for each reason: they are read for few campaigns alone.
    """
    figures = _fetch_rows(connection, _FIGURES, ids=list(ids) or None)
    problems = list_problems(connection, ids)
    named = ids or [row["campaign_id"] for row in figures]
    return CampaignStatus(
        campaigns=add_health(figures, problems),
        problems=problems,
        latencies=list_latencies(connection, ids),
        upgrade_complete=is_upgrade_complete(connection),
        rejections=list_rejections(connection, named) if ids or len(named) == 1 else None,
    )


def read_campaign_report(
    connection: Connection, campaign_id: str
) -> tuple[dict[str, Any], dict[str, Rows]]:
    """Return one campaign's health, and its rejections, outcomes and attempts by title."""
    (health,) = list_campaign_health(connection, [campaign_id])
    return health, {
        "rejected": count_rejections(connection, campaign_id),
        "outcomes": count_outcomes(connection, campaign_id),
        "attempts": count_attempts(connection, campaign_id),
    }


@dataclass(frozen=True, kw_only=True)
class MetricsSnapshot:
    """What one scrape of the Prometheus exporter shows.

    Attributes:
        upgrade_complete: whether the figures count the rows from before an upgrade too.
    """

    campaigns: Rows
    problems: Rows
    budgets: Rows
    latencies: Rows
    upgrade_complete: bool


def read_metrics(connection: Connection) -> MetricsSnapshot:
    """Return what one scrape shows, from the data team's views alone."""
    return MetricsSnapshot(
        campaigns=_fetch_rows(connection, _METRICS),
        problems=sum_problems(connection),
        budgets=list_rate_budgets(connection),
        latencies=list_latency_totals(connection),
        upgrade_complete=is_upgrade_complete(connection),
    )
