-- Tables and indexes. db.schema expands the macro `FOLDED(column)`: a normalised lead id.

-- Campaigns ---------------------------------------------------------------------------------------

CREATE TABLE leadloop.campaigns (
    campaign_id     text PRIMARY KEY CHECK (campaign_id <> ''),
    name            text,
    enabled         boolean NOT NULL DEFAULT true,
    batch_size      integer CHECK (batch_size > 0),
    page_size       integer CHECK (page_size > 0),
    lookback_s      integer CHECK (lookback_s >= 0),
    settle_s        integer CHECK (settle_s >= 0),
    window_s        integer CHECK (window_s > 0),
    epoch_unit      text CHECK (epoch_unit IN ('ms', 's')),
    default_region  text CHECK (default_region ~ '^[A-Z]{2}$'),
    required_fields text[],
    area_codes      text[] CHECK (
        array_to_string(area_codes, ',') ~ '^[2-9][0-9]{2}(,[2-9][0-9]{2})*$'),
    sends_opted_out_numbers boolean NOT NULL DEFAULT false,
    numeric_lead_ids boolean NOT NULL DEFAULT false,
    source          text,
    source_timeout_s integer CHECK (source_timeout_s > 0),
    on_source_removal text NOT NULL DEFAULT 'keep' CHECK (on_source_removal IN ('keep', 'opt_out')),
    -- A copied name would opt out all leads.
    opt_out_source  text CONSTRAINT campaigns_opt_out_source_is_another
                    CHECK (opt_out_source <> source),
    shows_unprocessed boolean,
    visibility_tried_at timestamptz,
    specimen_lead_id text,
    specimen_at     timestamptz,
    push_enabled    boolean NOT NULL DEFAULT true,
    create_accepted_at timestamptz,
    create_failed_at   timestamptz,
    listing_failed_at  timestamptz,
    priority        smallint NOT NULL DEFAULT 0 CHECK (priority >= 0),
    max_lead_age_s  integer CHECK (max_lead_age_s > 0),
    calling_hours   text CHECK (
        calling_hours ~ '^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9] \S+$'
        AND substr(calling_hours, 1, 5) <> substr(calling_hours, 7, 5)),
    enabled_at      timestamptz NOT NULL DEFAULT now(),
    raw_cleared_through timestamptz,
    -- The form of leadloop.core.accounts: part of a variable, and of a block's name in Prefect.
    account         text NOT NULL DEFAULT 'default' CHECK (
        account ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(account) <= 40),
    thresholds      jsonb NOT NULL DEFAULT '{}',
    -- Names of the view thresholds; whole seconds, and whole minutes but for latencies.
    CONSTRAINT campaigns_thresholds_named CHECK (
        jsonb_typeof(thresholds) = 'object' AND thresholds - ARRAY[
            'opt_outs_waiting', 'opt_outs_unknown', 'poll_behind', 'windows_owed',
            'leads_unsent', 'leads_in_doubt', 'outcomes_late', 'run_failed', 'run_too_long',
            'nothing_runs', 'results_unreadable', 'outcomes_unknown', 'leads_rejected',
            'doubts_growing', 'lead_slow', 'opt_out_slow', 'outcome_slow']
            = '{}'),
    CONSTRAINT campaigns_thresholds_whole CHECK (
        NOT jsonb_path_exists(thresholds, 'strict $.* ? (@.type() != "number"
            || @ < 1 || @ > 31536000 || @.floor() != @)')
        AND NOT jsonb_path_exists(thresholds - ARRAY['lead_slow', 'opt_out_slow', 'outcome_slow'],
                                  'strict $.* ? ((@ / 60).floor() * 60 != @)')),
    -- People who opted out may not be contacted, so an alert comes after a day at most.
    CONSTRAINT campaigns_thresholds_of_opt_outs CHECK (
        NOT jsonb_path_exists(thresholds,
                              'lax $.keyvalue() ? (@.key starts with "opt_outs_").value ? (@ > 86400)'))
);

-- Runs --------------------------------------------------------------------------------------------

