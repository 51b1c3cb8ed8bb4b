-- Descriptions of the schema `leadloop`; those of the views are in views.sql. The file may be applied again (idempotent).

COMMENT ON TABLE leadloop.campaigns IS
    'One row per campaign of the vendor. A null override: the setting applies.';
COMMENT ON COLUMN leadloop.campaigns.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.campaigns.name IS 'Display name.';
COMMENT ON COLUMN leadloop.campaigns.enabled IS
    'Pushes and polls without --campaign include every enabled campaign. Opt-outs are sent for
disabled campaigns too.';
COMMENT ON COLUMN leadloop.campaigns.batch_size IS 'Overrides LEADLOOP_BATCH_SIZE.';
COMMENT ON COLUMN leadloop.campaigns.page_size IS 'Overrides LEADLOOP_PAGE_SIZE.';
COMMENT ON COLUMN leadloop.campaigns.lookback_s IS 'Overrides LEADLOOP_LOOKBACK, seconds.';
COMMENT ON COLUMN leadloop.campaigns.settle_s IS 'Overrides LEADLOOP_SETTLE, seconds.';
COMMENT ON COLUMN leadloop.campaigns.window_s IS 'Overrides LEADLOOP_WINDOW, seconds.';
COMMENT ON COLUMN leadloop.campaigns.epoch_unit IS 'Overrides LEADLOOP_EPOCH_UNIT.';
COMMENT ON COLUMN leadloop.campaigns.default_region IS 'Overrides LEADLOOP_DEFAULT_REGION.';
COMMENT ON COLUMN leadloop.campaigns.required_fields IS
    'Fields that a lead must have to be sent, including custom fields. Null: those required by the
vendor''s US document (lead_id, phone_number, contact_name, state_code).';
COMMENT ON COLUMN leadloop.campaigns.area_codes IS
    'North American area codes of three digits that are valid although libphonenumber does not know
them yet.';
COMMENT ON COLUMN leadloop.campaigns.thresholds IS
    'Own thresholds of alerts, seconds by the name of a problem: {"leads_unsent": 7200}. Whole minutes,
except for lead_slow, opt_out_slow and outcome_slow. leadloop_monitor.campaign_thresholds shows those
in force.';
COMMENT ON COLUMN leadloop.campaigns.sends_opted_out_numbers IS
    'True: phone numbers that opted out under another lead or campaign are sent anyway.';
COMMENT ON COLUMN leadloop.campaigns.numeric_lead_ids IS
    'True: lead ids are sent as JSON numbers, as the vendor''s samples write them. A lead whose id is
no whole number is rejected then.';
COMMENT ON COLUMN leadloop.campaigns.source IS
    'The source: a table or view of this database with its schema, such as crm.leads_for_calls, from
which each push syncs the campaign''s leads. Null: your code inserts the leads.';
COMMENT ON COLUMN leadloop.campaigns.on_source_removal IS
    'What becomes of a lead that was sent, when its row leaves the source. keep: nothing. opt_out: it
opts out; many at once wait for a person (leadloop opt-out --left-source).';
COMMENT ON COLUMN leadloop.campaigns.opt_out_source IS
    'A table or view of this database with its schema, such as crm.do_not_call, whose rows are opt-outs:
each has a lead_id, a phone_number, or both. Null: your code inserts the opt-outs.';
COMMENT ON COLUMN leadloop.campaigns.source_timeout_s IS
    'Overrides LEADLOOP_SOURCE_TIMEOUT, seconds.';
COMMENT ON COLUMN leadloop.campaigns.shows_unprocessed IS
    'Learned: whether a lookup shows a created, unprocessed lead. Only then does the absence of a
lead in doubt prove that it was not created. Null: unknown.';
COMMENT ON COLUMN leadloop.campaigns.visibility_tried_at IS
    'Last trial of shows_unprocessed; a negative result expires after a day.';
COMMENT ON COLUMN leadloop.campaigns.specimen_lead_id IS
    'The probe lead for the trial: one that the vendor accepted recently.';
COMMENT ON COLUMN leadloop.campaigns.specimen_at IS 'When the vendor accepted the probe lead.';
COMMENT ON COLUMN leadloop.campaigns.push_enabled IS
    'False: the campaign is paused (leadloop pause, leadloop resume): no lead is created from the
next claim on. Opt-outs, polls and lookups go on.';
COMMENT ON COLUMN leadloop.campaigns.priority IS
    'Campaigns of a higher priority have their turn first. Above 0, all leads of the campaign are
urgent.';
COMMENT ON COLUMN leadloop.campaigns.max_lead_age_s IS
    'Overrides LEADLOOP_MAX_LEAD_AGE, seconds.';
