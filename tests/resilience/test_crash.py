"""Crashes: a process dies or loses its database at any moment, and the next run recovers."""

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from db.database import Database
from db.suspects import MAX_LONE_FAILURES
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import JOBS, disable_leads, poll_outcomes, push_leads, sync_leads
from tests.resilience import invariants
from tests.resilience.conftest import Soak
from tests.resilience.counters import COUNTERS
from tests.resilience.model import LoopModel
from tests.resilience.pause_points import PausePoint, Request, Statement
from tests.resilience.processes import ForkServer, LeadloopProcess
from tests.resilience.strategies import create_lead
from tests.waiting import wait_until

pytestmark = [pytest.mark.usefixtures("quick_retries"), pytest.mark.servers]


def lead_becomes(status: str, *, at_commit: bool = False) -> Statement:
    """Return the pause point at which a lead's status changes."""
    return Statement(
        change="UPDATE",
        table="leads",
        when=f"NEW.status = '{status}' AND OLD.status <> '{status}'",
        at_commit=at_commit,
    )


def opt_out_becomes(status: str, *, at_commit: bool = False) -> Statement:
    """Return the pause point at which an opt-out's status changes."""
    return Statement(
        change="UPDATE",
        table="disable_requests",
        when=f"NEW.status = '{status}'",
        at_commit=at_commit,
    )


RUN_OPENED = Statement(change="INSERT", table="sync_runs", at_commit=True)
RUN_FINISHES = Statement(
    change="UPDATE",
    table="sync_runs",
    when="NEW.state = 'completed' AND NEW.campaign_id <> ''",
)
DUE_RUNS_OPEN = Statement(change="INSERT", table="sync_runs", when="NEW.campaign_id <> ''")
# Then two rows are open: the covering one, and that of the campaign.
COVERING_CLOSES = Statement(change="UPDATE", table="sync_runs", when="NEW.campaign_id = ''")
SLOT_RESERVED = Statement(change="UPDATE", table="rate_slots")

PUSH: dict[str, PausePoint] = {
    "opens the run": RUN_OPENED,
    "opens the runs of due campaigns": DUE_RUNS_OPEN,
    "closes the covering row": COVERING_CLOSES,
    "reserves a slot": SLOT_RESERVED,
    "claims": lead_becomes("sending"),
    "has claimed": lead_becomes("sending", at_commit=True),
    "cancels": lead_becomes("cancelled"),
    "rejects": lead_becomes("rejected"),
    "sends": Request(route="create", nth=3),
    "has sent": Request(route="create", when="after", nth=3),
    "gets the response": Request(route="create", kind="slow", when="after", nth=2),
    "records": lead_becomes("created"),
    "has recorded": lead_becomes("created", at_commit=True),
    "finishes": RUN_FINISHES,
}
POLL: dict[str, PausePoint] = {
    "opens the run": RUN_OPENED,
    "creates the watermark": Statement(change="INSERT", table="watermarks"),
    "sends": Request(route="responses", nth=3),
    "stores": Statement(change="INSERT", table="lead_outcomes"),
    "stores attempts": Statement(change="INSERT", table="outreach_attempts"),
    "has stored": Statement(change="INSERT", table="lead_outcomes", at_commit=True),
    "moves the watermark": Statement(change="UPDATE", table="watermarks"),
    "writes the window": Statement(change="INSERT", table="poll_windows"),
    "has written the window": Statement(change="INSERT", table="poll_windows", at_commit=True),
    "finishes": RUN_FINISHES,
}
DISABLE: dict[str, PausePoint] = {
    "cancels": opt_out_becomes("cancelled"),
    "sends": Request(route="disable"),
    "has sent": Request(route="disable", when="after"),
    "confirms": opt_out_becomes("disabled"),
    "has confirmed": opt_out_becomes("disabled", at_commit=True),
}


def list_pause_points() -> list[Any]:
    """Return each command with each of its pause points."""
    tables = {"push": PUSH, "poll": POLL, "disable": DISABLE}
    return [
        pytest.param(command, point, id=f"{command} {name}")
        for command, table in tables.items()
        for name, point in table.items()
    ]


@pytest.fixture
def model(database: Database, vendor: SandboxHandle, environment: Path) -> LoopModel:
    """Return the model of a campaign with one created lead, the probe of the vendor."""
    model = LoopModel(database=database, vendor=vendor)
    # A vendor that rejects duplicates would hide that a lead was sent twice.
    vendor.change_rules(repeat="second")
    factories.add_campaign(database, batch_size=2, page_size=2)
    add_leads(model, "probe")
    push_leads()
    return model


