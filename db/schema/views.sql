-- Views for the data team, without personal columns, and their descriptions. The file may be applied
-- again (idempotent). db.schema expands the macros `FOLDED(column)`, a normalised lead id, and
-- `MINUTES(interval)` and `DAYS(interval)`, texts such as "15 minutes".

CREATE SCHEMA IF NOT EXISTS leadloop_monitor;
COMMENT ON SCHEMA leadloop_monitor IS
    'Views for dashboards and alerts: counts, times, reasons and ids. No column is personal; a reason
may quote the vendor, and is redacted as far as a rule can tell.';

-- Leads -------------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW leadloop_monitor.lead_funnel AS
WITH stages AS (
    -- Open leads, by the partial indexes.
    SELECT campaign_id, status AS stage, count(*) AS leads
      FROM leadloop.leads WHERE status = 'new' GROUP BY campaign_id, status
    UNION ALL
    SELECT campaign_id, status, count(*)
      FROM leadloop.leads WHERE status IN ('sending', 'in_doubt') GROUP BY campaign_id, status
    UNION ALL
    SELECT campaign_id, name, CAST(sum(amount) AS bigint)
      FROM leadloop.counts_now
     WHERE kind = 'lead' AND span = 'ever' AND since = '-infinity'
     GROUP BY campaign_id, name
    UNION ALL
    SELECT campaign_id, 'processed', CAST(sum(amount) AS bigint)
      FROM leadloop.counts_now
     WHERE kind = 'outcome' AND span = 'ever' AND since = '-infinity' GROUP BY campaign_id
)
SELECT campaign.campaign_id, stage.name AS stage, stage.position,
       coalesce(stages.leads, 0) AS leads
  FROM leadloop.campaigns AS campaign
 CROSS JOIN (VALUES ('new', 1), ('sending', 2), ('in_doubt', 3), ('created', 4), ('processed', 5),
                    ('rejected', 6), ('cancelled', 7)) AS stage (name, position)
  LEFT JOIN stages ON stages.campaign_id = campaign.campaign_id AND stages.stage = stage.name;
COMMENT ON VIEW leadloop_monitor.lead_funnel IS
    'Number of leads at each stage: seven rows per campaign.';
COMMENT ON COLUMN leadloop_monitor.lead_funnel.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.lead_funnel.stage IS
    'new, sending, in_doubt, created, rejected, cancelled: the status of the lead. processed: leads
with an outcome, which also count as created.';
COMMENT ON COLUMN leadloop_monitor.lead_funnel.position IS 'Display order of the stages.';
COMMENT ON COLUMN leadloop_monitor.lead_funnel.leads IS 'Number of leads.';

CREATE OR REPLACE VIEW leadloop_monitor.rejections AS
-- A subquery in the list of columns: a list that is cut by LIMIT looks for the samples of its rows alone.
SELECT rejected.campaign_id, rejected.reason, rejected.leads,
       (SELECT coalesce(array_agg(newest.lead_id ORDER BY newest.seq DESC), '{}')
          FROM (SELECT lead.lead_id, lead.seq FROM leadloop.leads AS lead
                 WHERE lead.campaign_id = rejected.campaign_id AND lead.status = 'rejected'
                   AND hashtext(coalesce(lead.last_error, ''))
                       = hashtext(coalesce(rejected.reason, ''))
                   AND lead.last_error IS NOT DISTINCT FROM rejected.reason
                 ORDER BY lead.seq DESC LIMIT 5) AS newest) AS sample_lead_ids
  FROM (SELECT campaign_id, detail AS reason, CAST(sum(amount) AS bigint) AS leads
          FROM leadloop.counts_now
         WHERE kind = 'lead' AND span = 'ever' AND since = '-infinity' AND name = 'rejected'
         GROUP BY campaign_id, detail HAVING sum(amount) > 0) AS rejected;
COMMENT ON VIEW leadloop_monitor.rejections IS
    'Rejected leads by reason: from our checks, or the vendor''s text, redacted.';
COMMENT ON COLUMN leadloop_monitor.rejections.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.rejections.reason IS 'The reason; it names the field.';
COMMENT ON COLUMN leadloop_monitor.rejections.leads IS 'Number of leads.';
COMMENT ON COLUMN leadloop_monitor.rejections.sample_lead_ids IS
    'Ids of the five newest ones; empty while the rows differ from the sums.';

-- Outcomes and attempts ---------------------------------------------------------------------------

CREATE OR REPLACE VIEW leadloop_monitor.outcome_breakdown AS
SELECT outcome.campaign_id,
       CAST(outcome.processed_at AT TIME ZONE 'UTC' AS date) AS day,
       CAST(extract(hour FROM outcome.processed_at AT TIME ZONE 'UTC') AS integer) AS hour,
       -- Free text: in a file with shifted columns this field may hold a name.
       CASE WHEN upper(btrim(lead.state_code)) ~ '^[A-Z]{2}$'
            THEN upper(btrim(lead.state_code)) END AS state_code,
       outcome.outcome_name, count(*) AS outcomes, sum(outcome.total_cost) AS cost
  FROM leadloop.lead_outcomes AS outcome
  LEFT JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
 GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW leadloop_monitor.outcome_breakdown IS
    'Outcomes and their cost, by day, hour and state. Counts rows: name a day or a range of days,
which an index finds.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.day IS 'Day of processing, UTC.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.hour IS 'Hour of the day, UTC: 0 to 23.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.state_code IS
    'The lead''s state, two letters; null if missing or invalid.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.outcome_name IS
    'Name of the outcome; null if the vendor gives none.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.outcomes IS 'Number of leads.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.cost IS
    'Total cost as reported by the vendor, in the vendor''s currency.';

CREATE OR REPLACE VIEW leadloop_monitor.attempt_stats AS
SELECT attempt.campaign_id, attempt.channel,
       CAST(attempt.occurred_at AT TIME ZONE 'UTC' AS date) AS day,
       CAST(extract(hour FROM attempt.occurred_at AT TIME ZONE 'UTC') AS integer) AS hour,
       CASE WHEN upper(btrim(lead.state_code)) ~ '^[A-Z]{2}$'
            THEN upper(btrim(lead.state_code)) END AS state_code,
       count(*) AS attempts,
       count(*) FILTER (WHERE attempt.duration_s > 0) AS connected,
       sum(attempt.duration_s) AS duration_s, sum(attempt.cost) AS cost
  FROM leadloop.outreach_attempts AS attempt
  LEFT JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
 GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW leadloop_monitor.attempt_stats IS
    'Attempts (calls, emails, SMS, IVR) by day, hour and state. The connect rate is connected /
attempts, for the channel call. Counts rows: name a day or a range of days, which an index finds.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.channel IS 'call, gmail, sms or ivr.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.day IS
    'Day of the attempt, UTC; null if the vendor gives none.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.hour IS 'Hour of the day, UTC: 0 to 23.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.state_code IS
    'The lead''s state, two letters; null if missing or invalid.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.attempts IS 'Number of attempts.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.connected IS
    'Number of attempts with a duration above zero.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.duration_s IS 'Total duration, seconds.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.cost IS
    'Total cost as reported by the vendor, in the vendor''s currency.';

CREATE OR REPLACE VIEW leadloop_monitor.attempts_to_outcome AS
SELECT campaign_id, name AS outcome_name, CAST(detail AS bigint) AS attempts,
       CAST(sum(amount) AS bigint) AS leads
  FROM leadloop.counts_now WHERE kind = 'tries' AND span = 'ever' AND since = '-infinity'
 GROUP BY campaign_id, name, detail HAVING sum(amount) > 0;
COMMENT ON VIEW leadloop_monitor.attempts_to_outcome IS
    'Leads by outcome and by the number of attempts that it took, from sums that are kept.';
COMMENT ON COLUMN leadloop_monitor.attempts_to_outcome.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.attempts_to_outcome.outcome_name IS
    'Name of the outcome; null if the vendor gives none.';
COMMENT ON COLUMN leadloop_monitor.attempts_to_outcome.attempts IS 'Number of attempts of a lead.';
COMMENT ON COLUMN leadloop_monitor.attempts_to_outcome.leads IS
    'Number of leads with this number of attempts.';

CREATE OR REPLACE VIEW leadloop_monitor.outcomes_by_hour AS
SELECT campaign_id, since AS hour, name AS outcome_name, CAST(sum(amount) AS bigint) AS outcomes,
       sum(cost) AS cost
  FROM leadloop.counts_now WHERE kind = 'outcome' AND span = 'hour'
 GROUP BY campaign_id, since, name HAVING sum(amount) > 0;
COMMENT ON VIEW leadloop_monitor.outcomes_by_hour IS
    'Outcomes and their cost, by hour, of the last 400 days: outcome_breakdown without states, from sums
that are kept. Older outcomes: outcomes_by_day.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.hour IS 'Hour of processing, UTC.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.outcome_name IS
    'Name of the outcome; null if the vendor gives none.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.outcomes IS 'Number of leads.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.cost IS
    'Total cost as reported by the vendor, in the vendor''s currency.';

CREATE OR REPLACE VIEW leadloop_monitor.outcomes_by_day AS
SELECT campaign_id, since AS day, name AS outcome_name, CAST(sum(amount) AS bigint) AS outcomes,
       sum(cost) AS cost
  FROM leadloop.counts_now WHERE kind = 'outcome' AND span = 'day'
 GROUP BY campaign_id, since, name HAVING sum(amount) > 0;
COMMENT ON VIEW leadloop_monitor.outcomes_by_day IS
    'Outcomes and their cost, by day: for long periods, in which outcomes_by_hour has many rows.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_day.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_day.day IS 'Start of the day of processing, UTC.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_day.outcome_name IS
    'Name of the outcome; null if the vendor gives none.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_day.outcomes IS 'Number of leads.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_day.cost IS
    'Total cost as reported by the vendor, in the vendor''s currency.';

-- Attempts without a time apart: so a condition on the hour finds its rows by the index.
CREATE OR REPLACE VIEW leadloop_monitor.attempts_by_hour AS
SELECT campaign_id, hour, CAST(sum(amount) AS bigint) AS attempts,
       CAST(coalesce(sum(marked) FILTER (WHERE name = 'call'), 0) AS bigint) AS connected,
       CAST(coalesce(sum(amount) FILTER (WHERE name = 'call'), 0) AS bigint) AS calls
  FROM (SELECT campaign_id, since AS hour, name, amount, marked FROM leadloop.counts_now
         WHERE kind = 'attempt' AND span = 'hour' AND since < 'infinity'
        UNION ALL
        SELECT campaign_id, CAST(NULL AS timestamptz), name, amount, marked
          FROM leadloop.counts_now
         WHERE kind = 'attempt' AND span = 'hour' AND since = 'infinity') AS each
 GROUP BY campaign_id, hour HAVING sum(amount) > 0;
COMMENT ON VIEW leadloop_monitor.attempts_by_hour IS
    'Attempts (calls, emails, SMS, IVR) by hour, of the last 400 days: attempt_stats without states, from
sums that are kept.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.hour IS
    'Hour of the attempt, UTC; null if the vendor gives none.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.attempts IS 'Number of attempts.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.connected IS
    'Number of calls with a duration above zero. The connect rate is connected / calls.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.calls IS 'Number of calls among the attempts.';

