-- Sent leads --------------------------------------------------------------------------------------

CREATE TABLE leadloop.sent_leads (
    campaign_id  text NOT NULL,
    lead_id      text NOT NULL,
    status       text NOT NULL CHECK (status IN ('created', 'in_doubt')),
    sent_at      timestamptz,
    confirmed_at timestamptz,
    doubted_at   timestamptz,
    run_id       bigint,
    claim_no     integer,
    deleted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (campaign_id, lead_id)
);
COMMENT ON TABLE leadloop.sent_leads IS
    'Leads that were sent and whose rows in `leads` were deleted: a lead that is inserted again is
not created again. Nothing personal; triggers of `leads` keep it.';
COMMENT ON COLUMN leadloop.sent_leads.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.sent_leads.lead_id IS 'The lead''s id.';
COMMENT ON COLUMN leadloop.sent_leads.status IS
    'What the lead is when it is inserted again; in_doubt too if it was deleted while `sending`.';
COMMENT ON COLUMN leadloop.sent_leads.sent_at IS 'As in `leads`.';
COMMENT ON COLUMN leadloop.sent_leads.confirmed_at IS 'As in `leads`.';
COMMENT ON COLUMN leadloop.sent_leads.doubted_at IS
    'As in `leads`; infinity while the run that sends it has neither an answer nor given up.';
COMMENT ON COLUMN leadloop.sent_leads.run_id IS
    'As in `leads`: an answer that is still on its way settles the lead once it is back.';
COMMENT ON COLUMN leadloop.sent_leads.claim_no IS 'As in `leads`.';
COMMENT ON COLUMN leadloop.sent_leads.deleted_at IS 'When the row was deleted.';

CREATE INDEX sent_leads_in_doubt ON leadloop.sent_leads (campaign_id) WHERE status = 'in_doubt';

-- Opt-outs that name no lead ----------------------------------------------------------------------

ALTER TABLE leadloop.disable_requests
    ADD COLUMN names_no_lead boolean NOT NULL DEFAULT false,
    ADD COLUMN next_try_at timestamptz;
COMMENT ON COLUMN leadloop.leads.doubted_at IS
    'Since when it has been in doubt: the vendor has `settle` seconds from then to show it. Infinity:
its row was deleted and inserted again while it was being sent, and the run has not given up yet.';
COMMENT ON COLUMN leadloop.disable_requests.names_no_lead IS
    'No lead had this id when the opt-out was inserted; one may have come since.';
COMMENT ON COLUMN leadloop.disable_requests.next_try_at IS
    'Of a failed one: when it is tried again, at least daily.';
COMMENT ON COLUMN leadloop.disable_requests.status IS
    'requested: not yet confirmed; disabled: the vendor confirmed; cancelled: the lead had not been
sent and never will be; failed: the vendor refuses it or fails on it, see last_error (it is tried
again, at least daily).';
UPDATE leadloop.disable_requests SET next_try_at = clock_timestamp() WHERE status = 'failed';
UPDATE leadloop.disable_requests AS request SET names_no_lead = true
 WHERE NOT EXISTS (SELECT FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = request.campaign_id
                      AND lead.lead_id = request.lead_id);
CREATE INDEX disable_requests_no_lead ON leadloop.disable_requests (campaign_id, lead_id)
    WHERE names_no_lead;
-- For the leads that such an opt-out may mean. An id that is folded already is found by the primary
-- key: ids of digits or small letters take no room here.
CREATE INDEX leads_folded_id ON leadloop.leads (campaign_id, (FOLDED(lead_id)))
    WHERE lead_id <> FOLDED(lead_id);
CREATE INDEX sent_leads_folded_id ON leadloop.sent_leads (campaign_id, (FOLDED(lead_id)))
    WHERE lead_id <> FOLDED(lead_id);

-- The brake ---------------------------------------------------------------------------------------

