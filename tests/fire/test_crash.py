"""Processes that die, or lose their database, at any moment: the next run makes up for it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from db.database import Database
from flows.disable import disable_leads
from flows.poll import poll_outcomes
from flows.push import push_leads
from flows.sync import sync_leads
from leadloop.sandbox import Handle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.fire import judge
from tests.fire.conftest import Soak
from tests.fire.drawn import given
from tests.fire.holds import Boundary, Request, Statement
from tests.fire.processes import Nest, Process, until
from tests.fire.tally import TALLY
from tests.fire.world import World

pytestmark = [pytest.mark.usefixtures("quick_retries"), pytest.mark.servers]

_FLOWS: dict[str, Callable[..., dict[str, Any]]] = {
    "push": push_leads,
    "poll": poll_outcomes,
    "disable": disable_leads,
    "sync": sync_leads,
}


def lead_becomes(status: str, *, at_commit: bool = False) -> Statement:
    """The moment at which a lead's status changes."""
    return Statement(
        change="UPDATE",
        table="leads",
        when=f"NEW.status = '{status}' AND OLD.status <> '{status}'",
        at_commit=at_commit,
    )


def opt_out_becomes(status: str, *, at_commit: bool = False) -> Statement:
    """The moment at which an opt-out's status changes."""
    return Statement(
        change="UPDATE",
        table="disable_requests",
        when=f"NEW.status = '{status}'",
        at_commit=at_commit,
    )


RUN_IS_OPEN = Statement(change="INSERT", table="sync_runs", at_commit=True)
RUN_ENDS = Statement(change="UPDATE", table="sync_runs", when="NEW.state = 'completed'")
TURN = Statement(change="UPDATE", table="rate_slots")

PUSH: dict[str, Boundary] = {
    "is open": RUN_IS_OPEN,
    "takes a turn": TURN,
    "claims": lead_becomes("sending"),
    "has claimed": lead_becomes("sending", at_commit=True),
    "cancels": lead_becomes("cancelled"),
    "rejects": lead_becomes("rejected"),
    "sends": Request(route="create", nth=3),
    "has sent": Request(route="create", when="after", nth=3),
    "hears": Request(route="create", kind="slow", when="after", nth=2),
    "records": lead_becomes("created"),
    "has recorded": lead_becomes("created", at_commit=True),
    "ends": RUN_ENDS,
}
POLL: dict[str, Boundary] = {
    "begins": RUN_IS_OPEN,
    "starts a watermark": Statement(change="INSERT", table="watermarks"),
    "asks": Request(route="responses", nth=3),
    "stores": Statement(change="INSERT", table="lead_outcomes"),
    "stores attempts": Statement(change="INSERT", table="outreach_attempts"),
    "has stored": Statement(change="INSERT", table="lead_outcomes", at_commit=True),
    "moves the watermark": Statement(change="UPDATE", table="watermarks"),
    "writes the window": Statement(change="INSERT", table="poll_windows"),
    "has written the window": Statement(change="INSERT", table="poll_windows", at_commit=True),
    "ends": RUN_ENDS,
}
DISABLE: dict[str, Boundary] = {
    "cancels": opt_out_becomes("cancelled"),
    "asks": Request(route="disable"),
    "has asked": Request(route="disable", when="after"),
    "confirms": opt_out_becomes("disabled"),
    "has confirmed": opt_out_becomes("disabled", at_commit=True),
}


def boundaries() -> list[Any]:
    """Each command at each of its boundaries."""
    tables = {"push": PUSH, "poll": POLL, "disable": DISABLE}
    return [
        pytest.param(command, boundary, id=f"{command} {name}")
        for command, table in tables.items()
        for name, boundary in table.items()
    ]


@pytest.fixture
def world(database: Database, vendor: Handle, environment: Path) -> World:
    """A campaign with one lead that the vendor has: by it the vendor's habits can be told."""
    world = World(database=database, vendor=vendor)
    # A vendor that refuses what it has already would hide what was sent twice.
    vendor.change(repeat="second")
    factories.add_campaign(database, batch_size=2, page_size=2)
    add(world, "specimen")
    push_leads()
    return world


def add(world: World, *ids: str, shape: str = "plain") -> None:
    """Leads as upstream inserts them, each with a number of its own."""
    for lead_id in ids:
        phone = factories.build_phone(1000 + len(world.leads))
        world.insert(given(shape, lead_id, phone, newer_limits=False))


def prepare(world: World, command: str) -> None:
    """Work for a command: for each of its steps some."""
    add(world, "a", "b", "c", "d", "e", "f")
    if command == "push":
        add(world, "bad", shape="phone")
        add(world, "opted out", "g", "h")
        world.opt_out("opted out")
        return
    push_leads()
    if command == "poll":
        for lead_id in "abcdef":
            world.process(lead_id, back_s=0)
    else:
        add(world, "unsent")
        for lead_id in ("unsent", "a", "b", "c"):
            world.opt_out(lead_id)


