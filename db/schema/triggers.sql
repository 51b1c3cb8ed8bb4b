-- Functions, and triggers. The file may be applied again (idempotent).

-- The values that distinguish this database from its copies: see db.create_holds. A managed service
-- may refuse to show a value; then it is NULL, which equals every value.
CREATE OR REPLACE FUNCTION leadloop.read_database_identity(
    OUT system_identifier text, OUT timeline text, OUT database_oid oid)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    BEGIN
        system_identifier := (pg_control_system()).system_identifier;
    EXCEPTION WHEN OTHERS THEN
    END;
    BEGIN
        timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    EXCEPTION WHEN OTHERS THEN
    END;
    database_oid := (SELECT oid FROM pg_database WHERE datname = current_database());
END $$;

-- Each function of a trigger rejects every table but its own. A foreign trigger on another table would run the
-- function with foreign rows and names, with the rights of this schema's owner.

CREATE OR REPLACE FUNCTION leadloop.note_opt_out() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> CAST('leadloop.disable_requests' AS regclass) THEN
        RAISE EXCEPTION 'leadloop.note_opt_out serves leadloop.disable_requests alone';
    END IF;
    -- Locked in one order, so that two statements that opt out the same leads cannot deadlock.
    PERFORM FROM leadloop.leads AS lead JOIN opt_outs USING (campaign_id, lead_id)
      WHERE NOT lead.opted_out ORDER BY lead.campaign_id, lead.lead_id
        FOR NO KEY UPDATE OF lead;
    UPDATE leadloop.leads AS lead SET opted_out = true FROM opt_outs
     WHERE lead.campaign_id = opt_outs.campaign_id AND lead.lead_id = opt_outs.lead_id
       AND NOT lead.opted_out;
    -- A campaign's opt-out source may name many people who are no leads: db.opt_out_source.
    UPDATE leadloop.disable_requests AS request SET names_no_lead = true FROM opt_outs
     WHERE request.campaign_id = opt_outs.campaign_id AND request.lead_id = opt_outs.lead_id
       AND request.origin IS DISTINCT FROM 'opt_out_source'
       AND NOT EXISTS (SELECT FROM leadloop.leads AS lead
                        WHERE lead.campaign_id = opt_outs.campaign_id
                          AND lead.lead_id = opt_outs.lead_id);
    RETURN NULL;
END $$;

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

    -- A snapshot older than a concurrent DELETE's commit lacks the rows that the DELETE left in
    -- sent_leads: the lead would be sent twice. An INSERT of the same key fails instead (40001).
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
                        THEN 'its row was deleted before the vendor confirmed the lead' END
      FROM inserted JOIN leadloop.sent_leads AS sent USING (campaign_id, lead_id)
     WHERE lead.campaign_id = sent.campaign_id AND lead.lead_id = sent.lead_id;
    DELETE FROM leadloop.sent_leads AS sent USING inserted
     WHERE sent.campaign_id = inserted.campaign_id AND sent.lead_id = inserted.lead_id;
    -- The vendor holds every lead that it has called, also one that others created there. As `new`
    -- such a lead would be called again, and its opt-out would not reach the vendor.
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

CREATE OR REPLACE FUNCTION leadloop.remember_sent_leads() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- The rows that the statement removes: a transition table, or all rows.
    removed text := 'deleted';
BEGIN
    IF TG_RELID <> CAST('leadloop.leads' AS regclass) THEN
        RAISE EXCEPTION 'leadloop.remember_sent_leads serves leadloop.leads alone';
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        removed := 'leadloop.leads';
        -- TRUNCATE removes rows that an older snapshot lacks, or shows as not sent yet.
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'TRUNCATE leadloop.leads needs the isolation level READ COMMITTED'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Leads that were sent meanwhile would be sent again. DELETE is safe.';
        END IF;
    END IF;
    EXECUTE $sql$
        INSERT INTO leadloop.sent_leads (campaign_id, lead_id, status, sent_at, confirmed_at,
                                         doubted_at, run_id, claim_no)
        SELECT campaign_id, lead_id, CASE status WHEN 'created' THEN status ELSE 'in_doubt' END,
               sent_at, confirmed_at,
               CASE status WHEN 'sending' THEN CAST('infinity' AS timestamptz) ELSE doubted_at END,
               run_id, claim_no
          FROM $sql$ || removed || $sql$ WHERE status IN ('sending', 'created', 'in_doubt')
        ON CONFLICT DO NOTHING $sql$;
    RETURN NULL;
END $$;

