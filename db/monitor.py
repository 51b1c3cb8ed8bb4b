"""What the page shows: SELECTs from the views of `leadloop_monitor`, as the role for them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from db.database import Database, DatabaseError
from leadloop.core.errors import LeadloopError

T = TypeVar("T")
Rows = list[dict[str, Any]]

#: How many runs are listed at most.
MAX_RUNS = 200
_LONGEST_S = 30

_THERE = text("""
SELECT to_regnamespace('leadloop_monitor') IS NOT NULL AS views,
       EXISTS (SELECT FROM pg_roles WHERE rolname = 'leadloop_reader') AS reader,
       current_user AS login
""")
_ONE_MOMENT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
# For the transaction alone: a pooler may give each one another connection.
_AS_READER = text("SET LOCAL ROLE leadloop_reader")
_IN_TIME = text(f"SET LOCAL statement_timeout = '{_LONGEST_S}s'")
_FORBIDDEN = ("42501", "28000")
_OTHER_VIEWS = (
    "the views are not those of this leadloop: run `leadloop init`, which brings an older schema up"
    " to date, and says so of a newer one"
)
_WHAT_TO_DO = {
    "42501": "the role leadloop_reader may not read the views: run `GRANT USAGE ON SCHEMA"
    " leadloop_monitor TO leadloop_reader` and `GRANT SELECT ON ALL TABLES IN SCHEMA"
    " leadloop_monitor TO leadloop_reader`",
    "42P01": _OTHER_VIEWS,
    "42703": _OTHER_VIEWS,
    "57014": f"the views take longer than {_LONGEST_S} s to read: choose a shorter period, or see"
    " what keeps the database busy (pg_stat_activity)",
}

_NEWEST = text("""
SELECT flow, campaign_id, started_at FROM leadloop_monitor.run_history
 ORDER BY run_id DESC LIMIT 1
""")
_BUDGET = text("SELECT slots, taken, paused_s FROM leadloop_monitor.budget_now")

#: The columns of every query below are told by its SELECT; times in UTC, durations in seconds.
_CAMPAIGNS = text("""
SELECT campaign_id, name, enabled, health, problems, new, sending, in_doubt, created, processed,
       rejected, cancelled, CAST(cost AS float8) AS cost, disabled, disable_pending,
       disable_failed, disable_oldest_s, new_oldest_s, watermark_lag_s, late,
       last_push_at, last_poll_at, last_disable_at
  FROM leadloop_monitor.campaign_health ORDER BY campaign_id
""")
_PROBLEMS = text("""
SELECT campaign_id, severity, problem, amount, since, said, command
  FROM leadloop_monitor.problems ORDER BY severity, since, campaign_id, problem
""")

_CHOSEN = "(CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids))"
_SINCE = f"{_CHOSEN} AND (CAST(:since AS timestamptz) IS NULL OR {{}} >= :since)"
_PAST = {
    "outcomes": f"""
SELECT hour AT TIME ZONE 'UTC' AS hour, coalesce(outcome_name, '(none)') AS outcome,
       CAST(sum(outcomes) AS bigint) AS leads, CAST(sum(cost) AS float8) AS cost
  FROM leadloop_monitor.outcomes_by_hour WHERE {_SINCE.format("hour")}
 GROUP BY 1, 2 ORDER BY 1, 2""",
    "attempts": f"""
SELECT CAST(hour AT TIME ZONE 'UTC' AS date) AS day,
       CAST(extract(hour FROM hour AT TIME ZONE 'UTC') AS integer) AS hour,
       CAST(sum(attempts) AS bigint) AS attempts, CAST(sum(calls) AS bigint) AS calls,
       CAST(sum(connected) AS bigint) AS connected
  FROM leadloop_monitor.attempts_by_hour WHERE {_SINCE.format("hour")} AND hour IS NOT NULL
 GROUP BY 1, 2 ORDER BY 1, 2""",
    "lag": f"""
SELECT polled_hour AT TIME ZONE 'UTC' AS hour, campaign_id, lag_s
  FROM leadloop_monitor.window_stats WHERE {_SINCE.format("polled_hour")} ORDER BY 1, 2""",
    # Of days: the period begins with a whole one.
    "opt_outs": f"""
SELECT day, campaign_id, requested, waiting, p50_s, p95_s, worst_s, oldest_waiting_s
  FROM leadloop_monitor.disable_latency
 WHERE {_CHOSEN} AND (CAST(:since AS timestamptz) IS NULL
        OR day >= CAST(CAST(:since AS timestamptz) AT TIME ZONE 'UTC' AS date))
 ORDER BY 1, 2""",
    "requests": f"""
SELECT hour AT TIME ZONE 'UTC' AS hour, flow, CAST(sum(requests) AS bigint) AS requests
  FROM leadloop_monitor.request_stats WHERE {_SINCE.format("hour")} GROUP BY 1, 2 ORDER BY 1, 2""",
    "rejections": f"""
SELECT campaign_id, reason, leads, array_to_string(sample_lead_ids, ', ') AS sample_lead_ids
  FROM leadloop_monitor.rejections WHERE {_CHOSEN} ORDER BY leads DESC, reason LIMIT 50""",
    "runs": f"""
