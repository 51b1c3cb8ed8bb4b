CREATE SCHEMA leadloop_monitor;
COMMENT ON SCHEMA leadloop_monitor IS
    'For dashboards and alerts: counts, times, reasons and ids. No personal data in any column.';

-- The funnel --------------------------------------------------------------------------------------

CREATE VIEW leadloop_monitor.lead_funnel AS
WITH counted AS (
    SELECT campaign_id, status, count(*) AS leads FROM leadloop.leads GROUP BY campaign_id, status
), stages AS (
    SELECT campaign_id, status AS stage, leads FROM counted
    UNION ALL
    SELECT campaign_id, 'processed', count(*) FROM leadloop.lead_outcomes GROUP BY campaign_id
)
SELECT campaign.campaign_id, stage.name AS stage, stage.position,
       coalesce(stages.leads, 0) AS leads
  FROM leadloop.campaigns AS campaign
 CROSS JOIN (VALUES ('new', 1), ('sending', 2), ('in_doubt', 3), ('created', 4), ('processed', 5),
                    ('rejected', 6), ('cancelled', 7)) AS stage (name, position)
  LEFT JOIN stages ON stages.campaign_id = campaign.campaign_id AND stages.stage = stage.name;
COMMENT ON VIEW leadloop_monitor.lead_funnel IS
    'How many leads of each campaign are at each stage: seven rows a campaign.';
COMMENT ON COLUMN leadloop_monitor.lead_funnel.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.lead_funnel.stage IS
    'new, sending, in_doubt, created, rejected, cancelled: the lead''s status; processed: those that
have an outcome (they are counted under created too).';
COMMENT ON COLUMN leadloop_monitor.lead_funnel.position IS 'The order in which to show the stages.';
COMMENT ON COLUMN leadloop_monitor.lead_funnel.leads IS 'How many leads.';

CREATE VIEW leadloop_monitor.rejections AS
SELECT campaign_id, last_error AS reason, count(*) AS leads,
       (array_agg(lead_id ORDER BY seq DESC))[1:5] AS sample_lead_ids
  FROM leadloop.leads WHERE status = 'rejected'
 GROUP BY campaign_id, last_error;
COMMENT ON VIEW leadloop_monitor.rejections IS
    'Why leads are not sent: our checks'' reasons, or the vendor''s words without what they repeat.';
COMMENT ON COLUMN leadloop_monitor.rejections.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.rejections.reason IS 'Why; it names the field.';
COMMENT ON COLUMN leadloop_monitor.rejections.leads IS 'How many leads.';
COMMENT ON COLUMN leadloop_monitor.rejections.sample_lead_ids IS 'Ids of the last five of them.';

-- Outcomes and attempts ---------------------------------------------------------------------------

CREATE VIEW leadloop_monitor.outcome_breakdown AS
SELECT outcome.campaign_id,
       CAST(outcome.processed_at AT TIME ZONE 'UTC' AS date) AS day,
       CAST(extract(hour FROM outcome.processed_at AT TIME ZONE 'UTC') AS integer) AS hour,
       lead.state_code, outcome.outcome_name, count(*) AS outcomes, sum(outcome.total_cost) AS cost
  FROM leadloop.lead_outcomes AS outcome
  LEFT JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
 GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW leadloop_monitor.outcome_breakdown IS
    'Outcomes and what they cost, by day, hour and state.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.day IS 'The day it was processed, UTC.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.hour IS 'The hour of that day, UTC: 0 to 23.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.state_code IS
    'The lead''s state; null where it has none.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.outcome_name IS
    'The outcome; null where the vendor names none.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.outcomes IS 'How many leads.';
COMMENT ON COLUMN leadloop_monitor.outcome_breakdown.cost IS
    'The sum of what the vendor says they cost, in its currency.';

