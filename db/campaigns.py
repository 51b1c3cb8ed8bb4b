"""Queries on `leadloop.campaigns`."""

from collections.abc import Collection, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, TextClause, text

from leadloop.core.campaign_rules import Campaign, CampaignRules
from leadloop.core.errors import UsageError

_COMPLETE = """
SELECT campaign_id,
       least(coalesce(batch_size, :batch_size), batch_limit) AS batch_size,
       coalesce(page_size, :page_size)           AS page_size,
       coalesce(lookback_s, :lookback_s)         AS lookback_s,
       coalesce(settle_s, :settle_s)             AS settle_s,
       coalesce(window_s, :window_s)             AS window_s,
       coalesce(epoch_unit, :epoch_unit)         AS epoch_unit,
       coalesce(default_region, :default_region) AS default_region,
       coalesce(required_fields, CAST(:required_fields AS text[])) AS required_fields,
       coalesce(source_timeout_s, :source_timeout_s) AS source_timeout_s,
       enabled, sends_opted_out_numbers, source
  FROM leadloop.campaigns
"""
_NAMED = text(_COMPLETE + " WHERE campaign_id = ANY(:ids) ORDER BY campaign_id")
_ENABLED = text(_COMPLETE + " WHERE enabled ORDER BY campaign_id")
_ALL = text(_COMPLETE + " ORDER BY campaign_id")
# An opt-out is sent whatever `enabled` says.
_ENABLED_OR_OPTING_OUT = text(f"""{_COMPLETE}
 WHERE enabled OR EXISTS (
       SELECT FROM leadloop.disable_requests AS request
        WHERE request.campaign_id = campaigns.campaign_id
          AND (request.status = 'requested'
               OR request.status = 'failed'
                  AND coalesce(request.next_try_at, '-infinity') <= clock_timestamp()))
 ORDER BY campaign_id
""")
_SET_PUSH_ENABLED = text("""
UPDATE leadloop.campaigns SET push_enabled = :enabled
 WHERE (CAST(:ids AS text[]) IS NULL OR campaign_id = ANY(:ids))
RETURNING campaign_id
""")
_ADD = text(
    "INSERT INTO leadloop.campaigns (campaign_id) VALUES (:id) ON CONFLICT DO NOTHING RETURNING 1"
)
_LEARN_VISIBILITY = text("""
UPDATE leadloop.campaigns
   SET shows_unprocessed = :shows, visibility_tried_at = clock_timestamp()
 WHERE campaign_id = :id
""")
# A no is tried again after a day: the vendor may only have been slow that once.
_VISIBILITY = text("""
SELECT CASE WHEN shows_unprocessed OR visibility_tried_at > clock_timestamp() - interval '1 day'
            THEN shows_unprocessed END AS shows,
       specimen_lead_id AS specimen,
       specimen_at + make_interval(secs => :settle_s) < clock_timestamp() AS specimen_settled
  FROM leadloop.campaigns WHERE campaign_id = :id
""")
# The newest first: it is the least likely to be processed by now.
_OTHER_SPECIMEN = text("""
SELECT lead.lead_id FROM leadloop.leads AS lead
 WHERE lead.campaign_id = :id AND lead.status = 'created' AND NOT lead.opted_out
   AND lead.lead_id <> ALL (CAST(:known AS text[]))
   AND lead.confirmed_at + make_interval(secs => :settle_s) < clock_timestamp()
   AND NOT EXISTS (SELECT FROM leadloop.lead_outcomes AS outcome
                    WHERE outcome.campaign_id = lead.campaign_id
                      AND outcome.lead_id = lead.lead_id)
 ORDER BY lead.confirmed_at DESC LIMIT 1
""")
_KEEP_SPECIMEN = text("""
UPDATE leadloop.campaigns SET specimen_lead_id = :lead, specimen_at = clock_timestamp()
 WHERE campaign_id = :id
""")
_LEARN_LIMIT = text(
    "UPDATE leadloop.campaigns SET batch_limit = least(batch_limit, :most) WHERE campaign_id = :id"
)


