-- For the last runs of each flow, among hundreds of thousands.
CREATE INDEX sync_runs_by_flow ON leadloop.sync_runs (campaign_id, flow, run_id DESC);

-- Health: the one definition, for the command line, the events, the page and the exporter ---------

CREATE OR REPLACE VIEW leadloop_monitor.problems AS
WITH RECURSIVE at_work (campaign_id) AS (
    -- From each campaign in which something waits to the next one, by the small indexes.
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
), stranded AS (
    SELECT at_work.campaign_id, waiting.amount, waiting.since
      FROM at_work CROSS JOIN LATERAL (
           SELECT count(*) AS amount, min(each.since) AS since
             FROM (SELECT inserted_at AS since FROM leadloop.leads
                    WHERE campaign_id = at_work.campaign_id AND status = 'new'
                   UNION ALL
                   SELECT inserted_at FROM leadloop.leads
                    WHERE campaign_id = at_work.campaign_id AND status IN ('sending', 'in_doubt')
                   UNION ALL
                   SELECT least(requested_at, clock_timestamp()) FROM leadloop.disable_requests
                    WHERE campaign_id = at_work.campaign_id AND status IN ('requested', 'failed')
                  ) AS each) AS waiting
     WHERE at_work.campaign_id <> ''
       AND NOT EXISTS (SELECT FROM leadloop.campaigns AS campaign
                        WHERE campaign.campaign_id = at_work.campaign_id)
), running AS (
    SELECT campaign_id FROM leadloop.campaigns WHERE enabled
), opt_outs AS (
    SELECT campaign_id, status, count(*) AS amount,
           min(least(requested_at, clock_timestamp())) AS since
      FROM leadloop.disable_requests
     WHERE status IN ('requested', 'failed')
       -- One from the future has waited for nobody knows how long.
       AND requested_at NOT BETWEEN clock_timestamp() - interval '15 minutes'
                                AND clock_timestamp() + interval '15 minutes'
     GROUP BY campaign_id, status
), unsent AS (
    SELECT campaign_id, count(*) AS amount, min(inserted_at) AS since
      FROM leadloop.leads
     WHERE status = 'new' AND inserted_at < clock_timestamp() - interval '1 hour'
     GROUP BY campaign_id
), doubts AS (
    SELECT campaign_id, count(*) AS amount, min(coalesce(doubted_at, sent_at)) AS since
      FROM leadloop.leads
     WHERE status = 'in_doubt'
       AND coalesce(doubted_at, sent_at) < clock_timestamp() - interval '1 hour'
     GROUP BY campaign_id
), polled AS (
    -- Where no poll has set a watermark, outcomes may be missing since the vendor had leads.
    SELECT running.campaign_id, mark.processed_through IS NULL AS never,
           coalesce(mark.processed_through,
                    (SELECT run.ended_at FROM leadloop.sync_runs AS run
                      WHERE run.campaign_id = running.campaign_id AND run.flow = 'push-leads'
                        AND CAST(run.counts ->> 'created' AS bigint) > 0
                      ORDER BY run.run_id LIMIT 1)) AS through
      FROM running
      LEFT JOIN leadloop.watermarks AS mark
             ON mark.campaign_id = running.campaign_id AND mark.stream = 'outcomes'
), owed AS (
    -- The next polls read them again: only what they leave is trouble.
    SELECT campaign_id, count(*) AS amount, min(polled_at) AS since
      FROM leadloop.poll_windows
     WHERE status = 'incomplete' AND made_good_at IS NULL
       AND polled_at < clock_timestamp() - interval '15 minutes'
     GROUP BY campaign_id
), lookback AS MATERIALIZED (
    -- The one in force: the campaign's own, or the setting of the last poll that told it. Looked
    -- for once a campaign, not once an outcome.
    SELECT campaign_id, coalesce(campaign.lookback_s,
                                 (SELECT CAST(run.counts ->> 'lookback_s' AS integer)
                                    FROM leadloop.sync_runs AS run
                                   WHERE run.campaign_id = campaign.campaign_id
                                     AND run.flow = 'poll-outcomes'
                                     AND run.counts ->> 'lookback_s' IS NOT NULL
                                   ORDER BY run.run_id DESC LIMIT 1),
                                 900) AS seconds
      FROM leadloop.campaigns AS campaign
), late AS (
    SELECT outcome.campaign_id, count(*) AS amount, min(outcome.seen_at) AS since,
           ceil(max(outcome.lookback_needed_s)) AS needed_s,
           date_trunc('second', min(outcome.processed_at)) AS after,
           date_trunc('second', max(outcome.seen_at)) + interval '1 second' AS before
      FROM leadloop.lead_outcomes AS outcome JOIN lookback USING (campaign_id)
     WHERE outcome.lookback_needed_s IS NOT NULL
       AND outcome.lookback_needed_s > lookback.seconds
       AND outcome.seen_at > clock_timestamp() - interval '7 days'
     GROUP BY outcome.campaign_id
), flows (flow, again, others) AS (
    -- Whether it comes by itself again; and which others do the same work, all of it or a part.
    VALUES ('push-leads', true, ARRAY['sync-leads']),
           ('poll-outcomes', true, ARRAY['sync-leads']),
           ('disable-leads', true, ARRAY['sync-leads']),
           ('sync-leads', false, ARRAY['push-leads', 'poll-outcomes', 'disable-leads']),
           ('housekeeping', true, '{}'),
           ('backfill-outcomes', false, '{}'),
           ('audit-leads', false, '{}')
), ended AS (
    SELECT running.campaign_id, flows.flow, flows.again, flows.others,
           last.run_id, last.state, coalesce(last.ended_at, last.started_at) AS ended_at, last.error
      FROM running CROSS JOIN flows CROSS JOIN LATERAL (
           SELECT run.run_id, run.state, run.started_at, run.ended_at, run.error
             FROM leadloop.sync_runs AS run
            WHERE run.campaign_id = running.campaign_id AND run.flow = flows.flow
              AND run.state <> 'running'
            ORDER BY run.run_id DESC LIMIT 1) AS last
), failed AS (
    SELECT campaign_id, flow, state, ended_at, error FROM ended
     WHERE state IN ('failed', 'crashed')
       AND (again OR ended_at > clock_timestamp() - interval '1 day')
       AND NOT EXISTS (SELECT FROM ended AS later
                        WHERE later.campaign_id = ended.campaign_id
                          AND later.flow = ANY(ended.others)
                          AND later.run_id > ended.run_id AND later.state = 'completed')
), too_long AS (
    SELECT campaign_id, flow, count(*) AS amount, min(started_at) AS since
      FROM leadloop.sync_runs
     WHERE state = 'running' AND started_at < clock_timestamp() - interval '2 hours'
     GROUP BY campaign_id, flow
), idle AS (
    SELECT running.campaign_id, max(ended.ended_at) AS since
      FROM running
      LEFT JOIN ended ON ended.campaign_id = running.campaign_id AND ended.others <> '{}'
     WHERE NOT EXISTS (SELECT FROM leadloop.sync_runs AS run JOIN flows USING (flow)
                        WHERE run.state = 'running' AND run.campaign_id = running.campaign_id
                          AND flows.others <> '{}')
     GROUP BY running.campaign_id
), untouched AS (
    SELECT campaign_id,
           least((SELECT lead.inserted_at FROM leadloop.leads AS lead
                   WHERE lead.campaign_id = idle.campaign_id AND lead.status = 'new'
                   ORDER BY lead.seq LIMIT 1),
                 (SELECT min(least(request.requested_at, clock_timestamp()))
                    FROM leadloop.disable_requests AS request
                   WHERE request.campaign_id = idle.campaign_id
                     AND request.status IN ('requested', 'failed'))) AS since
      FROM idle WHERE since IS NULL
), found AS (
    SELECT campaign_id, 'critical' AS severity, 'opt_outs_waiting' AS problem, amount, since,
           CASE amount WHEN 1 THEN '1 opt-out has' ELSE amount || ' opt-outs have' END
               || ' waited for more than 15 minutes' AS said,
           'leadloop disable --campaign {campaign}' AS command
      FROM opt_outs WHERE status = 'requested'
    UNION ALL
    SELECT campaign_id, 'critical', 'opt_outs_failed', amount, since,
           'the vendor refuses '
               || CASE amount WHEN 1 THEN '1 opt-out' ELSE amount || ' opt-outs' END
               || ', tried again ever more seldom',
           'leadloop requeue --disables --campaign {campaign}'
      FROM opt_outs WHERE status = 'failed'
    UNION ALL
    SELECT campaign_id, 'critical', 'poll_behind', 1, through,
           CASE WHEN never THEN 'leads were sent, and no outcome was ever polled'
                ELSE 'outcomes of more than an hour may be missing' END,
           'leadloop poll --campaign {campaign}'
      FROM polled WHERE through < clock_timestamp() - interval '1 hour'
    UNION ALL
    SELECT campaign_id, 'critical', 'windows_owed', amount, since,
           CASE amount WHEN 1 THEN '1 window' ELSE amount || ' windows' END
               || ' did not hold what the vendor counts there',
           'leadloop poll --campaign {campaign}'
      FROM owed
    UNION ALL
    SELECT campaign_id, 'warning', 'leads_unsent', amount, since,
           CASE amount WHEN 1 THEN '1 lead has' ELSE amount || ' leads have' END
               || ' waited for more than an hour to be sent',
           'leadloop push --campaign {campaign}'
      FROM unsent JOIN running USING (campaign_id)
    UNION ALL
    SELECT campaign_id, 'warning', 'leads_in_doubt', amount, since,
           CASE amount WHEN 1 THEN '1 lead has' ELSE amount || ' leads have' END
               || ' been in doubt for more than an hour: does the vendor have '
               || CASE amount WHEN 1 THEN 'it' ELSE 'them' END || ', or not?',
           'leadloop audit --campaign {campaign}'
      FROM doubts
    UNION ALL
    SELECT campaign_id, 'warning', 'outcomes_late', amount, since,
           CASE amount WHEN 1 THEN '1 outcome' ELSE amount || ' outcomes' END
               || ' of the last week came too late for the lookback: set it to '
               || needed_s || ' s or more',
           'leadloop backfill --campaign {campaign}'
               || ' --after ' || to_char(after AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
               || ' --before ' || to_char(before AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
      FROM late
    UNION ALL
    SELECT campaign_id, 'warning', 'run_failed', 1, ended_at,
           'the last ' || flow || ' ' || state || coalesce(': ' || error, ''), 'leadloop doctor'
      FROM failed
    UNION ALL
    SELECT campaign_id, 'warning', 'run_too_long', amount, since,
           CASE amount WHEN 1 THEN 'a run of ' || flow || ' has'
                       ELSE amount || ' runs of ' || flow || ' have' END
               || ' not ended for more than two hours',
           'leadloop doctor'
      FROM too_long
    UNION ALL
    SELECT campaign_id, 'warning', 'nothing_runs', 1, since,
           'nothing has run for more than an hour: is a worker there?', 'leadloop doctor'
      FROM idle WHERE since < clock_timestamp() - interval '1 hour'
    UNION ALL
    SELECT campaign_id, 'warning', 'nothing_runs', 1, since,
           'nothing has run yet: leads and opt-outs wait until a run takes them',
           'leadloop sync --campaign {campaign}'
      FROM untouched WHERE since IS NOT NULL
), told AS (
    SELECT campaign_id, severity, problem, amount, since,
           said || CASE WHEN campaign.enabled OR problem NOT IN ('opt_outs_waiting',
                                                                 'opt_outs_failed') THEN ''
                        ELSE '; the campaign is not enabled, so no schedule sends them' END AS said,
           command
      FROM found JOIN leadloop.campaigns AS campaign USING (campaign_id)
    UNION ALL
    -- Every command would refuse such a campaign: this comes in place of the other rules.
    SELECT campaign_id, 'critical', 'campaign_unknown', amount, since,
           CASE amount WHEN 1 THEN '1 lead or opt-out waits'
                       ELSE amount || ' leads and opt-outs wait' END
               || ' in a campaign that is unknown: INSERT INTO leadloop.campaigns (campaign_id)'
               || ' VALUES (' || quote_literal(campaign_id) || ')',
           'leadloop doctor'
      FROM stranded
)
SELECT campaign_id, severity, problem, amount, since, said,
       -- Ids are anybody's: between quotes a shell takes nothing for a command, or for two words.
       replace(command, '{campaign}',
               CASE WHEN campaign_id ~ '^[A-Za-z0-9][A-Za-z0-9_.:@/-]*$' THEN campaign_id
                    ELSE '''' || replace(campaign_id, '''', '''\''''') || '''' END) AS command
  FROM told;
COMMENT ON COLUMN leadloop_monitor.problems.campaign_id IS
    'The vendor''s id of the campaign; of campaign_unknown one that leadloop.campaigns lacks.';
CREATE OR REPLACE VIEW leadloop_monitor.campaign_health AS
WITH lead AS (
    SELECT campaign_id,
           count(*) FILTER (WHERE status = 'new') AS new,
           count(*) FILTER (WHERE status = 'sending') AS sending,
           count(*) FILTER (WHERE status = 'in_doubt') AS in_doubt,
           count(*) FILTER (WHERE status = 'created') AS created,
           count(*) FILTER (WHERE status = 'rejected') AS rejected,
           count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
           min(inserted_at) FILTER (WHERE status = 'new') AS oldest_new_at
      FROM leadloop.leads GROUP BY campaign_id
), outcome AS (
    SELECT campaign_id, count(*) AS processed, sum(total_cost) AS cost
      FROM leadloop.lead_outcomes GROUP BY campaign_id
), opt_out AS (
    SELECT campaign_id,
           count(*) FILTER (WHERE status = 'disabled') AS disabled,
           count(*) FILTER (WHERE status = 'requested') AS disable_pending,
           count(*) FILTER (WHERE status = 'failed') AS disable_failed,
           min(least(requested_at, clock_timestamp()))
               FILTER (WHERE status IN ('requested', 'failed')) AS waiting_since
      FROM leadloop.disable_requests GROUP BY campaign_id
), late AS (
    SELECT campaign_id, count(*) AS late, max(lookback_needed_s) AS needed_s
      FROM leadloop.lead_outcomes WHERE lookback_needed_s IS NOT NULL GROUP BY campaign_id
), problem AS (
    SELECT campaign_id, count(*) AS problems, bool_or(severity = 'critical') AS any_critical
      FROM leadloop_monitor.problems GROUP BY campaign_id
)
SELECT campaign.campaign_id, campaign.name, campaign.enabled,
       CASE WHEN problem.any_critical THEN 'critical'
            WHEN problem.problems > 0 THEN 'warning' ELSE 'ok' END AS health,
       coalesce(problem.problems, 0) AS problems,
       coalesce(lead.new, 0) AS new, coalesce(lead.sending, 0) AS sending,
       coalesce(lead.in_doubt, 0) AS in_doubt, coalesce(lead.created, 0) AS created,
       coalesce(lead.rejected, 0) AS rejected, coalesce(lead.cancelled, 0) AS cancelled,
       coalesce(outcome.processed, 0) AS processed, outcome.cost,
       coalesce(opt_out.disabled, 0) AS disabled,
       coalesce(opt_out.disable_pending, 0) AS disable_pending,
       coalesce(opt_out.disable_failed, 0) AS disable_failed,
       CAST(extract(epoch FROM clock_timestamp() - opt_out.waiting_since) AS float8)
           AS disable_oldest_s,
       CAST(extract(epoch FROM clock_timestamp() - lead.oldest_new_at) AS float8) AS new_oldest_s,
       mark.processed_through AS watermark,
       CAST(extract(epoch FROM clock_timestamp() - mark.processed_through) AS float8)
           AS watermark_lag_s,
       coalesce(late.late, 0) AS late,
       CAST(ceil(coalesce(late.needed_s, 0)) AS integer) AS lookback_needed_s,
       last_push.ended_at AS last_push_at, last_poll.ended_at AS last_poll_at,
       last_disable.ended_at AS last_disable_at
  FROM leadloop.campaigns AS campaign
  LEFT JOIN lead USING (campaign_id)
  LEFT JOIN outcome USING (campaign_id)
  LEFT JOIN opt_out USING (campaign_id)
  LEFT JOIN late USING (campaign_id)
  LEFT JOIN problem USING (campaign_id)
  LEFT JOIN leadloop.watermarks AS mark
         ON mark.campaign_id = campaign.campaign_id AND mark.stream = 'outcomes'
  LEFT JOIN LATERAL (SELECT run.ended_at FROM leadloop.sync_runs AS run
                      WHERE run.campaign_id = campaign.campaign_id AND run.flow = 'push-leads'
                        AND run.state = 'completed'
                      ORDER BY run.run_id DESC LIMIT 1) AS last_push ON true
  LEFT JOIN LATERAL (SELECT run.ended_at FROM leadloop.sync_runs AS run
                      WHERE run.campaign_id = campaign.campaign_id AND run.flow = 'poll-outcomes'
                        AND run.state = 'completed'
                      ORDER BY run.run_id DESC LIMIT 1) AS last_poll ON true
  LEFT JOIN LATERAL (SELECT run.ended_at FROM leadloop.sync_runs AS run
                      WHERE run.campaign_id = campaign.campaign_id AND run.flow = 'disable-leads'
                        AND run.state = 'completed'
                      ORDER BY run.run_id DESC LIMIT 1) AS last_disable ON true;

-- The hours are those of UTC, whatever the session's zone is ---------------------------------------

CREATE OR REPLACE VIEW leadloop_monitor.outcome_breakdown AS
SELECT outcome.campaign_id,
       CAST(outcome.processed_at AT TIME ZONE 'UTC' AS date) AS day,
       CAST(extract(hour FROM outcome.processed_at AT TIME ZONE 'UTC') AS integer) AS hour,
       -- Free text: where a file's columns were shifted, somebody's name stands there.
       CASE WHEN upper(btrim(lead.state_code)) ~ '^[A-Z]{2}$'
            THEN upper(btrim(lead.state_code)) END AS state_code,
       outcome.outcome_name, count(*) AS outcomes, sum(outcome.total_cost) AS cost
  FROM leadloop.lead_outcomes AS outcome
  LEFT JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
 GROUP BY 1, 2, 3, 4, 5;
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.state_code IS
    'The lead''s state, two letters; null where it has none, or something else stands there.';

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
    'Calls, emails, SMS and IVR by day, hour and state. The connect rate is connected / attempts of
the channel call.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.state_code IS
    'The lead''s state, two letters; null where it has none, or something else stands there.';

CREATE OR REPLACE VIEW leadloop_monitor.disable_latency AS
SELECT campaign_id, CAST(requested_at AT TIME ZONE 'UTC' AS date) AS day,
       count(*) AS requested,
       count(*) FILTER (WHERE status = 'disabled') AS disabled,
       count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       count(*) FILTER (WHERE status IN ('requested', 'failed')) AS waiting,
       percentile_cont(0.50) WITHIN GROUP (ORDER BY latency_s) AS p50_s,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_s) AS p95_s,
       max(latency_s) AS worst_s,
       -- One from the future has waited for no time yet.
       CAST(extract(epoch FROM clock_timestamp() - min(least(requested_at, clock_timestamp()))
            FILTER (WHERE status IN ('requested', 'failed'))) AS float8) AS oldest_waiting_s
  FROM (SELECT campaign_id, requested_at, status,
               CAST(extract(epoch FROM confirmed_at - requested_at) AS float8) AS latency_s
          FROM leadloop.disable_requests) AS each
 GROUP BY 1, 2;

CREATE OR REPLACE VIEW leadloop_monitor.window_stats AS
SELECT campaign_id, date_trunc('hour', polled_at, 'UTC') AS polled_hour,
       count(*) AS windows,
       count(*) FILTER (WHERE status = 'incomplete' AND made_good_at IS NULL) AS owed,
       sum(pages) AS pages, sum(stored_count) AS results,
       -- A backfill reads what is long past, and is not behind for that.
       max(CAST(extract(epoch FROM polled_at - coalesce(closed_through, window_after)) AS float8))
           FILTER (WHERE range_after IS NULL) AS lag_s
  FROM leadloop.poll_windows GROUP BY 1, 2;
COMMENT ON COLUMN leadloop_monitor.window_stats.polled_hour IS
    'The hour in which they were read, UTC.';
COMMENT ON COLUMN leadloop_monitor.window_stats.lag_s IS
    'How far behind the polls were at most, seconds; null where there were backfills alone.';

CREATE OR REPLACE VIEW leadloop_monitor.lateness AS
SELECT campaign_id, date_trunc('hour', seen_at, 'UTC') AS seen_hour, count(*) AS outcomes,
       count(lookback_needed_s) AS late, max(lookback_needed_s) AS lookback_needed_s,
       percentile_cont(0.50) WITHIN GROUP (ORDER BY seen_after_s) AS p50_s,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY seen_after_s) AS p95_s
  FROM (SELECT campaign_id, seen_at, lookback_needed_s,
               CAST(extract(epoch FROM seen_at - processed_at) AS float8) AS seen_after_s
          FROM leadloop.lead_outcomes) AS each
 GROUP BY 1, 2;
COMMENT ON COLUMN leadloop_monitor.lateness.seen_hour IS
    'The hour in which they were stored, UTC.';

CREATE OR REPLACE VIEW leadloop_monitor.request_stats AS
SELECT date_trunc('hour', started_at, 'UTC') AS hour, campaign_id, flow, count(*) AS runs,
       coalesce(sum(CAST(counts ->> 'requests' AS bigint)), 0) AS requests
  FROM leadloop.sync_runs
 -- A sync's requests are those of its three flows, which have rows of their own.
 WHERE flow <> 'sync-leads'
 GROUP BY 1, 2, 3;
COMMENT ON COLUMN leadloop_monitor.request_stats.hour IS 'The hour in which the runs began, UTC.';

CREATE OR REPLACE VIEW leadloop_monitor.outcomes_by_hour AS
SELECT campaign_id, date_trunc('hour', processed_at, 'UTC') AS hour, outcome_name,
       count(*) AS outcomes, sum(total_cost) AS cost
  FROM leadloop.lead_outcomes GROUP BY 1, 2, 3;
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.hour IS
    'The hour in which it was processed, UTC.';

CREATE OR REPLACE VIEW leadloop_monitor.attempts_by_hour AS
SELECT campaign_id, date_trunc('hour', occurred_at, 'UTC') AS hour, count(*) AS attempts,
       count(*) FILTER (WHERE channel = 'call' AND duration_s > 0) AS connected,
       count(*) FILTER (WHERE channel = 'call') AS calls
  FROM leadloop.outreach_attempts GROUP BY 1, 2;
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.hour IS
    'The hour in which it was made, UTC; null where the vendor does not say.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.connected IS
    'How many calls lasted: duration above nought. The connect rate is connected / calls.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.calls IS 'How many of them were calls.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'leadloop_reader') THEN
        GRANT SELECT ON ALL TABLES IN SCHEMA leadloop_monitor TO leadloop_reader;
    END IF;
END $$;