-- Shows live runs (db.notifications) that there may be work. Nothing depends on it: they look anyway.
-- One text for all, so that a transaction sends it once; a listener learns nothing else.
CREATE OR REPLACE FUNCTION leadloop.announce_work() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- No write may fail because of a notification: with a full queue, its commit would.
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('leadloop_work', '');
    END IF;
    RETURN NULL;
END $$;

-- Covering rows of earlier runs do not stand for a campaign that was not enabled then.
CREATE OR REPLACE FUNCTION leadloop.note_enabled() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.enabled_at := clock_timestamp();
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER note_enabled BEFORE UPDATE OF enabled ON leadloop.campaigns
    FOR EACH ROW WHEN (NEW.enabled AND NOT OLD.enabled)
    EXECUTE FUNCTION leadloop.note_enabled();

-- Moves no campaign away from the account whose vendor has its leads: there they would be looked up in
-- vain and created again, and their opt-outs would not arrive.
CREATE OR REPLACE FUNCTION leadloop.note_account() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> CAST('leadloop.campaigns' AS regclass) THEN
        RAISE EXCEPTION 'leadloop.note_account serves leadloop.campaigns alone';
    END IF;
    IF coalesce(current_setting('leadloop.renames_account', true), '') <> 'on' THEN
        -- An older snapshot lacks the leads of claims that have committed since.
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'a change of leadloop.campaigns.account needs the isolation level READ COMMITTED'
                USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        -- Waits for the claims at work, and has later ones wait: see db.leads.
        PERFORM FROM leadloop.campaigns WHERE campaign_id = OLD.campaign_id FOR UPDATE;
        IF EXISTS (SELECT FROM leadloop.leads
                    WHERE campaign_id = OLD.campaign_id
                      AND (status IN ('sending', 'created', 'in_doubt')
                           OR status = 'rejected' AND sent_at IS NOT NULL))
           OR EXISTS (SELECT FROM leadloop.sent_leads WHERE campaign_id = OLD.campaign_id)
           OR EXISTS (SELECT FROM leadloop.lead_outcomes WHERE campaign_id = OLD.campaign_id)
           OR EXISTS (SELECT FROM leadloop.disable_requests
                       WHERE campaign_id = OLD.campaign_id AND status IN ('requested', 'failed'))
           -- After a restore the vendor may have leads that are new here.
           OR EXISTS (SELECT FROM leadloop.create_holds
                       WHERE campaign_id = OLD.campaign_id AND released_at IS NULL)
        THEN
            RAISE EXCEPTION USING
                ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'campaign ' || OLD.campaign_id || ' cannot move from account ' || OLD.account || ' to '
                          || NEW.account || ': leads were sent with the login of ' || OLD.account
                          || ', or opt-outs wait, or creates are held',
                HINT = 'Insert a new campaign for the other account. If the account only gets another name, with '
                       'the same login, run SET LOCAL leadloop.renames_account = ''on'' before, in the same '
                       'transaction.';
        END IF;
    END IF;
    -- Covering rows of earlier runs do not stand for a campaign that had another account then.
    NEW.enabled_at := clock_timestamp();
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER note_account BEFORE UPDATE OF account ON leadloop.campaigns
    FOR EACH ROW WHEN (NEW.account <> OLD.account)
    EXECUTE FUNCTION leadloop.note_account();

CREATE OR REPLACE TRIGGER announce_leads AFTER INSERT ON leadloop.leads
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.announce_work();
CREATE OR REPLACE TRIGGER announce_opt_outs AFTER INSERT ON leadloop.disable_requests
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.announce_work();
CREATE OR REPLACE TRIGGER announce_campaigns
    AFTER INSERT OR UPDATE OF enabled, push_enabled, source, opt_out_source ON leadloop.campaigns
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.announce_work();

CREATE OR REPLACE TRIGGER note_opt_out AFTER INSERT ON leadloop.disable_requests
    REFERENCING NEW TABLE AS opt_outs
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.note_opt_out();

CREATE OR REPLACE TRIGGER note_opted_out_leads AFTER INSERT ON leadloop.leads
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.note_opted_out_leads();

CREATE OR REPLACE TRIGGER remember_deleted_leads AFTER DELETE ON leadloop.leads
    REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.remember_sent_leads();

CREATE OR REPLACE TRIGGER remember_truncated_leads BEFORE TRUNCATE ON leadloop.leads
    FOR EACH STATEMENT EXECUTE FUNCTION leadloop.remember_sent_leads();

-- Postgres grants EXECUTE on a new function to PUBLIC. A role with EXECUTE on a trigger's function
-- could attach it to its own table, where it runs with the rights of this schema's owner.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA leadloop FROM PUBLIC;