def add_leads(model: LoopModel, *ids: str, shape: str = "plain", priority: int = 0) -> None:
    """Insert leads as upstream does, each with its own phone number."""
    for lead_id in ids:
        phone = factories.build_phone(1000 + len(model.leads))
        lead = create_lead(shape, lead_id, phone, newer_limits=False, priority=priority)
        model.insert_lead(lead)


def prepare_work(model: LoopModel, command: str) -> None:
    """Insert work for every step of a command."""
    add_leads(model, "a", "b", "c", "d", "e", "f")
    if command == "push":
        add_leads(model, "bad", shape="phone")
        add_leads(model, "opted out", "g")
        add_leads(model, "h", priority=1)
        model.opt_out("opted out")
        return
    push_leads()
    if command == "poll":
        for lead_id in "abcdef":
            model.process_lead(lead_id, back_s=0)
    else:
        add_leads(model, "unsent")
        for lead_id in ("unsent", "a", "b", "c"):
            model.opt_out(lead_id)


def fetch_run_states(model: LoopModel) -> list[str]:
    """Return the states of the runs, oldest first."""
    found = sql.fetch_rows(model.database, "SELECT state FROM leadloop.sync_runs ORDER BY run_id")
    return [row["state"] for row in found]


def check_invariants(model: LoopModel) -> None:
    """Check every invariant; unlike `check_runs_finished`, a run may have crashed."""
    for check in invariants.INVARIANTS:
        if check is not invariants.check_runs_finished:
            check(model)
    assert "running" not in fetch_run_states(model)


def finish_and_check(model: LoopModel) -> None:
    """Run each flow once, then check that nothing is left, missing or twice."""
    disable_leads()
    push_leads()
    model.run_poll(poll_outcomes)
    check_invariants(model)
    invariants.check_all_settled(model)
    model.count_requests()


def run_next(model: LoopModel, command: str) -> None:
    """Run the command once more."""
    if command in ("poll", "sync"):
        assert model.run_poll(JOBS[command])
    else:
        JOBS[command]()


def kill_at(
    model: LoopModel, server: ForkServer, directory: Path, command: str, point: PausePoint
) -> None:
    """Run a command in a process, and kill it at a pause point."""
    with point.install(model.database, model.vendor) as pause:
        process = server.start_job(directory, command)
        pause.wait()
        process.kill()
    sql.wait_for_run_locks(model.database, 0)


@pytest.mark.parametrize(("command", "point"), list_pause_points())
def test_next_run_recovers_from_a_kill(
    model: LoopModel, fork_server: ForkServer, tmp_path: Path, command: str, point: PausePoint
) -> None:
    """After a kill at any pause point, the next run leaves nothing undone and nothing twice."""
    prepare_work(model, command)
    kill_at(model, fork_server, tmp_path, command, point)
    run_next(model, command)
    check_invariants(model)
    left = {"new", "sending", "in_doubt"} & set(sql.fetch_statuses(model.database).values())
    assert left == set(), "the next run has left a lead undecided"
    if point is not RUN_OPENED:
        crashed = 2 if point is COVERING_CLOSES else 1
        assert fetch_run_states(model).count("crashed") == crashed
    invariants.check_all_settled(model)
    model.count_requests()


def test_a_kill_with_few_of_many_campaigns_due(
    model: LoopModel, fork_server: ForkServer, tmp_path: Path
) -> None:
    """The rows of the due ones crash, all by the end of one lock; what was sent is found."""
    for number in range(49):
        factories.add_campaign(model.database, f"idle-{number}")
    due = ["idle-7", "idle-8"]
    for campaign in due:
        factories.add_leads(model.database, "x", campaign=campaign)
    prepare_work(model, "push")
    kill_at(model, fork_server, tmp_path, "push", Request(route="create", when="after", nth=1))
    push_leads()
    check_invariants(model)
    invariants.check_all_settled(model)
    found = sql.fetch_rows(
        model.database,
        "SELECT campaign_id FROM leadloop.sync_runs WHERE state = 'crashed' ORDER BY run_id",
    )
    assert [row["campaign_id"] for row in found] == [factories.CAMPAIGN, *due]
    for campaign in due:
        assert sql.fetch_statuses(model.database, campaign) == {"x": "created"}
        assert model.vendor.store.creations(campaign) == {"x": 1}


