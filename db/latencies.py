"""Latencies of leads, opt-outs and outcomes: a histogram for each hour, in `leadloop.latencies`.

The statement that stores a confirmation also counts its latency. So a retry of the transaction
counts nothing twice, and a look at the histogram costs the same with any history. Each latency is
counted in its hour, and in the row of hour -infinity, the total since the first one: the exporter's
counters, which never decrease.
"""

import math

#: Upper bounds of the buckets, seconds.
BOUNDS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, math.inf)

_BUCKET = "CASE {} ELSE 'Infinity' END".format(
    " ".join(f"WHEN seconds <= {bound} THEN {bound}" for bound in BOUNDS_S[:-1])
)


def build_count(source: str, *, kind: str, since: str, until: str) -> str:
    """Build the statement that counts the latencies of the rows of `source`.

    It locks the histogram's rows in one order. It must be the last of its transaction's statements
    that lock rows which another transaction of the same kind may hold: then none can deadlock.

    Args:
        source: a table expression: the rows that were confirmed.
        kind: SQL: the kind of a row.
        since: SQL: the start of a row's latency. Infinite: not counted.
        until: SQL: its end. An end before the start counts as no latency.
    """
    # Measured once, and its bucket counted in both rows: half of the time of measuring it for each.
    return f"""
    INSERT INTO leadloop.latencies AS stored (hour, campaign_id, kind, bucket_s, amount, total_s)
    SELECT span.hour, :campaign, kind, bucket_s, amount, total_s
      FROM (SELECT kind, {_BUCKET} AS bucket_s, count(*) AS amount, sum(seconds) AS total_s
              FROM (SELECT {kind} AS kind,
                           greatest(0, date_part('epoch', {until} - {since})) AS seconds
                      FROM {source} WHERE isfinite({since})) AS each
             GROUP BY kind, bucket_s) AS bucket
     CROSS JOIN (VALUES (date_trunc('hour', now(), 'UTC')), (CAST('-infinity' AS timestamptz)))
                AS span (hour)
     ORDER BY span.hour, kind, bucket_s
    ON CONFLICT (hour, campaign_id, kind, bucket_s) DO UPDATE
       SET amount = stored.amount + excluded.amount, total_s = stored.total_s + excluded.total_s"""
