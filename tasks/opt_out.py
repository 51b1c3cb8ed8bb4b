"""Opt-outs by a person, for `leadloop opt-out`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from db import campaigns, leads, opt_outs, source_removals
from db.database import Database
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError, UsageError
from leadloop.core.unseen_characters import is_clean_id
from leadloop.settings import Settings
from tasks.source_sync import HIDDEN_ROWS, ComparedSource, compare_source


@dataclass(frozen=True, kw_only=True)
class OptOutResult:
    """The leads that have opted out now, those that had before, and those without a row."""

    opted_out: Sequence[str]
    opted_out_before: Sequence[str]
    unknown: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class LeftLeads:
    """How many leads of a campaign were sent and have lost their row, of how many in all."""

    left: int
    leads: int
    source: str


def opt_out_leads(
    database: Database,
    settings: Settings,
    campaign_id: str,
    lead_ids: Sequence[str],
    reason: str | None,
) -> OptOutResult:
    """Opt leads out, as an INSERT into `leadloop.disable_requests` does; idempotent.

    Args:
        database: the database.
        settings: the campaigns' defaults.
        campaign_id: the campaign.
        lead_ids: the leads; one may still be to come.
        reason: why, in the person's words.

    Raises:
        UsageError: the campaign is unknown, or no lead can have one of the ids.
    """
    ids = list(dict.fromkeys(lead_ids))
    if odd := [lead_id for lead_id in ids if not lead_id or not is_clean_id(lead_id)]:
        raise UsageError(
            f"--lead-id {odd[0]!r} is empty, or has a blank at an end or an invisible character:"
            " no lead with this id is ever sent; nothing was changed"
        )
    with database.transaction() as connection:
        campaigns.list_campaigns(connection, [campaign_id], settings.campaign_rules())
        added = opt_outs.record_opt_outs(connection, campaign_id, ids, reason)
        known = {
            lead.lead_id
            for lead in leads.list_known(connection, [campaign_id], ids)
            if lead.status is not None
        }
    return OptOutResult(
        opted_out=[lead_id for lead_id in ids if lead_id in added],
        opted_out_before=[lead_id for lead_id in ids if lead_id not in added],
        unknown=[lead_id for lead_id in ids if lead_id not in known],
    )


def opt_out_left(
    database: Database,
    settings: Settings,
    campaign_id: str,
    confirm: Callable[[LeftLeads], None],
) -> int:
    """Opt out the sent leads whose rows have left the campaign's source, however many they are.

    Args:
        database: the database.
        settings: the login that reads sources, and the campaigns' defaults.
        campaign_id: the campaign.
        confirm: is called before with the number of leads, and raises if they shall not opt out;
            the source is not locked meanwhile.

    Returns:
        The number of leads that opted out.

    Raises:
        UsageError: the campaign is unknown, or has no source.
        SourceError: the source cannot be read.
        RunError: rows of the source cannot be read, or more have left it since.
    """
    with database.transaction() as connection:
        rules = settings.campaign_rules()
        (campaign,) = campaigns.list_campaigns(connection, [campaign_id], rules)
    if campaign.source is None:
        raise UsageError(f"campaign {campaign_id} has no source: no row can have left it")
    with compare_source(settings, database, campaign, removed_too=True) as compared:
        found = _count_left(compared, campaign)
    if not found.left:
        return 0
    confirm(found)
    with compare_source(settings, database, campaign, removed_too=True) as compared:
        now = _count_left(compared, campaign)
        if now.left > found.left:
            raise RunError(
                f"rows of sent leads that have left the source: {now.left:,}, more than the"
                f" {found.left:,} of before; nobody has opted out: run this again"
            )
        opted_out = source_removals.opt_out_removed(compared.connection, campaign_id, "person")
        with compared.connection.begin():
            source_removals.hold_removals(compared.connection, campaign_id, 0)
    return opted_out


def _count_left(compared: ComparedSource, campaign: Campaign) -> LeftLeads:
    if compared.unreadable.count:
        raise RunError(
            f"rows of the campaign's source cannot be read: {compared.unreadable.count},"
            f" {compared.unreadable}; theirs may be among the leads, so nobody has opted out:"
            " correct these rows first"
        )
    if compared.is_hidden:
        raise RunError(
            f"the campaign's source {campaign.source} {HIDDEN_ROWS}, so nobody has opted out"
        )
    with compared.connection.begin():
        total = source_removals.count_leads(compared.connection, campaign.campaign_id)
    return LeftLeads(left=compared.diff.left_source, leads=total, source=campaign.source or "")