COMMENT ON COLUMN leadloop.campaigns.calling_hours IS
    'When the vendor calls, such as 08:00-21:00 America/New_York. From an hour after the end on, live
runs ask for outcomes only every ten minutes. Null: it may call at any time.';
COMMENT ON COLUMN leadloop.campaigns.enabled_at IS
    'When the campaign was enabled last, or moved to another account. Covering rows of runs that began
before do not count for it.';
COMMENT ON COLUMN leadloop.campaigns.create_accepted_at IS
    'The first create that the vendor accepted after its last failed one.';
COMMENT ON COLUMN leadloop.campaigns.listing_failed_at IS
    'When a push last read the listing of the campaign and it did not prove which leads in doubt are
absent. For an hour, leads in doubt are looked up instead.';
COMMENT ON COLUMN leadloop.campaigns.create_failed_at IS
    'The last create that failed for a reason that may be one of its leads, or in an outage.';
COMMENT ON COLUMN leadloop.campaigns.account IS
    'The account at the vendor whose login and rate limit the campaign uses. Its settings are in the
environment or in a block: LEADLOOP_ACCOUNT_<NAME>_API_URL and others; those of default have no account
in their names. Set it before the first lead is sent.';
COMMENT ON COLUMN leadloop.campaigns.raw_cleared_through IS
    'Housekeeping has cleared the vendor''s answers (LEADLOOP_KEEP_RAW) of the outcomes that were first
stored up to this time, except those stored again since. Null: of none.';

COMMENT ON TABLE leadloop.sync_runs IS
    'One row per flow run and campaign, written first. A live run holds the advisory lock
(hashtext(''leadloop.run''), coalesce(lock_id, run_id)); a running run without the lock is dead.';
COMMENT ON COLUMN leadloop.sync_runs.run_id IS 'leadloop''s id; later runs have greater ids.';
COMMENT ON COLUMN leadloop.sync_runs.campaign_id IS
    'The campaign; empty in a covering row, which stands for all campaigns that were enabled when the
run began and in which nothing was due: they have no row of the run.';
COMMENT ON COLUMN leadloop.sync_runs.account IS
    'The campaign''s account when the run began; of a covering row, the account whose campaigns it
stands for.';
COMMENT ON COLUMN leadloop.sync_runs.lock_id IS
    'Number of the lock: the id of the flow run''s first row; null: this row''s own id.';
COMMENT ON COLUMN leadloop.sync_runs.flow IS 'Name of the Prefect flow.';
COMMENT ON COLUMN leadloop.sync_runs.flow_run_id IS 'Prefect''s id of the flow run.';
COMMENT ON COLUMN leadloop.sync_runs.state IS
    'running, completed, failed, or crashed: its process ended unexpectedly; a later run found it.';
COMMENT ON COLUMN leadloop.sync_runs.started_at IS 'Start of the run.';
COMMENT ON COLUMN leadloop.sync_runs.ended_at IS 'End of the run; null while it runs.';
COMMENT ON COLUMN leadloop.sync_runs.counts IS
    'Counts of the run, with the keys of the command line''s JSON.';
COMMENT ON COLUMN leadloop.sync_runs.error IS
    'Error of a failed run, in one line without personal data.';

COMMENT ON TABLE leadloop.leads IS
    'Leads. Your code inserts campaign_id, lead_id, phone_number, contact_name, state_code, ebr_datetime
and custom_fields, and if necessary priority; leadloop maintains the other columns.';
COMMENT ON COLUMN leadloop.leads.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.leads.lead_id IS
    'Unique in the campaign. Sent as text, with leading zeros.';
COMMENT ON COLUMN leadloop.leads.phone_number IS 'In any notation; sent in E.164.';
COMMENT ON COLUMN leadloop.leads.contact_name IS 'Name of the person.';
COMMENT ON COLUMN leadloop.leads.state_code IS 'Two letters; calling hours depend on the state.';
COMMENT ON COLUMN leadloop.leads.ebr_datetime IS 'Start of the established business relationship.';
COMMENT ON COLUMN leadloop.leads.custom_fields IS
    'Other fields of the campaign, as one JSON object.';
COMMENT ON COLUMN leadloop.leads.status IS
    'new: to be sent. sending: in a request now. created: the vendor holds the lead. rejected: by
our checks or by the vendor, see last_error. in_doubt: the vendor may or may not hold the lead.
cancelled: opted out before it was sent.';
COMMENT ON COLUMN leadloop.leads.opted_out IS
    'A row of disable_requests names this lead. Set by triggers under the row''s lock, so that no
claim can miss it.';
COMMENT ON COLUMN leadloop.leads.number_noted IS
    'For opted-out leads: the number is indexed in suppressed_numbers, or is not callable.';
COMMENT ON COLUMN leadloop.leads.from_source IS
    'A push synced the lead from the campaign''s source: until it is sent, it follows its row in the
