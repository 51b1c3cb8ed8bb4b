"""The loop as a state machine: upstream, the vendor, its faults and our flows, in any order."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from db.database import Database
from leadloop.cli.app import app
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import (
    backfill_outcomes,
    disable_leads,
    poll_heads,
    poll_outcomes,
    push_leads,
    sync_leads,
)
from tests.resilience import invariants, strategies
from tests.resilience.counters import COUNTERS
from tests.resilience.model import LOOKBACK_S, LoopModel

_INDEXES = st.integers(0, 20)
_MAX_SYNCS = 6


class LoopMachine(RuleBasedStateMachine):
    """A state machine: rules are actions of the three parties, invariants are the promises."""

    database: ClassVar[Database]
    vendor: ClassVar[SandboxHandle]

    def __init__(self) -> None:
        super().__init__()
        COUNTERS["examples"] += 1
        self.model = LoopModel(database=self.database, vendor=self.vendor)
        self.model.reset()
        self.numbers = count(1)
        self.opted_out_ids: list[str] = []

    @initialize(
        readings=strategies.INTERPRETATIONS,
        moods=strategies.BEHAVIOURS,
        settle=st.sampled_from((0, 0, 0, 1)),
        batch=st.integers(1, 4),
        page=st.integers(1, 4),
        window=st.sampled_from((3600, 400)),
    )
    def create_campaign(
        self, readings: dict[str, Any], moods: dict[str, Any], settle: int, **sizes: int
    ) -> None:
        """Create a campaign, and draw the vendor's interpretation and behaviour."""
        self.model.settle_s = settle
        self.vendor.change_rules(**readings, **moods, lead_visible_after=settle / 2)
        factories.add_campaign(
            self.database,
            batch_size=sizes["batch"],
            page_size=sizes["page"],
            window_s=sizes["window"],
            settle_s=settle,
            epoch_unit=readings["window_unit"],
        )

    # Upstream.

    @rule(
        shapes=st.lists(
            st.tuples(strategies.LEAD_SHAPES, strategies.LEAD_IDS), min_size=1, max_size=6
        )
    )
    def insert_leads(self, shapes: list[tuple[str, str]]) -> None:
        """Insert leads, some of them invalid."""
        for shape, form in shapes:
            number = next(self.numbers)
            self._insert_lead(shape, form.format(number), factories.build_phone(number))

    @precondition(lambda self: self.model.leads)
    @rule(which=_INDEXES)
    def insert_same_phone(self, which: int) -> None:
        """Insert a known phone number under another id: two leads, unless the number opted out."""
        phone = self._pick(which, list(self.model.leads.values())).phone
        if phone.startswith("+1"):
            self._insert_lead("plain", f"T{next(self.numbers)}", phone)

    @precondition(lambda self: self.opted_out_ids)
    @rule()
    def insert_opted_out_lead(self) -> None:
        """Insert a lead whose opt-out came first."""
        lead_id = self.opted_out_ids.pop()
        self._insert_lead("plain", lead_id, factories.build_phone(next(self.numbers)))

    def _insert_lead(self, shape: str, lead_id: str, phone: str) -> None:
        """Insert a lead; by the last digit of its number, it is urgent or not."""
        lead = strategies.create_lead(
            *(shape, lead_id, phone),
            newer_limits=self.vendor.rules.newer_limits,
            priority=int(phone[-1]) % 3,
        )
        self.model.insert_lead(lead)

    @precondition(lambda self: set(self.model.leads) - self.model.opted_out)
    @rule(which=_INDEXES)
    def opt_out_lead(self, which: int) -> None:
        """Opt out a known lead."""
        rest = [key for key in self.model.leads if key not in self.model.opted_out]
        self.model.opt_out(self._pick(which, rest))

    @rule()
    def opt_out_unknown_lead(self) -> None:
        """Opt out an id that is not inserted yet."""
        lead_id = f"U{next(self.numbers)}"
        self.opted_out_ids.append(lead_id)
        self.model.opt_out(lead_id)

    # The vendor.

    @precondition(lambda self: self.vendor.store.leads(CAMPAIGN))
    @rule(which=_INDEXES, back_s=st.sampled_from((0, 0, 0, 5, 600, 3000)), more=st.integers(1, 4))
    def process_leads(self, which: int, back_s: int, more: int) -> None:
        """Process some leads, some of them again, some with an old time."""
        leads = self.vendor.store.leads(CAMPAIGN)
        if back_s > LOOKBACK_S and self.model.fetch_watermark() is None:
            back_s = 0
        for place in range(more):
            lead = self._pick(which + place, leads)
            again = lead.processed_at is not None
            hidden = 0.0 if back_s or again else self.model.settle_s / 2
            self.model.process_lead(lead.lead_id, back_s=0 if again else back_s, hidden_s=hidden)

    @rule(moods=strategies.BEHAVIOURS)
    def change_behaviour(self, moods: dict[str, Any]) -> None:
        """Change the vendor's behaviour where the document leaves a choice."""
        self.vendor.change_rules(**moods)

    @rule(fault=strategies.FAULTS)
    def inject_fault(self, fault: dict[str, Any]) -> None:
        """Inject a fault into one or several of the next requests."""
        if fault["kind"] in ("late", "repeat"):
            # One at a time: the expected rows of two overlapping faults are undefined.
            self.vendor.clear_faults()
        self.vendor.add_fault(**fault)
        self.model.may_reject_valid |= (fault["route"], fault.get("status")) == ("create", 400)

    @rule()
    def clear_faults(self) -> None:
        """Clear all faults."""
        self.vendor.clear_faults()

    # leadloop.

    @rule()
    def run_push(self) -> None:
        """Run `push_leads()`."""
        self.model.run_flow(push_leads)

    @rule(
        shapes=st.lists(strategies.LEAD_SHAPES, min_size=3, max_size=9),
        fault=strategies.CREATE_FAULTS,
    )
    def push_with_fault(self, shapes: list[str], fault: dict[str, Any]) -> None:
        """Insert leads and push them with a fault, which random steps rarely do in a row."""
        self.insert_leads([(shape, "L{}") for shape in shapes])
        self.inject_fault(fault)
        self.run_push()

    @precondition(lambda self: self.vendor.store.leads(CAMPAIGN))
    @rule(which=_INDEXES, fault=strategies.ROW_SHIFTS)
    def poll_with_row_shift(self, which: int, fault: dict[str, Any]) -> None:
        """Poll several pages of outcomes whose rows shift between pages."""
        self.vendor.clear_faults()
        self.process_leads(which=which, back_s=0, more=6)
        self.model.wait_a_second()
        self.inject_fault(fault)
        self.run_poll()

    @rule()
    def run_poll(self) -> None:
        """Run `poll_outcomes()`."""
        self.model.run_poll(poll_outcomes)

    @rule()
    def run_head_poll(self) -> None:
        """Run `poll_heads()`, which need not find what shows late."""
        self.model.run_flow(poll_heads)

    @rule()
    def run_disable(self) -> None:
        """Run `disable_leads()`."""
        self.model.run_flow(disable_leads)

    @rule()
    def run_sync(self) -> None:
        """Run `sync_leads()`."""
        self.model.run_poll(sync_leads)

    @rule()
    def run_backfill(self) -> None:
        """Run `backfill_outcomes()` over a range longer than any lateness."""
        self._backfill_all()

    def _backfill_all(self) -> bool:
        now = datetime.now(UTC)
        after = now - timedelta(hours=2)
        return self.model.run_poll(backfill_outcomes, start=after, after=after, before=now)

    @precondition(lambda self: self.model.settle_s)
    @rule()
    def wait_to_settle(self) -> None:
        """Wait for the settle time."""
        self.model.wait_to_settle()

    @invariant()
    def check_all_invariants(self) -> None:
        """Check every invariant after every step."""
        COUNTERS["steps"] += 1
        for check in invariants.INVARIANTS:
            check(self.model)

    def teardown(self) -> None:
        """Check that, once the vendor works, everything is done and nothing twice."""
        try:
            self._settle_all()
            self.check_all_invariants()
        finally:
            self.model.count_requests()

    def _settle_all(self) -> None:
        hid = not self.vendor.rules.shows_unprocessed
        self.vendor.clear_faults()
        self.vendor.change_rules(shows_unprocessed=True, max_page_size=None, lead_visible_after=0.0)
        # One lead that is certainly created: leadloop probes the vendor's behaviour with it.
        self._insert_lead("plain", "last", factories.build_phone(9_999_999))
        self._sync_until_quiet()
        if hid or self.model.may_reject_valid:
            self._requeue_manually()
            self._sync_until_quiet()
        self._process_all()
        assert self.model.run_poll(sync_leads)
        assert self._backfill_all()
        invariants.check_all_settled(self.model)
        again = self.model.run_flow(poll_outcomes)
        assert again is not None
        assert (again["inserted"], again["updated"]) == (0, 0), "another poll changes an outcome"

    def _sync_until_quiet(self) -> None:
        for _ in range(_MAX_SYNCS):
            self.model.wait_to_settle()
            assert self.model.run_poll(sync_leads), "the vendor works, but the sync fails"
            if not {"new", "in_doubt"} & set(sql.fetch_statuses(self.database).values()):
                return

    def _requeue_manually(self) -> None:
        """Requeue leads that the vendor lacks, rejected valid leads, and failed opt-outs."""
        has = self.vendor.store.creations(CAMPAIGN)
        for lead_id, status in sql.fetch_statuses(self.database).items():
            if status == "in_doubt" and lead_id not in has:
                _run_requeue("--in-doubt", lead_id)
            if status == "rejected" and self.model.leads[lead_id].is_valid:
                _run_requeue("--rejected", lead_id)
        for lead_id, state in sql.fetch_opt_outs(self.database).items():
            if state == "failed" and lead_id in has:
                _run_requeue("--disables", lead_id)

    def _process_all(self) -> None:
        for lead in self.vendor.store.leads(CAMPAIGN):
            if lead.processed_at is None:
                self.model.process_lead(lead.lead_id, back_s=0)
        self.model.wait_to_settle()

    @staticmethod
    def _pick(which: int, among: list[Any]) -> Any:
        return among[which % len(among)]


def _run_requeue(kind: str, lead_id: str) -> None:
    """Run `leadloop requeue`, as a person does after asking the vendor."""
    app(["requeue", kind, "--lead-id", lead_id, "--json"], standalone_mode=False)