CREATE VIEW leadloop_monitor.attempt_stats AS
SELECT attempt.campaign_id, attempt.channel,
       CAST(attempt.occurred_at AT TIME ZONE 'UTC' AS date) AS day,
       CAST(extract(hour FROM attempt.occurred_at AT TIME ZONE 'UTC') AS integer) AS hour,
       lead.state_code, count(*) AS attempts,
       count(*) FILTER (WHERE attempt.duration_s > 0) AS connected,
       sum(attempt.duration_s) AS duration_s, sum(attempt.cost) AS cost
  FROM leadloop.outreach_attempts AS attempt
  LEFT JOIN leadloop.leads AS lead USING (campaign_id, lead_id)
 GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW leadloop_monitor.attempt_stats IS
    'Calls, emails, SMS and IVR by day, hour and state. The connect rate is connected / attempts.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.channel IS 'call, gmail, sms or ivr.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.day IS
    'The day it was made, UTC; null where the vendor does not say.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.hour IS 'The hour of that day, UTC: 0 to 23.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.state_code IS
    'The lead''s state; null where it has none.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.attempts IS 'How many.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.connected IS
    'How many of them lasted: duration above nought.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.duration_s IS 'Their durations together, seconds.';
COMMENT ON COLUMN leadloop_monitor.attempt_stats.cost IS
    'What the vendor says they cost, in its currency.';

CREATE VIEW leadloop_monitor.attempts_to_outcome AS
SELECT campaign_id, outcome_name, attempts, count(*) AS leads
  FROM (SELECT outcome.campaign_id, outcome.outcome_name, count(attempt.lead_id) AS attempts
          FROM leadloop.lead_outcomes AS outcome
          LEFT JOIN leadloop.outreach_attempts AS attempt USING (campaign_id, lead_id)
         GROUP BY outcome.campaign_id, outcome.lead_id, outcome.outcome_name) AS each
 GROUP BY campaign_id, outcome_name, attempts;
COMMENT ON VIEW leadloop_monitor.attempts_to_outcome IS
    'After how many attempts leads had their outcome.';
COMMENT ON COLUMN leadloop_monitor.attempts_to_outcome.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.attempts_to_outcome.outcome_name IS
    'The outcome; null where the vendor names none.';
COMMENT ON COLUMN leadloop_monitor.attempts_to_outcome.attempts IS 'How many attempts a lead had.';
COMMENT ON COLUMN leadloop_monitor.attempts_to_outcome.leads IS 'How many leads had so many.';

-- Opt-outs ----------------------------------------------------------------------------------------

CREATE VIEW leadloop_monitor.disable_latency AS
SELECT campaign_id, CAST(requested_at AT TIME ZONE 'UTC' AS date) AS day,
       count(*) AS requested,
       count(*) FILTER (WHERE status = 'disabled') AS disabled,
       count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE status = 'failed') AS failed,
       count(*) FILTER (WHERE status IN ('requested', 'failed')) AS waiting,
       percentile_cont(0.50) WITHIN GROUP (ORDER BY latency_s) AS p50_s,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_s) AS p95_s,
       max(latency_s) AS worst_s,
       CAST(extract(epoch FROM clock_timestamp() - min(requested_at)
            FILTER (WHERE status IN ('requested', 'failed'))) AS float8) AS oldest_waiting_s
  FROM (SELECT campaign_id, requested_at, status,
               CAST(extract(epoch FROM confirmed_at - requested_at) AS float8) AS latency_s
          FROM leadloop.disable_requests) AS each
 GROUP BY 1, 2;
COMMENT ON VIEW leadloop_monitor.disable_latency IS
    'How long people who opted out could still be called: from the request to the vendor''s
