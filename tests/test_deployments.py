"""Prefect's own commands on the server of the tests: what they deploy, and how they fail."""

import os
import shutil
from pathlib import Path

import pytest

from leadloop import deployments
from leadloop.core.errors import UsageError
from tests.prefect_pools import read_work_pool

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("work_pools")]


@pytest.fixture
def server(prefect: str) -> dict[str, str]:
    """Return the environment that names the server."""
    return {**os.environ, "PREFECT_API_URL": prefect}


def test_prefect_py_in_the_checkout(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's commands run in the folder of prefect.yaml, and do not import such a file."""
    shutil.copy(deployments._PREFECT_YAML, tmp_path)
    monkeypatch.setattr(deployments, "_PREFECT_YAML", tmp_path / "prefect.yaml")
    (tmp_path / "prefect.py").write_text("open('imported', 'w').close()\nraise SystemExit(9)\n")
    deployments.deploy_flows(server)
    assert read_work_pool().type == "process"
    assert not (tmp_path / "imported").exists()


def test_checkout_without_prefect_yaml(
    server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file, and nothing is created on the server."""
    monkeypatch.setattr(deployments, "_PREFECT_YAML", tmp_path / "prefect.yaml")
    with pytest.raises(UsageError, match=rf"^{tmp_path}/prefect.yaml is missing: run this from"):
        deployments.deploy_flows({})


def test_deployment_that_does_not_exist(server: dict[str, str]) -> None:
    """One line has the command that failed, and Prefect's own reason."""
    line = "^`prefect deployment run nothing/at-all` failed: .*not found"
    with pytest.raises(UsageError, match=line):
        deployments.schedule_run(server, "nothing/at-all")