CREATE TABLE leadloop.sync_runs (
    run_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow        text NOT NULL,
    campaign_id text NOT NULL,
    flow_run_id text,
    state       text NOT NULL DEFAULT 'running'
                CHECK (state IN ('running', 'completed', 'failed', 'crashed')),
    started_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    counts      jsonb NOT NULL DEFAULT '{}',
    error       text,
    lock_id     bigint,
    account     text NOT NULL DEFAULT 'default'
);
CREATE INDEX sync_runs_running ON leadloop.sync_runs (run_id) WHERE state = 'running';
CREATE INDEX sync_runs_recent ON leadloop.sync_runs (campaign_id, started_at);
-- For the last run of each flow, among hundreds of thousands of runs.
CREATE INDEX sync_runs_by_flow ON leadloop.sync_runs (campaign_id, flow, run_id DESC);
-- For the first push that created a lead, for pushes with problems, and for runs that failed.
CREATE INDEX sync_runs_created ON leadloop.sync_runs (campaign_id, run_id)
    WHERE flow = 'push-leads' AND CAST(counts ->> 'created' AS bigint) > 0;
CREATE INDEX sync_runs_troubled ON leadloop.sync_runs (campaign_id, run_id DESC)
    WHERE flow = 'push-leads' AND (CAST(counts ->> 'rejected' AS bigint)
                                       > coalesce(CAST(counts ->> 'created' AS bigint), 0)
                                   OR CAST(counts ->> 'in_doubt' AS bigint) > 0
                                   OR CAST(counts ->> 'unreadable_rows' AS bigint) > 0);
-- For the last covering rows of each account.
CREATE INDEX sync_runs_covering ON leadloop.sync_runs (account, flow, run_id DESC)
    WHERE campaign_id = '';
CREATE INDEX sync_runs_failed ON leadloop.sync_runs (campaign_id, flow, run_id DESC)
    WHERE state IN ('failed', 'crashed');

-- Leads -------------------------------------------------------------------------------------------

CREATE TABLE leadloop.leads (
    campaign_id   text NOT NULL,
    lead_id       text NOT NULL CHECK (lead_id <> ''),
    phone_number  text,
    contact_name  text,
    state_code    text,
    ebr_datetime  timestamptz,
    custom_fields jsonb NOT NULL DEFAULT '{}',
    status        text NOT NULL DEFAULT 'new' CHECK (status IN
                  ('new', 'sending', 'created', 'rejected', 'in_doubt', 'cancelled')),
    opted_out     boolean NOT NULL DEFAULT false,
    number_noted  boolean NOT NULL DEFAULT false,
    from_source   boolean NOT NULL DEFAULT false,
    last_error    text,
    inserted_at   timestamptz NOT NULL DEFAULT now(),
    sent_at       timestamptz,
    confirmed_at  timestamptz,
    doubted_at    timestamptz,
    looked_up_at  timestamptz,
    run_id        bigint,
    claim_no      integer,
    seq           bigint GENERATED ALWAYS AS IDENTITY,
    suspect_list  bigint,
    suspected_at  timestamptz,
    last_failed_at timestamptz,
    lone_failures integer NOT NULL DEFAULT 0,
    next_try_at   timestamptz,
    priority      smallint NOT NULL DEFAULT 0 CHECK (priority >= 0),
    PRIMARY KEY (campaign_id, lead_id)
)
-- fillfactor: free space in each page for the two updates of a sent lead: a quarter less WAL.
-- Each lead leaves two dead rows; vacuum comes after a fiftieth of the rows, not after a fifth.
WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02,
      autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX leads_new ON leadloop.leads (campaign_id, seq) WHERE status = 'new';
CREATE INDEX leads_urgent ON leadloop.leads (campaign_id, priority DESC, seq)
    WHERE status = 'new' AND priority > 0;
CREATE INDEX leads_suspected ON leadloop.leads (campaign_id, suspect_list)
    WHERE suspect_list IS NOT NULL;
-- By lead, not by time: every lead passes through this index, so most entries are dead, and a
-- response must find its hundred leads without scanning them.
CREATE INDEX leads_unsettled ON leadloop.leads (campaign_id, lead_id)
    WHERE status IN ('sending', 'in_doubt');
CREATE INDEX leads_number_to_note ON leadloop.leads (campaign_id, lead_id)
    WHERE opted_out AND NOT number_noted;
-- For the newest leads of each reason, which may be long: its hash.
CREATE INDEX leads_rejected ON leadloop.leads
    (campaign_id, hashtext(coalesce(last_error, '')), seq DESC) WHERE status = 'rejected';
-- To find the lead that an opt-out with a misspelt id may mean. Ids that are normalised already are
-- found by the primary key and take no space here.
CREATE INDEX leads_folded_id ON leadloop.leads (campaign_id, (FOLDED(lead_id)))
    WHERE lead_id <> FOLDED(lead_id);

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
CREATE INDEX sent_leads_in_doubt ON leadloop.sent_leads (campaign_id) WHERE status = 'in_doubt';
CREATE INDEX sent_leads_folded_id ON leadloop.sent_leads (campaign_id, (FOLDED(lead_id)))
    WHERE lead_id <> FOLDED(lead_id);

