"""Data of the monitor page: SELECTs from the views of `leadloop_monitor`, as `leadloop_reader`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from db.campaign_status import MetricsSnapshot, read_metrics
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
SELECT campaign_id, name, enabled, health, problems, new, sending, in_doubt, created, processed,
       rejected, cancelled, CAST(cost AS float8) AS cost, disabled, disable_pending,
       disable_failed, disable_oldest_s, new_oldest_s, watermark_lag_s, late, owed,
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
_SINCE = f"{_OF_CAMPAIGNS} AND (CAST(:since AS timestamptz) IS NULL OR {{}} >= :since)"
_OUTCOMES, _OUTCOMES_BY_DAY = (
    text(f"""
SELECT {start} AT TIME ZONE 'UTC' AS hour, coalesce(outcome_name, '(none)') AS outcome,
       CAST(sum(outcomes) AS bigint) AS leads, CAST(sum(cost) AS float8) AS cost
  FROM leadloop_monitor.outcomes_by_{start} WHERE {_SINCE.format(start)}
 GROUP BY 1, 2 ORDER BY 1, 2""")
    for start in ("hour", "day")
)
# The chart shows outcomes of two days or more by day. In that many days there are two whole days.
_SPAN_BY_DAY = timedelta(days=3)
#: The chart of attempts has a line a day, and reads a row an hour: longer periods are cut.
MAX_ATTEMPTS_DAYS = 90
_HISTORY = {
    "attempts": f"""
SELECT CAST(hour AT TIME ZONE 'UTC' AS date) AS day,
       CAST(extract(hour FROM hour AT TIME ZONE 'UTC') AS integer) AS hour,
       CAST(sum(attempts) AS bigint) AS attempts, CAST(sum(calls) AS bigint) AS calls,
       CAST(sum(connected) AS bigint) AS connected
  FROM leadloop_monitor.attempts_by_hour WHERE {_SINCE.format("hour")}
   AND hour >= date_trunc('day', now(), 'UTC') - interval '{MAX_ATTEMPTS_DAYS} days'
 GROUP BY 1, 2 ORDER BY 1, 2""",
    "lag": f"""
SELECT polled_hour AT TIME ZONE 'UTC' AS hour, campaign_id, lag_s
  FROM leadloop_monitor.window_stats WHERE {_SINCE.format("polled_hour")} ORDER BY 1, 2""",
    # The view's rows are days, so the period starts with a whole day.
    "opt_outs": f"""
SELECT day, campaign_id, requested, waiting, p50_s, p95_s, worst_s, oldest_waiting_s
  FROM leadloop_monitor.disable_latency
 WHERE {_OF_CAMPAIGNS} AND (CAST(:since AS timestamptz) IS NULL
        OR day >= CAST(CAST(:since AS timestamptz) AT TIME ZONE 'UTC' AS date))
 ORDER BY 1, 2""",
    "requests": f"""
SELECT hour AT TIME ZONE 'UTC' AS hour, flow, CAST(sum(requests) AS bigint) AS requests
  FROM leadloop_monitor.request_stats WHERE {_SINCE.format("hour")} GROUP BY 1, 2 ORDER BY 1, 2""",
    "rejections": f"""
SELECT campaign_id, reason, leads, array_to_string(sample_lead_ids, ', ') AS sample_lead_ids
  FROM leadloop_monitor.rejections WHERE {_OF_CAMPAIGNS} ORDER BY leads DESC, reason LIMIT 50""",
    "runs": f"""
SELECT state, flow, campaign_id, started_at, duration_s, requests, error, flow_run_id, run_id
  FROM leadloop_monitor.run_history WHERE {_SINCE.format("started_at")}
 ORDER BY run_id DESC LIMIT {MAX_RUNS}""",
}
_STATEMENTS = {name: text(query) for name, query in _HISTORY.items()}


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
    """

    taken_at: datetime
    campaigns: Rows
    problems: Rows
    latencies: Rows
    newest_run: Mapping[str, Any] | None
    budgets: Rows
    thresholds: Mapping[str, timedelta]

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


#: Rows of `outcomes`, `attempts`, `lag`, `opt_outs`, `requests` and `runs` of a period, and all
#: `rejections`.
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
        return StatusSnapshot(
            taken_at=connection.execute(text("SELECT clock_timestamp()")).scalar_one(),
            campaigns=_to_dicts(connection.execute(_CAMPAIGNS)),
            problems=_to_dicts(connection.execute(_PROBLEMS)),
            latencies=_to_dicts(connection.execute(_LATENCIES)),
            newest_run=None if newest is None else dict(newest._mapping),
            budgets=_to_dicts(connection.execute(_BUDGETS)),
            thresholds=dict(connection.execute(_THRESHOLDS).one()._mapping),
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
    parameters = {"ids": list(campaign_ids) or None, "since": since}
    return _run_as_reader(
        database,
        lambda connection: {
            "outcomes": _read_outcomes(connection, parameters),
            **{
                name: _to_dicts(connection.execute(statement, parameters))
                for name, statement in _STATEMENTS.items()
            },
        },
    )


def _read_outcomes(connection: Connection, parameters: Mapping[str, Any]) -> Rows:
    """Return outcomes by day, or by hour if they span fewer than `_SPAN_BY_DAY`."""
    by_day = _to_dicts(connection.execute(_OUTCOMES_BY_DAY, parameters))
    if by_day and by_day[-1]["hour"] - by_day[0]["hour"] >= _SPAN_BY_DAY:
        return by_day
    return _to_dicts(connection.execute(_OUTCOMES, parameters))


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