ISOLATION: dict[str, PausePoint] = {
    "suspects": Statement(
        change="UPDATE",
        table="leads",
        when="NEW.suspect_list IS DISTINCT FROM OLD.suspect_list AND NEW.status = 'sending'",
    ),
    "records the failure": Statement(
        change="UPDATE",
        table="campaigns",
        when="NEW.create_failed_at IS DISTINCT FROM OLD.create_failed_at",
    ),
    "puts in doubt": lead_becomes("in_doubt"),
    "has put in doubt": lead_becomes("in_doubt", at_commit=True),
    "proves absent": Statement(
        change="UPDATE", table="leads", when="NEW.status = 'new' AND OLD.status = 'in_doubt'"
    ),
    "claims a half": Statement(
        change="UPDATE",
        table="leads",
        when="NEW.status = 'sending' AND OLD.suspect_list IS NOT NULL",
    ),
    "has claimed a half": Statement(
        change="UPDATE",
        table="leads",
        when="NEW.status = 'sending' AND OLD.suspect_list IS NOT NULL",
        at_commit=True,
    ),
    "records a half": Statement(
        change="UPDATE",
        table="leads",
        when="NEW.status = 'created' AND OLD.suspect_list IS NOT NULL",
    ),
    "rejects": lead_becomes("rejected"),
    "has rejected": lead_becomes("rejected", at_commit=True),
}
# A listing of seven pages, for twelve leads in doubt.
LISTING: dict[str, PausePoint] = {
    "counts": Request(route="responses", nth=1),
    "lists": Request(route="responses", nth=4),
    "finds": lead_becomes("created"),
    "has found": lead_becomes("created", at_commit=True),
}


def reach_due_times(model: LoopModel) -> None:
    """Let the time pass until every suspect and every lookup is due."""
    for due in (
        "next_try_at = now() WHERE next_try_at IS NOT NULL",
        "looked_up_at = NULL WHERE status = 'in_doubt'",
    ):
        sql.execute(model.database, f"UPDATE leadloop.leads SET {due}")


def push_until_settled(model: LoopModel) -> None:
    """Push until no lead waits, at most as often as an isolation takes."""
    for _ in range(2 + 1 + MAX_LONE_FAILURES):
        reach_due_times(model)
        model.run_flow(push_leads)
        check_invariants(model)
        if not {"new", "in_doubt"} & set(sql.fetch_statuses(model.database).values()):
            return


_IS_REJECTED_NEXT = f"""
SELECT FROM leadloop.leads WHERE status = 'in_doubt' AND lone_failures = {MAX_LONE_FAILURES}
"""


# In the second order, the last good lead is created alone, beside the bad one.
_ORDERS = dict.fromkeys(ISOLATION, ("a", "b", "bad", "c", "d", "e"))
_CASES = [*_ORDERS.items(), ("records a half", ("a", "b", "c", "d", "bad", "e"))]


@pytest.mark.parametrize(("kill", "order"), _CASES, ids=lambda case: "".join(case))
def test_next_runs_go_on_with_an_isolation(
    model: LoopModel,
    fork_server: ForkServer,
    tmp_path: Path,
    kill: str,
    order: tuple[str, ...],
) -> None:
    """After a kill in its midst, all others are created, once, and the bad lead is found."""
    point = ISOLATION[kill]
    add_leads(model, *order)
    model.vendor.add_fault(route="create", kind="status", status=500, lead_id="bad")
    if point in (ISOLATION["rejects"], ISOLATION["has rejected"]):
        # One run does not try a lone lead so often.
        while not sql.fetch_rows(model.database, _IS_REJECTED_NEXT):
            push_leads()
            reach_due_times(model)
    kill_at(model, fork_server, tmp_path, "push", point)
    push_until_settled(model)
    assert sql.fetch_statuses(model.database) == {
        **dict.fromkeys(("probe", "a", "b", "c", "d", "e"), "created"),
        "bad": "rejected",
    }
    assert "bad" not in model.vendor.store.creations(CAMPAIGN)