CREATE TABLE leadloop.forgotten (
    campaign_id  text NOT NULL,
    lead_id      text NOT NULL,
    forgotten_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, lead_id)
);

-- Holds of creates --------------------------------------------------------------------------------

CREATE TABLE leadloop.database_identity (
    system_identifier text,
    timeline          text,
    database_oid      oid,
    seen_at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX database_identity_one ON leadloop.database_identity ((true));
CREATE TABLE leadloop.create_holds (
    hold_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id  text NOT NULL,
    held_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_by      text NOT NULL DEFAULT session_user,
    reason       text NOT NULL,
    released_at  timestamptz,
    released_by  text,
    released_reason text CHECK (released_reason <> ''),
    CHECK ((released_at IS NULL) = (released_reason IS NULL))
);
CREATE UNIQUE INDEX create_holds_open ON leadloop.create_holds (campaign_id)
    WHERE released_at IS NULL;

-- Opt-outs ----------------------------------------------------------------------------------------

CREATE TABLE leadloop.disable_requests (
    campaign_id  text NOT NULL,
    lead_id      text NOT NULL CHECK (lead_id <> ''),
    reason       text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    status       text NOT NULL DEFAULT 'requested' CHECK (status IN
                 ('requested', 'disabled', 'cancelled', 'failed')),
    tries        integer NOT NULL DEFAULT 0,
    tried_at     timestamptz,
    sent_at      timestamptz,
    confirmed_at timestamptz,
    last_error   text,
    names_no_lead boolean NOT NULL DEFAULT false,
    next_try_at  timestamptz,
    origin       text CHECK (origin IN ('opt_out_source', 'source_removal', 'person')),
    PRIMARY KEY (campaign_id, lead_id)
);
CREATE INDEX disable_requests_removed ON leadloop.disable_requests (campaign_id, requested_at)
    WHERE origin = 'source_removal';
CREATE INDEX disable_requests_open ON leadloop.disable_requests (campaign_id, requested_at)
    WHERE status IN ('requested', 'failed');
CREATE INDEX disable_requests_new ON leadloop.disable_requests (campaign_id, requested_at)
    WHERE status = 'requested';
CREATE INDEX disable_requests_no_lead ON leadloop.disable_requests (campaign_id, lead_id)
    WHERE names_no_lead;

-- Opt-outs from tables of the team ----------------------------------------------------------------

CREATE TABLE leadloop.opt_out_source_rows (
    campaign_id text NOT NULL,
    entry       bytea NOT NULL,
    reason      text,
    read_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, entry)
);
CREATE INDEX opt_out_source_rows_refused ON leadloop.opt_out_source_rows (campaign_id)
    WHERE reason IS NOT NULL;
