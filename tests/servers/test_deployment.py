"""From a fresh clone to a scheduled run: the README's commands on a real Prefect server."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml
from sqlalchemy import make_url

from db import schema
from db.database import Database
from leadloop import whole_prefect
from leadloop.sandbox import Handle, Rules, running
from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.servers.conftest import free_port, require_closed

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

T = TypeVar("T")

_CHECKOUT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_PATIENCE_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Team:
    """What a team has: a Prefect server, the environment of its shells, Postgres and the vendor."""

    page: str
    environment: Mapping[str, str]
    database: Database
    vendor: Handle
    directory: Path

    def carry_out(self, command: str) -> str:
        """A command in a shell of the checkout; fails where it does. Returns what it printed."""
        done = subprocess.run(
            _words(command),
            cwd=_CHECKOUT,
            env=dict(self.environment),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def worker(self, **more: str) -> Iterator["subprocess.Popen[bytes]"]:
        """The README's worker for the block; `more` of its environment, "" takes away."""
        environment = {**self.environment, **more}
        kept = {name: text for name, text in environment.items() if text}
        with _running(_readme_commands()[-1], kept, self.directory / "worker.log") as process:
            yield process

    def runs(self, flow: str, state: str) -> list[dict[str, Any]]:
        """The runs of a flow that are in a state."""
        wanted = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"type": {"any_": [state]}}},
        }
        found: list[dict[str, Any]] = self.ask("POST", "flow_runs/filter", wanted)
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of a name."""
        answer = self.ask("POST", "events/filter", {"filter": {"event": {"name": [name]}}})
        events: list[dict[str, Any]] = answer["events"]
        return events

    def let_end(self, flow_id: str, state: str, *, pause_s: float) -> str:
        """Have a run of a flow end in a state, and wait for a while. Returns the run's id."""
        run: str = self.ask("POST", "flow_runs/", {"flow_id": flow_id})["id"]
        self.ask("POST", f"flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
        time.sleep(pause_s)
        return run

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What Prefect's API answers; None where it says nothing."""
        answer = self.request(method, path, body).raise_for_status()
        return answer.json() if answer.content else None

    def request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Ask Prefect's API, with its password."""
        user, _, password = self.environment["PREFECT_API_AUTH_STRING"].partition(":")
        address, login = f"{self.page}/api/{path}", (user, password)
        return httpx.request(method, address, json=body, auth=login, trust_env=False, timeout=60)


@pytest.fixture
def team(
    empty_database_url: str, environment: Path, database: Database, vendor: Handle
) -> Iterator[Team]:
    """A team whose Prefect server is started as the README says, on a Postgres of its own."""
    url = make_url(empty_database_url).set(drivername="postgresql+asyncpg")
    port = free_port()
    *exports, command = _readme_block("server start")
    shell = {
        **os.environ,
        "HOME": str(environment),
        "PREFECT_HOME": str(environment / "prefect"),
    }
    shell.pop("PREFECT_API_AUTH_STRING", None)
    exported = _exported(exports, shell)
    variable = "PREFECT_API_DATABASE_CONNECTION_URL"
    assert variable in exported
    served = {
        variable: url.render_as_string(hide_password=False),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    page = f"http://127.0.0.1:{port}"
    with _running(command, {**exported, **served}, environment / "server.log") as server:
        _wait_for(lambda: _answers(page, server))
        yield Team(
            page=page,
            environment={
                **_exported(_readme_block("export PREFECT_API_URL"), shell),
                "PREFECT_API_URL": f"{page}/api",
            },
            database=database,
            vendor=vendor,
            directory=environment,
        )


def test_the_commands_of_the_readme(team: Team) -> None:
    """Four commands lead to a scheduled run; a run by hand with parameters completes too."""
    install, init, deploy, _ = _readme_commands()
    assert install == "make install"
    with team.database.transaction() as connection:
        schema.drop_schema(connection)
    for command in (init, deploy):
        team.carry_out(command)
    require_closed(f"{team.page}/api")
    (kept,) = team.directory.glob(".prefect-password")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    factories.add_campaign(team.database)
    factories.add_campaign(team.database, "ANOTHER")
    factories.add_leads(team.database, "A", "B", "C")
    factories.add_leads(team.database, "D", campaign="ANOTHER")
    with team.worker():
        told = json.dumps([CAMPAIGN])
        team.carry_out(
            f"prefect deployment run sync-leads/default --param 'campaigns={told}' --watch"
        )
        assert team.vendor.books.creations(CAMPAIGN) == {"A": 1, "B": 1, "C": 1}
        # The other one's leads may have gone out by a push that fell due meanwhile.
        told_to = "SELECT DISTINCT campaign_id FROM leadloop.sync_runs WHERE flow = 'sync-leads'"
        assert sql.fetch_rows(team.database, told_to) == [{"campaign_id": CAMPAIGN}]
        scheduled = _wait_for(lambda: _scheduled(team.runs("disable-leads", "COMPLETED")))
    assert {run["work_pool_name"] for run in scheduled} == {whole_prefect.POOL}


def test_every_campaign_has_a_run_of_its_own(team: Team) -> None:
    """Two workers share them; one campaign's failure is its own; what went wrong is told once."""
    team.carry_out("make deploy")
    team.carry_out("prefect automation create --from-file automations.yaml")
    campaigns = ["FINE", "TOO", "FAILS"]
    for campaign in campaigns:
        factories.add_campaign(team.database, campaign)
        factories.add_leads(
            team.database, "A", factories.build_lead("bad", state_code="XX"), campaign=campaign
        )
    team.vendor.change(campaigns={"FINE": "Fine", "TOO": "Fine too"})
    with team.worker(), team.worker():
        team.carry_out("prefect deployment run fan-out/default --watch")
        fine = _wait_for(lambda: _so_many(team.runs("sync-leads", "COMPLETED"), 2))
        failed = _wait_for(lambda: team.runs("sync-leads", "FAILED"))
        _wait_for(lambda: _told(team, "leadloop: runs fail"))
        rejected = _wait_for(lambda: _so_many(_told(team, "leadloop: leads were rejected"), 3))
        wrong = _wait_for(lambda: _told(team, "leadloop: something is wrong with a campaign"))
    assert {run["name"] for run in fine} == {"sync-leads FINE", "sync-leads TOO"}
    assert [run["name"] for run in failed] == ["sync-leads FAILS"]
    assert "campaign FAILS" in failed[0]["state"]["message"]
    # What exactly depends on whether the schedules' own runs have been faster.
    assert "; done: " in failed[0]["state"]["message"]
    creations = team.vendor.books.creations
    assert creations("FINE") == creations("TOO") == {"A": 1}
    assert sorted(rejected) == sorted(map(_resource, campaigns))
    # Its push has said it, and its poll: once an hour is often enough.
    assert wrong == [_resource("FAILS")]


def test_silence_is_told(team: Team) -> None:
    """So long after the last run that ended, however it ended; and where none ever did."""
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
    # Together longer than what is too long.
    ended = [team.let_end(flow, state, pause_s=2) for state in ("COMPLETED", "FAILED") * 4]
    assert _wait_for(lambda: _told(team, pushes["name"])) == [f"prefect.flow-run.{ended[-1]}"]
    assert "nothing" in _told(team, polls["name"])


def test_a_worker_that_is_killed(team: Team) -> None:
    """Its flow process lives on for a while, beside the next run, and nobody is created twice."""
    team.carry_out("make deploy")
    ids = [f"L{number}" for number in range(30)]
    factories.add_campaign(team.database, batch_size=1)
    factories.add_leads(team.database, *ids)
    team.vendor.fault(route="create", kind="slow", every=1, seconds=0.5)
    with team.worker() as worker:
        team.carry_out("prefect deployment run push-leads/default")
        _wait_for(lambda: list(team.vendor.books.creations(CAMPAIGN)))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        team.carry_out("leadloop push")
        _wait_for(lambda: _none_running(team.database))
    assert team.vendor.books.creations(CAMPAIGN) == dict.fromkeys(ids, 1)
    assert set(sql.fetch_statuses(team.database).values()) == {"created"}


def test_no_run_sets_what_the_worker_executes(team: Team) -> None:
    """Its job variables reach neither the command nor the environment, however it was made."""
    team.carry_out("make deploy")
    factories.add_campaign(team.database)
    factories.add_leads(team.database, "A")
    touched = team.directory / "touched"
    with running(Rules(rate_limit=None, pace=None)) as elsewhere:
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
                "work_pool_name": whole_prefect.POOL,
                "job_variables": variables,
                "state": {"type": "SCHEDULED"},
            },
        )
        assert run["job_variables"] == variables
        with team.worker():
            (ended,) = _wait_for(lambda: team.runs("sync-leads", "COMPLETED"))
        assert ended["id"] == run["id"]
        assert elsewhere.requests == []
    assert team.vendor.books.creations(CAMPAIGN) == {"A": 1}
    assert not touched.exists()