@pytest.mark.parametrize("point", LISTING.values(), ids=list(LISTING))
def test_next_run_lists_again(
    model: LoopModel, fork_server: ForkServer, tmp_path: Path, point: PausePoint
) -> None:
    """After a kill during the listing of many leads in doubt, each of them is settled."""
    leads = [f"L{number}" for number in range(12)]
    add_leads(model, *leads)
    push_leads()
    sql.execute(
        model.database,
        "UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - interval '1 minute'"
        " WHERE lead_id <> 'probe'",
    )
    kill_at(model, fork_server, tmp_path, "push", point)
    push_until_settled(model)
    assert set(sql.fetch_statuses(model.database).values()) == {"created"}
    assert set(model.vendor.store.creations(CAMPAIGN).values()) == {1}


@pytest.mark.parametrize(
    "point",
    [PUSH[name] for name in ("claims", "has claimed", "records", "has recorded", "rejects")],
    ids=["claims", "has claimed", "records", "has recorded", "rejects"],
)
def test_statement_outlives_its_process(
    model: LoopModel, fork_server: ForkServer, tmp_path: Path, point: PausePoint
) -> None:
    """Postgres executes a dead process's statement while the next run works: nothing breaks."""
    prepare_work(model, "push")
    with point.install(model.database, model.vendor) as pause:
        process = fork_server.start_job(tmp_path, "push")
        pause.wait()
        process.kill()
        following = fork_server.start_job(tmp_path, "push")
        wait_until(
            lambda: count_blocked(model) > 1 or not following.is_alive, "the next run does nothing"
        )
        pause.release()
        following.wait()
    assert following.last_json is not None, following.output
    check_invariants(model)
    finish_and_check(model)


def count_blocked(model: LoopModel) -> int:
    """Return the number of connections that wait for a lock."""
    query = """SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    count: int = sql.fetch_value(model.database, query)
    return count


def fetch_backends(model: LoopModel) -> set[int]:
    """Return the process ids of all connections to the test's database."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    return {row["pid"] for row in sql.fetch_rows(model.database, query)}


def cut_connections(model: LoopModel, pids: set[int]) -> None:
    """Terminate connections, as an operator or a failover does, and wait for their end."""
    COUNTERS["connections cut"] += len(pids)
    for pid in pids:
        sql.fetch_value(model.database, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(("push", name) for name in ("claims", "has claimed", "records", "rejects", "finishes")),
        *(("poll", name) for name in ("stores", "moves the watermark", "has written the window")),
        ("disable", "confirms"),
    ],
)
def test_run_loses_its_connections_in_a_statement(
    model: LoopModel, fork_server: ForkServer, tmp_path: Path, command: str, name: str
) -> None:
    """The run continues or fails; it does nothing twice, and the next run completes the work."""
    prepare_work(model, command)
    point = {"push": PUSH, "poll": POLL, "disable": DISABLE}[command][name]
    ours = fetch_backends(model)
    with point.install(model.database, model.vendor) as pause:
        process = fork_server.start_job(tmp_path, command)
        pause.wait()
        holder = sql.fetch_value(
            model.database, "SELECT pid FROM pg_locks WHERE objid = 4711 AND granted"
        )
        cut_connections(model, fetch_backends(model) - ours - {holder})
        pause.release()
        process.wait()
    assert "Traceback" not in process.output
    run_next(model, command)
    finish_and_check(model)


@pytest.mark.parametrize("lost", ["run lock", "all connections"])
def test_run_presumed_dead_sends_nothing_more(
    model: LoopModel, fork_server: ForkServer, tmp_path: Path, lost: str
) -> None:
    """A run whose connections are cut during a request stops once another run has started."""
    add_leads(model, *"abcdefgh")
    ours = fetch_backends(model)
    slow = Request(route="create", kind="slow", when="after", nth=1, seconds=12)
    with slow.install(model.database, model.vendor) as pause:
        process = fork_server.start_job(tmp_path, "push", LEADLOOP_CONCURRENCY="1")
        pause.wait()
        theirs = fetch_backends(model) - ours
        cut_connections(
            model,
            theirs if lost == "all connections" else theirs & sql.fetch_run_locks(model.database),
        )
        push_leads()
        assert process.is_alive, "the run ended before the other run"
        add_leads(model, "later", "latest")
        sent = count_create_requests(model.vendor)
        process.wait()
    assert count_create_requests(model.vendor) == sent, (
        "the run has sent a request after it was presumed dead"
    )
    # Without any connection, the run may notice the cut first.
    expected = (
        "declared it dead",
        *(["the connection was cut"] if lost == "all connections" else []),
    )
    assert any(text in process.output for text in expected)
    assert fetch_run_states(model).count("crashed") == 1
    assert {sql.fetch_statuses(model.database)[key] for key in ("later", "latest")} == {"new"}
    check_invariants(model)
    finish_and_check(model)