confirmation, or to the moment at which the lead was kept back.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.day IS 'The day of the request, UTC.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.requested IS 'Requests of that day.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.disabled IS 'Those the vendor has confirmed.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.cancelled IS
    'Those whose lead had not been sent, and never will be.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.failed IS
    'Those the vendor refuses; they are tried again, ever more seldom.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.waiting IS
    'Those not confirmed yet, the failed ones too.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.p50_s IS
    'Median of the confirmed ones, seconds.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.p95_s IS
    'What 95 of 100 of the confirmed ones stayed within, seconds.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.worst_s IS
    'The longest of the confirmed ones, seconds.';
COMMENT ON COLUMN leadloop_monitor.disable_latency.oldest_waiting_s IS
    'For how long the oldest that is not confirmed has waited, seconds; null where none waits.';

-- Runs, windows, requests -------------------------------------------------------------------------

CREATE VIEW leadloop_monitor.run_history AS
SELECT run_id, flow, campaign_id, flow_run_id, state, started_at, ended_at,
       CAST(extract(epoch FROM coalesce(ended_at, clock_timestamp()) - started_at) AS float8)
           AS duration_s,
       CAST(counts ->> 'requests' AS bigint) AS requests, counts, error
  FROM leadloop.sync_runs;
COMMENT ON VIEW leadloop_monitor.run_history IS 'A row a run of a flow and campaign.';
COMMENT ON COLUMN leadloop_monitor.run_history.run_id IS 'Ours; later runs have greater ones.';
COMMENT ON COLUMN leadloop_monitor.run_history.flow IS 'The flow, as Prefect names it.';
COMMENT ON COLUMN leadloop_monitor.run_history.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.run_history.flow_run_id IS 'Prefect''s id of the run.';
COMMENT ON COLUMN leadloop_monitor.run_history.state IS
    'running, completed, failed, or crashed: ended without a word, found by a later run.';
COMMENT ON COLUMN leadloop_monitor.run_history.started_at IS 'When it began.';
COMMENT ON COLUMN leadloop_monitor.run_history.ended_at IS 'When it ended; null while it runs.';
COMMENT ON COLUMN leadloop_monitor.run_history.duration_s IS 'How long it took so far, seconds.';
COMMENT ON COLUMN leadloop_monitor.run_history.requests IS 'Requests that it sent to the vendor.';
COMMENT ON COLUMN leadloop_monitor.run_history.counts IS
    'What it did, under the names of the command line''s JSON.';
COMMENT ON COLUMN leadloop_monitor.run_history.error IS 'Why it failed, in one line.';

CREATE VIEW leadloop_monitor.window_stats AS
SELECT campaign_id, date_trunc('hour', polled_at) AS polled_hour,
       count(*) AS windows,
       count(*) FILTER (WHERE status = 'incomplete' AND made_good_at IS NULL) AS owed,
       sum(pages) AS pages, sum(stored_count) AS results,
       max(CAST(extract(epoch FROM polled_at - coalesce(closed_through, window_after)) AS float8))
           AS lag_s
  FROM leadloop.poll_windows GROUP BY 1, 2;
COMMENT ON VIEW leadloop_monitor.window_stats IS
    'Whether what was polled is complete, by the hour of the poll.';
COMMENT ON COLUMN leadloop_monitor.window_stats.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.window_stats.polled_hour IS 'The hour in which they were read.';
COMMENT ON COLUMN leadloop_monitor.window_stats.windows IS 'Windows that were read.';
COMMENT ON COLUMN leadloop_monitor.window_stats.owed IS
    'Windows that did not hold what the vendor counts, and that no later reading has made good.';
COMMENT ON COLUMN leadloop_monitor.window_stats.pages IS 'Pages that they took.';
COMMENT ON COLUMN leadloop_monitor.window_stats.results IS 'Distinct results in them.';
COMMENT ON COLUMN leadloop_monitor.window_stats.lag_s IS
    'How far behind the polls were at most, seconds.';