CREATE TABLE leadloop.opt_out_source_reads (
    campaign_id text PRIMARY KEY,
    digest      text,
    unreadable  integer NOT NULL DEFAULT 0,
    read_at     timestamptz DEFAULT now(),
    failed_at   timestamptz,
    error       text,
    CHECK ((failed_at IS NULL) = (error IS NULL))
);
CREATE TABLE leadloop.held_removals (
    campaign_id text PRIMARY KEY,
    amount      integer NOT NULL CHECK (amount > 0),
    held_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE leadloop.opt_ins (
    opt_in_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id  text NOT NULL,
    lead_id      text NOT NULL,
    opted_in_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    opted_in_by  text NOT NULL DEFAULT session_user,
    reason       text NOT NULL CHECK (reason <> ''),
    opted_out_at timestamptz
);
CREATE INDEX opt_ins_by_lead ON leadloop.opt_ins (campaign_id, lead_id);

CREATE TABLE leadloop.suppressed_numbers (
    number_key  bytea NOT NULL,
    campaign_id text NOT NULL,
    lead_id     text NOT NULL,
    noted_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (number_key, campaign_id, lead_id)
);
CREATE INDEX suppressed_numbers_by_lead ON leadloop.suppressed_numbers (campaign_id, lead_id);
CREATE TABLE leadloop.number_key (key bytea NOT NULL);
CREATE UNIQUE INDEX number_key_one ON leadloop.number_key ((true));
INSERT INTO leadloop.number_key
SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

-- Outcomes and attempts ---------------------------------------------------------------------------

CREATE TABLE leadloop.lead_outcomes (
    campaign_id   text NOT NULL,
    lead_id       text NOT NULL,
    processed_at  timestamptz NOT NULL,
    outcome_id    text,
    outcome_name  text,
    total_cost    numeric,
    raw           jsonb NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz NOT NULL DEFAULT now(),
    lookback_needed_s double precision,
    PRIMARY KEY (campaign_id, lead_id)
)
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02,
      autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX lead_outcomes_late ON leadloop.lead_outcomes (campaign_id, lookback_needed_s DESC)
    WHERE lookback_needed_s IS NOT NULL;
CREATE INDEX lead_outcomes_late_recent ON leadloop.lead_outcomes (campaign_id, seen_at)
    WHERE lookback_needed_s IS NOT NULL;
CREATE INDEX lead_outcomes_recent ON leadloop.lead_outcomes (campaign_id, first_seen_at);
-- For housekeeping, which clears all others in the order of first_seen_at.
CREATE INDEX lead_outcomes_updated ON leadloop.lead_outcomes (campaign_id, updated_at)
    WHERE updated_at <> first_seen_at AND raw <> '{}';
-- For one day of outcome_breakdown: rows are stored nearly in the order of their times.
CREATE INDEX lead_outcomes_by_day ON leadloop.lead_outcomes
    USING brin ((CAST(processed_at AT TIME ZONE 'UTC' AS date)))
    WITH (pages_per_range = 16, autosummarize = on);
CREATE TABLE leadloop.outreach_attempts (
    campaign_id  text NOT NULL,
    lead_id      text NOT NULL,
    channel      text NOT NULL CHECK (channel IN ('call', 'gmail', 'sms', 'ivr')),
    block        text NOT NULL,
    attempt_key  text NOT NULL,
    reference_id text,
    outcome_id   text,
    outcome_name text,
    occurred_at  timestamptz,
    duration_s   numeric,
    cost         numeric,
    answers      jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (campaign_id, lead_id, block, attempt_key)
)
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02,
      autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX outreach_attempts_by_day ON leadloop.outreach_attempts
    USING brin ((CAST(occurred_at AT TIME ZONE 'UTC' AS date)))
    WITH (pages_per_range = 16, autosummarize = on);
CREATE TABLE leadloop.unreadable_results (
    campaign_id text NOT NULL,
    digest      text NOT NULL,
    reason      text NOT NULL,
    raw         jsonb NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    occurrences integer NOT NULL DEFAULT 1,
    PRIMARY KEY (campaign_id, digest)
);
CREATE INDEX unreadable_results_recent ON leadloop.unreadable_results (seen_at);

-- Polls -------------------------------------------------------------------------------------------

CREATE TABLE leadloop.watermarks (
    campaign_id       text NOT NULL,
    stream            text NOT NULL,
    processed_through timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT now(),
    read_through      timestamptz,
    written_through   timestamptz,
    reread_through    timestamptz,
    PRIMARY KEY (campaign_id, stream)
)
-- Few rows, each updated all the time.
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE TABLE leadloop.poll_windows (
    window_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id   text NOT NULL,
    run_id        bigint NOT NULL,
    window_after  timestamptz NOT NULL,
    window_before timestamptz NOT NULL,
    status        text NOT NULL CHECK (status IN ('closed', 'open', 'incomplete')),
    claimed_count integer NOT NULL,
    stored_count  integer NOT NULL,
    pages         integer NOT NULL,
    closed_through timestamptz,
    range_after   timestamptz,
    range_before  timestamptz,
    made_good_at  timestamptz,
    polled_at     timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX poll_windows_recent ON leadloop.poll_windows (campaign_id, polled_at);
-- For the windows of an hour, and for the greatest lag of an hour (the view poll_lags).
CREATE INDEX poll_windows_by_hour ON leadloop.poll_windows
    ((date_bin('1 hour', polled_at, '2000-01-01 00:00:00+00')), campaign_id);
CREATE INDEX poll_windows_slowest ON leadloop.poll_windows
    ((date_bin('1 hour', polled_at, '2000-01-01 00:00:00+00')),
     (CASE WHEN range_after IS NULL
           THEN date_part('epoch', polled_at - coalesce(closed_through, window_after)) END)
     DESC NULLS LAST);
CREATE INDEX poll_windows_proven ON leadloop.poll_windows (campaign_id, closed_through);
CREATE INDEX poll_windows_backfilled ON leadloop.poll_windows
    (campaign_id, range_after, range_before) WHERE range_after IS NOT NULL;
CREATE INDEX poll_windows_owed ON leadloop.poll_windows (campaign_id)
    WHERE status = 'incomplete' AND made_good_at IS NULL;
CREATE TABLE leadloop.owed_windows (
    owed_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id   text NOT NULL,
    window_after  timestamptz NOT NULL,
    window_before timestamptz NOT NULL CHECK (window_before >= window_after),
    reason        text NOT NULL,
    tries         integer NOT NULL DEFAULT 1,
    tries_as_is   integer NOT NULL DEFAULT 1,
    found_at      timestamptz NOT NULL DEFAULT now(),
    tried_at      timestamptz NOT NULL DEFAULT now(),
    next_try_at   timestamptz NOT NULL,
    accepted_at   timestamptz,
    accepted_by   text,
    accepted_reason text CHECK (accepted_reason <> ''),
    CHECK ((accepted_at IS NULL) = (accepted_reason IS NULL))
);
CREATE INDEX owed_windows_by_campaign ON leadloop.owed_windows (campaign_id, window_after);

-- What the vendor was seen to refuse of a campaign ------------------------------------------------

CREATE TABLE leadloop.learned_limits (
    campaign_id text NOT NULL,
    name        text NOT NULL CHECK (name IN ('page_size', 'page_contrasts', 'page_depth',
                                              'batch_size', 'batch_bytes', 'blank_success')),
    value       integer NOT NULL CHECK (value > 0),
    learned_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, name)
);

CREATE TABLE leadloop.learned_answers (
    campaign_id text NOT NULL,
    question    text NOT NULL,
    answer      text NOT NULL,
    learned_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, question)
);

