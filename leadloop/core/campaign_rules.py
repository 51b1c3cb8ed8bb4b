"""A campaign with everything decided: the row's own values where it has them, else the settings."""

from dataclasses import dataclass
from datetime import timedelta

from leadloop.core.timestamps import EpochUnit

#: What the vendor's document marks as required (seed, "Body Parameters").
DEFAULT_REQUIRED_FIELDS = ("lead_id", "phone_number", "contact_name", "state_code")


@dataclass(frozen=True, kw_only=True)
class CampaignRules:
    """How a campaign is pushed and polled; the settings give the defaults, a row overrides them."""

    batch_size: int
    page_size: int
    lookback_s: int
    settle_s: int
    window_s: int
    epoch_unit: EpochUnit
    default_region: str
    source_timeout_s: int
    required_fields: tuple[str, ...] = DEFAULT_REQUIRED_FIELDS


@dataclass(frozen=True, kw_only=True)
class Campaign(CampaignRules):
    """One row of `leadloop.campaigns`, complete."""

    campaign_id: str
    enabled: bool = True
    sends_opted_out_numbers: bool = False
    source: str | None = None

    @property
    def lookback(self) -> timedelta:
        """What every poll reads again behind the watermark."""
        return timedelta(seconds=self.lookback_s)

    @property
    def settle(self) -> timedelta:
        """How long the vendor may take to show what it has accepted."""
        return timedelta(seconds=self.settle_s)

    @property
    def max_window(self) -> timedelta:
        """The longest range of `processed_at` that one read asks for."""
        return timedelta(seconds=self.window_s)
