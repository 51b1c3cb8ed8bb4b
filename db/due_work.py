"""What is due, for all campaigns by one query.

Its cost grows with the campaigns that have work, not with all: it steps from campaign to campaign
along partial indexes, which hold open work alone.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, text

from db.in_doubt import IS_LOOKUP_DUE
from db.watermarks import OUTCOMES, REREAD_THROUGH, get_database_time

#: Campaigns are divided into this many shares; see `db.live_places`.
SHARES = 16

#: A campaign's new leads are few if one request usually holds them.
_FEW = 100

_SHARE = f"mod(CAST(hashtext(campaign.campaign_id) AS bigint) + 2147483648, {SHARES})"
_IN_SHARES = f"{_SHARE} = ANY(CAST(:shares AS bigint[]))"
_MAY_CREATE = """(campaign.enabled AND campaign.push_enabled AND NOT EXISTS (
           SELECT FROM leadloop.create_holds AS hold
            WHERE hold.campaign_id = campaign.campaign_id AND hold.released_at IS NULL))"""


def _step_through(name: str, table: str, condition: str) -> str:
    """Build the CTE of the campaigns that have a row that meets a partial index's condition."""
    step = f"SELECT campaign_id FROM leadloop.{table} WHERE {condition}"
    return f"""{name} (campaign_id) AS (
    ({step} ORDER BY campaign_id LIMIT 1)
     UNION ALL
    SELECT ({step} AND campaign_id > last.campaign_id ORDER BY campaign_id LIMIT 1)
      FROM {name} AS last WHERE last.campaign_id IS NOT NULL
)"""


_NEW = text(f"""
WITH RECURSIVE {_step_through("opted_out", "disable_requests", "status = 'requested'")},
{_step_through("usual", "leads", "status = 'new' AND suspect_list IS NULL AND priority = 0")},
{_step_through("urgent", "leads", "status = 'new' AND priority > 0 AND suspect_list IS NULL")}
SELECT campaign.campaign_id, opted_out.campaign_id IS NOT NULL AS has_opt_outs,
       {_MAY_CREATE} AND (urgent.campaign_id IS NOT NULL
                          OR campaign.priority > 0 AND usual.campaign_id IS NOT NULL) AS has_urgent,
       {_MAY_CREATE} AND campaign.priority = 0 AND usual.campaign_id IS NOT NULL AS has_leads,
       (SELECT max(requested_at) FROM leadloop.disable_requests AS request
         WHERE request.campaign_id = opted_out.campaign_id AND request.status = 'requested')
           AS newest_opt_out,
       (SELECT max(seq) FROM leadloop.leads AS lead
         WHERE lead.campaign_id = usual.campaign_id AND lead.status = 'new'
           AND lead.suspect_list IS NULL) AS newest_lead,
       NOT EXISTS (SELECT FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = usual.campaign_id AND lead.status = 'new'
                      AND lead.suspect_list IS NULL AND lead.priority = 0 OFFSET {_FEW}) AS are_few
  FROM leadloop.campaigns AS campaign
  LEFT JOIN opted_out USING (campaign_id)
  LEFT JOIN usual USING (campaign_id)
  LEFT JOIN urgent USING (campaign_id)
 WHERE (opted_out.campaign_id IS NOT NULL OR usual.campaign_id IS NOT NULL
        OR urgent.campaign_id IS NOT NULL) AND {_IN_SHARES}
 ORDER BY campaign.priority DESC, campaign.campaign_id
""")
_IS_LOOKUP_DUE = IS_LOOKUP_DUE.replace(":settle_s", "coalesce(campaign.settle_s, :settle_s)")
# A campaign whose lookups have shown nothing within a day is looked up for its opt-outs alone.
_TIMED = text(f"""
SELECT campaign.campaign_id,
       EXISTS (SELECT FROM leadloop.disable_requests AS request
                WHERE request.campaign_id = campaign.campaign_id AND request.status = 'failed'
                  AND coalesce(request.next_try_at, '-infinity') <= clock_timestamp())
           AS has_opt_outs,
       campaign.enabled AND (
           (campaign.shows_unprocessed IS NOT FALSE
            OR campaign.visibility_tried_at < clock_timestamp() - interval '1 day')
           AND EXISTS (SELECT FROM leadloop.leads AS lead
                        WHERE lead.campaign_id = campaign.campaign_id
                          AND lead.status = 'in_doubt' AND {_IS_LOOKUP_DUE})
           OR {_MAY_CREATE}
           AND EXISTS (SELECT FROM leadloop.leads AS lead
                        WHERE lead.campaign_id = campaign.campaign_id AND lead.status = 'new'
                          AND lead.suspect_list IS NOT NULL
                          AND coalesce(lead.next_try_at, '-infinity') <= clock_timestamp()))
           AS has_leads,
       campaign.enabled AND EXISTS (
           SELECT FROM leadloop.owed_windows AS owed
            WHERE owed.campaign_id = campaign.campaign_id
              AND owed.next_try_at <= clock_timestamp()) AS has_owed_windows
  FROM leadloop.campaigns AS campaign
 WHERE {_IN_SHARES}
 ORDER BY campaign.priority DESC, campaign.campaign_id
""")
# The vendor can report outcomes for as long as leads are out there. The last lead that it accepted
# and the last outcome tell how likely there is one soon.
_POLLED = text(f"""
SELECT campaign.campaign_id,
       (SELECT greatest(read_through, processed_through) FROM leadloop.watermarks AS mark
         WHERE mark.campaign_id = campaign.campaign_id AND mark.stream = :stream) AS read_through,
       greatest(campaign.specimen_at,
                (SELECT max(first_seen_at) FROM leadloop.lead_outcomes AS outcome
                  WHERE outcome.campaign_id = campaign.campaign_id)) AS last_active_at
  FROM leadloop.campaigns AS campaign
 WHERE campaign.enabled AND {_IN_SHARES}
 ORDER BY campaign.priority DESC, campaign.campaign_id
""")


