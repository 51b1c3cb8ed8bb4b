"""`leadloop deploy`, which is `make deploy`: what is on a Prefect server afterwards."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.settings import PREFECT_API_URL

from leadloop import deployments
from leadloop.deployments import WORK_POOL
from tests.cli.conftest import Command


def pool() -> WorkPool:
    """The work pool as it is now."""
    with get_client(sync_client=True) as client:
        return client.read_work_pool(WORK_POOL)


def prefect_command(*arguments: str) -> None:
    """Run Prefect's own command on the server of the tests."""
    subprocess.run(
        [Path(sys.executable).with_name("prefect"), *arguments],
        check=True,
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()},
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.timeout(300)
def test_a_pool_that_is_there_stays_as_it_is(invoke: Command, prefect: str) -> None:
    """Whoever deploys again starts nothing that an operator has paused, and undoes no limit."""
    first = invoke("deploy", PREFECT_API_URL=prefect)
    assert (first.code, prefect in first.out, first.err) == (0, True, "")
    assert pool().type == "process"
    with get_client(sync_client=True) as client:
        client.update_work_pool(WORK_POOL, WorkPoolUpdate(is_paused=True, concurrency_limit=7))
    changed = pool()
    assert invoke("deploy", PREFECT_API_URL=prefect).code == 0
    assert pool() == changed
    assert (changed.is_paused, changed.concurrency_limit) == (True, 7)


@pytest.mark.timeout(300)
def test_a_pool_in_which_runs_set_the_command_is_warned_of(invoke: Command, prefect: str) -> None:
    """The warning names what a run may set there, and a command that ends it."""
    with get_client(sync_client=True) as client:
        for _ in client.read_work_pools():
            client.delete_work_pool(WORK_POOL)
    prefect_command("work-pool", "create", WORK_POOL, "--type", "process")
    told = invoke("deploy", PREFECT_API_URL=prefect)
    assert told.code == 0
    (line,) = told.err.splitlines()
    assert "each run may set command, env, working_dir;" in line
    program, *arguments = shlex.split(line.rpartition(": ")[2])
    assert program == "prefect"
    prefect_command(*arguments)
    assert invoke("deploy", PREFECT_API_URL=prefect).err == ""


def test_a_prefect_py_in_the_checkout(
    prefect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for Prefect, whose commands run in the folder of prefect.yaml."""
    shutil.copy(deployments._PREFECT_YAML, tmp_path)
    monkeypatch.setattr(deployments, "_PREFECT_YAML", tmp_path / "prefect.yaml")
    (tmp_path / "prefect.py").write_text("open('imported', 'w').close()\nraise SystemExit(9)\n")
    deployments.deploy_flows({**os.environ, "PREFECT_API_URL": prefect})
    assert pool().type == "process"
    assert not (tmp_path / "imported").exists()