ALTER TABLE leadloop.campaigns ADD COLUMN push_enabled boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN leadloop.campaigns.push_enabled IS
    'False: no lead is created from the next claim on; opt-outs, polls and lookups go on (leadloop
pause and resume).';
COMMENT ON COLUMN leadloop.campaigns.enabled IS
    'Pushes and polls that name no campaign take every enabled one. Opt-outs are sent whatever it
says.';
COMMENT ON COLUMN leadloop.campaigns.source IS
    'A table or view of this database with its schema, as in crm.leads_for_calls, from which each
push takes the campaign''s leads; null: leads are inserted.';

-- Triggers ----------------------------------------------------------------------------------------

-- Each function refuses every table but its own: a trigger on another one would run it with rows
-- and names of somebody else's making, as the owner of this schema.

CREATE OR REPLACE FUNCTION leadloop.note_opt_out() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> CAST('leadloop.disable_requests' AS regclass) THEN
        RAISE EXCEPTION 'leadloop.note_opt_out serves leadloop.disable_requests alone';
    END IF;
    -- Locked in one order, so that two statements that opt out the same leads do not deadlock.
    PERFORM FROM leadloop.leads AS lead JOIN opt_outs USING (campaign_id, lead_id)
      WHERE NOT lead.opted_out ORDER BY lead.campaign_id, lead.lead_id
        FOR NO KEY UPDATE OF lead;
    UPDATE leadloop.leads AS lead SET opted_out = true FROM opt_outs
     WHERE lead.campaign_id = opt_outs.campaign_id AND lead.lead_id = opt_outs.lead_id
       AND NOT lead.opted_out;
    UPDATE leadloop.disable_requests AS request SET names_no_lead = true FROM opt_outs
     WHERE request.campaign_id = opt_outs.campaign_id AND request.lead_id = opt_outs.lead_id
       AND NOT EXISTS (SELECT FROM leadloop.leads AS lead
                        WHERE lead.campaign_id = opt_outs.campaign_id
                          AND lead.lead_id = opt_outs.lead_id);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION leadloop.note_opt_out() IS
    'Writes opt-outs on the leads themselves: a claim that runs at the same moment waits for the row
or skips it, and then sees the opt-out. Marks those that name no lead. Security definer: upstream
needs no right on leads.';

