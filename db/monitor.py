"""What the page shows: SELECTs from the views of `leadloop_monitor`, as the role for them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.database import Database, DatabaseError
from leadloop.core.errors import LeadloopError

Rows = list[dict[str, Any]]

#: How many runs are listed at most.
RUNS = 200

_THERE = text("""
SELECT to_regnamespace('leadloop_monitor') IS NOT NULL AS views,
       EXISTS (SELECT FROM pg_roles WHERE rolname = 'leadloop_reader') AS reader,
       current_user AS login
""")
_ONE_MOMENT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
# For the transaction alone: a pooler may give each one another connection.
_AS_READER = text("SET LOCAL statement_timeout = '30s'; SET LOCAL ROLE leadloop_reader")
_FORBIDDEN = ("42501", "28000")
_MISSING = ("42P01", "42703", "3F000")

_CAMPAIGN_IDS = text(
    "SELECT campaign_id FROM leadloop_monitor.campaign_health ORDER BY campaign_id"
)
_NEWEST = text("""
SELECT flow, campaign_id, started_at FROM leadloop_monitor.run_history
 ORDER BY run_id DESC LIMIT 1
""")
_BUDGET = text("SELECT slots, taken, paused_s FROM leadloop_monitor.budget_now")

_CHOSEN = "(CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids))"
# The views group by day or hour, so that the period begins with a whole one.
_SINCE_DAY = f"""{_CHOSEN}
   AND (CAST(:since AS timestamptz) IS NULL
        OR day >= CAST(CAST(:since AS timestamptz) AT TIME ZONE 'UTC' AS date))"""

#: The columns of every query below are told by its SELECT; times in UTC, durations in seconds.
_QUERIES = {
    "campaigns": f"""
SELECT campaign_id, name, enabled, health, problems, new, sending, in_doubt, created, processed,
       rejected, cancelled, CAST(cost AS float8) AS cost, disabled, disable_pending,
       disable_failed, disable_oldest_s, new_oldest_s, watermark_lag_s, late,
       last_push_at, last_poll_at, last_disable_at
  FROM leadloop_monitor.campaign_health WHERE {_CHOSEN} ORDER BY campaign_id""",
    "problems": f"""
SELECT campaign_id, severity, problem, amount, since, said, command
  FROM leadloop_monitor.problems WHERE {_CHOSEN} ORDER BY severity, since, campaign_id, problem""",
    "funnel": f"""
SELECT stage, position, CAST(sum(leads) AS bigint) AS leads
  FROM leadloop_monitor.lead_funnel WHERE {_CHOSEN} GROUP BY stage, position ORDER BY position""",
    "outcomes": f"""
SELECT day + make_interval(hours => hour) AS hour, coalesce(outcome_name, '(none)') AS outcome,
       CAST(sum(outcomes) AS bigint) AS leads, CAST(sum(cost) AS float8) AS cost
  FROM leadloop_monitor.outcome_breakdown WHERE {_SINCE_DAY} GROUP BY 1, 2 ORDER BY 1, 2""",
    "attempts": f"""
SELECT day, hour, CAST(sum(attempts) AS bigint) AS attempts,
       CAST(sum(connected) AS bigint) AS connected
  FROM leadloop_monitor.attempt_stats WHERE {_SINCE_DAY} AND hour IS NOT NULL
 GROUP BY 1, 2 ORDER BY 1, 2""",
    "lag": f"""
SELECT polled_hour AT TIME ZONE 'UTC' AS hour, campaign_id, lag_s
  FROM leadloop_monitor.window_stats
 WHERE {_CHOSEN} AND (CAST(:since AS timestamptz) IS NULL OR polled_hour >= :since)
 ORDER BY 1, 2""",
    "opt_outs": f"""
SELECT day, campaign_id, requested, waiting, p50_s, p95_s, worst_s, oldest_waiting_s
  FROM leadloop_monitor.disable_latency WHERE {_SINCE_DAY} ORDER BY 1, 2""",
    "requests": f"""
