"""Where every campaign stands, for `leadloop status` and the demo's last table."""

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from db import lateness
from leadloop.core.lateness import Lateness

_CAMPAIGNS = text("""
SELECT campaign.campaign_id, campaign.name, campaign.enabled,
       coalesce(lead.new, 0) AS new, coalesce(lead.sending, 0) AS sending,
       coalesce(lead.in_doubt, 0) AS in_doubt, coalesce(lead.created, 0) AS created,
       coalesce(lead.rejected, 0) AS rejected, coalesce(lead.cancelled, 0) AS cancelled,
       coalesce(outcome.processed, 0) AS processed,
       coalesce(opt_out.disabled, 0) AS disabled,
       coalesce(opt_out.disable_pending, 0) AS disable_pending,
       coalesce(opt_out.disable_failed, 0) AS disable_failed,
       CAST(extract(epoch FROM clock_timestamp() - opt_out.waiting_since) AS float8)
           AS disable_oldest_s,
       mark.processed_through AS watermark,
       CAST(extract(epoch FROM clock_timestamp() - mark.processed_through) AS float8)
           AS watermark_lag_s
  FROM leadloop.campaigns AS campaign
  LEFT JOIN (
       SELECT campaign_id,
              count(*) FILTER (WHERE status = 'new') AS new,
              count(*) FILTER (WHERE status = 'sending') AS sending,
              count(*) FILTER (WHERE status = 'in_doubt') AS in_doubt,
              count(*) FILTER (WHERE status = 'created') AS created,
              count(*) FILTER (WHERE status = 'rejected') AS rejected,
              count(*) FILTER (WHERE status = 'cancelled') AS cancelled
         FROM leadloop.leads GROUP BY campaign_id) AS lead USING (campaign_id)
  LEFT JOIN (SELECT campaign_id, count(*) AS processed
               FROM leadloop.lead_outcomes GROUP BY campaign_id) AS outcome USING (campaign_id)
  LEFT JOIN (
       SELECT campaign_id,
              count(*) FILTER (WHERE status = 'disabled') AS disabled,
              count(*) FILTER (WHERE status = 'requested') AS disable_pending,
              count(*) FILTER (WHERE status = 'failed') AS disable_failed,
              min(requested_at) FILTER (WHERE status IN ('requested', 'failed')) AS waiting_since
         FROM leadloop.disable_requests GROUP BY campaign_id) AS opt_out USING (campaign_id)
  LEFT JOIN leadloop.watermarks AS mark
         ON mark.campaign_id = campaign.campaign_id AND mark.stream = 'outcomes'
 WHERE CAST(:ids AS text[]) IS NULL OR campaign.campaign_id = ANY(:ids)
 ORDER BY campaign.campaign_id
""")

_REJECTIONS = text("""
SELECT last_error AS reason, count(*) AS leads, (array_agg(lead_id ORDER BY seq))[1:3] AS samples
  FROM leadloop.leads
 WHERE status = 'rejected' AND campaign_id = ANY(:ids)
 GROUP BY last_error ORDER BY count(*) DESC, last_error LIMIT 20
""")

_OUTCOMES = text("""
SELECT coalesce(outcome_name, '(none)') AS outcome, count(*) AS leads, sum(total_cost) AS cost
  FROM leadloop.lead_outcomes WHERE campaign_id = ANY(:ids)
 GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 20
""")

_ATTEMPTS = text("""
SELECT channel, count(*) AS attempts FROM leadloop.outreach_attempts
 WHERE campaign_id = ANY(:ids) GROUP BY channel ORDER BY channel
""")

_OPEN_OPT_OUTS = text("""
SELECT count(*) FILTER (WHERE status = 'requested') AS requested,
       count(*) FILTER (WHERE status = 'failed') AS failed
  FROM leadloop.disable_requests
 WHERE status IN ('requested', 'failed') AND campaign_id = ANY(:ids)
""")


def open_opt_outs(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """How many opt-outs are `requested`, and how many have `failed`."""
    return dict(connection.execute(_OPEN_OPT_OUTS, {"ids": list(ids)}).one()._mapping)


def campaigns(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """A row a campaign; all of them where no ids are given. Times in UTC, lags in seconds."""
    late = lateness.by_campaign(connection, ids)
    rows = connection.execute(_CAMPAIGNS, {"ids": list(ids) or None})
    return [{**row._mapping, **_lateness(late.get(row.campaign_id, Lateness()))} for row in rows]


def _lateness(late: Lateness) -> dict[str, int]:
    return {"late": late.late, "lookback_needed_s": math.ceil(late.needed_s)}


def rejections(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Reasons, how many leads each has, and the ids of three of them."""
    return [dict(row._mapping) for row in connection.execute(_REJECTIONS, {"ids": list(ids)})]


def outcomes(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Outcomes by name, with their cost."""
    return [dict(row._mapping) for row in connection.execute(_OUTCOMES, {"ids": list(ids)})]


def attempts(connection: Connection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Attempts by channel."""
    return [dict(row._mapping) for row in connection.execute(_ATTEMPTS, {"ids": list(ids)})]
