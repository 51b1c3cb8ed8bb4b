"""Queries on `leadloop.campaigns`: selection, overrides, pause, learned facts of the vendor."""

from collections.abc import Collection, Sequence, Set
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, TextClause, text

from leadloop.core.campaign_rules import Campaign, CampaignRules
from leadloop.core.errors import CampaignDeleted, UsageError
from leadloop.core.timestamps import EpochUnit

_COMPLETE = """
SELECT campaign_id,
       coalesce(batch_size, :batch_size)         AS batch_size,
       CAST(:batch_bytes AS integer)             AS batch_bytes,
       coalesce(page_size, :page_size)           AS page_size,
       coalesce(lookback_s, :lookback_s)         AS lookback_s,
       coalesce(settle_s, :settle_s)             AS settle_s,
       coalesce(window_s, :window_s)             AS window_s,
       coalesce(epoch_unit, :epoch_unit)         AS epoch_unit,
       coalesce(default_region, :default_region) AS default_region,
       coalesce(required_fields, CAST(:required_fields AS text[])) AS required_fields,
       coalesce(area_codes, '{}')                AS area_codes,
       coalesce(source_timeout_s, :source_timeout_s) AS source_timeout_s,
       coalesce(max_lead_age_s, CAST(:max_lead_age_s AS integer)) AS max_lead_age_s,
       enabled, sends_opted_out_numbers, numeric_lead_ids, source, on_source_removal,
       opt_out_source, priority, calling_hours, account
  FROM leadloop.campaigns
"""
# A run's campaigns take turns in this order.
_BY_PRIORITY = "ORDER BY priority DESC, campaign_id"
_NAMED = text(f"{_COMPLETE} WHERE campaign_id = ANY(:ids) {_BY_PRIORITY}")
_ENABLED = text(f"{_COMPLETE} WHERE enabled {_BY_PRIORITY}")
_ALL = text(f"{_COMPLETE} {_BY_PRIORITY}")
# Opt-outs are sent for disabled campaigns too.
_ENABLED_OR_OPTING_OUT = text(f"""{_COMPLETE}
 WHERE enabled OR opt_out_source IS NOT NULL OR EXISTS (
       SELECT FROM leadloop.disable_requests AS request
        WHERE request.campaign_id = campaigns.campaign_id
          AND (request.status = 'requested'
               OR request.status = 'failed'
                  AND coalesce(request.next_try_at, '-infinity') <= clock_timestamp()))
 {_BY_PRIORITY}
""")
_SET_PUSH_ENABLED = text("""
UPDATE leadloop.campaigns SET push_enabled = :enabled
 WHERE (CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids))
RETURNING campaign_id
""")
_ADD = text(
    "INSERT INTO leadloop.campaigns (campaign_id) VALUES (:id) ON CONFLICT DO NOTHING RETURNING 1"
)
_RECORD_VISIBILITY = text("""
UPDATE leadloop.campaigns
   SET shows_unprocessed = :shows, visibility_tried_at = clock_timestamp()
 WHERE campaign_id = :id
""")
# A negative result expires after a day: the vendor may have been slow once.
_VISIBILITY = text("""
SELECT CASE WHEN shows_unprocessed OR visibility_tried_at > clock_timestamp() - interval '1 day'
            THEN shows_unprocessed END AS shows_unprocessed,
       CASE WHEN NOT EXISTS (SELECT FROM leadloop.disable_requests AS request
                              WHERE request.campaign_id = campaigns.campaign_id
                                AND request.lead_id = specimen_lead_id)
            THEN specimen_lead_id END AS probe_lead,
       specimen_at + make_interval(secs => :settle_s) < clock_timestamp() AS probe_settled
  FROM leadloop.campaigns WHERE campaign_id = :id
""")
# Newest first: the newest lead is the least likely to have been processed since.
_FIND_PROBE_LEAD = text("""
SELECT lead.lead_id FROM leadloop.leads AS lead
 WHERE lead.campaign_id = :id AND lead.status = 'created' AND NOT lead.opted_out
   AND lead.lead_id <> ALL (CAST(:exclude AS text[]))
   AND lead.confirmed_at + make_interval(secs => :settle_s) < clock_timestamp()
   AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                    WHERE outcome.campaign_id = lead.campaign_id
                      AND outcome.lead_id = lead.lead_id)
 ORDER BY lead.confirmed_at DESC LIMIT 1
""")
_REMEMBER_PROBE_LEAD = text("""
UPDATE leadloop.campaigns SET specimen_lead_id = :lead, specimen_at = clock_timestamp()
 WHERE campaign_id = :id
""")
_SET_EPOCH_UNIT = text("UPDATE leadloop.campaigns SET epoch_unit = :unit WHERE campaign_id = :id")
_SET_NUMERIC_LEAD_IDS = text(
    "UPDATE leadloop.campaigns SET numeric_lead_ids = :numeric WHERE campaign_id = :id"
)