source.';
COMMENT ON COLUMN leadloop.leads.last_error IS
    'Reason of rejected and in_doubt; the vendor''s text is redacted (phone numbers, names).';
COMMENT ON COLUMN leadloop.leads.inserted_at IS 'When the lead was inserted.';
COMMENT ON COLUMN leadloop.leads.sent_at IS
    'When the request was about to be sent (database clock).';
COMMENT ON COLUMN leadloop.leads.confirmed_at IS 'When the vendor was known to hold the lead.';
COMMENT ON COLUMN leadloop.leads.doubted_at IS
    'Start of the doubt and of the settle time, in which the vendor may still show the lead.
Infinity while the request of a deleted and reinserted row is still running.';
COMMENT ON COLUMN leadloop.leads.looked_up_at IS 'Last lookup in the current doubt.';
COMMENT ON COLUMN leadloop.leads.run_id IS 'The run that claimed the lead last.';
COMMENT ON COLUMN leadloop.leads.claim_no IS
    'Number of the claim within the run: a response settles only the leads of its claim.';
COMMENT ON COLUMN leadloop.leads.seq IS 'Queue position: leads of one priority are sent in this order.';
COMMENT ON COLUMN leadloop.leads.suspect_list IS
    'The lead is a suspect: a create that held it failed. It is sent again with the leads of the
same number, behind all fresh leads. NULL: fresh.';
COMMENT ON COLUMN leadloop.leads.suspected_at IS 'First failure of a create that held the lead.';
COMMENT ON COLUMN leadloop.leads.last_failed_at IS 'Last failure of a create that held the lead.';
COMMENT ON COLUMN leadloop.leads.lone_failures IS
    'Failed creates of this lead alone that count, because the vendor accepted others meanwhile.
After the eighth the lead is rejected, once it is proven absent.';
COMMENT ON COLUMN leadloop.leads.next_try_at IS
    'The lead has failed alone; not before this time is it sent again.';
COMMENT ON COLUMN leadloop.leads.priority IS
    'Leads of a higher priority are sent first. Above 0, a lead is urgent.';

COMMENT ON TABLE leadloop.sent_leads IS
    'Sent leads whose rows in `leads` were deleted, so that a lead that is inserted again is not
created again. Maintained by triggers of `leads`; no personal data.';
COMMENT ON COLUMN leadloop.sent_leads.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.sent_leads.lead_id IS 'Id of the lead.';
COMMENT ON COLUMN leadloop.sent_leads.status IS
    'Status of the lead if it is inserted again; in_doubt if it was deleted while `sending`.';
COMMENT ON COLUMN leadloop.sent_leads.sent_at IS 'As in `leads`.';
COMMENT ON COLUMN leadloop.sent_leads.confirmed_at IS 'As in `leads`.';
COMMENT ON COLUMN leadloop.sent_leads.doubted_at IS
    'As in `leads`. Infinity while the request is still running.';
COMMENT ON COLUMN leadloop.sent_leads.run_id IS
    'As in `leads`: a pending response settles the lead when it arrives.';
COMMENT ON COLUMN leadloop.sent_leads.claim_no IS 'As in `leads`.';
COMMENT ON COLUMN leadloop.sent_leads.deleted_at IS 'When the row in `leads` was deleted.';

COMMENT ON TABLE leadloop.forgotten IS
    'Leads whose personal data was erased (`leadloop forget`); later results are stored without
personal data.';
COMMENT ON COLUMN leadloop.forgotten.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.forgotten.lead_id IS 'Id of the lead; it is kept.';
COMMENT ON COLUMN leadloop.forgotten.forgotten_at IS 'When the data was erased.';

COMMENT ON TABLE leadloop.database_identity IS
    'The database as the last run saw it: one row. If a value differs from the current one, the
database may have forgotten sent leads, and creates are held.';
COMMENT ON COLUMN leadloop.database_identity.system_identifier IS
    'Postgres''s id of the cluster, from initdb. Null: it could not be read.';
COMMENT ON COLUMN leadloop.database_identity.timeline IS
    'The timeline of the WAL, hexadecimal: each promotion and each recovery to a point in time begins
another one. Null: it could not be read.';
COMMENT ON COLUMN leadloop.database_identity.database_oid IS
    'The database''s oid: a copy or a restored dump has another one.';
COMMENT ON COLUMN leadloop.database_identity.seen_at IS 'When these values were first seen.';
COMMENT ON FUNCTION leadloop.read_database_identity IS
    'The current values for database_identity; reads no table of leadloop.';

COMMENT ON TABLE leadloop.create_holds IS
    'Holds of creates: while one is open, no lead of the campaign is created. Rows are kept.';
