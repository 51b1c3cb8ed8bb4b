"""Concurrent processes: one rate limit, no 429, no lead twice, no starvation."""

from pathlib import Path
from random import Random

import pytest

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import disable_leads
from tests.resilience.conftest import Soak
from tests.resilience.counters import COUNTERS
from tests.resilience.model import LoopModel
from tests.resilience.processes import ForkServer
from tests.waiting import wait_until

pytestmark = pytest.mark.servers

_PROCESSES = 8
_LOADED_PERIODS = 2
# Long, so that a slow machine has time to spare: the test compares counts.
_PERIOD_S = 20


@pytest.mark.timeout(0)
def test_eight_processes_share_one_rate_limit(
    database: Database,
    vendor: SandboxHandle,
    environment: Path,
    fork_server: ForkServer,
    monkeypatch: pytest.MonkeyPatch,
    soak: Soak | None,
) -> None:
    """No sliding window exceeds the limit, and under load 95 % of what creates may use is used."""
    for turn, seed in enumerate(soak.draw_seeds(0.15) if soak else (0,)):
        print(f"race, seed {seed}")
        requests = 100 if seed == 0 else Random(seed).choice((60, 80, 100, 120))
        monkeypatch.setenv("LEADLOOP_RATE_LIMIT", f"{requests}/{_PERIOD_S}")
        LoopModel(database=database, vendor=vendor).reset()
        vendor.change_rules(rate_limit=(requests, float(_PERIOD_S)), repeat="second")
        factories.add_campaign(database, batch_size=1)
        run_race(database, vendor, environment, fork_server, requests, f"{turn}")


def run_race(
    database: Database,
    vendor: SandboxHandle,
    directory: Path,
    fork_server: ForkServer,
    limit: int,
    name: str,
) -> None:
    """Run eight pushes of a backlog that outlasts the measured periods, and check the result."""
    for_creates = limit - limit // 5 - limit // 10
    amount = for_creates * _LOADED_PERIODS + for_creates // 2
    ids = [f"{name}-{number}" for number in range(amount)]
    # Each lead has its own number: an opt-out applies to the number too. Some are urgent.
    rows = [
        factories.build_lead(lead_id, phone_number=factories.build_phone(n), priority=n % 3)
        for n, lead_id in enumerate(ids)
    ]
    factories.add_leads(database, *rows)
    runs = [fork_server.start_job(directory, "push") for _ in range(_PROCESSES)]
    # Opt out when the first period's requests are used.
    wait_until(lambda: count_create_requests(vendor) >= for_creates * 9 // 10, "no request is sent")
    first = next(iter(vendor.store.creations(CAMPAIGN)))
    factories.add_opt_outs(database, first)
    assert disable_leads()["disabled"] == 1
    for run in runs:
        run.wait()
        assert run.last_json is not None, run.output
    check_race(vendor, limit, for_creates, ids)
    assert sum(run.last_json["created"] for run in runs) == amount
    assert set(sql.fetch_statuses(database).values()) == {"created"}


def check_race(vendor: SandboxHandle, limit: int, for_creates: int, ids: list[str]) -> None:
    """Check the vendor's request log and its leads."""
    entries = vendor.requests
    rejected = sum(entry.status == 429 for entry in entries)
    COUNTERS["429 caused by leadloop"] += rejected
    COUNTERS["requests"] += len(entries)
    COUNTERS["leads"] += len(ids)
    assert rejected == 0
    assert vendor.count_busiest(_PERIOD_S) <= limit
    assert vendor.store.creations(CAMPAIGN) == dict.fromkeys(ids, 1)
    began = entries[0].arrived
    within = [e for e in entries if e.arrived < began + _PERIOD_S * _LOADED_PERIODS]
    assert len(within) < len(entries), "the load did not last"
    used = len(within) / (for_creates * _LOADED_PERIODS)
    COUNTERS["percent of the creates' share used, summed"] += int(used * 100)
    COUNTERS["races"] += 1
    assert used >= 0.95
    disabled = next(place for place, e in enumerate(entries) if e.kind == "disable")
    assert disabled <= for_creates, "the opt-out has waited behind the backlog"


def count_create_requests(vendor: SandboxHandle) -> int:
    """Return the number of create requests that have arrived."""
    return sum(entry.kind == "create" for entry in vendor.requests)


def test_huge_campaign_does_not_starve_others(
    database: Database, vendor: SandboxHandle, environment: Path, fork_server: ForkServer
) -> None:
    """Small campaigns finish long before a huge one, within one run and in concurrent runs."""
    vendor.change_rules(repeat="second")
    factories.add_campaign(database, "a huge one", batch_size=2)
    factories.add_leads(database, *(f"H{number}" for number in range(600)), campaign="a huge one")
    small = [f"small {number}" for number in range(4)]
    for campaign in small:
        factories.add_campaign(database, campaign, batch_size=2)
        factories.add_leads(database, *(f"S{number}" for number in range(12)), campaign=campaign)
    for run in [fork_server.start_job(environment, "push") for _ in range(2)]:
        run.wait()
        assert run.last_json is not None, run.output
    paths = [entry.path for entry in vendor.requests if entry.kind == "create"]
    last = max(place for place, path in enumerate(paths) if "small" in path)
    assert len(paths) >= 300 + 4 * 6
    assert last < len(paths) / 2
    for campaign in (*small, "a huge one"):
        assert set(vendor.store.creations(campaign).values()) == {1}
        assert set(sql.fetch_statuses(database, campaign).values()) == {"created"}