def select_campaigns(
    connection: Connection, ids: Sequence[str] | None, defaults: CampaignRules
) -> list[Campaign]:
    """Return the campaigns with these ids, or all enabled ones if no id is given.

    Campaigns of the highest priority come first, and those of one priority by id. A value in a
    campaign's row overrides `defaults`.

    Raises:
        UsageError: an id is not in the table, or the table has no enabled campaign.
    """
    found = _query_campaigns(connection, ids, defaults, fallback=_ENABLED)
    if found:
        return found
    if list_campaigns(connection, None, defaults):
        raise UsageError(
            "no campaign is enabled: set `enabled` in leadloop.campaigns, or name campaigns with"
            " --campaign"
        )
    raise _no_campaign_error()


def select_for_disable(
    connection: Connection, ids: Sequence[str] | None, defaults: CampaignRules
) -> list[Campaign]:
    """Return the campaigns with these ids, or all that are enabled or may have opt-outs to send.

    Raises:
        UsageError: an id is not in the table, or the table has no campaign.
    """
    found = _query_campaigns(connection, ids, defaults, fallback=_ENABLED_OR_OPTING_OUT)
    if not found and not list_campaigns(connection, None, defaults):
        raise _no_campaign_error()
    return found


def list_campaigns(
    connection: Connection, ids: Sequence[str] | None, defaults: CampaignRules
) -> list[Campaign]:
    """Return the campaigns with these ids, or all campaigns, disabled ones included.

    Raises:
        UsageError: an id is not in the table.
    """
    return _query_campaigns(connection, ids, defaults, fallback=_ALL)


def find_campaigns(
    connection: Connection, ids: Sequence[str], defaults: CampaignRules
) -> list[Campaign]:
    """Return those of the campaigns that exist. One statement."""
    return _select_rows(connection, _NAMED, ids, defaults)


def reload_campaign(connection: Connection, campaign_id: str, defaults: CampaignRules) -> Campaign:
    """Return a campaign as its row is now. One statement.

    Raises:
        CampaignDeleted: the row was deleted.
    """
    found = _select_rows(connection, _NAMED, [campaign_id], defaults)
    if not found:
        raise CampaignDeleted
    return found[0]


def set_push_enabled(
    connection: Connection, ids: Sequence[str] | None, *, enabled: bool
) -> list[str]:
    """Resume or pause pushes of these campaigns, or of all. Return their ids, sorted.

    Raises:
        UsageError: an id is not in the table.
    """
    wanted = {"ids": list(ids) if ids else None, "enabled": enabled}
    changed = list(connection.scalars(_SET_PUSH_ENABLED, wanted))
    _require_known(set(ids or ()) - set(changed))
    return sorted(changed)


def _query_campaigns(
    connection: Connection,
    ids: Sequence[str] | None,
    defaults: CampaignRules,
    *,
    fallback: TextClause,
) -> list[Campaign]:
    wanted = dict.fromkeys(ids or ())
    found = _select_rows(connection, _NAMED if wanted else fallback, list(wanted), defaults)
    _require_known(wanted.keys() - {campaign.campaign_id for campaign in found})
    return found


