"""`leadloop deploy`, which is `make deploy`: what is on a Prefect server afterwards."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.settings import PREFECT_API_URL

from leadloop.deployments import WORK_POOL
from tests.cli.conftest import Command
from tests.prefect_pools import read_work_pool

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("work_pools")]


def prefect_command(*arguments: str) -> None:
    """Run Prefect's own command on the server of the tests."""
    subprocess.run(
        [Path(sys.executable).with_name("prefect"), *arguments],
        check=True,
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()},
        stdout=subprocess.DEVNULL,
    )


def test_a_pool_that_is_there_stays_as_it_is(invoke: Command, prefect: str) -> None:
    """Whoever deploys again starts nothing that an operator has paused, and undoes no limit."""
    first = invoke("deploy", PREFECT_API_URL=prefect)
    assert (first.code, prefect in first.out, first.err) == (0, True, "")
    assert read_work_pool().type == "process"
    with get_client(sync_client=True) as client:
        client.update_work_pool(WORK_POOL, WorkPoolUpdate(is_paused=True, concurrency_limit=7))
    changed = read_work_pool()
    assert invoke("deploy", PREFECT_API_URL=prefect).code == 0
    assert read_work_pool() == changed
    assert (changed.is_paused, changed.concurrency_limit) == (True, 7)


def test_a_pool_in_which_runs_set_the_command_is_warned_of(invoke: Command, prefect: str) -> None:
    """The warning names what a run may set there, and a command that ends it."""
    with get_client(sync_client=True) as client:
        if WORK_POOL in {pool.name for pool in client.read_work_pools()}:
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


def test_the_kubernetes_pool_of_the_documents_is_kept(invoke: Command, prefect: str) -> None:
    """Prefect takes the job template, and there is nothing to warn about."""
    folder = Path(__file__).parents[2] / "docs" / "kubernetes"
    template = json.loads((folder / "job-template.json").read_text())
    with get_client(sync_client=True) as client:
        if WORK_POOL in {pool.name for pool in client.read_work_pools()}:
            client.delete_work_pool(WORK_POOL)
        client.create_work_pool(
            WorkPoolCreate(name=WORK_POOL, type="kubernetes", base_job_template=template)
        )
        try:
            ran = invoke("deploy", PREFECT_API_URL=prefect)
            pool = read_work_pool()
        finally:
            client.delete_work_pool(WORK_POOL)
    assert (ran.code, ran.err) == (0, "")
    assert (pool.type, pool.base_job_template) == ("kubernetes", template)