COMMENT ON COLUMN leadloop.create_holds.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.create_holds.held_at IS 'Start of the hold.';
COMMENT ON COLUMN leadloop.create_holds.held_by IS
    'The database login that detected the change, or of the person who reported a restore.';
COMMENT ON COLUMN leadloop.create_holds.reason IS 'What was found.';
COMMENT ON COLUMN leadloop.create_holds.released_at IS 'End of the hold; null: it is open.';
COMMENT ON COLUMN leadloop.create_holds.released_by IS
    'The database login of the audit, or of the person who released it.';
COMMENT ON COLUMN leadloop.create_holds.released_reason IS
    'What the audit has proven, or what the person wrote.';

COMMENT ON TABLE leadloop.disable_requests IS
    'Opt-outs. Your code inserts campaign_id, lead_id, reason and requested_at; leadloop maintains the
other columns.';
COMMENT ON COLUMN leadloop.disable_requests.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.disable_requests.lead_id IS 'Id of the lead, unique in the campaign.';
COMMENT ON COLUMN leadloop.disable_requests.reason IS 'Free text; not sent to the vendor.';
COMMENT ON COLUMN leadloop.disable_requests.requested_at IS 'When the person opted out.';
COMMENT ON COLUMN leadloop.disable_requests.status IS
    'requested: not confirmed yet. disabled: confirmed by the vendor. cancelled: the lead was not
sent and never will be. failed: the vendor rejects it or fails on it, see last_error; retried at
least daily.';
COMMENT ON COLUMN leadloop.disable_requests.tries IS 'Number of failed attempts.';
COMMENT ON COLUMN leadloop.disable_requests.tried_at IS 'Time of the last failed attempt.';
COMMENT ON COLUMN leadloop.disable_requests.sent_at IS 'Time of the first attempt.';
COMMENT ON COLUMN leadloop.disable_requests.confirmed_at IS
    'When the vendor confirmed, or the lead was cancelled.';
COMMENT ON COLUMN leadloop.disable_requests.last_error IS
    'Reason of the last failed attempt, redacted.';
COMMENT ON COLUMN leadloop.disable_requests.names_no_lead IS
    'No lead had this id when the opt-out was inserted; one may have arrived since.';
COMMENT ON COLUMN leadloop.disable_requests.next_try_at IS
    'Time of the next attempt of a failed opt-out; at least daily.';
COMMENT ON COLUMN leadloop.disable_requests.origin IS
    'Where it comes from. opt_out_source: a row of the campaign''s opt-out source; one that names no
known lead is cancelled at once, and counts for a lead that comes later. source_removal: the lead''s
row left the source. person: leadloop opt-out. Null: your code.';

COMMENT ON TABLE leadloop.opt_out_source_rows IS
    'The lead ids and phone numbers that the last read of a campaign''s opt-out source has shown: each
counts once for as long as it stands there.';
COMMENT ON COLUMN leadloop.opt_out_source_rows.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.opt_out_source_rows.entry IS
    'SHA-256 of the lead id; or of the phone number as it is written, with the key of
leadloop.number_key.';
COMMENT ON COLUMN leadloop.opt_out_source_rows.reason IS
    'Why nobody opts out by it; null: it counts. A row that is refused is read again daily.';
COMMENT ON COLUMN leadloop.opt_out_source_rows.read_at IS 'When it was first read, or refused last.';
COMMENT ON TABLE leadloop.opt_out_source_reads IS
    'How the last read of a campaign''s opt-out source ended; written only when that changes.';
COMMENT ON COLUMN leadloop.opt_out_source_reads.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.opt_out_source_reads.digest IS
    'Of all its rows: while it stays the same, there is nothing to do. Null: some cannot be read.';
COMMENT ON COLUMN leadloop.opt_out_source_reads.unreadable IS 'Number of rows that cannot be read.';
COMMENT ON COLUMN leadloop.opt_out_source_reads.read_at IS
    'The last read that has shown a change; null: none has succeeded.';
COMMENT ON COLUMN leadloop.opt_out_source_reads.failed_at IS
    'Since when it cannot be read, so that no lead is sent; null: it can.';
COMMENT ON COLUMN leadloop.opt_out_source_reads.error IS 'Why it cannot be read.';
COMMENT ON TABLE leadloop.held_removals IS
    'Leads that were sent and whose rows have left the campaign''s source: too many to opt out
without a person (leadloop opt-out --left-source).';
COMMENT ON COLUMN leadloop.held_removals.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.held_removals.amount IS 'Number of leads, at the last sync of the source.';
COMMENT ON COLUMN leadloop.held_removals.held_at IS 'Since when any wait.';

COMMENT ON TABLE leadloop.opt_ins IS
    'Opt-outs that a person has withdrawn with `leadloop opt-in`.';