-- Latencies ---------------------------------------------------------------------------------------

CREATE TABLE leadloop.latencies (
    hour        timestamptz NOT NULL,
    campaign_id text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('lead', 'urgent lead', 'opt-out', 'outcome')),
    bucket_s    double precision NOT NULL,
    amount      bigint NOT NULL,
    total_s     double precision NOT NULL,
    PRIMARY KEY (hour, campaign_id, kind, bucket_s)
)
-- Free space for the many updates of the present hour's rows.
WITH (fillfactor = 50);

-- Counts of what is past --------------------------------------------------------------------------

-- Appended by triggers, without a key: an append waits for nothing. db.counts folds it into counts.
CREATE TABLE leadloop.count_changes (
    kind        text NOT NULL,
    hour        timestamptz NOT NULL,
    campaign_id text NOT NULL,
    name        text,
    detail      text,
    amount      bigint NOT NULL,
    marked      bigint NOT NULL,
    cost        numeric
)
-- Rows come and go: views read the whole table, so its space is to be used again soon.
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- Likewise; differences that belong to leads, each with the ids of up to 1,000 leads.
CREATE TABLE leadloop.attempt_changes (
    campaign_id  text NOT NULL,
    lead_ids     text[] NOT NULL,
    outcome_name text,
    outcomes     integer NOT NULL DEFAULT 0,
    attempts     integer NOT NULL DEFAULT 0
)
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE TABLE leadloop.counts (
    kind        text NOT NULL,
    span        text NOT NULL
                CHECK (span IN ('hour', 'day', 'ever', 'total hour', 'total day')),
    since       timestamptz NOT NULL,
    campaign_id text NOT NULL,
    -- Of name and detail, which are null or of any length: an index entry is limited. Called `key` up
    -- to 0011, whose folds and recounts, which know fewer kinds, fail and so delete no changes.
    digest      bytea NOT NULL,
    name        text,
    detail      text,
    amount      bigint NOT NULL,
    marked      bigint NOT NULL,
    cost        numeric,
    PRIMARY KEY (kind, span, since, campaign_id, digest)
)
-- Free space for the many updates of the present hour's rows.
WITH (fillfactor = 50);
-- One row as soon as everything that was stored before the triggers existed is counted too.
CREATE TABLE leadloop.counts_filled (filled_at timestamptz NOT NULL DEFAULT now());
CREATE UNIQUE INDEX counts_filled_one ON leadloop.counts_filled ((true));
INSERT INTO leadloop.counts_filled DEFAULT VALUES;

-- Requests ----------------------------------------------------------------------------------------

CREATE TABLE leadloop.rate_slots (
    slot       integer NOT NULL,
    free_at    timestamptz NOT NULL,
    -- Without defaults: a process of an earlier version cannot add slots to the ring.
    purposes   text[] NOT NULL,
    uses       integer NOT NULL,
    occupied_s double precision NOT NULL,
    account    text NOT NULL DEFAULT 'default',
    PRIMARY KEY (account, slot)
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
