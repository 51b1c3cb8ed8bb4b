"""The vendor's records of all campaigns: leads, outcomes, and duplicates that were created."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from threading import RLock
from typing import Any

from leadloop.sandbox.campaign_leads import (
    CampaignLeads,
    LeadDraft,
    LeadQuery,
    StoredLead,
    cut_page,
)
from leadloop.sandbox.outcomes import (
    VendorOutcome,
    draw_delay_ms,
    draw_outcome,
    draw_repeated_outcome,
    parse_outcome,
    seeded_fraction,
)
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.serialization import time_formatter


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicateLead:
    """A second lead (so a second call) under an id that exists; `at` is epoch ms."""

    campaign_id: str
    lead_id: str
    at: int


class LeadStore:
    """Every lead that the vendor holds. Thread-safe.

    Args:
        rules: returns the rules in force.
        now: returns the vendor's time in epoch ms.
    """

    def __init__(self, rules: Callable[[], Rules], now: Callable[[], int]) -> None:
        self._rules = rules
        self._now = now
        self._lock = RLock()
        self._campaigns: dict[str, CampaignLeads] = {}
        self._violations: list[DuplicateLead] = []

    # The API's requests.

    def find_campaign(self, campaign_id: str) -> CampaignLeads | None:
        """Return a campaign's leads as of now; None if the rules do not know the campaign."""
        with self._lock:
            campaign = self._campaigns.get(campaign_id)
            if campaign is None:
                known = self._rules().campaigns
                if known is not None and campaign_id not in known:
                    return None
                name = f"Campaign {campaign_id}" if known is None else known[campaign_id]
                campaign = self._campaigns[campaign_id] = CampaignLeads(campaign_id, name)
            campaign.release_outcomes(self._now())
            return campaign

    def create_leads(self, campaign: CampaignLeads, drafts: Iterable[LeadDraft]) -> None:
        """Create leads; an id that exists is updated or becomes a duplicate, by rule."""
        with self._lock:
            rules, now = self._rules(), self._now()
            for draft in drafts:
                self._create_lead(campaign, draft, rules, now)

    def _create_lead(
        self, campaign: CampaignLeads, draft: LeadDraft, rules: Rules, now: int
    ) -> None:
        known = campaign.first_by_id.get(draft.lead_id)
        if known is not None:
            known.offered += 1
            known.created += 1
            if rules.repeat == "update":
                known.update_person(draft)
                return
            self._violations.append(
                DuplicateLead(campaign_id=campaign.campaign_id, lead_id=draft.lead_id, at=now)
            )
        lead = campaign.add_lead(draft, now)
        if rules.pace is not None:
            seed_key = (rules.seed, campaign.campaign_id, lead.number)
            processed_at = now + draw_delay_ms(rules.pace, *seed_key)
            is_late = seeded_fraction("late", *seed_key) < rules.late_share
            hidden_s = rules.outcome_visible_after + (rules.late_by if is_late else 0.0)
            campaign.schedule_outcome(
                lead, processed_at=processed_at, visible_at=processed_at + int(hidden_s * 1000)
            )

    def count_rejected_repeat(self, campaign: CampaignLeads, lead_id: str) -> None:
        """Count a create request that was rejected because its lead exists."""
        with self._lock:
            campaign.first_by_id[lead_id].offered += 1

    def disable_leads(self, campaign: CampaignLeads, lead_ids: Iterable[str]) -> None:
        """Stop all outreach on the leads of these ids; ignore unknown ids."""
        with self._lock:
            now = self._now()
            for lead in (lead for lead_id in lead_ids for lead in campaign.find_leads(lead_id)):
                lead.disabled_at = now if lead.disabled_at is None else lead.disabled_at

    def read_page(
        self, campaign: CampaignLeads, query: LeadQuery, start: int, size: int
    ) -> tuple[int, Sequence[StoredLead]]:
        """Count the rows of the leads that match, and return `size` rows from `start` on."""
        with self._lock:
            rules = self._rules()
            return cut_page(campaign.select_leads(query, rules, self._now()), rules, start, size)

    # Outcomes that tests, scripts and faults cause.

    def put_outcomes(self, items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Process leads with the outcomes stated, disabled leads too.

        Each item has `campaign_id` and `lead_id`, and may have `processed_at` and `visible_at`
        (epoch ms; default now), `outcome_id`, `outcome_name`, `total_cost`, `attempts` (a list
        of objects), `blocks` (`{"sms_x": {…}}`); any other key becomes a key of the result. With
        neither `outcome_id` nor `attempts` the outcome is drawn from the seed.

        Returns:
            `{"stored": n, "unknown": [[campaign_id, lead_id], …]}`.
        """
        with self._lock:
            now, unknown, stored = self._now(), [], 0
            for item in items:
                key = str(item["campaign_id"]), str(item["lead_id"])
                campaign = self._campaigns.get(key[0])
                lead = campaign.first_by_id.get(key[1]) if campaign else None
                if campaign is None or lead is None:
                    unknown.append(key)
                    continue
                stored += 1
                processed_at = int(item.get("processed_at", now))
                visible_at = int(item.get("visible_at", now))
                if "outcome_id" in item or "attempts" in item:
                    outcome = parse_outcome(item, processed_at)
                else:
                    outcome = self._draw_outcome(campaign, lead, processed_at)
                if visible_at <= now:
                    campaign.mark_processed(lead, processed_at, outcome)
                else:
                    campaign.schedule_outcome(
                        lead, processed_at=processed_at, visible_at=visible_at, outcome=outcome
                    )
            return {"stored": stored, "unknown": unknown}

    def process_late(self, campaign_id: str, back_ms: int, rng: Random) -> str | None:
        """Process a random unprocessed lead as if `back_ms` ago.

        Returns:
            The lead's id; None if no lead awaits its outcome.
        """
        with self._lock:
            campaign = self.find_campaign(campaign_id)
            waiting = [lead for lead in campaign.leads if lead.awaits_outcome] if campaign else []
            if campaign is None or not waiting:
                return None
            lead = rng.choice(waiting)
            campaign.mark_processed(lead, self._now() - back_ms, None)
            return lead.lead_id

    def process_again(self, campaign_id: str, rng: Random) -> str | None:
        """Process a random processed lead once more, now.

        Returns:
            The lead's id; None if no enabled lead is processed.
        """
        with self._lock:
            campaign = self.find_campaign(campaign_id)
            processed = campaign.processed if campaign else []
            enabled = [lead for lead in processed if lead.disabled_at is None]
            if campaign is None or not enabled:
                return None
            lead, now = rng.choice(enabled), self._now()
            outcome = draw_repeated_outcome(
                self.get_outcome(campaign, lead),
                now=now,
                format_time=time_formatter(self._rules()),
                seed_key=(self._rules().seed, campaign_id, lead.number),
            )
            campaign.mark_processed(lead, now, outcome)
            return lead.lead_id

    def reset(self) -> None:
        """Delete every campaign, lead, outcome and violation."""
        with self._lock:
            self._campaigns.clear()
            self._violations.clear()

    # What the records hold.

    def get_outcome(self, campaign: CampaignLeads, lead: StoredLead) -> VendorOutcome:
        """Return the outcome of a processed lead; draw it from the seed unless one is stored."""
        return lead.outcome or self._draw_outcome(campaign, lead, lead.processed_ms())

    def _draw_outcome(
        self, campaign: CampaignLeads, lead: StoredLead, processed_at: int
    ) -> VendorOutcome:
        return draw_outcome(
            created_at=lead.created_at,
            processed_at=processed_at,
            format_time=time_formatter(self._rules()),
            seed_key=(self._rules().seed, campaign.campaign_id, lead.number),
        )

    @property
    def violations(self) -> list[DuplicateLead]:
        """Every duplicate that was created under an id that existed."""
        with self._lock:
            return list(self._violations)

    @property
    def campaign_ids(self) -> list[str]:
        """The campaigns that a request named so far."""
        with self._lock:
            return list(self._campaigns)

    def leads(self, campaign_id: str) -> list[StoredLead]:
        """List the leads of a campaign in the order of creation, duplicates included."""
        with self._lock:
            campaign = self.find_campaign(campaign_id)
            return list(campaign.leads) if campaign else []

    def lead(self, campaign_id: str, lead_id: str) -> StoredLead | None:
        """Find the (first) lead of an id."""
        with self._lock:
            campaign = self.find_campaign(campaign_id)
            return campaign.first_by_id.get(lead_id) if campaign else None

    def creations(self, campaign_id: str) -> dict[str, int]:
        """Map lead ids to the number of accepted creates (2 and more: created twice)."""
        return {key: lead.created for key, lead in self._first_leads(campaign_id).items()}

    def offers(self, campaign_id: str) -> dict[str, int]:
        """Map lead ids to the number of valid creates, rejected repeats included."""
        return {key: lead.offered for key, lead in self._first_leads(campaign_id).items()}

    def _first_leads(self, campaign_id: str) -> dict[str, StoredLead]:
        with self._lock:
            campaign = self.find_campaign(campaign_id)
            return dict(campaign.first_by_id) if campaign else {}

    def processed(self, campaign_id: str) -> dict[str, int]:
        """Map lead ids to `processed_at` (epoch ms), for every outcome that is visible by now."""
        with self._lock:
            campaign = self.find_campaign(campaign_id)
            leads = campaign.processed if campaign else []
            return {lead.lead_id: lead.processed_ms() for lead in leads}

    def disabled(self, campaign_id: str) -> dict[str, int]:
        """Map the ids of disabled leads to when each was disabled (epoch ms)."""
        leads = self.leads(campaign_id)
        return {lead.lead_id: lead.disabled_at for lead in leads if lead.disabled_at is not None}

    def summarize_campaigns(self) -> dict[str, dict[str, int]]:
        """Count per campaign: leads, processed, disabled, created_twice."""
        with self._lock:
            duplicates = Counter(violation.campaign_id for violation in self._violations)
            return {
                campaign_id: {
                    "leads": len(self.leads(campaign_id)),
                    "processed": len(self.processed(campaign_id)),
                    "disabled": len(self.disabled(campaign_id)),
                    "created_twice": duplicates[campaign_id],
                }
                for campaign_id in self.campaign_ids
            }
