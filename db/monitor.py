"""Data of the monitor page: SELECTs from the views of `leadloop_monitor`, as `leadloop_reader`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Row, TextClause, text
from sqlalchemy.exc import DBAPIError

from db.campaign_status import MetricsSnapshot, add_health, is_upgrade_complete, read_metrics
from db.database import Database, DatabaseError
from leadloop.core.errors import LeadloopError

T = TypeVar("T")
Rows = list[dict[str, Any]]

#: Maximum number of listed runs.
MAX_RUNS = 200
STATEMENT_TIMEOUT_S = 30

_REQUIREMENTS = text("""
SELECT to_regnamespace('leadloop_monitor') IS NOT NULL AS views,
       EXISTS (SELECT FROM pg_roles WHERE rolname = 'leadloop_reader') AS reader,
       current_user AS login
""")
_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
# SET LOCAL, since a pooler may give each transaction another connection.
_AS_READER = text("SET LOCAL ROLE leadloop_reader")
_SET_TIMEOUT = text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
_FORBIDDEN = ("42501", "28000")
_VIEWS_MISMATCH = (
    "the views belong to another version of leadloop: run `leadloop init`, which upgrades an older"
    " schema and reports a newer one"
)
_ADVICE = {
    "42501": "the role leadloop_reader may not read the views: run `GRANT USAGE ON SCHEMA"
    " leadloop_monitor TO leadloop_reader` and `GRANT SELECT ON ALL TABLES IN SCHEMA"
    " leadloop_monitor TO leadloop_reader`",
    "42P01": _VIEWS_MISMATCH,
    "42703": _VIEWS_MISMATCH,
    "57014": f"the views take longer than {STATEMENT_TIMEOUT_S} s to read: choose a shorter"
    " period, or check what keeps the database busy (pg_stat_activity)",
}

_NEWEST = text("""
SELECT flow, campaign_id, started_at FROM leadloop_monitor.run_history
 ORDER BY run_id DESC LIMIT 1
""")
_BUDGETS = text("""
SELECT account, slots, taken, paused_s FROM leadloop_monitor.budget_now ORDER BY account
""")
_THRESHOLDS = text("SELECT opt_outs_waiting, poll_behind FROM leadloop_monitor.thresholds")

# Times are in UTC, durations in seconds.
_CAMPAIGNS = text("""
SELECT campaign_id, name, enabled, new, sending, in_doubt, created, processed, rejected, cancelled,
       CAST(cost AS float8) AS cost, disabled, disable_pending, disable_failed, disable_oldest_s,
       new_oldest_s, watermark_lag_s, late, owed,
       last_push_at, last_poll_at, last_disable_at
  FROM leadloop_monitor.campaign_health ORDER BY campaign_id
""")
_PROBLEMS = text("""
SELECT campaign_id, severity, problem, amount, since, said, command
  FROM leadloop_monitor.problems ORDER BY severity, since, campaign_id, problem
""")
_LATENCIES = text("""
SELECT campaign_id, kind, amount, p50_s, p99_s, worst_s
  FROM leadloop_monitor.latencies_now ORDER BY campaign_id, kind
""")

_OF_CAMPAIGNS = "(CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids))"
_SINCE = "(CAST(:since AS timestamptz) IS NULL OR {} >= :since)"
# Sums of the campaigns :ids, or those of all campaigns together, which cost the same however many
# there are: the parameters name the spans.
_SUMS = f"FROM leadloop_monitor.sums WHERE {_OF_CAMPAIGNS} AND {_SINCE.format('since')}"
_BY_DAY = "date_trunc('day', since, 'UTC')"
_OUTCOMES = f"""
SELECT since AT TIME ZONE 'UTC' AS hour, coalesce(name, '(none)') AS outcome,
       CAST(sum(amount) AS bigint) AS leads, CAST(sum(cost) AS float8) AS cost
  {_SUMS} AND kind = 'outcome' AND span = {{}}
 GROUP BY 1, 2 HAVING sum(amount) > 0 ORDER BY 1, 2"""
_REQUESTS = f"""
SELECT {{}} AT TIME ZONE 'UTC' AS hour, name AS flow, CAST(sum(marked) AS bigint) AS requests
  {_SUMS} AND kind = 'run' AND span = :hours GROUP BY 1, 2 HAVING sum(marked) > 0 ORDER BY 1, 2"""
# A chart shows two days or more by day. In that many days there are two whole days.
_SPAN_BY_DAY = timedelta(days=3)
# The queries by day and by hour of a chart that shows either.
_BY_DAY_OR_HOUR = {
    "outcomes": (text(_OUTCOMES.format(":days")), text(_OUTCOMES.format(":hours"))),
    "requests": (text(_REQUESTS.format(_BY_DAY)), text(_REQUESTS.format("since"))),
}
#: The chart of attempts has a line a day, and that of opt-outs reads the sums of each campaign and
#: day: longer periods are cut.
MAX_CHART_DAYS = 90
_FIRST_DAY = f"""date_trunc('day', greatest(CAST(:since AS timestamptz),
                                           now() - interval '{MAX_CHART_DAYS} days'), 'UTC')"""
_HISTORY = {
    "attempts": f"""
