"""What is counted of which table, and the triggers that count it: macros of counts.sql.

A trigger appends to `leadloop.count_changes`: a plain INSERT without a unique key waits for no
other transaction and raises no error. `db.counts` adds the changes to `leadloop.counts`.
"""

import math

from db.latencies import BOUNDS_S

#: Upper bounds of the buckets of delays, seconds: those of latencies, and some up to a week.
DELAY_BOUNDS_S = (*BOUNDS_S[:-1], 7200, 21_600, 86_400, 604_800, math.inf)

#: The periods for which each kind is summed: the first one is the finest.
SPANS = {
    "lead": ("ever",),
    "outcome": ("hour", "day", "ever"),
    "attempt": ("hour", "ever"),
    "delay": ("hour", "ever"),
    "opt_out": ("day", "ever"),
}


def _build_bucket(since: str, until: str) -> str:
    """Build the SQL of the bucket from one time to another; infinite times raise no error.

    A search in a constant array: comparing bound after bound took most of a trigger's time.
    """
    bounds = ", ".join(f"-{bound}" for bound in DELAY_BOUNDS_S[-2::-1])
    names = ", ".join(f"'{bound}'" for bound in (*DELAY_BOUNDS_S[:-1], "Infinity"))
    seconds = f"date_part('epoch', {since}) - date_part('epoch', {until})"
    count = len(DELAY_BOUNDS_S)
    return f"(ARRAY[{names}])[{count} - width_bucket({seconds}, CAST(ARRAY[{bounds}] AS float8[]))]"


def _build_hour(column: str) -> str:
    """Build the SQL of the hour, UTC: many times as fast as date_trunc with a time zone."""
    return f"date_bin('1 hour', {column}, '2000-01-01 00:00:00+00')"


# NaN and infinite costs are left out: they would never net out.
_FINITE_COST = "CASE WHEN abs(total_cost) < 'Infinity' THEN total_cost END"

# The kinds of each table, and the query of its counted rows from `{source}`.
_COUNTED: dict[str, tuple[tuple[str, ...], str]] = {
    # What is open is counted in the rows, by partial indexes.
    "leads": (
        ("lead",),
        """SELECT 'lead' AS kind, CAST('-infinity' AS timestamptz) AS hour, campaign_id,
               status AS name, CASE status WHEN 'rejected' THEN last_error END AS detail,
               0 AS marked, CAST(NULL AS numeric) AS cost
          FROM {source} WHERE status IN ('created', 'rejected', 'cancelled')""",
    ),
    "lead_outcomes": (
        ("outcome", "delay"),
        f"""SELECT counted.kind, counted.hour, campaign_id, counted.name,
               CAST(NULL AS text) AS detail, counted.marked, counted.cost
          FROM {{source}} CROSS JOIN LATERAL (VALUES
               ('outcome', {_build_hour("processed_at")}, outcome_name, 0, {_FINITE_COST}),
               ('delay', {_build_hour("seen_at")}, {_build_bucket("processed_at", "seen_at")},
                CAST(lookback_needed_s IS NOT NULL AS integer), NULL)
               ) AS counted (kind, hour, name, marked, cost)""",
    ),
    "outreach_attempts": (
        ("attempt",),
        f"""SELECT 'attempt' AS kind, coalesce({_build_hour("occurred_at")}, 'infinity') AS hour,
               campaign_id, channel AS name, CAST(NULL AS text) AS detail,
               CAST(coalesce(duration_s > 0, false) AS integer) AS marked,
               CAST(NULL AS numeric) AS cost
          FROM {{source}}""",
    ),
    "disable_requests": (
        ("opt_out",),
        f"""SELECT 'opt_out' AS kind, {_build_hour("requested_at")} AS hour, campaign_id,
               status AS name, {_build_bucket("requested_at", "confirmed_at")} AS detail,
               0 AS marked, CAST(NULL AS numeric) AS cost
          FROM {{source}} WHERE status IN ('disabled', 'cancelled')""",
    ),
}

#: The counted tables.
TABLES = tuple(_COUNTED)