def states(world: World) -> list[str]:
    """How the runs ended, the oldest first."""
    found = sql.fetch_rows(world.database, "SELECT state FROM leadloop.sync_runs ORDER BY run_id")
    return [row["state"] for row in found]


def require_true(world: World) -> None:
    """Both sides' books agree."""
    for holds in judge.INVARIANTS:
        if holds is not judge.runs_are_over:
            holds(world)
    assert "running" not in states(world)


def require_all_done(world: World) -> None:
    """Whatever is left to do is done by each flow once, and nothing is missing or twice."""
    disable_leads()
    push_leads()
    world.read(poll_outcomes)
    require_true(world)
    judge.all_settled(world)
    world.end()


def next_run(world: World, command: str) -> None:
    """One run of the same command."""
    if command in ("poll", "sync"):
        assert world.read(_FLOWS[command])
    else:
        _FLOWS[command]()


@pytest.mark.parametrize(("command", "boundary"), boundaries())
def test_a_killed_process_is_made_up_for_by_the_next_run(
    world: World, processes: Nest, tmp_path: Path, command: str, boundary: Boundary
) -> None:
    """Killed at any boundary: the next run, at once, leaves nothing undone and nothing twice."""
    prepare(world, command)
    with boundary.set(world.database, world.vendor) as hold:
        process = processes.start(tmp_path, command, "--json")
        hold.wait()
        process.kill()
    next_run(world, command)
    require_true(world)
    left = {"new", "sending", "in_doubt"} & set(sql.fetch_statuses(world.database).values())
    assert left == set(), "the next run has left something undecided"
    if boundary is not RUN_IS_OPEN:
        assert states(world).count("crashed") == 1
    judge.all_settled(world)
    world.end()


@pytest.mark.parametrize(
    "boundary",
    [PUSH[name] for name in ("claims", "has claimed", "records", "has recorded", "rejects")],
    ids=["claims", "has claimed", "records", "has recorded", "rejects"],
)
def test_a_statement_that_outlives_its_process_changes_nothing_for_the_worse(
    world: World, processes: Nest, tmp_path: Path, boundary: Boundary
) -> None:
    """Postgres carries out what a dead process had asked, while the next run is at work."""
    prepare(world, "push")
    with boundary.set(world.database, world.vendor) as hold:
        process = processes.start(tmp_path, "push", "--json")
        hold.wait()
        process.kill()
        following = processes.start(tmp_path, "push", "--json")
        until(lambda: blocked(world) > 1 or not following.alive, "the next run does nothing")
        hold.release()
        following.wait()
    assert following.last is not None, following.said
    require_true(world)
    require_all_done(world)


def blocked(world: World) -> int:
    """How many connections wait for a lock."""
    query = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    count: int = sql.fetch_value(world.database, query)
    return count


