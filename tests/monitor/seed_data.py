"""Seed data for the page: a week of two campaigns, healthy, stuck or idle."""

from db.database import Database
from tests import factories, sql

#: Campaign ids, and how many leads each campaign has.
CAMPAIGNS = {"EAST-1": 400, "WEST-2": 300}

_LEADS = """
INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, contact_name, state_code, status,
                            sent_at, inserted_at)
SELECT :campaign, 'L-' || n, '+1212555' || lpad(CAST(n AS text), 4, '0'), 'Zebulon Quirk', 'NY',
       CASE WHEN n % 40 = 0 THEN 'rejected' WHEN n % 9 = 0 THEN 'new' ELSE 'created' END,
       now() - interval '7 days', now() - interval '10 minutes'
  FROM generate_series(1, :amount) AS n
"""
_REJECTED = """
UPDATE leadloop.leads SET last_error = 'phone_number: not a phone number'
 WHERE status = 'rejected'
"""
# Spread over days and hours, so that the cells of the heatmap differ.
_OUTCOMES = """
INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, outcome_name, total_cost,
                                    raw)
SELECT campaign_id, lead_id,
       now() - make_interval(hours => CAST(substr(lead_id, 3) AS int) * 7 % 150),
       (ARRAY['Sold', 'No answer', 'Call back', 'Not interested', 'Voicemail', 'No answer'])
       [1 + CAST(substr(lead_id, 3) AS int) % 6], 0.35, '{}'
  FROM leadloop.leads WHERE status = 'created' AND CAST(substr(lead_id, 3) AS int) % 5 <> 0
"""
_ATTEMPTS = """
INSERT INTO leadloop.outreach_attempts (campaign_id, lead_id, channel, block, attempt_key,
                                        occurred_at, duration_s, answers)
SELECT campaign_id, lead_id, 'call', 'c', CAST(n AS text),
       date_trunc('day', processed_at) - make_interval(days => n - 1)
       + make_interval(hours => 13 + CAST(substr(lead_id, 3) AS int) * n % 11),
       CASE WHEN n = 1 THEN 40 ELSE 0 END, '{}'
  FROM leadloop.lead_outcomes, generate_series(1, 3) AS n
 WHERE CAST(substr(lead_id, 3) AS int) % n = 0
"""
_RUNS = """
INSERT INTO leadloop.sync_runs (flow, campaign_id, flow_run_id, state, started_at, ended_at, counts)
SELECT flow, campaign_id, gen_random_uuid(), 'completed',
       now() - make_interval(hours => n), now() - make_interval(hours => n) + interval '7 seconds',
       jsonb_build_object('requests', 3 + n * 5 % 17)
  FROM leadloop.campaigns, generate_series(60, 0, -1) AS n,
       unnest(ARRAY['disable-leads', 'push-leads', 'poll-outcomes']) AS flow
 ORDER BY n DESC
"""
_WINDOWS = """
INSERT INTO leadloop.poll_windows (campaign_id, run_id, window_after, window_before, closed_through,
                                   status, claimed_count, stored_count, pages, polled_at)
SELECT campaign_id, 1, at - interval '1 hour', at, at, 'closed', 1, 1, 1,
       at + make_interval(mins => 3 + n * (4 + length(campaign_id) + ascii(campaign_id)) % 19)
  FROM leadloop.campaigns, generate_series(1, 60) AS n,
       LATERAL (SELECT date_trunc('hour', now()) - make_interval(hours => n) AS at) AS hour
"""
_OPT_OUTS = """
INSERT INTO leadloop.disable_requests (campaign_id, lead_id, status, requested_at, confirmed_at)
SELECT campaign_id, lead_id, 'disabled', processed_at,
       processed_at + make_interval(secs => 30 + CAST(substr(lead_id, 3) AS int) * 11 % 400)
  FROM leadloop.lead_outcomes WHERE CAST(substr(lead_id, 3) AS int) % 7 = 0
"""
_WATERMARKS = """
INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through)
SELECT campaign_id, 'outcomes', now() - interval '2 minutes' FROM leadloop.campaigns
"""
_RATE_SLOTS = """
INSERT INTO leadloop.rate_slots
SELECT n, CASE WHEN n BETWEEN 1 AND 31 THEN now() + interval '1 day' ELSE '-infinity' END,
       CASE WHEN n > 0 THEN ARRAY['bulk'] ELSE '{}' END, 1, 60.5
  FROM generate_series(0, 100) AS n
"""
_LATENCIES = """
INSERT INTO leadloop.latencies (hour, campaign_id, kind, bucket_s, amount, total_s)
SELECT date_trunc('hour', now(), 'UTC'), campaign_id, kind, bucket_s, 99 * scale, scale
  FROM leadloop.campaigns,
       (VALUES ('lead', 0.1, 1), ('opt-out', 0.2, 1), ('outcome', 10, 1),
               ('outcome', 'Infinity', 0.01)) AS counted (kind, bucket_s, scale)
"""
_STUCK = (
    """
INSERT INTO leadloop.disable_requests (campaign_id, lead_id, requested_at)
SELECT campaign_id, lead_id, now() - interval '3 hours' FROM leadloop.leads
 WHERE campaign_id = 'EAST-1' AND status = 'created'
   AND CAST(substr(lead_id, 3) AS int) % 7 <> 0 ORDER BY lead_id LIMIT 3
""",
    """
UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '2 hours'
 WHERE campaign_id = 'WEST-2' AND lead_id IN ('L-1', 'L-2')
""",
    """
INSERT INTO leadloop.sync_runs (flow, campaign_id, flow_run_id, state, started_at, ended_at, error)
VALUES ('push-leads', 'WEST-2', 'f0e1d2c3', 'failed', now() - interval '4 minutes', now(),
        'the vendor refuses the login *and* says why: <b>401</b>')
""",
)


def seed_healthy(database: Database) -> None:
    """Seed two campaigns with a week without problems."""
    for campaign, amount in CAMPAIGNS.items():
        factories.add_campaign(database, campaign)
        sql.execute(database, _LEADS, campaign=campaign, amount=amount)
    for statement in (
        _REJECTED, _OUTCOMES, _ATTEMPTS, _RUNS, _WINDOWS, _OPT_OUTS, _WATERMARKS, _RATE_SLOTS,
        _LATENCIES,
    ):  # fmt: skip
        sql.execute(database, statement)


def seed_stuck(database: Database) -> None:
    """Seed the healthy week, then three problems."""
    seed_healthy(database)
    for statement in _STUCK:
        sql.execute(database, statement)


def seed_idle(database: Database) -> None:
    """Seed the healthy week without a run in the last five hours.

    A third campaign is disabled, with a watermark 40 days old.
    """
    seed_healthy(database)
    for column in ("started_at", "ended_at"):
        sql.execute(database, f"UPDATE leadloop.sync_runs SET {column} = {column} - interval '5 h'")
    factories.add_campaign(database, "GONE-3", enabled=False)
    sql.execute(
        database,
        """INSERT INTO leadloop.watermarks (campaign_id, stream, processed_through)
           VALUES ('GONE-3', 'outcomes', now() - interval '40 days')""",
    )