SELECT hour AT TIME ZONE 'UTC' AS hour, flow, CAST(sum(requests) AS bigint) AS requests
  FROM leadloop_monitor.request_stats
 WHERE {_CHOSEN} AND (CAST(:since AS timestamptz) IS NULL OR hour >= :since)
 GROUP BY 1, 2 ORDER BY 1, 2""",
    "rejections": f"""
SELECT campaign_id, reason, leads, array_to_string(sample_lead_ids, ', ') AS sample_lead_ids
  FROM leadloop_monitor.rejections WHERE {_CHOSEN} ORDER BY leads DESC, reason LIMIT 50""",
    "runs": f"""
SELECT state, flow, campaign_id, started_at, duration_s, requests, error, flow_run_id, run_id
  FROM leadloop_monitor.run_history
 WHERE {_CHOSEN} AND (CAST(:since AS timestamptz) IS NULL OR started_at >= :since)
 ORDER BY run_id DESC LIMIT {RUNS}""",
}
_STATEMENTS = {name: text(query) for name, query in _QUERIES.items()}


class NotReadable(LeadloopError):
    """The database is there, but not what the page reads, or not for this login.

    The message says in one line what to do.
    """


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the views said at one moment.

    Args:
        at: the database's time.
        campaign_ids: every campaign, chosen or not.
        newest: the run that began last: `flow`, `campaign_id`, `started_at`; None: there is none.
        budget: `slots`, `taken` and `paused_s` of this moment.
        tables: the rows of each query by its name.
    """

    at: datetime
    campaign_ids: Sequence[str]
    newest: Mapping[str, Any] | None
    budget: Mapping[str, Any]
    tables: Mapping[str, Rows]


def read(database: Database, campaign_ids: Sequence[str], since: datetime | None) -> Seen:
    """Everything that the page shows, of one moment.

    Args:
        database: any login that may act as `leadloop_reader`.
        campaign_ids: of which campaigns; none: of all.
        since: where the period begins; None: with the first there is. What stands now does not
            depend on it.

    Raises:
        NotReadable: the views or the role are not there, or not for this login.
        DatabaseError: Postgres was not there, or refused.
    """
    try:
        return _read(database, campaign_ids, since)
    except DatabaseError as error:
        if not error.disconnected or error.sqlstate is None:
            raise
    # The pool held a connection of before a restart; it has let go of it now.
    return _read(database, campaign_ids, since)


def _read(database: Database, campaign_ids: Sequence[str], since: datetime | None) -> Seen:
    chosen = {"ids": list(campaign_ids) or None, "since": since}
    with _as_reader(database) as connection:
        newest = connection.execute(_NEWEST).one_or_none()
        return Seen(
            at=connection.execute(text("SELECT clock_timestamp()")).scalar_one(),
            campaign_ids=connection.execute(_CAMPAIGN_IDS).scalars().all(),
            newest=None if newest is None else dict(newest._mapping),
            budget=dict(connection.execute(_BUDGET).one()._mapping),
            tables={
                name: [dict(row._mapping) for row in connection.execute(statement, chosen)]
                for name, statement in _STATEMENTS.items()
            },
        )


@contextmanager
def _as_reader(database: Database) -> Iterator[Connection]:
    try:
        with database.begin() as connection:
            connection.execute(_ONE_MOMENT)
            _become_reader(connection)
            yield connection
    except DatabaseError as error:
        if error.sqlstate in _MISSING:
            raise NotReadable(
                "the schema is not that of this leadloop: run `leadloop init`"
            ) from None
        raise


def _become_reader(connection: Connection) -> None:
    there = connection.execute(_THERE).one()
    if not there.views:
        raise NotReadable("the database has no leadloop schema yet: run `leadloop init`")
    if not there.reader:
        raise NotReadable(
            "the role leadloop_reader is missing: somebody who may make roles makes it, and grants"
            " it the views (docs/how-to/watch-the-page.md)"
        )
    try:
        connection.execute(_AS_READER)
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in _FORBIDDEN:
            raise
        raise NotReadable(
            f"the login {there.login} may not act as leadloop_reader: run `GRANT leadloop_reader TO"
            f' "{there.login}"`, or name another login in LEADLOOP_MONITOR_DATABASE_URL'
        ) from None