CREATE VIEW leadloop_monitor.lateness AS
SELECT campaign_id, date_trunc('hour', seen_at) AS seen_hour, count(*) AS outcomes,
       count(lookback_needed_s) AS late, max(lookback_needed_s) AS lookback_needed_s,
       percentile_cont(0.50) WITHIN GROUP (ORDER BY seen_after_s) AS p50_s,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY seen_after_s) AS p95_s
  FROM (SELECT campaign_id, seen_at, lookback_needed_s,
               CAST(extract(epoch FROM seen_at - processed_at) AS float8) AS seen_after_s
          FROM leadloop.lead_outcomes) AS each
 GROUP BY 1, 2;
COMMENT ON VIEW leadloop_monitor.lateness IS
    'How long after it was processed an outcome was stored, by the hour in which it was.';
COMMENT ON COLUMN leadloop_monitor.lateness.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.lateness.seen_hour IS 'The hour in which they were stored.';
COMMENT ON COLUMN leadloop_monitor.lateness.outcomes IS 'Outcomes stored.';
COMMENT ON COLUMN leadloop_monitor.lateness.late IS
    'Those that a poll before should have found: the vendor showed them too late for it.';
COMMENT ON COLUMN leadloop_monitor.lateness.lookback_needed_s IS
    'The lookback with which none of them would have been late, seconds.';
COMMENT ON COLUMN leadloop_monitor.lateness.p50_s IS 'Median of the time to be stored, seconds.';
COMMENT ON COLUMN leadloop_monitor.lateness.p95_s IS
    'What 95 of 100 stayed within, seconds.';

CREATE VIEW leadloop_monitor.request_stats AS
SELECT date_trunc('hour', started_at) AS hour, campaign_id, flow, count(*) AS runs,
       coalesce(sum(CAST(counts ->> 'requests' AS bigint)), 0) AS requests
  FROM leadloop.sync_runs
 -- A sync's requests are those of its three flows, which have rows of their own.
 WHERE flow <> 'sync-leads'
 GROUP BY 1, 2, 3;
COMMENT ON VIEW leadloop_monitor.request_stats IS
    'Requests to the vendor by the hour in which their run began.';
COMMENT ON COLUMN leadloop_monitor.request_stats.hour IS 'The hour in which the runs began.';
COMMENT ON COLUMN leadloop_monitor.request_stats.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.request_stats.flow IS 'The flow, as Prefect names it.';
COMMENT ON COLUMN leadloop_monitor.request_stats.runs IS 'Runs that began.';
COMMENT ON COLUMN leadloop_monitor.request_stats.requests IS 'Requests that they sent.';

CREATE VIEW leadloop_monitor.budget_now AS
SELECT count(*) FILTER (WHERE slot > 0) AS slots,
       count(*) FILTER (WHERE slot > 0 AND free_at > clock_timestamp()) AS taken,
       greatest(0, CAST(extract(epoch FROM max(free_at) FILTER (WHERE slot = 0 AND isfinite(free_at))
                                           - clock_timestamp()) AS float8)) AS paused_s
  FROM leadloop.rate_slots;
COMMENT ON VIEW leadloop_monitor.budget_now IS
    'How much of the business''s budget of requests is used at this moment: one row.';
COMMENT ON COLUMN leadloop_monitor.budget_now.slots IS
    'Slots of the ring; each stands for a request a period, or of a generous limit for several.';
COMMENT ON COLUMN leadloop_monitor.budget_now.taken IS 'Those in use.';
COMMENT ON COLUMN leadloop_monitor.budget_now.paused_s IS
    'For how long the vendor still wants no request, seconds; null or nought: it has not asked.';

-- Health: the one definition, for the command line, the events, the page and the exporter ----------

