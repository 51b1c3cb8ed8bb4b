"""One campaign's leads at the vendor, and the orders in which they can be read."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter

from leadloop.sandbox.outcomes import Outcome, die
from leadloop.sandbox.rules import Rules


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A lead as a create request states it, found to be well-formed."""

    lead_id: str
    phone_number: str
    contact_name: str
    state_code: str
    custom: bytes | None


class Lead:
    """One lead in the vendor's books. Times are epoch ms; slots, as there may be a million.

    `offered` counts the create requests that named it, `created` those that were accepted.
    `outcome` is None where the outcome is drawn from the seed whenever it is asked for.
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

    def __init__(self, draft: Draft, *, number: int, created_at: int) -> None:
        self.lead_id = draft.lead_id
        self.number = number
        self.created_at = created_at
        self.created = 1
        self.offered = 1
        self.disabled_at: int | None = None
        self.processed_at: int | None = None
        self.outcome: Outcome | None = None
        self.describe(draft)

    def describe(self, draft: Draft) -> None:
        """Take over what a create request says of the person."""
        self.phone_number = draft.phone_number
        self.contact_name = draft.contact_name
        self.state_code = draft.state_code
        self.custom = draft.custom

    @property
    def waits(self) -> bool:
        """Whether outreach on it goes on: neither processed nor disabled."""
        return self.processed_at is None and self.disabled_at is None

    def due(self) -> int:
        """When it was processed (epoch ms); -1 where it was not."""
        return -1 if self.processed_at is None else self.processed_at


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which leads a page is asked of; bounds in epoch ms, None: no bound."""

    lead_id: str | None = None
    after: int | None = None
    before: int | None = None

    @property
    def windowed(self) -> bool:
        """Whether only processed leads can match."""
        return self.after is not None or self.before is not None


_by_time = attrgetter("processed_at")
_Due = tuple[int, int, Lead, int, Outcome | None]


class Shelf:
    """The leads of one campaign. Not locked: `Books` does that."""

    def __init__(self, campaign_id: str, name: str) -> None:
        self.campaign_id = campaign_id
        self.name = name
        self.leads: list[Lead] = []
        self.first: dict[str, Lead] = {}
        self.seconds: dict[str, list[Lead]] = {}
        self._processed: list[Lead] = []
        self._disordered = False
        self._due: list[_Due] = []
        self._ticket = count()
        self._version = 0
        self._ordered: tuple[object, Sequence[Lead]] = (None, ())

    def add(self, draft: Draft, now: int) -> Lead:
        """Keep a new lead; one whose id is taken becomes a second lead of that id."""
        lead = Lead(draft, number=len(self.leads), created_at=now)
        self.leads.append(lead)
        if draft.lead_id in self.first:
            self.seconds.setdefault(draft.lead_id, []).append(lead)
        else:
            self.first[draft.lead_id] = lead
        self._version += 1
        return lead

    def named(self, lead_id: str) -> list[Lead]:
        """Every lead of that id, the first one first."""
        lead = self.first.get(lead_id)
        return [] if lead is None else [lead, *self.seconds.get(lead_id, ())]

    def schedule(
        self, lead: Lead, *, processed_at: int, visible_at: int, outcome: Outcome | None = None
    ) -> None:
        """Let the lead be processed at one epoch-ms time and be seen so at another."""
        heappush(self._due, (visible_at, next(self._ticket), lead, processed_at, outcome))

    def advance(self, now: int) -> None:
        """Bring to light everything that is due by `now` (epoch ms)."""
        while self._due and self._due[0][0] <= now:
            _, _, lead, processed_at, outcome = heappop(self._due)
            if outcome is not None or _may_be_processed(lead, processed_at):
                self.settle(lead, processed_at, outcome)

    def settle(self, lead: Lead, processed_at: int, outcome: Outcome | None) -> None:
        """Mark the lead as processed, once more if it already was."""
        again = lead.processed_at is not None
        last = self._processed[-1].due() if self._processed else -1
        self._disordered |= again or processed_at < last
        lead.processed_at = processed_at
        lead.outcome = outcome
        if not again:
            self._processed.append(lead)
        self._version += 1

    @property
    def processed(self) -> list[Lead]:
        """The processed leads, in the order of their `processed_at`."""
        if self._disordered:
            self._processed.sort(key=_by_time)
            self._disordered = False
        return self._processed

    def matching(self, query: Query, rules: Rules, now: int) -> Sequence[Lead]:
        """The leads that the query shows, in the order that the rules set."""
        horizon = now - int(rules.lead_visible_after * 1000)
        if query.lead_id is not None:
            return [
                lead
                for lead in self.named(query.lead_id)
                if _shown(lead, rules, horizon) and _within(lead, query, rules)
            ]
        return self._seen(self._in_order(query, rules), horizon)

    def _seen(self, leads: Sequence[Lead], horizon: int) -> Sequence[Lead]:
        if not self.leads or self.leads[-1].created_at <= horizon:
            return leads
        return [lead for lead in leads if lead.created_at <= horizon]

    def _in_order(self, query: Query, rules: Rules) -> Sequence[Lead]:
        if not query.windowed and rules.shows_unprocessed and rules.order == "created":
            return self.leads
        key = (self._version, query, rules)
        if self._ordered[0] != key:
            self._ordered = (key, _sorted(self._candidates(query, rules), rules))
        return self._ordered[1]

    def _candidates(self, query: Query, rules: Rules) -> Sequence[Lead]:
        if not query.windowed:
            return self.leads if rules.shows_unprocessed else self.processed
        low, high = 0, len(self.processed)
        if query.after is not None:
            side = bisect_left if rules.after_inclusive else bisect_right
            low = side(self.processed, query.after, key=_by_time)
        if query.before is not None:
            side = bisect_right if rules.before_inclusive else bisect_left
            high = side(self.processed, query.before, key=_by_time)
        return self.processed[low:high]


def _may_be_processed(lead: Lead, processed_at: int) -> bool:
    stopped = lead.disabled_at is not None and processed_at >= lead.disabled_at
    return lead.processed_at is None and not stopped


def _shown(lead: Lead, rules: Rules, horizon: int) -> bool:
    processed = lead.processed_at is not None
    return lead.created_at <= horizon and (processed or rules.shows_unprocessed)


def _within(lead: Lead, query: Query, rules: Rules) -> bool:
    if not query.windowed:
        return True
    if lead.processed_at is None:
        return False
    return _past(query.after, lead.processed_at, rules.after_inclusive) and _past(
        -query.before if query.before is not None else None,
        -lead.processed_at,
        rules.before_inclusive,
    )


def _past(bound: int | None, at: int, inclusive: bool) -> bool:
    return bound is None or at > bound or (inclusive and at == bound)


def _sorted(leads: Iterable[Lead], rules: Rules) -> Sequence[Lead]:
    if rules.order == "created":
        return sorted(leads, key=attrgetter("number"))
    if rules.order == "lead_id":
        return sorted(leads, key=attrgetter("lead_id"))
    if rules.order == "random":
        return sorted(leads, key=lambda lead: die("order", rules.seed, lead.number))
    backwards = rules.order == "processed-desc"
    return sorted(leads, key=Lead.due, reverse=backwards)