def count_create_requests(vendor: SandboxHandle) -> int:
    """Return the number of create requests that have arrived."""
    return sum(entry.kind == "create" for entry in vendor.requests)


def test_orphaned_run_and_another_send_nothing_twice(
    model: LoopModel, environment: Path, prefect: str
) -> None:
    """A run outlives its killed parent and sends while another run starts."""
    add_leads(model, *"abcdefgh")
    slow = Request(route="create", kind="slow", when="after", nth=1, seconds=12)
    leadloop = Path(sys.executable).with_name("leadloop")
    with slow.install(model.database, model.vendor) as pause:
        worker = subprocess.Popen(
            ["sh", "-c", f"{leadloop} push --json & echo $!; wait"],
            env={**os.environ, "PREFECT_API_URL": prefect, "LEADLOOP_CONCURRENCY": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=environment,
        )
        assert worker.stdout is not None
        orphan = LeadloopProcess(
            pid=int(worker.stdout.readline()), out=Path(os.devnull), err=Path(os.devnull)
        )
        pause.wait()
        worker.kill()
        worker.wait()
        COUNTERS["kills"] += 1
        push_leads()
        assert orphan.is_alive, "the orphan ended before the other run"
        orphan.wait()
        worker.stdout.close()
    assert set(fetch_run_states(model)) == {"completed"}
    check_invariants(model)
    finish_and_check(model)


_ROUNDS = 4


@pytest.mark.timeout(0)
def test_kills_at_random_moments(
    model: LoopModel, fork_server: ForkServer, tmp_path: Path, soak: Soak | None
) -> None:
    """After concurrent runs with kills and cuts at random moments, each lead is there once."""
    for seed in soak.draw_seeds(0.2) if soak else (20_261_124,):
        print(f"kills at random moments, seed {seed}")
        random = Random(seed)
        sql.execute(model.database, "UPDATE leadloop.campaigns SET settle_s = 1")
        model.settle_s = 1
        for number in range(_ROUNDS):
            run_round(model, fork_server, tmp_path, random, f"{seed}-{number}")
        settle_and_check(model)


def run_round(
    model: LoopModel, fork_server: ForkServer, directory: Path, random: Random, name: str
) -> None:
    """Insert work, start some runs, then kill each run or cut its connections."""
    add_leads(model, *(f"{name}-{number}" for number in range(random.randrange(10, 40))))
    for lead_id in random.sample(sorted(set(model.leads) - model.opted_out), 3):
        model.opt_out(lead_id)
    waiting = [lead.lead_id for lead in model.vendor.store.leads(CAMPAIGN) if lead.awaits_outcome]
    for lead_id in waiting[: random.randrange(20)]:
        model.process_lead(lead_id, back_s=0)
    model.vendor.add_fault(
        route="any", kind="slow", probability=0.7, seconds=0.2 + random.random() / 2
    )
    model.vendor.add_fault(
        route="any", kind="reset", when=random.choice(("before", "after")), nth=9
    )
    before = len(fetch_run_states(model))
    commands = random.choices(["push", "push", "sync", "poll", "disable"], k=random.randrange(1, 4))
    runs = [fork_server.start_command(directory, command, "--json") for command in commands]
    wait_until(
        lambda: len(fetch_run_states(model)) > before or not any(run.is_alive for run in runs),
        "no run has started",
    )
    for run in runs:
        time.sleep(random.random() * 0.6)
        _kill_or_cut(model, run, random)
    model.vendor.clear_faults()


def _kill_or_cut(model: LoopModel, run: LeadloopProcess, random: Random) -> None:
    if random.random() < 0.75:
        run.kill()
    else:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'leadloop'"
        query += " AND datname = current_database() AND pid <> pg_backend_pid()"
        found = sorted(row["pid"] for row in sql.fetch_rows(model.database, query))
        cut_connections(model, set(random.sample(found, len(found) // 2)))
        run.wait()


def settle_and_check(model: LoopModel) -> None:
    """Run syncs until nothing is left, then check the final state."""
    undecided = {"new", "sending", "in_doubt"}
    for _ in range(4):
        model.wait_to_settle()
        assert model.run_poll(sync_leads)
        if not undecided & set(sql.fetch_statuses(model.database).values()):
            break
    check_invariants(model)
    invariants.check_all_settled(model)
    model.count_requests()
