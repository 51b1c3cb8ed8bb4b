"""From a fresh clone to a scheduled run: the README's commands on a real Prefect server."""

import json
import logging
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml
from sqlalchemy import make_url

from db import schema
from db.database import Database
from db.live_places import PLACES
from leadloop.deployments import LIVE_QUEUE, WORK_POOL
from leadloop.sandbox import Rules, SandboxHandle, run_sandbox
from tests import factories, sql
from tests.conftest import new_database
from tests.factories import CAMPAIGN
from tests.local.conftest import free_port, require_closed

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

T = TypeVar("T")

_CHECKOUT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_TIMEOUT_S = 180.0


@dataclass(frozen=True, kw_only=True)
class TeamServer:
    """A Prefect server that was started as the README says, and the environment of its users."""

    page: str
    home: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Team:
    """A team's Prefect server, the environment of its shells, its Postgres and the vendor."""

    server: TeamServer
    environment: Mapping[str, str]
    database: Database
    vendor: SandboxHandle
    directory: Path
    since: datetime

    def run_command(self, command: str) -> str:
        """Run a command in a shell of the checkout; fail if it fails. Return its output."""
        done = subprocess.run(
            _split_command(command),
            cwd=_CHECKOUT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def run_worker(self, **more: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the README's worker for the block; `more` changes its environment, "" removes."""
        environment = {**self.environment, "PREFECT_WORKER_QUERY_SECONDS": "2", **more}
        kept = {name: text for name, text in environment.items() if text}
        log = self.directory / "worker.log"
        with _run_process(_readme_commands()[-1], kept, log) as process:
            yield process

    def deploy(self) -> None:
        """Deploy prefect.yaml without its schedules, unless an earlier test has."""
        if not self.ask("POST", "deployments/filter", {}):
            self.run_command("make deploy")
        self.pause_schedules()
        # The run of live-leads that the deploy has started.
        for run in self.find_runs("live-leads", "SCHEDULED"):
            self.ask("DELETE", f"flow_runs/{run['id']}")

    def pause_schedules(self) -> None:
        """Pause every deployment, and remove its scheduled runs."""
        for deployment in self.ask("POST", "deployments/filter", {}):
            self.ask("POST", f"deployments/{deployment['id']}/pause_deployment")

    def start_run(self, deployment: str) -> None:
        """Start a run of a deployment."""
        found = self.ask("GET", f"deployments/name/{deployment}")
        self.ask("POST", f"deployments/{found['id']}/create_flow_run", {})

    def clear_server(self) -> None:
        """Remove what an earlier test left on the server, except deployments, which it pauses."""
        self.pause_schedules()
        for kind in ("automations", "flow_runs"):
            for each in self.ask("POST", f"{kind}/filter", {}):
                self.ask("DELETE", f"{kind}/{each['id']}")
        for limit in self.ask("POST", "v2/concurrency_limits/filter", {}):
            self.ask("PATCH", f"v2/concurrency_limits/{limit['id']}", {"active_slots": 0})

    def remove_deployments(self) -> None:
        """Remove deployments and work pools, so that the next deploy is the first one."""
        for deployment in self.ask("POST", "deployments/filter", {}):
            self.ask("DELETE", f"deployments/{deployment['id']}")
        for pool in self.ask("POST", "work_pools/filter", {}):
            self.ask("DELETE", f"work_pools/{pool['name']}")

    def read_log(self, run_id: str) -> list[dict[str, Any]]:
        """Return the log of a run, in order."""
        ours = {"flow_run_id": {"any_": [run_id]}}
        log: list[dict[str, Any]] = self.ask("POST", "logs/filter", {"logs": ours})
        return sorted(log, key=lambda each: str(each["timestamp"]))

    def find_runs(self, flow: str, state: str) -> list[dict[str, Any]]:
        """Return the runs of a flow that are in a state."""
        wanted = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"type": {"any_": [state]}}},
        }
        found: list[dict[str, Any]] = self.ask("POST", "flow_runs/filter", wanted)
        return found

    def find_events(self, name: str) -> list[dict[str, Any]]:
        """Return this test's events of a name."""
        since = {"since": self.since.isoformat()}
        wanted = {"filter": {"event": {"name": [name]}, "occurred": since}}
        events: list[dict[str, Any]] = self.ask("POST", "events/filter", wanted)["events"]
        return events

    def end_run(self, flow_id: str, state: str, *, pause_s: float) -> str:
        """Create a run of a flow that ends in a state, then wait. Return the run's id."""
        run: str = self.ask("POST", "flow_runs/", {"flow_id": flow_id})["id"]
        self.ask("POST", f"flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
        time.sleep(pause_s)
        return run

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the response of Prefect's API; None if it is empty."""
        answer = self.request(method, path, body).raise_for_status()
        return answer.json() if answer.content else None

    def request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request to Prefect's API, with its password."""
        user, _, password = self.environment["PREFECT_API_AUTH_STRING"].partition(":")
        address, login = f"{self.server.page}/api/{path}", (user, password)
        return httpx.request(method, address, json=body, auth=login, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def team_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    """A Prefect server, started as the README says, on a separate database."""
    home = tmp_path_factory.mktemp("team")
    port = free_port()
    *exports, command = _readme_block("server start")
    shell = {**os.environ, "HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    shell.pop("PREFECT_API_AUTH_STRING", None)
    exported = _run_exports(exports, shell)
    variable = "PREFECT_API_DATABASE_CONNECTION_URL"
    assert variable in exported
    page = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        url = make_url(new_database(stack, postgres, "template0"))
        served = {
            variable: url.set(drivername="postgresql+asyncpg").render_as_string(False),
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        server = stack.enter_context(
            _run_process(command, {**exported, **served}, home / "server.log")
        )
        _wait_for(lambda: _answers(page, server))
        environment = _run_exports(_readme_block("export PREFECT_API_URL"), shell)
        yield TeamServer(
            page=page, home=home, environment={**environment, "PREFECT_API_URL": f"{page}/api"}
        )


@pytest.fixture
def team(
    team_server: TeamServer, environment: Path, database: Database, vendor: SandboxHandle
) -> Team:
    """A team with its own Postgres and vendor, on a server without runs, automations, schedules."""
    settings = {name: text for name, text in os.environ.items() if name.startswith("LEADLOOP_")}
    team = Team(
        server=team_server,
        environment={**team_server.environment, **settings},
        database=database,
        vendor=vendor,
        directory=environment,
        since=datetime.now(UTC),
    )
    team.clear_server()
    return team


def test_the_commands_of_the_readme(team: Team) -> None:
    """Four commands lead to a run that does everything at once; one with parameters goes too."""
    install, init, deploy, _ = _readme_commands()
    assert install == "make install"
    team.remove_deployments()
    with team.database.transaction() as connection:
        schema.drop_schema(connection)
    for command in (init, deploy):
        team.run_command(command)
    require_closed(f"{team.server.page}/api")
    (kept,) = team.server.home.glob(".prefect-password")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    factories.add_campaign(team.database)
    factories.add_campaign(team.database, "ANOTHER")
    factories.add_leads(team.database, "A", "B", "C")
    factories.add_leads(team.database, "D", campaign="ANOTHER")
    with team.run_worker():
        parameter = f"campaigns={json.dumps([CAMPAIGN])}"
        team.run_command(f"prefect deployment run sync-leads/default --param '{parameter}' --watch")
        assert team.vendor.store.creations(CAMPAIGN) == {"A": 1, "B": 1, "C": 1}
        # The live run creates the other campaign's lead.
        synced = "SELECT DISTINCT campaign_id FROM leadloop.sync_runs WHERE flow = 'sync-leads'"
        assert sql.fetch_rows(team.database, synced) == [{"campaign_id": CAMPAIGN}]
        _wait_for(lambda: team.find_runs("live-leads", "RUNNING"))
        _wait_for(lambda: list(team.vendor.store.creations("ANOTHER")))
        factories.add_opt_outs(team.database, "A")
        _wait_for(lambda: list(team.vendor.store.disabled(CAMPAIGN)))
        # On a slow machine, the run of five minutes later waits beside it.
        runs = team.find_runs("live-leads", "RUNNING")
        for run in runs:
            team.ask("POST", f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
        _wait_for(lambda: team.find_runs("live-leads", "CANCELLED")[len(runs) - 1 :])
    assert 1 <= len(runs) <= PLACES
    queues = {(run["work_pool_name"], run["work_queue_name"]) for run in runs}
    assert queues == {(WORK_POOL, LIVE_QUEUE)}
    assert set(sql.fetch_statuses(team.database).values()) == {"created"}
    assert _all_runs_ended(team.database), "a run that is cancelled ends in good order"


def test_every_campaign_has_a_run_of_its_own(team: Team) -> None:
    """Two workers share them; one campaign's failure is isolated; each problem alerts once."""
    team.deploy()
    team.run_command("prefect automation create --from-file automations.yaml")
    campaigns = ["FINE", "TOO", "FAILS"]
    for campaign in campaigns:
        factories.add_campaign(team.database, campaign)
        factories.add_leads(
            team.database, "A", factories.build_lead("bad", state_code="XX"), campaign=campaign
        )
    team.vendor.change_rules(campaigns={"FINE": "Fine", "TOO": "Fine too"})
    with team.run_worker(), team.run_worker():
        team.start_run("fan-out/default")
        fine = _wait_for(lambda: _at_least(team.find_runs("sync-leads", "COMPLETED"), 2))
        failed = _wait_for(lambda: team.find_runs("sync-leads", "FAILED"))
        _wait_for(lambda: _alerts(team, "leadloop: runs fail"))
        rejected = _wait_for(lambda: _at_least(_alerts(team, "leadloop: leads were rejected"), 3))
        wrong = _wait_for(lambda: _alerts(team, "leadloop: something is wrong with a campaign"))
    assert {run["name"] for run in fine} == {"sync-leads FINE", "sync-leads TOO"}
    assert [run["name"] for run in failed] == ["sync-leads FAILS"]
    assert "campaign FAILS" in failed[0]["state"]["message"]
    assert "; done: " in failed[0]["state"]["message"]
    creations = team.vendor.store.creations
    assert creations("FINE") == creations("TOO") == {"A": 1}
    assert sorted(rejected) == sorted(map(_resource, campaigns))
    # Its push and its poll emitted the event: the automation alerts once an hour.
    assert wrong == [_resource("FAILS")]


def test_silence_raises_an_alert(team: Team) -> None:
    """The alert fires a period after the last run ended, however it ended, or if none ever did."""
    automations = yaml.safe_load((_CHECKOUT / "automations.yaml").read_text())["automations"]
    pushes, polls = (
        next(each for each in automations if each["name"].startswith(f"leadloop: no {what} "))
        for what in ("push", "poll")
    )
    for automation in (pushes, polls):
        # The least that Prefect allows.
        automation["trigger"]["within"] = 10
        team.ask("POST", "automations/", automation)
    flow = team.ask("POST", "flows/", {"name": "push-leads"})["id"]
    # Together longer than the period.
    ended = [team.end_run(flow, state, pause_s=2) for state in ("COMPLETED", "FAILED") * 4]
    assert _wait_for(lambda: _alerts(team, pushes["name"])) == [f"prefect.flow-run.{ended[-1]}"]
    assert "nothing" in _alerts(team, polls["name"])


def test_a_worker_that_is_killed(team: Team) -> None:
    """Its flow process lives on for a while, beside the next run; no lead is created twice."""
    team.deploy()
    ids = [f"L{number}" for number in range(30)]
    factories.add_campaign(team.database, batch_size=1)
    factories.add_leads(team.database, *ids)
    team.vendor.add_fault(route="create", kind="slow", every=1, seconds=0.5)
    with team.run_worker() as worker:
        team.start_run("push-leads/default")
        _wait_for(lambda: list(team.vendor.store.creations(CAMPAIGN)))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        team.run_command("leadloop push")
        _wait_for(lambda: _all_runs_ended(team.database))
    assert team.vendor.store.creations(CAMPAIGN) == dict.fromkeys(ids, 1)
    assert set(sql.fetch_statuses(team.database).values()) == {"created"}


def test_no_run_sets_what_the_worker_executes(team: Team) -> None:
    """A run's job variables reach neither command nor environment, however it was created."""
    team.deploy()
    factories.add_campaign(team.database)
    factories.add_leads(team.database, "A")
    touched = team.directory / "touched"
    with run_sandbox(Rules(rate_limit=None, pace=None)) as elsewhere:
        variables = {
            "env": {"LEADLOOP_API_URL": elsewhere.url},
            "command": f"touch {touched}",
            "working_dir": str(team.directory),
        }
        deployment = team.ask("GET", "deployments/name/sync-leads/default")
        path = f"deployments/{deployment['id']}/create_flow_run"
        assert team.request("POST", path, {"job_variables": variables}).status_code == 422
        # Here Prefect compares nothing with the pool's template.
        run = team.ask(
            "POST",
            "flow_runs/",
            {
                "flow_id": deployment["flow_id"],
                "deployment_id": deployment["id"],
                "work_pool_name": WORK_POOL,
                "job_variables": variables,
                "state": {"type": "SCHEDULED"},
            },
        )
        assert run["job_variables"] == variables
        with team.run_worker():
            (ended,) = _wait_for(lambda: team.find_runs("sync-leads", "COMPLETED"))
        assert ended["id"] == run["id"]
        assert elsewhere.requests == []
    assert team.vendor.store.creations(CAMPAIGN) == {"A": 1}
    assert not touched.exists()


def test_a_worker_without_a_database(team: Team) -> None:
    """The run fails with one line that names the setting; no embedded Postgres is started.

    The line is the whole message of its state, and its log has no other error and no traceback.
    """
    team.deploy()
    logging_on = {"PREFECT_LOGGING_TO_API_ENABLED": "true", "PREFECT_LOGGING_LEVEL": "INFO"}
    with team.run_worker(LEADLOOP_DATABASE_URL="", **logging_on):
        team.start_run("push-leads/default")
        run, *_ = _wait_for(lambda: team.find_runs("push-leads", "FAILED"))
        message = run["state"]["message"]
        _wait_for(lambda: [each for each in team.read_log(run["id"]) if message in each["message"]])
    assert message.startswith("LEADLOOP_DATABASE_URL is not set: ")
    log = team.read_log(run["id"])
    assert [each["message"] for each in log if each["level"] >= logging.ERROR] == [message]
    assert all("\n" not in each["message"] for each in log)
    for folder in (team.directory, team.server.home):
        assert not list(folder.rglob(".leadloop"))


def _all_runs_ended(database: Database) -> list[str]:
    """Return an item once no run is at work."""
    at_work = "SELECT count(*) FROM leadloop.sync_runs WHERE state = 'running'"
    return [] if sql.fetch_value(database, at_work) else ["none"]


def _resource(campaign: str) -> str:
    """Return the resource of a campaign's events."""
    return f"leadloop.campaign.{campaign}"


def _at_least(found: list[T], amount: int) -> list[T]:
    """Return all of it if it has `amount` items, else nothing yet."""
    return found if len(found) >= amount else []


def _alerts(team: Team, automation: str) -> list[str]:
    """Return the resources of an automation's alerts so far; "nothing" for an alert of silence."""
    events = [
        event["payload"]["triggering_event"]
        for event in team.find_events("prefect.automation.triggered")
        if event["resource"]["prefect.resource.name"] == automation
    ]
    return [event["resource"]["prefect.resource.id"] if event else "nothing" for event in events]


def _answers(page: str, server: "subprocess.Popen[bytes]") -> list[str]:
    """Return an item once a server responds."""
    assert server.poll() is None, "it has ended"
    try:
        httpx.get(f"{page}/api/health", trust_env=False, timeout=60).raise_for_status()
    except httpx.TransportError:
        return []
    return ["it does"]


def _readme_block(words: str) -> list[str]:
    """Return the lines of the README's one block that holds these words."""
    blocks = re.findall(r"```sh\n(.*?)```", (_CHECKOUT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if words in block]
    lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
    # The tests' clone is this checkout, and its commands run there.
    lines = [line for line in lines if line != "cd ~/leadloop"]
    return [line for line in lines if line]


def _readme_commands() -> list[str]:
    """Return the commands that lead to a scheduled run; the last one is a worker."""
    return _readme_block("worker start")


def _run_exports(lines: list[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a shell after these lines."""
    script = "\n".join([*lines, "exec env -0"])
    told = subprocess.check_output(["sh", "-ec", script], env=dict(environment), text=True)
    return dict(line.split("=", 1) for line in told.rstrip("\0").split("\0"))


def _split_command(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    return [program if program == "make" else str(_BIN / Path(program).name), *rest]


@contextmanager
def _run_process(
    command: str, environment: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        log.open("a") as written,
        subprocess.Popen(
            _split_command(command),
            cwd=_CHECKOUT,
            env=dict(environment),
            stdout=written,
            stderr=written,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            # One that was killed has left nobody in its group, or its runs alone.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def _wait_for(look: Callable[[], list[T]]) -> list[T]:
    """Return what `look` finds, once it finds any; a minute's schedule may have just gone by."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not (found := look()):
        assert time.monotonic() < deadline, "there is none"
        time.sleep(0.5)
    return found
