"""Trials of the vendor's windows with one lead that has an outcome: unit of times, and bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from leadloop.client.api import LeadsApi
from leadloop.core.campaign_rules import Campaign
from leadloop.core.first_contact import describe_time_format, is_whole
from leadloop.core.results import UnreadableResult, parse_identity, parse_lead_id
from leadloop.core.timestamps import OTHER_UNIT, EpochUnit
from leadloop.core.windows import Window

_TICKS = {"ms": timedelta(milliseconds=1), "s": timedelta(seconds=1)}
_WORDS = {True: "inclusive", False: "exclusive"}


@dataclass(frozen=True, kw_only=True)
class ProcessedLead:
    """A lead with an outcome: its id, when it was processed, and how the vendor writes times."""

    lead_id: str
    processed_at: datetime
    time_format: str


def find_processed(
    api: LeadsApi, campaign_id: str, lead_ids: Sequence[str]
) -> ProcessedLead | None:
    """Find a lead with an outcome: one of these, else one of the listing's first page.

    Raises:
        ApiError: the last failure of a read.
    """
    rows: list[Any] = [api.look_up(campaign_id, lead_id).result for lead_id in lead_ids]
    rows += api.list_all(campaign_id, page=1, page_size=100).results
    for row in rows:
        if not isinstance(row, dict):
            continue
        try:
            lead_id, processed_at = parse_identity(row)
        except UnreadableResult:
            continue
        if processed_at is not None:
            time_format = describe_time_format(row["processed_at"])
            return ProcessedLead(
                lead_id=lead_id, processed_at=processed_at, time_format=time_format
            )
    return None


def find_units(api: LeadsApi, campaign: Campaign, lead: ProcessedLead) -> list[EpochUnit]:
    """Find the units in which a window of one moment shows the lead, the campaign's own first.

    Both: the vendor ignores the bounds.

    Raises:
        ApiError: the last failure of a read.
    """
    own = campaign.epoch_unit
    return [
        unit
        for unit in (own, OTHER_UNIT[own])
        if _is_shown(api, campaign.campaign_id, lead, unit, 0)
    ]


def describe_bounds(api: LeadsApi, campaign_id: str, lead: ProcessedLead, unit: EpochUnit) -> str:
    """Describe whether bounds are inclusive, by windows that end at the lead's time.

    Raises:
        ApiError: the last failure of a read.
    """
    if not is_whole(lead.processed_at, unit):
        return f"not known: times are finer than the unit, {unit}"
    # Each bound of a request is a unit outside of its window.
    after = _is_shown(api, campaign_id, lead, unit, 1)
    before = _is_shown(api, campaign_id, lead, unit, -1)
    return f"processed_after {_WORDS[after]}, processed_before {_WORDS[before]}"


def _is_shown(
    api: LeadsApi, campaign_id: str, lead: ProcessedLead, unit: EpochUnit, shift: int
) -> bool:
    """Return whether the window of one moment shows a lead; `shift`: units after its time."""
    moment = lead.processed_at + shift * _TICKS[unit]
    window = Window(after=moment, before=moment)
    page = api.list_processed(campaign_id, window, unit=unit, page=1, page_size=100)
    return any(isinstance(row, dict) and parse_lead_id(row) == lead.lead_id for row in page.results)
