-- Counts of what is past: views and triggers. The file may be applied again (idempotent). db.schema
-- expands macros from db/schema/counting.py: COUNTED, the counted rows of a table; SPREAD, the rows
-- repeated for each period; IS_KEPT, a condition on the age of sums by hour; COUNT_TRIGGERS, the
-- function and the triggers of a table.

CREATE OR REPLACE VIEW leadloop.counts_now AS
SELECT kind, span, since, campaign_id, name, detail, amount, marked, cost FROM leadloop.counts
 WHERE IS_KEPT
 UNION ALL
SPREAD(leadloop.count_changes);

COMMENT ON VIEW leadloop.counts_now IS
    'counts and the changes that are not folded yet: the views sum their rows. Sums by hour are those of
the last 400 days.';

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
            COUNTED(disable_requests)) AS counted
     GROUP BY kind, hour, campaign_id, name, detail
)
SELECT kind, span, since, campaign_id, name, detail, CAST(sum(amount) AS bigint) AS amount,
       CAST(sum(marked) AS bigint) AS marked, sum(cost) AS cost
  FROM (SPREAD(hours)) AS spread
 GROUP BY kind, span, since, campaign_id, name, detail;

COMMENT ON VIEW leadloop.counts_from_rows IS
    'What counts_now has to sum to, counted from scratch. Reads all rows of the campaign.';

COUNT_TRIGGERS(leads)
COUNT_TRIGGERS(lead_outcomes)
COUNT_TRIGGERS(outreach_attempts)
COUNT_TRIGGERS(disable_requests)