CREATE OR REPLACE FUNCTION leadloop.note_opted_out_leads() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> CAST('leadloop.leads' AS regclass) THEN
        RAISE EXCEPTION 'leadloop.note_opted_out_leads serves leadloop.leads alone';
    END IF;
    UPDATE leadloop.leads AS lead SET opted_out = true
      FROM inserted JOIN leadloop.disable_requests AS d USING (campaign_id, lead_id)
     WHERE lead.campaign_id = d.campaign_id AND lead.lead_id = d.lead_id;
    UPDATE leadloop.leads AS lead
       SET phone_number = NULL, contact_name = NULL, state_code = NULL, ebr_datetime = NULL,
           custom_fields = '{}'
      FROM inserted JOIN leadloop.forgotten USING (campaign_id, lead_id)
     WHERE lead.campaign_id = forgotten.campaign_id AND lead.lead_id = forgotten.lead_id;

    -- A snapshot that is older than a concurrent DELETE's commit does not show what that has left in
    -- sent_leads, and the lead would be sent twice. An INSERT of the same key fails then (40001).
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        INSERT INTO leadloop.sent_leads (campaign_id, lead_id, status, claim_no)
        SELECT campaign_id, lead_id, 'in_doubt', -1 FROM inserted ON CONFLICT DO NOTHING;
        DELETE FROM leadloop.sent_leads AS probe USING inserted
         WHERE probe.campaign_id = inserted.campaign_id AND probe.lead_id = inserted.lead_id
           AND probe.claim_no = -1;
    END IF;
    UPDATE leadloop.leads AS lead
       SET status = sent.status, sent_at = sent.sent_at, confirmed_at = sent.confirmed_at,
           doubted_at = sent.doubted_at, run_id = sent.run_id, claim_no = sent.claim_no,
           last_error = CASE sent.status WHEN 'in_doubt'
                        THEN 'its row was deleted before the vendor was known to have it' END
      FROM inserted JOIN leadloop.sent_leads AS sent USING (campaign_id, lead_id)
     WHERE lead.campaign_id = sent.campaign_id AND lead.lead_id = sent.lead_id;
    DELETE FROM leadloop.sent_leads AS sent USING inserted
     WHERE sent.campaign_id = inserted.campaign_id AND sent.lead_id = inserted.lead_id;
    -- A lead that the vendor has called, it has: it was deleted before sent_leads was there, or was
    -- created by somebody else. As `new` it would be called again, and its opt-out kept from the
    -- vendor.
    UPDATE leadloop.leads AS lead
       SET status = 'created', confirmed_at = coalesce(lead.confirmed_at, clock_timestamp()),
           sent_at = coalesce(lead.sent_at, clock_timestamp()), last_error = NULL,
           doubted_at = NULL
      FROM inserted
     WHERE lead.campaign_id = inserted.campaign_id AND lead.lead_id = inserted.lead_id
       AND lead.status <> 'created'
       AND (EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                     WHERE outcome.campaign_id = inserted.campaign_id
                       AND outcome.lead_id = inserted.lead_id)
            OR EXISTS (SELECT FROM leadloop.outreach_attempts AS attempt
                        WHERE attempt.campaign_id = inserted.campaign_id
                          AND attempt.lead_id = inserted.lead_id));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION leadloop.note_opted_out_leads() IS
    'Completes inserted leads by what is known already: an opt-out that came before its lead; a lead
that is forgotten, sent before its row was deleted, or called by the vendor.';

CREATE FUNCTION leadloop.remember_sent_leads() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> CAST('leadloop.leads' AS regclass) THEN
        RAISE EXCEPTION 'leadloop.remember_sent_leads serves leadloop.leads alone';
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        -- TRUNCATE removes rows that an older snapshot does not show, or shows as not sent yet.
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'TRUNCATE leadloop.leads needs the isolation level READ COMMITTED'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Leads that were sent meanwhile would be sent again. DELETE is safe.';
        END IF;
        INSERT INTO leadloop.sent_leads (campaign_id, lead_id, status, sent_at, confirmed_at,
                                         doubted_at, run_id, claim_no)
        SELECT campaign_id, lead_id, CASE status WHEN 'created' THEN status ELSE 'in_doubt' END,
               sent_at, confirmed_at,
               CASE status WHEN 'sending' THEN CAST('infinity' AS timestamptz) ELSE doubted_at END,
               run_id, claim_no
          FROM leadloop.leads WHERE status IN ('sending', 'created', 'in_doubt')
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO leadloop.sent_leads (campaign_id, lead_id, status, sent_at, confirmed_at,
                                         doubted_at, run_id, claim_no)
        SELECT campaign_id, lead_id, CASE status WHEN 'created' THEN status ELSE 'in_doubt' END,
               sent_at, confirmed_at,
               CASE status WHEN 'sending' THEN CAST('infinity' AS timestamptz) ELSE doubted_at END,
               run_id, claim_no
          FROM deleted WHERE status IN ('sending', 'created', 'in_doubt')
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION leadloop.remember_sent_leads() IS
    'Keeps id, status and times of sent leads whose rows are deleted or truncated.';
CREATE TRIGGER remember_deleted_leads AFTER DELETE ON leadloop.leads
    REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.remember_sent_leads();
CREATE TRIGGER remember_truncated_leads BEFORE TRUNCATE ON leadloop.leads
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.remember_sent_leads();

-- Postgres lets everybody execute a new function. Who may execute a trigger's function may hang it on
-- a table of their own, where it runs as the owner of this schema.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA leadloop FROM PUBLIC;

