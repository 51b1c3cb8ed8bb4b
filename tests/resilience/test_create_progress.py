"""The laws of progress of creates: one bad lead stops no good one, and nobody is created twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2

import pytest
from hypothesis import strategies as st

from db.database import Database
from db.suspects import MAX_LONE_FAILURES
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import push_leads
from tests.resilience import invariants
from tests.resilience.conftest import Soak
from tests.resilience.drawn_worlds import check_in_worlds
from tests.resilience.flawed_world import HANG, Fault, answer_status
from tests.resilience.model import InsertedLead, LoopModel

_POISON: list[Fault] = [
    answer_status(500),
    answer_status(502, body="html"),
    answer_status(403, body="html"),
    answer_status(400, body="html"),
    {"kind": "reset"},
    HANG,
]
_NOISE: list[Fault] = [
    *_POISON,
    answer_status(500, when="after"),
    answer_status(503, body="html"),
    answer_status(503, headers={"Retry-After": "0"}),
    {"kind": "reset", "when": "after"},
    {"kind": "cut"},
    {"kind": "foreign"},
    {"kind": "foreign", "when": "after"},
]


@dataclass(frozen=True, kw_only=True)
class CreateWorld:
    """Leads, of which some are poisoned: the vendor fails on every create that holds them.

    Attributes:
        amount: the number of leads.
        poison: the fault of each poisoned lead.
        noise: faults by chance, which end.
        noisy_runs: pushes before they end.
        batch: the leads of a create.
        concurrency: the most requests in flight.
    """

    amount: int
    poison: Mapping[str, Fault]
    noise: tuple[Fault, ...]
    noisy_runs: int
    batch: int
    concurrency: int

    @property
    def good(self) -> set[str]:
        """The leads that have to be created, whatever else fails."""
        return {f"L{number}" for number in range(self.amount)} - set(self.poison)

    @property
    def quiet_runs(self) -> int:
        """Runs after the last noise in which all is done (PROGRESS.md, K for creates)."""
        return 2 + ceil(log2(max(2, self.batch))) + MAX_LONE_FAILURES


@st.composite
def _draw_world(draw: st.DrawFn) -> CreateWorld:
    amount = draw(st.integers(1, 40))
    leads = [f"L{number}" for number in range(amount)]
    poisoned = draw(st.lists(st.sampled_from(leads), max_size=3, unique=True))
    kinds = draw(st.lists(st.sampled_from(range(len(_NOISE))), unique=True, max_size=3))
    shares = st.sampled_from((0.02, 0.1, 0.2, 0.4))
    return CreateWorld(
        amount=amount,
        poison={lead_id: draw(st.sampled_from(_POISON)) for lead_id in poisoned},
        noise=tuple({**_NOISE[kind], "probability": draw(shares)} for kind in kinds),
        noisy_runs=draw(st.integers(0, 3)),
        batch=draw(st.sampled_from((1, 2, 5, 16))),
        concurrency=draw(st.sampled_from((1, 4))),
    )


@pytest.mark.usefixtures("environment", "quick_retries", "disabled_logging")
def test_no_bad_lead_stops_a_good_one(
    database: Database,
    vendor: SandboxHandle,
    monkeypatch: pytest.MonkeyPatch,
    soak: Soak | None,
) -> None:
    """Every good lead is created once; each bad one is rejected, or waits for its next try."""

    def check(world: CreateWorld) -> None:
        monkeypatch.setenv("LEADLOOP_CONCURRENCY", str(world.concurrency))
        _check_world(LoopModel(database=database, vendor=vendor), world)

    check_in_worlds(_draw_world(), check, soak, share=0.2, counter="worlds of creates")


def _check_world(model: LoopModel, world: CreateWorld) -> None:
    model.reset()
    factories.add_campaign(model.database, settle_s=0, batch_size=world.batch)
    _insert(model, "probe")
    assert push_leads([CAMPAIGN])["created"] == 1
    for lead_id in sorted(world.good | set(world.poison)):
        _insert(model, lead_id)
    _add_poison(model, world)
    for fault in world.noise:
        model.vendor.add_fault(route="any", **fault)
    for _ in range(world.noisy_runs):
        _push(model)
    model.vendor.clear_faults()
    _add_poison(model, world)
    for _ in range(world.quiet_runs):
        before = _find_unfinished(model, world)
        weight = _weigh(model, world)
        _reach_due_times(model)
        _push(model)
        after = _find_unfinished(model, world)
        assert not before or after < before or _weigh(model, world) < weight, "nothing moves"
    assert _find_unfinished(model, world) == set()
    _check_poison(model, world)


def _insert(model: LoopModel, lead_id: str) -> None:
    model.insert_lead(InsertedLead(row=factories.build_lead(lead_id), is_valid=True))


def _add_poison(model: LoopModel, world: CreateWorld) -> None:
    for lead_id, fault in world.poison.items():
        model.vendor.add_fault(route="create", lead_id=lead_id, **fault)


def _push(model: LoopModel) -> None:
    """Push once; the safety invariants hold after it."""
    model.run_flow(push_leads)
    for check in invariants.INVARIANTS:
        check(model)
    query = "SELECT error FROM leadloop.sync_runs WHERE error LIKE 'unexpected%'"
    assert sql.fetch_rows(model.database, query) == []


def _find_unfinished(model: LoopModel, world: CreateWorld) -> set[str]:
    statuses = sql.fetch_statuses(model.database)
    return {lead_id for lead_id in world.good if statuses[lead_id] != "created"}


def _weigh(model: LoopModel, world: CreateWorld) -> int:
    """Weigh the good leads that are not created, by the steps that each may still take."""
    rows = sql.fetch_rows(
        model.database,
        "SELECT lead_id, status, count(*) OVER (PARTITION BY suspect_list) AS size"
        " FROM leadloop.leads WHERE status IN ('new', 'in_doubt')",
    )
    return sum(
        2 * ceil(log2(row["size"])) + (row["status"] == "new")
        for row in rows
        if row["lead_id"] in world.good
    )


def _reach_due_times(model: LoopModel) -> None:
    sql.execute(
        model.database,
        "UPDATE leadloop.leads SET next_try_at = clock_timestamp() - interval '1 second'"
        " WHERE next_try_at IS NOT NULL",
    )
    sql.execute(
        model.database,
        "UPDATE leadloop.leads SET looked_up_at = doubted_at - interval '1 second'"
        " WHERE looked_up_at IS NOT NULL AND status = 'in_doubt'",
    )


def _check_poison(model: LoopModel, world: CreateWorld) -> None:
    """Check that each poisoned lead was never created, and has its reason and its next try."""
    assert set(world.poison) & set(model.vendor.store.creations(CAMPAIGN)) == set()
    rows = sql.fetch_rows(
        model.database,
        "SELECT lead_id, status, last_error, next_try_at FROM leadloop.leads"
        " WHERE lead_id = ANY(:ids)",
        ids=sorted(world.poison),
    )
    for row in rows:
        assert row["status"] in ("rejected", "new", "in_doubt"), row
        assert row["last_error"], row
        assert row["status"] == "rejected" or row["next_try_at"] is not None, row
