"""What is counted of which table, and the triggers that count it: macros of counts.sql.

A trigger appends to `leadloop.count_changes`: a plain INSERT without a unique key waits for no
other transaction and raises no error. `db.counts` adds the changes to `leadloop.counts`.

Leads by outcome and number of attempts (the kind `tries`) are no sum over the rows of one table:
the triggers append differences to `leadloop.attempt_changes`, each with the ids of its leads. What
was true of a lead before follows from what is true now and from all its differences. So it does not
matter which of two open transactions stores the outcome, and which one an attempt.
"""

import math
from collections.abc import Mapping

from db.latencies import BOUNDS_S

#: Upper bounds of the buckets of delays, seconds: those of latencies, and some up to a week.
DELAY_BOUNDS_S = (*BOUNDS_S[:-1], 7200, 21_600, 86_400, 604_800, math.inf)

#: The periods for which each kind is summed. "total hour" and "total day" are sums of all campaigns
#: together, with the campaign ''; the same sums of each campaign are always kept beside them.
SPANS = {
    "lead": ("ever",),
    "outcome": ("hour", "day", "ever", "total hour", "total day"),
    "attempt": ("hour", "ever", "total hour"),
    "delay": ("hour", "ever"),
    "opt_out": ("day", "ever", "total day"),
    "run": ("hour", "total hour"),
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


def _build_bin(length: str, time: str) -> str:
    """Build the SQL of the hour or day, UTC: many times as fast as date_trunc with a time zone."""
    return f"date_bin('{length}', {time}, '2000-01-01 00:00:00+00')"


def _build_hour(column: str) -> str:
    """Build the SQL of the hour of a time, UTC."""
    return _build_bin("1 hour", column)


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
    # The requests of a sync are those of its three flows, which have separate rows.
    "sync_runs": (
        ("run",),
        f"""SELECT 'run' AS kind, {_build_hour("started_at")} AS hour, campaign_id, flow AS name,
               account AS detail,
               CASE WHEN counts ->> 'requests' ~ '^[0-9]{{{{1,18}}}}$'
                    THEN CAST(counts ->> 'requests' AS bigint) ELSE 0 END AS marked,
               CAST(NULL AS numeric) AS cost
          FROM {{source}} WHERE flow <> 'sync-leads'""",
    ),
}

#: The counted tables.
TABLES = tuple(_COUNTED)
#: The kinds and spans of which there are totals.
TOTALS = tuple(
    (kind, span.removeprefix("total "))
    for kind, spans in SPANS.items()
    for span in spans
    if span.startswith("total ")
)

#: Days for which sums by hour are kept; those by day, and of all time, stay.
HOURS_KEPT_DAYS = 400
# Housekeeping deletes the others: nothing shows or stores them, else some changes of an hour alone.
# In hours, as a day of a reader's time zone may have 23.
IS_KEPT = (
    "(span NOT IN ('hour', 'total hour')"
    f" OR since >= now() - interval '{24 * HOURS_KEPT_DAYS} hours')"
)

#: SQL: the digest of name and detail.
DIGEST = (
    """substr(sha256(convert_to(CAST(jsonb_build_array(name, detail) AS text), 'UTF8')), 1, 16)"""
)

_APPEND = """INSERT INTO leadloop.count_changes
               (kind, hour, campaign_id, name, detail, amount, marked, cost)
        SELECT kind, hour, campaign_id, name, detail, sum(sign), sum(sign * marked),
               sum(sign * cost)
          FROM ({}) AS each GROUP BY kind, hour, campaign_id, name, detail
        HAVING sum(sign) <> 0 OR sum(sign * marked) <> 0 OR sum(sign * cost) <> 0"""

# Differences of outcomes by name, and of attempts, with the leads that they concern: at most 1,000
# in a row, as an array has a limit.
_APPEND_TRIES = """INSERT INTO leadloop.attempt_changes
               (campaign_id, lead_ids, outcome_name, {column})
        SELECT campaign_id, array_agg(lead_id), name, difference
          FROM (SELECT campaign_id, lead_id, name, sum(sign) AS difference,
                       row_number() OVER () / 1000 AS part
                  FROM ({rows}) AS each
                 GROUP BY campaign_id, lead_id, name HAVING sum(sign) <> 0) AS lead
         GROUP BY campaign_id, name, difference, part"""
# The column of attempt_changes for each table, and the outcome's name.
_TRIES = {"lead_outcomes": ("outcomes", "outcome_name"), "outreach_attempts": ("attempts", "NULL")}
# TRUNCATE of outcomes leaves no lead to count, that of attempts leaves leads without an attempt.
_TRUNCATE_TRIES = {
    "lead_outcomes": """DELETE FROM leadloop.attempt_changes WHERE outcomes <> 0;
        DELETE FROM leadloop.counts WHERE kind = 'tries';""",
    "outreach_attempts": f"""DELETE FROM leadloop.attempt_changes WHERE attempts <> 0;
        WITH gone AS (
            DELETE FROM leadloop.counts WHERE kind = 'tries' RETURNING *
        )
        INSERT INTO leadloop.counts
               (kind, span, since, campaign_id, digest, name, detail, amount, marked)
        SELECT kind, span, since, campaign_id, {DIGEST}, name, detail, sum(amount), 0
          FROM (SELECT kind, span, since, campaign_id, name, '0' AS detail, amount
                  FROM gone) AS each
         GROUP BY kind, span, since, campaign_id, name, detail;""",
}

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
        {truncated}
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