def backends(world: World) -> set[int]:
    """Every connection to this test's database."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    return {row["pid"] for row in sql.fetch_rows(world.database, query)}


def cut(world: World, pids: set[int]) -> None:
    """End connections, as an operator or a failover does; return when they are gone."""
    TALLY["connections cut"] += len(pids)
    for pid in pids:
        sql.fetch_value(world.database, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(("push", name) for name in ("claims", "has claimed", "records", "rejects", "ends")),
        *(("poll", name) for name in ("stores", "moves the watermark", "has written the window")),
        ("disable", "confirms"),
    ],
)
def test_a_run_that_loses_its_connections_in_a_statement(
    world: World, processes: Nest, tmp_path: Path, command: str, name: str
) -> None:
    """It goes on or fails, as it can; it does nothing twice, and the next run misses nothing."""
    prepare(world, command)
    boundary = {"push": PUSH, "poll": POLL, "disable": DISABLE}[command][name]
    ours = backends(world)
    with boundary.set(world.database, world.vendor) as hold:
        process = processes.start(tmp_path, command, "--json")
        hold.wait()
        holder = sql.fetch_value(
            world.database, "SELECT pid FROM pg_locks WHERE objid = 4711 AND granted"
        )
        cut(world, backends(world) - ours - {holder})
        hold.release()
        process.wait()
    assert "Traceback" not in process.said
    next_run(world, command)
    require_all_done(world)


@pytest.mark.parametrize("lost", ["its sign of life", "all connections"])
def test_a_run_that_was_taken_for_dead_sends_nothing_more(
    world: World, processes: Nest, tmp_path: Path, lost: str
) -> None:
    """Its connections are cut while a request is on its way, and another run begins: it stops."""
    add(world, *"abcdefgh")
    ours = backends(world)
    slow = Request(route="create", kind="slow", when="after", nth=1, seconds=12)
    with slow.set(world.database, world.vendor) as hold:
        process = processes.start(tmp_path, "push", "--json", LEADLOOP_CONCURRENCY="1")
        hold.wait()
        theirs = backends(world) - ours
        cut(world, theirs if lost == "all connections" else theirs & lifelines(world))
        push_leads()
        assert process.alive, "it was to hear of its request after the other run"
        add(world, "later", "latest")
        sent = creates(world.vendor)
        process.wait()
    assert creates(world.vendor) == sent, "it has sent something after it was taken for dead"
    # With all of them gone it may notice before it is told.
    told = ("taken for dead", *(["the connection was cut"] if lost == "all connections" else []))
    assert any(words in process.said for words in told)
    assert states(world).count("crashed") == 1
    assert {sql.fetch_statuses(world.database)[key] for key in ("later", "latest")} == {"new"}
    require_true(world)
    require_all_done(world)


def lifelines(world: World) -> set[int]:
    """The connections whose locks say that a run lives."""
    query = """SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
                WHERE locktype = 'advisory' AND datname = current_database()"""
    return {row["pid"] for row in sql.fetch_rows(world.database, query)}


def creates(vendor: Handle) -> int:
    """How many create requests have arrived."""
    return sum(entry.kind == "create" for entry in vendor.requests)


def test_an_orphan_and_another_run_send_nothing_twice(
    world: World, environment: Path, prefect: str
) -> None:
    """Whoever started a run is killed, the run lives on and sends; another one begins meanwhile."""
    add(world, *"abcdefgh")
    slow = Request(route="create", kind="slow", when="after", nth=1, seconds=12)
    leadloop = Path(sys.executable).with_name("leadloop")
    with slow.set(world.database, world.vendor) as hold:
        worker = subprocess.Popen(
            ["sh", "-c", f"{leadloop} push --json & echo $!; wait"],
            env={**os.environ, "PREFECT_API_URL": prefect, "LEADLOOP_CONCURRENCY": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=environment,
        )
        assert worker.stdout is not None
        orphan = Process(
            pid=int(worker.stdout.readline()), out=Path(os.devnull), err=Path(os.devnull)
        )
        hold.wait()
        worker.kill()
        worker.wait()
        TALLY["kills"] += 1
        push_leads()
        assert orphan.alive, "the orphan was to be at work while the other run was"
        orphan.wait()
        worker.stdout.close()
    assert set(states(world)) == {"completed"}
    require_true(world)
    require_all_done(world)


_ROUNDS = 4


@pytest.mark.timeout(0)
def test_kills_at_random_moments(
    world: World, processes: Nest, tmp_path: Path, soak: Soak | None
) -> None:
    """Several runs at once, killed or cut off whenever: in the end everything is there, once."""
    for seed in soak.seeds(0.35) if soak else (20_261_124,):
        print(f"kills at random moments, seed {seed}")
        luck = Random(seed)
        sql.execute(world.database, "UPDATE leadloop.campaigns SET settle_s = 1")
        world.settle_s = 1
        for number in range(_ROUNDS):
            a_round(world, processes, tmp_path, luck, f"{seed}-{number}")
        end_well(world)


def a_round(world: World, processes: Nest, directory: Path, luck: Random, name: str) -> None:
    """Work comes in, some runs begin, and each of them comes to its end, mostly a bad one."""
    add(world, *(f"{name}-{number}" for number in range(luck.randrange(10, 40))))
    for lead_id in luck.sample(sorted(set(world.leads) - world.opted_out), 3):
        world.opt_out(lead_id)
    waiting = [lead.lead_id for lead in world.vendor.books.leads(CAMPAIGN) if lead.waits]
    for lead_id in waiting[: luck.randrange(20)]:
        world.process(lead_id, back_s=0)
    world.vendor.fault(route="any", kind="slow", probability=0.7, seconds=0.2 + luck.random() / 2)
    world.vendor.fault(route="any", kind="reset", when=luck.choice(("before", "after")), nth=9)
    before = len(states(world))
    commands = luck.choices(["push", "push", "sync", "poll", "disable"], k=luck.randrange(1, 4))
    runs = [processes.start(directory, command, "--json") for command in commands]
    until(lambda: len(states(world)) > before or not any(run.alive for run in runs), "no run")
    for run in runs:
        _after(luck.random() * 0.6)
        _strike(world, run, luck)
    world.vendor.clear_faults()


def _after(seconds: float) -> None:
    subprocess.run(["sleep", str(seconds)], check=True)


def _strike(world: World, run: Process, luck: Random) -> None:
    if luck.random() < 0.75:
        run.kill()
    else:
        luckless = "SELECT pid FROM pg_stat_activity WHERE application_name = 'leadloop'"
        luckless += " AND datname = current_database() AND pid <> pg_backend_pid()"
        found = sorted(row["pid"] for row in sql.fetch_rows(world.database, luckless))
        cut(world, set(luck.sample(found, len(found) // 2)))
        run.wait()


def end_well(world: World) -> None:
    """What the runs have left is done by the next ones."""
    undecided = {"new", "sending", "in_doubt"}
    for _ in range(4):
        world.pass_time()
        assert world.read(sync_leads)
        if not undecided & set(sql.fetch_statuses(world.database).values()):
            break
    require_true(world)
    judge.all_settled(world)
    world.end()
