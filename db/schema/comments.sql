-- What each table, column and function of the schema `leadloop` is. They may be applied again.

COMMENT ON TABLE leadloop.campaigns IS
    'One row a campaign of the vendor''s. A null override means: the setting.';
COMMENT ON COLUMN leadloop.campaigns.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.campaigns.name IS 'For people.';
COMMENT ON COLUMN leadloop.campaigns.enabled IS
    'Pushes and polls that name no campaign take every enabled one. Opt-outs are sent whatever it
says.';
COMMENT ON COLUMN leadloop.campaigns.batch_size IS 'Overrides LEADLOOP_BATCH_SIZE.';
COMMENT ON COLUMN leadloop.campaigns.page_size IS 'Overrides LEADLOOP_PAGE_SIZE.';
COMMENT ON COLUMN leadloop.campaigns.lookback_s IS 'Overrides LEADLOOP_LOOKBACK, seconds.';
COMMENT ON COLUMN leadloop.campaigns.settle_s IS 'Overrides LEADLOOP_SETTLE, seconds.';
COMMENT ON COLUMN leadloop.campaigns.window_s IS 'Overrides LEADLOOP_WINDOW, seconds.';
COMMENT ON COLUMN leadloop.campaigns.epoch_unit IS 'Overrides LEADLOOP_EPOCH_UNIT.';
COMMENT ON COLUMN leadloop.campaigns.default_region IS 'Overrides LEADLOOP_DEFAULT_REGION.';
COMMENT ON COLUMN leadloop.campaigns.required_fields IS
    'Fields that a lead must have to be sent, custom fields too; null: those that the vendor''s US
document requires (lead_id, phone_number, contact_name, state_code).';
COMMENT ON COLUMN leadloop.campaigns.sends_opted_out_numbers IS
    'True: a phone number that opted out under another lead or campaign is sent all the same.';
COMMENT ON COLUMN leadloop.campaigns.source IS
    'A table or view of this database with its schema, as in crm.leads_for_calls, from which each
push takes the campaign''s leads; null: leads are inserted.';
COMMENT ON COLUMN leadloop.campaigns.source_timeout_s IS
    'Overrides LEADLOOP_SOURCE_TIMEOUT, seconds.';
COMMENT ON COLUMN leadloop.campaigns.shows_unprocessed IS
    'Learned: whether a lookup shows a lead that is created and not yet processed. Only where it
does is the absence of a lead in doubt a proof that it was not created. Null: not known.';
COMMENT ON COLUMN leadloop.campaigns.visibility_tried_at IS
    'When that was last tried; a no is tried again after a day.';
COMMENT ON COLUMN leadloop.campaigns.specimen_lead_id IS
    'The lead on which it is tried: one of those that the vendor took last.';
COMMENT ON COLUMN leadloop.campaigns.specimen_at IS 'When the vendor took it.';
COMMENT ON COLUMN leadloop.campaigns.batch_limit IS
    'Learned: the most leads that the vendor took at once where it called more too large (413).';
COMMENT ON COLUMN leadloop.campaigns.push_enabled IS
    'False: no lead is created from the next claim on; opt-outs, polls and lookups go on (leadloop
pause and resume).';

COMMENT ON TABLE leadloop.sync_runs IS
    'One row a flow run and campaign, written before anything else. While the run lives it holds
the advisory lock (hashtext(''leadloop.run''), run_id); one without it is dead.';
COMMENT ON COLUMN leadloop.sync_runs.flow IS 'The flow''s name, as deployments know it.';
COMMENT ON COLUMN leadloop.sync_runs.flow_run_id IS 'Prefect''s id of the flow run.';
COMMENT ON COLUMN leadloop.sync_runs.state IS
    'crashed: its process died without a word; a later run found that out.';
COMMENT ON COLUMN leadloop.sync_runs.counts IS
    'What it did, under the names that the command line prints.';
COMMENT ON COLUMN leadloop.sync_runs.error IS 'Why it failed, in one line without personal data.';

COMMENT ON TABLE leadloop.leads IS
    'Upstream inserts the first seven columns; the rest is ours.';
COMMENT ON COLUMN leadloop.leads.lead_id IS
    'Unique in the campaign, sent as text; leading zeros stay.';
COMMENT ON COLUMN leadloop.leads.phone_number IS 'As people write it; sent in E.164.';
COMMENT ON COLUMN leadloop.leads.state_code IS 'Two letters; calling hours differ by state.';
COMMENT ON COLUMN leadloop.leads.ebr_datetime IS
    'Since when there is an established business relationship.';
COMMENT ON COLUMN leadloop.leads.custom_fields IS
    'Any other fields of the campaign, one JSON object.';
COMMENT ON COLUMN leadloop.leads.status IS
    'new: to be sent; sending: a request that holds it may be on its way; created: the vendor has
it; rejected: refused by our checks or by the vendor, see last_error; in_doubt: the vendor may have
it; cancelled: opted out before it was sent.';
COMMENT ON COLUMN leadloop.leads.opted_out IS
    'A row of disable_requests names this lead. Set by triggers, under the row''s lock, so that no