-- Opt-outs ----------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW leadloop_monitor.disable_latency AS
SELECT campaign_id, day, CAST(sum(amount) AS bigint) AS requested,
       CAST(coalesce(sum(amount) FILTER (WHERE status = 'disabled'), 0) AS bigint) AS disabled,
       CAST(coalesce(sum(amount) FILTER (WHERE status = 'cancelled'), 0) AS bigint) AS cancelled,
       CAST(coalesce(sum(amount) FILTER (WHERE status = 'failed'), 0) AS bigint) AS failed,
       CAST(coalesce(sum(amount) FILTER (WHERE status IN ('requested', 'failed')), 0) AS bigint)
           AS waiting,
       min(bucket_s) FILTER (WHERE so_far >= 0.50 * confirmed) AS p50_s,
       min(bucket_s) FILTER (WHERE so_far >= 0.95 * confirmed) AS p95_s,
       max(bucket_s) AS worst_s,
       CAST(extract(epoch FROM clock_timestamp() - min(waiting_since)) AS float8)
           AS oldest_waiting_s,
       since
  FROM (SELECT *, CAST(since AT TIME ZONE 'UTC' AS date) AS day,
               sum(amount) FILTER (WHERE bucket_s IS NOT NULL)
                   OVER (PARTITION BY campaign_id, since ORDER BY bucket_s) AS so_far,
               sum(amount) FILTER (WHERE bucket_s IS NOT NULL)
                   OVER (PARTITION BY campaign_id, since) AS confirmed
          FROM (SELECT campaign_id, since, name AS status,
                       CAST(detail AS float8) AS bucket_s, sum(amount) AS amount,
                       CAST(NULL AS timestamptz) AS waiting_since
                  FROM leadloop.counts_now WHERE kind = 'opt_out' AND span = 'day'
                 GROUP BY campaign_id, since, name, detail HAVING sum(amount) > 0
                UNION ALL
                -- A request dated in the future has waited zero seconds.
                SELECT campaign_id, date_trunc('day', requested_at, 'UTC'), status, NULL,
                       count(*), min(least(requested_at, clock_timestamp()))
                  FROM leadloop.disable_requests WHERE status IN ('requested', 'failed')
                 GROUP BY 1, 2, 3) AS each) AS bucket
 GROUP BY campaign_id, day, since;
COMMENT ON VIEW leadloop_monitor.disable_latency IS
    'Latency of opt-outs, in which the person could still be called: from the request to the
vendor''s confirmation, or to the cancellation of the unsent lead. Counted in buckets (those of the view latencies, and 2 h,
6 h, 1 d and 7 d): p50_s, p95_s and worst_s are upper bounds.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.day IS 'Day of the request, UTC.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.requested IS 'Opt-outs requested on that day.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.disabled IS
    'Opt-outs that the vendor confirmed.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.cancelled IS
    'Opt-outs whose lead was not sent, and never will be.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.failed IS
    'Opt-outs that the vendor rejects; they are retried with increasing delays.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.waiting IS
    'Opt-outs not confirmed yet, including failed ones.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.p50_s IS
    'Upper bound of the bucket that contains the median latency of the confirmed ones, seconds;
Infinity: more than 7 days.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.p95_s IS
    'Upper bound of the bucket that contains the 95th percentile, seconds.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.worst_s IS
    'Upper bound of the bucket that contains the maximum, seconds.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.oldest_waiting_s IS
    'Age of the oldest opt-out not confirmed yet, seconds; null if none waits.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.since IS
    'Start of the day: an index finds the sums from a time on.';

-- One pass over the sums of the named period, whose order is that of the primary key.
CREATE OR REPLACE VIEW leadloop_monitor.slowest_opt_outs AS
SELECT CAST(since AT TIME ZONE 'UTC' AS date) AS day, max(p95_s) AS p95_s, since
  FROM (SELECT since, campaign_id,
               min(bucket_s) FILTER (WHERE so_far >= 0.95 * confirmed) AS p95_s
          FROM (SELECT since, campaign_id, CAST(detail AS float8) AS bucket_s,
                       sum(sum(amount)) OVER (PARTITION BY since, campaign_id
                                              ORDER BY CAST(detail AS float8)) AS so_far,
                       sum(sum(amount)) OVER (PARTITION BY since, campaign_id) AS confirmed
                  FROM leadloop.counts_now
                 WHERE kind = 'opt_out' AND span = 'day' AND detail IS NOT NULL
                 GROUP BY since, campaign_id, detail HAVING sum(amount) > 0) AS bucket
         GROUP BY since, campaign_id) AS campaign
 GROUP BY since;
COMMENT ON VIEW leadloop_monitor.slowest_opt_outs IS
    'Latency of opt-outs in the campaign that was slowest on a day: the greatest p95_s of
disable_latency. Reads the sums of all campaigns: name a time from which on.';
COMMENT ON COLUMN leadloop_monitor.slowest_opt_outs.day IS 'Day of the request, UTC.';
COMMENT ON COLUMN leadloop_monitor.slowest_opt_outs.p95_s IS
    'Upper bound of the bucket with the 95th percentile, seconds, in the slowest campaign.';
COMMENT ON COLUMN leadloop_monitor.slowest_opt_outs.since IS
    'Start of the day: an index finds the sums from a time on.';

-- What `leadloop init` has left to do ---------------------------------------------------------------

CREATE OR REPLACE VIEW leadloop_monitor.schema_upgrade AS
SELECT EXISTS (SELECT FROM leadloop.counts_filled) AS is_complete;
COMMENT ON VIEW leadloop_monitor.schema_upgrade IS
    'Whether the last upgrade of the schema is complete: one row.';
COMMENT ON COLUMN leadloop_monitor.schema_upgrade.is_complete IS
    'Whether all rows from before the upgrade are counted. If not, views that read kept sums show too
little: run leadloop init.';

-- Latencies ---------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW leadloop_monitor.latencies AS
SELECT campaign_id, kind, hour, CAST(sum(amount) AS bigint) AS amount,
       min(bucket_s) FILTER (WHERE so_far >= 0.50 * total) AS p50_s,
       min(bucket_s) FILTER (WHERE so_far >= 0.99 * total) AS p99_s,
       max(bucket_s) AS worst_s
  FROM (SELECT campaign_id, kind, hour, bucket_s, sum(amount) AS amount,
               sum(sum(amount)) OVER (PARTITION BY campaign_id, kind, hour ORDER BY bucket_s) AS so_far,
               sum(sum(amount)) OVER (PARTITION BY campaign_id, kind, hour) AS total
          FROM leadloop.latencies
         WHERE isfinite(hour)
         GROUP BY campaign_id, kind, hour, bucket_s) AS bucket
 GROUP BY campaign_id, kind, hour;
COMMENT ON VIEW leadloop_monitor.latencies IS
    'Latencies of leads, opt-outs and outcomes, by the hour of the confirmation. Counted in buckets
(0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900 and 3,600 s): each figure is an upper bound.';
COMMENT ON COLUMN leadloop_monitor.latencies.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.latencies.kind IS
    'lead, urgent lead: from the insert until the vendor is known to hold the lead. opt-out: from the
request until the vendor has confirmed it. outcome: from the vendor''s processing until the outcome
is stored.';
COMMENT ON COLUMN leadloop_monitor.latencies.amount IS 'Number of latencies in that hour.';
COMMENT ON COLUMN leadloop_monitor.latencies.p50_s IS
    'Upper bound of the bucket that contains the median, seconds; Infinity: more than an hour.';
COMMENT ON COLUMN leadloop_monitor.latencies.p99_s IS
    'Upper bound of the bucket that contains the 99th percentile, seconds.';
COMMENT ON COLUMN leadloop_monitor.latencies.worst_s IS
    'Upper bound of the bucket that contains the maximum, seconds.';
COMMENT ON COLUMN leadloop_monitor.latencies.hour IS 'Hour of the confirmation, UTC.';

CREATE OR REPLACE VIEW leadloop_monitor.latencies_now AS
SELECT campaign_id, kind, CAST(sum(amount) AS bigint) AS amount,
       min(bucket_s) FILTER (WHERE so_far >= 0.50 * total) AS p50_s,
       min(bucket_s) FILTER (WHERE so_far >= 0.99 * total) AS p99_s,
       max(bucket_s) AS worst_s
  FROM (SELECT campaign_id, kind, bucket_s, sum(amount) AS amount,
               sum(sum(amount)) OVER (PARTITION BY campaign_id, kind ORDER BY bucket_s) AS so_far,
               sum(sum(amount)) OVER (PARTITION BY campaign_id, kind) AS total
          FROM leadloop.latencies
         WHERE hour >= date_trunc('hour', now() - interval '1 hour', 'UTC')
         GROUP BY campaign_id, kind, bucket_s) AS bucket
 GROUP BY campaign_id, kind;
COMMENT ON VIEW leadloop_monitor.latencies_now IS
    'Latencies of the last hour: of the current hour and the one before it. Each figure is the upper
bound of a bucket, as in the view latencies. No row: nothing was confirmed.';
COMMENT ON COLUMN leadloop_monitor.latencies_now.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.latencies_now.kind IS
    'lead, urgent lead: from the insert until the vendor is known to hold the lead. opt-out: from the
request until the vendor has confirmed it. outcome: from the vendor''s processing until the outcome
is stored.';
COMMENT ON COLUMN leadloop_monitor.latencies_now.amount IS 'Number of latencies in that time.';
COMMENT ON COLUMN leadloop_monitor.latencies_now.p50_s IS
    'Upper bound of the bucket that contains the median, seconds; Infinity: more than an hour.';
COMMENT ON COLUMN leadloop_monitor.latencies_now.p99_s IS
    'Upper bound of the bucket that contains the 99th percentile, seconds.';
COMMENT ON COLUMN leadloop_monitor.latencies_now.worst_s IS
    'Upper bound of the bucket that contains the maximum, seconds.';

CREATE OR REPLACE VIEW leadloop_monitor.latency_totals AS
SELECT campaign_id, kind, bucket_s, amount, total_s
  FROM leadloop.latencies WHERE hour = '-infinity';
COMMENT ON VIEW leadloop_monitor.latency_totals IS
    'Histograms of all latencies since the first one, for counters that never decrease: housekeeping
deletes nothing from them.';
COMMENT ON COLUMN leadloop_monitor.latency_totals.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.latency_totals.kind IS
    'lead, urgent lead, opt-out or outcome, as in the view latencies.';
COMMENT ON COLUMN leadloop_monitor.latency_totals.bucket_s IS
    'Upper bound of the bucket, seconds. Buckets without a latency have no row.';
COMMENT ON COLUMN leadloop_monitor.latency_totals.amount IS
    'Number of latencies in this bucket alone.';
COMMENT ON COLUMN leadloop_monitor.latency_totals.total_s IS 'Their sum, seconds.';

-- Runs, windows, requests -------------------------------------------------------------------------

-- No volatile function: with one, the newest runs would not be found by the index.
CREATE OR REPLACE VIEW leadloop_monitor.run_history AS
SELECT run_id, flow, nullif(campaign_id, '') AS campaign_id, flow_run_id, state, started_at,
       ended_at,
       CAST(extract(epoch FROM coalesce(ended_at, statement_timestamp()) - started_at) AS float8)
           AS duration_s,
       CAST(counts ->> 'requests' AS bigint) AS requests, counts, error, account
  FROM leadloop.sync_runs;
