"""Campaigns that were polled, and the time that passes for them without anybody waiting."""

from collections.abc import Mapping
from typing import Any

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import poll_outcomes, push_leads

LOOKBACK_S = 900
SETTLE_S = 60
_AGED = {
    "leads": ("sent_at", "confirmed_at"),
    "lead_outcomes": ("processed_at",),
    "poll_windows": ("window_after", "window_before", "closed_through"),
    "watermarks": ("processed_through", "read_through", "written_through", "reread_through"),
}


def push_campaign(database: Database, amount: int, **columns: Any) -> list[str]:
    """Create a campaign whose leads the vendor has; return their ids, L0 and so on."""
    ids = [f"L{number}" for number in range(amount)]
    defaults: dict[str, Any] = {"lookback_s": LOOKBACK_S, "settle_s": SETTLE_S}
    factories.add_campaign(database, **defaults | columns)
    factories.add_leads(database, *ids)
    push_leads()
    return ids


def poll_campaign(
    database: Database, vendor: SandboxHandle, amount: int = 3, **columns: Any
) -> None:
    """Create a campaign and poll it once it has the outcome of a further lead.

    Until a campaign has an outcome, all its polls are plain ones.
    """
    push_campaign(database, amount + 1, **columns)
    process_leads(vendor, {f"L{amount}": 0})
    poll_outcomes()


def process_leads(vendor: SandboxHandle, ages: Mapping[str, float]) -> None:
    """Show the outcomes of leads that were processed so many seconds ago."""
    vendor.put_outcomes(
        {
            "campaign_id": CAMPAIGN,
            "lead_id": lead_id,
            "processed_at": vendor.now() - int(age * 1000),
            "outcome_id": "1",
            "outcome_name": "Interested",
            "attempts": [],
        }
        for lead_id, age in ages.items()
    )


def pass_time(database: Database, seconds: float) -> None:
    """Make what is stored older; the vendor's outcomes stay as old as they are."""
    for table, columns in _AGED.items():
        older = ", ".join(f"{name} = {name} - make_interval(secs => :by)" for name in columns)
        sql.execute(database, f"UPDATE leadloop.{table} SET {older}", by=seconds)
