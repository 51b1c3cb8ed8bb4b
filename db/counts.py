"""Counts of what is past: leads, outcomes, attempts, delays, opt-outs, runs, in `leadloop.counts`.

Triggers append each change of the counted rows to `leadloop.count_changes` and
`leadloop.attempt_changes`, in the transaction of the rows (db/schema/counting.py). `fold_counts`
adds the changes to `leadloop.counts`. The views sum both, so it does not matter when, or whether,
changes are folded.
"""

from sqlalchemy import Connection, text

from db.database import Database
from db.schema import are_counts_filled
from db.schema.counting import DIGEST, TABLES, TOTALS, select_tries, spread_spans

#: The most changes that one transaction folds.
FOLD_LIMIT = 20_000

# A fold waits for no recount. A crash of the server that loses a fold keeps its changes.
_SET_LIMITS = text("SET LOCAL lock_timeout = '1s'; SET LOCAL synchronous_commit = off")
_BECOME_ONLY_FOLD = text("SELECT pg_try_advisory_xact_lock(hashtext('leadloop.fold'))")


def _build_fold(gone: str, changes: str) -> str:
    """Build the statement that deletes changes, adds them to the counts, and returns empty sums.

    Args:
        gone: SQL: the DELETE.
        changes: SQL: how its rows, `gone`, change the sums.
    """
    return f"""
WITH gone AS (
    {gone} RETURNING *
), stored AS (
    INSERT INTO leadloop.counts AS kept
           (kind, span, since, campaign_id, digest, name, detail, amount, marked, cost)
    SELECT kind, span, since, campaign_id, {DIGEST} AS digest, name, detail, sum(amount),
           sum(marked), sum(cost)
      FROM ({changes}) AS change
     GROUP BY kind, span, since, campaign_id, name, detail
    HAVING sum(amount) <> 0 OR sum(marked) <> 0 OR sum(cost) <> 0
     ORDER BY kind, span, since, campaign_id, digest
    ON CONFLICT (kind, span, since, campaign_id, digest) DO UPDATE
       SET amount = kept.amount + excluded.amount, marked = kept.marked + excluded.marked,
           cost = CASE WHEN kept.cost IS NULL THEN excluded.cost
                       ELSE kept.cost + coalesce(excluded.cost, 0) END
    RETURNING kind, span, since, campaign_id, digest, amount
)
-- As text: Python has no infinite times.
SELECT (SELECT count(*) FROM gone) AS changes, kind, span, CAST(since AS text) AS since,
       campaign_id, digest
  FROM (VALUES (0)) AS one LEFT JOIN stored ON stored.amount = 0
"""


_FOLD = text(
    _build_fold(
        """DELETE FROM leadloop.count_changes WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM leadloop.count_changes LIMIT :limit FOR UPDATE SKIP LOCKED))""",
        spread_spans("gone"),
    )
)
# All that the snapshot shows: of a lead, no difference may be left.
_FOLD_TRIES = text(_build_fold("DELETE FROM leadloop.attempt_changes", select_tries("gone")))
# Names of outcomes and reasons that no row has any longer are not kept.
_DELETE_EMPTY = text("""
DELETE FROM leadloop.counts
 WHERE kind = :kind AND span = :span AND since = CAST(:since AS timestamptz)
   AND campaign_id = :campaign_id AND digest = :digest AND amount = 0
""")

_SNAPSHOT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
# The tables come before the counts, as in a TRUNCATE, whose trigger locks the counts: the reverse
# order could deadlock. LOCK takes no snapshot: that of a recount is of a moment without a fold.
_LOCK_TABLES = text(
    f"LOCK TABLE {', '.join(f'leadloop.{table}' for table in TABLES)} IN ACCESS SHARE MODE"
)
_LOCK_COUNTS = text("LOCK TABLE leadloop.counts IN SHARE ROW EXCLUSIVE MODE")
_OF_CAMPAIGN = "(CAST(:campaign AS text) IS NULL OR campaign_id = :campaign)"
_IS_TOTAL = "span IN ('total hour', 'total day')"
_PAIRS = ", ".join(str(pair) for pair in TOTALS)
_TOTAL_PAIRS = ", ".join(str((kind, f"total {span}")) for kind, span in TOTALS)
# The periods of the campaign, whose totals alone are built again. Sums of 0 keep its former ones.
_PERIODS = f"""
    SELECT kind, span, since FROM leadloop.counts
     WHERE campaign_id = :campaign AND NOT {_IS_TOTAL}"""