COMMENT ON VIEW leadloop_monitor.run_history IS
    'One row per run of a flow and campaign. A run that names no campaign has a covering row too: it
stands for every campaign of its account that was enabled and in which nothing was due.';
COMMENT ON COLUMN leadloop_monitor.run_history.account IS
    'The campaign''s account when the run began; of a covering row, the account whose campaigns it
stands for.';
COMMENT ON COLUMN leadloop_monitor.run_history.run_id IS
    'leadloop''s id; later runs have greater ids.';
COMMENT ON COLUMN leadloop_monitor.run_history.flow IS 'Name of the Prefect flow.';
COMMENT ON COLUMN leadloop_monitor.run_history.campaign_id IS
    'The vendor''s id of the campaign; null in a covering row.';
COMMENT ON COLUMN leadloop_monitor.run_history.flow_run_id IS 'Prefect''s id of the flow run.';
COMMENT ON COLUMN leadloop_monitor.run_history.state IS
    'running, completed, failed, or crashed: its process ended unexpectedly; a later run found it.';
COMMENT ON COLUMN leadloop_monitor.run_history.started_at IS 'Start of the run.';
COMMENT ON COLUMN leadloop_monitor.run_history.ended_at IS 'End of the run; null while it runs.';
COMMENT ON COLUMN leadloop_monitor.run_history.duration_s IS 'Duration so far, seconds.';
COMMENT ON COLUMN leadloop_monitor.run_history.requests IS 'Number of requests to the vendor.';
COMMENT ON COLUMN leadloop_monitor.run_history.counts IS
    'Counts of the run, with the keys of the command line''s JSON; in a covering row, covered is the
number of campaigns that it stands for.';
COMMENT ON COLUMN leadloop_monitor.run_history.error IS 'Error of a failed run, in one line.';

-- The expressions of an index. A backfill reads the past on purpose: it has no lag.
CREATE OR REPLACE VIEW leadloop_monitor.poll_lags AS
SELECT campaign_id, date_bin('1 hour', polled_at, '2000-01-01 00:00:00+00') AS polled_hour,
       CASE WHEN range_after IS NULL
            THEN date_part('epoch', polled_at - coalesce(closed_through, window_after)) END AS lag_s
  FROM leadloop.poll_windows;
COMMENT ON VIEW leadloop_monitor.poll_lags IS
    'Lag of each polled window. The maximum of an hour (ORDER BY lag_s DESC NULLS LAST LIMIT 1) is
found by an index, however many campaigns were polled.';
COMMENT ON COLUMN leadloop_monitor.poll_lags.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.poll_lags.polled_hour IS 'Hour of the poll, UTC.';
COMMENT ON COLUMN leadloop_monitor.poll_lags.lag_s IS
    'Lag of the poll behind its window, seconds; null for backfills.';

-- Hour by hour, in which as many sums as campaigns fit into memory: not all rows are sorted.
CREATE OR REPLACE VIEW leadloop_monitor.window_stats AS
SELECT stats.campaign_id, polled_hour, stats.windows, stats.owed, stats.pages, stats.results,
       stats.lag_s
  FROM generate_series((SELECT min(polled_hour) FROM leadloop_monitor.poll_lags),
                       (SELECT max(polled_hour) FROM leadloop_monitor.poll_lags),
                       interval '1 hour') AS polled_hour
 CROSS JOIN LATERAL (
       SELECT campaign_id, count(*) AS windows,
              count(*) FILTER (WHERE status = 'incomplete' AND made_good_at IS NULL) AS owed,
              sum(pages) AS pages, sum(stored_count) AS results,
              -- As in poll_lags.
              max(date_part('epoch', polled_at - coalesce(closed_through, window_after)))
                  FILTER (WHERE range_after IS NULL) AS lag_s
         FROM leadloop.poll_windows
        WHERE date_bin('1 hour', polled_at, '2000-01-01 00:00:00+00') = polled_hour
        GROUP BY campaign_id) AS stats;
COMMENT ON VIEW leadloop_monitor.window_stats IS
    'Polled windows and their completeness, by hour of the poll.';
COMMENT ON COLUMN leadloop_monitor.window_stats.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.window_stats.polled_hour IS 'Hour of the poll, UTC.';
COMMENT ON COLUMN leadloop_monitor.window_stats.windows IS 'Number of windows read.';
COMMENT ON COLUMN leadloop_monitor.window_stats.owed IS
    'Incomplete windows (results could not be read, or rows read differ from the vendor''s count) that
no later read has made good.';
COMMENT ON COLUMN leadloop_monitor.window_stats.pages IS 'Number of pages read.';
COMMENT ON COLUMN leadloop_monitor.window_stats.results IS 'Number of distinct results.';
COMMENT ON COLUMN leadloop_monitor.window_stats.lag_s IS
    'Maximum lag of the polls, seconds; null if there were backfills only.';

CREATE OR REPLACE VIEW leadloop_monitor.lateness AS
SELECT bucket.campaign_id, bucket.seen_hour, CAST(sum(bucket.amount) AS bigint) AS outcomes,
       CAST(sum(bucket.late) AS bigint) AS late,
       CASE WHEN sum(bucket.late) > 0
            THEN (SELECT max(outcome.lookback_needed_s) FROM leadloop.lead_outcomes AS outcome
                   WHERE outcome.campaign_id = bucket.campaign_id
                     AND outcome.lookback_needed_s IS NOT NULL
                     AND outcome.seen_at >= bucket.seen_hour
                     AND outcome.seen_at < bucket.seen_hour + interval '1 hour') END
           AS lookback_needed_s,
       min(bucket.bucket_s) FILTER (WHERE bucket.so_far >= 0.50 * bucket.total) AS p50_s,
       min(bucket.bucket_s) FILTER (WHERE bucket.so_far >= 0.95 * bucket.total) AS p95_s
  FROM (SELECT campaign_id, since AS seen_hour, CAST(name AS float8) AS bucket_s,
               sum(amount) AS amount, sum(marked) AS late,
               sum(sum(amount)) OVER (PARTITION BY campaign_id, since
                                      ORDER BY CAST(name AS float8)) AS so_far,
               sum(sum(amount)) OVER (PARTITION BY campaign_id, since) AS total
          FROM leadloop.counts_now WHERE kind = 'delay' AND span = 'hour'
         GROUP BY campaign_id, since, name HAVING sum(amount) > 0) AS bucket
 GROUP BY bucket.campaign_id, bucket.seen_hour;
COMMENT ON VIEW leadloop_monitor.lateness IS
    'Late outcomes, and the delay from processing to storing, by hour of storing, of the last
400 days. Delays are counted
in buckets (those of the view latencies, and 2 h, 6 h, 1 d and 7 d): p50_s and p95_s are upper
bounds.';
COMMENT ON COLUMN leadloop_monitor.lateness.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.lateness.seen_hour IS 'Hour of storing, UTC.';
COMMENT ON COLUMN leadloop_monitor.lateness.outcomes IS 'Number of outcomes stored.';
COMMENT ON COLUMN leadloop_monitor.lateness.late IS
    'Late outcomes: the vendor showed them only after an earlier poll had read their time.';
COMMENT ON COLUMN leadloop_monitor.lateness.lookback_needed_s IS
    'The lookback that would have caught all of them, seconds.';
COMMENT ON COLUMN leadloop_monitor.lateness.p50_s IS
    'Upper bound of the bucket that contains the median delay, seconds; Infinity: more than 7 days.';
COMMENT ON COLUMN leadloop_monitor.lateness.p95_s IS
    'Upper bound of the bucket that contains the 95th percentile of the delay, seconds.';

CREATE OR REPLACE VIEW leadloop_monitor.request_stats AS
SELECT since AS hour, nullif(campaign_id, '') AS campaign_id, name AS flow,
       CAST(sum(amount) AS bigint) AS runs, sum(marked) AS requests, detail AS account
  FROM leadloop.counts_now WHERE kind = 'run' AND span = 'hour'
 GROUP BY since, campaign_id, name, detail HAVING sum(amount) > 0;
COMMENT ON COLUMN leadloop_monitor.request_stats.account IS
    'The account whose rate limit the requests took.';
COMMENT ON VIEW leadloop_monitor.request_stats IS
    'Requests to the vendor, by the hour in which their run started: of the runs that housekeeping has
not deleted (LEADLOOP_KEEP_HISTORY, 90 days by default), and at most of the last 400 days. From sums
that are kept.';
COMMENT ON COLUMN leadloop_monitor.request_stats.hour IS 'Hour of the start of the runs, UTC.';
COMMENT ON COLUMN leadloop_monitor.request_stats.campaign_id IS
    'The vendor''s id of the campaign; null for covering rows (see run_history).';
COMMENT ON COLUMN leadloop_monitor.request_stats.flow IS 'Name of the Prefect flow.';
COMMENT ON COLUMN leadloop_monitor.request_stats.runs IS 'Number of runs.';
COMMENT ON COLUMN leadloop_monitor.request_stats.requests IS 'Number of requests.';

CREATE OR REPLACE VIEW leadloop_monitor.sums AS
SELECT kind, span, since, campaign_id, name,
       CASE kind WHEN 'opt_out' THEN CAST(detail AS float8) END AS bucket_s, amount, marked, cost
  FROM leadloop.counts_now
 WHERE kind IN ('outcome', 'attempt', 'opt_out', 'run')
   AND span IN ('hour', 'day', 'total hour', 'total day');
COMMENT ON VIEW leadloop_monitor.sums IS
    'Sums by hour and by day, of each campaign and of all campaigns together.
Name a kind and a span, and add the rows: the latest changes are separate rows.';
COMMENT ON COLUMN leadloop_monitor.sums.kind IS
    'outcome, attempt, opt_out (confirmed or cancelled) or run.';
COMMENT ON COLUMN leadloop_monitor.sums.span IS
    'hour or day: of one campaign; total hour or total day: of all campaigns together.';
COMMENT ON COLUMN leadloop_monitor.sums.since IS
    'Start of the hour or day, UTC; infinity for attempts without a time. Hours of the last 400
days; of runs, as long as those are kept (LEADLOOP_KEEP_HISTORY).';
COMMENT ON COLUMN leadloop_monitor.sums.campaign_id IS
    'The vendor''s id of the campaign; empty for all campaigns together, and for runs for covering rows
(see run_history).';
COMMENT ON COLUMN leadloop_monitor.sums.name IS
    'Name of the outcome; channel of the attempt; status of the opt-out; flow of the run.';
COMMENT ON COLUMN leadloop_monitor.sums.bucket_s IS
    'Of opt-outs, upper bound of the latency''s bucket, seconds (see disable_latency).';
COMMENT ON COLUMN leadloop_monitor.sums.amount IS 'Number of leads, attempts, opt-outs or runs.';
COMMENT ON COLUMN leadloop_monitor.sums.marked IS
    'Of attempts, those with a duration above zero; of runs, their requests to the vendor; else 0.';
COMMENT ON COLUMN leadloop_monitor.sums.cost IS
    'Cost of outcomes as reported by the vendor, in the vendor''s currency; else null.';