def select_campaigns(
    connection: Connection, ids: Sequence[str] | None, defaults: CampaignRules
) -> list[Campaign]:
    """The campaigns named, or every enabled one where none is; a row's values win over `defaults`.

    Raises:
        UsageError: a name that is not in the table, or a table without an enabled campaign.
    """
    found = _query_campaigns(connection, ids, defaults, fallback=_ENABLED)
    if found:
        return found
    if list_campaigns(connection, None, defaults):
        raise UsageError(
            "no campaign is enabled: set `enabled` in leadloop.campaigns, or name those that are"
            " meant (--campaign)"
        )
    raise _no_campaign_error()


def select_for_disable(
    connection: Connection, ids: Sequence[str] | None, defaults: CampaignRules
) -> list[Campaign]:
    """Return the campaigns named; none named: the enabled ones and those with opt-outs to send.

    Raises:
        UsageError: a name that is not in the table, or a table without a campaign.
    """
    found = _query_campaigns(connection, ids, defaults, fallback=_ENABLED_OR_OPTING_OUT)
    if not found and not list_campaigns(connection, None, defaults):
        raise _no_campaign_error()
    return found


def list_campaigns(
    connection: Connection, ids: Sequence[str] | None, defaults: CampaignRules
) -> list[Campaign]:
    """The campaigns named, or all that there are where none is, also those that are not enabled.

    Raises:
        UsageError: a name that is not in the table.
    """
    return _query_campaigns(connection, ids, defaults, fallback=_ALL)


def set_push_enabled(
    connection: Connection, ids: Sequence[str] | None, *, enabled: bool
) -> list[str]:
    """Have campaigns create leads, or stop; none named: all of them. Return their ids, sorted.

    Raises:
        UsageError: a name that is not in the table.
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
    values = {**asdict(defaults), "required_fields": list(defaults.required_fields)}
    rows = connection.execute(_NAMED if wanted else fallback, {**values, "ids": list(wanted)}).all()
    found = [_to_campaign(row) for row in rows]
    _require_known(wanted.keys() - {campaign.campaign_id for campaign in found})
    return found


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
    """Add a campaign with nothing but its id; False where it is there already."""
    return connection.scalar(_ADD, {"id": campaign_id}) is not None


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """What is known of lookups of leads that are created and not yet processed.

    `shows`: whether they show (None: not known). `specimen`: a lead on which that can be tried,
    which the vendor has taken; `specimen_settled`: it has had its time to show it.
    """

    shows_unprocessed: bool | None
    probe_lead: str | None
    probe_settled: bool


def get_visibility(connection: Connection, campaign_id: str, *, settle_s: int) -> Visibility:
    """What has been learned about lookups of unprocessed leads."""
    row = connection.execute(_VISIBILITY, {"id": campaign_id, "settle_s": settle_s}).one()
    return Visibility(
        shows_unprocessed=row.shows,
        probe_lead=row.specimen,
        probe_settled=bool(row.specimen_settled),
    )


def find_probe_lead(
    connection: Connection, campaign_id: str, exclude: Collection[str], *, settle_s: int
) -> str | None:
    """Find a created lead without an outcome that is none of `known`; None: there is no such lead.

    The vendor has had `settle_s` seconds to show it. Goes through all leads of the campaign.
    """
    parameters = {"id": campaign_id, "known": list(exclude), "settle_s": settle_s}
    lead_id: str | None = connection.scalar(_OTHER_SPECIMEN, parameters)
    return lead_id


def remember_probe_lead(connection: Connection, campaign_id: str, lead_id: str) -> None:
    """Remember a lead that the vendor has just taken."""
    connection.execute(_KEEP_SPECIMEN, {"id": campaign_id, "lead": lead_id})


def record_visibility(connection: Connection, campaign_id: str, *, shows: bool) -> None:
    """Remember whether a lookup shows a lead that is created and not yet processed."""
    connection.execute(_LEARN_VISIBILITY, {"id": campaign_id, "shows": shows})


def lower_batch_limit(connection: Connection, campaign_id: str, limit: int) -> None:
    """Remember that the vendor takes at most this many leads a request."""
    connection.execute(_LEARN_LIMIT, {"id": campaign_id, "most": limit})


def _to_campaign(row: Row[Any]) -> Campaign:
    values = row._asdict()
    return Campaign(**{**values, "required_fields": tuple(values["required_fields"])})
