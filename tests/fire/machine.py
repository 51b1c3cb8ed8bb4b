"""The whole loop as a machine: upstream, the vendor, its failures and our flows, in any order."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from db.database import Database
from flows.disable import disable_leads
from flows.poll import backfill_outcomes, poll_outcomes
from flows.push import push_leads
from flows.sync import sync_leads
from leadloop.cli.app import app
from leadloop.sandbox import Handle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.fire import drawn, judge
from tests.fire.tally import TALLY
from tests.fire.world import LOOKBACK_S, World

_WHICH = st.integers(0, 20)
_MOST_SYNCS = 6


class Loop(RuleBasedStateMachine):
    """Each rule is something that one of the three does; the invariants are the promises."""

    database: ClassVar[Database]
    vendor: ClassVar[Handle]

    def __init__(self) -> None:
        super().__init__()
        TALLY["examples"] += 1
        self.world = World(database=self.database, vendor=self.vendor)
        self.world.begin()
        self.numbers = count(1)
        self.promised: list[str] = []

    @initialize(
        readings=drawn.READINGS,
        moods=drawn.MOODS,
        settle=st.sampled_from((0, 0, 0, 1)),
        batch=st.integers(1, 4),
        page=st.integers(1, 4),
        window=st.sampled_from((3600, 400)),
    )
    def opens(
        self, readings: dict[str, Any], moods: dict[str, Any], settle: int, **sizes: int
    ) -> None:
        """A campaign at a vendor of some habits."""
        self.world.settle_s = settle
        self.vendor.change(**readings, **moods, lead_visible_after=settle / 2)
        factories.add_campaign(
            self.database,
            batch_size=sizes["batch"],
            page_size=sizes["page"],
            window_s=sizes["window"],
            settle_s=settle,
            epoch_unit=readings["window_unit"],
        )

    # Upstream.

    @rule(shapes=st.lists(st.tuples(drawn.SHAPES, drawn.IDS), min_size=1, max_size=6))
    def inserts(self, shapes: list[tuple[str, str]]) -> None:
        """New leads, some of them bad."""
        for shape, form in shapes:
            number = next(self.numbers)
            self._insert(shape, form.format(number), factories.build_phone(number))

    @precondition(lambda self: self.world.leads)
    @rule(which=_WHICH)
    def inserts_a_twin(self, which: int) -> None:
        """The same person under another id: two leads, unless the number has opted out."""
        phone = self._known(which, list(self.world.leads.values())).phone
        if phone.startswith("+1"):
            self._insert("plain", f"T{next(self.numbers)}", phone)

    @precondition(lambda self: self.promised)
    @rule()
    def inserts_who_opted_out_before(self) -> None:
        """A lead whose opt-out was there first."""
        lead_id = self.promised.pop()
        self._insert("plain", lead_id, factories.build_phone(next(self.numbers)))

    def _insert(self, shape: str, lead_id: str, phone: str) -> None:
        limits = self.vendor.rules.newer_limits
        self.world.insert(drawn.given(shape, lead_id, phone, newer_limits=limits))

    @precondition(lambda self: set(self.world.leads) - self.world.opted_out)
    @rule(which=_WHICH)
    def opts_out(self, which: int) -> None:
        """Somebody we know wants no more calls."""
        rest = [key for key in self.world.leads if key not in self.world.opted_out]
        self.world.opt_out(self._known(which, rest))

    @rule()
    def opts_out_unknown(self) -> None:
        """Somebody nobody knows yet does."""
        lead_id = f"U{next(self.numbers)}"
        self.promised.append(lead_id)
        self.world.opt_out(lead_id)

    # The vendor.

    @precondition(lambda self: self.vendor.books.leads(CAMPAIGN))
    @rule(which=_WHICH, back_s=st.sampled_from((0, 0, 0, 5, 600, 3000)), more=st.integers(1, 4))
    def processes(self, which: int, back_s: int, more: int) -> None:
        """Some leads are done, some of them again, some as if long ago."""
        leads = self.vendor.books.leads(CAMPAIGN)
        if back_s > LOOKBACK_S and self.world.watermark() is None:
            back_s = 0
        for place in range(more):
            lead = self._known(which + place, leads)
            again = lead.processed_at is not None
            hidden = 0.0 if back_s or again else self.world.settle_s / 2
            self.world.process(lead.lead_id, back_s=0 if again else back_s, hidden_s=hidden)

    @rule(moods=drawn.MOODS)
    def changes_its_mind(self, moods: dict[str, Any]) -> None:
        """What the document leaves open is read another way from now on."""
        self.vendor.change(**moods)

    @rule(fault=drawn.FAULTS)
    def fails(self, fault: dict[str, Any]) -> None:
        """Something will go wrong with one of the next requests, or with several."""
        if fault["kind"] in ("late", "repeat"):
            # One at a time: of two, nobody could say what was to be seen in between.
            self.vendor.clear_faults()
        self.vendor.fault(**fault)
        self.world.blamed |= (fault["route"], fault.get("status")) == ("create", 400)

    @rule()
    def recovers(self) -> None:
        """All is well with the vendor."""
        self.vendor.clear_faults()

    # We.

    @rule()
    def push(self) -> None:
        """`push_leads()`."""
        self.world.attempt(push_leads)

    @rule(shapes=st.lists(drawn.SHAPES, min_size=3, max_size=9), fault=drawn.ON_CREATE)
    def push_while_it_fails(self, shapes: list[str], fault: dict[str, Any]) -> None:
        """What the other rules would rarely do one after the other."""
        self.inserts([(shape, "L{}") for shape in shapes])
        self.fails(fault)
        self.push()

    @precondition(lambda self: self.vendor.books.leads(CAMPAIGN))
    @rule(which=_WHICH, fault=drawn.DRIFTS)
    def poll_while_rows_move(self, which: int, fault: dict[str, Any]) -> None:
        """Several pages of outcomes, and some of them elsewhere by the next page."""
        self.vendor.clear_faults()
        self.processes(which=which, back_s=0, more=6)
        self.world.pass_a_second()
        self.fails(fault)
        self.poll()

    @rule()
    def poll(self) -> None:
        """`poll_outcomes()`."""
        self.world.read(poll_outcomes)

    @rule()
    def disable(self) -> None:
        """`disable_leads()`."""
        self.world.attempt(disable_leads)

    @rule()
    def sync(self) -> None:
        """`sync_leads()`."""
        self.world.read(sync_leads)

    @rule()
    def backfill(self) -> None:
        """`backfill_outcomes()`, over more than anything can be late by."""
        self._read_all()

    def _read_all(self) -> bool:
        now = datetime.now(UTC)
        after = now - timedelta(hours=2)
        return self.world.read(backfill_outcomes, start=after, after=after, before=now)

    @precondition(lambda self: self.world.settle_s)
    @rule()
    def time_passes(self) -> None:
        """What was to settle has."""
        self.world.pass_time()

    @invariant()
    def books_are_true(self) -> None:
        """Both sides' books, after every step."""
        TALLY["steps"] += 1
        for holds in judge.INVARIANTS:
            holds(self.world)

    def teardown(self) -> None:
        """In the end, with a vendor that works, everything is done and nothing twice."""
        try:
            self._end_well()
            self.books_are_true()
        finally:
            self.world.end()

    def _end_well(self) -> None:
        hid = not self.vendor.rules.shows_unprocessed
        self.vendor.clear_faults()
        self.vendor.change(shows_unprocessed=True, max_page_size=None, lead_visible_after=0.0)
        # One more that is created without a doubt: by it the vendor's habits can be told.
        self._insert("plain", "last", factories.build_phone(9_999_999))
        self._sync_until_quiet()
        if hid or self.world.blamed:
            self._ask_a_person()
            self._sync_until_quiet()
        self._process_all()
        assert self.world.read(sync_leads)
        assert self._read_all()
        judge.all_settled(self.world)
        again = self.world.attempt(poll_outcomes)
        assert again is not None
        assert (again["inserted"], again["updated"]) == (0, 0), "a further poll changes something"

    def _sync_until_quiet(self) -> None:
        for _ in range(_MOST_SYNCS):
            self.world.pass_time()
            assert self.world.read(sync_leads), "nothing is wrong any more, and yet it fails"
            if not {"new", "in_doubt"} & set(sql.fetch_statuses(self.database).values()):
                return

    def _ask_a_person(self) -> None:
        """Whom the vendor lacks is sent again; who was refused without a reason too."""
        has = self.vendor.books.creations(CAMPAIGN)
        for lead_id, status in sql.fetch_statuses(self.database).items():
            if status == "in_doubt" and lead_id not in has:
                _requeue("--in-doubt", lead_id)
            if status == "rejected" and self.world.leads[lead_id].good:
                _requeue("--rejected", lead_id)
        for lead_id, state in sql.fetch_opt_outs(self.database).items():
            if state == "failed" and lead_id in has:
                _requeue("--disables", lead_id)

    def _process_all(self) -> None:
        for lead in self.vendor.books.leads(CAMPAIGN):
            if lead.processed_at is None:
                self.world.process(lead.lead_id, back_s=0)
        self.world.pass_time()

    @staticmethod
    def _known(which: int, among: list[Any]) -> Any:
        return among[which % len(among)]


def _requeue(kind: str, lead_id: str) -> None:
    """`leadloop requeue`, as a person who has asked the vendor does."""
    app(["requeue", kind, "--lead-id", lead_id, "--json"], standalone_mode=False)