CREATE OR REPLACE VIEW leadloop_monitor.budget_now AS
SELECT count(*) FILTER (WHERE purposes <> '{}') AS slots,
       count(*) FILTER (WHERE purposes <> '{}' AND free_at > clock_timestamp()) AS taken,
       greatest(0, CAST(extract(epoch FROM max(free_at) FILTER (WHERE slot = 0 AND isfinite(free_at))
                                           - clock_timestamp()) AS float8)) AS paused_s,
       account
  -- Before the first run there are no slots.
  FROM (SELECT account FROM leadloop.rate_slots UNION SELECT 'default') AS known
  LEFT JOIN leadloop.rate_slots USING (account)
 GROUP BY account;
COMMENT ON VIEW leadloop_monitor.budget_now IS
    'Current use of the rate limit by every process that uses a vendor account: one row each.';
COMMENT ON COLUMN leadloop_monitor.budget_now.account IS
    'The account; there is always a row for default.';
COMMENT ON COLUMN leadloop_monitor.budget_now.slots IS
    'Slots of the rate limiter. A shared slot allows one request per period, or several under a large
limit; the reserve of urgent leads is one slot.';
COMMENT ON COLUMN leadloop_monitor.budget_now.taken IS 'Slots in use.';
COMMENT ON COLUMN leadloop_monitor.budget_now.paused_s IS
    'Remaining pause that the vendor asked for (Retry-After), seconds; null or 0: no pause.';

-- Health ------------------------------------------------------------------------------------------

-- Every threshold of an alert; the texts of the view problems and the page's charts read them here.
-- Prefect's own alerts have their periods in automations.yaml.
CREATE OR REPLACE VIEW leadloop_monitor.thresholds AS
SELECT interval '15 minutes' AS opt_outs_waiting, interval '1 hour' AS opt_outs_unknown,
       interval '1 hour' AS poll_behind, interval '15 minutes' AS windows_owed,
       interval '1 hour' AS leads_unsent, interval '1 hour' AS leads_in_doubt,
       interval '7 days' AS outcomes_late, interval '1 day' AS run_failed,
       interval '2 hours' AS run_too_long, interval '1 hour' AS nothing_runs,
       interval '7 days' AS results_unreadable, interval '1 day' AS outcomes_unknown,
       interval '1 day' AS leads_rejected, interval '1 day' AS doubts_growing,
       interval '1 minute' AS lead_slow, interval '5 minutes' AS opt_out_slow,
       interval '15 minutes' AS outcome_slow;
COMMENT ON VIEW leadloop_monitor.thresholds IS
    'Thresholds of alerts: one row, one column per problem of the view problems.';
COMMENT ON COLUMN leadloop_monitor.thresholds.opt_outs_waiting IS
    'Age of an opt-out that the vendor has not confirmed.';
COMMENT ON COLUMN leadloop_monitor.thresholds.opt_outs_unknown IS
    'Age of an opt-out that names no known lead.';
COMMENT ON COLUMN leadloop_monitor.thresholds.poll_behind IS
    'Age of the time up to which polls have read.';
COMMENT ON COLUMN leadloop_monitor.thresholds.windows_owed IS
    'Time for which a window has been owed.';
COMMENT ON COLUMN leadloop_monitor.thresholds.results_unreadable IS
    'Period for which a result that could not be parsed stays a problem after it was last read.';
COMMENT ON COLUMN leadloop_monitor.thresholds.outcomes_unknown IS
    'Period in which none of the new outcomes belongs to a known lead.';
COMMENT ON COLUMN leadloop_monitor.thresholds.leads_rejected IS
    'Period in which the last pushes rejected more leads than they created.';
COMMENT ON COLUMN leadloop_monitor.thresholds.doubts_growing IS
    'Period in which each of the last three pushes left more leads in doubt than the one before.';
COMMENT ON COLUMN leadloop_monitor.thresholds.lead_slow IS
    '99th percentile of the latency of urgent leads in the last hour.';
COMMENT ON COLUMN leadloop_monitor.thresholds.opt_out_slow IS
    '99th percentile of the latency of opt-outs in the last hour.';
COMMENT ON COLUMN leadloop_monitor.thresholds.outcome_slow IS
    '99th percentile of the latency of outcomes in the last hour.';
COMMENT ON COLUMN leadloop_monitor.thresholds.leads_unsent IS 'Age of a new lead.';
COMMENT ON COLUMN leadloop_monitor.thresholds.leads_in_doubt IS
    'Time that a lead has been in doubt.';
COMMENT ON COLUMN leadloop_monitor.thresholds.outcomes_late IS
    'Period for which an outcome that came too late for the lookback stays a problem.';
COMMENT ON COLUMN leadloop_monitor.thresholds.run_failed IS
    'Period for which a failed run of an unscheduled flow stays a problem.';
COMMENT ON COLUMN leadloop_monitor.thresholds.run_too_long IS
    'Duration of a run that has not ended.';
COMMENT ON COLUMN leadloop_monitor.thresholds.nothing_runs IS
    'Time since the last run of a campaign ended.';

-- The macro THRESHOLD(name): the campaign's own threshold, else the general one.
CREATE OR REPLACE VIEW leadloop_monitor.campaign_thresholds AS
SELECT campaign.campaign_id,
       THRESHOLD(opt_outs_waiting),
       THRESHOLD(opt_outs_unknown),
       THRESHOLD(poll_behind),
       THRESHOLD(windows_owed),
       THRESHOLD(leads_unsent),
       THRESHOLD(leads_in_doubt),
       THRESHOLD(outcomes_late),
       THRESHOLD(run_failed),
       THRESHOLD(run_too_long),
       THRESHOLD(nothing_runs),
       THRESHOLD(results_unreadable),
       THRESHOLD(outcomes_unknown),
       THRESHOLD(leads_rejected),
       THRESHOLD(doubts_growing),
       THRESHOLD(lead_slow),
       THRESHOLD(opt_out_slow),
       THRESHOLD(outcome_slow)
  FROM leadloop.campaigns AS campaign CROSS JOIN leadloop_monitor.thresholds AS general;
COMMENT ON VIEW leadloop_monitor.campaign_thresholds IS
    'Thresholds of alerts in force for each campaign: its own (campaigns.thresholds), else those of
the view thresholds.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.opt_outs_waiting IS
    'Age of an opt-out that the vendor has not confirmed.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.opt_outs_unknown IS
    'Age of an opt-out that names no known lead.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.poll_behind IS
    'Age of the time up to which polls have read.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.windows_owed IS
    'Time for which a window has been owed.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.leads_unsent IS 'Age of a new lead.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.leads_in_doubt IS
    'Time that a lead has been in doubt.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.outcomes_late IS
    'Period for which an outcome that came too late for the lookback stays a problem.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.run_failed IS
    'Period for which a failed run of an unscheduled flow stays a problem.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.run_too_long IS
    'Duration of a run that has not ended.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.nothing_runs IS
    'Time since the last run of a campaign ended.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.results_unreadable IS
    'Period for which a result that could not be parsed stays a problem after it was last read.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.outcomes_unknown IS
    'Period in which none of the new outcomes belongs to a known lead.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.leads_rejected IS
    'Period in which the last pushes rejected more leads than they created.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.doubts_growing IS
    'Period in which each of the last three pushes left more leads in doubt than the one before.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.lead_slow IS
    '99th percentile of the latency of urgent leads in the last hour.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.opt_out_slow IS
    '99th percentile of the latency of opt-outs in the last hour.';
COMMENT ON COLUMN leadloop_monitor.campaign_thresholds.outcome_slow IS
    '99th percentile of the latency of outcomes in the last hour.';