_RECOUNT = [
    text(statement)
    for statement in (
        f"DELETE FROM leadloop.count_changes WHERE {_OF_CAMPAIGN}",
        f"DELETE FROM leadloop.attempt_changes WHERE {_OF_CAMPAIGN}",
        "DELETE FROM leadloop.counts WHERE CAST(:campaign AS text) IS NULL",
        f"""
UPDATE leadloop.counts SET amount = 0, marked = 0, cost = NULL
 WHERE campaign_id = :campaign AND NOT {_IS_TOTAL}""",
        f"""
INSERT INTO leadloop.counts
       (kind, span, since, campaign_id, digest, name, detail, amount, marked, cost)
SELECT kind, span, since, campaign_id, {DIGEST}, name, detail, amount, marked, cost
  FROM leadloop.counts_from_rows WHERE {_OF_CAMPAIGN}
    ON CONFLICT (kind, span, since, campaign_id, digest) DO UPDATE
       SET amount = excluded.amount, marked = excluded.marked, cost = excluded.cost""",
        f"""
DELETE FROM leadloop.counts
 WHERE {_IS_TOTAL} AND (kind, replace(span, 'total ', ''), since) IN ({_PERIODS})""",
        f"""
INSERT INTO leadloop.counts
       (kind, span, since, campaign_id, digest, name, detail, amount, marked, cost)
SELECT kind, 'total ' || span, since, '', digest, name, detail, sum(amount), sum(marked), sum(cost)
  FROM leadloop.counts
 WHERE (kind, span) IN ({_PAIRS})
   AND (CAST(:campaign AS text) IS NULL OR (kind, span, since) IN ({_PERIODS}))
 GROUP BY kind, span, since, digest, name, detail HAVING sum(amount) <> 0""",
        "DELETE FROM leadloop.counts WHERE campaign_id = :campaign AND amount = 0",
    )
]
_UNCOUNTED = text("""
SELECT counted.name
  FROM unnest(CAST(:tables AS text[])) AS counted (name)
  LEFT JOIN pg_trigger AS trigger
         ON trigger.tgrelid = to_regclass('leadloop.' || counted.name)
        AND trigger.tgname IN ('count_inserts', 'count_updates', 'count_deletes',
                               'count_truncation')
        AND trigger.tgenabled IN ('O', 'A')
 GROUP BY counted.name HAVING count(trigger.oid) < 4 ORDER BY counted.name
""")
_MARK_FILLED = text("INSERT INTO leadloop.counts_filled DEFAULT VALUES ON CONFLICT DO NOTHING")

# A change of a cost from none to 0 nets to nothing.
_SUMS = f"""
    SELECT kind, span, since, campaign_id, name, detail, sum(amount) AS amount,
           sum(marked) AS marked, coalesce(sum(cost), 0) AS cost
      FROM {{}} WHERE {_OF_CAMPAIGN} AND NOT {_IS_TOTAL}
     GROUP BY kind, span, since, campaign_id, name, detail HAVING sum(amount) <> 0"""
