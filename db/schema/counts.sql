-- Counts of what is past: views and triggers. The file may be applied again (idempotent). db.schema
-- expands macros from db/schema/counting.py: COUNTED, the counted rows of a table; SPREAD, the rows
-- repeated for each period, and SPREAD_BY_CAMPAIGN, without the sums of all campaigns; TRIES, changes
-- of leads by outcome and attempts; IS_KEPT, a condition on the age of sums by hour; COUNT_TRIGGERS,
-- the function and the triggers of a table.

CREATE OR REPLACE VIEW leadloop.counts_now AS
SELECT kind, span, since, campaign_id, name, detail, amount, marked, cost FROM leadloop.counts
 WHERE IS_KEPT
 UNION ALL
SPREAD(leadloop.count_changes)
 UNION ALL
TRIES(leadloop.attempt_changes);

COMMENT ON VIEW leadloop.counts_now IS
    'counts and the changes that are not folded yet: the views sum their rows. Sums by hour are those of
the last 400 days; a row that is deleted, as old runs are, is subtracted.';

CREATE OR REPLACE VIEW leadloop.counts_from_rows AS
WITH hours AS (
    SELECT kind, hour, campaign_id, name, detail, count(*) AS amount, sum(marked) AS marked,
           sum(cost) AS cost
      FROM (COUNTED(leads)
            UNION ALL
            COUNTED(lead_outcomes)
            UNION ALL
            COUNTED(outreach_attempts)
            UNION ALL
            COUNTED(disable_requests)
            UNION ALL
            COUNTED(sync_runs)) AS counted
     GROUP BY kind, hour, campaign_id, name, detail
)
SELECT kind, span, since, campaign_id, name, detail, CAST(sum(amount) AS bigint) AS amount,
       CAST(sum(marked) AS bigint) AS marked, sum(cost) AS cost
  FROM (SPREAD_BY_CAMPAIGN(hours)) AS spread
 GROUP BY kind, span, since, campaign_id, name, detail
 UNION ALL
-- Attempts are counted in the order of their key, before the join: half the temporary files.
SELECT 'tries', 'ever', '-infinity', campaign_id, outcome_name,
       CAST(coalesce(tried.attempts, 0) AS text), count(*), 0, NULL
  FROM leadloop.lead_outcomes AS outcome
  LEFT JOIN (SELECT campaign_id, lead_id, count(*) AS attempts
               FROM leadloop.outreach_attempts GROUP BY campaign_id, lead_id) AS tried
       USING (campaign_id, lead_id)
 GROUP BY campaign_id, outcome_name, tried.attempts;

COMMENT ON VIEW leadloop.counts_from_rows IS
    'What the sums of each campaign in counts_now have to be, counted from scratch. Reads all rows of the
campaign.';

COUNT_TRIGGERS(leads)
COUNT_TRIGGERS(lead_outcomes)
COUNT_TRIGGERS(outreach_attempts)
COUNT_TRIGGERS(disable_requests)
COUNT_TRIGGERS(sync_runs)