-- A condition on campaign_id reaches each rule, so that one campaign's problems cost no more than it
-- has rows: a rule is read once and calls no volatile function (statement_timestamp() is stable).
CREATE OR REPLACE VIEW leadloop_monitor.problems AS
WITH RECURSIVE threshold AS NOT MATERIALIZED (
    SELECT * FROM leadloop_monitor.campaign_thresholds
), at_work (campaign_id) AS (
    -- A loose index scan: from each campaign with waiting rows to the next, by the partial indexes.
    SELECT ''
    UNION ALL
    SELECT least((SELECT min(lead.campaign_id) FROM leadloop.leads AS lead
                   WHERE lead.status = 'new' AND lead.campaign_id > at_work.campaign_id),
                 (SELECT min(lead.campaign_id) FROM leadloop.leads AS lead
                   WHERE lead.status IN ('sending', 'in_doubt')
                     AND lead.campaign_id > at_work.campaign_id),
                 (SELECT min(request.campaign_id) FROM leadloop.disable_requests AS request
                   WHERE request.status IN ('requested', 'failed')
                     AND request.campaign_id > at_work.campaign_id))
      FROM at_work WHERE campaign_id IS NOT NULL
), unknown_campaigns AS (
    SELECT at_work.campaign_id, waiting.amount, waiting.since
      FROM at_work CROSS JOIN LATERAL (
           SELECT count(*) AS amount, min(each.since) AS since
             FROM (SELECT inserted_at AS since FROM leadloop.leads
                    WHERE campaign_id = at_work.campaign_id AND status = 'new'
                   UNION ALL
                   SELECT inserted_at FROM leadloop.leads
                    WHERE campaign_id = at_work.campaign_id AND status IN ('sending', 'in_doubt')
                   UNION ALL
                   SELECT least(requested_at, statement_timestamp()) FROM leadloop.disable_requests
                    WHERE campaign_id = at_work.campaign_id AND status IN ('requested', 'failed')
                  ) AS each) AS waiting
     WHERE at_work.campaign_id <> ''
       AND NOT EXISTS (SELECT FROM leadloop.campaigns AS campaign
                        WHERE campaign.campaign_id = at_work.campaign_id)
), running AS NOT MATERIALIZED (
    SELECT enabled_at, account, threshold.* FROM leadloop.campaigns JOIN threshold USING (campaign_id)
     WHERE enabled
), opt_outs AS NOT MATERIALIZED (
    SELECT campaign_id, status, count(*) AS amount,
           min(least(requested_at, statement_timestamp())) AS since,
           array_to_string((array_agg(lead_id ORDER BY requested_at, lead_id))[1:3], ', ') AS sample,
           min(opt_outs_waiting) AS allowed
      FROM leadloop.disable_requests JOIN threshold USING (campaign_id)
     WHERE status IN ('requested', 'failed')
       -- A request dated in the future is reported too: its true age is unknown.
       AND requested_at NOT BETWEEN statement_timestamp() - opt_outs_waiting
                                AND statement_timestamp() + opt_outs_waiting
     GROUP BY campaign_id, status
), opt_outs_without_lead AS (
    -- They are allowed: the vendor may hold leads that we lack, and an opt-out may come before its
    -- lead. Scalar subqueries: few such opt-outs, many leads.
    SELECT request.campaign_id, request.lead_id, request.requested_at, meant.lead_id AS meant_id
      FROM leadloop.disable_requests AS request
     CROSS JOIN LATERAL (
           -- Leads whose ids differ only in case, blanks or invisible characters.
           SELECT min(lead.lead_id) FILTER (WHERE NOT lead.opted_out) AS lead_id,
                  bool_and(lead.opted_out) AS is_settled
             FROM (SELECT lead_id, opted_out FROM leadloop.leads
                    WHERE campaign_id = request.campaign_id AND lead_id = FOLDED(request.lead_id)
                   UNION ALL
                   SELECT lead_id, opted_out FROM leadloop.leads AS other
                    WHERE campaign_id = request.campaign_id AND lead_id <> FOLDED(other.lead_id)
                      AND FOLDED(other.lead_id) = FOLDED(request.lead_id)
                   UNION ALL
                   SELECT lead_id, (SELECT true FROM leadloop.disable_requests AS theirs
                                     WHERE theirs.campaign_id = sent.campaign_id
                                       AND theirs.lead_id = sent.lead_id) IS TRUE
                     FROM leadloop.sent_leads AS sent
                    WHERE campaign_id = request.campaign_id AND lead_id = FOLDED(request.lead_id)
                   UNION ALL
                   SELECT lead_id, (SELECT true FROM leadloop.disable_requests AS theirs
                                     WHERE theirs.campaign_id = sent.campaign_id
                                       AND theirs.lead_id = sent.lead_id) IS TRUE
                     FROM leadloop.sent_leads AS sent
                    WHERE campaign_id = request.campaign_id AND lead_id <> FOLDED(sent.lead_id)
                      AND FOLDED(sent.lead_id) = FOLDED(request.lead_id)) AS lead) AS meant
     WHERE request.names_no_lead AND meant.is_settled IS NOT TRUE
       AND (SELECT lead.lead_id FROM leadloop.leads AS lead
             WHERE lead.campaign_id = request.campaign_id
               AND lead.lead_id = request.lead_id) IS NULL
       AND (SELECT sent.lead_id FROM leadloop.sent_leads AS sent
             WHERE sent.campaign_id = request.campaign_id
               AND sent.lead_id = request.lead_id) IS NULL
       AND (SELECT outcome.lead_id FROM leadloop.lead_outcomes AS outcome
             WHERE outcome.campaign_id = request.campaign_id
               AND outcome.lead_id = request.lead_id) IS NULL
), unmatched AS (
    -- Those that mean another lead, and those that name none for long.
    SELECT campaign_id, meant_id IS NOT NULL AS is_misspelt, count(*) AS amount,
           min(least(requested_at, statement_timestamp())) AS since, min(meant_id) AS meant_id,
           array_to_string((array_agg(lead_id ORDER BY requested_at, lead_id))[1:3], ', ') AS sample,
           min(opt_outs_unknown) AS allowed
      FROM opt_outs_without_lead JOIN threshold USING (campaign_id)
     WHERE meant_id IS NOT NULL OR requested_at < statement_timestamp() - opt_outs_unknown
     GROUP BY campaign_id, meant_id IS NOT NULL
), opt_out_reads AS NOT MATERIALIZED (
    SELECT read.*
      FROM leadloop.opt_out_source_reads AS read
      JOIN leadloop.campaigns AS campaign USING (campaign_id)
     WHERE campaign.opt_out_source IS NOT NULL
), refused_opt_outs AS (
    SELECT campaign_id, count(*) AS amount, min(read_at) AS since,
           mode() WITHIN GROUP (ORDER BY reason) AS reason
      FROM leadloop.opt_out_source_rows WHERE reason IS NOT NULL GROUP BY campaign_id
), holds AS (
    SELECT campaign_id, held_at AS since, reason FROM leadloop.create_holds
     WHERE released_at IS NULL
), unsent AS (
    SELECT campaign_id, count(*) AS amount, min(inserted_at) AS since,
           min(leads_unsent) AS allowed
      FROM leadloop.leads JOIN threshold USING (campaign_id)
     WHERE status = 'new' AND campaign_id NOT IN (SELECT campaign_id FROM holds)
       AND inserted_at < statement_timestamp() - leads_unsent
     GROUP BY campaign_id
), doubts AS (
    SELECT campaign_id, count(*) AS amount, min(coalesce(doubted_at, sent_at)) AS since,
           min(leads_in_doubt) AS allowed
      FROM leadloop.leads JOIN threshold USING (campaign_id)
     WHERE status = 'in_doubt'
       AND coalesce(doubted_at, sent_at) < statement_timestamp() - leads_in_doubt
     GROUP BY campaign_id
), polled AS (
    -- An owed window holds the watermark, but not the polls; it is a separate problem.
    -- Without a watermark, outcomes may be missing since the first push that created leads.
    SELECT running.campaign_id, running.poll_behind,
           mark.processed_through IS NULL AS never,
           coalesce(greatest(mark.read_through, mark.processed_through),
                    (SELECT run.ended_at FROM leadloop.sync_runs AS run
                      WHERE run.campaign_id = running.campaign_id AND run.flow = 'push-leads'
                        AND CAST(run.counts ->> 'created' AS bigint) > 0
                      ORDER BY run.run_id LIMIT 1)) AS through
      FROM running
      LEFT JOIN leadloop.watermarks AS mark
             ON mark.campaign_id = running.campaign_id AND mark.stream = 'outcomes'
), owed AS (
    -- The next polls read owed windows again: only those that stay owed are a problem.
    SELECT campaign_id, count(*) AS amount, min(found_at) AS since,
           mode() WITHIN GROUP (ORDER BY reason) AS reason
      FROM leadloop.owed_windows JOIN threshold USING (campaign_id)
     WHERE accepted_at IS NULL AND found_at < statement_timestamp() - threshold.windows_owed
     GROUP BY campaign_id
), unreadable AS (
    SELECT campaign_id, CAST(sum(amount) AS bigint) AS amount, min(since) AS since,
           (array_agg(reason ORDER BY amount DESC, reason))[1] AS reason, min(period) AS period
      FROM (SELECT campaign_id, reason, sum(occurrences) AS amount, min(seen_at) AS since,
                   min(results_unreadable) AS period
              FROM leadloop.unreadable_results JOIN threshold USING (campaign_id)
             WHERE seen_at > now() - results_unreadable
             GROUP BY campaign_id, reason) AS each
     GROUP BY campaign_id
), misnamed AS (
    -- Campaigns whose newest outcomes, at most 10,000, all belong to no known lead, while a sent lead
    -- waits for its outcome. The search ends at the first outcome that belongs to a lead: mostly the
    -- newest. Scalar subqueries: few outcomes, many leads.
    SELECT campaign.campaign_id, recent.amount, recent.since, recent.sample
      FROM threshold AS campaign CROSS JOIN LATERAL (
           SELECT outcome.first_seen_at FROM leadloop.lead_outcomes AS outcome
            WHERE outcome.campaign_id = campaign.campaign_id
              AND outcome.first_seen_at > statement_timestamp() - campaign.outcomes_unknown
            ORDER BY outcome.first_seen_at DESC LIMIT 1) AS newest
     CROSS JOIN LATERAL (
           SELECT count(*) AS amount, min(each.first_seen_at) AS since,
                  array_to_string((array_agg(each.lead_id ORDER BY each.first_seen_at,
                                                                   each.lead_id))[1:3], ', ')
                      AS sample
             FROM (SELECT outcome.lead_id, outcome.first_seen_at
                     FROM leadloop.lead_outcomes AS outcome
                    WHERE outcome.campaign_id = campaign.campaign_id
                      AND outcome.first_seen_at
                          > statement_timestamp() - campaign.outcomes_unknown
                    ORDER BY outcome.first_seen_at DESC LIMIT 10000) AS each) AS recent
     CROSS JOIN LATERAL (
           -- Named by `recent`, so that only the leads of these campaigns are searched. ORDER BY:
           -- the first lead that waits is found in the order of the primary keys.
           SELECT WHERE recent.amount > 0 AND (
                  (SELECT lead.lead_id FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = campaign.campaign_id AND lead.status = 'created'
                      AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                                       WHERE outcome.campaign_id = lead.campaign_id
                                         AND outcome.lead_id = lead.lead_id)
                    ORDER BY lead.lead_id LIMIT 1) IS NOT NULL
                  OR (SELECT sent.lead_id FROM leadloop.sent_leads AS sent
                       WHERE sent.campaign_id = campaign.campaign_id AND sent.status = 'created'
                         AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                                          WHERE outcome.campaign_id = sent.campaign_id
                                            AND outcome.lead_id = sent.lead_id)
                       ORDER BY sent.lead_id LIMIT 1) IS NOT NULL) LIMIT 1) AS waiting
     WHERE NOT EXISTS (
           SELECT FROM (SELECT outcome.lead_id FROM leadloop.lead_outcomes AS outcome
                         WHERE outcome.campaign_id = campaign.campaign_id
                           -- Names `newest`: most campaigns have none, and are not searched.
                           AND outcome.first_seen_at <= newest.first_seen_at
                           AND outcome.first_seen_at
                               > statement_timestamp() - campaign.outcomes_unknown
                         ORDER BY outcome.first_seen_at DESC LIMIT 10000) AS recent
            WHERE (SELECT lead.lead_id FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = campaign.campaign_id
                      AND lead.lead_id = recent.lead_id) IS NOT NULL
               OR (SELECT sent.lead_id FROM leadloop.sent_leads AS sent
                    WHERE sent.campaign_id = campaign.campaign_id
                      AND sent.lead_id = recent.lead_id) IS NOT NULL)
), late AS (
    SELECT campaign.campaign_id, threshold.outcomes_late, found.*
      FROM leadloop.campaigns AS campaign JOIN threshold USING (campaign_id)
     CROSS JOIN LATERAL (
           -- Few campaigns: the lookback of the others is not searched for.
           SELECT outcome.campaign_id FROM leadloop.lead_outcomes AS outcome
            WHERE outcome.campaign_id = campaign.campaign_id
              AND outcome.lookback_needed_s IS NOT NULL
              AND outcome.seen_at > statement_timestamp() - threshold.outcomes_late
            LIMIT 1) AS recent
     CROSS JOIN LATERAL (
           -- The lookback in force: the campaign's override, or the setting recorded by the last
           -- poll, of the campaign or of all. LIMIT: evaluated once, not for each outcome.
           SELECT coalesce(campaign.lookback_s,
                           (SELECT each.lookback_s
                              FROM unnest(ARRAY[recent.campaign_id, '']) AS owner (id)
                             CROSS JOIN LATERAL (
                                   SELECT run.run_id,
                                          CAST(run.counts ->> 'lookback_s' AS integer)
                                              AS lookback_s
                                     FROM leadloop.sync_runs AS run
                                    WHERE run.campaign_id = owner.id
                                      AND run.flow = 'poll-outcomes'
                                      AND run.counts ->> 'lookback_s' IS NOT NULL
                                    ORDER BY run.run_id DESC LIMIT 1) AS each
                             ORDER BY each.run_id DESC LIMIT 1),
                           900) AS seconds LIMIT 1) AS lookback
     CROSS JOIN LATERAL (
           SELECT count(*) AS amount, min(outcome.seen_at) AS since,
                  ceil(max(outcome.lookback_needed_s)) AS needed_s,
                  date_trunc('second', min(outcome.processed_at)) AS after,
                  date_trunc('second', max(outcome.seen_at)) + interval '1 second' AS before
             FROM leadloop.lead_outcomes AS outcome
            WHERE outcome.campaign_id = recent.campaign_id
              AND outcome.lookback_needed_s IS NOT NULL
              AND outcome.lookback_needed_s > lookback.seconds
              AND outcome.seen_at > statement_timestamp() - threshold.outcomes_late
           HAVING count(*) > 0) AS found
), pushes AS (
    -- The last pushes that ended, a bounded number however often they run, of the campaigns whose
    -- last failing push may still be a problem. Pushes reject more leads than they create only
    -- if one of them does.
    SELECT running.campaign_id, running.doubts_growing, last.*
      FROM running CROSS JOIN LATERAL (
           SELECT run.started_at, run.counts FROM leadloop.sync_runs AS run
            WHERE run.campaign_id = running.campaign_id AND run.flow = 'push-leads'
              AND (CAST(run.counts ->> 'rejected' AS bigint)
                       > coalesce(CAST(run.counts ->> 'created' AS bigint), 0)
                   OR CAST(run.counts ->> 'in_doubt' AS bigint) > 0
                   OR CAST(run.counts ->> 'unreadable_rows' AS bigint) > 0)
            ORDER BY run.run_id DESC LIMIT 1) AS troubled
     CROSS JOIN LATERAL (
           SELECT sum(rejected) FILTER (WHERE is_recent) AS rejected,
                  sum(created) FILTER (WHERE is_recent) AS created,
                  min(started_at) FILTER (WHERE is_recent) AS recent_since,
                  -- The newest one is the first.
                  array_agg(in_doubt ORDER BY run_id DESC) AS in_doubt,
                  array_agg(started_at ORDER BY run_id DESC) AS started_at,
                  array_agg(unreadable_rows ORDER BY run_id DESC) AS unreadable_rows
             FROM (SELECT run.run_id, run.started_at,
                          run.started_at > statement_timestamp()
                                           - running.leads_rejected AS is_recent,
                          coalesce(CAST(run.counts ->> 'created' AS bigint), 0) AS created,
                          coalesce(CAST(run.counts ->> 'rejected' AS bigint), 0) AS rejected,
                          coalesce(CAST(run.counts ->> 'in_doubt' AS bigint), 0) AS in_doubt,
                          coalesce(CAST(run.counts ->> 'unreadable_rows' AS bigint), 0)
                              AS unreadable_rows
                     FROM leadloop.sync_runs AS run
                    WHERE run.campaign_id = running.campaign_id AND run.flow = 'push-leads'
                      AND run.state <> 'running'
                    ORDER BY run.run_id DESC LIMIT 60) AS push) AS last
     WHERE troubled.started_at > statement_timestamp()
                                 - greatest(running.leads_rejected, running.doubts_growing)
        OR CAST(troubled.counts ->> 'unreadable_rows' AS bigint) > 0
), limits (kind, problem, what) AS (
    -- Leads that are not urgent wait behind files: no rule for their latency.
    VALUES ('urgent lead', 'lead_slow', 'urgent leads'), ('opt-out', 'opt_out_slow', 'opt-outs'),
           ('outcome', 'outcome_slow', 'outcomes')
), slow AS (
    -- The thresholds are bounds of buckets. Of few latencies one slow one shows nothing.
    SELECT campaign_id, problem, what, threshold, sum(amount) AS all_amount,
           sum(amount) FILTER (WHERE bucket_s > extract(epoch FROM threshold)) AS amount,
           min(hour) FILTER (WHERE bucket_s > extract(epoch FROM threshold)) AS since
      FROM (SELECT campaign_id, kind, hour, bucket_s, amount,
                   CASE kind WHEN 'urgent lead' THEN lead_slow WHEN 'opt-out' THEN opt_out_slow
                             ELSE outcome_slow END AS threshold
              FROM leadloop.latencies JOIN threshold USING (campaign_id)
             WHERE hour >= date_trunc('hour', now() - interval '1 hour', 'UTC')) AS latency
      JOIN limits USING (kind)
     GROUP BY campaign_id, problem, what, threshold
    HAVING sum(amount) >= 5
), flows (flow, again, others) AS (
    -- again: a schedule repeats the flow; others: flows that do the same work, or a part of it.
    VALUES ('push-leads', true, ARRAY['sync-leads']),
           ('poll-outcomes', true, ARRAY['sync-leads']),
           ('disable-leads', true, ARRAY['sync-leads']),
           ('sync-leads', false, ARRAY['push-leads', 'poll-outcomes', 'disable-leads']),
           ('housekeeping', true, '{}'),
           ('backfill-outcomes', false, '{}'),
           ('audit-leads', false, '{}')
), served (account) AS (
    -- A loose index scan: the accounts that have covering rows, few among many campaigns and runs.
    SELECT (SELECT min(account) FROM leadloop.sync_runs WHERE campaign_id = '')
    UNION ALL
    SELECT (SELECT min(run.account) FROM leadloop.sync_runs AS run
             WHERE run.campaign_id = '' AND run.account > served.account)
      FROM served WHERE account IS NOT NULL
), covering AS MATERIALIZED (
    -- The newest completed covering rows of each flow and account. Such a row stands for a campaign
    -- of its account that was enabled when it began, and has no row of the same flow run (with the
    -- same lock).
    SELECT flows.flow, flows.others, served.account, run.run_id, run.lock_id, run.started_at,
           run.ended_at
      FROM flows CROSS JOIN served
     CROSS JOIN LATERAL (
           SELECT run_id, coalesce(lock_id, run_id) AS lock_id, started_at, ended_at
             FROM leadloop.sync_runs
            WHERE campaign_id = '' AND sync_runs.account = served.account
              AND sync_runs.flow = flows.flow AND state = 'completed'
            ORDER BY run_id DESC LIMIT 20) AS run
), failures AS (
    -- The last run that failed, of each flow; one look finds that a campaign has none.
    SELECT running.campaign_id, running.enabled_at, running.account, running.run_failed,
           flows.flow, flows.again,
           flows.others,
           last.run_id, last.state, last.error,
           coalesce(last.ended_at, last.started_at) AS ended_at
      FROM running
     CROSS JOIN LATERAL (
           SELECT run.campaign_id FROM leadloop.sync_runs AS run
            WHERE run.campaign_id = running.campaign_id AND run.state IN ('failed', 'crashed')
            ORDER BY run.flow, run.run_id DESC LIMIT 1) AS failing
     CROSS JOIN flows CROSS JOIN LATERAL (
           SELECT run.run_id, run.state, run.started_at, run.ended_at, run.error
             FROM leadloop.sync_runs AS run
            WHERE run.campaign_id = failing.campaign_id AND run.flow = flows.flow
              AND run.state IN ('failed', 'crashed')
            ORDER BY run.run_id DESC LIMIT 1) AS last
), failed AS (
    -- Unless the flow has ended since, or one that does the same work has completed since.
    SELECT run.campaign_id, run.flow, run.state, run.error, run.ended_at
      FROM failures AS run
     WHERE (run.again
            OR run.ended_at > statement_timestamp() - run.run_failed)
       AND (SELECT later.run_id FROM leadloop.sync_runs AS later
             WHERE later.campaign_id = run.campaign_id AND later.flow = run.flow
               AND later.run_id > run.run_id AND later.state <> 'running'
             ORDER BY later.run_id DESC LIMIT 1) IS NULL
       AND NOT EXISTS (SELECT FROM unnest(run.others) AS other (flow) CROSS JOIN LATERAL (
                              SELECT last.run_id, last.state FROM leadloop.sync_runs AS last
                               WHERE last.campaign_id = run.campaign_id
                                 AND last.flow = other.flow AND last.state <> 'running'
                               ORDER BY last.run_id DESC LIMIT 1) AS later
                        WHERE later.run_id > run.run_id AND later.state = 'completed')
       AND NOT EXISTS (SELECT FROM covering
                        WHERE (covering.flow = run.flow OR covering.flow = ANY(run.others))
                          AND covering.account = run.account
                          AND covering.run_id > run.run_id
                          AND covering.started_at >= run.enabled_at
                          AND NOT EXISTS (SELECT FROM leadloop.sync_runs AS own
                                           WHERE own.campaign_id = run.campaign_id
                                             AND own.flow = covering.flow
                                             AND own.run_id > covering.run_id
                                             AND own.lock_id = covering.lock_id))
), too_long AS (
    SELECT campaign_id, flow, count(*) AS amount, min(started_at) AS since,
           min(run_too_long) AS allowed
      FROM leadloop.sync_runs JOIN threshold USING (campaign_id)
     WHERE state = 'running' AND started_at < statement_timestamp() - run_too_long
     GROUP BY campaign_id, flow
), idle AS (
    -- Of the campaigns for which no covering row shows that runs come.
    SELECT running.campaign_id, running.nothing_runs,
           greatest((SELECT max(coalesce(last.ended_at, last.started_at))
                       FROM flows CROSS JOIN LATERAL (
                            SELECT run.started_at, run.ended_at FROM leadloop.sync_runs AS run
                             WHERE run.campaign_id = running.campaign_id AND run.flow = flows.flow
                               AND run.state <> 'running'
                             ORDER BY run.run_id DESC LIMIT 1) AS last
                      WHERE flows.others <> '{}'),
                    (SELECT max(covering.ended_at) FROM covering
                      WHERE covering.others <> '{}' AND covering.account = running.account
                        AND covering.started_at >= running.enabled_at)) AS since
      FROM running
     WHERE NOT EXISTS (SELECT FROM covering
                        WHERE covering.others <> '{}' AND covering.account = running.account
                          AND covering.started_at >= running.enabled_at
                          AND covering.ended_at
                              >= statement_timestamp() - running.nothing_runs)
       AND NOT EXISTS (SELECT FROM leadloop.sync_runs AS run JOIN flows USING (flow)
                        WHERE run.state = 'running' AND run.campaign_id = running.campaign_id
                          AND flows.others <> '{}')
       -- One look at the newest runs, instead of one for each flow.
       AND (SELECT run.run_id FROM leadloop.sync_runs AS run
             WHERE run.campaign_id = running.campaign_id AND run.state <> 'running'
               AND run.started_at >= statement_timestamp() - running.nothing_runs
               AND coalesce(run.ended_at, run.started_at)
                   >= statement_timestamp() - running.nothing_runs
               AND run.flow IN (SELECT flow FROM flows WHERE others <> '{}')
             ORDER BY run.started_at DESC LIMIT 1) IS NULL
), found AS (
    SELECT campaign_id, 'critical' AS severity, 'opt_outs_waiting' AS problem, amount, since,
           CASE amount WHEN 1 THEN '1 opt-out has' ELSE amount || ' opt-outs have' END
               || ' waited for more than ' || MINUTES(allowed) AS said,
           'leadloop disable --campaign {campaign}' AS command
      FROM opt_outs WHERE status = 'requested'
    UNION ALL
    SELECT campaign_id, 'critical', 'opt_outs_failed', amount, since,
           'the vendor does not confirm '
               || CASE amount WHEN 1 THEN '1 opt-out' ELSE amount || ' opt-outs' END
               || ', retried at least daily: ' || sample,
           'leadloop requeue --disables --campaign {campaign}'
      FROM opt_outs WHERE status = 'failed'
    UNION ALL
    SELECT campaign_id, rule.severity, rule.problem, amount, since, rule.said, rule.command
      FROM unmatched CROSS JOIN LATERAL (
           SELECT 'critical' AS severity, 'opt_outs_misspelt' AS problem,
                  CASE amount WHEN 1 THEN '1 opt-out names' ELSE amount || ' opt-outs name' END
                      || ' no lead; a lead whose id differs only in case, blanks or invisible'
                      || ' characters is not opted out: INSERT INTO leadloop.disable_requests'
                      || ' (campaign_id, lead_id) VALUES (' || quote_literal(campaign_id) || ', '
                      || quote_literal(meant_id) || ')' AS said,
                  'leadloop disable --campaign {campaign}' AS command
            WHERE is_misspelt
           UNION ALL
           SELECT 'warning', 'opt_outs_unknown',
                  CASE amount WHEN 1 THEN '1 opt-out has' ELSE amount || ' opt-outs have' END
                      || ' named no known lead for more than '
                      || MINUTES(allowed) || '; check the id and the campaign: ' || sample,
                  'leadloop audit --campaign {campaign}'
            WHERE NOT is_misspelt) AS rule
    UNION ALL
    SELECT campaign_id, 'critical', 'opt_outs_unread', 1, failed_at,
           'no lead is sent, because people may have opted out unnoticed: ' || error,
           'leadloop doctor'
      FROM opt_out_reads JOIN threshold USING (campaign_id)
     WHERE failed_at < statement_timestamp() - opt_outs_waiting
    UNION ALL
    SELECT campaign_id, 'critical', 'opt_outs_unreadable', amount, since,
           CASE amount WHEN 1 THEN '1 row' ELSE amount || ' rows' END
               || ' of the campaign''s opt-out source cannot be read, so these people may be called;'
               || ' the log of each disable has the reasons' || coalesce(': ' || reason, ''),
           'leadloop disable --campaign {campaign}'
      FROM (SELECT read.campaign_id, read.unreadable + coalesce(refused.amount, 0) AS amount,
                   coalesce(refused.since, read.read_at) AS since, refused.reason
              FROM opt_out_reads AS read LEFT JOIN refused_opt_outs AS refused USING (campaign_id)
           ) AS each
     WHERE amount > 0
    UNION ALL
    SELECT campaign_id, 'critical', 'removals_held', held.amount, held.held_at,
           CASE held.amount WHEN 1 THEN '1 lead was sent, and its row has'
                            ELSE held.amount || ' leads were sent, and their rows have' END
               || ' left the campaign''s source: too many to opt out without a person',
           'leadloop opt-out --left-source --campaign {campaign}'
      FROM leadloop.held_removals AS held JOIN leadloop.campaigns AS campaign USING (campaign_id)
     WHERE campaign.on_source_removal = 'opt_out' AND campaign.source IS NOT NULL
    UNION ALL
    SELECT campaign_id, 'critical', 'creates_held', 1, since,
           'no lead is created, because the database may have forgotten sent leads: ' || reason,
           'leadloop audit --repair --campaign {campaign}'
      FROM holds JOIN running USING (campaign_id)
    UNION ALL
    SELECT campaign_id, 'critical', 'poll_behind', 1, through,
           CASE WHEN never THEN 'leads were sent, but outcomes were never polled'
                ELSE 'polls are more than ' || MINUTES(poll_behind)
                     || ' behind: outcomes may be missing' END,
           'leadloop poll --campaign {campaign}'
      FROM polled
     WHERE through < statement_timestamp() - polled.poll_behind
    UNION ALL
    SELECT campaign_id, 'critical', 'windows_owed', amount, since,
           CASE amount WHEN 1 THEN '1 window' ELSE amount || ' windows' END
               || ' could not be read completely, so outcomes may be missing; polls try again: '
               || reason,
           'leadloop owed --campaign {campaign}'
      FROM owed
    UNION ALL
    SELECT campaign_id, 'warning', 'results_unreadable', amount, since,
           CASE amount WHEN 1 THEN '1 result' ELSE amount || ' results' END
               || ' of the last ' || DAYS(period)
               || ' could not be read, so outcomes may be missing (kept in'
               || ' leadloop.unreadable_results): ' || reason,
           'leadloop audit --campaign {campaign}'
      FROM unreadable
    UNION ALL
    SELECT campaign_id, 'warning', 'outcomes_unknown', amount, since,
           CASE amount WHEN 1 THEN '1 new outcome belongs'
                       ELSE amount || ' new outcomes belong' END
               || ' to no known lead, and no other came, while sent leads wait for theirs: the'
               || ' vendor may write lead ids differently: ' || sample,
           'leadloop audit --campaign {campaign}'
      FROM misnamed
    UNION ALL
    SELECT campaign_id, 'warning', 'leads_unsent', amount, since,
           CASE amount WHEN 1 THEN '1 lead has' ELSE amount || ' leads have' END
               || ' waited for more than ' || MINUTES(allowed) || ' to be sent'
               || CASE WHEN campaign.push_enabled THEN '' ELSE '; the campaign is paused' END,
           CASE WHEN campaign.push_enabled THEN 'leadloop push' ELSE 'leadloop resume' END
               || ' --campaign {campaign}'
      FROM unsent JOIN running USING (campaign_id)
      JOIN leadloop.campaigns AS campaign USING (campaign_id)
    UNION ALL
    SELECT campaign_id, 'warning', 'leads_in_doubt', amount, since,
           CASE amount WHEN 1 THEN '1 lead has' ELSE amount || ' leads have' END
               || ' been in doubt for more than ' || MINUTES(allowed)
               || ': the vendor may or may not hold '
               || CASE amount WHEN 1 THEN 'it' ELSE 'them' END,
           'leadloop audit --repair --campaign {campaign}'
      FROM doubts
    UNION ALL
    SELECT campaign_id, rule.severity, rule.problem, rule.amount, rule.since, rule.said,
           rule.command
      FROM pushes CROSS JOIN LATERAL (
           SELECT 'warning' AS severity, 'doubts_growing' AS problem, in_doubt[1] AS amount,
                  started_at[3] AS since,
                  'each of the last three pushes left more leads in doubt: ' || in_doubt[3] || ', '
                      || in_doubt[2] || ', ' || in_doubt[1] || '; check the vendor''s status' AS said,
                  'leadloop audit --campaign {campaign}' AS command
            WHERE in_doubt[3] < in_doubt[2] AND in_doubt[2] < in_doubt[1]
              AND started_at[3] > statement_timestamp() - pushes.doubts_growing
           UNION ALL
           SELECT 'warning', 'leads_rejected', CAST(rejected AS bigint), recent_since,
                  'the last pushes rejected ' || rejected || ' leads and created ' || created
                      || '; leadloop status --campaign and the page show the reasons',
                  'leadloop requeue --rejected --campaign {campaign}'
            WHERE rejected >= 10 AND rejected > created
           UNION ALL
           SELECT 'warning', 'rows_unreadable', unreadable_rows[1], started_at[1],
                  CASE unreadable_rows[1] WHEN 1 THEN '1 row' ELSE unreadable_rows[1] || ' rows' END
                      || ' of the campaign''s source cannot be read, so no lead of theirs is sent;'
                      || ' the log of each push names the first ones',
                  'leadloop push --campaign {campaign}'
            WHERE unreadable_rows[1] > 0) AS rule
    UNION ALL
    SELECT campaign_id, 'warning', 'outcomes_late', amount, since,
           CASE amount WHEN 1 THEN '1 outcome' ELSE amount || ' outcomes' END
               || ' of the last ' || DAYS(outcomes_late)
               || ' came too late for the lookback: set LEADLOOP_LOOKBACK to '
               || needed_s || ' s or more',
           'leadloop backfill --campaign {campaign}'
               || ' --after ' || to_char(after AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
               || ' --before ' || to_char(before AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
      FROM late
    UNION ALL
    SELECT campaign_id, 'warning', problem, CAST(amount AS bigint), since,
           amount || ' of ' || all_amount || ' ' || what || ' of the last hour took more than '
               || CAST(extract(epoch FROM threshold) AS integer) || ' s',
           'leadloop status --campaign {campaign}'
      FROM slow WHERE all_amount - amount < 0.99 * all_amount
    UNION ALL
    SELECT campaign_id, 'warning', 'run_failed', 1, ended_at,
           'the last ' || flow || ' ' || state || coalesce(': ' || error, ''), 'leadloop doctor'
      FROM failed
    UNION ALL
    SELECT campaign_id, 'warning', 'run_too_long', amount, since,
           CASE amount WHEN 1 THEN 'a run of ' || flow || ' has'
                       ELSE amount || ' runs of ' || flow || ' have' END
               || ' not ended for more than ' || MINUTES(allowed),
           'leadloop doctor'
      FROM too_long
    UNION ALL
    SELECT campaign_id, 'warning', 'nothing_runs', 1, rule.since, rule.said, rule.command
      FROM idle CROSS JOIN LATERAL (
           SELECT idle.since,
                  'no run for more than ' || MINUTES(nothing_runs)
                      || ': check that a worker is running', 'leadloop doctor'
            WHERE idle.since < statement_timestamp() - idle.nothing_runs
           UNION ALL
           SELECT least((SELECT lead.inserted_at FROM leadloop.leads AS lead
                          WHERE lead.campaign_id = idle.campaign_id AND lead.status = 'new'
                          ORDER BY lead.seq LIMIT 1),
                        (SELECT min(least(request.requested_at, statement_timestamp()))
                           FROM leadloop.disable_requests AS request
                          WHERE request.campaign_id = idle.campaign_id
                            AND request.status IN ('requested', 'failed'))),
                  'no run yet: leads and opt-outs wait for the first run',
                  'leadloop sync --campaign {campaign}'
            WHERE idle.since IS NULL) AS rule (since, said, command)
     WHERE rule.since IS NOT NULL
), reported AS (
    SELECT campaign_id, severity, problem, amount, since, said, command
      FROM found JOIN leadloop.campaigns AS campaign USING (campaign_id)
    UNION ALL
    -- Every command rejects an unknown campaign: this replaces the other problems.
    SELECT campaign_id, 'critical', 'campaign_unknown', amount, since,
           CASE amount WHEN 1 THEN '1 lead or opt-out waits'
                       ELSE amount || ' leads and opt-outs wait' END
               || ' in an unknown campaign: INSERT INTO leadloop.campaigns (campaign_id)'
               || ' VALUES (' || quote_literal(campaign_id) || ')',
           'leadloop doctor'
      FROM unknown_campaigns
)
SELECT campaign_id, severity, problem, amount, since, said,
       -- Ids are foreign input: quoted for the shell.
       replace(command, '{campaign}',
               CASE WHEN campaign_id ~ '^[A-Za-z0-9][A-Za-z0-9_.:@/-]*$' THEN campaign_id
                    ELSE '''' || replace(campaign_id, '''', '''\''''') || '''' END) AS command
  FROM reported;
COMMENT ON VIEW leadloop_monitor.problems IS
    'Current problems, one row each; empty if there are none. The alert rules of `leadloop status
--check`, the monitor page, the Prometheus exporter and the Prefect events; their thresholds are in
the view thresholds.';
COMMENT ON COLUMN leadloop_monitor.problems.campaign_id IS
    'The vendor''s id of the campaign; for campaign_unknown it is not in leadloop.campaigns.';
COMMENT ON COLUMN leadloop_monitor.problems.severity IS
    'critical: people who opted out may be called, or outcomes are missing; warning: all others.';
COMMENT ON COLUMN leadloop_monitor.problems.problem IS 'Stable name of the problem.';
COMMENT ON COLUMN leadloop_monitor.problems.amount IS 'Number of leads, opt-outs, windows or runs.';
COMMENT ON COLUMN leadloop_monitor.problems.since IS 'Start of the oldest one.';
COMMENT ON COLUMN leadloop_monitor.problems.said IS 'Description in one line.';
COMMENT ON COLUMN leadloop_monitor.problems.command IS 'The next command, quoted for a shell.';

CREATE OR REPLACE VIEW leadloop_monitor.campaign_health AS
WITH RECURSIVE waiting AS (
    -- Open leads and opt-outs, by the partial indexes.
    SELECT campaign_id, count(*) AS new, min(inserted_at) AS oldest_new_at
      FROM leadloop.leads WHERE status = 'new' GROUP BY campaign_id
), unsettled AS (
    SELECT campaign_id, count(*) FILTER (WHERE status = 'sending') AS sending,
           count(*) FILTER (WHERE status = 'in_doubt') AS in_doubt
      FROM leadloop.leads WHERE status IN ('sending', 'in_doubt') GROUP BY campaign_id
), opt_out AS (
    SELECT campaign_id,
           count(*) FILTER (WHERE status = 'requested') AS disable_pending,
           count(*) FILTER (WHERE status = 'failed') AS disable_failed,
           min(least(requested_at, statement_timestamp())) AS waiting_since
      FROM leadloop.disable_requests WHERE status IN ('requested', 'failed')
     GROUP BY campaign_id
), past AS (
    SELECT campaign_id,
           CAST(sum(amount) FILTER (WHERE kind = 'lead' AND name = 'created') AS bigint)
               AS created,
           CAST(sum(amount) FILTER (WHERE kind = 'lead' AND name = 'rejected') AS bigint)
               AS rejected,
           CAST(sum(amount) FILTER (WHERE kind = 'lead' AND name = 'cancelled') AS bigint)
               AS cancelled,
           CAST(sum(amount) FILTER (WHERE kind = 'outcome') AS bigint) AS processed,
           sum(cost) FILTER (WHERE kind = 'outcome') AS cost,
           CAST(sum(amount) FILTER (WHERE kind = 'opt_out' AND name = 'disabled') AS bigint)
               AS disabled,
           CAST(sum(marked) FILTER (WHERE kind = 'delay') AS bigint) AS late
      FROM leadloop.counts_now
     WHERE kind IN ('lead', 'outcome', 'opt_out', 'delay') AND span = 'ever'
       AND since = '-infinity'
     GROUP BY campaign_id
), owed AS (
    SELECT campaign_id, count(*) FILTER (WHERE accepted_at IS NULL) AS owed,
           count(*) FILTER (WHERE accepted_at IS NOT NULL) AS accepted
      FROM leadloop.owed_windows GROUP BY campaign_id
), problem AS (
    SELECT campaign_id, count(*) AS problems, bool_or(severity = 'critical') AS any_critical
      FROM leadloop_monitor.problems GROUP BY campaign_id
), flows (flow) AS (
    VALUES ('push-leads'), ('poll-outcomes'), ('disable-leads')
), served (account) AS (
    -- A loose index scan: the accounts that have covering rows, few among many campaigns and runs.
    SELECT (SELECT min(account) FROM leadloop.sync_runs WHERE campaign_id = '')
    UNION ALL
    SELECT (SELECT min(run.account) FROM leadloop.sync_runs AS run
             WHERE run.campaign_id = '' AND run.account > served.account)
      FROM served WHERE account IS NOT NULL
), covering AS MATERIALIZED (
    SELECT flows.flow, served.account, run.run_id, run.lock_id, run.started_at, run.ended_at
      FROM flows CROSS JOIN served
     CROSS JOIN LATERAL (
           SELECT run_id, coalesce(lock_id, run_id) AS lock_id, started_at, ended_at
             FROM leadloop.sync_runs
            WHERE campaign_id = '' AND sync_runs.account = served.account
              AND sync_runs.flow = flows.flow AND state = 'completed'
            ORDER BY run_id DESC LIMIT 20) AS run
)
SELECT campaign.campaign_id, campaign.name, campaign.enabled,
       CASE WHEN problem.any_critical THEN 'critical'
            WHEN problem.problems > 0 THEN 'warning' ELSE 'ok' END AS health,
       coalesce(problem.problems, 0) AS problems,
       coalesce(waiting.new, 0) AS new, coalesce(unsettled.sending, 0) AS sending,
       coalesce(unsettled.in_doubt, 0) AS in_doubt, coalesce(past.created, 0) AS created,
       coalesce(past.rejected, 0) AS rejected, coalesce(past.cancelled, 0) AS cancelled,
       coalesce(past.processed, 0) AS processed,
       CASE WHEN past.processed > 0 THEN past.cost END AS cost,
       coalesce(past.disabled, 0) AS disabled,
       coalesce(opt_out.disable_pending, 0) AS disable_pending,
       coalesce(opt_out.disable_failed, 0) AS disable_failed,
       CAST(extract(epoch FROM statement_timestamp() - opt_out.waiting_since) AS float8)
           AS disable_oldest_s,
       CAST(extract(epoch FROM statement_timestamp() - waiting.oldest_new_at) AS float8) AS new_oldest_s,
       mark.processed_through AS watermark,
       CAST(extract(epoch FROM statement_timestamp() - mark.processed_through) AS float8)
           AS watermark_lag_s,
       coalesce(past.late, 0) AS late,
       CAST(ceil(coalesce((SELECT max(outcome.lookback_needed_s)
                             FROM leadloop.lead_outcomes AS outcome
                            WHERE outcome.campaign_id = campaign.campaign_id
                              AND outcome.lookback_needed_s IS NOT NULL), 0)) AS integer)
           AS lookback_needed_s,
       last.push_at AS last_push_at, last.poll_at AS last_poll_at,
       last.disable_at AS last_disable_at,
       campaign.push_enabled, coalesce(owed.owed, 0) AS owed,
       coalesce(owed.accepted, 0) AS owed_accepted,
       EXISTS (SELECT FROM leadloop.create_holds AS hold
                WHERE hold.campaign_id = campaign.campaign_id AND hold.released_at IS NULL)
           AS creates_held,
       campaign.account
  FROM leadloop.campaigns AS campaign
  LEFT JOIN waiting USING (campaign_id)
  LEFT JOIN unsettled USING (campaign_id)
  LEFT JOIN opt_out USING (campaign_id)
  LEFT JOIN past USING (campaign_id)
  LEFT JOIN owed USING (campaign_id)
  LEFT JOIN problem USING (campaign_id)
  LEFT JOIN leadloop.watermarks AS mark
         ON mark.campaign_id = campaign.campaign_id AND mark.stream = 'outcomes'
  LEFT JOIN LATERAL (
       -- The last run of the campaign itself, or the last one whose covering row stands for it, of
       -- the newest ones: it was enabled at that time, and has no row of the same flow run. A LEFT
       -- JOIN, as that of problems: a query without these columns does not look for them.
       SELECT max(ended_at) FILTER (WHERE flow = 'push-leads') AS push_at,
              max(ended_at) FILTER (WHERE flow = 'poll-outcomes') AS poll_at,
              max(ended_at) FILTER (WHERE flow = 'disable-leads') AS disable_at
         FROM (SELECT flows.flow, own.ended_at
                 FROM flows CROSS JOIN LATERAL (
                      SELECT run.ended_at FROM leadloop.sync_runs AS run
                       WHERE run.campaign_id = campaign.campaign_id AND run.flow = flows.flow
                         AND run.state = 'completed'
                       ORDER BY run.run_id DESC LIMIT 1) AS own
               UNION ALL
               SELECT flows.flow, covered.ended_at
                 FROM flows CROSS JOIN LATERAL (
                      SELECT covering.ended_at FROM covering
                       WHERE campaign.enabled AND covering.flow = flows.flow
                         AND covering.account = campaign.account
                         AND covering.started_at >= campaign.enabled_at
                         AND NOT EXISTS (SELECT FROM leadloop.sync_runs AS own
                                          WHERE own.campaign_id = campaign.campaign_id
                                            AND own.flow = covering.flow
                                            AND own.run_id > covering.run_id
                                            AND own.lock_id = covering.lock_id)
                       ORDER BY covering.run_id DESC LIMIT 1) AS covered) AS each) AS last ON true;
COMMENT ON VIEW leadloop_monitor.campaign_health IS 'Status of each campaign: one row each.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.name IS
    'Display name; leadloop does not use it.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.enabled IS
    'Whether pushes and polls without --campaign include the campaign.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.health IS
    'ok, warning or critical: the highest severity of its problems.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.problems IS 'Number of problems.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.new IS 'Leads to be sent.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.sending IS 'Leads in a request now.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.in_doubt IS
    'Leads that the vendor may or may not hold.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.created IS 'Leads that the vendor holds.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.rejected IS
    'Leads rejected by our checks or by the vendor.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.cancelled IS
    'Leads that opted out before they were sent.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.processed IS 'Leads with an outcome.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.cost IS
    'Cost of the outcomes as reported by the vendor, in the vendor''s currency.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disabled IS
    'Opt-outs that the vendor confirmed.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disable_pending IS 'Opt-outs not confirmed yet.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disable_failed IS
    'Opt-outs that the vendor rejects or fails on.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disable_oldest_s IS
    'Age of the oldest open opt-out, seconds; null if none waits.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.new_oldest_s IS
    'Age of the oldest new lead, seconds; null if none waits.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.watermark IS
    'Everything processed up to this time is stored, except windows accepted as unreadable; null
before the first poll.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.watermark_lag_s IS
    'Age of the watermark, seconds.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.late IS
    'Late outcomes: an earlier poll had read their time without them.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.lookback_needed_s IS
    'The lookback that would have caught all of them, seconds.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.last_push_at IS
    'End of the last completed push; one that found nothing due in the campaign counts.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.last_poll_at IS
    'End of the last completed poll; one that found nothing new in the campaign counts.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.last_disable_at IS
    'End of the last completed disable; one that found nothing due in the campaign counts.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.push_enabled IS
    'Whether pushes may create leads; false while the campaign is paused.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.creates_held IS
    'Whether creates are held, because the database may have forgotten sent leads.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.account IS
    'The account at the vendor whose login and rate limit the campaign uses.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.owed IS
    'Owed windows: their outcomes could not be read, and they hold the watermark.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.owed_accepted IS
    'Owed windows that a person has accepted as unreadable.';

-- The reader --------------------------------------------------------------------------------------

-- A role belongs to the whole server: it may exist already, for another database, and creating it
-- takes the privilege CREATEROLE. The monitor page reports a missing role (db/monitor.py).
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'leadloop_reader') THEN
        CREATE ROLE leadloop_reader NOLOGIN;
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
    NULL;
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'leadloop_reader') THEN
        GRANT USAGE ON SCHEMA leadloop_monitor TO leadloop_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA leadloop_monitor TO leadloop_reader;
    END IF;
END $$;