def test_a_worker_without_a_database(team: Team) -> None:
    """The run fails with one line that says what to set; no embedded Postgres is started."""
    team.carry_out("make deploy")
    with team.worker(LEADLOOP_DATABASE_URL=""):
        team.carry_out("prefect deployment run push-leads/default")
        run, *_ = _wait_for(lambda: team.runs("push-leads", "FAILED"))
    assert "LEADLOOP_DATABASE_URL is not set" in run["state"]["message"]
    assert not list(team.directory.rglob(".leadloop"))


def _none_running(database: Database) -> list[str]:
    """Something, as soon as no run is at work any more."""
    at_work = "SELECT count(*) FROM leadloop.sync_runs WHERE state = 'running'"
    return [] if sql.fetch_value(database, at_work) else ["none"]


def _resource(campaign: str) -> str:
    """The resource that a campaign's events are of."""
    return f"leadloop.campaign.{campaign}"


def _so_many(found: list[T], amount: int) -> list[T]:
    """All of it where it is so much, or nothing yet."""
    return found if len(found) >= amount else []


def _scheduled(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if run["auto_scheduled"]]


def _told(team: Team, automation: str) -> list[str]:
    """Of what an operator was told by an automation so far; of no event: "nothing"."""
    events = [
        event["payload"]["triggering_event"]
        for event in team.events("prefect.automation.triggered")
        if event["resource"]["prefect.resource.name"] == automation
    ]
    return [event["resource"]["prefect.resource.id"] if event else "nothing" for event in events]


