"""From a fresh clone to a scheduled run: the README's commands on a real Prefect server."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from db import schema
from db.database import Database
from leadloop import whole_prefect
from leadloop.sandbox import Handle
from leadloop.whole_prefect import WholePrefect
from tests import books
from tests.books import CAMPAIGN
from tests.servers.conftest import free_port

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

T = TypeVar("T")

_CHECKOUT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_PATIENCE_S = 180.0


@pytest.fixture
def prefect(empty_database_url: str, tmp_path: Path) -> Iterator[WholePrefect]:
    """A real Prefect server, on a Postgres, with its scheduler."""
    url = empty_database_url.replace("postgresql+psycopg2", "postgresql+asyncpg")
    with whole_prefect.server(tmp_path / "prefect", url, free_port()) as server:
        server.wait()
        yield server


@pytest.fixture
def surroundings(prefect: WholePrefect, environment: Path) -> Mapping[str, str]:
    """What the environment of a user's shell says: where Prefect, Postgres and the vendor are."""
    ours = {name: text for name, text in os.environ.items() if name.startswith("LEADLOOP_")}
    return {**prefect.environment, **ours}


def test_the_commands_of_the_readme(
    prefect: WholePrefect,
    surroundings: Mapping[str, str],
    database: Database,
    vendor: Handle,
    tmp_path: Path,
) -> None:
    """Four commands lead to a scheduled run; a run by hand with parameters completes too."""
    install, init, deploy, worker = _commands()
    assert install == "make install"
    with database.begin() as connection:
        schema.remove(connection)
    for command in (init, deploy):
        _carry_out(command, surroundings)
    books.add_campaign(database)
    books.add_campaign(database, "ANOTHER")
    books.add_leads(database, "A", "B", "C")
    books.add_leads(database, "D", campaign="ANOTHER")
    with _running(worker, surroundings, tmp_path / "worker.log"):
        told = json.dumps([CAMPAIGN])
        _carry_out(
            f"prefect deployment run sync-leads/default --param 'campaigns={told}' --watch",
            surroundings,
        )
        assert vendor.books.creations(CAMPAIGN) == {"A": 1, "B": 1, "C": 1}
        assert vendor.books.creations("ANOTHER") == {}
        scheduled = _wait_for(lambda: _scheduled_runs(prefect, "COMPLETED"))
    assert {run["work_pool_name"] for run in scheduled} == {whole_prefect.POOL}


def test_every_campaign_has_a_run_of_its_own(
    prefect: WholePrefect,
    surroundings: Mapping[str, str],
    database: Database,
    vendor: Handle,
    tmp_path: Path,
) -> None:
    """Two workers share them; one campaign's failure is its own; what went wrong is an event."""
    whole_prefect.deploy(prefect)
    _carry_out("prefect automation create --from-file automations.yaml", surroundings)
    campaigns = ["FINE", "TOO", "FAILS"]
    for campaign in campaigns:
        books.add_campaign(database, campaign)
        books.add_leads(database, "A", books.lead("bad", state_code="XX"), campaign=campaign)
    vendor.change(campaigns={"FINE": "Fine", "TOO": "Fine too"})
    with (
        _running(_commands()[-1], surroundings, tmp_path / "1.log"),
        _running(_commands()[-1], surroundings, tmp_path / "2.log"),
    ):
        _carry_out("prefect deployment run fan-out/default --watch", surroundings)
        fine = _wait_for(lambda: _several(prefect, "COMPLETED", 2))
        failed = _wait_for(lambda: _several(prefect, "FAILED", 1))
        triggered = _wait_for(lambda: _events(prefect, "prefect.automation.action.triggered"))
    assert {run["name"] for run in fine} == {"sync-leads FINE", "sync-leads TOO"}
    assert [run["name"] for run in failed] == ["sync-leads FAILS"]
    assert "campaign FAILS" in failed[0]["state"]["message"]
    assert vendor.books.creations("FINE") == vendor.books.creations("TOO") == {"A": 1}
    told = {event["resource"]["prefect.resource.name"] for event in _rejections(prefect)}
    assert told == set(campaigns)
    assert triggered