#: Days for which sums by hour are kept; those by day, and of all time, stay.
HOURS_KEPT_DAYS = 400
# Housekeeping deletes the others: nothing shows or stores them, else some changes of an hour alone.
IS_KEPT = f"""(span <> 'hour' OR since >= now() - interval '{HOURS_KEPT_DAYS} days')"""

_APPEND = """INSERT INTO leadloop.count_changes
               (kind, hour, campaign_id, name, detail, amount, marked, cost)
        SELECT kind, hour, campaign_id, name, detail, sum(sign), sum(sign * marked),
               sum(sign * cost)
          FROM ({}) AS each GROUP BY kind, hour, campaign_id, name, detail
        HAVING sum(sign) <> 0 OR sum(sign * marked) <> 0 OR sum(sign * cost) <> 0"""

# An update appends only what it changes: the rows after it less those before it.
_TRIGGERS = """
CREATE OR REPLACE FUNCTION leadloop.count_{table}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> CAST('leadloop.{table}' AS regclass) THEN
        RAISE EXCEPTION 'leadloop.count_{table} serves leadloop.{table} alone';
    END IF;
    IF TG_OP = 'INSERT' THEN
        {inserted};
    ELSIF TG_OP = 'DELETE' THEN
        {deleted};
    ELSIF TG_OP = 'UPDATE' THEN
        IF EXISTS (SELECT FROM after) THEN
        {updated};
        END IF;
    ELSE
        -- An older snapshot lacks changes that are to be deleted.
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'TRUNCATE leadloop.{table} needs the isolation level READ COMMITTED'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Its rows would stay counted. DELETE works at every level.';
        END IF;
        LOCK TABLE leadloop.counts IN SHARE ROW EXCLUSIVE MODE;
        DELETE FROM leadloop.count_changes WHERE kind IN ({kinds});
        DELETE FROM leadloop.counts WHERE kind IN ({kinds});
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER count_inserts AFTER INSERT ON leadloop.{table}
    REFERENCING NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.count_{table}();
CREATE OR REPLACE TRIGGER count_updates AFTER UPDATE ON leadloop.{table}
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.count_{table}();
CREATE OR REPLACE TRIGGER count_deletes AFTER DELETE ON leadloop.{table}
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.count_{table}();
CREATE OR REPLACE TRIGGER count_truncation BEFORE TRUNCATE ON leadloop.{table}
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.count_{table}();
"""


def select_counted(table: str, source: str) -> str:
    """Build the query of a table's counted rows: kind, hour, campaign, name, detail and sums.

    Args:
        table: the counted table.
        source: a table expression with the rows: the table, or a transition table.
    """
    return _COUNTED[table][1].format(source=source)


def spread_spans(source: str) -> str:
    """Build the query that repeats rows with an hour for each period that they are summed for.

    Hours that are not kept are left out.
    """
    spans = ", ".join(f"('{kind}', '{span}')" for kind, spans in SPANS.items() for span in spans)
    return f"""SELECT each.kind, span, since, each.campaign_id, each.name, each.detail, each.amount,
           each.marked, each.cost
      FROM {source} AS each
      JOIN (VALUES {spans}) AS summed (kind, span) ON summed.kind = each.kind
     CROSS JOIN LATERAL (SELECT CASE span WHEN 'hour' THEN each.hour
                                          WHEN 'day' THEN date_trunc('day', each.hour, 'UTC')
                                          ELSE '-infinity' END AS since) AS period
     WHERE {IS_KEPT}"""


def build_triggers(table: str) -> str:
    """Build the statements that create a table's counting function and its triggers."""
    after, before = select_counted(table, "after"), select_counted(table, "before")
    added, removed = (
        f"SELECT {sign} AS sign, counted.* FROM ({rows}) AS counted"
        for sign, rows in ((1, after), (-1, before))
    )
    return _TRIGGERS.format(
        table=table,
        kinds=", ".join(f"'{kind}'" for kind in _COUNTED[table][0]),
        inserted=_APPEND.format(added),
        deleted=_APPEND.format(removed),
        updated=_APPEND.format(f"{added} UNION ALL {removed}"),
    )