SELECT CAST(since AT TIME ZONE 'UTC' AS date) AS day,
       CAST(extract(hour FROM since AT TIME ZONE 'UTC') AS integer) AS hour,
       CAST(sum(amount) AS bigint) AS attempts,
       CAST(coalesce(sum(amount) FILTER (WHERE name = 'call'), 0) AS bigint) AS calls,
       CAST(coalesce(sum(marked) FILTER (WHERE name = 'call'), 0) AS bigint) AS connected
  {_SUMS} AND kind = 'attempt' AND span = :hours AND since < 'infinity'
   AND since >= {_FIRST_DAY}
 GROUP BY since HAVING sum(amount) > 0 ORDER BY since""",
    "rejections": f"""
SELECT campaign_id, reason, leads, array_to_string(sample_lead_ids, ', ') AS sample_lead_ids
  FROM leadloop_monitor.rejections WHERE {_OF_CAMPAIGNS} ORDER BY leads DESC, reason LIMIT 50""",
    "runs": f"""
SELECT state, flow, campaign_id, started_at, duration_s, requests, error, flow_run_id, run_id
  FROM leadloop_monitor.run_history WHERE {_OF_CAMPAIGNS} AND {_SINCE.format("started_at")}
 ORDER BY run_id DESC LIMIT {MAX_RUNS}""",
}
_STATEMENTS = {name: text(query) for name, query in _HISTORY.items()}

#: The most campaigns that have a line each in a chart; more have one together.
MAX_LINES = 6
_FEW_CAMPAIGNS = text(f"""
SELECT campaign_id FROM leadloop_monitor.campaign_thresholds LIMIT {MAX_LINES + 1}
""")
_LINES = {
    "lag": text(f"""
SELECT polled_hour AT TIME ZONE 'UTC' AS hour, campaign_id, lag_s
  FROM leadloop_monitor.window_stats
 WHERE campaign_id = ANY(:ids) AND {_SINCE.format("polled_hour")} AND lag_s IS NOT NULL
 ORDER BY 1, 2"""),
    "opt_outs": text(f"""
SELECT day, campaign_id, p95_s FROM leadloop_monitor.disable_latency
 WHERE campaign_id = ANY(:ids) AND since >= {_FIRST_DAY} AND p95_s IS NOT NULL
 ORDER BY 1, 2"""),
}
# The slowest of some campaigns.
_SLOWEST = {
    "lag": text(f"""
SELECT polled_hour AT TIME ZONE 'UTC' AS hour, NULL AS campaign_id, max(lag_s) AS lag_s
  FROM leadloop_monitor.window_stats
 WHERE campaign_id = ANY(:ids) AND {_SINCE.format("polled_hour")} AND lag_s IS NOT NULL
 GROUP BY 1 ORDER BY 1"""),
    "opt_outs": text(f"""
SELECT day, NULL AS campaign_id, max(p95_s) AS p95_s FROM leadloop_monitor.disable_latency
 WHERE campaign_id = ANY(:ids) AND since >= {_FIRST_DAY} AND p95_s IS NOT NULL
 GROUP BY 1 ORDER BY 1"""),
}
# The slowest of all. Of lags, an index has it first in each hour, however many campaigns there are.
_SLOWEST_OF_ALL = {
    "lag": text("""