def test_a_worker_that_is_killed(
    prefect: WholePrefect,
    surroundings: Mapping[str, str],
    database: Database,
    vendor: Handle,
    tmp_path: Path,
) -> None:
    """Its flow process lives on for a while, beside the next run, and nobody is created twice."""
    whole_prefect.deploy(prefect)
    ids = [f"L{number}" for number in range(30)]
    books.add_campaign(database, batch_size=1)
    books.add_leads(database, *ids)
    vendor.fault(route="create", kind="slow", every=1, seconds=0.5)
    with _running(_commands()[-1], surroundings, tmp_path / "worker.log") as worker:
        _carry_out("prefect deployment run push-leads/default", surroundings)
        _wait_for(lambda: list(vendor.books.creations(CAMPAIGN)))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        _carry_out("leadloop push", surroundings)
        _wait_for(lambda: _none_running(database))
    assert vendor.books.creations(CAMPAIGN) == dict.fromkeys(ids, 1)
    assert set(books.statuses(database).values()) == {"created"}


def _none_running(database: Database) -> list[str]:
    """Something, as soon as no run is at work any more."""
    at_work = "SELECT count(*) FROM leadloop.sync_runs WHERE state = 'running'"
    return [] if books.value(database, at_work) else ["none"]


def _several(prefect: WholePrefect, state: str, amount: int) -> list[dict[str, Any]]:
    """So many runs of sync-leads, or none."""
    found = _runs(prefect, "sync-leads", state)
    return found if len(found) >= amount else []


def _rejections(prefect: WholePrefect) -> list[dict[str, Any]]:
    return _events(prefect, "leadloop.leads.rejected")


def _events(prefect: WholePrefect, name: str) -> list[dict[str, Any]]:
    wanted = {"filter": {"event": {"name": [name]}}}
    answer = httpx.post(f"{prefect.page}/api/events/filter", json=wanted, trust_env=False)
    found: list[dict[str, Any]] = answer.raise_for_status().json()["events"]
    return found


def test_a_worker_without_a_database(
    prefect: WholePrefect, surroundings: Mapping[str, str], tmp_path: Path
) -> None:
    """The run fails with one line that says what to set; no embedded Postgres is started."""
    poor = {n: t for n, t in surroundings.items() if n != "LEADLOOP_DATABASE_URL"}
    whole_prefect.deploy(prefect)
    with _running(_commands()[-1], poor, tmp_path / "worker.log"):
        _carry_out("prefect deployment run push-leads/default", poor)
        (run,) = _wait_for(lambda: _runs(prefect, "push-leads", "FAILED"))
    assert "LEADLOOP_DATABASE_URL is not set" in run["state"]["message"]
    assert not list(tmp_path.rglob(".leadloop"))


def _commands() -> list[str]:
    """The lines of the README's block that ends with a worker."""
    blocks = re.findall(r"```sh\n(.*?)```", (_CHECKOUT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "worker start" in block]
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line]


def _words(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    return [program if program == "make" else str(_BIN / Path(program).name), *rest]


def _carry_out(command: str, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        _words(command), cwd=_CHECKOUT, env=dict(environment), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _running(
    command: str, environment: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        log.open("w") as written,
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


def _scheduled_runs(prefect: WholePrefect, state: str) -> list[dict[str, Any]]:
    return [run for run in _runs(prefect, "disable-leads", state) if run["auto_scheduled"]]


def _runs(prefect: WholePrefect, flow: str, state: str) -> list[dict[str, Any]]:
    wanted = {
        "flows": {"name": {"any_": [flow]}},
        "flow_runs": {"state": {"type": {"any_": [state]}}},
    }
    answer = httpx.post(f"{prefect.page}/api/flow_runs/filter", json=wanted, trust_env=False)
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def _wait_for(look: Callable[[], list[T]]) -> list[T]:
    """What is found as soon as there is any; a schedule of a minute may have just gone by."""
    deadline = time.monotonic() + _PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, "there is none"
        time.sleep(0.5)
    return found