# The campaigns with open work, whether its time has come or not. Of a campaign without any, all
# that a job counts is 0.
_AWAITING_END = """SELECT campaign_id FROM leadloop.leads
     WHERE status IN ('sending', 'in_doubt') AND doubted_at = 'infinity'
     UNION ALL
    SELECT campaign_id FROM leadloop.sent_leads
     WHERE status = 'in_doubt' AND doubted_at = 'infinity'"""
_TO_PUSH = text(f"""
WITH RECURSIVE {_step_through("waiting", "leads", "status = 'new'")},
{_step_through("unsettled", "leads", "status IN ('sending', 'in_doubt')")}
SELECT campaign_id FROM waiting WHERE campaign_id IS NOT NULL
 UNION
SELECT campaign_id FROM unsettled WHERE campaign_id IS NOT NULL
 UNION
({_AWAITING_END})
 UNION
SELECT campaign_id FROM leadloop.create_holds WHERE released_at IS NULL
 UNION
SELECT campaign_id FROM leadloop.campaigns WHERE source IS NOT NULL
""")
_TO_DISABLE = text(f"""
WITH RECURSIVE {
    _step_through("unconfirmed", "disable_requests", "status IN ('requested', 'failed')")
}
SELECT campaign_id FROM unconfirmed WHERE campaign_id IS NOT NULL
 UNION
({_AWAITING_END})
 UNION
SELECT campaign_id FROM leadloop.campaigns WHERE opt_out_source IS NOT NULL
""")
_WITH_OPT_OUT_SOURCE = text(f"""
SELECT campaign_id FROM leadloop.campaigns AS campaign
 WHERE opt_out_source IS NOT NULL AND {_IN_SHARES}
 ORDER BY priority DESC, campaign_id
""")


# Left to a job: campaigns that were never polled, have no outcome yet, owe a window, whose pages
# are limited, or whose watermark was set back or lies in the future.
_LOOKBACKS = text(f"""
SELECT mark.campaign_id, {REREAD_THROUGH} AS reread_through
  FROM leadloop.watermarks AS mark
 WHERE mark.stream = :stream
   AND mark.processed_through >= coalesce(mark.written_through, mark.processed_through)
   AND mark.processed_through <= clock_timestamp()
   AND EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                WHERE outcome.campaign_id = mark.campaign_id)
   AND NOT EXISTS (SELECT FROM leadloop.owed_windows AS owed
                    WHERE owed.campaign_id = mark.campaign_id)
   AND NOT EXISTS (SELECT FROM leadloop.learned_limits AS learned
                    WHERE learned.campaign_id = mark.campaign_id AND learned.name LIKE 'page%')
""")
_NEVER_SENT = text("""
SELECT campaign_id FROM leadloop.campaigns AS campaign
 WHERE NOT EXISTS (SELECT FROM leadloop.watermarks AS mark
                    WHERE mark.campaign_id = campaign.campaign_id)
   AND NOT EXISTS (SELECT FROM leadloop.leads AS lead
                    WHERE lead.campaign_id = campaign.campaign_id)
   AND NOT EXISTS (SELECT FROM leadloop.owed_windows AS owed
                    WHERE owed.campaign_id = campaign.campaign_id)
""")