COMMENT ON COLUMN leadloop.opt_ins.opt_in_id IS 'Generated.';
COMMENT ON COLUMN leadloop.opt_ins.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.opt_ins.lead_id IS 'The lead.';
COMMENT ON COLUMN leadloop.opt_ins.opted_in_at IS 'When it opted in again.';
COMMENT ON COLUMN leadloop.opt_ins.opted_in_by IS 'The database role of the person.';
COMMENT ON COLUMN leadloop.opt_ins.reason IS 'Why, in the person''s words; nothing personal.';
COMMENT ON COLUMN leadloop.opt_ins.opted_out_at IS
    'requested_at of the opt-out; null if its row had been deleted.';

COMMENT ON TABLE leadloop.suppressed_numbers IS
    'Index of phone numbers that opted out: they are not sent under other leads or campaigns, except
of campaigns with sends_opted_out_numbers.';
COMMENT ON COLUMN leadloop.suppressed_numbers.number_key IS
    'HMAC-SHA256 of the number in E.164, under the key of leadloop.number_key.';
COMMENT ON COLUMN leadloop.suppressed_numbers.campaign_id IS 'Campaign of the opted-out lead.';
COMMENT ON COLUMN leadloop.suppressed_numbers.lead_id IS
    'The opted-out lead: a number is suppressed until all of its leads have opted in again.';
COMMENT ON COLUMN leadloop.suppressed_numbers.noted_at IS 'When the number was indexed.';

COMMENT ON TABLE leadloop.number_key IS
    'The secret key of the numbers'' hash. If the key is lost, so are the suppressed numbers.';
COMMENT ON COLUMN leadloop.number_key.key IS 'Random, generated once.';

COMMENT ON TABLE leadloop.lead_outcomes IS
    'Latest outcome of each lead, as reported by the vendor.';
COMMENT ON COLUMN leadloop.lead_outcomes.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.lead_outcomes.lead_id IS 'Id of the lead, unique in the campaign.';
COMMENT ON COLUMN leadloop.lead_outcomes.processed_at IS
    'When the vendor finished processing the lead.';
COMMENT ON COLUMN leadloop.lead_outcomes.outcome_id IS 'The vendor''s id of the outcome.';
COMMENT ON COLUMN leadloop.lead_outcomes.outcome_name IS
    'Name of the outcome; null if the vendor gives none.';
COMMENT ON COLUMN leadloop.lead_outcomes.total_cost IS
    'Cost of the lead as reported by the vendor.';
COMMENT ON COLUMN leadloop.lead_outcomes.raw IS
    'The vendor''s complete result; characters that jsonb cannot hold are kept as JSON escapes. {}:
cleared (LEADLOOP_KEEP_RAW, or forgotten).';
COMMENT ON COLUMN leadloop.lead_outcomes.first_seen_at IS
    'When an outcome of the lead was first stored.';
COMMENT ON COLUMN leadloop.lead_outcomes.updated_at IS 'Last change of the row.';
COMMENT ON COLUMN leadloop.lead_outcomes.seen_at IS
    'When the current processed_at was first stored; later than first_seen_at if the lead was
processed again.';
COMMENT ON COLUMN leadloop.lead_outcomes.lookback_needed_s IS
    'For a late outcome, which was missing when its processed_at was polled: the LEADLOOP_LOOKBACK
that would have caught it, seconds. Null: the outcome was in time.';

COMMENT ON TABLE leadloop.outreach_attempts IS 'One row per attempt: call, email, SMS or IVR.';
COMMENT ON COLUMN leadloop.outreach_attempts.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.outreach_attempts.lead_id IS 'Id of the lead, unique in the campaign.';
COMMENT ON COLUMN leadloop.outreach_attempts.channel IS 'call, gmail, sms or ivr.';
COMMENT ON COLUMN leadloop.outreach_attempts.block IS
    'The key of the vendor''s result that contains the attempt.';
COMMENT ON COLUMN leadloop.outreach_attempts.attempt_key IS
    'Call: the vendor''s reference_id, or else the time. Others: the position. Values too long for
an index are shortened to a prefix and a digest, as in block.';
COMMENT ON COLUMN leadloop.outreach_attempts.reference_id IS
    'Call: the vendor''s id of the call, if it gives one.';
COMMENT ON COLUMN leadloop.outreach_attempts.outcome_id IS
    'Call: the vendor''s id of the outcome.';
COMMENT ON COLUMN leadloop.outreach_attempts.outcome_name IS
    'Call: name of the outcome. Message: its status.';
COMMENT ON COLUMN leadloop.outreach_attempts.occurred_at IS 'Time of the attempt.';
COMMENT ON COLUMN leadloop.outreach_attempts.duration_s IS
    'Seconds; null if the vendor gives none.';