CREATE VIEW leadloop_monitor.problems AS
WITH running AS (
    SELECT campaign_id FROM leadloop.campaigns WHERE enabled
), opt_outs AS (
    SELECT campaign_id, count(*) AS amount, min(requested_at) AS since
      FROM leadloop.disable_requests
     WHERE status IN ('requested', 'failed')
       AND requested_at < clock_timestamp() - interval '15 minutes'
     GROUP BY campaign_id
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
), behind AS (
    SELECT campaign_id, 1 AS amount, processed_through AS since
      FROM leadloop.watermarks
     WHERE stream = 'outcomes' AND processed_through < clock_timestamp() - interval '1 hour'
), owed AS (
    SELECT campaign_id, count(*) AS amount, min(polled_at) AS since
      FROM leadloop.poll_windows
     WHERE status = 'incomplete' AND made_good_at IS NULL
     GROUP BY campaign_id
), late AS (
    SELECT outcome.campaign_id, count(*) AS amount, min(outcome.seen_at) AS since,
           ceil(max(outcome.lookback_needed_s)) AS needed_s
      FROM leadloop.lead_outcomes AS outcome JOIN leadloop.campaigns AS campaign USING (campaign_id)
     WHERE outcome.lookback_needed_s > coalesce(campaign.lookback_s, 900)
       AND outcome.seen_at > clock_timestamp() - interval '7 days'
     GROUP BY outcome.campaign_id
), last_runs AS (
    SELECT DISTINCT ON (campaign_id, flow) campaign_id, flow, state, started_at, ended_at, error
      FROM leadloop.sync_runs ORDER BY campaign_id, flow, run_id DESC
)
SELECT campaign_id, 'critical' AS severity, 'opt_outs_waiting' AS problem, amount, since,
       amount || ' opt-outs have waited for more than 15 minutes' AS said,
       'leadloop disable --campaign ' || campaign_id AS command
  FROM opt_outs
UNION ALL
SELECT campaign_id, 'critical', 'poll_behind', amount, since,
       'outcomes of more than an hour may be missing', 'leadloop poll --campaign ' || campaign_id
  FROM behind JOIN running USING (campaign_id)
UNION ALL
SELECT campaign_id, 'critical', 'windows_owed', amount, since,
       amount || ' windows did not hold what the vendor counts in them',
       'leadloop poll --campaign ' || campaign_id
  FROM owed
UNION ALL
SELECT campaign_id, 'warning', 'leads_unsent', amount, since,
       amount || ' leads have waited for more than an hour to be sent',
       'leadloop push --campaign ' || campaign_id
  FROM unsent JOIN running USING (campaign_id)
UNION ALL
SELECT campaign_id, 'warning', 'leads_in_doubt', amount, since,
       amount || ' leads have been in doubt for more than an hour: the vendor may or may not have them',
       'leadloop audit --campaign ' || campaign_id
  FROM doubts
UNION ALL
SELECT campaign_id, 'warning', 'outcomes_late', amount, since,
       amount || ' outcomes of the last week came too late for the lookback: set it to '
              || needed_s || ' s or more', 'leadloop backfill --campaign ' || campaign_id
  FROM late
UNION ALL
SELECT campaign_id, 'warning', 'run_failed', 1, coalesce(ended_at, started_at),
       'the last ' || flow || ' ' || state || coalesce(': ' || error, ''), 'leadloop doctor'
  FROM last_runs JOIN running USING (campaign_id) WHERE state IN ('failed', 'crashed')
UNION ALL
SELECT campaign_id, 'warning', 'run_too_long', 1, started_at,
       'a run of ' || flow || ' has not ended for more than two hours', 'leadloop doctor'
  FROM last_runs
 WHERE state = 'running' AND started_at < clock_timestamp() - interval '2 hours';
COMMENT ON VIEW leadloop_monitor.problems IS
    'What is wrong, a row each; none: all is well. The rules of `leadloop status --check`, of the
page, of the exporter and of the events.';
COMMENT ON COLUMN leadloop_monitor.problems.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.problems.severity IS
    'critical: people may be called who opted out, or outcomes are missing; warning: the rest.';