-- Health: opt-outs that name no lead, the brake ----------------------------------------------------

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
           min(least(requested_at, clock_timestamp())) AS since,
           array_to_string((array_agg(lead_id ORDER BY requested_at, lead_id))[1:3], ', ') AS sample
      FROM leadloop.disable_requests
     WHERE status IN ('requested', 'failed')
       -- One from the future has waited for nobody knows how long.
       AND requested_at NOT BETWEEN clock_timestamp() - interval '15 minutes'
                                AND clock_timestamp() + interval '15 minutes'
     GROUP BY campaign_id, status
), nameless AS (
    -- The vendor may have leads that we have not, and an opt-out may come before its lead. Scalar
    -- subqueries, looked up one by one: these opt-outs are few, and leads are many.
    SELECT request.campaign_id, request.lead_id, request.requested_at, meant.lead_id AS meant_id
      FROM leadloop.disable_requests AS request
     CROSS JOIN LATERAL (
           -- Of leads whose ids differ from the opt-out's by case, blanks or invisible characters.
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
), misspelt AS (
    SELECT campaign_id, count(*) AS amount, min(least(requested_at, clock_timestamp())) AS since,
           min(meant_id) AS meant_id
      FROM nameless WHERE meant_id IS NOT NULL GROUP BY campaign_id
), unknown AS (
    SELECT campaign_id, count(*) AS amount, min(requested_at) AS since,
           array_to_string((array_agg(lead_id ORDER BY requested_at, lead_id))[1:3], ', ') AS sample
      FROM nameless
     WHERE meant_id IS NULL AND requested_at < clock_timestamp() - interval '1 hour'
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
           'the vendor does not confirm '
               || CASE amount WHEN 1 THEN '1 opt-out' ELSE amount || ' opt-outs' END
               || ', tried again at least daily: ' || sample,
           'leadloop requeue --disables --campaign {campaign}'
      FROM opt_outs WHERE status = 'failed'
    UNION ALL
    SELECT campaign_id, 'critical', 'opt_outs_misspelt', amount, since,
           CASE amount WHEN 1 THEN '1 opt-out names' ELSE amount || ' opt-outs name' END
               || ' no lead, and a lead whose id differs by case, blanks or invisible characters'
               || ' alone is not opted out: INSERT INTO leadloop.disable_requests'
               || ' (campaign_id, lead_id) VALUES (' || quote_literal(campaign_id) || ', '
               || quote_literal(meant_id) || ')',
           'leadloop disable --campaign {campaign}'
      FROM misspelt
    UNION ALL
    SELECT campaign_id, 'warning', 'opt_outs_unknown', amount, since,
           CASE amount WHEN 1 THEN '1 opt-out has' ELSE amount || ' opt-outs have' END
               || ' named no known lead for more than an hour: are id and campaign right? '
               || sample,
           'leadloop audit --campaign {campaign}'
      FROM unknown
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
               || ' waited for more than an hour to be sent'
               || CASE WHEN campaign.push_enabled THEN '' ELSE '; the campaign is paused' END,
           CASE WHEN campaign.push_enabled THEN 'leadloop push' ELSE 'leadloop resume' END
               || ' --campaign {campaign}'
      FROM unsent JOIN running USING (campaign_id)
      JOIN leadloop.campaigns AS campaign USING (campaign_id)
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
    SELECT campaign_id, severity, problem, amount, since, said, command
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
       last_disable.ended_at AS last_disable_at,
       campaign.push_enabled
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
COMMENT ON COLUMN leadloop_monitor.campaign_health.push_enabled IS
    'Whether it may create leads; false while it is paused.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.enabled IS
    'Whether pushes and polls that name no campaign take it.';
COMMENT ON COLUMN leadloop_monitor.campaign_health.disable_failed IS
    'Opt-outs that the vendor refuses or fails on.';