claim can miss it.';
COMMENT ON COLUMN leadloop.leads.number_noted IS
    'Its number is among the suppressed_numbers, or is none; of leads that opted out.';
COMMENT ON COLUMN leadloop.leads.from_source IS
    'A push took it from the campaign''s source: until it is sent, it follows its row there.';
COMMENT ON COLUMN leadloop.leads.last_error IS
    'Why it is rejected or in doubt; phone numbers and names are blotted out of vendor''s words.';
COMMENT ON COLUMN leadloop.leads.inserted_at IS 'When upstream inserted it.';
COMMENT ON COLUMN leadloop.leads.sent_at IS
    'When the request that holds it was about to leave (the database''s clock).';
COMMENT ON COLUMN leadloop.leads.confirmed_at IS 'When the vendor was known to have it.';
COMMENT ON COLUMN leadloop.leads.doubted_at IS
    'Since when it has been in doubt: the vendor has `settle` seconds from then to show it. Infinity:
its row was deleted and inserted again while it was being sent, and the run has not given up yet.';
COMMENT ON COLUMN leadloop.leads.looked_up_at IS 'When it was last looked up in this doubt.';
COMMENT ON COLUMN leadloop.leads.run_id IS 'The run that claimed it last.';
COMMENT ON COLUMN leadloop.leads.claim_no IS
    'By which of the run''s claims: an answer settles the leads of its own claim alone.';
COMMENT ON COLUMN leadloop.leads.seq IS 'The order in which leads are sent.';

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

COMMENT ON TABLE leadloop.forgotten IS
    'Leads whose personal data was removed (`leadloop forget`): what the vendor still tells of them
is stored without it.';
COMMENT ON COLUMN leadloop.forgotten.campaign_id IS 'The vendor''s id of the campaign.';
COMMENT ON COLUMN leadloop.forgotten.lead_id IS 'The lead''s id, which stays.';
COMMENT ON COLUMN leadloop.forgotten.forgotten_at IS 'When that was.';

COMMENT ON TABLE leadloop.disable_requests IS
    'People who opted out. Upstream inserts the first four columns; the rest is ours.';
COMMENT ON COLUMN leadloop.disable_requests.reason IS 'For people; it is not sent.';
COMMENT ON COLUMN leadloop.disable_requests.requested_at IS 'When the person opted out.';
COMMENT ON COLUMN leadloop.disable_requests.status IS
    'requested: not yet confirmed; disabled: the vendor confirmed; cancelled: the lead had not been
sent and never will be; failed: the vendor refuses it or fails on it, see last_error (it is tried
again, at least daily).';
COMMENT ON COLUMN leadloop.disable_requests.tries IS 'How often the vendor refused it.';
COMMENT ON COLUMN leadloop.disable_requests.tried_at IS 'When it refused it last.';
COMMENT ON COLUMN leadloop.disable_requests.sent_at IS
    'When the vendor was first asked to disable the lead.';
COMMENT ON COLUMN leadloop.disable_requests.confirmed_at IS
    'When the vendor confirmed, or the lead was cancelled.';
COMMENT ON COLUMN leadloop.disable_requests.last_error IS
    'Why the vendor refused, without personal data.';
COMMENT ON COLUMN leadloop.disable_requests.names_no_lead IS
    'No lead had this id when the opt-out was inserted; one may have come since.';
COMMENT ON COLUMN leadloop.disable_requests.next_try_at IS
    'Of a failed one: when it is tried again, at least daily.';

COMMENT ON TABLE leadloop.suppressed_numbers IS
    'Phone numbers that opted out: none of them is sent under another lead or campaign, unless the
campaign says so (sends_opted_out_numbers).';
COMMENT ON COLUMN leadloop.suppressed_numbers.number_key IS
    'HMAC-SHA256 of the number in E.164, under the key of leadloop.number_key.';
COMMENT ON COLUMN leadloop.suppressed_numbers.campaign_id IS 'Where it opted out first.';
COMMENT ON COLUMN leadloop.suppressed_numbers.lead_id IS 'The lead that opted out first.';
COMMENT ON COLUMN leadloop.suppressed_numbers.noted_at IS 'When that was noted.';

COMMENT ON TABLE leadloop.number_key IS
    'The secret under which numbers are hashed. Lost, the suppressed numbers are lost with it.';
COMMENT ON COLUMN leadloop.number_key.key IS 'Made once, at random.';

COMMENT ON TABLE leadloop.lead_outcomes IS
    'What became of a lead, as the vendor told it last; raw is its whole answer.';
COMMENT ON COLUMN leadloop.lead_outcomes.processed_at IS 'When the vendor was done with the lead.';
COMMENT ON COLUMN leadloop.lead_outcomes.total_cost IS 'What the vendor charged for the lead.';
COMMENT ON COLUMN leadloop.lead_outcomes.raw IS
    'The vendor''s whole result; what jsonb cannot hold is kept as its JSON escape.';
