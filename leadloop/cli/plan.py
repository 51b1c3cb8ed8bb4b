"""`leadloop plan`: what a push would send and refuse, without sending anything."""

from collections.abc import Sequence
from typing import Any

from db import campaigns
from db.database import Database
from leadloop.core.errors import RunError
from leadloop.core.push_preview import PREVIEW_COUNTS
from leadloop.core.summaries import report_summary
from leadloop.settings import Settings
from tasks.push_preview import preview_push


def plan_campaigns(
    database: Database, settings: Settings, campaign_ids: Sequence[str]
) -> dict[str, Any]:
    """What a push would do.

    Args:
        database: where the leads are.
        settings: the campaigns' defaults.
        campaign_ids: none: every enabled campaign.

    Returns:
        The sums of the counts, and under `campaigns` each one's own.

    Raises:
        UsageError: an unknown campaign.
        RunError: a campaign's source cannot be used; the others were looked at.
    """
    with database.transaction() as connection:
        chosen = campaigns.select_campaigns(connection, campaign_ids, settings.campaign_rules())
    plans: dict[str, dict[str, Any]] = {}
    failures: list[str] = []
    for campaign in chosen:
        try:
            plans[campaign.campaign_id] = preview_push(database, campaign, settings)
        except RunError as error:
            failures.append(f"campaign {campaign.campaign_id}: {error}")
    sums = {name: sum(plan[name] for plan in plans.values()) for name in PREVIEW_COUNTS}
    summary = {**sums, "campaigns": plans}
    report_summary(summary)
    if failures:
        raise RunError("; ".join(failures))
    return summary