COMMENT ON COLUMN leadloop.outreach_attempts.cost IS
    'Cost as reported by the vendor; null while pending.';
COMMENT ON COLUMN leadloop.outreach_attempts.answers IS
    'Call: answers of the script. Message: its content. {}: none, or cleared with the raw result.';

COMMENT ON TABLE leadloop.unreadable_results IS
    'Results that could not be parsed as outcomes (no lead_id, no time), kept for repair.';
COMMENT ON COLUMN leadloop.unreadable_results.digest IS 'SHA-256 of raw, for deduplication.';
COMMENT ON COLUMN leadloop.unreadable_results.reason IS 'Why the result could not be parsed.';
COMMENT ON COLUMN leadloop.unreadable_results.occurrences IS
    'The largest number of such results, equal in every byte, that one read of a window showed.';
COMMENT ON COLUMN leadloop.unreadable_results.seen_at IS
    'When a poll last read the result, to within an hour.';

COMMENT ON TABLE leadloop.watermarks IS
    'How far polls have read, and what they have stored: one row per campaign and stream.';
COMMENT ON COLUMN leadloop.watermarks.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.watermarks.stream IS 'Name of the stream; outcomes is the only one.';
COMMENT ON COLUMN leadloop.watermarks.processed_through IS
    'Everything processed up to this time is stored, except ranges of owed_windows that a person has
accepted. It only moves forward.';
COMMENT ON COLUMN leadloop.watermarks.updated_at IS 'Last change of the row.';
COMMENT ON COLUMN leadloop.watermarks.read_through IS
    'Everything processed up to this time is stored or owed (owed_windows); the next head poll starts
here, less 30 seconds. Null: as processed_through.';
COMMENT ON COLUMN leadloop.watermarks.written_through IS
    'processed_through as leadloop wrote it last. If processed_through is less, a person has set the
watermark back, and the next poll starts there.';
COMMENT ON COLUMN leadloop.watermarks.reread_through IS
    'Up to where plain polls have read; the next one starts here, less the lookback. Head polls leave
it as it is. Null, or later than read_through: as read_through.';

COMMENT ON TABLE leadloop.poll_windows IS
    'Polled windows: every range of processed_at that was read.';
COMMENT ON COLUMN leadloop.poll_windows.window_id IS
    'leadloop''s id; later windows have greater ids.';
COMMENT ON COLUMN leadloop.poll_windows.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.poll_windows.run_id IS 'The run that polled the window.';
COMMENT ON COLUMN leadloop.poll_windows.window_after IS 'Start of the range.';
COMMENT ON COLUMN leadloop.poll_windows.window_before IS 'End of the range.';
COMMENT ON COLUMN leadloop.poll_windows.status IS
    'closed: complete and settled. open: complete, but its end is not settled yet. incomplete: the
rows read differ from the reported count, or moved during the read; the watermark does not move.';
COMMENT ON COLUMN leadloop.poll_windows.claimed_count IS
    'Number of results in the range as reported by the API.';
COMMENT ON COLUMN leadloop.poll_windows.stored_count IS
    'Number of distinct results read and stored.';
COMMENT ON COLUMN leadloop.poll_windows.pages IS 'Number of pages of the last read.';
COMMENT ON COLUMN leadloop.poll_windows.closed_through IS
    'End of the verified part of the range; null if nothing was verified.';
COMMENT ON COLUMN leadloop.poll_windows.range_after IS
    'Start of the requested range of a backfill; null for a poll.';
COMMENT ON COLUMN leadloop.poll_windows.range_before IS
    'End of the requested range of a backfill; null for a poll.';
COMMENT ON COLUMN leadloop.poll_windows.made_good_at IS
    'For an incomplete window: when later windows were found to verify all of it.';
COMMENT ON COLUMN leadloop.poll_windows.polled_at IS 'When the window was stored.';

COMMENT ON TABLE leadloop.owed_windows IS
    'Ranges of processed_at that no read could complete. Each is read again, ever more seldom, until a
read succeeds; then its row is deleted.';
COMMENT ON COLUMN leadloop.owed_windows.reason IS 'How the last read failed; no personal data.';
COMMENT ON COLUMN leadloop.owed_windows.tries IS 'Number of runs in which its reads failed.';
COMMENT ON COLUMN leadloop.owed_windows.tries_as_is IS
    'The same, since the range last became shorter or longer: three have not narrowed it.';
COMMENT ON COLUMN leadloop.owed_windows.found_at IS 'When the first read failed.';
COMMENT ON COLUMN leadloop.owed_windows.tried_at IS 'When the last read failed.';
COMMENT ON COLUMN leadloop.owed_windows.next_try_at IS 'When a poll reads the range again.';
COMMENT ON COLUMN leadloop.owed_windows.accepted_at IS
    'When a person accepted that the range cannot be read: it no longer holds the watermark. Null:
nobody has.';
COMMENT ON COLUMN leadloop.owed_windows.accepted_by IS 'The database login of that person.';
COMMENT ON COLUMN leadloop.owed_windows.accepted_reason IS 'Why, in that person''s words.';

COMMENT ON TABLE leadloop.learned_limits IS
    'What the vendor was seen to refuse of a campaign: page_size (results a page) and page_depth
(number of the last page of a window); batch_size (leads a create) and batch_bytes (bytes of its
body). Exceeded again on trial once a day. page_contrasts: pages in a row that failed while their
rows could be read in smaller pages. blank_success: a success of this shape, which
affirms nothing, has created the leads of its batch; looked up again once a day.';
COMMENT ON COLUMN leadloop.learned_limits.value IS
    'The largest value that succeeded; of page_contrasts, their number; of blank_success, a
fingerprint of the response.';
COMMENT ON COLUMN leadloop.learned_limits.learned_at IS 'When a larger value last failed.';

COMMENT ON TABLE leadloop.learned_answers IS
    'What a first contact (leadloop first-contact) has learned of the vendor, one row a question. For
people; no run reads it. Without personal data.';
COMMENT ON COLUMN leadloop.learned_answers.question IS
    'What was asked, such as create_success: what the vendor answers to a create that it accepts.';
COMMENT ON COLUMN leadloop.learned_answers.answer IS
    'The answer: in words, or a response''s status and the outline of its body.';
COMMENT ON COLUMN leadloop.learned_answers.learned_at IS 'When it was learned last.';

COMMENT ON TABLE leadloop.latencies IS
    'Histograms of latencies, counted by the statements that store the confirmations. Housekeeping
deletes old hours.';
COMMENT ON COLUMN leadloop.latencies.hour IS
    'The hour of the confirmations, UTC. -infinity: the total since the first one.';
COMMENT ON COLUMN leadloop.latencies.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.latencies.kind IS
    'lead, urgent lead: from inserted_at until the vendor is known to hold the lead. opt-out: from
requested_at until the vendor has confirmed it. outcome: from processed_at until the outcome is
stored, except by a backfill or an audit.';
COMMENT ON COLUMN leadloop.latencies.bucket_s IS
    'Upper bound of the bucket, seconds; its lower bound is the next smaller one of 0.1, 0.2, 0.5, 1,
2, 5, 10, 30, 60, 300, 900, 3,600 and Infinity.';
COMMENT ON COLUMN leadloop.latencies.amount IS 'Number of latencies in the bucket.';
COMMENT ON COLUMN leadloop.latencies.total_s IS 'Their sum, seconds.';

COMMENT ON TABLE leadloop.counts IS
    'Sums of what is past, which the views read: leads created, rejected or cancelled, outcomes,
attempts, leads by attempts, delays of outcomes, opt-outs, runs. Together with count_changes and
attempt_changes they equal counts of the rows: what is deleted is subtracted. Hours are kept for 400
days.';
COMMENT ON COLUMN leadloop.counts.kind IS
    'lead, outcome, attempt, tries (leads with an outcome, by their attempts), delay, opt_out or run.';
COMMENT ON COLUMN leadloop.counts.span IS
    'The length of the period: hour, day (UTC) or ever; total hour and total day: the same of all
campaigns together.';
COMMENT ON COLUMN leadloop.counts.since IS
    'Start of the period: of processed_at, occurred_at, seen_at, requested_at or started_at. infinity:
the vendor gives none. -infinity: ever.';
COMMENT ON COLUMN leadloop.counts.campaign_id IS
    'The vendor''s id of the campaign; empty for all campaigns together, and for covering rows of runs.';
COMMENT ON COLUMN leadloop.counts.digest IS 'Digest of name and detail.';
COMMENT ON COLUMN leadloop.counts.name IS
    'The status of leads and opt-outs, the name of outcomes, the channel of attempts, the bucket of
delays, the flow of runs.';
COMMENT ON COLUMN leadloop.counts.detail IS
    'The reason of rejected leads; the bucket of the latency of opt-outs; the number of attempts.';
COMMENT ON COLUMN leadloop.counts.amount IS 'Number of rows.';
COMMENT ON COLUMN leadloop.counts.marked IS
    'Of attempts: those with a duration above zero. Of delays: those of late outcomes. Of runs: their
requests.';
COMMENT ON COLUMN leadloop.counts.cost IS
    'Sum of the outcomes'' costs. Null: no outcome has had one; 0 is possible as well.';
COMMENT ON TABLE leadloop.count_changes IS
    'Changes of the counts, appended by triggers in the transaction of the counted rows. Runs add