COMMENT ON COLUMN leadloop_monitor.problems.problem IS 'Its name, which stays the same.';
COMMENT ON COLUMN leadloop_monitor.problems.amount IS 'How many leads, windows or runs.';
COMMENT ON COLUMN leadloop_monitor.problems.since IS 'Since when, of the oldest.';
COMMENT ON COLUMN leadloop_monitor.problems.said IS 'In words.';
COMMENT ON COLUMN leadloop_monitor.problems.command IS 'The command that deals with it.';

CREATE VIEW leadloop_monitor.campaign_health AS
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
           min(requested_at) FILTER (WHERE status IN ('requested', 'failed')) AS waiting_since
      FROM leadloop.disable_requests GROUP BY campaign_id
), late AS (
    SELECT campaign_id, count(*) AS late, max(lookback_needed_s) AS needed_s
      FROM leadloop.lead_outcomes WHERE lookback_needed_s IS NOT NULL GROUP BY campaign_id
), problem AS (
    SELECT campaign_id, count(*) AS problems, bool_or(severity = 'critical') AS any_critical
      FROM leadloop_monitor.problems GROUP BY campaign_id
), run AS (
    SELECT campaign_id,
           max(ended_at) FILTER (WHERE flow = 'push-leads') AS last_push_at,
           max(ended_at) FILTER (WHERE flow = 'poll-outcomes') AS last_poll_at,
           max(ended_at) FILTER (WHERE flow = 'disable-leads') AS last_disable_at
      FROM leadloop.sync_runs WHERE state = 'completed' GROUP BY campaign_id
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
       run.last_push_at, run.last_poll_at, run.last_disable_at
  FROM leadloop.campaigns AS campaign
  LEFT JOIN lead USING (campaign_id)
  LEFT JOIN outcome USING (campaign_id)
  LEFT JOIN opt_out USING (campaign_id)
  LEFT JOIN late USING (campaign_id)
  LEFT JOIN problem USING (campaign_id)
  LEFT JOIN run USING (campaign_id)
  LEFT JOIN leadloop.watermarks AS mark
         ON mark.campaign_id = campaign.campaign_id AND mark.stream = 'outcomes';
COMMENT ON VIEW leadloop_monitor.campaign_health IS 'Where each campaign stands: a row each.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.name IS 'Yours; leadloop makes no use of it.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.enabled IS
    'Whether runs that name no campaign take it.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.health IS
    'ok, warning or critical: the worst of its problems.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.problems IS 'How many problems it has.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.new IS 'Leads that are to be sent.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.sending IS 'Leads that may be on their way.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.in_doubt IS
    'Leads that the vendor may or may not have.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.created IS 'Leads that the vendor has.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.rejected IS 'Leads that will not be sent so.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.cancelled IS
    'Leads that opted out before they were sent.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.processed IS 'Leads that have an outcome.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.cost IS
    'What the vendor says the outcomes cost, in its currency.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disabled IS
    'Opt-outs that the vendor has confirmed.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disable_pending IS
    'Opt-outs that are not confirmed yet.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disable_failed IS
    'Opt-outs that the vendor refuses.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disable_oldest_s IS
    'For how long the oldest open opt-out has waited, seconds; null where none waits.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.new_oldest_s IS
    'For how long the oldest unsent lead has waited, seconds; null where none waits.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.watermark IS
    'Everything processed up to here is stored; null before the first poll.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.watermark_lag_s IS
    'How far that is behind now, seconds.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.late IS
    'Outcomes that a poll before should have found.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.lookback_needed_s IS
    'The lookback with which none of them would have been late, seconds.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.last_push_at IS
    'When a push was last completed.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.last_poll_at IS
    'When a poll was last completed.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.last_disable_at IS
    'When a disable was last completed.';

-- The reader --------------------------------------------------------------------------------------

-- A role belongs to the whole server: it may be there already, of another database, and to make it
-- takes a right that not everybody has. Whoever lacks it is told by `leadloop doctor`.
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