def spread_spans(source: str, *, with_totals: bool = True) -> str:
    """Build the query that repeats rows with an hour for each period that they are summed for.

    Hours that are not kept are left out.

    Args:
        source: a table expression of changes, or of rows by hour.
        with_totals: whether to add sums of all campaigns. A condition on the campaign reaches the
            source only without them.
    """
    spans = ", ".join(
        f"('{kind}', '{span}')"
        for kind, spans in SPANS.items()
        for span in spans
        if with_totals or not span.startswith("total ")
    )
    campaign = "each.campaign_id"
    if with_totals:
        campaign = f"CASE WHEN span IN ('total hour', 'total day') THEN '' ELSE {campaign} END"
    return f"""SELECT each.kind, span, since, {campaign} AS campaign_id, each.name, each.detail,
           each.amount, each.marked, each.cost
      FROM {source} AS each
      JOIN (VALUES {spans}) AS summed (kind, span) ON summed.kind = each.kind
     CROSS JOIN LATERAL (SELECT CASE WHEN span IN ('hour', 'total hour') THEN each.hour
                                     WHEN span IN ('day', 'total day')
                                     THEN {_build_bin("1 day", "each.hour")}
                                     ELSE '-infinity' END AS since) AS period
     WHERE {IS_KEPT}"""


def select_tries(source: str) -> str:
    """Build the query of how a table expression of `attempt_changes` changes the sums of tries.

    The sums are leads by the name of the outcome and the number of attempts. A row is the present
    state of a lead, or with the amount -1 the state before. It is right only if the source has all
    differences of these leads that the snapshot shows.

    A lead has one outcome at most. So if it got one, that is the present one, and if it lost one,
    that was the one before; only of a lead that did neither the outcome is looked up. LATERAL and
    OFFSET 0 force index lookups: the planner knows nothing of the source.
    """
    return f"""SELECT 'tries' AS kind, 'ever' AS span, CAST('-infinity' AS timestamptz) AS since,
           campaign_id, state.name, CAST(state.attempts AS text) AS detail,
           CAST(state.amount AS bigint) AS amount, CAST(0 AS bigint) AS marked,
           CAST(NULL AS numeric) AS cost
      FROM (SELECT campaign_id, lead_id, sum(attempts) AS difference,
                   bool_or(outcomes > 0) AS has_gained, bool_or(outcomes < 0) AS has_lost,
                   min(outcome_name) FILTER (WHERE outcomes > 0) AS gained,
                   min(outcome_name) FILTER (WHERE outcomes < 0) AS lost
              FROM (SELECT campaign_id, lead_id, outcome_name, sum(outcomes) AS outcomes,
                           sum(attempts) AS attempts
                      FROM {source} CROSS JOIN unnest(lead_ids) AS lead_id
                     GROUP BY campaign_id, lead_id, outcome_name) AS difference
             GROUP BY campaign_id, lead_id) AS lead
     CROSS JOIN LATERAL (SELECT count(*) AS attempts FROM leadloop.outreach_attempts AS attempt
                          WHERE attempt.campaign_id = lead.campaign_id
                            AND attempt.lead_id = lead.lead_id) AS tried
      LEFT JOIN LATERAL (SELECT true AS is_kept, outcome_name AS name
                           FROM leadloop.lead_outcomes AS outcome
                          WHERE NOT lead.has_gained AND NOT lead.has_lost
                            AND outcome.campaign_id = lead.campaign_id
                            AND outcome.lead_id = lead.lead_id
                         OFFSET 0) AS kept ON true
     CROSS JOIN LATERAL (
           SELECT lead.gained AS name, tried.attempts, 1 AS amount WHERE lead.has_gained
           UNION ALL
           SELECT lead.lost, tried.attempts - lead.difference, -1 WHERE lead.has_lost
           UNION ALL
           SELECT kept.name, tried.attempts, 1 WHERE kept.is_kept
           UNION ALL
           SELECT kept.name, tried.attempts - lead.difference, -1 WHERE kept.is_kept) AS state"""


def build_triggers(table: str) -> str:
    """Build the statements that create a table's counting function and its triggers."""
    return _TRIGGERS.format(
        table=table,
        kinds=", ".join(f"'{kind}'" for kind in _COUNTED[table][0]),
        inserted=_build_appends(table, {"after": 1}),
        deleted=_build_appends(table, {"before": -1}),
        updated=_build_appends(table, {"after": 1, "before": -1}),
        truncated=_TRUNCATE_TRIES.get(table, ""),
    )


def _build_appends(table: str, signs: Mapping[str, int]) -> str:
    """Build the statements that append the rows of transition tables, each with its sign."""
    counted = " UNION ALL ".join(
        f"SELECT {sign} AS sign, counted.* FROM ({select_counted(table, rows)}) AS counted"
        for rows, sign in signs.items()
    )
    if table not in _TRIES:
        return _APPEND.format(counted)
    column, name = _TRIES[table]
    leads = " UNION ALL ".join(
        f"SELECT {sign} AS sign, campaign_id, lead_id, CAST({name} AS text) AS name FROM {rows}"
        for rows, sign in signs.items()
    )
    return f"{_APPEND.format(counted)};\n        {_APPEND_TRIES.format(column=column, rows=leads)}"