them to counts; the views sum both.';
COMMENT ON COLUMN leadloop.count_changes.kind IS 'As in counts.';
COMMENT ON COLUMN leadloop.count_changes.hour IS 'The hour, UTC; -infinity for leads.';
COMMENT ON COLUMN leadloop.count_changes.campaign_id IS
    'The vendor''s id of the campaign; empty for covering rows of runs.';
COMMENT ON COLUMN leadloop.count_changes.name IS 'As in counts.';
COMMENT ON COLUMN leadloop.count_changes.detail IS 'As in counts.';
COMMENT ON COLUMN leadloop.count_changes.amount IS 'To be added; may be negative.';
COMMENT ON COLUMN leadloop.count_changes.marked IS 'To be added; may be negative.';
COMMENT ON COLUMN leadloop.count_changes.cost IS 'To be added; may be negative.';
COMMENT ON TABLE leadloop.attempt_changes IS
    'Changes of leads by outcome and number of attempts, appended by triggers in the transaction of the
outcomes or attempts. Runs fold them into counts; the views add both.';
COMMENT ON COLUMN leadloop.attempt_changes.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.attempt_changes.lead_ids IS 'The leads, 1,000 at most.';
COMMENT ON COLUMN leadloop.attempt_changes.outcome_name IS
    'Name of the outcome that each of them got or lost; null also if the vendor gives none.';
COMMENT ON COLUMN leadloop.attempt_changes.outcomes IS
    '1: each of them got this outcome; -1: lost it; 0: the change is one of attempts.';
COMMENT ON COLUMN leadloop.attempt_changes.attempts IS
    'How many more attempts each of them has; may be negative.';
COMMENT ON TABLE leadloop.counts_filled IS
    'One row once `leadloop init` has counted the rows that are older than the counts.';
COMMENT ON COLUMN leadloop.counts_filled.filled_at IS 'When they were counted.';

COMMENT ON TABLE leadloop.rate_slots IS
    'Slots of the rate limiter, shared by all processes; each account has separate ones. Every request
reserves a slot for occupied_s seconds. Slot 0 is the pause: no request of the account is sent before its
free_at.';
COMMENT ON COLUMN leadloop.rate_slots.account IS 'The account whose requests use the slot.';
COMMENT ON COLUMN leadloop.rate_slots.free_at IS 'When the slot is free again.';
COMMENT ON COLUMN leadloop.rate_slots.purposes IS
    'Purposes of the requests that may use the slot: opt_outs, urgent, bulk, polls. A slot with one
purpose is its reserve. Empty: the slot is left over from a larger ring, and is not used.';
COMMENT ON COLUMN leadloop.rate_slots.uses IS 'Requests that the slot serves in a period.';
COMMENT ON COLUMN leadloop.rate_slots.occupied_s IS
    'Seconds that a request occupies the slot: its share of the period, and a margin.';

COMMENT ON FUNCTION leadloop.note_opt_out() IS
    'Marks opted-out leads on their own rows, so that a concurrent claim waits for the row or skips
it, and then sees the opt-out. Marks opt-outs without a lead. Security definer: your code needs
no privilege on leads.';

COMMENT ON FUNCTION leadloop.announce_work() IS
    'Notifies the channel leadloop_work, with an empty text, so that live runs look at once.';
COMMENT ON FUNCTION leadloop.note_enabled() IS
    'Notes when a campaign is enabled.';
COMMENT ON FUNCTION leadloop.note_account() IS
    'Refuses to move a campaign to another account once leads were sent, opt-outs wait or creates are held, unless the
transaction has leadloop.renames_account = on; notes when the account changed in enabled_at.';
COMMENT ON FUNCTION leadloop.note_opted_out_leads() IS
    'Completes inserted leads with earlier facts: an opt-out before its lead, an erasure, a request
before the row was deleted, an outcome or attempt of the vendor.';

COMMENT ON FUNCTION leadloop.remember_sent_leads() IS
    'Keeps id, status and times of sent leads whose rows are deleted or truncated.';

COMMENT ON FUNCTION leadloop.count_leads() IS
    'Appends changes of the counts of leads to count_changes. Security definer, as the others: your
code needs no privilege on the counts.';
COMMENT ON FUNCTION leadloop.count_lead_outcomes() IS
    'Appends changes of the counts of outcomes and their delays to count_changes and attempt_changes.';
COMMENT ON FUNCTION leadloop.count_outreach_attempts() IS
    'Appends changes of the counts of attempts to count_changes and attempt_changes.';
COMMENT ON FUNCTION leadloop.count_disable_requests() IS
    'Appends changes of the counts of opt-outs to count_changes.';
COMMENT ON FUNCTION leadloop.count_sync_runs() IS
    'Appends changes of the counts of runs and their requests to count_changes.';