_DRIFT = text(f"""
WITH kept AS ({_SUMS.format("leadloop.counts_now")}
), actual AS ({_SUMS.format("leadloop.counts_from_rows")}
)
SELECT count(*) FROM ((TABLE kept EXCEPT TABLE actual) UNION (TABLE actual EXCEPT TABLE kept)) AS a
""")
# Sums of all campaigns beside those of each one, of the periods in which the campaign has any.
_TOTAL_DRIFT = text(f"""
WITH sums AS NOT MATERIALIZED (
    SELECT kind, replace(span, 'total ', '') AS span, since, campaign_id, name, detail,
           CASE WHEN {_IS_TOTAL} THEN 1 ELSE -1 END AS sign, amount, marked, cost
      FROM leadloop.counts_now WHERE (kind, span) IN ({_PAIRS}, {_TOTAL_PAIRS})
)
SELECT count(*) FROM (
    SELECT FROM sums
     WHERE (kind, span, since) IN (SELECT kind, span, since FROM sums WHERE {_OF_CAMPAIGN})
     GROUP BY kind, span, since, name, detail
    HAVING sum(sign * amount) <> 0 OR sum(sign * marked) <> 0
        OR coalesce(sum(sign * cost), 0) <> 0) AS different
""")


def fold_counts(connection: Connection) -> int:
    """Add changes to the counts; nothing if another transaction does so.

    At most FOLD_LIMIT of `count_changes`, and all of `attempt_changes`.

    Returns:
        The number of `count_changes` folded.
    """
    connection.execute(_SET_LIMITS)
    if not connection.scalar(_BECOME_ONLY_FOLD):
        return 0
    connection.execute(_LOCK_TABLES)
    tries = connection.execute(_FOLD_TRIES).all()
    rows = connection.execute(_FOLD, {"limit": FOLD_LIMIT}).all()
    empty = [dict(row._mapping) for row in (*tries, *rows) if row.kind is not None]
    if empty:
        connection.execute(_DELETE_EMPTY, empty)
    changes: int = rows[0].changes
    return changes


def fold_all_counts(database: Database) -> None:
    """Fold all changes, in one transaction for each FOLD_LIMIT of them.

    Raises:
        DatabaseError: Postgres refused, or a recount holds the counts; the next fold does it.
    """
    while database.run(fold_counts) == FOLD_LIMIT:
        pass


def recount(connection: Connection, campaign_id: str | None = None) -> None:
    """Count the rows of a campaign, or of all, from scratch; no writer waits meanwhile.

    A change and its rows commit together, so one snapshot has both or neither. Only folds wait.
    Totals are those of the periods in which the campaign has sums, or had some.

    Args:
        connection: a transaction that has executed nothing.
        campaign_id: the campaign; None: all.
    """
    connection.execute(_SNAPSHOT)
    connection.execute(_LOCK_TABLES)
    connection.execute(_LOCK_COUNTS)
    for statement in _RECOUNT:
        connection.execute(statement, {"campaign": campaign_id})


def fill_counts(database: Database) -> None:
    """Count what was stored before an upgrade brought the triggers, unless that is done.

    Raises:
        DatabaseError: Postgres refused, or failed several times.
    """
    if not database.run(are_counts_filled):
        count_all_rows(database)


def count_all_rows(database: Database) -> None:
    """Count all rows from scratch, and mark them as counted.

    An audit counts a campaign's rows again: neither covering rows nor those of deleted campaigns.

    Raises:
        DatabaseError: Postgres refused, or failed several times; the sums are as they were.
    """

    def count_rows(connection: Connection) -> None:
        recount(connection)
        connection.execute(_MARK_FILLED)

    database.retry(count_rows)


def count_drift(connection: Connection, campaign_id: str | None = None) -> int:
    """Count the sums that differ from a count of the rows, of a campaign or of all.

    Sums of all campaigns count too, if they include the campaign: they are compared with the sums
    of each one. Reads all rows of the campaign once.

    Args:
        connection: a transaction; in READ COMMITTED each of two statements has one snapshot.
        campaign_id: the campaign; None: all.
    """
    parameters = {"campaign": campaign_id}
    return sum(
        connection.execute(statement, parameters).scalar_one()
        for statement in (_DRIFT, _TOTAL_DRIFT)
    )


def list_uncounted_tables(connection: Connection) -> list[str]:
    """List the counted tables whose triggers are missing or disabled."""
    return list(connection.scalars(_UNCOUNTED, {"tables": list(TABLES)}))
