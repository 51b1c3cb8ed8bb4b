"""Worlds whose vendor stays flawed: what fails in each, and what must get done all the same.

Times are in milliseconds before the newest outcome; a tick is the unit of the bounds that are sent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hypothesis import strategies as st

from tasks.page_limits import smallest_divisor

Fault = dict[str, Any]

#: The longest time between the first outcome and the last one.
MAX_AGE_S = 9_000
_TICK_MS = {"ms": 1, "s": 1000}
# The shortest window of a poll is two ticks long. Its bounds are rounded outwards, and moved one
# tick further, so that much is read together with any instant in it.
_REACH_TICKS = 4
#: The size in bytes of a page with this many rows is at most this.
_PAGE_BYTES, _ROW_BYTES = 250, 620


@dataclass(frozen=True, kw_only=True)
class World:
    """One campaign at a vendor, with flaws that stay and noise that ends.

    Attributes:
        ages: the age of each outcome by its lead's id, ms.
        poison: the fault that answers each page with this lead, by its id.
        hidden, doubled, redacted: leads with the sandbox's flaws of these names.
        opt_outs: the leads that opt out.
        opt_out_poison: the fault that answers each disable of this lead, by its id.
        noise: faults, each with a probability; they end before the quiet runs.
        noisy_runs: the runs of each job before the noise ends.
        later: outcomes that are processed after the noisy runs.
        polls_heads: whether the polls after the first one are head polls.
        rules: the sandbox's rules.
        campaign: the columns of the campaign.
        concurrency: the setting of that name.
    """

    ages: Mapping[str, int]
    poison: Mapping[str, Fault]
    hidden: frozenset[str]
    doubled: frozenset[str]
    redacted: frozenset[str]
    opt_outs: frozenset[str]
    opt_out_poison: Mapping[str, Fault]
    noise: tuple[Fault, ...]
    noisy_runs: int
    later: tuple[str, ...]
    polls_heads: bool
    rules: Mapping[str, Any]
    campaign: Mapping[str, Any]
    concurrency: int

    def heal(self) -> "World":
        """Return the same world without poisoned items and without noise: it is the twin."""
        return replace(self, poison={}, hidden=frozenset(), opt_out_poison={}, noise=())

    @property
    def lead_ids(self) -> list[str]:
        """All leads, in the order of creation."""
        return [*self.ages, *self.later]

    @property
    def tick_ms(self) -> int:
        """The unit of the bounds, ms."""
        return _TICK_MS[self.campaign["epoch_unit"]]

    @property
    def reach_ms(self) -> int:
        """The distance at which rows are read together with those of an instant."""
        return _REACH_TICKS * self.tick_ms

    @property
    def page_rows(self) -> int:
        """The number of rows that the vendor shows on one page."""
        limits = [self.campaign["page_size"]]
        if self.rules["max_answer_rows"] is not None:
            limits.append(self.rules["max_answer_rows"])
        if self.rules["max_answer_bytes"] is not None:
            limits.append((self.rules["max_answer_bytes"] - _PAGE_BYTES) // _ROW_BYTES)
        return int(min(limits))

    @property
    def whole_page_rows(self) -> int:
        """The page size that is learned: sizes are divided by their smallest divisor."""
        size = int(self.campaign["page_size"])
        while size > self.page_rows:
            size //= smallest_divisor(size) or size
        return size

    @property
    def page_depth(self) -> float:
        """The number of the last page that the vendor shows."""
        return self.rules["max_page"] or float("inf")

    @property
    def is_halved(self) -> bool:
        """Whether windows are halved at each poll: rows are repeated, or lie beyond size and depth.

        Where a window begins then decides how often.
        """
        rows = len(self.lead_ids) + len(self.doubled)
        repeats = self.doubled or len(self.redacted) > 1
        return rows > (self.page_rows if repeats else self.whole_page_rows * self.page_depth)

    @property
    def lost(self) -> frozenset[str]:
        """The outcomes that no read can show."""
        return self.hidden | set(self.poison)

    @cached_property
    def good(self) -> frozenset[str]:
        """The outcomes that have to be stored, whatever else is wrong."""
        bad = self.lost | self.redacted
        return frozenset(
            lead_id
            for lead_id, age in self.ages.items()
            if lead_id not in bad and not self._is_out_of_reach(age)
        ) | frozenset(self.later)

    @property
    def good_opt_outs(self) -> frozenset[str]:
        """The opt-outs that have to be confirmed."""
        return self.opt_outs - set(self.opt_out_poison)

    @cached_property
    def owable_ages(self) -> list[int]:
        """The ages of outcomes whose instant may be owed: lost ones, and crowds beyond a page."""
        return sorted(
            age
            for lead_id, age in self.ages.items()
            if lead_id in self.lost or self._may_never_add_up(age)
        )

    def count_rows(self, age: int) -> int:
        """Count the rows that are read together with those of an instant."""
        near = self._find_near(age)
        return len(near) + len(self.doubled & near)

    def _find_near(self, age: int) -> set[str]:
        return {key for key, other in self.ages.items() if abs(other - age) <= self.reach_ms}

    def _may_never_add_up(self, age: int) -> bool:
        """Return whether an instant takes more pages than can be verified (PROGRESS.md, rule 3)."""
        near, rows = self._find_near(age), self.count_rows(age)
        if rows <= self.page_rows:
            return False
        repeats = bool(near & self.doubled) or len(near & self.redacted) > 1
        deepest = self.whole_page_rows * self.page_depth
        return repeats or self.rules["ties"] == "page" or rows > deepest

    def _is_out_of_reach(self, age: int) -> bool:
        """Return whether no page may show a row: beyond the depth, or never in the vendor's order.

        Beside a poisoned row, only pages of one row can be read.
        """
        rows = self.count_rows(age)
        is_poisoned = bool(self._find_near(age) & set(self.poison))
        deepest = (1 if is_poisoned else self.whole_page_rows) * self.page_depth
        return rows > (1 if is_poisoned else self.page_rows) and (
            self.rules["ties"] == "page" or rows > deepest
        )


def answer_status(number: int, **more: Any) -> Fault:
    """Return a fault that answers with a status."""
    return {"kind": "status", "status": number, **more}


#: Hold a request for a moment, and close the connection.
HANG: Fault = {"kind": "hang", "seconds": 0.01}
# What a vendor answers that cannot render a row, and a firewall in front of it.
_POISON: list[Fault] = [
    answer_status(500),
    answer_status(502, body="html"),
    answer_status(403, body="html"),
    {"kind": "reset"},
    HANG,
    {"kind": "cut"},
    {"kind": "foreign"},
]
_OPT_OUT_POISON: list[Fault] = [
    answer_status(500),
    answer_status(403, body="html"),
    answer_status(400, body="html"),
    {"kind": "reset"},
    HANG,
]
_NOISE: list[Fault] = [
    answer_status(500),
    answer_status(502, body="html"),
    answer_status(503, body="html"),
    answer_status(403, body="html"),
    {"kind": "reset"},
    {"kind": "reset", "when": "after"},
    HANG,
    {"kind": "cut"},
    {"kind": "foreign"},
]
_SHARES = st.sampled_from((0.02, 0.05, 0.1, 0.2, 0.4))

_RULES = st.fixed_dictionaries(
    {
        "max_page": st.sampled_from((None, None, 1, 2, 3)),
        "page_above_max": st.sampled_from(("400", "422", "500")),
        "max_answer_rows": st.sampled_from((None, None, 1, 2, 5)),
        "max_answer_bytes": st.sampled_from((None, None, 1_400, 4_000)),
        "answer_above_max": st.sampled_from(("502", "413", "500")),
        "redacted_as": st.sampled_from(("null", "empty", "deleted")),
        "ties": st.sampled_from(("stable", "stable", "page")),
        "order": st.sampled_from(("created", "processed", "processed-desc", "lead_id", "random")),
        "after_inclusive": st.booleans(),
        "before_inclusive": st.booleans(),
        "page_beyond_last": st.sampled_from(("404", "empty")),
    }
)
_CAMPAIGNS = st.fixed_dictionaries(
    {
        "epoch_unit": st.sampled_from(("ms", "ms", "s")),
        "page_size": st.sampled_from((1, 3, 5, 10)),
        "batch_size": st.sampled_from((1, 3, 8)),
        "window_s": st.sampled_from((3600, 400)),
        "lookback_s": st.sampled_from((0, 900)),
    }
)


@st.composite
def draw_world(draw: st.DrawFn) -> World:
    """Draw a world. Most items are good, and most flaws are absent."""
    campaign, rules = draw(_CAMPAIGNS), draw(_RULES)
    ages = _draw_ages(draw, tick_ms=_TICK_MS[str(campaign["epoch_unit"])])
    leads = list(ages)
    unflawed = set(leads)
    some = {
        flaw: _draw_some(draw, sorted(unflawed), unflawed)
        for flaw in ("poison", "hidden", "doubled", "redacted")
    }
    opt_outs = draw(st.frozensets(st.sampled_from(leads), max_size=20))
    poisoned_opt_outs = _draw_some(draw, sorted(opt_outs), set(opt_outs))
    return World(
        ages=ages,
        poison={key: draw(st.sampled_from(_POISON)) for key in sorted(some["poison"])},
        hidden=some["hidden"],
        doubled=some["doubled"],
        redacted=some["redacted"],
        opt_outs=opt_outs,
        opt_out_poison={
            key: draw(st.sampled_from(_OPT_OUT_POISON)) for key in sorted(poisoned_opt_outs)
        },
        noise=tuple(_draw_noise(draw)),
        noisy_runs=draw(st.integers(0, 2)),
        later=draw(st.sampled_from(((), ("N0",)))),
        polls_heads=draw(st.booleans()),
        rules=rules,
        campaign=campaign,
        concurrency=draw(st.sampled_from((1, 4))),
    )


def _draw_ages(draw: st.DrawFn, *, tick_ms: int) -> dict[str, int]:
    """Draw the age of each outcome, newest first, created in another order."""
    gaps_ticks = st.sampled_from((0, 1, 2, 5, 40, 300, 300, 300))
    gaps_s = st.sampled_from((0, 0, 0, 0, 4, 60, 500))
    gaps = draw(st.lists(st.tuples(gaps_ticks, gaps_s), min_size=1, max_size=30))
    ages, age = [], 0
    for ticks, seconds in gaps:
        age = min(age + ticks * min(tick_ms, 10) + seconds * 1000, MAX_AGE_S * 1000)
        ages.append(age // tick_ms * tick_ms)
    return {f"L{number}": age for number, age in enumerate(draw(st.permutations(ages)))}


def _draw_some(draw: st.DrawFn, among: list[str], unflawed: set[str]) -> frozenset[str]:
    """Draw a few of the leads, and remove them from those without a flaw."""
    if not among:
        return frozenset()
    sizes = st.sampled_from((0, 0, 1, 1, 2, 4))
    some = draw(st.frozensets(st.sampled_from(among), max_size=draw(sizes)))
    unflawed -= some
    return some


def _draw_noise(draw: st.DrawFn) -> Iterable[Fault]:
    kinds = draw(st.lists(st.sampled_from(range(len(_NOISE))), unique=True, max_size=3))
    for kind in kinds:
        yield {**_NOISE[kind], "probability": draw(_SHARES)}