@dataclass(frozen=True, kw_only=True)
class Lookbacks:
    """Where polls that read the lookback have to read on.

    Attributes:
        now: the database's clock.
        reread_through: up to where they have read, by campaign, where one request may show that
            there is nothing new.
        never_sent: campaigns without any lead, in which nothing can be processed.
    """

    now: datetime
    reread_through: Mapping[str, datetime]
    never_sent: Set[str]


@dataclass(frozen=True, kw_only=True)
class DueWork:
    """What a campaign has to do now.

    Attributes:
        campaign_id: the campaign.
        has_opt_outs: opt-outs to send.
        has_urgent: urgent leads to create.
        has_leads: other leads to create, or leads to look up.
        has_owed_windows: owed windows to read again.
        newest_opt_out: when the newest opt-out came in.
        newest_lead: the number of the newest lead in the queue.
        are_few: whether the new leads that are not urgent fit in one request.
    """

    campaign_id: str
    has_opt_outs: bool = False
    has_urgent: bool = False
    has_leads: bool = False
    has_owed_windows: bool = False
    newest_opt_out: datetime | None = field(default=None, compare=False)
    newest_lead: int | None = field(default=None, compare=False)
    are_few: bool = field(default=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class PolledCampaign:
    """A campaign to poll.

    Attributes:
        campaign_id: the campaign.
        read_through: up to when polls have read its outcomes; None: it was never polled.
        last_active_at: when the vendor last accepted a lead of it, or an outcome was stored; None:
            never.
    """

    campaign_id: str
    read_through: datetime | None
    last_active_at: datetime | None


def find_new_work(connection: Connection, shares: Sequence[int]) -> list[DueWork]:
    """Return the campaigns with opt-outs or leads that came in, highest priority first.

    Args:
        connection: in autocommit mode, or a transaction.
        shares: the shares whose campaigns count.
    """
    rows = connection.execute(_NEW, {"shares": list(shares)})
    return _leave_out_idle([DueWork(**row._mapping) for row in rows])


def find_timed_work(
    connection: Connection, shares: Sequence[int], *, settle_s: int
) -> list[DueWork]:
    """Return the campaigns with work whose time has come, highest priority first.

    Lookups of leads in doubt, suspects, failed opt-outs, owed windows.

    Args:
        connection: in autocommit mode, or a transaction.
        shares: the shares whose campaigns count.
        settle_s: the settle time of campaigns whose row has none, seconds.
    """
    rows = connection.execute(_TIMED, {"shares": list(shares), "settle_s": settle_s, "run": None})
    return _leave_out_idle([DueWork(**row._mapping) for row in rows])


def list_polled_campaigns(connection: Connection, shares: Sequence[int]) -> list[PolledCampaign]:
    """Return the enabled campaigns, highest priority first."""
    rows = connection.execute(_POLLED, {"shares": list(shares), "stream": OUTCOMES})
    return [PolledCampaign(**row._mapping) for row in rows]


def list_opt_out_sources(connection: Connection, shares: Sequence[int]) -> list[str]:
    """Return the campaigns that name an opt-out source, enabled or not, highest priority first."""
    return list(connection.scalars(_WITH_OPT_OUT_SOURCE, {"shares": list(shares)}))


def find_campaigns_to_push(connection: Connection) -> set[str]:
    """Return the campaigns in which a push may have anything to do, to warn about or to count.

    Leads that are new or in doubt, creates that are held, a source to follow.
    """
    return set(connection.scalars(_TO_PUSH))


def find_campaigns_to_disable(connection: Connection) -> set[str]:
    """Return the campaigns in which a disable may have anything to do or to count.

    Opt-outs that the vendor has not confirmed, leads whose settle time has to start, an opt-out
    source to read.
    """
    return set(connection.scalars(_TO_DISABLE))


def find_lookbacks(connection: Connection) -> Lookbacks:
    """Return where the polls of all campaigns have to read on, as far as one request may do."""
    now = get_database_time(connection)
    rows = connection.execute(_LOOKBACKS, {"stream": OUTCOMES}).all()
    return Lookbacks(
        now=now,
        reread_through={row.campaign_id: row.reread_through for row in rows},
        never_sent=set(connection.scalars(_NEVER_SENT)),
    )


def _leave_out_idle(found: Sequence[DueWork]) -> list[DueWork]:
    return [work for work in found if work != DueWork(campaign_id=work.campaign_id)]