COMMENT ON COLUMN leadloop.lead_outcomes.first_seen_at IS 'When it was first stored.';
COMMENT ON COLUMN leadloop.lead_outcomes.updated_at IS 'When it last changed.';
COMMENT ON COLUMN leadloop.lead_outcomes.seen_at IS
    'When its processed_at was first stored: later than first_seen_at for a lead that was processed
again.';
COMMENT ON COLUMN leadloop.lead_outcomes.lookback_needed_s IS
    'Of an outcome that was not there when its processed_at was polled: the LEADLOOP_LOOKBACK that
would have sufficed to find it when it was found, seconds. Null: it was in time.';

COMMENT ON TABLE leadloop.outreach_attempts IS
    'One row a call attempt, email, SMS or IVR; block is the key of the vendor''s answer.';
COMMENT ON COLUMN leadloop.outreach_attempts.channel IS 'call, gmail, sms or ivr.';
COMMENT ON COLUMN leadloop.outreach_attempts.block IS
    'The key of the vendor''s result that holds it.';
COMMENT ON COLUMN leadloop.outreach_attempts.attempt_key IS
    'Of a call the vendor''s reference_id, where it gives none the time; else the position. What
is too long for an index is its head and a digest, as in block.';
COMMENT ON COLUMN leadloop.outreach_attempts.outcome_name IS 'Of a message, its status.';
COMMENT ON COLUMN leadloop.outreach_attempts.occurred_at IS 'When it was made or sent.';
COMMENT ON COLUMN leadloop.outreach_attempts.duration_s IS
    'Seconds; null where the vendor does not say.';
COMMENT ON COLUMN leadloop.outreach_attempts.cost IS 'Null while it is pending.';
COMMENT ON COLUMN leadloop.outreach_attempts.answers IS
    'The script''s answers of a call; the content of a message.';

COMMENT ON TABLE leadloop.unreadable_results IS
    'Results that cannot be outcomes (no lead_id, no time): kept, so that nothing is lost.';
COMMENT ON COLUMN leadloop.unreadable_results.digest IS
    'SHA-256 of raw: the same result is kept once.';
COMMENT ON COLUMN leadloop.unreadable_results.reason IS 'What it lacks.';

COMMENT ON COLUMN leadloop.watermarks.stream IS 'outcomes is the only one.';
COMMENT ON COLUMN leadloop.watermarks.processed_through IS
    'Everything that the vendor processed up to here is stored. It only moves forward.';

COMMENT ON TABLE leadloop.poll_windows IS 'Every range of processed_at that was read.';
COMMENT ON COLUMN leadloop.poll_windows.window_after IS 'Where the range begins.';
COMMENT ON COLUMN leadloop.poll_windows.window_before IS 'Where it ends.';
COMMENT ON COLUMN leadloop.poll_windows.status IS
    'closed: complete and settled; open: complete, its end not settled yet; incomplete: the rows
read do not add up to the count claimed, or moved while they were read, so the watermark stays.';
COMMENT ON COLUMN leadloop.poll_windows.claimed_count IS 'What the API said the range holds.';
COMMENT ON COLUMN leadloop.poll_windows.stored_count IS 'The distinct results read and stored.';
COMMENT ON COLUMN leadloop.poll_windows.pages IS 'Pages of the last reading.';
COMMENT ON COLUMN leadloop.poll_windows.closed_through IS
    'Up to where it was proven stored; null if nothing was.';
COMMENT ON COLUMN leadloop.poll_windows.range_after IS
    'Where the range begins that the backfill was asked for; null for a poll.';
COMMENT ON COLUMN leadloop.poll_windows.range_before IS 'Where that range ends.';
COMMENT ON COLUMN leadloop.poll_windows.made_good_at IS
    'Of an incomplete window: when later ones were found to prove all of it. Until then every poll
reads it again.';
COMMENT ON COLUMN leadloop.poll_windows.polled_at IS 'When it was stored.';

COMMENT ON TABLE leadloop.rate_slots IS
    'The vendor''s requests a minute, one row each: when it may be used again. Every request of
every process takes one. Slot 0 is no slot: until then the vendor wants nothing at all.';
COMMENT ON COLUMN leadloop.rate_slots.free_at IS 'From when a request may use it.';

COMMENT ON FUNCTION leadloop.note_opt_out() IS
    'Writes opt-outs on the leads themselves: a claim that runs at the same moment waits for the row
or skips it, and then sees the opt-out. Marks those that name no lead. Security definer: upstream
needs no right on leads.';

COMMENT ON FUNCTION leadloop.note_opted_out_leads() IS
    'Completes inserted leads by what is known already: an opt-out that came before its lead; a lead
that is forgotten, sent before its row was deleted, or called by the vendor.';

COMMENT ON FUNCTION leadloop.remember_sent_leads() IS
    'Keeps id, status and times of sent leads whose rows are deleted or truncated.';
