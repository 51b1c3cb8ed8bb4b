-- Health: the one definition, for the command line, the events, the page and the exporter ----------

CREATE OR REPLACE VIEW leadloop_monitor.problems AS
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
           ceil(max(outcome.lookback_needed_s)) AS needed_s,
           date_trunc('second', min(outcome.processed_at)) AS after,
           date_trunc('second', max(outcome.seen_at)) + interval '1 second' AS before
      FROM leadloop.lead_outcomes AS outcome JOIN leadloop.campaigns AS campaign USING (campaign_id)
     WHERE outcome.lookback_needed_s > coalesce(campaign.lookback_s, 900)
       AND outcome.seen_at > clock_timestamp() - interval '7 days'
     GROUP BY outcome.campaign_id
), last_runs AS (
    SELECT DISTINCT ON (campaign_id, flow) campaign_id, flow, state, started_at, ended_at, error
      FROM leadloop.sync_runs ORDER BY campaign_id, flow, run_id DESC
), found AS (
    SELECT campaign_id, 'critical' AS severity, 'opt_outs_waiting' AS problem, amount, since,
           CASE amount WHEN 1 THEN '1 opt-out has' ELSE amount || ' opt-outs have' END
               || ' waited for more than 15 minutes' AS said,
           'leadloop disable --campaign {campaign}' AS command
      FROM opt_outs
    UNION ALL
    SELECT campaign_id, 'critical', 'poll_behind', amount, since,
           'outcomes of more than an hour may be missing', 'leadloop poll --campaign {campaign}'
      FROM behind JOIN running USING (campaign_id)
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
    SELECT campaign_id, 'warning', 'run_failed', 1, coalesce(ended_at, started_at),
           'the last ' || flow || ' ' || state || coalesce(': ' || error, ''), 'leadloop doctor'
      FROM last_runs JOIN running USING (campaign_id) WHERE state IN ('failed', 'crashed')
    UNION ALL
    SELECT campaign_id, 'warning', 'run_too_long', 1, started_at,
           'a run of ' || flow || ' has not ended for more than two hours', 'leadloop doctor'
      FROM last_runs
     WHERE state = 'running' AND started_at < clock_timestamp() - interval '2 hours'
)
SELECT campaign_id, severity, problem, amount, since, said,
       -- Ids are anybody's: between quotes a shell takes nothing for a command, or for two words.
       replace(command, '{campaign}',
               CASE WHEN campaign_id ~ '^[A-Za-z0-9][A-Za-z0-9_.:@/-]*$' THEN campaign_id
                    ELSE '''' || replace(campaign_id, '''', '''\''''') || '''' END) AS command
  FROM found;
COMMENT ON COLUMN leadloop_monitor.problems.command IS
    'The command that deals with it, quoted for a shell.';

-- By hour, without the leads ----------------------------------------------------------------------

CREATE VIEW leadloop_monitor.outcomes_by_hour AS
SELECT campaign_id, date_trunc('hour', processed_at) AS hour, outcome_name,
       count(*) AS outcomes, sum(total_cost) AS cost
  FROM leadloop.lead_outcomes GROUP BY 1, 2, 3;
COMMENT ON VIEW leadloop_monitor.outcomes_by_hour IS
    'Outcomes and what they cost, by hour: outcome_breakdown without states, several times as fast.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.hour IS 'The hour in which it was processed.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.outcome_name IS
    'The outcome; null where the vendor names none.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.outcomes IS 'How many leads.';
COMMENT ON COLUMN leadloop_monitor.outcomes_by_hour.cost IS
    'The sum of what the vendor says they cost, in its currency.';

CREATE VIEW leadloop_monitor.attempts_by_hour AS
SELECT campaign_id, date_trunc('hour', occurred_at) AS hour, count(*) AS attempts,
       count(*) FILTER (WHERE duration_s > 0) AS connected
  FROM leadloop.outreach_attempts GROUP BY 1, 2;
COMMENT ON VIEW leadloop_monitor.attempts_by_hour IS
    'Calls, emails, SMS and IVR by hour: attempt_stats without states, several times as fast.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.campaign_id IS
    'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.hour IS
    'The hour in which it was made; null where the vendor does not say.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.attempts IS 'How many.';
COMMENT ON COLUMN leadloop_monitor.attempts_by_hour.connected IS
    'How many of them lasted: duration above nought.';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'leadloop_reader') THEN
        GRANT SELECT ON ALL TABLES IN SCHEMA leadloop_monitor TO leadloop_reader;
    END IF;
END $$;
