"""The vendor's books: what was created, what became of it, and what should not have happened."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from threading import RLock
from typing import Any

from leadloop.sandbox.outcomes import Outcome, again, by_hand, delay_ms, drawn, share
from leadloop.sandbox.results import stamp_for
from leadloop.sandbox.rules import Rules
from leadloop.sandbox.shelf import Draft, Lead, Query, Shelf


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """A second lead (so a second call) under an id that exists; `at` is epoch ms."""

    campaign_id: str
    lead_id: str
    at: int


class Clock:
    """The vendor's own clock: the real one plus the offset that the rules set."""

    def __init__(self, rules: Callable[[], Rules]) -> None:
        self._rules = rules

    def now(self) -> int:
        """Epoch ms."""
        return int((time.time() + self._rules().clock_offset) * 1000)


class Books:
    """Everything the vendor holds; safe to use from several threads.

    Args:
        rules: gives the rules in force.
        now: gives the vendor's time in epoch ms.
    """

    def __init__(self, rules: Callable[[], Rules], now: Callable[[], int]) -> None:
        self._rules = rules
        self._now = now
        self._lock = RLock()
        self._shelves: dict[str, Shelf] = {}
        self._violations: list[Violation] = []

    # What the API does.

    def shelf(self, campaign_id: str) -> Shelf | None:
        """The campaign's leads as of now; None where the campaign is unknown."""
        with self._lock:
            shelf = self._shelves.get(campaign_id) or self._open(campaign_id)
            if shelf is not None:
                shelf.advance(self._now())
            return shelf

    def _open(self, campaign_id: str) -> Shelf | None:
        known = self._rules().campaigns
        if known is not None and campaign_id not in known:
            return None
        name = f"Campaign {campaign_id}" if known is None else known[campaign_id]
        return self._shelves.setdefault(campaign_id, Shelf(campaign_id, name))

    def create(self, shelf: Shelf, drafts: Iterable[Draft]) -> None:
        """Take well-formed leads in; an id that exists is updated or becomes a second lead."""
        with self._lock:
            rules, now = self._rules(), self._now()
            for draft in drafts:
                self._take(shelf, draft, rules, now)

    def _take(self, shelf: Shelf, draft: Draft, rules: Rules, now: int) -> None:
        known = shelf.first.get(draft.lead_id)
        if known is not None:
            known.offered += 1
            known.created += 1
            if rules.repeat == "update":
                known.describe(draft)
                return
            self._violations.append(
                Violation(campaign_id=shelf.campaign_id, lead_id=draft.lead_id, at=now)
            )
        lead = shelf.add(draft, now)
        if rules.pace is not None:
            _schedule(shelf, lead, rules, rules.pace)

    def refuse_repeat(self, shelf: Shelf, lead_id: str) -> None:
        """Note that a lead that exists was offered again and turned away."""
        with self._lock:
            shelf.first[lead_id].offered += 1

    def disable(self, shelf: Shelf, lead_ids: Iterable[str]) -> None:
        """Stop all outreach on the leads of these ids; unknown ids change nothing."""
        with self._lock:
            now = self._now()
            for lead in (lead for lead_id in lead_ids for lead in shelf.named(lead_id)):
                lead.disabled_at = now if lead.disabled_at is None else lead.disabled_at

    def page(self, shelf: Shelf, query: Query, start: int, size: int) -> tuple[int, Sequence[Lead]]:
        """How many leads match, and `size` of them from `start` on."""
        with self._lock:
            found = shelf.matching(query, self._rules(), self._now())
            return len(found), found[start : start + size]

    # What a test or a script does by hand.

    def put(self, items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Process leads by hand, disabled ones too.

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
                shelf = self._shelves.get(key[0])
                lead = shelf.first.get(key[1]) if shelf else None
                if shelf is None or lead is None:
                    unknown.append(key)
                    continue
                self._put(shelf, lead, item, now)
                stored += 1
            return {"stored": stored, "unknown": unknown}

    def _put(self, shelf: Shelf, lead: Lead, item: Mapping[str, Any], now: int) -> None:
        processed_at = int(item.get("processed_at", now))
        visible_at = int(item.get("visible_at", now))
        if "outcome_id" in item or "attempts" in item:
            outcome = by_hand(item, processed_at)
        else:
            outcome = self._drawn(shelf, lead, processed_at)
        if visible_at <= now:
            shelf.settle(lead, processed_at, outcome)
        else:
            shelf.schedule(lead, processed_at=processed_at, visible_at=visible_at, outcome=outcome)

    def process_late(self, campaign_id: str, back_ms: int, luck: Random) -> str | None:
        """Process some unprocessed lead as if `back_ms` ago; its id, None where there is none."""
        with self._lock:
            shelf = self.shelf(campaign_id)
            waiting = [lead for lead in shelf.leads if lead.waits] if shelf else []
            if shelf is None or not waiting:
                return None
            lead = luck.choice(waiting)
            shelf.settle(lead, self._now() - back_ms, None)
            return lead.lead_id

    def process_again(self, campaign_id: str, luck: Random) -> str | None:
        """Process some processed lead once more, now; its id, None where there is none."""
        with self._lock:
            shelf = self.shelf(campaign_id)
            done = [lead for lead in shelf.processed if lead.disabled_at is None] if shelf else []
            if shelf is None or not done:
                return None
            lead, now = luck.choice(done), self._now()
            outcome = again(
                self.outcome(shelf, lead),
                now=now,
                stamp=stamp_for(self._rules()),
                key=self._key(shelf, lead),
            )
            shelf.settle(lead, now, outcome)
            return lead.lead_id

    def reset(self) -> None:
        """Forget every campaign, lead, outcome and violation."""
        with self._lock:
            self._shelves.clear()
            self._violations.clear()

    # What the books say.

    def outcome(self, shelf: Shelf, lead: Lead) -> Outcome:
        """The outcome of a processed lead, drawn anew where it was not put in by hand."""
        return lead.outcome or self._drawn(shelf, lead, lead.due())

    def _drawn(self, shelf: Shelf, lead: Lead, processed_at: int) -> Outcome:
        return drawn(
            created_at=lead.created_at,
            processed_at=processed_at,
            stamp=stamp_for(self._rules()),
            key=self._key(shelf, lead),
        )

    def _key(self, shelf: Shelf, lead: Lead) -> tuple[object, ...]:
        return (self._rules().seed, shelf.campaign_id, lead.number)

    @property
    def violations(self) -> list[Violation]:
        """Every second lead under an id that existed."""
        with self._lock:
            return list(self._violations)

    @property
    def campaign_ids(self) -> list[str]:
        """The campaigns that were named by a request so far."""
        with self._lock:
            return list(self._shelves)

    def leads(self, campaign_id: str) -> list[Lead]:
        """The leads of a campaign in the order of their creation, second ones included."""
        with self._lock:
            shelf = self.shelf(campaign_id)
            return list(shelf.leads) if shelf else []

    def lead(self, campaign_id: str, lead_id: str) -> Lead | None:
        """The (first) lead of that id."""
        with self._lock:
            shelf = self.shelf(campaign_id)
            return shelf.first.get(lead_id) if shelf else None

    def creations(self, campaign_id: str) -> dict[str, int]:
        """Lead id → how many creates of it were accepted (2 and more: created twice)."""
        return self._per_id(campaign_id, lambda lead: lead.created)

    def offers(self, campaign_id: str) -> dict[str, int]:
        """Lead id → how many times a well-formed create of it arrived, refused repeats too."""
        return self._per_id(campaign_id, lambda lead: lead.offered)

    def _per_id(self, campaign_id: str, figure: Callable[[Lead], int]) -> dict[str, int]:
        with self._lock:
            shelf = self.shelf(campaign_id)
            leads = shelf.first if shelf else {}
            return {lead_id: figure(lead) for lead_id, lead in leads.items()}

    def processed(self, campaign_id: str) -> dict[str, int]:
        """Lead id → `processed_at` (epoch ms) of every lead whose outcome can be seen by now."""
        with self._lock:
            shelf = self.shelf(campaign_id)
            return {lead.lead_id: lead.due() for lead in shelf.processed} if shelf else {}

    def disabled(self, campaign_id: str) -> dict[str, int]:
        """Lead id → when it was disabled (epoch ms)."""
        leads = self.leads(campaign_id)
        return {lead.lead_id: lead.disabled_at for lead in leads if lead.disabled_at is not None}

    def summary(self) -> dict[str, dict[str, int]]:
        """Per campaign: leads, processed, disabled, created_twice."""
        with self._lock:
            twice = Counter(violation.campaign_id for violation in self._violations)
            return {
                campaign_id: {
                    "leads": len(self.leads(campaign_id)),
                    "processed": len(self.processed(campaign_id)),
                    "disabled": len(self.disabled(campaign_id)),
                    "created_twice": twice[campaign_id],
                }
                for campaign_id in self.campaign_ids
            }


def _schedule(shelf: Shelf, lead: Lead, rules: Rules, pace: float) -> None:
    key = (rules.seed, shelf.campaign_id, lead.number)
    processed_at = lead.created_at + delay_ms(pace, *key)
    late = rules.late_by if share("late", *key) < rules.late_share else 0.0
    visible_at = processed_at + int((rules.outcome_visible_after + late) * 1000)
    shelf.schedule(lead, processed_at=processed_at, visible_at=visible_at)