SELECT state, flow, campaign_id, started_at, duration_s, requests, error, flow_run_id, run_id
  FROM leadloop_monitor.run_history WHERE {_SINCE.format("started_at")}
 ORDER BY run_id DESC LIMIT {MAX_RUNS}""",
}
_STATEMENTS = {name: text(query) for name, query in _PAST.items()}


class ViewsUnavailable(LeadloopError):
    """The database is there, but not what the page reads, or not for this login.

    The message says in one line what to do.
    """


@dataclass(frozen=True, kw_only=True)
class StatusSnapshot:
    """How it stands at one moment.

    Args:
        at: the database's time.
        campaigns: a row a campaign.
        problems: what is wrong, the worst first, each with its `command`.
        newest: the run that began last: `flow`, `campaign_id`, `started_at`; None: there is none.
        budget: `slots`, `taken` and `paused_s`.
    """

    taken_at: datetime
    campaigns: Rows
    problems: Rows
    newest_run: Mapping[str, Any] | None
    budget: Mapping[str, Any]

    @property
    def campaign_ids(self) -> list[str]:
        """The campaigns that it is about."""
        return [campaign["campaign_id"] for campaign in self.campaigns]

    def for_campaigns(self, campaign_ids: Sequence[str]) -> Self:
        """The same, of these campaigns alone; none: of all. Runs and budget are everybody's.

        Problems may also be of campaigns that nobody has added.
        """
        if not campaign_ids:
            return self
        chosen = set(campaign_ids)
        return replace(
            self,
            campaigns=[row for row in self.campaigns if row["campaign_id"] in chosen],
            problems=[row for row in self.problems if row["campaign_id"] in chosen],
        )


#: What has been: the rows of `outcomes`, `attempts`, `lag`, `opt_outs`, `requests` and `runs` of a
#: period, and `rejections` of any.
History = Mapping[str, Rows]


def read_status(database: Database) -> StatusSnapshot:
    """How every campaign stands now.

    Args:
        database: any login that may act as `leadloop_reader`.

    Raises:
        NotReadable: the views or the role are not there, or not for this login, or too slow.
        DatabaseError: Postgres was not there, or refused.
    """
    return _run_as_reader(database, _query_status)


def read_history(
    database: Database, campaign_ids: Sequence[str], since: datetime | None
) -> History:
    """What has been.

    Args:
        database: any login that may act as `leadloop_reader`.
        campaign_ids: of which campaigns; none: of all.
        since: where the period begins; None: with the first there is.

    Raises:
        NotReadable, DatabaseError: as in `standing`.
    """
    chosen = {"ids": list(campaign_ids) or None, "since": since}
    return _run_as_reader(
        database,
        lambda connection: {
            name: _to_dicts(connection.execute(statement, chosen))
            for name, statement in _STATEMENTS.items()
        },
    )


def _query_status(connection: Connection) -> StatusSnapshot:
    newest = connection.execute(_NEWEST).one_or_none()
    return StatusSnapshot(
        taken_at=connection.execute(text("SELECT clock_timestamp()")).scalar_one(),
        campaigns=_to_dicts(connection.execute(_CAMPAIGNS)),
        problems=_to_dicts(connection.execute(_PROBLEMS)),
        newest_run=None if newest is None else dict(newest._mapping),
        budget=dict(connection.execute(_BUDGET).one()._mapping),
    )


def _to_dicts(found: Iterable[Row[Any]]) -> Rows:
    return [dict(row._mapping) for row in found]


def _run_as_reader(database: Database, work: Callable[[Connection], T]) -> T:
    """Do it as the reader, of one moment."""
    try:
        with _reader_transaction(database) as connection:
            return work(connection)
    except DatabaseError as error:
        if not error.disconnected or error.sqlstate is None:
            raise
    # The pool held a connection of before a restart; it has let go of it now.
    with _reader_transaction(database) as connection:
        return work(connection)


@contextmanager
def _reader_transaction(database: Database) -> Iterator[Connection]:
    try:
        with database.transaction() as connection:
            connection.execute(_ONE_MOMENT)
            connection.execute(_IN_TIME)
            _become_reader(connection)
            yield connection
    except DatabaseError as error:
        if error.sqlstate in _WHAT_TO_DO:
            raise ViewsUnavailable(_WHAT_TO_DO[error.sqlstate]) from None
        raise


def _become_reader(connection: Connection) -> None:
    there = connection.execute(_THERE).one()
    if not there.views:
        raise ViewsUnavailable("the database has no leadloop schema yet: run `leadloop init`")
    if not there.reader:
        raise ViewsUnavailable(
            "the role leadloop_reader is missing: somebody who may make roles makes it, and grants"
            " it the views (docs/how-to/watch-the-page.md)"
        )
    try:
        connection.execute(_AS_READER)
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in _FORBIDDEN:
            raise
        raise ViewsUnavailable(
            f"the login {there.login} may not act as leadloop_reader: run `GRANT leadloop_reader TO"
            f' "{there.login}"`, or name another login in LEADLOOP_MONITOR_DATABASE_URL'
        ) from None
