"""A campaign's effective configuration: the row's overrides, else the settings."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.errors import RunError
from leadloop.core.phones import find_region_fault
from leadloop.core.timestamps import EpochUnit

#: The fields that the vendor's API document marks as required (chapter "Body Parameters").
DEFAULT_REQUIRED_FIELDS = ("lead_id", "phone_number", "contact_name", "state_code")

#: The most that a head poll reads again behind the end of the last poll.
HEAD_OVERLAP = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class CampaignRules:
    """The rules of push and poll: defaults from the settings, overrides from the campaign's row."""

    batch_size: int
    batch_bytes: int
    page_size: int
    lookback_s: int
    settle_s: int
    window_s: int
    epoch_unit: EpochUnit
    default_region: str
    source_timeout_s: int
    max_lead_age_s: int | None = None
    required_fields: tuple[str, ...] = DEFAULT_REQUIRED_FIELDS
    area_codes: tuple[str, ...] = ()
    numeric_lead_ids: bool = False


@dataclass(frozen=True, kw_only=True)
class Campaign(CampaignRules):
    """One row of `leadloop.campaigns`, with defaults filled in."""

    campaign_id: str
    enabled: bool = True
    sends_opted_out_numbers: bool = False
    source: str | None = None
    on_source_removal: Literal["keep", "opt_out"] = "keep"
    opt_out_source: str | None = None
    priority: int = 0
    calling_hours: str | None = None
    account: str = DEFAULT_ACCOUNT

    def require_region(self) -> None:
        """Check that phone numbers without a country code can be read.

        Raises:
            RunError: the campaign's default region is no region.
        """
        if fault := find_region_fault(self.default_region):
            raise RunError(f"default_region of campaign {self.campaign_id}: {fault}")

    @property
    def lookback(self) -> timedelta:
        """The range before the end of the last plain poll that every plain poll reads again."""
        return timedelta(seconds=self.lookback_s)

    @property
    def head_overlap(self) -> timedelta:
        """The range before the end of the last poll that a head poll reads again."""
        return min(HEAD_OVERLAP, self.lookback)

    @property
    def settle(self) -> timedelta:
        """The time after which the vendor shows what it has accepted."""
        return timedelta(seconds=self.settle_s)

    @property
    def max_window(self) -> timedelta:
        """The longest range of `processed_at` in one window."""
        return timedelta(seconds=self.window_s)
