"""Many processes at once: one budget, no 429, no lead twice, nobody starved."""

from pathlib import Path
from random import Random

import pytest

from db.database import Database
from flows.disable import disable_leads
from leadloop.sandbox import Handle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.fire.conftest import Soak
from tests.fire.processes import Nest, until
from tests.fire.tally import TALLY
from tests.fire.world import World

pytestmark = [pytest.mark.usefixtures("prefect"), pytest.mark.servers]

_PROCESSES = 8
_LOADED_PERIODS = 2
# Long, so that a slow machine has most of a period to spare: what is judged are counts.
_PERIOD_S = 20


@pytest.mark.timeout(0)
def test_eight_processes_share_one_budget(
    database: Database,
    vendor: Handle,
    environment: Path,
    processes: Nest,
    monkeypatch: pytest.MonkeyPatch,
    soak: Soak | None,
) -> None:
    """No sliding window holds more than is allowed, and under load 95 % of it is used."""
    for turn, seed in enumerate(soak.seeds(0.2) if soak else (0,)):
        print(f"race, seed {seed}")
        requests = 100 if seed == 0 else Random(seed).choice((60, 80, 100, 120))
        monkeypatch.setenv("LEADLOOP_RATE_LIMIT", f"{requests}/{_PERIOD_S}")
        World(database=database, vendor=vendor).begin()
        vendor.change(rate_limit=(requests, float(_PERIOD_S)), repeat="second")
        factories.add_campaign(database, batch_size=1)
        race(database, vendor, environment, processes, requests, f"{turn}")


def race(
    database: Database, vendor: Handle, directory: Path, processes: Nest, limit: int, name: str
) -> None:
    """Eight pushes of a backlog that lasts for longer than the stretch that is judged."""
    amount = limit * _LOADED_PERIODS + limit // 2
    ids = [f"{name}-{number}" for number in range(amount)]
    # Each has a number of its own: an opt-out goes by number too.
    rows = [
        factories.build_lead(lead_id, phone_number=factories.build_phone(n))
        for n, lead_id in enumerate(ids)
    ]
    factories.add_leads(database, *rows)
    runs = [processes.start(directory, "push", "--json") for _ in range(_PROCESSES)]
    # When the first period's budget is used up, somebody opts out.
    until(lambda: creates(vendor) >= limit * 9 // 10, "nothing is sent")
    first = next(iter(vendor.books.creations(CAMPAIGN)))
    factories.add_opt_outs(database, first)
    assert disable_leads()["disabled"] == 1
    for run in runs:
        run.wait()
        assert run.last is not None, run.said
    judge(vendor, limit, ids)
    assert sum(run.last["created"] for run in runs) == amount
    assert set(sql.fetch_statuses(database).values()) == {"created"}


def judge(vendor: Handle, limit: int, ids: list[str]) -> None:
    """The vendor's log of requests and its books."""
    entries = vendor.requests
    refused = sum(entry.status == 429 for entry in entries)
    TALLY["429 of our own making"] += refused
    TALLY["requests"] += len(entries)
    TALLY["leads"] += len(ids)
    assert refused == 0
    assert vendor.busiest(_PERIOD_S) <= limit
    assert vendor.books.creations(CAMPAIGN) == dict.fromkeys(ids, 1)
    began = entries[0].arrived
    within = [e for e in entries if e.arrived < began + _PERIOD_S * _LOADED_PERIODS]
    assert len(within) < len(entries), "the load did not last"
    used = len(within) / (limit * _LOADED_PERIODS)
    TALLY["hundredths of the budget used, added up"] += int(used * 100)
    TALLY["races"] += 1
    assert used >= 0.95
    disabled = next(place for place, e in enumerate(entries) if e.kind == "disable")
    assert disabled < limit, "the opt-out has waited behind the backlog"


def creates(vendor: Handle) -> int:
    """How many create requests have arrived."""
    return sum(entry.kind == "create" for entry in vendor.requests)


def test_one_huge_campaign_starves_no_other(
    database: Database, vendor: Handle, environment: Path, processes: Nest
) -> None:
    """The small ones are done long before it, in one run and in several at the same time."""
    vendor.change(repeat="second")
    factories.add_campaign(database, "a huge one", batch_size=2)
    factories.add_leads(database, *(f"H{number}" for number in range(600)), campaign="a huge one")
    small = [f"small {number}" for number in range(4)]
    for campaign in small:
        factories.add_campaign(database, campaign, batch_size=2)
        factories.add_leads(database, *(f"S{number}" for number in range(12)), campaign=campaign)
    for run in [processes.start(environment, "push", "--json") for _ in range(2)]:
        run.wait()
        assert run.last is not None, run.said
    paths = [entry.path for entry in vendor.requests if entry.kind == "create"]
    last = max(place for place, path in enumerate(paths) if "small" in path)
    assert len(paths) >= 300 + 4 * 6
    assert last < len(paths) / 2
    for campaign in (*small, "a huge one"):
        assert set(vendor.books.creations(campaign).values()) == {1}
        assert set(sql.fetch_statuses(database, campaign).values()) == {"created"}