def _answers(page: str, server: "subprocess.Popen[bytes]") -> list[str]:
    """Something, as soon as a server answers."""
    assert server.poll() is None, "it has ended"
    try:
        httpx.get(f"{page}/api/health", trust_env=False, timeout=60).raise_for_status()
    except httpx.TransportError:
        return []
    return ["it does"]


def _readme_block(words: str) -> list[str]:
    """The lines of the README's one block that holds these words."""
    blocks = re.findall(r"```sh\n(.*?)```", (_CHECKOUT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if words in block]
    lines = [line.partition(" #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line]


def _readme_commands() -> list[str]:
    """What leads to a scheduled run; the last one is a worker."""
    return _readme_block("worker start")


def _exported(lines: list[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that a shell has after these lines."""
    script = "\n".join([*lines, "exec env -0"])
    told = subprocess.check_output(["sh", "-ec", script], env=dict(environment), text=True)
    return dict(line.split("=", 1) for line in told.rstrip("\0").split("\0"))


def _words(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    return [program if program == "make" else str(_BIN / Path(program).name), *rest]


@contextmanager
def _running(
    command: str, environment: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        log.open("a") as written,
        subprocess.Popen(
            _words(command),
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
    """What is found as soon as there is any; a schedule of a minute may have just gone by."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, "there is none"
        time.sleep(0.5)
    return found
