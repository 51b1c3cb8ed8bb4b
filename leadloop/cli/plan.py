"""`leadloop plan`: a dry run of a push; it sends and writes nothing."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from db.campaigns import select_campaigns
from db.database import Database
from db.due_work import find_campaigns_to_push
from leadloop.core.errors import RunError
from leadloop.core.push_preview import NOTHING_TO_PUSH, PREVIEW_COUNTS
from leadloop.core.summaries import report_summary
from leadloop.settings import Settings
from tasks.push_preview import preview_push


def plan_campaigns(
    database: Database,
    settings: Settings,
    campaign_ids: Sequence[str],
    *,
    opt_out_source: str | None = None,
    shows_ids: bool = False,
) -> dict[str, Any]:
    """Preview a push of each campaign; one question finds those with nothing to push.

    Args:
        database: where the leads are.
        settings: the campaigns' defaults.
        campaign_ids: none: every enabled campaign.
        opt_out_source: takes the place of the campaigns' own ones; None: none does.
        shows_ids: keep the lead ids of each preview.

    Returns:
        The sums of the counts, and each campaign's preview under `campaigns`.

    Raises:
        UsageError: an unknown campaign.
        RunError: the source of a campaign cannot be used; the other campaigns were previewed.
    """
    chosen = database.run(select_campaigns, campaign_ids, settings.campaign_rules())
    if opt_out_source is not None:
        chosen = [replace(campaign, opt_out_source=opt_out_source) for campaign in chosen]
    due = set(campaign_ids) or database.run(find_campaigns_to_push) | {
        campaign.campaign_id for campaign in chosen if campaign.opt_out_source is not None
    }
    previews: dict[str, dict[str, Any]] = {}
    failures: list[str] = []
    for campaign in chosen:
        if campaign.campaign_id not in due:
            previews[campaign.campaign_id] = NOTHING_TO_PUSH
            continue
        try:
            previews[campaign.campaign_id] = preview_push(
                database, campaign, settings, partial(_warn, campaign.campaign_id)
            )
        except RunError as error:
            failures.append(f"campaign {campaign.campaign_id}: {error}")
    if not shows_ids:
        previews = {name: _without_ids(preview) for name, preview in previews.items()}
    sums = {name: sum(preview[name] for preview in previews.values()) for name in PREVIEW_COUNTS}
    summary = {**sums, "campaigns": previews}
    report_summary(summary)
    if failures:
        raise RunError("; ".join(failures))
    return summary


def _without_ids(preview: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in preview.items() if key != "lead_ids"}


def _warn(campaign_id: str, message: str) -> None:
    print(f"leadloop: campaign {campaign_id}: {message}", file=sys.stderr)