def _select_rows(
    connection: Connection, query: TextClause, ids: Sequence[str], defaults: CampaignRules
) -> list[Campaign]:
    values = {**asdict(defaults), "required_fields": list(defaults.required_fields)}
    rows = connection.execute(query, {**values, "ids": list(ids)}).all()
    return [
        Campaign(
            **{
                **row._mapping,
                "required_fields": tuple(row.required_fields),
                "area_codes": tuple(row.area_codes),
            }
        )
        for row in rows
    ]


def _require_known(unknown: Set[str]) -> None:
    if unknown:
        raise UsageError(
            f"unknown campaign {', '.join(sorted(unknown))}: add it to leadloop.campaigns"
            " (campaign_id is the vendor's id of the campaign)"
        )


def _no_campaign_error() -> UsageError:
    return UsageError(
        "there is no campaign: add one to leadloop.campaigns (campaign_id is the vendor's id), or"
        " load leads with `leadloop load FILE.csv --campaign C`"
    )


def add_campaign(connection: Connection, campaign_id: str) -> bool:
    """Add a campaign with only its id. Return False if the campaign exists (idempotent)."""
    return connection.scalar(_ADD, {"id": campaign_id}) is not None


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """What a campaign has learned of lookups of created, unprocessed leads.

    `shows_unprocessed`: whether a lookup shows such a lead (None: unknown). `probe_lead`: a lead
    that the vendor accepted and that has not opted out, on which that can be tried.
    `probe_settled`: the settle time of the probe lead is over.
    """

    shows_unprocessed: bool | None
    probe_lead: str | None
    probe_settled: bool


def get_visibility(connection: Connection, campaign_id: str, *, settle_s: int) -> Visibility:
    """Return what the campaign has learned of lookups of unprocessed leads.

    Raises:
        CampaignDeleted: the campaign's row was deleted.
    """
    row = connection.execute(_VISIBILITY, {"id": campaign_id, "settle_s": settle_s}).one_or_none()
    if row is None:
        raise CampaignDeleted
    return Visibility(
        shows_unprocessed=row.shows_unprocessed,
        probe_lead=row.probe_lead,
        probe_settled=bool(row.probe_settled),
    )


def find_probe_lead(
    connection: Connection, campaign_id: str, exclude: Collection[str], *, settle_s: int
) -> str | None:
    """Find another probe lead: created, settled (`settle_s` seconds), without an outcome, or None.

    Scans all leads of the campaign. Leads in `exclude` are skipped.
    """
    parameters = {"id": campaign_id, "exclude": list(exclude), "settle_s": settle_s}
    lead_id: str | None = connection.scalar(_FIND_PROBE_LEAD, parameters)
    return lead_id


def remember_probe_lead(connection: Connection, campaign_id: str, lead_id: str) -> None:
    """Remember as the probe lead a lead that the vendor has just accepted."""
    connection.execute(_REMEMBER_PROBE_LEAD, {"id": campaign_id, "lead": lead_id})


def set_epoch_unit(connection: Connection, campaign_id: str, unit: EpochUnit) -> None:
    """Set the unit of the campaign's window bounds."""
    connection.execute(_SET_EPOCH_UNIT, {"id": campaign_id, "unit": unit})


def set_numeric_lead_ids(connection: Connection, campaign_id: str, *, numeric: bool) -> None:
    """Set whether the campaign's lead ids are sent as JSON numbers."""
    connection.execute(_SET_NUMERIC_LEAD_IDS, {"id": campaign_id, "numeric": numeric})


def record_visibility(connection: Connection, campaign_id: str, *, shows: bool) -> None:
    """Record whether a lookup shows a created, unprocessed lead."""
    connection.execute(_RECORD_VISIBILITY, {"id": campaign_id, "shows": shows})