SELECT hour AT TIME ZONE 'UTC' AS hour, NULL AS campaign_id, slowest.lag_s
  FROM generate_series(greatest(:since, (SELECT min(polled_hour) FROM leadloop_monitor.poll_lags)),
                       now(), interval '1 hour') AS hour
 CROSS JOIN LATERAL (SELECT lag_s FROM leadloop_monitor.poll_lags
                      WHERE polled_hour = hour
                      ORDER BY lag_s DESC NULLS LAST LIMIT 1) AS slowest
 WHERE slowest.lag_s IS NOT NULL ORDER BY 1"""),
    "opt_outs": text(f"""
SELECT day, NULL AS campaign_id, p95_s FROM leadloop_monitor.slowest_opt_outs
 WHERE since >= {_FIRST_DAY} ORDER BY 1"""),
}


class ViewsUnavailable(LeadloopError):
    """The views or the role are missing, or this login may not use them; the message is advice."""


@dataclass(frozen=True, kw_only=True)
class StatusSnapshot:
    """The status of all campaigns at one moment.

    Args:
        taken_at: the database's time.
        campaigns: one row per campaign.
        problems: rows of the view `problems`, most severe first, each with its `command`.
        newest_run: the run that started last (`flow`, `campaign_id`, `started_at`), or None.
        budgets: the rate limiter's `slots`, `taken` and `paused_s`, a row an account.
        latencies: rows of the view `latencies_now`.
        thresholds: the periods after which `opt_outs_waiting` and `poll_behind` are problems.
        upgrade_complete: whether the figures count the rows from before an upgrade too.
    """

    taken_at: datetime
    campaigns: Rows
    problems: Rows
    latencies: Rows
    newest_run: Mapping[str, Any] | None
    budgets: Rows
    thresholds: Mapping[str, timedelta]
    upgrade_complete: bool

    @property
    def campaign_ids(self) -> list[str]:
        """The ids of the campaigns."""
        return [campaign["campaign_id"] for campaign in self.campaigns]

    def for_campaigns(self, campaign_ids: Sequence[str]) -> Self:
        """Return the snapshot reduced to these campaigns, or unchanged if no id is given.

        The newest run and the budgets stay. Problems may name campaigns that are not in the table.
        """
        if not campaign_ids:
            return self
        chosen = set(campaign_ids)
        return replace(
            self,
            campaigns=[row for row in self.campaigns if row["campaign_id"] in chosen],
            problems=[row for row in self.problems if row["campaign_id"] in chosen],
            latencies=[row for row in self.latencies if row["campaign_id"] in chosen],
        )


#: Rows of `outcomes`, `attempts`, `lag`, `opt_outs`, `requests` and `runs` of a period, and of the
#: most frequent `rejections`. `lag` and `opt_outs` of more than MAX_LINES campaigns have one row a
#: time, without a campaign: that of the slowest campaign.
History = Mapping[str, Rows]


def read_status_snapshot(database: Database) -> StatusSnapshot:
    """Read the current status of every campaign, in one snapshot.

    Args:
        database: opened with any login that may act as `leadloop_reader`.

    Raises:
        ViewsUnavailable: the views or the role are missing, forbidden to this login, or too slow.
        DatabaseError: Postgres rejected a statement or cannot be reached.
    """

    def query_status(connection: Connection) -> StatusSnapshot:
        newest = connection.execute(_NEWEST).one_or_none()
        problems = _to_dicts(connection.execute(_PROBLEMS))
        return StatusSnapshot(
            taken_at=connection.execute(text("SELECT clock_timestamp()")).scalar_one(),
            campaigns=add_health(_to_dicts(connection.execute(_CAMPAIGNS)), problems),
            problems=problems,
            latencies=_to_dicts(connection.execute(_LATENCIES)),
            newest_run=None if newest is None else dict(newest._mapping),
            budgets=_to_dicts(connection.execute(_BUDGETS)),
            thresholds=dict(connection.execute(_THRESHOLDS).one()._mapping),
            upgrade_complete=is_upgrade_complete(connection),
        )

    return _run_as_reader(database, query_status)


def read_history(
    database: Database, campaign_ids: Sequence[str], since: datetime | None
) -> History:
    """Read the history of a period, in one snapshot.

    Args:
        database: opened with any login that may act as `leadloop_reader`.
        campaign_ids: the campaigns; empty: all.
        since: start of the period, midnight (UTC) if it has several days; None: the first row.

    Raises:
        ViewsUnavailable, DatabaseError: as in `read_status_snapshot`.
    """
    scope = "" if campaign_ids else "total "
    parameters = {
        "ids": list(campaign_ids) or None,
        "since": since,
        "hours": f"{scope}hour",
        "days": f"{scope}day",
    }
    return _run_as_reader(
        database,
        lambda connection: {
            **{
                name: _read_by_day_or_hour(connection, statements, parameters)
                for name, statements in _BY_DAY_OR_HOUR.items()
            },
            **_read_lines(connection, campaign_ids, parameters),
            **{
                name: _to_dicts(connection.execute(statement, parameters))
                for name, statement in _STATEMENTS.items()
            },
        },
    )


def _read_by_day_or_hour(
    connection: Connection,
    statements: tuple[TextClause, TextClause],
    parameters: Mapping[str, Any],
) -> Rows:
    """Return rows by day, or by hour if they span fewer than `_SPAN_BY_DAY`."""
    by_day, by_hour = statements
    rows = _to_dicts(connection.execute(by_day, parameters))
    if rows and rows[-1]["hour"] - rows[0]["hour"] >= _SPAN_BY_DAY:
        return rows
    return _to_dicts(connection.execute(by_hour, parameters))


def _read_lines(
    connection: Connection, campaign_ids: Sequence[str], parameters: Mapping[str, Any]
) -> dict[str, Rows]:
    """Return `lag` and `opt_outs`: of each campaign, or of the slowest of more than MAX_LINES."""
    ids = campaign_ids or connection.scalars(_FEW_CAMPAIGNS).all()
    if len(ids) <= MAX_LINES:
        statements, parameters = _LINES, {**parameters, "ids": list(ids)}
    else:
        statements = _SLOWEST if campaign_ids else _SLOWEST_OF_ALL
    return {
        name: _to_dicts(connection.execute(statement, parameters))
        for name, statement in statements.items()
    }


def read_metrics_snapshot(database: Database) -> MetricsSnapshot:
    """Read what one scrape of the Prometheus exporter shows, in one snapshot.

    Raises:
        ViewsUnavailable, DatabaseError: as in `read_status_snapshot`.
    """
    return _run_as_reader(database, read_metrics)


def _to_dicts(rows: Iterable[Row[Any]]) -> Rows:
    return [dict(row._mapping) for row in rows]


def _run_as_reader(database: Database, work: Callable[[Connection], T]) -> T:
    """Run `work` as `leadloop_reader`; retry once on a connection lost in the pool."""
    try:
        with _reader_transaction(database) as connection:
            return work(connection)
    except DatabaseError as error:
        if not error.disconnected or error.sqlstate is None:
            raise
    # The pool held a connection from before a restart of Postgres, and has discarded it now.
    with _reader_transaction(database) as connection:
        return work(connection)


@contextmanager
def _reader_transaction(database: Database) -> Iterator[Connection]:
    try:
        with database.transaction() as connection:
            connection.execute(_SNAPSHOT)
            connection.execute(_SET_TIMEOUT)
            _become_reader(connection)
            yield connection
    except DatabaseError as error:
        if error.sqlstate in _ADVICE:
            raise ViewsUnavailable(_ADVICE[error.sqlstate]) from None
        raise


def _become_reader(connection: Connection) -> None:
    found = connection.execute(_REQUIREMENTS).one()
    if not found.views:
        raise ViewsUnavailable("the database has no leadloop schema yet: run `leadloop init`")
    if not found.reader:
        raise ViewsUnavailable(
            "the role leadloop_reader is missing: create it with a login that may create roles, and"
            " grant it the views (docs/how-to/monitor-page.md)"
        )
    try:
        connection.execute(_AS_READER)
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in _FORBIDDEN:
            raise
        raise ViewsUnavailable(
            f"the login {found.login} may not act as leadloop_reader: run `GRANT leadloop_reader TO"
            f' "{found.login}"`, or set LEADLOOP_MONITOR_DATABASE_URL to another login'
        ) from None
