"""The leads of one campaign, and how a page filters and orders them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter

from leadloop.sandbox.outcomes import VendorOutcome, seeded_integer
from leadloop.sandbox.rules import Rules


@dataclass(frozen=True, kw_only=True, slots=True)
class LeadDraft:
    """A lead of a create request that passed validation; `custom` is JSON."""

    lead_id: str
    phone_number: str
    contact_name: str
    state_code: str
    custom: bytes | None


class StoredLead:
    """One lead in the vendor's records. Times are epoch ms; slots, as there may be a million.

    `offered` counts the create requests that named the lead, `created` the accepted ones.
    `outcome` is None where the outcome is drawn from the seed at each read.
    """

    __slots__ = (
        "contact_name",
        "created",
        "created_at",
        "custom",
        "disabled_at",
        "lead_id",
        "number",
        "offered",
        "outcome",
        "phone_number",
        "processed_at",
        "state_code",
    )

    def __init__(self, draft: LeadDraft, *, number: int, created_at: int) -> None:
        self.lead_id = draft.lead_id
        self.number = number
        self.created_at = created_at
        self.created = 1
        self.offered = 1
        self.disabled_at: int | None = None
        self.processed_at: int | None = None
        self.outcome: VendorOutcome | None = None
        self.update_person(draft)

    def update_person(self, draft: LeadDraft) -> None:
        """Overwrite the personal and custom fields with those of a create request."""
        self.phone_number = draft.phone_number
        self.contact_name = draft.contact_name
        self.state_code = draft.state_code
        self.custom = draft.custom

    @property
    def awaits_outcome(self) -> bool:
        """Whether outreach goes on: the lead is neither processed nor disabled."""
        return self.processed_at is None and self.disabled_at is None

    def processed_ms(self) -> int:
        """Return when the lead was processed, in epoch ms; -1 if it was not."""
        return -1 if self.processed_at is None else self.processed_at


@dataclass(frozen=True, kw_only=True)
class LeadQuery:
    """The filters of a page; bounds in epoch ms, None: no bound."""

    lead_id: str | None = None
    after: int | None = None
    before: int | None = None

    @property
    def has_window(self) -> bool:
        """Whether only processed leads can match."""
        return self.after is not None or self.before is not None


_by_time = attrgetter("processed_at")
_ScheduledOutcome = tuple[int, int, StoredLead, int, VendorOutcome | None]


class CampaignLeads:
    """The leads of one campaign. Not thread-safe: `LeadStore` holds the lock."""

    def __init__(self, campaign_id: str, name: str) -> None:
        self.campaign_id = campaign_id
        self.name = name
        self.leads: list[StoredLead] = []
        self.first_by_id: dict[str, StoredLead] = {}
        self._duplicates_by_id: dict[str, list[StoredLead]] = {}
        self._processed: list[StoredLead] = []
        self._processed_unsorted = False
        self._scheduled: list[_ScheduledOutcome] = []
        self._schedule_number = count()
        self._version = 0
        self._sorted_cache: tuple[object, Sequence[StoredLead]] = (None, ())

    def add_lead(self, draft: LeadDraft, now: int) -> StoredLead:
        """Store a new lead; a duplicate if its id exists."""
        lead = StoredLead(draft, number=len(self.leads), created_at=now)
        self.leads.append(lead)
        if draft.lead_id in self.first_by_id:
            self._duplicates_by_id.setdefault(draft.lead_id, []).append(lead)
        else:
            self.first_by_id[draft.lead_id] = lead
        self._version += 1
        return lead

    def find_leads(self, lead_id: str) -> list[StoredLead]:
        """Return the leads of an id, duplicates after the first."""
        lead = self.first_by_id.get(lead_id)
        return [] if lead is None else [lead, *self._duplicates_by_id.get(lead_id, ())]

    def schedule_outcome(
        self,
        lead: StoredLead,
        *,
        processed_at: int,
        visible_at: int,
        outcome: VendorOutcome | None = None,
    ) -> None:
        """Schedule a lead to be processed at one epoch-ms time and to show it at another."""
        entry = (visible_at, next(self._schedule_number), lead, processed_at, outcome)
        heappush(self._scheduled, entry)

    def release_outcomes(self, now: int) -> None:
        """Process the leads whose scheduled outcome becomes visible by `now` (epoch ms)."""
        while self._scheduled and self._scheduled[0][0] <= now:
            _, _, lead, processed_at, outcome = heappop(self._scheduled)
            disabled = lead.disabled_at is not None and processed_at >= lead.disabled_at
            if outcome is not None or (lead.processed_at is None and not disabled):
                self.mark_processed(lead, processed_at, outcome)

    def mark_processed(
        self, lead: StoredLead, processed_at: int, outcome: VendorOutcome | None
    ) -> None:
        """Mark a lead as processed; again if it was processed before."""
        again = lead.processed_at is not None
        latest = self._processed[-1].processed_ms() if self._processed else -1
        self._processed_unsorted |= again or processed_at < latest
        lead.processed_at = processed_at
        lead.outcome = outcome
        if not again:
            self._processed.append(lead)
        self._version += 1

    @property
    def processed(self) -> list[StoredLead]:
        """The processed leads, sorted by time."""
        if self._processed_unsorted:
            self._processed.sort(key=_by_time)
            self._processed_unsorted = False
        return self._processed

    def select_leads(self, query: LeadQuery, rules: Rules, now: int) -> Sequence[StoredLead]:
        """Filter the leads by the query, in the order that the rules set."""
        newest = now - int(rules.lead_visible_after * 1000)
        if query.lead_id is not None:
            return [
                lead
                for lead in self.find_leads(query.lead_id)
                if lead.created_at <= newest and _matches_query(lead, query, rules)
            ]
        if not query.has_window and rules.shows_unprocessed and rules.order == "created":
            leads: Sequence[StoredLead] = self.leads
        else:
            # Sorted once, and cached until the leads, the query or the rules change.
            key = (self._version, query, rules)
            if self._sorted_cache[0] != key:
                self._sorted_cache = (key, _sort_leads(self._filter_window(query, rules), rules))
            leads = self._sorted_cache[1]
        if not self.leads or self.leads[-1].created_at <= newest:
            return leads
        return [lead for lead in leads if lead.created_at <= newest]

    def _filter_window(self, query: LeadQuery, rules: Rules) -> Sequence[StoredLead]:
        if not query.has_window:
            return self.leads if rules.shows_unprocessed else self.processed
        low, high = 0, len(self.processed)
        if query.after is not None:
            bisect_after = bisect_left if rules.after_inclusive else bisect_right
            low = bisect_after(self.processed, query.after, key=_by_time)
        if query.before is not None:
            bisect_before = bisect_right if rules.before_inclusive else bisect_left
            high = bisect_before(self.processed, query.before, key=_by_time)
        return self.processed[low:high]


def _matches_query(lead: StoredLead, query: LeadQuery, rules: Rules) -> bool:
    at, after, before = lead.processed_at, query.after, query.before
    if at is None:
        return rules.shows_unprocessed and not query.has_window
    from_after = after is None or at > after or (rules.after_inclusive and at == after)
    to_before = before is None or at < before or (rules.before_inclusive and at == before)
    return from_after and to_before


def cut_page(
    leads: Sequence[StoredLead], rules: Rules, start: int, size: int
) -> tuple[int, Sequence[StoredLead]]:
    """Count the rows of sorted leads, and return `size` rows from `start` on.

    The flaws of the rules are applied first: ties, doubled and hidden leads.
    """
    if rules.ties == "page":
        leads = _shuffle_ties(leads, rules, f"{start} {size}")
    if rules.doubled:
        doubled = set(rules.doubled)
        leads = [lead for lead in leads for _ in range(1 + (lead.lead_id in doubled))]
    count = len(leads)
    if rules.hidden:
        hidden = set(rules.hidden)
        leads = [lead for lead in leads if lead.lead_id not in hidden]
    return count, leads[start : start + size]


def _shuffle_ties(leads: Iterable[StoredLead], rules: Rules, page: str) -> Sequence[StoredLead]:
    """Sort leads that the order ranks alike by a seed of the page; the same page stays the same."""

    def shuffled(lead: StoredLead) -> int:
        return seeded_integer("tie", rules.seed, page, lead.number)

    if rules.order == "created":
        return sorted(leads, key=lambda lead: (lead.created_at, shuffled(lead)))
    if rules.order in ("processed", "processed-desc"):
        direction = 1 if rules.order == "processed" else -1
        return sorted(leads, key=lambda lead: (direction * lead.processed_ms(), shuffled(lead)))
    return list(leads)


def _sort_leads(leads: Iterable[StoredLead], rules: Rules) -> Sequence[StoredLead]:
    if rules.order == "created":
        return sorted(leads, key=attrgetter("number"))
    if rules.order == "lead_id":
        return sorted(leads, key=attrgetter("lead_id"))
    if rules.order == "random":
        return sorted(leads, key=lambda lead: seeded_integer("order", rules.seed, lead.number))
    return sorted(leads, key=StoredLead.processed_ms, reverse=rules.order == "processed-desc")
